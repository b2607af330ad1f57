package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

func (r *rotation) read(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	certs, err := certutil.CertsFromFile(filepath.Join(r.folder, name+".crt"))
	if err != nil {
		t.Fatal(err)
	}
	if len(certs) != 1 {
		t.Fatalf("%s: %d certificates", name, len(certs))
	}
	return certs[0]
}

var (
	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
)

// extension is the DER of an extension with its critical flag, "" when there is none.
func extension(all []pkix.Extension, id asn1.ObjectIdentifier) string {
	for _, e := range all {
		if e.Id.Equal(id) {
			return fmt.Sprintf("critical %v: %x", e.Critical, e.Value)
		}
	}
	return ""
}

func keyIdentifier(t *testing.T, c *x509.Certificate) []byte {
	t.Helper()
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum(info.Key.Bytes)
	return sum[:]
}

func wantedSignature(t *testing.T, issuer *x509.Certificate) x509.SignatureAlgorithm {
	t.Helper()
	switch key := issuer.PublicKey.(type) {
	case *rsa.PublicKey:
		return x509.SHA256WithRSA
	case *ecdsa.PublicKey:
		if key.Curve.Params().BitSize == 384 {
			return x509.ECDSAWithSHA384
		}
		return x509.ECDSAWithSHA256
	}
	t.Fatalf("key of %T", issuer.PublicKey)
	return 0
}

// checkMade is what holds for every certificate of the C code.
func checkMade(t *testing.T, name string, c, issuer *x509.Certificate) {
	t.Helper()
	if c.Version != 3 {
		t.Errorf("%s: version %d", name, c.Version)
	}
	if c.SerialNumber.Sign() <= 0 || c.SerialNumber.BitLen() > 128 || c.SerialNumber.BitLen() < 90 {
		t.Errorf("%s: serial %x", name, c.SerialNumber)
	}
	if !bytes.Equal(c.RawIssuer, issuer.RawSubject) {
		t.Errorf("%s: its issuer's name is not %s", name, issuer.Subject)
	}
	if err := c.CheckSignatureFrom(issuer); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if c.SignatureAlgorithm != wantedSignature(t, issuer) {
		t.Errorf("%s: signed with %s", name, c.SignatureAlgorithm)
	}
	checkKeyIdentifiers(t, name, c, issuer)
	checkTimes(t, name, c, issuer)
	if len(c.UnhandledCriticalExtensions) > 0 {
		t.Errorf("%s: critical extensions %v", name, c.UnhandledCriticalExtensions)
	}
}

func checkKeyIdentifiers(t *testing.T, name string, c, issuer *x509.Certificate) {
	t.Helper()
	if len(c.SubjectKeyId) != 20 {
		t.Errorf("%s: subject key identifier %x", name, c.SubjectKeyId)
	}
	wanted := issuer.SubjectKeyId
	if len(wanted) == 0 {
		wanted = keyIdentifier(t, issuer)
	}
	if !bytes.Equal(c.AuthorityKeyId, wanted) {
		t.Errorf("%s: authority key identifier %x, the issuer's is %x", name, c.AuthorityKeyId, wanted)
	}
}

func checkTimes(t *testing.T, name string, c, issuer *x509.Certificate) {
	t.Helper()
	if c.NotAfter.After(issuer.NotAfter) {
		t.Errorf("%s: valid until %s, its issuer until %s", name, c.NotAfter, issuer.NotAfter)
	}
	back := time.Since(c.NotBefore)
	self := bytes.Equal(c.Raw, issuer.Raw)
	if !self && c.NotBefore.Before(issuer.NotBefore) {
		t.Errorf("%s: valid from %s, its issuer from %s", name, c.NotBefore, issuer.NotBefore)
	}
	if back > 10*time.Minute || (self && back < 5*time.Minute) || back < 0 {
		t.Errorf("%s: valid from %s on", name, c.NotBefore)
	}
}

// checkSame compares subject, key or not, and extensions.
func checkSame(t *testing.T, name string, old, new *x509.Certificate, extensions ...asn1.ObjectIdentifier) {
	t.Helper()
	if !bytes.Equal(old.RawSubject, new.RawSubject) {
		t.Errorf("%s: subject %s became %s", name, old.Subject, new.Subject)
	}
	if !bytes.Equal(old.RawSubjectPublicKeyInfo, new.RawSubjectPublicKeyInfo) {
		t.Errorf("%s: another key", name)
	}
	if old.SerialNumber.Cmp(new.SerialNumber) == 0 {
		t.Errorf("%s: the same serial", name)
	}
	for _, id := range extensions {
		if a, b := extension(old.Extensions, id), extension(new.Extensions, id); a != b {
			t.Errorf("%s: extension %s was %q, is %q", name, id, a, b)
		}
	}
}

// shape lists the extensions with their critical flags.
func shape(c *x509.Certificate, without ...asn1.ObjectIdentifier) string {
	var all []string
	for _, e := range c.Extensions {
		if !slices.ContainsFunc(without, e.Id.Equal) {
			all = append(all, fmt.Sprintf("%s %v", e.Id, e.Critical))
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// checkAuthority compares with what client-go makes for kubeadm.
func checkAuthority(t *testing.T, c *x509.Certificate, unique string) {
	t.Helper()
	key, err := newKey("ECDSA-P256")
	if err != nil {
		t.Fatal(err)
	}
	model, err := certutil.NewSelfSignedCACert(certutil.Config{CommonName: "kubernetes"}, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []asn1.ObjectIdentifier{oidKeyUsage, oidExtKeyUsage, oidBasicConstraints, oidSubjectAltName} {
		if a, b := extension(model.Extensions, id), extension(c.Extensions, id); a != b {
			t.Errorf("extension %s is %q, kubeadm's %q", id, b, a)
		}
	}
	if a, b := shape(model), shape(c, oidAuthorityKeyID); a != b {
		t.Errorf("extensions %s, kubeadm has %s", b, a)
	}
	if c.Subject.CommonName != "kubernetes" || !slices.Equal(c.Subject.OrganizationalUnit, []string{unique}) || len(c.Subject.Names) != 2 {
		t.Errorf("subject %s", c.Subject)
	}
	if years := time.Until(c.NotAfter).Hours() / 24 / 365; years < 9.99 || years > 10 {
		t.Errorf("valid for %.2f years", years)
	}
	if !c.IsCA || !bytes.Equal(c.SubjectKeyId, keyIdentifier(t, c)) {
		t.Errorf("CA %v, key identifier %x", c.IsCA, c.SubjectKeyId)
	}
}

func TestEveryCertificateReadsBackInGo(t *testing.T) {
	for _, r := range rotations(t) {
		t.Run(r.name, func(t *testing.T) {
			o, n, x, y := r.read(t, "ca"), r.read(t, "new-ca"), r.read(t, "x"), r.read(t, "y")
			checkMade(t, "N", n, n)
			checkAuthority(t, n, "generation-"+r.name)
			checkMade(t, "X", x, o)
			checkMade(t, "Y", y, n)
			checkSame(t, "X", n, x, oidSubjectKeyID, oidKeyUsage, oidExtKeyUsage, oidBasicConstraints, oidSubjectAltName)
			checkSame(t, "Y", o, y, oidExtKeyUsage, oidSubjectAltName)
			if x.NotAfter.After(n.NotAfter) || y.NotAfter.After(o.NotAfter) {
				t.Errorf("a cross certificate outlives the CA it stands for")
			}
			for _, c := range []*x509.Certificate{x, y} {
				if !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0 || !strings.Contains(shape(c), oidBasicConstraints.String()+" true") {
					t.Errorf("%s by %s: not a proper CA", c.Subject, c.Issuer)
				}
			}
			checkLeaf(t, r, "server", "new-server", n)
			checkLeaf(t, r, "client", "new-client", n)
			checkLeaf(t, r, "server", "again-server", o)
		})
	}
}

func checkLeaf(t *testing.T, r *rotation, old, new string, issuer *x509.Certificate) {
	t.Helper()
	c := r.read(t, new)
	checkMade(t, new, c, issuer)
	checkSame(t, new, r.read(t, old), c, oidKeyUsage, oidExtKeyUsage, oidBasicConstraints, oidSubjectAltName)
	if _, err := tls.LoadX509KeyPair(filepath.Join(r.folder, new+".crt"), filepath.Join(r.folder, old+".key")); err != nil {
		t.Errorf("%s: %v", new, err)
	}
}

// Labels and contents of the key files are kubeadm's: client-go reads them, and writes the same bytes.
func TestKeysAreAsClientGoWritesThem(t *testing.T) {
	for _, r := range rotations(t) {
		written, err := os.ReadFile(filepath.Join(r.folder, "new-ca.key"))
		if err != nil {
			t.Fatal(err)
		}
		label := "EC PRIVATE KEY"
		if strings.HasPrefix(r.newAlgorithm, "RSA") {
			label = "RSA PRIVATE KEY"
		}
		if block, rest := pem.Decode(written); block == nil || block.Type != label || len(rest) > 0 {
			t.Errorf("%s: no %s", r.name, label)
		}
		key, err := keyutil.ParsePrivateKeyPEM(written)
		if err != nil {
			t.Fatal(err)
		}
		again, err := keyutil.MarshalPrivateKeyToPEM(key)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(written, again) {
			t.Errorf("%s: client-go writes this %s otherwise", r.name, label)
		}
		if _, err := tls.LoadX509KeyPair(filepath.Join(r.folder, "new-ca.crt"), filepath.Join(r.folder, "new-ca.key")); err != nil {
			t.Errorf("%s: %v", r.name, err)
		}
	}
}

func TestRequestsReadBackInGo(t *testing.T) {
	for _, r := range rotations(t) {
		text, err := os.ReadFile(filepath.Join(r.folder, "server.csr"))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		request, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if err := request.CheckSignature(); err != nil {
			t.Errorf("%s: %v", r.name, err)
		}
		c := r.read(t, "server")
		if !bytes.Equal(request.RawSubject, c.RawSubject) || !bytes.Equal(request.RawSubjectPublicKeyInfo, c.RawSubjectPublicKeyInfo) {
			t.Errorf("%s: the request is for %s", r.name, request.Subject)
		}
		if a, b := extension(c.Extensions, oidSubjectAltName), extension(request.Extensions, oidSubjectAltName); a != b {
			t.Errorf("%s: names were %q, are %q", r.name, a, b)
		}
	}
}

// What the C code says of a certificate is what Go says.
func TestLooksAgreeWithGo(t *testing.T) {
	for _, r := range rotations(t) {
		files, err := filepath.Glob(filepath.Join(r.folder, "*.crt"))
		if err != nil || len(files) < 9 {
			t.Fatalf("%s: %d files, %v", r.folder, len(files), err)
		}
		all, err := driver(append([]string{"look"}, files...)...)
		if err != nil {
			t.Fatal(err)
		}
		said := strings.SplitAfter(all, "end\n")
		if len(said) != len(files)+1 {
			t.Fatalf("%d certificates, not %d", len(said)-1, len(files))
		}
		for i, file := range files {
			c := r.read(t, strings.TrimSuffix(filepath.Base(file), ".crt"))
			if wanted := look(t, c); said[i] != wanted {
				t.Errorf("%s: the C code says\n%s\nGo says\n%s", file, said[i], wanted)
			}
		}
	}
}

func look(t *testing.T, c *x509.Certificate) string {
	t.Helper()
	var b strings.Builder
	sum, spki := sha256.Sum256(c.Raw), sha256.Sum256(c.RawSubjectPublicKeyInfo)
	serial := fmt.Sprintf("%X", c.SerialNumber)
	if len(serial)%2 == 1 {
		serial = "0" + serial
	}
	fmt.Fprintf(&b, "fingerprint %s\nspki %s\nserial %s\n", hex.EncodeToString(sum[:]), hex.EncodeToString(spki[:]), serial)
	fmt.Fprintf(&b, "algorithm %s\nfrom %s\nto %s\n", algorithmOf(c), c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339))
	pathLength := -1
	if c.MaxPathLen > 0 || c.MaxPathLenZero {
		pathLength = c.MaxPathLen
	}
	bit := map[bool]int{true: 1}
	fmt.Fprintf(&b, "ca %d\nski %d\naki %d\npathlen %d\n", bit[c.IsCA], bit[len(c.SubjectKeyId) > 0], bit[len(c.AuthorityKeyId) > 0], pathLength)
	organization := ""
	if len(c.Subject.Organization) > 0 {
		organization = c.Subject.Organization[0]
	}
	fmt.Fprintf(&b, "subject %s\nissuer %s\nCN %s\nO %s\n", distinguishedName(t, c.RawSubject), distinguishedName(t, c.RawIssuer),
		c.Subject.CommonName, organization)
	for _, name := range c.DNSNames {
		fmt.Fprintf(&b, "san DNS:%s\n", name)
	}
	for _, address := range c.IPAddresses {
		fmt.Fprintf(&b, "san IP:%s\n", address)
	}
	fmt.Fprintf(&b, "end\n")
	return b.String()
}

func distinguishedName(t *testing.T, raw []byte) string {
	t.Helper()
	var name pkix.RDNSequence
	if _, err := asn1.Unmarshal(raw, &name); err != nil {
		t.Fatal(err)
	}
	return name.String()
}

func algorithmOf(c *x509.Certificate) string {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA-%d", key.N.BitLen())
	case *ecdsa.PublicKey:
		return fmt.Sprintf("ECDSA-P%d", key.Curve.Params().BitSize)
	}
	return "unknown"
}
