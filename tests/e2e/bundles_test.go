package e2e

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"certrotation.dev/tests/access"
	"certrotation.dev/tests/story"
)

// TestBundles takes webhooks, an aggregated API and a conversion, whose servers have certificates from the
// cluster's authority, through a plan, a run that is taken back, and one that goes to its end. Each is called
// several times a second, and no call may fail.
func TestBundles(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := open(ctx, t)
	b.kubectl(ctx, t, "-n", systemNamespace, "rollout", "status", "deployment/"+controller, "--timeout=180s")
	c := b.callees(ctx, t)
	t.Cleanup(func() { t.Log(c.tell()) })
	t.Run("a plan names what is moved and what is left to a person", func(t *testing.T) { c.assertPlan(ctx, t) })

	back := &bundleRun{callees: c, trigger: "there-and-back"}
	back.begin(ctx, t)
	back.awaitNamed(ctx, t, append(slices.Clone(moved), mixed)...)
	t.Run("before anything is renewed all of them hold the drop", func(t *testing.T) { back.assertHolds(ctx, t, 10*time.Second, moved...) })
	back.turnRound(ctx, t)
	t.Run("on the way back each gets the bytes that it had", func(t *testing.T) { back.assertAsBefore(t) })
	t.Run("no call has failed until then", func(t *testing.T) { c.assertCalls(t, 100) })

	there := &bundleRun{callees: c, trigger: "there"}
	there.begin(ctx, t)
	there.awaitSigner(ctx, t)
	c.renew(ctx, t, "callee")
	c.awaitPresented(ctx, t, "callee", there.new)
	say("callee is renewed in %s", b.recorder.Phase())
	there.awaitNamed(ctx, t, late, churned, mixed)
	t.Run("a server that was not renewed holds the drop, and so does what is not ours to change", func(t *testing.T) {
		there.assertHolds(ctx, t, 10*time.Second, late, churned)
		there.assertNextSteps(t)
	})
	t.Run("a bundle that its owner writes back is moved again", func(t *testing.T) { there.assertChurn(ctx, t) })
	b.kubectl(ctx, t, "patch", "certificaterotation", rotationName, "--type=merge", "-p",
		fmt.Sprintf(`{"spec":{"acceptStragglers":{"trigger":%q,"names":[%q]}}}`, there.trigger, mixed))
	there.awaitNamed(ctx, t, late, churned)
	c.renew(ctx, t, "late")
	c.awaitPresented(ctx, t, "late", there.new)
	renewed := time.Now()
	there.complete(ctx, t)
	say("completed %.0f s after the last server was renewed", there.completed.Sub(renewed).Seconds())
	t.Run("each was moved from the old authority to both to the new one", func(t *testing.T) { there.assertMoved(t) })
	t.Run("what was accepted is as its owner has written it", func(t *testing.T) {
		if is := c.now(mixed); is != c.mixed {
			t.Errorf("it holds %s", tellBundle(is))
		}
	})
	t.Run("no call has failed", func(t *testing.T) { c.assertCalls(t, 300) })
	t.Run("a call that its bundle does not vouch for does fail", func(t *testing.T) { c.assertNoticed(ctx, t) })
}

// assertPlan asks for a plan under another name, and takes it away.
func (c *callees) assertPlan(ctx context.Context, t *testing.T) {
	waiting, end := within(ctx, t, 3*time.Minute)
	defer end()
	c.bed.apply(ctx, t, manifest(rotationName, "bundles-planned", "Plan"))
	v, _, err := c.bed.recorder.Await(waiting, 0, func(v *story.Version) bool { return v.Status.Phase == "Planned" })
	if err != nil {
		t.Fatal(err)
	}
	plan := &v.Status.Plan
	is := slices.Sorted(slices.Values(plan.Phase("TrustingBoth").CABundles.Moved))
	if wanted := slices.Sorted(slices.Values(moved)); !slices.Equal(is, wanted) || plan.Phase("TrustingBoth").CABundles.MovedTotal != int64(len(moved)) {
		t.Errorf("moved are %v (%d)", is, plan.Phase("TrustingBoth").CABundles.MovedTotal)
	}
	person := plan.Phase("AwaitingApproval").CABundles.ByPerson
	if len(person) != 1 || person[0].Name != mixed || !strings.Contains(person[0].Reason, "among others") {
		t.Errorf("a person must see to %+v", person)
	}
	for _, object := range append(slices.Clone(moved), mixed) {
		if c.now(object) != c.original[object] {
			t.Errorf("%s holds %s", object, tellBundle(c.now(object)))
		}
	}
}

func tellBundle(text string) string {
	list, err := access.Certificates([]byte(text))
	if err != nil {
		return err.Error()
	}
	var names []string
	for _, c := range list {
		names = append(names, c.Subject.String())
	}
	return fmt.Sprintf("%d bytes of %v", len(text), names)
}

// bundleRun is one run, as far as caBundles are concerned.
type bundleRun struct {
	*callees
	trigger          string
	from             int // first version
	new              *x509.Certificate
	begun, completed time.Time
}

func (r *bundleRun) begin(ctx context.Context, t *testing.T) {
	t.Helper()
	r.from, r.begun = len(r.bed.recorder.Versions()), time.Now()
	r.bed.apply(ctx, t, manifest(rotationName, r.trigger, "Apply"))
	follow := &rotation{bed: r.bed, trigger: r.trigger, firstVersion: r.from}
	go follow.sayPhases(ctx)
}

func (r *bundleRun) await(ctx context.Context, t *testing.T, patience time.Duration, what string, is func(*story.Status) bool) story.Version {
	t.Helper()
	waiting, end := within(ctx, t, patience)
	defer end()
	v, _, err := r.bed.recorder.Await(waiting, r.from, func(v *story.Version) bool { return v.Status.Run.Trigger == r.trigger && is(&v.Status) })
	if err != nil {
		versions := r.bed.recorder.Versions()
		t.Fatalf("waited for %s: %v; %s; %s", what, err, versions[len(versions)-1].Status.Tell(), r.tell())
	}
	return v
}

// stragglers are the objects with caBundles that status names.
func stragglers(s *story.Status) []string {
	var list []string
	for _, b := range s.Blockers {
		if b.Code == "Straggler" {
			list = append(list, b.Object)
		}
	}
	slices.Sort(list)
	return list
}

// awaitNamed waits until the drop waits for exactly these.
func (r *bundleRun) awaitNamed(ctx context.Context, t *testing.T, names ...string) {
	t.Helper()
	slices.Sort(names)
	r.from = len(r.bed.recorder.Versions()) - 1
	r.await(ctx, t, 12*time.Minute, fmt.Sprintf("the drop to wait for %v", names), func(s *story.Status) bool {
		return s.Phase == "AwaitingApproval" && s.Is("Stalled") && slices.Equal(stragglers(s), names)
	})
	say("the drop waits for %d objects", len(names))
}

// awaitSigner waits until the new authority signs, and learns it.
func (r *bundleRun) awaitSigner(ctx context.Context, t *testing.T) {
	t.Helper()
	waiting, end := within(ctx, t, 6*time.Minute)
	defer end()
	for {
		if authority, _ := r.signer(waiting, t); !authority.Equal(r.old) {
			r.new = authority
			return
		}
		select {
		case <-waiting.Done():
			t.Fatal("the new authority does not sign")
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// holdsBoth: the bytes of the start, and one certificate behind them.
func (r *bundleRun) holdsBoth(object, text string) bool {
	list, err := access.Certificates([]byte(text))
	return err == nil && len(list) == 2 && list[0].Equal(r.old) && strings.HasPrefix(text, r.original[object])
}

func (r *bundleRun) assertHolds(ctx context.Context, t *testing.T, length time.Duration, both ...string) {
	from := len(r.bed.recorder.Versions()) - 1
	select {
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	case <-time.After(length):
	}
	for _, v := range r.bed.recorder.Versions()[from:] {
		if v.Status.Phase != "AwaitingApproval" {
			t.Errorf("at %s the phase became %s", v.At.Format("15:04:05.000"), v.Status.Phase)
		}
	}
	for _, object := range both {
		if is := r.now(object); !r.holdsBoth(object, is) {
			t.Errorf("%s holds %s", object, tellBundle(is))
		}
	}
	if is := r.now(mixed); is != r.original[mixed] {
		t.Errorf("%s holds %s", mixed, tellBundle(is))
	}
}

func (r *bundleRun) assertNextSteps(t *testing.T) {
	versions := r.bed.recorder.Versions()
	said := map[string]string{}
	for _, b := range versions[len(versions)-1].Status.Blockers {
		said[b.Object] = b.Message
	}
	for object, words := range map[string][]string{
		late:    {"webhook late.certrotation.test", ":8443 presents a certificate from the old authority", "renew its serving certificate", "accept it by name"},
		churned: {"webhook churned.certrotation.test", "renew its serving certificate"},
		mixed:   {"webhook mixed.certrotation.test", "among others", "yours to change"},
	} {
		for _, word := range words {
			if !strings.Contains(said[object], word) {
				t.Errorf("of %s it says %q, not %q", object, said[object], word)
			}
		}
	}
}

// assertChurn: the owner applies its manifest, which knows the old authority only.
func (r *bundleRun) assertChurn(ctx context.Context, t *testing.T) {
	waiting, end := within(ctx, t, time.Minute)
	defer end()
	begun := time.Now()
	r.applyChurned(ctx, t)
	for {
		history := r.since(churned, begun)[churned+"#0"]
		if n := len(history); n >= 3 && history[n-2] == r.original[churned] && r.holdsBoth(churned, history[n-1]) {
			say("moved again %.1f s after it was applied", time.Since(begun).Seconds())
			return
		}
		select {
		case <-waiting.Done():
			t.Fatalf("it holds %s after %d changes", tellBundle(r.now(churned)), len(history))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (r *bundleRun) turnRound(ctx context.Context, t *testing.T) {
	t.Helper()
	r.bed.kubectl(ctx, t, "patch", "certificaterotation", rotationName, "--type=merge", "-p", fmt.Sprintf(`{"spec":{"rollback":{"trigger":%q}}}`, r.trigger))
	r.completed = r.await(ctx, t, 12*time.Minute, "RolledBack", func(s *story.Status) bool { return s.Phase == "RolledBack" }).At
}

func (r *bundleRun) complete(ctx context.Context, t *testing.T) {
	t.Helper()
	r.completed = r.await(ctx, t, 10*time.Minute, "Completed", func(s *story.Status) bool { return s.Phase == "Completed" && s.Is("Ready") }).At
}

func (r *bundleRun) assertAsBefore(t *testing.T) {
	for _, object := range append(slices.Clone(moved), mixed) {
		places := r.since(object, r.begun)
		if len(places) == 0 {
			t.Errorf("%s was not followed", object)
		}
		for place, history := range places {
			if history[len(history)-1] != r.original[object] {
				t.Errorf("%s holds %s, which is not what it was", place, tellBundle(history[len(history)-1]))
			}
			if object != mixed && (len(history) != 3 || !r.holdsBoth(object, history[1])) {
				t.Errorf("%s has held %d different bundles", place, len(history))
			}
		}
	}
}

func (r *bundleRun) assertMoved(t *testing.T) {
	for _, object := range moved {
		for place, history := range r.since(object, r.begun) {
			var states []string
			for _, text := range history {
				switch {
				case text == r.original[object]:
					states = append(states, "old")
				case r.holdsBoth(object, text):
					states = append(states, "both")
				case text == string(access.PEM(r.new)):
					states = append(states, "new")
				default:
					states = append(states, tellBundle(text))
				}
			}
			wanted := []string{"old", "both", "new"}
			if object == churned {
				wanted = []string{"old", "both", "old", "both", "new"}
			}
			if !slices.Equal(states, wanted) {
				t.Errorf("%s has held %v", place, states)
			}
		}
	}
}
