// Package probe asks an API server all the time, in new TLS connections, whether it still serves the
// clients that it should, and writes down every answer.
//
// Invariants:
//   - Every attempt is its own TCP and TLS connection; no session is resumed.
//   - An attempt has one result: served (HTTP 200), or failed with an error and a kind. Nothing is
//     repeated to make it good, and nothing is left out: an attempt that could not be started in its
//     turn because too many were waiting is recorded as failed.
//   - A probe starts when what it needs exists (see Arms), and never stops before the end.
//   - The probes know nothing of what ought to work in which phase. They record; tests judge.
package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// Trust says which authorities a probe accepts.
type Trust string

// Credential says as whom a probe comes.
type Credential string

const (
	OldTrust  Trust = "old"
	BothTrust Trust = "both"
	NewTrust  Trust = "new"

	OldCertificate Credential = "old-certificate"
	NewCertificate Credential = "new-certificate"
	Token          Credential = "token"
)

// Cell is one kind of client.
type Cell struct {
	Trust      Trust      `json:"trust"`
	Credential Credential `json:"credential"`
}

func (c Cell) String() string { return string(c.Trust) + "-trust/" + string(c.Credential) }

// Cells gives all nine kinds.
func Cells() []Cell {
	var all []Cell
	for _, t := range []Trust{OldTrust, BothTrust, NewTrust} {
		for _, c := range []Credential{OldCertificate, NewCertificate, Token} {
			all = append(all, Cell{t, c})
		}
	}
	return all
}

// Rate is how often per second a kind is probed: the three that stand for most clients 20 times, the
// others 4 times, which together take less than half a core on both sides.
func (c Cell) Rate() float64 {
	switch c {
	case Cell{OldTrust, OldCertificate}, Cell{BothTrust, Token}, Cell{NewTrust, NewCertificate}:
		return 20
	}
	return 4
}

// Kind says what kind of failure was seen.
type Kind string

const (
	Served       Kind = ""
	Untrusted    Kind = "untrusted"    // the client does not accept the server's certificate
	Unauthorized Kind = "unauthorized" // 401: the server does not accept the client
	Forbidden    Kind = "forbidden"    // 403
	ServerError  Kind = "server-error" // any other status
	Refused      Kind = "refused"
	Reset        Kind = "reset" // the connection ended too early
	Timeout      Kind = "timeout"
	Overrun      Kind = "overrun" // too many attempts were still waiting
	Other        Kind = "other"
)

// Attempt is one probe and its result.
type Attempt struct {
	Cell    Cell          `json:"cell"`
	Started time.Time     `json:"started"`
	Took    time.Duration `json:"tookNanos"`
	Kind    Kind          `json:"kind"`
	Error   string        `json:"error"`
	Server  string        `json:"server"` // address, and issuer and fingerprint of the certificate that it presented
	Phase   string        `json:"phase"`  // of the rotation, when the attempt ended
}

// Ended is when the result was known.
func (a *Attempt) Ended() time.Time { return a.Started.Add(a.Took) }

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// request is what one attempt needs.
type request struct {
	address     string // host:port that is dialled
	path        string
	roots       *x509.CertPool
	certificate *tls.Certificate
	token       string
}

// Client is one that a test asks by itself, beside the nine kinds.
type Client struct {
	Address     string // host:port that is dialled
	Path        string
	Roots       *x509.CertPool
	Certificate *tls.Certificate // nil: none
	Token       string           // "": none
}

// Ask makes one attempt; it belongs to no cell and no phase.
func (c *Client) Ask(ctx context.Context) Attempt {
	a, _ := try(ctx, request{address: c.Address, path: c.Path, roots: c.Roots, certificate: c.Certificate, token: c.Token})
	return a
}

// try gives an attempt's result, and what the server presented.
func try(ctx context.Context, r request) (Attempt, []*x509.Certificate) {
	started := time.Now()
	chain, err := ask(ctx, r)
	a := Attempt{Started: started, Took: time.Since(started), Kind: classify(err), Server: describe(r.address, chain)}
	if err != nil {
		a.Error = err.Error()
	}
	return a, chain
}

// ask makes one connection and one request on it.
func ask(ctx context.Context, r request) (chain []*x509.Certificate, err error) {
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", r.address)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = raw.SetDeadline(deadline)
	}
	host, _, _ := net.SplitHostPort(r.address)
	config := &tls.Config{RootCAs: r.roots, ServerName: host, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if r.certificate != nil {
		// As client-go does: sent always. Go's own choice would send none to a server that does not name its
		// issuer, and be nobody (403) where it should be refused (401).
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return r.certificate, nil }
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		var untrusted *tls.CertificateVerificationError
		if errors.As(err, &untrusted) {
			chain = untrusted.UnverifiedCertificates
		}
		return chain, err
	}
	return conn.ConnectionState().PeerCertificates, get(ctx, conn, r)
}

// Status is the answer of a server that is not 200.
type Status struct {
	Code    int
	Message string
}

func (s *Status) Error() string { return fmt.Sprintf("HTTP %d: %s", s.Code, s.Message) }

func get(ctx context.Context, conn net.Conn, r request) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+r.address+r.path, nil)
	if err != nil {
		return err
	}
	req.Close = true
	req.Header.Set("User-Agent", "certrotation-probe")
	req.Header.Set("Accept", "application/json")
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	return exchange(conn, req)
}

func classify(err error) Kind {
	var status *Status
	var untrusted *tls.CertificateVerificationError
	var network net.Error
	switch {
	case err == nil:
		return Served
	case errors.As(err, &status):
		return classifyStatus(status.Code)
	case errors.As(err, &untrusted):
		return Untrusted
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE):
		return Reset
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return Timeout
	}
	return Other
}

func classifyStatus(code int) Kind {
	switch code {
	case http.StatusUnauthorized:
		return Unauthorized
	case http.StatusForbidden:
		return Forbidden
	}
	return ServerError
}

func describe(address string, chain []*x509.Certificate) string {
	if len(chain) == 0 {
		return address
	}
	issuer := chain[0].Issuer.String()
	return fmt.Sprintf("%s presented %s issued by %s, chain of %d", address, short(chain[0]), strings.TrimSpace(issuer), len(chain))
}
