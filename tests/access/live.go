package access

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"k8s.io/client-go/rest"
)

// Live is the tests' own way in, which works before, during and after a rotation: a ServiceAccount
// token, and trust in every authority that was ever published.
type Live struct {
	Server      string // https://host:port
	Token       string
	Authorities *Authorities
}

// TLS gives the trust of this moment.
func (l *Live) TLS() *tls.Config {
	known, _ := l.Authorities.Known()
	return &tls.Config{RootCAs: Pool(known...), MinVersion: tls.VersionTLS12}
}

// Config is for clients that are kept: each new connection takes the trust of its moment.
func (l *Live) Config() *rest.Config {
	return &rest.Config{Host: l.Server, BearerToken: l.Token, Transport: l.transport(), QPS: 200, Burst: 400}
}

// Fresh is for one use: its trust is fixed, and a client made from it shares no connection with any other.
func (l *Live) Fresh() *rest.Config {
	known, _ := l.Authorities.Known()
	var bundle []byte
	for _, c := range known {
		bundle = append(bundle, PEM(c)...)
	}
	return &rest.Config{Host: l.Server, BearerToken: l.Token,
		TLSClientConfig: rest.TLSClientConfig{CAData: bundle}, QPS: -1}
}

func (l *Live) transport() *http.Transport {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		// Longer than an API server keeps new connections waiting while etcd restarts.
		d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 30 * time.Second}, Config: l.TLS()}
		return d.DialContext(ctx, network, address)
	}
	return &http.Transport{DialTLSContext: dial, IdleConnTimeout: 30 * time.Second, MaxIdleConnsPerHost: 8}
}

// Proxy serves the API in plain HTTP on a loopback port until ctx ends, for programs whose trust is
// fixed at start, kubectl above all. It gives the URL.
func (l *Live) Proxy(ctx context.Context) (string, error) {
	target, err := url.Parse(l.Server)
	if err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	proxy := &httputil.ReverseProxy{Transport: l.transport(), FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Set("Authorization", "Bearer "+l.Token)
		}}
	server := &http.Server{Handler: proxy, ReadHeaderTimeout: 10 * time.Second}
	go func() { <-ctx.Done(); _ = server.Close() }()
	go func() { _ = server.Serve(listener) }()
	return "http://" + listener.Addr().String(), nil
}
