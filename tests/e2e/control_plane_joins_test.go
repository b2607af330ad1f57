package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"certrotation.dev/tests/access"
	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/snapshot"
	"certrotation.dev/tests/story"
)

// TestControlPlaneJoins has control planes join in the middle of a run of all three authorities, as kubeadm documents it: while the run goes
// on its keys for it are taken away, and kubeadm says so. One that joins all the same, in a pause, is caught up with before the run goes on:
// in TrustingBoth, with the old keys, and at the gate, with the new ones. Afterwards another one joins as ever.
func TestControlPlaneJoins(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := open(ctx, t)
	if len(b.controlPlanes()) < 2 {
		t.Fatal("control planes join where a load balancer stands before several: E2E_CONTROL_PLANES=2")
	}
	p := &planes{joins: &joins{bed: b, machines: map[string]chan error{}}, first: b.node(t, b.controlPlanes()[0]), left: map[string]*snapshot.Node{}}
	p.make(ctx, "trusting", "gate", "after")
	p.before = p.look(ctx, t, p.first)
	p.user = p.newUser(ctx, t)
	old := b.Authorities.Published()[0]

	p.walker = b.walk(ctx, t, "planes", "authorities: [Kubernetes, FrontProxy, Etcd]", "approval: Manual")
	p.pauseIn(ctx, t, time.Now(), "TrustingBoth")
	p.joinAsPlane(ctx, t, "trusting", old)
	t.Run("what joins before the new authority signs is recognized by those who know the old one", func(t *testing.T) {
		p.assertRecognized(ctx, t, "trusting", p.old)
	})
	p.awaitGate(ctx, t, p.resume(ctx, t))
	p.learn(ctx, t)

	t.Run("while the run goes on there are no keys to join with, and kubeadm says so", func(t *testing.T) { p.assertNoKeys(ctx, t, "gate") })
	p.pause(ctx, t)
	p.joinAsPlane(ctx, t, "gate", p.old)
	t.Run("what joins with the new keys is recognized by those who know the new one, until it is visited", func(t *testing.T) {
		p.assertRecognized(ctx, t, "gate", p.new)
		p.assertUnknown(ctx, t, "gate", p.old)
	})
	now := p.resume(ctx, t)
	p.awaitNamed(ctx, t, now, "gate")
	p.awaitGate(ctx, t, now.Add(time.Second))
	t.Run("once they were visited all recognize them", func(t *testing.T) {
		for _, name := range []string{"trusting", "gate"} {
			p.assertRecognized(ctx, t, name, p.old)
			p.assertRecognized(ctx, t, name, p.new)
		}
	})
	p.awaitCompleted(ctx, t, p.approve(ctx, t))
	p.joinAsPlane(ctx, t, "after", p.new)

	p.after = p.look(ctx, t, p.first)
	for _, joined := range p.joined {
		n := p.node(joined.name)
		t.Run("what has joined, "+joined.name+": the new authority alone", func(t *testing.T) { p.assertNode(ctx, t, n) })
		t.Run("what has joined, "+joined.name+": a control plane like the others", func(t *testing.T) { p.assertPlane(ctx, t, n) })
	}
	t.Run("status has counted and named each one", p.assertCounted)
	t.Run("the drop came last, and Completed after it", p.assertStory)
}

type planes struct {
	*joins
	first         nodes.Node // from the start
	before, after *snapshot.Node
	left          map[string]*snapshot.Node // those who have joined, as kubeadm has left them
	user          *tls.Certificate          // from the old authority
}

func (p *planes) look(ctx context.Context, t *testing.T, n nodes.Node) *snapshot.Node {
	t.Helper()
	taken, err := n.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return taken
}

// newUser has a client certificate from the old authority, and sees that API servers know it.
func (p *planes) newUser(ctx context.Context, t *testing.T) *tls.Certificate {
	t.Helper()
	user, err := access.ClientCertificate(ctx, p.bed.Client, pkix.Name{CommonName: "certrotation-test:plane"}, 2*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if status, err := p.ask(ctx, p.bed.Servers[0], user, p.bed.Authorities.Published()[0]); status != http.StatusForbidden {
		t.Fatalf("before the run the API server gives %d to a user without rights: %v", status, err)
	}
	return user
}

// ask asks an API server directly, with that certificate and trust, and gives the answer's status. It is sent whomever the server names.
func (p *planes) ask(ctx context.Context, address string, user *tls.Certificate, trust *x509.Certificate) (int, error) {
	config := &tls.Config{RootCAs: access.Pool(trust), MinVersion: tls.VersionTLS12,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return user, nil }}
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/api/v1/nodes", nil)
	if err != nil {
		return 0, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	return answer.StatusCode, nil
}

// upload has kubeadm put the authorities and their keys, as they are, into Secret kubeadm-certs; it gives the key that decrypts them.
func (p *planes) upload(ctx context.Context, t *testing.T) string {
	t.Helper()
	out, err := p.first.Run(ctx, "kubeadm", "init", "phase", "upload-certs", "--upload-certs", "--config", "/kind/kubeadm.conf")
	if err != nil {
		t.Fatal(err)
	}
	printed := strings.Fields(string(out))
	return printed[len(printed)-1]
}

func (p *planes) joinAsPlane(ctx context.Context, t *testing.T, name string, by *x509.Certificate) {
	t.Helper()
	p.awaitMachine(ctx, t, name)
	p.join(ctx, t, name, by, p.upload(ctx, t))
	p.left[p.node(name).Name] = p.look(ctx, t, p.node(name))
}

// address is where the API server of a node answers.
func (p *planes) address(ctx context.Context, t *testing.T, n nodes.Node) string {
	t.Helper()
	ip := p.bed.kubectl(ctx, t, "get", "node", n.Name, "-o", `jsonpath={.status.addresses[?(@.type=="InternalIP")].address}`)
	return net.JoinHostPort(ip, "6443")
}

// handshake is that of who trusts one authority alone.
func (p *planes) handshake(ctx context.Context, t *testing.T, name string, trust *x509.Certificate) error {
	t.Helper()
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 30 * time.Second}, Config: &tls.Config{RootCAs: access.Pool(trust), MinVersion: tls.VersionTLS12}}
	c, err := d.DialContext(ctx, "tcp", p.address(ctx, t, p.node(name)))
	if err != nil {
		return err
	}
	return c.Close()
}

func (p *planes) assertRecognized(ctx context.Context, t *testing.T, name string, by *x509.Certificate) {
	t.Helper()
	if err := p.handshake(ctx, t, name, by); err != nil {
		t.Errorf("%s, to who trusts %s alone: %v", name, by.Subject, err)
	}
}

func (p *planes) assertUnknown(ctx context.Context, t *testing.T, name string, by *x509.Certificate) {
	t.Helper()
	if err := p.handshake(ctx, t, name, by); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("%s, to who trusts %s alone: %v", name, by.Subject, err)
	}
}

// assertNoKeys: the Secret with the keys goes, status says why, and kubeadm finds none and leaves the machine as it was.
func (p *planes) assertNoKeys(ctx context.Context, t *testing.T, name string) {
	before := time.Now()
	key := p.upload(ctx, t)
	told := p.await(ctx, t, before, time.Minute, "status to tell of kubeadm-certs", func(s *story.Status) bool {
		ready := s.Condition("Ready")
		return ready != nil && strings.Contains(ready.Message, "kube-system/kubeadm-certs") && strings.Contains(ready.Message, "joins before or after a run")
	})
	waiting, end := within(ctx, t, time.Minute)
	defer end()
	for {
		_, err := p.bed.Client.CoreV1().Secrets("kube-system").Get(waiting, "kubeadm-certs", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			break
		}
		select {
		case <-waiting.Done():
			t.Fatalf("Secret kubeadm-certs is still there: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
	if err := p.try(ctx, t, name, p.old, key); err == nil || !strings.Contains(err.Error(), `Secret "kubeadm-certs" was not found`) {
		t.Errorf("joined with keys of the middle, or refused otherwise: %v", err)
	}
	if out, err := p.node(name).Run(ctx, "ls", "-A", "/etc/kubernetes/pki"); err == nil && len(out) > 0 {
		t.Errorf("the machine holds %q", out)
	}
	p.awaitGate(ctx, t, told.At)
}

// assertPlane: the files of a control plane are of the new authorities, its manifests as kubeadm has written them, and its servers serve.
func (p *planes) assertPlane(ctx context.Context, t *testing.T, n nodes.Node) {
	taken := p.look(ctx, t, n)
	for name := range kubeadm {
		p.assertAuthority(t, name, n, taken)
	}
	for _, conf := range []string{"admin.conf", "controller-manager.conf", "scheduler.conf"} {
		f := taken.Find("/etc/kubernetes/" + conf)
		strange := func(c snapshot.Certificate) bool { return !snapshot.Of(p.new).Issued(&c) }
		if f == nil || len(f.Certificates) != 2 || slices.ContainsFunc(f.Certificates, strange) {
			t.Errorf("%s: %s is not the new authority's: %+v", n.Name, conf, f)
		}
	}
	for _, d := range snapshot.Content(p.left[n.Name], taken, snapshot.Manifest) {
		t.Errorf("%s, since kubeadm: %s", n.Name, d)
	}
	pairs := &rotation{bed: p.bed, after: map[string]*snapshot.Node{n.Name: taken}}
	pairs.assertPairs(t, n.Name)
	// The lock, and which certificate the API server is known to show to kubelets.
	if out, err := n.Run(ctx, "sh", "-c", "ls -A -I lock -I absorbed /var/lib/certrotation 2>/dev/null || true"); err != nil || strings.TrimSpace(string(out)) != "" || taken.Find(pki+"certrotation") != nil {
		t.Errorf("%s: the run has left %q, or %scertrotation: %v", n.Name, out, pki, err)
	}
	p.assertServes(ctx, t, n)
}

// assertAuthority: the pair and what it issues, as on a control plane from the start.
func (p *planes) assertAuthority(t *testing.T, name string, n nodes.Node, taken *snapshot.Node) {
	t.Helper()
	files := kubeadm[name]
	was, is := oneAuthority(t, p.before, files.authority), oneAuthority(t, p.after, files.authority)
	if was.Equal(is) {
		t.Fatalf("the %s authority is what it was", name)
	}
	for _, trace := range taken.Traces(snapshot.Of(was)) {
		t.Errorf("%s: %s", n.Name, trace)
	}
	for _, ending := range []string{".crt", ".key"} {
		mine, others := taken.Find(files.authority+ending), p.after.Find(files.authority+ending)
		if mine == nil || others == nil || mine.SHA256 != others.SHA256 {
			t.Errorf("%s: %s%s is not that of %s", n.Name, files.authority, ending, p.first.Name)
		}
	}
	for _, leaf := range files.leaves {
		f := taken.Find(leaf + ".crt")
		if f == nil || len(f.Certificates) != 1 || !snapshot.Of(is).Issued(&f.Certificates[0]) || f.Certificates[0].CA {
			t.Errorf("%s: %s.crt does not hold one certificate of the new %s authority: %+v", n.Name, leaf, name, f)
		}
	}
}

func oneAuthority(t *testing.T, taken *snapshot.Node, path string) *x509.Certificate {
	t.Helper()
	f := taken.Find(path + ".crt")
	if f == nil || len(f.Certificates) != 1 {
		t.Fatalf("%s.crt does not hold one certificate: %+v", path, f)
	}
	c, err := x509.ParseCertificate(f.Certificates[0].DER)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// assertServes: asked directly its API server knows the new authority alone, and its etcd is in order.
func (p *planes) assertServes(ctx context.Context, t *testing.T, n nodes.Node) {
	t.Helper()
	address := p.address(ctx, t, n)
	if out, err := n.Run(ctx, "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", "--server=https://"+address, "get", "--raw", "/readyz"); err != nil || string(out) != "ok" {
		t.Errorf("%s says %q to its administrator: %v", address, out, err)
	}
	if status, err := p.ask(ctx, address, p.user, p.new); status != http.StatusUnauthorized {
		t.Errorf("%s gives %d to a certificate of the old authority: %v", address, status, err)
	}
	if answer, err := askEtcd(ctx, n, pki+"etcd/healthcheck-client.crt"); err != nil || !strings.Contains(answer, `"health":"true"`) {
		t.Errorf("etcd on %s says %q: %v", n.Name, answer, err)
	}
	if out, err := p.bed.Kubectl.Run(ctx, "-n", "kube-system", "wait", "--for=condition=Ready", "--timeout=120s", "pod",
		"-l", "tier=control-plane", "--field-selector", fmt.Sprintf("spec.nodeName=%s", n.Name)); err != nil {
		t.Errorf("%s: %s %v", n.Name, out, err)
	}
}
