package pki

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What one end of a connection does. Empty certificates: presents none. Empty trust: does not verify.
type settings struct {
	server bool
	shows  presented
	trust  string
}

// An end runs one connection over the given transport: a handshake, then "ping" from the client and "pong" from the server.
// The error is *refusal when it did not trust the other, any other error when the other hung up.
type end interface {
	run(s settings, transport net.Conn) error
}

type refusal struct{ reason string }

func (r *refusal) Error() string { return "refused: " + r.reason }

type ends struct {
	fallback presented // what a server shows to a client that does not verify: any
	byStack  map[string][2]end
	count    int
}

func newEnds(t *testing.T, r *rotation) *ends {
	t.Helper()
	return &ends{
		fallback: presented{filepath.Join(r.folder, "client.crt"), filepath.Join(r.folder, "client.key")},
		byStack: map[string][2]end{
			"Go":      {goEnd{}, goEnd{}},
			"OpenSSL": {startPeer(t), startPeer(t)},
		},
	}
}

// expect has one end present and the other verify, and compares with the verdict.
func (e *ends) expect(t *testing.T, name, role, presents, verifies string, shows presented, trust string, wanted bool) {
	t.Helper()
	e.count++
	presenter, verifier := settings{server: role == "server", shows: shows}, settings{server: role == "client", trust: trust}
	if verifier.server {
		verifier.shows = e.fallback
	}
	left, right := socketPair(t)
	done := make(chan error, 1)
	go func() { done <- e.byStack[presents][0].run(presenter, left) }()
	verifierErr := e.byStack[verifies][1].run(verifier, right)
	presenterErr := <-done
	var refused *refusal
	switch {
	case wanted && (verifierErr != nil || presenterErr != nil):
		t.Errorf("%s: should be accepted, but: verifier: %v; presenter: %v", name, verifierErr, presenterErr)
	case !wanted && !errors.As(verifierErr, &refused):
		t.Errorf("%s: should be refused for its issuer, but: verifier: %v; presenter: %v", name, verifierErr, presenterErr)
	case !wanted && presenterErr == nil:
		t.Errorf("%s: refused (%v), and the presenter did not notice", name, verifierErr)
	}
}

func socketPair(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var pair [2]net.Conn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "socketpair")
		if pair[i], err = net.FileConn(file); err != nil {
			t.Fatal(err)
		}
		file.Close()
		pair[i].SetDeadline(time.Now().Add(60 * time.Second))
	}
	return pair[0], pair[1]
}

// --- Go ---

type goEnd struct{}

var pairs sync.Map // Go proves an RSA key whenever it reads one, which takes longer than a handshake

func loadPair(shows presented) (tls.Certificate, error) {
	if pair, ok := pairs.Load(shows); ok {
		return pair.(tls.Certificate), nil
	}
	pair, err := tls.LoadX509KeyPair(shows.certificates, shows.key)
	if err == nil {
		pairs.Store(shows, pair)
	}
	return pair, err
}

func (goEnd) run(s settings, transport net.Conn) error {
	config := &tls.Config{ServerName: "localhost", InsecureSkipVerify: !s.server && s.trust == ""}
	if s.shows.certificates != "" {
		pair, err := loadPair(s.shows)
		if err != nil {
			return err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	if s.trust != "" {
		text, err := os.ReadFile(s.trust)
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(text)
		config.RootCAs, config.ClientCAs, config.ClientAuth = pool, pool, tls.RequireAndVerifyClientCert
	}
	return goTalk(s, config, transport)
}

func goTalk(s settings, config *tls.Config, transport net.Conn) error {
	defer transport.Close()
	connection := tls.Client(transport, config)
	if s.server {
		connection = tls.Server(transport, config)
	}
	if err := connection.Handshake(); err != nil {
		return goError(err)
	}
	said, heard := "ping", "pong"
	if s.server {
		said, heard = heard, said
	}
	buffer := make([]byte, 4)
	if !s.server {
		if _, err := io.WriteString(connection, said); err != nil {
			return err
		}
	}
	if _, err := io.ReadFull(connection, buffer); err != nil || string(buffer) != heard {
		return fmt.Errorf("heard %q: %w", buffer, err)
	}
	if s.server {
		if _, err := io.WriteString(connection, said); err != nil {
			return err
		}
	}
	return nil
}

// goError: crypto/tls leaves a client without certificate a plain text; a Go client withholds one whose issuers are not
// among the acceptable CAs that the server named.
func goError(err error) error {
	var verification *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &verification) {
		if !errors.As(verification.Err, &unknown) {
			return err
		}
		return &refusal{err.Error()}
	}
	if strings.Contains(err.Error(), "client didn't provide a certificate") {
		return &refusal{err.Error()}
	}
	return err
}

// --- OpenSSL: a process that obeys line by line ---

type peer struct {
	orders   io.Writer
	answers  *bufio.Reader
	listener *net.UnixListener
}

func startPeer(t *testing.T) *peer {
	t.Helper()
	folder, err := os.MkdirTemp("", "peer") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(filepath.Join(repository, peerPath))
	command.Stderr = os.Stderr
	orders, err1 := command.StdinPipe()
	answers, err2 := command.StdoutPipe()
	listener, err3 := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(folder, "s"), Net: "unix"})
	if err := errors.Join(err1, err2, err3, command.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		orders.Close()
		listener.Close()
		os.RemoveAll(folder)
		if err := command.Wait(); err != nil {
			t.Errorf("pki-peer: %v", err)
		}
	})
	return &peer{orders, bufio.NewReader(answers), listener}
}

func (p *peer) run(s settings, transport net.Conn) error {
	role := map[bool]string{true: "server", false: "client"}[s.server]
	dash := func(path string) string {
		if path == "" {
			return "-"
		}
		return path
	}
	defer transport.Close()
	if _, err := fmt.Fprintln(p.orders, role, p.listener.Addr(), dash(s.shows.certificates), dash(s.shows.key), dash(s.trust)); err != nil {
		return err
	}
	p.listener.SetDeadline(time.Now().Add(60 * time.Second))
	process, err := p.listener.AcceptUnix()
	if err != nil {
		return err
	}
	defer process.Close()
	splice(process, transport)
	answer, err := p.answers.ReadString('\n')
	if err != nil {
		return err
	}
	return peerError(strings.TrimSpace(answer))
}

// splice passes bytes both ways until the process is done. What it said last still reaches the other end.
func splice(process *net.UnixConn, transport net.Conn) {
	go func() {
		io.Copy(process, transport)
		process.CloseWrite()
	}()
	io.Copy(transport, process)
	if half, ok := transport.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}

func peerError(answer string) error {
	if answer == "ok" {
		return nil
	}
	for _, reason := range []string{"unable to get local issuer certificate", "unable to get issuer certificate",
		"self-signed certificate in certificate chain", "peer did not return a certificate", "certificate signature failure"} {
		if answer == "refused "+reason {
			return &refusal{reason}
		}
	}
	return errors.New(answer)
}
