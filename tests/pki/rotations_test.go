package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// A rotation is a folder in which O, and O's leaves "server" and "client", were made by somebody, and all that comes with N
// by the C code: new-ca, x, y, new-server, new-client, again-server (reissued by O), server.csr.
type rotation struct {
	name, folder string
	newAlgorithm string
}

// The mixes of algorithms: kubeadm's own way for O, and all that O and N can be of one and another.
var mixed = []string{"RSA-2048", "ECDSA-P256", "ECDSA-P384"}

var (
	once         sync.Once
	allRotations []*rotation
	rotationsErr error
	rotationsDir string
)

func rotations(t *testing.T) []*rotation {
	t.Helper()
	once.Do(func() { allRotations, rotationsErr = makeRotations() })
	if rotationsErr != nil {
		t.Fatal(rotationsErr)
	}
	return allRotations
}

func forgetRotations() {
	if rotationsDir != "" {
		os.RemoveAll(rotationsDir)
	}
}

func makeRotations() ([]*rotation, error) {
	var err error
	if rotationsDir, err = os.MkdirTemp("", "pki"); err != nil {
		return nil, err
	}
	var all []*rotation
	add := func(name, newAlgorithm string, origin func(folder string) error) *rotation {
		r := &rotation{name: name, folder: filepath.Join(rotationsDir, name), newAlgorithm: newAlgorithm}
		if err == nil {
			if err = os.Mkdir(r.folder, 0o700); err == nil {
				err = origin(r.folder)
			}
		}
		if err == nil {
			_, err = driver("rotate", r.folder, newAlgorithm, "generation-"+name)
		}
		all = append(all, r)
		return r
	}
	for _, old := range mixed {
		for _, new := range mixed {
			add("kubeadm-"+old+"-to-"+new, new, func(folder string) error { return kubeadmOrigin(folder, old) })
		}
	}
	add("bare-rsa-to-ECDSA-P256", "ECDSA-P256", func(folder string) error { return bareOrigin(folder, "rsa:2048") })
	add("bare-ec-to-RSA-2048", "RSA-2048", func(folder string) error { return bareOrigin(folder, "ec") })
	first := add("ours-RSA-4096-to-ECDSA-P384", "ECDSA-P384", func(folder string) error { return ourOrigin(folder, "RSA-4096") })
	add("second-rotation-to-RSA-2048", "RSA-2048", func(folder string) error { return successorOrigin(folder, first) })
	return all, err
}

// kubeadmOrigin makes O and its leaves as kubeadm 1.34 does: cmd/kubeadm/app/util/pkiutil/pki_helpers.go,
// NewCertificateAuthority and NewSignedCert.
func kubeadmOrigin(folder, algorithm string) error {
	key, err := newKey(algorithm)
	if err != nil {
		return err
	}
	ca, err := certutil.NewSelfSignedCACert(certutil.Config{CommonName: "kubernetes"}, key)
	if err != nil {
		return err
	}
	if err := writePair(folder, "ca", ca.Raw, key); err != nil {
		return err
	}
	server := certutil.Config{CommonName: "kube-apiserver", Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		AltNames: certutil.AltNames{DNSNames: []string{"cp-1", "kubernetes", "kubernetes.default.svc.cluster.local", "localhost"},
			IPs: []net.IP{net.ParseIP("10.96.0.1"), net.ParseIP("fd00::1")}}}
	client := certutil.Config{CommonName: "kubernetes-admin", Organization: []string{"kubeadm:cluster-admins"},
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if err := kubeadmLeaf(folder, "server", server, "RSA-2048", ca, key); err != nil {
		return err
	}
	return kubeadmLeaf(folder, "client", client, "ECDSA-P256", ca, key)
}

func kubeadmLeaf(folder, name string, config certutil.Config, algorithm string, ca *x509.Certificate, caKey crypto.Signer) error {
	key, err := newKey(algorithm)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).SetInt64(math.MaxInt64-1))
	if err != nil {
		return err
	}
	template := x509.Certificate{
		Subject:               pkix.Name{CommonName: config.CommonName, Organization: config.Organization},
		DNSNames:              config.AltNames.DNSNames,
		IPAddresses:           config.AltNames.IPs,
		SerialNumber:          serial.Add(serial, big.NewInt(1)),
		NotBefore:             ca.NotBefore,
		NotAfter:              time.Now().Add(365 * 24 * time.Hour).UTC(),
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           config.Usages,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, ca, key.Public(), caKey)
	if err != nil {
		return err
	}
	return writePair(folder, name, der, key)
}

var (
	keysMutex sync.Mutex
	keys      = map[string]crypto.Signer{}
)

// newKey is a fresh ECDSA key, or one of a few RSA keys: what they are used for does not need new ones each time.
func newKey(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case "ECDSA-P256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSA-P384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "RSA-2048":
		keysMutex.Lock()
		defer keysMutex.Unlock()
		if keys[algorithm] == nil {
			key, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				return nil, err
			}
			keys[algorithm] = key
		}
		return keys[algorithm], nil
	}
	return nil, fmt.Errorf("no algorithm %q", algorithm)
}

func writePair(folder, name string, der []byte, key crypto.Signer) error {
	keyPEM, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, name+".key"), keyPEM, 0o600); err != nil {
		return err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return os.WriteFile(filepath.Join(folder, name+".crt"), certPEM, 0o600)
}

// bareOrigin makes O as the manuals of OpenSSL once taught: no key identifiers anywhere, nothing critical, no key usage.
func bareOrigin(folder, kind string) error {
	script := `
set -eu
cd "$1"
printf '[req]\ndistinguished_name=n\n[n]\n[ca]\nbasicConstraints=CA:TRUE\nsubjectKeyIdentifier=none\nauthorityKeyIdentifier=none\n' >ca.cnf
printf 'subjectAltName=DNS:localhost,IP:192.0.2.1\nsubjectKeyIdentifier=none\nauthorityKeyIdentifier=none\n' >server.ext
printf 'extendedKeyUsage=clientAuth\nsubjectKeyIdentifier=none\nauthorityKeyIdentifier=none\n' >client.ext
key() { if [ "$2" = ec ]; then openssl ecparam -genkey -name prime256v1 -noout -out "$1.key"; else openssl genrsa -out "$1.key" 2048; fi; }
key ca "$2"
openssl req -x509 -new -key ca.key -config ca.cnf -extensions ca -days 3650 -subj '/C=DE/O=Old School/CN=kubernetes' -out ca.crt
for name in server client; do
	key $name rsa
	openssl req -new -key $name.key -config ca.cnf -subj "/O=Old School/CN=$name" -out $name.req
	openssl x509 -req -in $name.req -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile $name.ext -out $name.crt
done
`
	out, err := exec.Command("sh", "-c", script, "sh", folder, kind).CombinedOutput()
	if err != nil {
		return fmt.Errorf("openssl: %w\n%s", err, out)
	}
	return nil
}

func ourOrigin(folder, algorithm string) error {
	if _, err := driver("authority", folder, algorithm, "first"); err != nil {
		return err
	}
	_, err := driver("leaves", folder)
	return err
}

// successorOrigin is next year: what the rotation before made is what this one starts from.
func successorOrigin(folder string, before *rotation) error {
	for to, from := range map[string]string{"ca.crt": "new-ca.crt", "ca.key": "new-ca.key", "server.crt": "new-server.crt",
		"server.key": "server.key", "client.crt": "new-client.crt", "client.key": "client.key"} {
		bytes, err := os.ReadFile(filepath.Join(before.folder, from))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, to), bytes, 0o600); err != nil {
			return err
		}
	}
	return nil
}
