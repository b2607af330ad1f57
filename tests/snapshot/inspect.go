package snapshot

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"regexp"
	"sort"
	"strings"
	"time"
)

// Certificate is what a test needs to know of one. DER is there so that signatures can be checked
// where the authorities are at hand.
type Certificate struct {
	Place       string    `json:"place"` // "pem 1", "pem 2" …, or the key that holds it: "certificate-authority-data pem 1"
	Subject     string    `json:"subject"`
	Issuer      string    `json:"issuer"`
	Fingerprint string    `json:"fingerprint"` // SHA-256 of the DER form
	PublicKey   string    `json:"publicKey"`   // SHA-256 of the SubjectPublicKeyInfo
	CA          bool      `json:"ca"`
	NotBefore   time.Time `json:"notBefore"`
	NotAfter    time.Time `json:"notAfter"`
	Names       []string  `json:"names,omitempty"`  // SANs, each with its type, sorted
	Usages      []string  `json:"usages,omitempty"` // key usage bits and extended usages, sorted
	DER         []byte    `json:"der"`
}

// Key is a private key, by its public half.
type Key struct {
	Place     string `json:"place"`
	PublicKey string `json:"publicKey"` // SHA-256 of the SubjectPublicKeyInfo
}

// embedded finds PEM in base64 ("-----BEGI") with the YAML or JSON key before it.
var embedded = regexp.MustCompile(`(?:"?([A-Za-z0-9_.-]+)"?:\s*"?)?(LS0tLS1CRUdJ[A-Za-z0-9+/=]+)`)

// Inspect finds the certificates and keys in a text.
func Inspect(text []byte) ([]Certificate, []Key, error) {
	found := &finds{}
	if err := found.pem("", text); err != nil {
		return nil, nil, err
	}
	for _, match := range embedded.FindAllSubmatch(text, -1) {
		inner, err := base64.StdEncoding.DecodeString(string(match[2]))
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", match[1], err)
		}
		if err := found.pem(string(match[1])+" ", inner); err != nil {
			return nil, nil, err
		}
	}
	return found.certificates, found.keys, nil
}

type finds struct {
	certificates []Certificate
	keys         []Key
}

func (f *finds) pem(prefix string, text []byte) error {
	for i := 1; ; i++ {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil
		}
		place := fmt.Sprintf("%spem %d", prefix, i)
		if err := f.block(place, block); err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
	}
}

func (f *finds) block(place string, block *pem.Block) error {
	switch {
	case block.Type == "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return err
		}
		f.certificates = append(f.certificates, Describe(place, c))
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		key, err := parseKey(block)
		if err != nil {
			return err
		}
		spki, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return err
		}
		f.keys = append(f.keys, Key{Place: place, PublicKey: hash(spki)})
	}
	return nil
}

func parseKey(block *pem.Block) (crypto.Signer, error) {
	switch block.Type {
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(block.Bytes)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of kind %T", key)
	}
	return signer, nil
}

func hash(bytes []byte) string {
	sum := sha256.Sum256(bytes)
	return hex.EncodeToString(sum[:])
}

// Fingerprint is the SHA-256 of a certificate's DER form, in hexadecimal.
func Fingerprint(c *x509.Certificate) string { return hash(c.Raw) }

// PublicKey is the hash by which keys are told apart here.
func PublicKey(c *x509.Certificate) string { return hash(c.RawSubjectPublicKeyInfo) }

// Describe tells of one certificate; place says where it stands.
func Describe(place string, c *x509.Certificate) Certificate {
	return Certificate{Place: place, Subject: c.Subject.String(), Issuer: c.Issuer.String(), Fingerprint: hash(c.Raw),
		PublicKey: PublicKey(c), CA: c.IsCA, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		Names: names(c), Usages: usages(c), DER: c.Raw}
}

func names(c *x509.Certificate) []string {
	var list []string
	for _, n := range c.DNSNames {
		list = append(list, "DNS:"+n)
	}
	for _, a := range c.IPAddresses {
		list = append(list, "IP:"+a.String())
	}
	for _, n := range c.EmailAddresses {
		list = append(list, "email:"+n)
	}
	for _, u := range c.URIs {
		list = append(list, "URI:"+u.String())
	}
	sort.Strings(list)
	return list
}

var usageNames = []string{"digitalSignature", "contentCommitment", "keyEncipherment", "dataEncipherment", "keyAgreement",
	"keyCertSign", "cRLSign", "encipherOnly", "decipherOnly"}

var extendedNames = map[x509.ExtKeyUsage]string{x509.ExtKeyUsageServerAuth: "serverAuth", x509.ExtKeyUsageClientAuth: "clientAuth",
	x509.ExtKeyUsageAny: "any", x509.ExtKeyUsageCodeSigning: "codeSigning", x509.ExtKeyUsageOCSPSigning: "OCSPSigning"}

func usages(c *x509.Certificate) []string {
	var list []string
	for bit, name := range usageNames {
		if c.KeyUsage&(1<<bit) != 0 {
			list = append(list, name)
		}
	}
	for _, u := range c.ExtKeyUsage {
		name, known := extendedNames[u]
		if !known {
			name = fmt.Sprintf("extended-%d", u)
		}
		list = append(list, name)
	}
	for _, oid := range c.UnknownExtKeyUsage {
		list = append(list, oid.String())
	}
	sort.Strings(list)
	return list
}

// Authority tells an authority's traces apart: its own certificate under any signature, what it signed,
// and its key.
type Authority struct{ certificate *x509.Certificate }

// Of makes one from the authority's certificate.
func Of(c *x509.Certificate) Authority { return Authority{c} }

// Trusts reports whether whoever trusts c trusts the authority: c holds its key.
func (a Authority) Trusts(c *Certificate) bool {
	return c.CA && c.PublicKey == PublicKey(a.certificate)
}

// Issued reports whether the authority's key signed c; it checks the signature, not the name.
func (a Authority) Issued(c *Certificate) bool {
	parsed, err := x509.ParseCertificate(c.DER)
	return err == nil && a.certificate.CheckSignature(parsed.SignatureAlgorithm, parsed.RawTBSCertificate, parsed.Signature) == nil
}

// Holds reports whether k is the authority's private key.
func (a Authority) Holds(k *Key) bool { return k.PublicKey == PublicKey(a.certificate) }
