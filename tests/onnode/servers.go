package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"slices"
	"sort"
	"strings"
	"time"

	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/snapshot"
)

// servers are the TLS servers of a node's components; those that do not answer are passed over.
var servers = []string{"127.0.0.1:6443", "127.0.0.1:10250", "127.0.0.1:10257", "127.0.0.1:10259"}

// followServers tells what servers present and whose clients they say they accept, when it changes. It
// looks twice a second, and every 20 ms for three seconds after a file changed.
func followServers(t *teller, nudge <-chan struct{}, ready func()) error {
	seen := map[string]string{}
	already := true
	for {
		for _, address := range servers {
			look(t, address, seen, already)
		}
		already = false
		ready()
		select {
		case <-nudge:
			for until := time.Now().Add(3 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
				look(t, servers[0], seen, false)
				look(t, servers[1], seen, false)
			}
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func look(t *teller, address string, seen map[string]string, already bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var chain []*x509.Certificate
	var names []string
	config := &tls.Config{
		InsecureSkipVerify: true, // it is looked at, not trusted
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			for _, der := range raw {
				if c, err := x509.ParseCertificate(der); err == nil {
					chain = append(chain, c)
				}
			}
			return nil
		},
		GetClientCertificate: func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			names = authorityNames(request.AcceptableCAs)
			return &tls.Certificate{}, nil
		},
	}
	dialer := tls.Dialer{NetDialer: &net.Dialer{}, Config: config}
	if conn, err := dialer.DialContext(ctx, "tcp", address); err == nil {
		conn.Close()
	}
	if len(chain) == 0 {
		return
	}
	tellServer(t, address, chain, names, seen, already)
}

func tellServer(t *teller, address string, chain []*x509.Certificate, names []string, seen map[string]string, already bool) {
	var certificates []snapshot.Certificate
	var prints []string
	for _, c := range chain {
		certificates = append(certificates, snapshot.Describe("", c))
		prints = append(prints, snapshot.Fingerprint(c))
	}
	if key := strings.Join(prints, " "); seen["presents "+address] != key {
		seen["presents "+address] = key
		t.tell(nodes.Event{What: nodes.Presents, Path: address, Certificates: brief(certificates), Already: already})
	}
	if key := strings.Join(names, "\n"); seen["accepts "+address] != key {
		seen["accepts "+address] = key
		t.tell(nodes.Event{What: nodes.Accepts, Path: address, Names: names, Already: already})
	}
}

func authorityNames(raw [][]byte) []string {
	var names []string
	for _, der := range raw {
		var sequence pkix.RDNSequence
		if _, err := asn1.Unmarshal(der, &sequence); err == nil {
			names = append(names, sequence.String())
		}
	}
	sort.Strings(names)
	return slices.Compact(names)
}
