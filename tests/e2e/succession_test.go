package e2e

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"

	"certrotation.dev/tests/snapshot"
)

// Authorities, as spec.authorities names them.
const (
	kubernetesAuthority = "Kubernetes"
	frontProxyAuthority = "FrontProxy"
	etcdAuthority       = "Etcd"

	pki = "/etc/kubernetes/pki/"
)

// kubeadm says where an authority is (.crt and .key), and what it issues that has a key beside it.
var kubeadm = map[string]struct {
	authority string
	leaves    []string
}{
	kubernetesAuthority: {pki + "ca", []string{pki + "apiserver", pki + "apiserver-kubelet-client"}},
	frontProxyAuthority: {pki + "front-proxy-ca", []string{pki + "front-proxy-client"}},
	etcdAuthority: {pki + "etcd/ca", []string{pki + "etcd/server", pki + "etcd/peer", pki + "etcd/healthcheck-client",
		pki + "apiserver-etcd-client"}},
}

// nobody owns ServiceAccounts' keys; no run changes them.
const nobody = "nobody"

// owner names the authority whose run may change a file; "" is for files that are not certificates' and keys'.
func owner(name string) string {
	switch {
	case strings.HasPrefix(name, pki+"etcd/"), strings.HasPrefix(name, pki+"apiserver-etcd-client."):
		return etcdAuthority
	case strings.HasPrefix(name, pki+"front-proxy"):
		return frontProxyAuthority
	case strings.HasPrefix(name, pki+"sa."):
		return nobody
	case strings.HasPrefix(name, pki), strings.HasPrefix(name, "/var/lib/kubelet/pki/"),
		strings.HasPrefix(name, "/etc/kubernetes/") && strings.HasSuffix(name, ".conf"):
		return kubernetesAuthority
	}
	return ""
}

// succession is an authority and the one that takes its place.
type succession struct {
	name     string
	old, new *x509.Certificate
}

func (r *rotation) rotates(authority string) bool { return slices.Contains(r.authorities, authority) }

// hasAuthority reports whether a node holds something of an authority: workers know the cluster's alone.
func (r *rotation) hasAuthority(node, authority string) bool {
	return authority == kubernetesAuthority || slices.Contains(r.bed.controlPlanes(), node)
}

// successions are those of the run. The cluster's authority is the one that is published; the others show in
// files alone.
func (r *rotation) successions(t *testing.T) []succession {
	t.Helper()
	var list []succession
	for _, name := range r.authorities {
		s := succession{name: name}
		if name == kubernetesAuthority {
			s.old, s.new = r.old(), r.new(t)
		} else {
			s.old, s.new = r.inFile(t, r.before, name), r.inFile(t, r.after, name)
		}
		if s.old.Equal(s.new) {
			t.Fatalf("the %s authority is what it was, %s", name, snapshot.Fingerprint(s.old))
		}
		list = append(list, s)
	}
	return list
}

// inFile is the one certificate in an authority's file, the same on every control plane.
func (r *rotation) inFile(t *testing.T, all map[string]*snapshot.Node, authority string) *x509.Certificate {
	t.Helper()
	var found *x509.Certificate
	for _, node := range r.bed.controlPlanes() {
		file := all[node].Find(kubeadm[authority].authority + ".crt")
		if file == nil || len(file.Certificates) != 1 {
			t.Fatalf("%s: %s.crt does not hold one certificate: %+v", node, kubeadm[authority].authority, file)
		}
		c, err := x509.ParseCertificate(file.Certificates[0].DER)
		if err != nil {
			t.Fatal(err)
		}
		if found != nil && !found.Equal(c) {
			t.Fatalf("control planes differ in %s.crt", kubeadm[authority].authority)
		}
		found = c
	}
	return found
}
