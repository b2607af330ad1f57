package faults

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"certrotation.dev/tests/access"
	"certrotation.dev/tests/fixture"
	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/snapshot"
)

const (
	annotationDropping = "certrotation.dev/dropping-since"
	annotationRollback = "certrotation.dev/rollback-since"
	labelRole          = "certrotation.dev/role"
	labelRun           = "certrotation.dev/run"
)

// assertInvariants holds every event of the run against what must be true at every event.
func (r *rotation) assertInvariants(ctx context.Context, t *testing.T) {
	t.Run("phases come in their order, and Completed is the end", r.assertPhases)
	t.Run("the run's Secret goes forward only, and is never both dropping and rolled back", r.assertSecret)
	t.Run("what is published goes forward only", r.assertPublished)
	t.Run("no node's ca.crt loses the old authority before the drop is recorded", r.assertTrust)
	t.Run("the drop is recorded when every pod has been made with the new authority", r.assertProofBeforeDrop)
	t.Run("one node Pod works on a node at a time", r.assertNodePods)
	t.Run("everything restarts as in a quiet run", r.assertRestarts)
	t.Run("workload pods count no failed call", func(t *testing.T) { r.assertCounts(ctx, t) })
	t.Run("no status could not be read", func(t *testing.T) {
		for _, err := range r.bed.recorder.Broken() {
			t.Error(err)
		}
	})
}

var phases = []string{"", "Pending", "Preparing", "TrustingBoth", "ReissuingLeaves", "PublishingNew", "RestartingWorkloads", "AwaitingApproval", "DroppingOld", "Completed"}

func (r *rotation) assertPhases(t *testing.T) {
	last := 0
	for _, v := range r.versions {
		now := slices.Index(phases, v.Status.Phase)
		if now < last {
			t.Errorf("%s: after %s came %q: %s", clock(v.At), phases[max(last, 0)], v.Status.Phase, v.Status.Tell())
		}
		ready := v.Status.Condition("Ready")
		if ready == nil || (ready.Status == metav1.ConditionTrue) != (v.Status.Phase == "Completed") {
			t.Errorf("%s: Ready in %q: %+v", clock(v.At), v.Status.Phase, ready)
		}
		last = max(last, now)
	}
	if last != len(phases)-1 {
		t.Errorf("the last phase was %s", phases[max(last, 0)])
	}
}

func clock(at time.Time) string { return at.Format("15:04:05.000") }

// mine are the versions of this run's Secret.
func (r *rotation) mine() []secretVersion {
	var list []secretVersion
	secrets, _, _ := r.bed.diary.pages()
	for _, s := range secrets {
		if s.labels[labelRun] == r.id && !s.at.After(r.ended) {
			list = append(list, s)
		}
	}
	return list
}

func (r *rotation) assertSecret(t *testing.T) {
	roles := []string{"next", "current"}
	last, dropping := 0, false
	for _, s := range r.mine() {
		now := slices.Index(roles, s.labels[labelRole])
		if now < last {
			t.Errorf("%s: role %q after %q", clock(s.at), s.labels[labelRole], roles[last])
		}
		last = max(last, now)
		if s.annotations[annotationDropping] != "" && s.annotations[annotationRollback] != "" {
			t.Errorf("%s: dropping and rolled back", clock(s.at))
		}
		if dropping && s.annotations[annotationDropping] == "" {
			t.Errorf("%s: the drop is no longer recorded", clock(s.at))
		}
		dropping = dropping || s.annotations[annotationDropping] != ""
		if s.keys["tls.key"] != (now == 0) {
			t.Errorf("%s: tls.key in role %q: %v", clock(s.at), s.labels[labelRole], s.keys["tls.key"])
		}
		if now == 1 && !dropping {
			t.Errorf("%s: current without a drop", clock(s.at))
		}
	}
	if last != 1 {
		t.Errorf("the Secret's last role was %s", roles[last])
	}
}

// rank of a bundle: 0 holds the old authority only, 1 both, 2 the new one only, -1 anything else.
func (r *rotation) rank(list []*x509.Certificate) int {
	old := slices.ContainsFunc(list, r.old.Equal)
	new := slices.ContainsFunc(list, r.new.Equal)
	switch {
	case old && new && len(list) == 2:
		return 1
	case old && len(list) == 1:
		return 0
	case new && len(list) == 1:
		return 2
	}
	return -1
}

// during gives the versions of bundles from the run's beginning to its end, by object.
func (r *rotation) during() map[string][]bundleVersion {
	all := map[string][]bundleVersion{}
	_, bundles, _ := r.bed.diary.pages()
	for _, v := range bundles {
		if v.at.After(r.applied) && !v.at.After(r.ended) {
			all[v.object] = append(all[v.object], v)
		}
	}
	return all
}

func (r *rotation) assertPublished(t *testing.T) {
	all := r.during()
	for object, versions := range all {
		last := 0
		for _, v := range versions {
			list, err := access.Certificates([]byte(v.pem))
			now := r.rank(list)
			if err != nil || now < last {
				t.Errorf("%s: %s went from %d to %d, %d certificates (%v)", clock(v.at), object, last, now, len(list), err)
			}
			last = max(last, now)
		}
		if last != 2 {
			t.Errorf("%s ends with rank %d", object, last)
		}
	}
	if len(all) < 6 {
		t.Errorf("only %d bundles changed", len(all))
	}
}

// dropping is when the drop was recorded.
func (r *rotation) dropping(t *testing.T) time.Time {
	t.Helper()
	for _, s := range r.mine() {
		if s.annotations[annotationDropping] != "" {
			return s.at
		}
	}
	t.Fatal("no drop was recorded")
	return time.Time{}
}

// assertTrust compares two observers of one clock; a file is seen within moments of its change, and so is a Secret.
func (r *rotation) assertTrust(t *testing.T) {
	const slack = time.Second
	dropping, seen := r.dropping(t), map[string]int{}
	for _, e := range r.bed.observer.Events() {
		if e.What != nodes.FileChanged || e.Path != "/etc/kubernetes/pki/ca.crt" || e.Already || e.At.Before(r.applied) || e.At.After(r.ended) {
			continue
		}
		now := r.rankOf(e.Certificates)
		if now < seen[e.Node] {
			t.Errorf("%s: ca.crt on %s went from %d to %d", clock(e.At), e.Node, seen[e.Node], now)
		}
		seen[e.Node] = max(seen[e.Node], now)
		if now == 2 && e.At.Before(dropping.Add(-slack)) {
			t.Errorf("%s: ca.crt on %s lost the old authority; the drop was recorded at %s", clock(e.At), e.Node, clock(dropping))
		}
	}
	for _, n := range r.bed.nodes {
		if seen[n.Name] != 2 {
			t.Errorf("ca.crt on %s ends with rank %d", n.Name, seen[n.Name])
		}
	}
}

// rankOf is rank by descriptions; the order of both does not matter here.
func (r *rotation) rankOf(list []snapshot.Certificate) int {
	is := func(c *x509.Certificate) bool {
		return slices.ContainsFunc(list, func(d snapshot.Certificate) bool { return d.Fingerprint == snapshot.Fingerprint(c) })
	}
	switch old, new := is(r.old), is(r.new); {
	case old && new:
		return 1
	case old:
		return 0
	case new:
		return 2
	}
	return -1
}

// assertProofBeforeDrop: what ran when the drop was recorded was made after its namespace's bundle held the new authority. What
// reads its CA anew by itself, the controller, is told apart by its namespace.
func (r *rotation) assertProofBeforeDrop(t *testing.T) {
	dropping, held := r.dropping(t), map[string]time.Time{}
	for object, versions := range r.during() {
		for _, v := range versions {
			if list, err := access.Certificates([]byte(v.pem)); err == nil && r.rank(list) >= 1 && held[object].IsZero() {
				held[object] = v.at
			}
		}
	}
	_, _, pods := r.bed.diary.pages()
	standing := map[string]podVersion{}
	for _, p := range pods {
		if p.at.After(dropping) {
			continue
		}
		if standing[p.uid] = p; p.gone || p.phase == corev1.PodSucceeded || p.phase == corev1.PodFailed {
			delete(standing, p.uid)
		}
	}
	looked := 0
	for _, p := range standing {
		if !p.mountsCA || p.namespace == systemNamespace {
			continue
		}
		looked++
		since := held[p.namespace+"/kube-root-ca.crt"]
		if since.IsZero() || p.created.Add(time.Second).Before(since.Truncate(time.Second)) {
			t.Errorf("the drop was recorded at %s; %s/%s is of %s, its namespace's bundle held the new authority from %s on",
				clock(dropping), p.namespace, p.name, clock(p.created), clock(since))
		}
	}
	if looked < 6 {
		t.Errorf("only %d pods were looked at", looked)
	}
}

func (r *rotation) assertNodePods(t *testing.T) {
	_, _, pods := r.bed.diary.pages()
	working := map[string]map[string]string{}
	for _, p := range pods {
		if p.namespace != nodesNamespace || p.at.Before(r.applied) || p.at.After(r.ended) {
			continue
		}
		if working[p.node] == nil {
			working[p.node] = map[string]string{}
		}
		if p.gone || p.phase == corev1.PodSucceeded || p.phase == corev1.PodFailed {
			delete(working[p.node], p.uid)
			continue
		}
		working[p.node][p.uid] = p.name + " (" + p.annotations["certrotation.dev/step"] + ")"
		if len(working[p.node]) > 1 {
			t.Errorf("%s: on %s at once: %v", clock(p.at), p.node, working[p.node])
		}
	}
}

func (r *rotation) assertRestarts(t *testing.T) {
	all := nodes.Restarts(r.bed.observer.Events(), r.applied, r.ended)
	count := func(is func(*nodes.Restart) bool) (list []nodes.Restart) {
		for _, x := range all {
			if is(&x) {
				list = append(list, x)
			}
		}
		return list
	}
	expect := func(what string, least, most int, is func(*nodes.Restart) bool) {
		if seen := count(is); len(seen) < least || len(seen) > most {
			t.Errorf("%s: %d starts, expected %d to %d: %s", what, len(seen), least, most, nodes.TellRestarts(seen))
		}
	}
	for component, times := range map[string][2]int{"kube-apiserver": {0, 0}, "etcd": {0, 0}, "kube-scheduler": {1, 1}, "kube-controller-manager": {1, 3}} {
		expect(component, times[0], times[1], func(x *nodes.Restart) bool { return x.Static(component) })
	}
	for _, n := range r.bed.nodes {
		expect("kubelet on "+n.Name, 1, 1, func(x *nodes.Restart) bool { return x.Kubelet() && x.Node == n.Name })
	}
	for container, pods := range map[string]int{"kube-proxy": len(r.bed.nodes), "coredns": 2} {
		expect(container, pods, pods, func(x *nodes.Restart) bool { return x.Component == container })
	}
	expect("workloads", 2+len(r.bed.nodes), 2+len(r.bed.nodes), func(x *nodes.Restart) bool {
		return x.Namespace == fixture.Namespace && x.Component == "workload"
	})
	expect("the controller", 0, 0, func(x *nodes.Restart) bool { return x.Namespace == systemNamespace })
}

func (r *rotation) assertCounts(ctx context.Context, t *testing.T) {
	counted := 0
	for _, p := range r.bed.book.Pods() {
		if !p.Gone.IsZero() && p.Gone.Before(r.applied) {
			continue
		}
		list, err := r.bed.book.Counts(ctx, p)
		if err != nil {
			t.Error(err)
		}
		for _, c := range list {
			counted++
			if c.Failures > 0 || c.Calls == 0 {
				t.Errorf("%s/%s: of %d calls %d failed, last at %s: %s", p.Namespace, p.Name, c.Calls, c.Failures, clock(c.LastFailure), c.LastError)
			}
		}
	}
	if counted < 8 {
		t.Errorf("only %d containers told a count", counted)
	}
}

// struck counts the faults of the run, by kind.
func (r *rotation) struck() map[string]int {
	all := map[string]int{}
	for _, e := range r.entries {
		switch {
		case e.Kind != "" && e.Schedule == r.name:
			all[string(e.Kind)]++
		case e.What == "refused":
			all["expired"]++
		}
	}
	return all
}

// tell lists the faults of one request, for messages.
func (r *rotation) tell(object string) string {
	text := ""
	for _, e := range r.entries {
		if e.Object == object && e.Kind != "" {
			text += fmt.Sprintf("\n  %s %s by %s: %s, told %d, answered %d", clock(e.At), e.Verb, e.Pod, e.Kind, e.Told, e.Answer)
		}
	}
	return text
}
