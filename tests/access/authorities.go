// Package access is how the tests reach a cluster whose certificate authorities change under them.
//
// Invariants:
//   - Trust is learned from the cluster alone: from the bundle that it publishes to its clients
//     (the ConfigMap kube-root-ca.crt), never from the status of the rotation that is under test.
//   - Authorities are only ever added. The tests' own client trusts all of them, so that it can look
//     at the cluster at any time; a probe trusts exactly what its kind says.
package access

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"certrotation.dev/tests/snapshot"
)

// Certificates parses every certificate of a PEM file; other blocks are passed over.
func Certificates(text []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return list, nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(list)+1, err)
		}
		list = append(list, c)
	}
}

// IsRoot reports whether c is a CA certificate that is signed with its own key.
func IsRoot(c *x509.Certificate) bool {
	return c.IsCA && bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(c) == nil
}

// Pool makes a pool of certificates.
func Pool(list ...*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range list {
		pool.AddCert(c)
	}
	return pool
}

// Publication is one bundle as the cluster published it.
type Publication struct {
	At           time.Time
	Fingerprints []string
}

// Authorities are the roots that the cluster published since the test began to look, oldest first.
type Authorities struct {
	mu        sync.Mutex
	known     []*x509.Certificate
	published []*x509.Certificate
	history   []Publication
	changed   chan struct{}
}

// NewAuthorities starts from the bundle of a kubeconfig.
func NewAuthorities(bundle []byte) (*Authorities, error) {
	a := &Authorities{changed: make(chan struct{})}
	if err := a.Observe(bundle); err != nil {
		return nil, err
	}
	if len(a.known) == 0 {
		return nil, fmt.Errorf("the first bundle holds no self-signed CA certificate")
	}
	return a, nil
}

// Observe takes a bundle that the cluster publishes now.
func (a *Authorities) Observe(bundle []byte) error {
	list, err := Certificates(bundle)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.published = list
	entry := Publication{At: time.Now()}
	for _, c := range list {
		entry.Fingerprints = append(entry.Fingerprints, snapshot.Fingerprint(c))
		if IsRoot(c) && !contains(a.known, c) {
			a.known = append(a.known, c)
		}
	}
	a.history = append(a.history, entry)
	close(a.changed)
	a.changed = make(chan struct{})
	return nil
}

func contains(list []*x509.Certificate, c *x509.Certificate) bool {
	for _, have := range list {
		if have.Equal(c) {
			return true
		}
	}
	return false
}

// Known gives every root seen so far, oldest first, and a channel that closes at the next publication.
func (a *Authorities) Known() ([]*x509.Certificate, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]*x509.Certificate(nil), a.known...), a.changed
}

// Published gives the bundle that was published last.
func (a *Authorities) Published() []*x509.Certificate {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]*x509.Certificate(nil), a.published...)
}

// History gives every publication, oldest first.
func (a *Authorities) History() []Publication {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]Publication(nil), a.history...)
}

// AwaitAnother waits for a root that is not in the list, and gives it.
func (a *Authorities) AwaitAnother(ctx context.Context, than ...*x509.Certificate) (*x509.Certificate, error) {
	for {
		known, changed := a.Known()
		for _, c := range known {
			if !contains(than, c) {
				return c, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("no new authority was published: %w", ctx.Err())
		}
	}
}

// Watch follows kube-root-ca.crt of one namespace until ctx ends; it returns after the first list.
func (a *Authorities) Watch(ctx context.Context, client kubernetes.Interface, namespace string) error {
	lw := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "configmaps", namespace,
		fields.OneTermEqualSelector(metav1.ObjectNameField, "kube-root-ca.crt"))
	observe := func(object any) {
		if cm, ok := object.(*corev1.ConfigMap); ok {
			_ = a.Observe([]byte(cm.Data["ca.crt"])) // a broken bundle is the e2e test's to report
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lw, ObjectType: &corev1.ConfigMap{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    observe,
			UpdateFunc: func(_, now any) { observe(now) },
		},
	})
	go informer.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return fmt.Errorf("list of kube-root-ca.crt in %s: %w", namespace, ctx.Err())
	}
	return nil
}
