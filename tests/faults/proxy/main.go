// Proxy stands on a control-plane node, before its API server, and gives those who come through it bad days (../fault).
//
//	proxy [-listen :7443] [-server https://127.0.0.1:6443] [-pki /etc/kubernetes/pki]
//
// It is told what to do by lines of JSON on standard input (fault.Command), tells what it saw in lines of JSON on standard output
// (fault.Entry), and ends with its standard input.
//
// Invariants:
//   - It presents the API server's own certificate and trusts its authority, both read anew from the files for each connection. So
//     whoever comes through it trusts what the API server itself would have to be trusted for, through a rotation too.
//   - Who a client is stays between him and the API server: tokens are passed on, and are in no record.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sync"
	"time"

	"certrotation.dev/tests/faults/fault"
)

func main() {
	listen := flag.String("listen", ":7443", "address to listen on")
	server := flag.String("server", "https://127.0.0.1:6443", "the API server")
	pki := flag.String("pki", "/etc/kubernetes/pki", "folder with ca.crt, apiserver.crt and apiserver.key")
	flag.Parse()
	if err := run(*listen, *server, *pki); err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}

func run(listen, server, pki string) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	p := newProxy(server, pki, newTeller(os.Stdout))
	failed := make(chan error, 1)
	go func() { failed <- p.serve(listener) }()
	p.tell(fault.Entry{What: fault.Listening, Note: listener.Addr().String()})
	ended := make(chan error, 1)
	go func() { ended <- p.obey(os.Stdin) }()
	select {
	case err := <-failed:
		return err
	case err := <-ended:
		return err
	}
}

// obey carries commands out until there are no more.
func (p *proxy) obey(in io.Reader) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var c fault.Command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			return fmt.Errorf("%w in %q", err, lines.Text())
		}
		if err := p.command(c); err != nil {
			return err
		}
		p.tell(fault.Entry{What: fault.Obeyed, Note: c.Do})
	}
	return lines.Err()
}

func (p *proxy) command(c fault.Command) error {
	switch c.Do {
	case fault.Begin:
		p.begin(c)
	case fault.Hold:
		p.gate.hold(c.Pod, c.Nth)
	case fault.Release:
		p.gate.release()
	case fault.Listen:
		p.gate.listen(c.Pod)
	case fault.Expire:
		p.tokens.expire()
	default:
		return fmt.Errorf("no command %q", c.Do)
	}
	return nil
}

// teller writes entries, one per line.
type teller struct {
	mu  sync.Mutex
	out *json.Encoder
}

func newTeller(out io.Writer) *teller { return &teller{out: json.NewEncoder(out)} }

func (t *teller) tell(e fault.Entry) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	e.Ended = time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.out.Encode(e); err != nil {
		log.Fatal(err) // nobody listens any more
	}
}
