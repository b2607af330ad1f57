package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"certrotation.dev/tests/fixture"
	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/probe"
	"certrotation.dev/tests/snapshot"
	"certrotation.dev/tests/story"
)

// TestRollback takes runs back: one that had everything done but the drop, one in the middle of its
// certificates; and goes forward to the end then. What was so before must be so again, and nobody whose
// credentials were good at the start may ever be refused.
func TestRollback(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := open(ctx, t)
	b.populate(ctx, t)
	t.Cleanup(func() { b.save(t) })

	late := b.prepare(ctx, t, "late")
	late.start(ctx, t)
	late.awaitStragglers(ctx, t)
	late.turnRound(ctx, t)
	t.Run("from the last phase before the drop", func(t *testing.T) { late.assertRolledBack(ctx, t) })
	t.Run("applying the same again does nothing", func(t *testing.T) { late.assertAgain(ctx, t) })
	if setting("E2E_RUNS", "2") == "1" {
		return
	}
	early := b.prepare(ctx, t, "early")
	early.start(ctx, t)
	early.awaitEvent(ctx, t, "a new apiserver.crt", func(e *nodes.Event) bool {
		return e.What == nodes.FileChanged && !e.Already && e.Path == "/etc/kubernetes/pki/apiserver.crt"
	})
	early.turnRound(ctx, t)
	t.Run("from the middle of ReissuingLeaves", func(t *testing.T) { early.assertRolledBack(ctx, t) })

	b.kubectl(ctx, t, "-n", fixture.Namespace, "delete", "pod", "alone", "--wait=true")
	b.kubectl(ctx, t, "-n", fixture.Namespace, "rollout", "resume", "deployment/frozen")
	again := b.prepare(ctx, t, "forward")
	again.begin(ctx, t)
	again.finish(ctx, t, 15*time.Minute)
	t.Run("and forward to the end", func(t *testing.T) { again.assert(ctx, t) })
}

// awaitStragglers waits until only the two that no run can restart hold it.
func (r *rotation) awaitStragglers(ctx context.Context, t *testing.T) {
	t.Helper()
	waiting, end := within(ctx, t, 10*time.Minute)
	defer end()
	if _, err := r.await(waiting, "status to name "+frozen+" and "+alone, func(v *story.Version) bool {
		return r.inRun(v) && v.Status.WaitsFor(frozen) && v.Status.WaitsFor(alone)
	}); err != nil {
		r.collect(ctx, t)
		t.Fatal(err)
	}
	r.awaitOnly(waiting, t, frozen, alone)
}

func (r *rotation) awaitEvent(ctx context.Context, t *testing.T, what string, is func(*nodes.Event) bool) {
	t.Helper()
	waiting, end := within(ctx, t, 5*time.Minute)
	defer end()
	if _, err := r.bed.observer.Await(waiting, func(e *nodes.Event) bool { return e.At.After(r.applied) && is(e) }); err != nil {
		r.collect(ctx, t)
		t.Fatalf("waited for %s: %v", what, err)
	}
}

// turnRound asks for the way back, takes the request out again once it was seen, as a tool that owns the
// manifest would, and waits for the end.
func (r *rotation) turnRound(ctx context.Context, t *testing.T) {
	t.Helper()
	waiting, end := within(ctx, t, 15*time.Minute)
	defer end()
	r.turned = time.Now()
	r.bed.kubectl(ctx, t, "patch", "certificaterotation", rotationName, "--type=merge", "-p", fmt.Sprintf(`{"spec":{"rollback":{"trigger":%q}}}`, r.trigger))
	r.awaitPhase(waiting, t, "RollingBack")
	r.bed.kubectl(ctx, t, "patch", "certificaterotation", rotationName, "--type=merge", "-p", `{"spec":{"rollback":null}}`)
	r.completed = r.awaitPhase(waiting, t, "RolledBack")
	r.seeEachTried(waiting, t)
	r.killing.Wait()
	r.collect(ctx, t)
}

func (r *rotation) awaitPhase(ctx context.Context, t *testing.T, phase string) time.Time {
	t.Helper()
	v, err := r.await(ctx, phase, func(v *story.Version) bool {
		return v.Trigger == r.trigger && v.Status.Phase == phase && v.At.After(r.turned)
	})
	if err != nil {
		r.collect(context.WithoutCancel(ctx), t)
		t.Fatal(err)
	}
	return v.At
}

// mirrored is the run with old and new exchanged: what must hold of the new authority at the end of a run
// must hold of the old one at the end of the way back.
func (r *rotation) mirrored(t *testing.T) *rotation {
	keys := probe.NewKeyring(r.new(t), nil, "")
	keys.SetNew(r.old())
	return &rotation{bed: r.bed, trigger: r.trigger, authorities: r.authorities, keys: keys, accepted: r.accepted, before: r.before, after: r.after}
}

func (r *rotation) assertRolledBack(ctx context.Context, t *testing.T) {
	m := r.mirrored(t)
	t.Run("who came with the old certificate or a token was never refused", r.assertOldNeverFails)
	t.Run("nobody at all was refused before the new authority was dropped", r.assertNoFailureBeforeNewIsDropped)
	t.Run("afterwards what the new authority issued is refused", r.assertNewRefused)
	t.Run("the open watch was never cut", r.assertWatch)
	t.Run("new logs and exec sessions never fail", r.assertSessions)
	t.Run("neither API server nor etcd restarts", r.assertServersStay)
	t.Run("the stragglers were left alone", r.assertStragglersStay)
	t.Run("workload pods count no failed call", func(t *testing.T) { r.assertCounts(ctx, t) })
	t.Run("every file is as it was", r.assertFilesAsBefore)
	t.Run("nothing of the new authority is on any node", r.assertNoTracesOfNew)
	t.Run("every kube-root-ca.crt carries the old authority only", func(t *testing.T) { m.assertConfigMaps(ctx, t) })
	t.Run("every ServiceAccount token Secret carries the old authority only", func(t *testing.T) { m.assertTokenSecrets(ctx, t) })
	t.Run("cluster-info carries the old authority only, signed", func(t *testing.T) { m.assertClusterInfo(ctx, t) })
	t.Run("what aggregated API servers read carries the old authority only", func(t *testing.T) { m.assertExtension(ctx, t) })
	t.Run("no object carries the new authority", func(t *testing.T) { m.assertNoObjectCarries(ctx, t) })
	t.Run("mounted volumes carry the old authority only", func(t *testing.T) { m.assertVolumes(ctx, t) })
	t.Run("kubeadm certs check-expiration is content", func(t *testing.T) { r.assertExpiration(ctx, t) })
	t.Run("no node Pod is left", func(t *testing.T) { r.assertNoNodePods(ctx, t) })
	t.Run("status says so", r.assertStatusRolledBack)
}

func (r *rotation) assertOldNeverFails(t *testing.T) {
	mine := r.cells([]probe.Trust{probe.OldTrust, probe.BothTrust}, []probe.Credential{probe.OldCertificate, probe.Token})
	assertAllTried(t, mine, []probe.Cell{{Trust: probe.OldTrust, Credential: probe.OldCertificate}, {Trust: probe.BothTrust, Credential: probe.Token}}, 100)
	if failed := probe.Failed(mine); len(failed) > 0 {
		t.Error(probe.Tell(failed))
	}
}

// newDropped is when the first ca.crt lost the new authority after it had held it.
func (r *rotation) newDropped(t *testing.T) time.Time {
	t.Helper()
	for _, e := range r.bed.observer.Events() {
		if e.What != nodes.FileChanged || e.Path != "/etc/kubernetes/pki/ca.crt" || e.At.Before(r.turned) {
			continue
		}
		if !slices.ContainsFunc(e.Certificates, func(c snapshot.Certificate) bool { return c.Fingerprint == snapshot.Fingerprint(r.new(t)) }) {
			return e.At
		}
	}
	t.Fatal("no ca.crt lost the new authority")
	return time.Time{}
}

func (r *rotation) assertNoFailureBeforeNewIsDropped(t *testing.T) {
	dropped := r.newDropped(t)
	before := probe.Filter(r.attempts(), func(a *probe.Attempt) bool { return a.Ended().Before(dropped) })
	assertAllTried(t, before, []probe.Cell{{Trust: probe.OldTrust, Credential: probe.OldCertificate}, {Trust: probe.BothTrust, Credential: probe.Token}}, 100)
	if failed := probe.Failed(before); len(failed) > 0 {
		t.Errorf("the new authority was dropped at %s; failed before: %s", dropped.Format("15:04:05.000"), probe.Tell(failed))
	}
}

func (r *rotation) assertNewRefused(t *testing.T) {
	mine := r.afterEnd(r.attempts())
	untrusted := probe.Filter(mine, func(a *probe.Attempt) bool { return a.Cell.Trust == probe.NewTrust })
	refused := probe.Filter(mine, func(a *probe.Attempt) bool {
		return a.Cell.Trust != probe.NewTrust && a.Cell.Credential == probe.NewCertificate
	})
	if len(untrusted) == 0 {
		t.Error("nobody who trusts only the new authority has tried")
	}
	if other := probe.Filter(untrusted, func(a *probe.Attempt) bool { return a.Kind != probe.Untrusted }); len(other) > 0 {
		t.Errorf("the server's certificate was accepted in: %s", probe.Tell(other))
	}
	if other := probe.Filter(refused, func(a *probe.Attempt) bool { return a.Kind != probe.Unauthorized }); len(other) > 0 {
		t.Errorf("of %d with new certificates, not refused with 401: %s", len(refused), probe.Tell(other))
	}
}

// seeEachTried waits until every kind of probe that there is was tried 20 times after the end.
func (r *rotation) seeEachTried(ctx context.Context, t *testing.T) {
	t.Helper()
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for {
		tried, ever := map[probe.Cell]int{}, map[probe.Cell]bool{}
		for _, a := range r.attempts() {
			ever[a.Cell] = true
			if a.Started.After(r.completed) {
				tried[a.Cell]++
			}
		}
		missing := 0
		for c := range ever {
			if tried[c] < 20*len(r.sets) {
				missing++
			}
		}
		if missing == 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Errorf("%d kinds of probe were not tried often enough after the end: %v", missing, tried)
			return
		case <-ticker.C:
		}
	}
}

func (r *rotation) assertServersStay(t *testing.T) {
	for _, node := range r.bed.controlPlanes() {
		for _, component := range []string{"kube-apiserver", "etcd"} {
			if seen := r.restarts(func(x *nodes.Restart) bool { return x.Node == node && x.Static(component) }); len(seen) > 0 {
				t.Error(nodes.TellRestarts(seen))
			}
		}
	}
}

func (r *rotation) assertStragglersStay(t *testing.T) {
	owner := map[string]string{}
	for _, p := range r.bed.book.Pods() {
		owner[string(p.UID)] = p.Owner
	}
	if seen := r.restarts(func(x *nodes.Restart) bool { return owner[x.PodUID] == frozen || owner[x.PodUID] == alone }); len(seen) > 0 {
		t.Error(nodes.TellRestarts(seen))
	}
}

// assertFilesAsBefore: same files, modes, owners and bytes; pods' volumes come and go with their pods.
func (r *rotation) assertFilesAsBefore(t *testing.T) { r.assertSameFiles(t, r.after) }

func (r *rotation) assertSameFiles(t *testing.T, after map[string]*snapshot.Node) {
	t.Helper()
	compared := 0
	for name, before := range r.before {
		for _, d := range snapshot.Shape(before, after[name]) {
			t.Errorf("%s: %s", name, d)
		}
		which := func(path string) bool {
			compared++
			return !strings.HasPrefix(path, "/var/lib/kubelet/pods/") && !strings.HasSuffix(path, "_state")
		}
		for _, d := range snapshot.Content(before, after[name], which) {
			t.Errorf("%s: %s", name, d)
		}
	}
	if compared < 20 {
		t.Errorf("only %d files were compared", compared)
	}
}

func (r *rotation) assertNoTracesOfNew(t *testing.T) {
	authority := snapshot.Of(r.new(t))
	for name, after := range r.after {
		for _, trace := range after.Traces(authority) {
			t.Errorf("%s: %s", name, trace)
		}
	}
}

func (r *rotation) assertStatusRolledBack(t *testing.T) {
	last := r.bed.recorder.Versions()[len(r.bed.recorder.Versions())-1].Status
	stalled := last.Condition("Stalled")
	if last.Phase != "RolledBack" || last.Is("Ready") || stalled == nil || stalled.Reason != "RolledBack" {
		t.Errorf("at the end: %s", last.Tell())
	}
	if len(last.History) == 0 || last.History[len(last.History)-1].Result != "RolledBack" || last.History[len(last.History)-1].Trigger != r.trigger {
		t.Errorf("the history is %+v", last.History)
	}
	for _, v := range r.versions {
		if v.At.After(r.turned.Add(30*time.Second)) && v.Status.Phase != "RollingBack" && v.Status.Phase != "RolledBack" {
			t.Errorf("at %s, after the run was turned round, the phase was %s", v.At.Format("15:04:05.000"), v.Status.Phase)
		}
	}
}
