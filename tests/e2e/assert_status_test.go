package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"certrotation.dev/tests/snapshot"
	"certrotation.dev/tests/story"
)

// visited are the phases that a run with automatic approval goes through. Only the cluster's own authority is
// published, and known to workloads.
func (r *rotation) visited() []string {
	if !r.rotates(kubernetesAuthority) {
		return []string{"Preparing", "TrustingBoth", "ReissuingLeaves", "DroppingOld", "Completed"}
	}
	return []string{"Preparing", "TrustingBoth", "ReissuingLeaves", "PublishingNew", "RestartingWorkloads", "DroppingOld", "Completed"}
}

// proven says which conditions are True from the beginning of a phase on.
var proven = map[string][]string{
	"ReissuingLeaves":     {"TrustDistributed"},
	"PublishingNew":       {"TrustDistributed", "LeavesReissued"},
	"RestartingWorkloads": {"TrustDistributed", "LeavesReissued", "TrustPublished"},
	"DroppingOld":         {"TrustDistributed", "LeavesReissued", "TrustPublished", "WorkloadsRestarted"},
	"Completed":           {"TrustDistributed", "LeavesReissued", "TrustPublished", "WorkloadsRestarted", "OldAuthorityDropped"},
}

var phaseConditions = []string{"TrustDistributed", "LeavesReissued", "TrustPublished", "WorkloadsRestarted", "OldAuthorityDropped"}

func (r *rotation) assertStatus(t *testing.T) {
	t.Run("could be read in every version", func(t *testing.T) {
		for _, err := range r.bed.recorder.Broken() {
			t.Error(err)
		}
	})
	t.Run("phases come in their order, each once", r.assertPhases)
	t.Run("conditions carry the generation that they are for", r.assertGenerations)
	t.Run("Ready is False until the end, Reconciling True until then", r.assertReady)
	t.Run("a phase begins when what it stands on is proven", r.assertProven)
	t.Run("every condition has a reason and a message", r.assertMessages)
	t.Run("progress is counted in every phase", r.assertProgress)
	t.Run("authorities are named by their fingerprints", r.assertAuthorities)
	t.Run("accepted stragglers are listed", r.assertAccepted)
	t.Run("each phase has its Event, and none comes twice", r.assertEvents)
	t.Run("kubectl wait returns at the end and not before", r.assertWait)
	t.Run("kubectl get shows the phase", r.assertColumns)
}

func (r *rotation) assertPhases(t *testing.T) {
	var seen []string
	for _, s := range story.Stays(r.mine()) {
		// Automatic approval is recorded in passing: whether a status was written just then is chance.
		if s.Phase != "AwaitingApproval" {
			seen = append(seen, s.Phase)
		}
	}
	if want := r.visited(); !slices.Equal(seen, want) && !slices.Equal(seen, append([]string{"Pending"}, want...)) {
		t.Errorf("the phases were %v, expected %v", seen, want)
	}
}

func (r *rotation) assertGenerations(t *testing.T) {
	for _, v := range r.mine() {
		s := &v.Status
		if s.ObservedGeneration < 1 || s.ObservedGeneration > v.Generation {
			t.Errorf("%s in %s: observedGeneration is %d, generation %d", v.At.Format("15:04:05.000"), s.Phase, s.ObservedGeneration, v.Generation)
		}
		for _, c := range s.Conditions {
			if c.ObservedGeneration != s.ObservedGeneration {
				t.Errorf("%s in %s: %s has observedGeneration %d, status %d", v.At.Format("15:04:05.000"), s.Phase, c.Type, c.ObservedGeneration, s.ObservedGeneration)
			}
		}
	}
}

func (r *rotation) assertReady(t *testing.T) {
	for _, v := range r.mine() {
		s, at := &v.Status, v.At.Format("15:04:05.000")
		ready := s.Condition("Ready")
		if ready == nil {
			t.Errorf("%s in %s: there is no condition Ready", at, s.Phase)
			continue
		}
		done := s.Phase == "Completed"
		if (ready.Status == metav1.ConditionTrue) != done {
			t.Errorf("%s in %s: Ready is %s (%s: %s)", at, s.Phase, ready.Status, ready.Reason, ready.Message)
		}
		if s.Is("Reconciling") == done && !s.Is("Stalled") {
			t.Errorf("%s in %s: Reconciling is %v", at, s.Phase, s.Is("Reconciling"))
		}
		waiting := s.WaitsFor(frozen) || s.WaitsFor(alone)
		if s.Is("Stalled") && !waiting {
			t.Errorf("%s in %s: Stalled: %s", at, s.Phase, s.Condition("Stalled").Message)
		}
	}
}

func (r *rotation) assertProven(t *testing.T) {
	first := map[string]bool{}
	for _, v := range r.mine() {
		s := &v.Status
		for _, name := range phaseConditions {
			if s.Condition(name) == nil {
				t.Errorf("%s in %s: there is no condition %s", v.At.Format("15:04:05.000"), s.Phase, name)
			}
		}
		if first[s.Phase] {
			continue
		}
		first[s.Phase] = true
		for _, name := range phaseConditions {
			want := slices.Contains(proven[s.Phase], name)
			if want && !s.Is(name) {
				t.Errorf("%s began at %s without %s: %s", s.Phase, v.At.Format("15:04:05.000"), name, s.Tell())
			}
			if name == "OldAuthorityDropped" && !want && s.Is(name) {
				t.Errorf("%s began at %s with %s: %s", s.Phase, v.At.Format("15:04:05.000"), name, s.Tell())
			}
		}
	}
}

func (r *rotation) assertMessages(t *testing.T) {
	for _, v := range r.mine() {
		for _, c := range v.Status.Conditions {
			if c.Reason == "" || c.Message == "" {
				t.Errorf("%s in %s: %s=%s has reason %q, message %q", v.At.Format("15:04:05.000"), v.Status.Phase, c.Type, c.Status, c.Reason, c.Message)
			}
			if c.LastTransitionTime.IsZero() {
				t.Errorf("%s in %s: %s has no lastTransitionTime", v.At.Format("15:04:05.000"), v.Status.Phase, c.Type)
			}
		}
	}
}

func (r *rotation) assertProgress(t *testing.T) {
	counted := map[string]bool{}
	for _, v := range r.mine() {
		for _, p := range v.Status.Progress {
			counted[v.Status.Phase] = true
			if p.Kind == "" || p.Done > p.Total || p.Done < 0 {
				t.Errorf("%s in %s: %+v", v.At.Format("15:04:05.000"), v.Status.Phase, p)
			}
			if v.Status.Phase == "Completed" && (p.Done != p.Total && len(r.accepted) == 0 || len(p.WaitingFor) > len(r.accepted)) {
				t.Errorf("Completed with %+v", p)
			}
		}
	}
	visited := r.visited()
	for _, phase := range visited[1 : len(visited)-1] {
		if !counted[phase] {
			t.Errorf("in %s nothing was counted", phase)
		}
	}
}

func (r *rotation) assertAuthorities(t *testing.T) {
	is := func(c story.Certificate, want string) bool {
		return strings.EqualFold(strings.ReplaceAll(c.Fingerprint, ":", ""), want)
	}
	for _, s := range r.successions(t) {
		named := false
		for _, v := range r.mine() {
			for _, a := range v.Status.Authorities {
				named = named || a.Name == s.name && is(a.Current, snapshot.Fingerprint(s.old)) && is(a.Next, snapshot.Fingerprint(s.new))
			}
		}
		if !named {
			t.Errorf("no version named the old %s authority as current and the new one as next", s.name)
		}
	}
	mine := r.mine()
	if len(mine) == 0 {
		t.Fatal("there is no version of this run")
	}
	inForce := r.old()
	if r.rotates(kubernetesAuthority) {
		inForce = r.new(t)
	}
	last := mine[len(mine)-1].Status.Authorities
	if len(last) != 1 || last[0].Name != kubernetesAuthority || !is(last[0].Current, snapshot.Fingerprint(inForce)) || last[0].Next.Fingerprint != "" {
		t.Errorf("at the end: %+v, expected %s as current and no next", last, snapshot.Fingerprint(inForce))
	}
}

func (r *rotation) assertAccepted(t *testing.T) {
	mine := r.mine()
	if len(mine) == 0 {
		t.Fatal("there is no version of this run")
	}
	listed := false
	for _, v := range mine {
		all := true
		for name := range r.accepted {
			all = all && slices.Contains(v.Status.AcceptedStragglers, name)
		}
		listed = listed || all
	}
	if !listed {
		t.Errorf("no version listed %v", r.accepted)
	}
}

func (r *rotation) assertEvents(t *testing.T) {
	mentioned, count := map[string]bool{}, map[string]int32{}
	for _, e := range r.bed.recorder.Events() {
		if e.At.Before(r.applied) || e.At.After(r.settled) {
			continue
		}
		for _, phase := range r.visited() {
			mentioned[phase] = mentioned[phase] || e.Reason == phase || strings.Contains(e.Message, phase)
		}
		count[e.Reason+": "+e.Message] = max(count[e.Reason+": "+e.Message]+1, e.Count)
	}
	for _, phase := range r.visited() {
		if !mentioned[phase] {
			t.Errorf("no Event tells of %s", phase)
		}
	}
	for text, n := range count {
		if n > 1 {
			t.Errorf("%d times: %s", n, text)
		}
	}
}

func (r *rotation) assertWait(t *testing.T) {
	if r.waited.err != nil {
		t.Fatalf("kubectl wait: %v", r.waited.err)
	}
	if r.waited.at.IsZero() {
		t.Fatal("kubectl wait did not return")
	}
	if !r.waited.ready {
		t.Errorf("kubectl wait returned at %s, and then the run was not Completed", r.waited.at.Format("15:04:05.000"))
	}
	if late := r.waited.at.Sub(r.completed); late > 5*time.Second {
		t.Errorf("kubectl wait returned %s after Completed", late)
	}
	if !strings.Contains(r.waited.out, "condition met") {
		t.Errorf("kubectl wait said %q", r.waited.out)
	}
}

func (r *rotation) assertColumns(t *testing.T) {
	out := r.bed.kubectl(t.Context(), t, "get", "certrot", rotationName)
	if !strings.Contains(out, "PHASE") || !strings.Contains(out, "Completed") {
		t.Errorf("kubectl get certrot says:\n%s", out)
	}
}
