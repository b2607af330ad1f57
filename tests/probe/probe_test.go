package probe

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func authority(t *testing.T, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	return sign(t, template, template, key, key), key
}

func sign(t *testing.T, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func leaf(t *testing.T, name string, ca *x509.Certificate, by *ecdsa.PrivateKey) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	c := sign(t, template, ca, key, by)
	return &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
}

// server answers like an API server: 401 to a certificate of an authority that it does not accept.
func server(t *testing.T, present *tls.Certificate, accept *x509.Certificate) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 {
			w.WriteHeader(http.StatusForbidden)
		} else if r.TLS.PeerCertificates[0].CheckSignatureFrom(accept) != nil {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	pool := x509.NewCertPool()
	pool.AddCert(accept)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{*present}, ClientAuth: tls.RequestClientCert, ClientCAs: pool}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestKinds(t *testing.T) {
	old, oldKey := authority(t, "old")
	new, newKey := authority(t, "new")
	address := server(t, leaf(t, "server", old, oldKey), old)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, c := range []struct {
		name, address string
		trust         *x509.Certificate
		as            *tls.Certificate
		want          Kind
	}{
		{"good", address, old, leaf(t, "client", old, oldKey), Served},
		{"a stranger for the server", address, old, leaf(t, "client", new, newKey), Unauthorized},
		{"a stranger for the client", address, new, leaf(t, "client", old, oldKey), Untrusted},
		{"nobody listens", closed.Addr().String(), old, nil, Refused},
		{"nobody answers", silent.Addr().String(), old, nil, Timeout},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		pool := x509.NewCertPool()
		pool.AddCert(c.trust)
		got := (&Client{Address: c.address, Path: "/", Roots: pool, Certificate: c.as}).Ask(ctx)
		cancel()
		if got.Kind != c.want {
			t.Errorf("%s: %q (%s), expected %q", c.name, got.Kind, got.Error, c.want)
		}
	}
}

// A set notices when the server it probes changes, and new trust begins when the server is ready for it.
func TestSetArms(t *testing.T) {
	old, oldKey := authority(t, "old")
	new, newKey := authority(t, "new")
	keys := NewKeyring(old, leaf(t, "client", old, oldKey), "")
	set := &Set{Address: server(t, leaf(t, "server", new, newKey), old), Path: "/", Keys: keys, Timeout: 5 * time.Second}
	ctx, cancel := context.WithTimeout(context.Background(), 2500*time.Millisecond)
	defer cancel()
	learned := time.Now().Add(800 * time.Millisecond)
	time.AfterFunc(800*time.Millisecond, func() { keys.SetNew(new) })
	set.Run(ctx)
	byCell := map[Cell][]Attempt{}
	for _, a := range set.Attempts() {
		byCell[a.Cell] = append(byCell[a.Cell], a)
	}
	for _, a := range byCell[Cell{NewTrust, OldCertificate}] {
		if a.Kind != Served || a.Started.Before(learned) {
			t.Errorf("new trust before there was any, or not served: %+v", a)
		}
	}
	if n := len(byCell[Cell{NewTrust, OldCertificate}]); n < 3 || set.Armed().IsZero() {
		t.Errorf("new trust was tried %d times", n)
	}
	if failed := Failed(byCell[Cell{OldTrust, OldCertificate}]); len(failed) < 20 || failed[0].Kind != Untrusted {
		t.Errorf("old trust did not fail all the time: %s", Tell(failed))
	}
	for _, a := range byCell[Cell{BothTrust, OldCertificate}] {
		if (a.Kind == Served) != a.Started.After(learned) && a.Started.Sub(learned).Abs() > 100*time.Millisecond {
			t.Errorf("both trusts: %+v", a)
		}
	}
	if len(byCell[Cell{OldTrust, NewCertificate}])+len(byCell[Cell{OldTrust, Token}]) > 0 {
		t.Error("probes with credentials that do not exist")
	}
}

// A factor makes a kind rarer, and kinds that were not asked for are not probed.
func TestSetFactor(t *testing.T) {
	authority, key := authority(t, "authority")
	keys := NewKeyring(authority, leaf(t, "client", authority, key), "token")
	often, rarely := Cell{OldTrust, OldCertificate}, Cell{BothTrust, OldCertificate}
	set := &Set{Address: server(t, leaf(t, "server", authority, key), authority), Path: "/", Keys: keys, Cells: []Cell{often, rarely}, Factor: 0.5}
	ctx, cancel := context.WithTimeout(context.Background(), 2100*time.Millisecond)
	defer cancel()
	set.Run(ctx)
	tried := map[Cell]int{}
	for _, a := range set.Attempts() {
		tried[a.Cell]++
	}
	if len(tried) != 2 || tried[often] > 21 || tried[often] < 10 || tried[rarely] > 4 || tried[rarely] < 2 {
		t.Errorf("at half of 20 and of 4 a second, in two seconds: %v", tried)
	}
}
