package snapshot

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type pair struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func make1(t *testing.T, name string, ca bool, by *pair, key *ecdsa.PrivateKey) *pair {
	t.Helper()
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IsCA: ca, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, DNSNames: []string{name}}
	if by == nil {
		by = &pair{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.certificate, &key.PublicKey, by.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{c, key}
}

func (p *pair) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.certificate.Raw}))
}

func (p *pair) keyPEM(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(p.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

func node(t *testing.T, texts map[string]string) *Node {
	t.Helper()
	folder := t.TempDir()
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	taken, err := Take(folder)
	if err != nil {
		t.Fatal(err)
	}
	for i := range taken.Files {
		taken.Files[i].Path = "/" + filepath.Base(taken.Files[i].Path)
	}
	return taken
}

// Every way in which an authority can be present is found, and a namesake's traces are not.
func TestTraces(t *testing.T) {
	old, namesake := make1(t, "kubernetes", true, nil, nil), make1(t, "kubernetes", true, nil, nil)
	leaf, other := make1(t, "leaf", false, old, nil), make1(t, "leaf", false, namesake, nil)
	bridge := make1(t, "new", true, old, nil)                 // new, certified by old
	mirror := make1(t, "kubernetes", true, namesake, old.key) // old's key, certified by another
	in64 := base64.StdEncoding.EncodeToString([]byte(old.pem()))
	taken := node(t, map[string]string{
		"root": old.pem(), "leaf": leaf.pem(), "second": namesake.pem() + old.pem(), "bridge": bridge.pem(), "mirror": mirror.pem(),
		"key": old.keyPEM(t), "conf": "clusters:\n- cluster:\n    certificate-authority-data: " + in64 + "\n", "json": `{"certificate-authority-data":"` + in64 + `"}`,
		"strange": namesake.pem() + other.pem() + namesake.keyPEM(t),
	})
	found := map[string]string{}
	for _, trace := range taken.Traces(Of(old.certificate)) {
		found[trace.Path] = trace.String()
	}
	for _, name := range []string{"root", "leaf", "second", "bridge", "mirror", "key", "conf", "json"} {
		if found["/"+name] == "" {
			t.Errorf("nothing was found in %s", name)
		}
	}
	if found["/strange"] != "" {
		t.Errorf("a namesake's: %s", found["/strange"])
	}
	if !strings.Contains(found["/conf"], "certificate-authority-data pem 1") {
		t.Errorf("the place is not told: %s", found["/conf"])
	}
}

func TestNothingPrivateLeaves(t *testing.T) {
	p := make1(t, "leaf", false, nil, nil)
	taken := node(t, map[string]string{"both": p.pem() + p.keyPEM(t)})
	text := fmt.Sprintf("%+v", taken)
	for _, line := range strings.Split(p.keyPEM(t), "\n") {
		if len(line) > 20 && !strings.Contains(line, "-----") && strings.Contains(text, line) {
			t.Error("the private key is in the snapshot")
		}
	}
	if f := taken.Find("/both"); len(f.Keys) != 1 || f.Keys[0].PublicKey != f.Certificates[0].PublicKey {
		t.Errorf("key and certificate are not told to fit: %+v", f)
	}
}

func TestWhatCannotBeReadIsAnError(t *testing.T) {
	if _, err := Take(filepath.Join(t.TempDir(), "nothing")); err == nil {
		t.Error("a folder that does not exist gave a snapshot")
	}
	if _, _, err := Inspect([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")); err == nil {
		t.Error("a broken certificate was passed over")
	}
}

func TestShape(t *testing.T) {
	before := &Node{Files: []File{{Path: "/etc/a", Type: "file", Mode: "0600"}, {Path: "/etc/gone", Type: "file"}, {Path: "/etc/link", Type: "link"},
		{Path: "/var/lib/kubelet/pki/kubelet-client-2026-01-02-03-04-05.pem", Type: "file"}}}
	after := &Node{Files: []File{{Path: "/etc/a", Type: "file", Mode: "0644", UID: 7}, {Path: "/etc/link", Type: "file"}, {Path: "/etc/more", Type: "dir"},
		{Path: "/var/lib/kubelet/pki/kubelet-client-2027-01-02-03-04-05.pem", Type: "file"}}}
	var seen []string
	for _, d := range Shape(before, after) {
		seen = append(seen, d.String())
	}
	want := "/etc/a: mode was 0600, is 0644|/etc/a: owner was 0:0, is 7:0|/etc/gone: is gone|/etc/link: type was link, is file|/etc/more: was not there before"
	if strings.Join(seen, "|") != want {
		t.Errorf("seen %q", seen)
	}
}

func TestSuccessions(t *testing.T) {
	old, new := make1(t, "old", true, nil, nil), make1(t, "new", true, nil, nil)
	a, b := make1(t, "leaf", false, old, nil), make1(t, "leaf", false, new, nil)
	wrong := make1(t, "other", false, new, nil)
	before := node(t, map[string]string{"same": a.pem(), "good": a.pem(), "lost": a.pem(), "wrong": a.pem()})
	after := node(t, map[string]string{"same": a.pem(), "good": b.pem(), "lost": "", "wrong": wrong.pem()})
	result := map[string]string{}
	for _, p := range Successions(before, after) {
		result[p.Path] = fmt.Sprintf("%v %s", p.Replaced(), p.Lost())
	}
	for path, want := range map[string]string{"/same": "false ", "/good": "true ", "/lost": "true nothing took its place", "/wrong": `true subject was "CN=leaf", is "CN=other"`} {
		if result[path] != want {
			t.Errorf("%s: %q, expected %q", path, result[path], want)
		}
	}
}
