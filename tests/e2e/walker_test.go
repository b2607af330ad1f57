package e2e

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"certrotation.dev/tests/access"
	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/snapshot"
	"certrotation.dev/tests/story"
)

const caFile = "/etc/kubernetes/pki/ca.crt"

// walker is one run that is held still and let go again, without probes.
type walker struct {
	bed      *bed
	trigger  string
	first    int // version of the recorder
	old, new *x509.Certificate
}

// walk begins a run; more is of its spec, a line each.
func (b *bed) walk(ctx context.Context, t *testing.T, trigger string, more ...string) *walker {
	t.Helper()
	published := b.Authorities.Published()
	if len(published) != 1 {
		t.Fatalf("the cluster publishes %d authorities before the run", len(published))
	}
	w := &walker{bed: b, trigger: trigger, first: len(b.recorder.Versions()), old: published[0]}
	text := fmt.Sprintf("apiVersion: certrotation.dev/v1alpha1\nkind: CertificateRotation\nmetadata: {name: %s}\nspec:\n  trigger: %q\n", rotationName, trigger)
	for _, line := range more {
		text += "  " + line + "\n"
	}
	b.apply(ctx, t, []byte(text))
	return w
}

// run are the versions of this run so far.
func (w *walker) run() []story.Version {
	var list []story.Version
	for _, v := range w.bed.recorder.Versions()[w.first:] {
		if v.Status.Run.Trigger == w.trigger || v.Status.Run.Trigger == "" && v.Trigger == w.trigger {
			list = append(list, v)
		}
	}
	return list
}

func (w *walker) last() *story.Status {
	versions := w.bed.recorder.Versions()
	return &versions[len(versions)-1].Status
}

// await waits for a version from that time on.
func (w *walker) await(ctx context.Context, t *testing.T, after time.Time, patience time.Duration, what string, is func(*story.Status) bool) story.Version {
	t.Helper()
	waiting, end := within(ctx, t, patience)
	defer end()
	v, _, err := w.bed.recorder.Await(waiting, w.first, func(v *story.Version) bool {
		return v.Trigger == w.trigger && !v.At.Before(after) && is(&v.Status)
	})
	if err != nil {
		t.Fatalf("waited for %s: %v", what, err)
	}
	return v
}

func (w *walker) awaitPhase(ctx context.Context, t *testing.T, after time.Time, phase string) {
	t.Helper()
	w.await(ctx, t, after, 6*time.Minute, phase, func(s *story.Status) bool { return s.Phase == phase })
	say("%s: %s", w.trigger, phase)
}

// awaitGate waits until a person's yes is all that is missing, or is again from that time on.
func (w *walker) awaitGate(ctx context.Context, t *testing.T, after time.Time) {
	t.Helper()
	w.await(ctx, t, after, 6*time.Minute, "the gate", func(s *story.Status) bool {
		stalled := s.Condition("Stalled")
		return s.Phase == "AwaitingApproval" && stalled != nil && stalled.Reason == "AwaitingApproval"
	})
	say("%s: at the gate", w.trigger)
}

func (w *walker) set(ctx context.Context, t *testing.T, spec string) time.Time {
	t.Helper()
	before := time.Now()
	w.bed.kubectl(ctx, t, "patch", "certificaterotation", rotationName, "--type=merge", "-p", `{"spec":`+spec+`}`)
	return before
}

// pauseIn stops the run in a phase that comes from that time on.
func (w *walker) pauseIn(ctx context.Context, t *testing.T, after time.Time, phase string) {
	t.Helper()
	w.awaitPhase(ctx, t, after, phase)
	w.pause(ctx, t)
	if now := w.last(); now.Phase != phase {
		t.Fatalf("the pause came too late for %s: %s", phase, now.Tell())
	}
}

func (w *walker) pause(ctx context.Context, t *testing.T) {
	t.Helper()
	asked := w.set(ctx, t, `{"paused":true}`)
	w.await(ctx, t, asked, 30*time.Second, "the pause", func(s *story.Status) bool {
		ready := s.Condition("Ready")
		return ready != nil && ready.Reason == "Paused"
	})
	w.awaitIdle(ctx, t)
}

// awaitIdle waits until no node Pod runs: what was begun is finished, paused or not.
func (w *walker) awaitIdle(ctx context.Context, t *testing.T) {
	t.Helper()
	waiting, end := within(ctx, t, 3*time.Minute)
	defer end()
	for {
		list, err := w.bed.Client.CoreV1().Pods(nodesNamespace).List(waiting, metav1.ListOptions{FieldSelector: "status.phase=Running"})
		if err != nil {
			t.Fatal(err)
		}
		if len(list.Items) == 0 {
			return
		}
		select {
		case <-waiting.Done():
			t.Fatalf("%d node Pods still run", len(list.Items))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (w *walker) resume(ctx context.Context, t *testing.T) time.Time {
	t.Helper()
	return w.set(ctx, t, `{"paused":false}`)
}

// approve says yes by a token that names the new kubeconfig.
func (w *walker) approve(ctx context.Context, t *testing.T) time.Time {
	t.Helper()
	return w.set(ctx, t, fmt.Sprintf(`{"approve":{"trigger":%q,"phase":"DroppingOld","clientCertificateFingerprint":%q}}`,
		w.trigger, w.last().AdminKubeconfig.ClientCertificateFingerprint))
}

func (w *walker) awaitCompleted(ctx context.Context, t *testing.T, after time.Time) {
	t.Helper()
	w.await(ctx, t, after, 6*time.Minute, "Completed", func(s *story.Status) bool { return s.Phase == "Completed" && s.Is("Ready") })
	say("%s: Completed", w.trigger)
}

// learn gives the authority that this run makes, once it is published.
func (w *walker) learn(ctx context.Context, t *testing.T) *x509.Certificate {
	t.Helper()
	waiting, end := within(ctx, t, time.Minute)
	defer end()
	if w.new == nil {
		known, _ := w.bed.Authorities.Known()
		for _, c := range known {
			if strings.Contains(c.Subject.String(), "certrotation-"+w.last().Run.ID) {
				w.new = c
				return c
			}
		}
		made, err := w.bed.Authorities.AwaitAnother(waiting, known...)
		if err != nil {
			t.Fatal(err)
		}
		w.new = made
	}
	return w.new
}

// authorities tells which of the two, or what other, a file of a node holds.
func (w *walker) authorities(ctx context.Context, t *testing.T, n nodes.Node, path string) string {
	t.Helper()
	text, err := n.Run(ctx, "cat", path)
	if err != nil {
		t.Fatal(err)
	}
	return w.tell(t, text)
}

func (w *walker) tell(t *testing.T, text []byte) string {
	t.Helper()
	list, err := access.Certificates(text)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range list {
		switch {
		case c.Equal(w.old):
			names = append(names, "O")
		case w.new != nil && c.Equal(w.new):
			names = append(names, "N")
		default:
			names = append(names, c.Subject.String())
		}
	}
	return strings.Join(names, "+")
}

// notDropped looks whether the control planes still accept what the old authority has issued, and nothing says that it was dropped.
func (w *walker) notDropped(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, name := range w.bed.controlPlanes() {
		if holds := w.authorities(ctx, t, w.bed.node(t, name), caFile); !strings.Contains(holds, "O") {
			t.Errorf("%s accepts %s by now: %s", name, holds, w.last().Tell())
		}
	}
	if s := w.last(); s.Phase == "Completed" || s.Is("OldAuthorityDropped") {
		t.Errorf("dropped: %s", s.Tell())
	}
}

// assertStory: nothing earlier is told once the drop has begun, and Ready is True at the end and not before.
func (w *walker) assertStory(t *testing.T) {
	began := false
	for _, v := range w.run() {
		s, at := &v.Status, v.At.Format("15:04:05.000")
		began = began || s.Phase == "DroppingOld"
		if began && s.Phase != "DroppingOld" && s.Phase != "Completed" {
			t.Errorf("%s: %s after the drop has begun", at, s.Tell())
		}
		if s.Is("Ready") != (s.Phase == "Completed") {
			t.Errorf("%s: %s", at, s.Tell())
		}
	}
	if !began {
		t.Error("the drop was never told of")
	}
}

// assertNode: a node knows the new authority and nothing else, and the API server and its kubelet talk to each other.
func (w *walker) assertNode(ctx context.Context, t *testing.T, n nodes.Node) {
	t.Helper()
	taken, err := n.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, trace := range taken.Traces(snapshot.Of(w.old)) {
		t.Errorf("%s: %s", n.Name, trace)
	}
	if holds := w.authorities(ctx, t, n, caFile); holds != "N" {
		t.Errorf("%s: ca.crt holds %s", n.Name, holds)
	}
	for path, place := range map[string]string{"/var/lib/kubelet/pki/kubelet-client-current.pem": "its certificate", "/etc/kubernetes/kubelet.conf": "its trust"} {
		f := taken.Find(path)
		if f == nil || len(f.Certificates) == 0 || !snapshot.Of(w.new).Issued(&f.Certificates[0]) {
			t.Errorf("%s: %s: %s is not the new authority's", n.Name, path, place)
		}
	}
	node, err := w.bed.Client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
	if err != nil || !ready(node) {
		t.Errorf("%s is not Ready: %v", n.Name, err)
	}
	if out, err := w.bed.Kubectl.Run(ctx, "get", "--raw", "/api/v1/nodes/"+n.Name+"/proxy/healthz"); err != nil || out != "ok" {
		t.Errorf("%s: the API server asks its kubelet: %q %v", n.Name, out, err)
	}
}

// assertCounted: at the end of the drop so many nodes were counted, and all were done.
func (w *walker) assertCounted(t *testing.T, all int64) {
	t.Helper()
	for _, kind := range []string{"Kubelets", "ServersTrustingOnlyNew"} {
		var done, total int64
		for _, v := range w.run() {
			if v.Status.Phase == "DroppingOld" {
				done, total = progress(&v.Status, kind)
			}
		}
		if done != all || total != all {
			t.Errorf("at the end of the drop %s were %d/%d, with %d nodes", kind, done, total, all)
		}
	}
}

func ready(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func progress(s *story.Status, kind string) (done, total int64) {
	for _, p := range s.Progress {
		if p.Kind == kind {
			return p.Done, p.Total
		}
	}
	return 0, 0
}
