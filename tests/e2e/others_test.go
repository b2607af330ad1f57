package e2e

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"certrotation.dev/tests/access"
	"certrotation.dev/tests/fixture"
	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/snapshot"
	"certrotation.dev/tests/story"
)

// TestOthers has others work on the same things in the middle of one run: kubeadm, a hand in ca.crt, a controller-manager that is behind.
// Each is noticed, by name, and healed or waited for; nothing is dropped on top of it.
func TestOthers(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := open(ctx, t)
	o := &others{bed: b, plane: b.node(t, b.controlPlanes()[0]), worker: b.workers()[0]}
	o.walker = b.walk(ctx, t, "others", "approval: Manual")
	o.pauseIn(ctx, t, time.Now(), "TrustingBoth")
	o.run(ctx, t, o.plane, "kubeadm", "certs", "renew", "all")
	o.run(ctx, t, o.worker, "kubeadm", "upgrade", "node")
	now := o.resume(ctx, t)
	o.awaitGate(ctx, t, now)
	o.learn(ctx, t)
	t.Run("renewed and upgraded while both are trusted, all is new at the gate", func(t *testing.T) { o.assertServed(ctx, t) })
	t.Run("kube-root-ca.crt with the old authority alone", func(t *testing.T) { o.assertRootConfigMap(ctx, t) })
	t.Run("extension-apiserver-authentication with the old authority alone", func(t *testing.T) { o.assertExtension(ctx, t) })
	t.Run("kubeadm certs renew all, and the old ca.crt on a worker", func(t *testing.T) { o.assertRenewed(ctx, t) })
	t.Run("the controller-manager's manifest as kubeadm upgrade writes it", func(t *testing.T) { o.assertUpgraded(ctx, t) })
	t.Run("a stranger's authority in ca.crt, approved on top of it", func(t *testing.T) { o.assertStranger(ctx, t) })
	o.awaitCompleted(ctx, t, now)
	for _, n := range b.nodes {
		t.Run(n.Name+" has the new authority alone", func(t *testing.T) { o.assertNode(ctx, t, n) })
	}
	t.Run("the drop came last, and Completed after it", o.assertStory)
}

type others struct {
	*walker
	bed           *bed
	plane, worker nodes.Node
}

func (o *others) run(ctx context.Context, t *testing.T, n nodes.Node, command ...string) {
	t.Helper()
	if out, err := n.Run(ctx, command...); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	say("%s: %s", n.Name, strings.Join(command, " "))
}

// fallsBack waits until status is in that phase again and names the node.
func (o *others) fallsBack(ctx context.Context, t *testing.T, after time.Time, phase string, n nodes.Node) {
	t.Helper()
	v := o.await(ctx, t, after, 3*time.Minute, "status to name "+n.Name+" in "+phase, func(s *story.Status) bool {
		return s.Phase == phase && s.WaitsFor(n.Name)
	})
	say("noticed after %s: %s", v.At.Sub(after).Round(time.Second), v.Status.Tell())
	o.awaitEvent(ctx, t, after, phase)
	o.notDropped(ctx, t)
}

// awaitEvent waits for an Event of that reason: it is written after the status.
func (o *others) awaitEvent(ctx context.Context, t *testing.T, after time.Time, reason string) {
	t.Helper()
	waiting, end := within(ctx, t, 10*time.Second)
	defer end()
	for {
		for _, e := range o.bed.recorder.Events() {
			if e.At.After(after) && e.Reason == reason {
				return
			}
		}
		select {
		case <-waiting.Done():
			t.Errorf("no Event tells of %s", reason)
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// served are the certificates that the API server presents: leaf and bridge.
func (o *others) served(ctx context.Context, t *testing.T) []snapshot.Certificate {
	t.Helper()
	text, err := o.plane.Run(ctx, "cat", "/etc/kubernetes/pki/apiserver.crt")
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := snapshot.Inspect(text)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// assertServed: who trusts the old authority alone is served as well as who trusts the new one alone, and both files trust both.
func (o *others) assertServed(ctx context.Context, t *testing.T) {
	t.Helper()
	list := o.served(ctx, t)
	if len(list) != 2 || !snapshot.Of(o.new).Issued(&list[0]) || !snapshot.Of(o.old).Issued(&list[1]) {
		t.Errorf("apiserver.crt holds %d certificates, the first is from %s", len(list), list[0].Issuer)
	}
	for _, n := range []nodes.Node{o.plane, o.worker} {
		if holds := o.authorities(ctx, t, n, caFile); holds != "N+O" && holds != "O+N" {
			t.Errorf("%s: ca.crt holds %s", n.Name, holds)
		}
	}
	taken, err := o.plane.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"scheduler.conf", "controller-manager.conf", "admin.conf", "super-admin.conf"} {
		for _, trace := range taken.Traces(snapshot.Of(o.old)) {
			if strings.HasSuffix(trace.Path, "/kubernetes/"+name) {
				t.Errorf("%s", trace)
			}
		}
	}
}

// assertRootConfigMap: with the controller-manager that would put it right stopped, so that it is ours to.
func (o *others) assertRootConfigMap(ctx context.Context, t *testing.T) {
	manager := ""
	for _, e := range o.bed.observer.Events() {
		if e.What == nodes.ContainerStarted && e.Container == "kube-controller-manager" {
			manager = e.ID
		}
	}
	if err := o.plane.Kill(ctx, manager, "STOP"); err != nil {
		t.Fatal(err)
	}
	defer o.plane.Kill(ctx, manager, "CONT")
	before := time.Now()
	o.write(ctx, t, fixture.Namespace, "kube-root-ca.crt", "ca.crt", o.old)
	o.await(ctx, t, before, 30*time.Second, "status to name it", func(s *story.Status) bool {
		return s.Phase == "PublishingNew" && s.WaitsFor(fixture.Namespace+"/kube-root-ca.crt")
	})
	o.awaitMap(ctx, t, fixture.Namespace, "kube-root-ca.crt", "ca.crt", "N")
	if err := o.plane.Kill(ctx, manager, "CONT"); err != nil {
		t.Fatal(err)
	}
	o.awaitGate(ctx, t, before.Add(time.Second))
}

func (o *others) assertExtension(ctx context.Context, t *testing.T) {
	const namespace, name, key = "kube-system", "extension-apiserver-authentication", "client-ca-file"
	o.write(ctx, t, namespace, name, key, o.old)
	o.awaitMap(ctx, t, namespace, name, key, "N+O", "O+N") // API servers see to it, each minute at the latest
	o.notDropped(ctx, t)
}

func (o *others) write(ctx context.Context, t *testing.T, namespace, name, key string, c *x509.Certificate) {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	o.bed.kubectl(ctx, t, "-n", namespace, "patch", "configmap", name, "--type=merge", "-p", fmt.Sprintf(`{"data":{%q:%q}}`, key, text))
}

func (o *others) awaitMap(ctx context.Context, t *testing.T, namespace, name, key string, wanted ...string) {
	t.Helper()
	waiting, end := within(ctx, t, 90*time.Second)
	defer end()
	for began := time.Now(); ; {
		object, err := o.bed.Client.CoreV1().ConfigMaps(namespace).Get(waiting, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		holds := o.tell(t, []byte(object.Data[key]))
		for _, good := range wanted {
			if holds == good {
				say("%s/%s holds %s after %s", namespace, name, holds, time.Since(began).Round(100*time.Millisecond))
				return
			}
		}
		select {
		case <-waiting.Done():
			t.Fatalf("%s/%s holds %s", namespace, name, holds)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (o *others) put(ctx context.Context, t *testing.T, n nodes.Node, list ...*x509.Certificate) {
	t.Helper()
	var text []byte
	for _, c := range list {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	if err := n.Write(ctx, caFile, text); err != nil {
		t.Fatal(err)
	}
}

// assertRenewed: bare leaves of the new authority, which whoever trusts the old one alone can't verify, and a kubelet that would refuse
// the API server.
func (o *others) assertRenewed(ctx context.Context, t *testing.T) {
	before := time.Now()
	o.run(ctx, t, o.plane, "kubeadm", "certs", "renew", "all")
	o.put(ctx, t, o.worker, o.old)
	if list := o.served(ctx, t); len(list) != 1 {
		t.Fatalf("kubeadm has written %d certificates, so this shows nothing", len(list))
	}
	o.fallsBack(ctx, t, before, "ReissuingLeaves", o.plane)
	o.fallsBack(ctx, t, before, "TrustingBoth", o.worker)
	o.awaitHealed(ctx, t)
}

// awaitHealed waits for the gate as it is when the last look at every node found nothing.
func (o *others) awaitHealed(ctx context.Context, t *testing.T) {
	t.Helper()
	o.awaitGate(ctx, t, time.Now().Add(-time.Second))
	o.assertServed(ctx, t)
	if out, err := o.bed.Kubectl.Run(ctx, "get", "--raw", "/api/v1/nodes/"+o.worker.Name+"/proxy/healthz"); err != nil || out != "ok" {
		t.Errorf("the API server asks %s: %q %v", o.worker.Name, out, err)
	}
}

// assertUpgraded: kubeadm's own flags have it sign with ca.crt, which holds two; it ends at its start.
func (o *others) assertUpgraded(ctx context.Context, t *testing.T) {
	before := time.Now()
	o.run(ctx, t, o.plane, "kubeadm", "init", "phase", "control-plane", "controller-manager", "--config", "/kind/kubeadm.conf")
	o.fallsBack(ctx, t, before, "TrustingBoth", o.plane)
	o.awaitHealed(ctx, t)
	waiting, end := within(ctx, t, time.Minute)
	defer end()
	if _, err := o.bed.Kubectl.Run(waiting, "-n", "kube-system", "wait", "--for=condition=Ready", "pod", "-l", "component=kube-controller-manager", "--timeout=60s"); err != nil {
		t.Error(err)
	}
}

// assertStranger: the approval counts, and what was not seen by then is seen before anything is refused.
func (o *others) assertStranger(ctx context.Context, t *testing.T) {
	stranger, err := access.Certificates(strangersCA(t))
	if err != nil {
		t.Fatal(err)
	}
	o.put(ctx, t, o.worker, o.new, o.old, stranger[0])
	before := o.approve(ctx, t)
	v := o.await(ctx, t, before, 3*time.Minute, "status to be blocked by it", func(s *story.Status) bool {
		stalled := s.Condition("Stalled")
		return stalled != nil && stalled.Reason == "Blocked" && s.WaitsFor(o.worker.Name)
	})
	listed := false
	for _, b := range v.Status.Blockers {
		listed = listed || b.Code == "ForeignAuthority" && strings.Contains(b.Object, o.worker.Name) && strings.HasSuffix(b.Object, caFile)
	}
	if !listed {
		t.Errorf("the blockers are %+v", v.Status.Blockers)
	}
	select {
	case <-ctx.Done():
	case <-time.After(5 * time.Second): // the time in which nothing must happen
	}
	o.notDropped(ctx, t)
	o.put(ctx, t, o.worker, o.new, o.old)
}
