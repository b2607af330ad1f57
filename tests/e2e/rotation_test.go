package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"certrotation.dev/tests/fixture"
	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/probe"
	"certrotation.dev/tests/snapshot"
	"certrotation.dev/tests/story"
)

const (
	frozen = "Deployment/" + fixture.Namespace + "/frozen"
	alone  = "Pod/" + fixture.Namespace + "/alone"
)

// TestRotation takes a live cluster to a second authority, with stragglers to be dealt with and a leader
// that is killed twice; applies the same again, to no effect; and takes it to a third authority. With E2E_SEEDS
// the first part is done so many times, each with moments of its own.
func TestRotation(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := open(ctx, t)
	b.populate(ctx, t)
	t.Cleanup(func() { b.save(t) })

	trigger, seed := setting("E2E_TRIGGER", "first"), drawn(t)
	first := b.rotate(ctx, t, trigger, seed)
	t.Run("applying the same manifest again does nothing", func(t *testing.T) { first.assertAgain(ctx, t) })
	for i := uint64(1); i < uint64(number(t, "E2E_SEEDS", 1)) && !t.Failed(); i++ {
		b.refresh(ctx, t)
		t.Run(fmt.Sprintf("once more with E2E_SEED=%d", seed+i), func(t *testing.T) {
			first = b.rotate(ctx, t, fmt.Sprintf("%s-%d", trigger, i), seed+i)
		})
	}
	if setting("E2E_RUNS", "2") == "1" {
		return
	}
	b.kubectl(ctx, t, "-n", fixture.Namespace, "delete", "pod", "alone", "--wait=true")
	second := b.prepare(ctx, t, trigger+"-and-second")
	second.begin(ctx, t)
	second.finish(ctx, t, 15*time.Minute)
	t.Run("a new trigger runs a second rotation to a third authority", func(t *testing.T) {
		if !second.old().Equal(first.new(t)) || second.new(t).Equal(first.old()) {
			t.Errorf("from %s to %s, after a rotation from %s to %s", snapshot.Fingerprint(second.old()), snapshot.Fingerprint(second.new(t)),
				snapshot.Fingerprint(first.old()), snapshot.Fingerprint(first.new(t)))
		}
		second.assert(ctx, t)
	})
}

// rotate takes the cluster to another authority, with stragglers and two kills.
func (b *bed) rotate(ctx context.Context, t *testing.T, trigger string, seed uint64) *rotation {
	t.Helper()
	r := b.prepare(ctx, t, trigger)
	user := newUser(ctx, t, b)
	t.Run("the user's kubeconfig works before", user.works)
	r.killLeaders(ctx, seed, 2, 3*time.Second, "TrustingBoth", "ReissuingLeaves", "RestartingWorkloads", "DroppingOld")
	r.begin(ctx, t)
	r.stragglers(ctx, t)
	r.finish(ctx, t, 15*time.Minute)
	t.Run(trigger, func(t *testing.T) {
		r.assert(ctx, t)
		if r.planned > 0 {
			t.Run("the leader was killed in two phases and both replicas have led", r.assertKills)
		}
		t.Run("the user's kubeconfig is refused afterwards", func(t *testing.T) { user.refused(t, r.new(t)) })
	})
	return r
}

// refresh makes of the cluster what it was before, but for its authority: the stragglers are there again, and no process of the
// controller's has been killed.
func (b *bed) refresh(ctx context.Context, t *testing.T) {
	t.Helper()
	b.kubectl(ctx, t, "-n", systemNamespace, "rollout", "restart", "deployment/"+controller)
	b.kubectl(ctx, t, "-n", fixture.Namespace, "delete", "pod", "alone", "--wait=true")
	b.populate(ctx, t)
}

// stragglers sees that the drop waits for what can't be restarted, by name; then resumes one and accepts
// the other.
func (r *rotation) stragglers(ctx context.Context, t *testing.T) {
	t.Helper()
	waiting, end := within(ctx, t, 10*time.Minute)
	defer end()
	began := time.Now()
	_, err := r.await(waiting, "status to name "+frozen+" and "+alone, func(v *story.Version) bool {
		return r.inRun(v) && v.Status.WaitsFor(frozen) && v.Status.WaitsFor(alone)
	})
	if err != nil {
		r.collect(ctx, t)
		t.Fatal(err)
	}
	// What else restarts may still be under way; the hold begins when only these two are waited for.
	began = r.awaitOnly(waiting, t, frozen, alone)
	t.Run("the drop waits for the stragglers", func(t *testing.T) { r.assertHolds(ctx, t, 15*time.Second, frozen, alone) })
	r.bed.kubectl(ctx, t, "-n", fixture.Namespace, "rollout", "resume", "deployment/frozen")
	r.awaitOnly(waiting, t, alone)
	t.Run("the drop waits for the last straggler", func(t *testing.T) { r.assertHolds(ctx, t, 5*time.Second, alone) })
	r.accepted[alone] = true
	r.held = time.Since(began)
	r.bed.kubectl(ctx, t, "patch", "certificaterotation", rotationName, "--type=merge", "-p",
		fmt.Sprintf(`{"spec":{"acceptStragglers":{"trigger":%q,"names":[%q]}}}`, r.trigger, alone))
}

// awaitOnly waits until all workload pods are ready and status waits for exactly these of the stragglers.
func (r *rotation) awaitOnly(ctx context.Context, t *testing.T, names ...string) time.Time {
	t.Helper()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		versions := r.bed.recorder.Versions()
		status := &versions[len(versions)-1].Status
		if r.inRun(&versions[len(versions)-1]) && only(status, names) && len(r.bed.book.Unready()) == 0 {
			return time.Now()
		}
		select {
		case <-ctx.Done():
			r.collect(context.WithoutCancel(ctx), t)
			t.Fatalf("status does not wait for only %v (pods that are not ready: %v): %s", names, r.bed.book.Unready(), status.Tell())
		case <-ticker.C:
		}
	}
}

func only(s *story.Status, names []string) bool {
	want := map[string]bool{}
	for _, name := range names {
		want[name] = true
	}
	for _, name := range []string{frozen, alone} {
		if s.WaitsFor(name) != want[name] {
			return false
		}
	}
	for _, other := range []string{"Deployment/" + fixture.Namespace + "/web", "Deployment/" + fixture.NamespaceB + "/web",
		"DaemonSet/" + fixture.Namespace + "/agent", "StatefulSet/" + fixture.Namespace + "/store"} {
		if s.WaitsFor(other) {
			return false
		}
	}
	return true
}

// assertHolds looks for a while: nothing is dropped, and status goes on naming what it waits for.
func (r *rotation) assertHolds(ctx context.Context, t *testing.T, length time.Duration, names ...string) {
	from := len(r.bed.recorder.Versions()) - 1
	end := time.Now().Add(length)
	for time.Now().Before(end) {
		select {
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		case <-time.After(250 * time.Millisecond):
		}
		r.assertNotDropped(t, from, names)
		if t.Failed() {
			return
		}
	}
	old := probe.Filter(r.attempts(), func(a *probe.Attempt) bool {
		return a.Cell == probe.Cell{Trust: probe.OldTrust, Credential: probe.OldCertificate} && a.Started.After(end.Add(-length))
	})
	if failed := probe.Failed(old); len(failed) > 0 || len(old) == 0 {
		t.Errorf("of %d probes with old trust and old certificate while the drop waits, failed: %s", len(old), probe.Tell(failed))
	}
}

func (r *rotation) assertNotDropped(t *testing.T, from int, names []string) {
	t.Helper()
	for _, v := range r.bed.recorder.Versions()[from:] {
		if v.Status.Phase == "DroppingOld" || v.Status.Phase == "Completed" {
			t.Errorf("at %s the phase became %s while it should wait for %v", v.At.Format("15:04:05.000"), v.Status.Phase, names)
		}
		if v.Status.Is("Ready") {
			t.Errorf("at %s Ready was True while it should wait for %v", v.At.Format("15:04:05.000"), names)
		}
		for _, name := range names {
			if !v.Status.WaitsFor(name) {
				t.Errorf("at %s status did not name %s: %s", v.At.Format("15:04:05.000"), name, v.Status.Tell())
			}
		}
	}
	for node, file := range r.authorityFiles() {
		if !r.trustsOld(&file) {
			t.Errorf("on %s %s lost the old authority at %s", node, file.Path, file.At.Format("15:04:05.000"))
		}
	}
}

// authorityFiles gives the last content of ca.crt on each node.
func (r *rotation) authorityFiles() map[string]nodes.Event {
	last := map[string]nodes.Event{}
	for _, e := range r.bed.observer.Events() {
		if e.What == nodes.FileChanged && e.Path == "/etc/kubernetes/pki/ca.crt" {
			last[e.Node] = e
		}
	}
	return last
}

func (r *rotation) trustsOld(e *nodes.Event) bool {
	for i := range e.Certificates {
		if e.Certificates[i].Fingerprint == snapshot.Fingerprint(r.old()) {
			return true
		}
	}
	return false
}
