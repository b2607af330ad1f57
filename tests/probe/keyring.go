package probe

import (
	"crypto/tls"
	"crypto/x509"
	"sync"

	"certrotation.dev/tests/access"
)

// Keyring is what the probes of one rotation hold. It grows while the rotation goes on: the new
// authority and the new client certificate are added once they exist.
type Keyring struct {
	mu             sync.RWMutex
	old, new       *x509.Certificate
	oldCertificate *tls.Certificate
	newCertificate *tls.Certificate
	token          string
}

// NewKeyring starts with what there is before the rotation.
func NewKeyring(old *x509.Certificate, certificate *tls.Certificate, token string) *Keyring {
	return &Keyring{old: old, oldCertificate: certificate, token: token}
}

// Old is the authority that is being replaced.
func (k *Keyring) Old() *x509.Certificate { return k.old }

// New is the authority that replaces it, or nil as long as it is unknown.
func (k *Keyring) New() *x509.Certificate {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.new
}

// SetNew says what the new authority is.
func (k *Keyring) SetNew(c *x509.Certificate) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.new = c
}

// SetNewCertificate gives the client certificate that the new authority issued.
func (k *Keyring) SetNewCertificate(c *tls.Certificate) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.newCertificate = c
}

// HasNewCertificate reports whether it is there.
func (k *Keyring) HasNewCertificate() bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.newCertificate != nil
}

// roots gives the pool of a kind of trust, or nil when that does not exist yet. Before there is a new
// authority, who trusts both trusts the old one.
func (k *Keyring) roots(t Trust) *x509.CertPool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	switch {
	case t == OldTrust, t == BothTrust && k.new == nil:
		return access.Pool(k.old)
	case k.new == nil:
		return nil
	case t == BothTrust:
		return access.Pool(k.old, k.new)
	}
	return access.Pool(k.new)
}

// credential fills in as whom to come; false when that does not exist yet.
func (k *Keyring) credential(c Credential, r *request) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	switch c {
	case OldCertificate:
		r.certificate = k.oldCertificate
		return k.oldCertificate != nil
	case NewCertificate:
		r.certificate = k.newCertificate
		return k.newCertificate != nil
	}
	r.token = k.token
	return k.token != ""
}

// provesNew reports whether a server that presents chain is one that who trusts only the new
// authority accepts.
func (k *Keyring) provesNew(chain []*x509.Certificate) bool {
	authority := k.New()
	if authority == nil || len(chain) == 0 {
		return false
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: access.Pool(authority), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err == nil
}
