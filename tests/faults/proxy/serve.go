package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"certrotation.dev/tests/faults/fault"
)

// proxy is the whole of it.
type proxy struct {
	*teller
	server, pki string
	upstream    *http.Transport
	tokens      tokens
	gate        gate

	mu       sync.Mutex
	schedule *fault.Schedule
	name     string        // of the schedule
	over     chan struct{} // closed when the schedule is replaced
	past     past
}

func newProxy(server, pki string, t *teller) *proxy {
	p := &proxy{teller: t, server: server, pki: pki, schedule: &fault.Schedule{}, over: make(chan struct{})}
	p.gate.tell, p.tokens.tell = t.tell, t.tell
	p.upstream = &http.Transport{DialTLSContext: p.dial, MaxIdleConnsPerHost: 32, IdleConnTimeout: 30 * time.Second}
	return p
}

// dial takes the trust of its moment.
func (p *proxy) dial(ctx context.Context, network, address string) (net.Conn, error) {
	text, err := os.ReadFile(filepath.Join(p.pki, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s/ca.crt holds no certificate", p.pki)
	}
	d := tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}}
	return d.DialContext(ctx, network, address)
}

// serve answers until the listener is closed.
func (p *proxy) serve(listener net.Listener) error {
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(filepath.Join(p.pki, "apiserver.crt"), filepath.Join(p.pki, "apiserver.key"))
			return &pair, err
		}}
	s := &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: 30 * time.Second}
	return s.Serve(tls.NewListener(listener, config))
}

// begin replaces the schedule; what is stalled goes on.
func (p *proxy) begin(c fault.Command) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.over)
	p.over = make(chan struct{})
	p.schedule = &fault.Schedule{Seed: c.Seed, Kinds: c.Kinds}
	p.name = c.Name
	p.past = past{}
}

func (p *proxy) present() (schedule *fault.Schedule, name string, over chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.schedule, p.name, p.over
}

// exchange is one request and what becomes of it.
type exchange struct {
	*proxy
	w        http.ResponseWriter
	r        *http.Request
	body     []byte
	schedule *fault.Schedule
	over     chan struct{}
	entry    fault.Entry
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{proxy: p, w: w, r: r}
	x.schedule, x.entry.Schedule, x.over = p.present()
	x.entry.At, x.entry.What = time.Now(), fault.Request
	var err error
	if x.body, err = io.ReadAll(r.Body); err != nil {
		return // the client is gone
	}
	x.describe()
	p.gate.hear(&x.entry)
	if p.tokens.refuses(bearer(r), x.entry.Pod) {
		x.entry.What = fault.Refused
		x.status(http.StatusUnauthorized, "Unauthorized", "Unauthorized")
		p.tell(x.entry)
		return
	}
	p.gate.pass(&x.entry)
	x.carryOut()
	if x.entry.Class == fault.Write || x.entry.Kind != "" || x.entry.Error != "" {
		p.tell(x.entry)
	}
}

func bearer(r *http.Request) string {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return token
}

// carryOut does what the schedule says.
func (x *exchange) carryOut() {
	if x.entry.Class == fault.Stream {
		x.watch()
		return
	}
	kind := x.schedule.Strike(x.entry.Class, x.r.Method, x.r.URL.Path)
	x.entry.Kind = kind
	switch kind {
	case fault.Conflict, fault.Gone, fault.Busy, fault.Internal, fault.Unavailable:
		x.refuse(kind)
		return
	}
	answer, err := x.ask()
	if err != nil {
		x.broken(err)
		return
	}
	if x.entry.Class != fault.Write {
		answer = x.pastOr(answer, kind == fault.Stale)
	}
	x.give(answer, kind)
}

// answer is what the API server said, whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// send passes the request on. It ends with the client, or with the schedule.
func (x *exchange) send(ctx context.Context) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, x.r.Method, x.server+x.r.URL.RequestURI(), strings.NewReader(string(x.body)))
	if err != nil {
		return nil, err
	}
	request.Header = x.r.Header.Clone()
	request.Header.Del("Connection")
	request.Header.Set("Accept-Encoding", "identity")
	return x.upstream.RoundTrip(request)
}

// ask waits for the answer even when the client is gone: a write that was begun is recorded as what it was.
func (x *exchange) ask() (*answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	response, err := x.send(ctx)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	x.entry.Answer = response.StatusCode
	if x.entry.Class == fault.Write {
		x.entry.Version = version(x.r.URL.Path, body)
	}
	return &answer{response.StatusCode, response.Header, body}, nil
}

// broken tells of what the proxy could not do; the client hears what a gateway says.
func (x *exchange) broken(err error) {
	x.entry.Error = err.Error()
	x.status(http.StatusBadGateway, "", err.Error())
}
