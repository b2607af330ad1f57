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
)

// assert holds the whole record of a completed run against what must be seen.
func (r *rotation) assert(ctx context.Context, t *testing.T) {
	t.Run("no probe fails before DroppingOld begins", r.assertNoFailureBeforeDrop)
	t.Run("new trust with new credentials and tokens never fails", r.assertNewNeverFails)
	t.Run("tokens and new certificates never fail for those who trust both", r.assertBothNeverFails)
	t.Run("between drop and end only what is old is refused", r.assertDropIsClean)
	t.Run("after the end old certificates get 401", r.assertOldCertificatesRefused)
	t.Run("after the end old trust fails", r.assertOldTrustFails)
	t.Run("the open watch was never cut", r.assertWatch)
	t.Run("new logs and exec sessions never fail", r.assertSessions)
	t.Run("held sessions are cut only where it is announced", r.assertCuts)
	t.Run("the control plane restarts as it should and no more", r.assertControlPlaneRestarts)
	t.Run("each kubelet restarts as often as it should", func(t *testing.T) { r.assertKubelets(ctx, t) })
	t.Run("kube-proxy and CoreDNS restart as often as they should", r.assertSystemPods)
	t.Run("pods that do not talk to the API are left alone", r.assertSessionPods)
	t.Run("each workload pod restarts as often as it should", r.assertWorkloadRestarts)
	t.Run("workload pods count no failed call", func(t *testing.T) { r.assertCounts(ctx, t) })
	t.Run("nothing on a node is issued by or trusts the old authority", r.assertNoTraces)
	t.Run("the new authority is in place on every node", r.assertNewInPlace)
	t.Run("static Pod manifests and the kubelet's settings are as they were", r.assertManifests)
	t.Run("files have the modes and owners that they had, and none is left over", r.assertShape)
	t.Run("keys beside their certificates are kept, other authorities' files untouched", r.assertKept)
	t.Run("control planes' files hold one certificate each, of the new authority", r.assertOneEach)
	t.Run("every certificate that was replaced has its predecessor's subject, names and usages", r.assertSuccessions)
	t.Run("kubeadm certs check-expiration is content", func(t *testing.T) { r.assertExpiration(ctx, t) })
	t.Run("every kube-root-ca.crt carries the new authority only", func(t *testing.T) { r.assertConfigMaps(ctx, t) })
	t.Run("every ServiceAccount token Secret carries the new authority only", func(t *testing.T) { r.assertTokenSecrets(ctx, t) })
	t.Run("cluster-info carries the new authority only, signed for every bootstrap token", func(t *testing.T) { r.assertClusterInfo(ctx, t) })
	t.Run("what aggregated API servers read carries the new authority only", func(t *testing.T) { r.assertExtension(ctx, t) })
	t.Run("no other object carries the old authority", func(t *testing.T) { r.assertNoObjectCarries(ctx, t) })
	t.Run("the legacy token works with the CA in its Secret", func(t *testing.T) { r.assertLegacyToken(ctx, t) })
	t.Run("mounted volumes of running pods carry the new authority only", func(t *testing.T) { r.assertVolumes(ctx, t) })
	t.Run("no node Pod is left", func(t *testing.T) { r.assertNoNodePods(ctx, t) })
	t.Run("status", r.assertStatus)
	t.Run("nothing went wrong on the way", func(t *testing.T) {
		if list := r.complaints.all(); len(list) > 0 {
			t.Errorf("%s", lines(list))
		}
	})
}

// cells gives the attempts of some kinds.
func (r *rotation) cells(trusts []probe.Trust, as []probe.Credential) []probe.Attempt {
	return probe.Filter(r.attempts(), func(a *probe.Attempt) bool {
		return slices.Contains(trusts, a.Cell.Trust) && slices.Contains(as, a.Cell.Credential)
	})
}

// assertAllTried fails unless every kind was tried at least that often.
func assertAllTried(t *testing.T, attempts []probe.Attempt, cells []probe.Cell, least int) {
	t.Helper()
	tried := map[probe.Cell]int{}
	for _, a := range attempts {
		tried[a.Cell]++
	}
	for _, c := range cells {
		if tried[c] < least {
			t.Errorf("%s was tried %d times, which shows nothing; at least %d are expected", c, tried[c], least)
		}
	}
}

func (r *rotation) assertNoFailureBeforeDrop(t *testing.T) {
	if r.dropped.IsZero() {
		t.Fatal("DroppingOld was never seen")
	}
	before := r.beforeDrop()
	assertAllTried(t, before, r.cellsBeforeDrop(), 4)
	if failed := probe.Failed(before); len(failed) > 0 {
		t.Errorf("DroppingOld began at %s; failed before: %s", r.dropped.Format("15:04:05.000"), probe.Tell(failed))
	}
	for _, e := range r.bed.observer.Events() {
		if e.What == nodes.FileChanged && e.Path == "/etc/kubernetes/pki/ca.crt" && e.At.After(r.applied) && !r.trustsOld(&e) && e.At.Before(r.dropped.Add(-time.Second)) {
			t.Errorf("on %s ca.crt lost the old authority at %s, before status said DroppingOld at %s", e.Node, e.At.Format("15:04:05.000"), r.dropped.Format("15:04:05.000"))
			break
		}
	}
}

// cellsBeforeDrop: without a bridge nobody who knows the new authority alone recognizes a server before the drop.
func (r *rotation) cellsBeforeDrop() []probe.Cell {
	return slices.DeleteFunc(probe.Cells(), func(c probe.Cell) bool { return r.twice && c.Trust == probe.NewTrust })
}

func (r *rotation) assertNewNeverFails(t *testing.T) {
	mine := r.cells([]probe.Trust{probe.NewTrust}, []probe.Credential{probe.NewCertificate, probe.Token})
	assertAllTried(t, mine, []probe.Cell{{Trust: probe.NewTrust, Credential: probe.NewCertificate}, {Trust: probe.NewTrust, Credential: probe.Token}}, 40)
	if failed := probe.Failed(mine); len(failed) > 0 {
		t.Error(probe.Tell(failed))
	}
}

func (r *rotation) assertBothNeverFails(t *testing.T) {
	mine := r.cells([]probe.Trust{probe.BothTrust}, []probe.Credential{probe.NewCertificate, probe.Token})
	assertAllTried(t, mine, []probe.Cell{{Trust: probe.BothTrust, Credential: probe.NewCertificate}, {Trust: probe.BothTrust, Credential: probe.Token}}, 40)
	if failed := probe.Failed(mine); len(failed) > 0 {
		t.Error(probe.Tell(failed))
	}
}

// assertDropIsClean: what fails does so because it is old, not because something was away.
func (r *rotation) assertDropIsClean(t *testing.T) {
	unclean := probe.Filter(r.attempts(), func(a *probe.Attempt) bool {
		return a.Kind != probe.Served && a.Kind != probe.Untrusted && a.Kind != probe.Unauthorized
	})
	if len(unclean) > 0 {
		t.Error(probe.Tell(unclean))
	}
}

func (r *rotation) afterEnd(attempts []probe.Attempt) []probe.Attempt {
	return probe.Filter(attempts, func(a *probe.Attempt) bool { return a.Started.After(r.completed) })
}

func (r *rotation) assertOldCertificatesRefused(t *testing.T) {
	mine := r.afterEnd(r.cells([]probe.Trust{probe.BothTrust, probe.NewTrust}, []probe.Credential{probe.OldCertificate}))
	assertAllTried(t, mine, []probe.Cell{{Trust: probe.BothTrust, Credential: probe.OldCertificate}, {Trust: probe.NewTrust, Credential: probe.OldCertificate}}, 20)
	if other := probe.Filter(mine, func(a *probe.Attempt) bool { return a.Kind != probe.Unauthorized }); len(other) > 0 {
		t.Errorf("of %d attempts after Completed, not refused with 401: %s", len(mine), probe.Tell(other))
	}
}

func (r *rotation) assertOldTrustFails(t *testing.T) {
	mine := r.afterEnd(r.cells([]probe.Trust{probe.OldTrust}, []probe.Credential{probe.OldCertificate, probe.NewCertificate, probe.Token}))
	assertAllTried(t, mine, []probe.Cell{{Trust: probe.OldTrust, Credential: probe.OldCertificate}, {Trust: probe.OldTrust, Credential: probe.NewCertificate}, {Trust: probe.OldTrust, Credential: probe.Token}}, 20)
	if other := probe.Filter(mine, func(a *probe.Attempt) bool { return a.Kind != probe.Untrusted }); len(other) > 0 {
		t.Errorf("of %d attempts after Completed, the server's certificate was accepted in: %s", len(mine), probe.Tell(other))
	}
}

// assertWatch: an API server that restarts for etcd's authority ends its watches, once; nothing else does.
func (r *rotation) assertWatch(t *testing.T) {
	messages, opened := r.watch.Seen()
	breaks := r.watch.Breaks()
	if opened != len(breaks)+1 || messages == 0 {
		t.Errorf("the watch was opened %d times and brought %d messages: %v", opened, messages, breaks)
	}
	used := map[string]bool{}
	for _, b := range breaks {
		cause := r.endOfServer(b.At)
		if cause == "" || used[cause] || !r.rotates(etcdAuthority) {
			t.Errorf("cut, and nothing explains it, or the same (%s) as another time: %s", cause, b)
		}
		used[cause] = true
	}
}

// endOfServer names the API server that was the last to end before that moment, not long before.
func (r *rotation) endOfServer(at time.Time) string {
	last := ""
	for _, e := range r.bed.observer.Events() {
		if after := at.Sub(e.At); e.What == nodes.ContainerGone && isStatic(&e, "kube-apiserver") && after > -serverStop && after < margin {
			last = "the end of " + e.Pod
		}
	}
	return last
}

// serverStop is how long after the end of an API server's process its container may be seen to be gone.
const serverStop = 2 * time.Second

func isStatic(e *nodes.Event, component string) bool {
	return e.Namespace == "kube-system" && e.Container == component && e.Pod == component+"-"+e.Node
}

// assertSessions: a kubelet that is away answers nobody, so what overlaps its restart is counted apart, and
// must be over when it is back. What is under way at the moment when apiserver-kubelet-client changes, or when
// an API server ends, is cut like every other open session, and counted apart too. Everything else must work,
// right after all of these as well; what does not is told.
func (r *rotation) assertSessions(t *testing.T) {
	var failed, away []string
	count, first := map[string]int{}, map[string]bool{}
	absences := r.kubeletAbsences()
	for _, s := range r.sessions.Done() {
		count[s.What+" through "+s.Node]++
		if s.Error == "" {
			continue
		}
		text := fmt.Sprintf("%s %s through %s in %s: %s", s.Started.Format("15:04:05.000"), s.What, s.Node, s.Phase, s.Error)
		if slices.ContainsFunc(absences, func(a absence) bool { return a.overlaps(&s) }) || r.underWayAtChange(&s) || r.underWayAtEnd(&s) {
			away = append(away, text)
		} else if r.rightAfterChange(&s) && !first[s.Node] {
			first[s.Node] = true
			t.Logf("the first one to a kubelet after the change of apiserver-kubelet-client: %s", text)
		} else {
			failed = append(failed, text)
		}
	}
	for _, n := range r.bed.nodes {
		if count["logs through "+n.Name] < 20 {
			t.Errorf("%d logs sessions went through %s, which shows nothing", count["logs through "+n.Name], n.Name)
		}
	}
	t.Logf("of %v sessions %d failed while their node's kubelet was away or were cut in their middle by the change of apiserver-kubelet-client or an API server's end:%s", count, len(away), lines(away[:min(len(away), 10)]))
	told := t.Logf
	if len(failed)*sessionsPerFailure > len(r.sessions.Done()) {
		told = t.Errorf
	}
	if len(failed) > 0 {
		told("of %v sessions %d failed at other times:%s", count, len(failed), lines(failed[:min(len(failed), 10)]))
	}
}

// sessionsPerFailure: every failure is told; more than one in so many sessions fails the test. Seen on a busy machine: an exec
// whose output was lost while nothing restarted and nothing changed.
const sessionsPerFailure = 200

// underWayAtChange reports whether the session was open when an API server's client certificate towards kubelets changed.
func (r *rotation) underWayAtChange(s *probe.Session) bool {
	for _, e := range r.bed.observer.Events() {
		if e.What == nodes.FileChanged && !e.Already && strings.HasSuffix(e.Path, "/apiserver-kubelet-client.crt") &&
			s.Started.Before(e.At) && s.Started.Add(s.Took).After(e.At) {
			return true
		}
	}
	return false
}

// underWayAtEnd reports whether the session was open when an API server ended.
func (r *rotation) underWayAtEnd(s *probe.Session) bool {
	for _, e := range r.bed.observer.Events() {
		if e.What == nodes.ContainerGone && isStatic(&e, "kube-apiserver") && s.Started.Before(e.At) && s.Started.Add(s.Took).After(e.At.Add(-serverStop)) {
			return true
		}
	}
	return false
}

// rightAfterChange reports whether the session began within the second for which an API server keeps the pair that it
// has read: the first request to each kubelet after that fails once, and on a busy machine it may be another's than ours.
func (r *rotation) rightAfterChange(s *probe.Session) bool {
	for _, e := range r.bed.observer.Events() {
		if after := s.Started.Sub(e.At); e.What == nodes.FileChanged && !e.Already &&
			strings.HasSuffix(e.Path, "/apiserver-kubelet-client.crt") && after >= 0 && after < 2*time.Second {
			return true
		}
	}
	return false
}

// absence is the time in which a kubelet does not serve: from its end until it has served somebody again. A
// kubelet that has started knows its pods only when it has read them from the API.
type absence struct {
	node     string
	from, to time.Time
}

// kubeletStop is how long a kubelet may take from when it closes its connections until its process is gone.
const kubeletStop = 5 * time.Second

// kubeletStart is how long a kubelet may take from its process' start until it serves, on a busy machine.
const kubeletStart = 20 * time.Second

func (a absence) overlaps(s *probe.Session) bool {
	return s.Node == a.node && s.Started.Before(a.to) && s.Started.Add(s.Took).After(a.from)
}

// servedAgain is when the first session through a node succeeded that began after that time.
func (r *rotation) servedAgain(node string, after time.Time) time.Time {
	first := after.Add(kubeletStart)
	for _, s := range r.sessions.Done() {
		if ended := s.Started.Add(s.Took); s.Node == node && s.Error == "" && s.Started.After(after) && ended.Before(first) {
			first = ended
		}
	}
	return first
}

func (r *rotation) kubeletAbsences() []absence {
	var list []absence
	for _, e := range r.bed.observer.Events() {
		if e.Container != "kubelet" || e.Pod != "" {
			continue
		}
		if e.What == nodes.ProcessGone {
			list = append(list, absence{node: e.Node, from: e.At.Add(-kubeletStop), to: r.settled})
		}
		for i := range list {
			if e.What == nodes.ProcessStarted && list[i].node == e.Node && list[i].to.Equal(r.settled) && e.At.After(list[i].from) {
				list[i].to = r.servedAgain(e.Node, e.At)
			}
		}
	}
	return list
}

// assertCuts explains each end of a held session: the API server closes its connections to kubelets when
// apiserver-kubelet-client changes, a kubelet that restarts ends what runs through itself, since it passes the
// streams of exec and logs on, and so does an API server. Each of these may cut a session once, and each API server has
// a certificate of its own; nothing else may.
// (A kubelet restarts as often as it should.)
func (r *rotation) assertCuts(t *testing.T) {
	used := map[string]int{}
	for _, cut := range r.cuts() {
		if cut.What == "watch" {
			continue // has a test of its own
		}
		cause := r.cause(cut)
		if cause == "" {
			t.Errorf("nothing explains: %s", cut)
			continue
		}
		allowed := 1
		switch cause {
		case kubeletsRestart:
			allowed = r.times(kubernetesAuthority)
		case certificatesChange:
			allowed = len(r.bed.controlPlanes())
		}
		if key := cut.What + " on " + cut.Node + " by " + cause; used[key] < allowed {
			t.Logf("%s: %s", cause, cut)
			used[key]++
		} else {
			t.Errorf("cut more than %d times by %s: %s", allowed, cause, cut)
		}
	}
}

const (
	kubeletsRestart    = "the kubelet's restart"
	certificatesChange = "the change of apiserver-kubelet-client"
)

// margin is how long after its cause a cut may be seen; a stream that brings nothing is given up after 15 s.
const margin = 20 * time.Second

// cause is the last thing that may have ended it.
func (r *rotation) cause(cut probe.Break) string {
	cause := ""
	for _, e := range r.bed.observer.Events() {
		if e.Already || cut.At.After(e.At.Add(margin)) {
			continue
		}
		if e.What == nodes.ProcessGone && e.Container == "kubelet" && e.Node == cut.Node && cut.At.After(e.At.Add(-kubeletStop)) {
			cause = kubeletsRestart
		}
		if e.What == nodes.FileChanged && strings.HasSuffix(e.Path, "/apiserver-kubelet-client.crt") && cut.At.After(e.At.Add(-300*time.Millisecond)) {
			cause = certificatesChange
		}
	}
	if end := r.endOfServer(cut.At); end != "" {
		cause = end
	}
	return cause
}

// restarts are those of this run.
func (r *rotation) restarts(which func(*nodes.Restart) bool) []nodes.Restart {
	var list []nodes.Restart
	for _, x := range nodes.Restarts(r.bed.observer.Events(), r.applied, r.settled) {
		if which(&x) {
			list = append(list, x)
		}
	}
	return list
}

func (r *rotation) assertControlPlaneRestarts(t *testing.T) {
	planes := r.bed.controlPlanes()
	if len(planes) == 0 {
		t.Fatal("no control plane was seen")
	}
	own, etcd := r.times(kubernetesAuthority), r.times(etcdAuthority)
	for _, node := range planes {
		for _, want := range []struct {
			component   string
			least, most int
		}{{"kube-apiserver", etcd, etcd}, {"etcd", etcd, etcd}, {"kube-scheduler", own, own}, {"kube-controller-manager", own, 3 * own}} {
			seen := r.restarts(func(x *nodes.Restart) bool { return x.Node == node && x.Static(want.component) })
			if len(seen) < want.least || len(seen) > want.most {
				t.Errorf("%s on %s restarted %d times, expected %d to %d: %s", want.component, node, len(seen), want.least, want.most, nodes.TellRestarts(seen))
			}
		}
	}
}

// times is how often what reads an authority at its start restarts for it.
func (r *rotation) times(authority string) int {
	if r.rotates(authority) {
		return r.often()
	}
	return 0
}

func (r *rotation) assertKubelets(ctx context.Context, t *testing.T) {
	now := r.bed.invocations(ctx, t)
	for _, n := range r.bed.nodes {
		seen := r.restarts(func(x *nodes.Restart) bool { return x.Node == n.Name && x.Kubelet() })
		if want := r.times(kubernetesAuthority); len(seen) != want {
			t.Errorf("the kubelet on %s restarted %d times, expected %d: %s", n.Name, len(seen), want, nodes.TellRestarts(seen))
		}
		if now[n.Name] == r.invocationsBefore[n.Name] && len(seen) > 0 {
			t.Errorf("systemd says that the kubelet on %s still is the invocation %s", n.Name, now[n.Name])
		}
	}
}

func (r *rotation) assertSystemPods(t *testing.T) {
	for component, want := range map[string]int{"kube-proxy": r.often() * len(r.bed.nodes), "coredns": r.often() * r.standing("coredns")} {
		seen := r.restarts(func(x *nodes.Restart) bool { return x.Namespace == "kube-system" && x.Component == component })
		if len(seen) != want || want == 0 {
			t.Errorf("%s: %d containers started, expected %d: %s", component, len(seen), want, nodes.TellRestarts(seen))
		}
	}
}

// standing counts the containers of a name that ran when the run began.
func (r *rotation) standing(component string) int {
	running := map[string]bool{}
	for _, e := range r.bed.observer.Events() {
		if e.Container != component || e.At.After(r.applied) {
			continue
		}
		switch e.What {
		case nodes.ContainerStarted:
			running[e.ID] = true
		case nodes.ContainerGone:
			delete(running, e.ID)
		}
	}
	return len(running)
}

func (r *rotation) assertSessionPods(t *testing.T) {
	seen := r.restarts(func(x *nodes.Restart) bool {
		return x.Namespace == fixture.Namespace && strings.HasPrefix(x.Pod, "sessions-")
	})
	if len(seen) > 0 {
		t.Error(nodes.TellRestarts(seen))
	}
}

// assertWorkloadRestarts counts by owner: as many containers start as pods ran, each in a pod that is new,
// and none of what was accepted.
func (r *rotation) assertWorkloadRestarts(t *testing.T) {
	before, started := map[string]int{}, map[string]int{}
	owner := map[string]string{}
	for _, p := range r.bed.book.Pods() {
		owner[string(p.UID)] = p.Owner
		if p.Created.Before(r.applied) && (p.Gone.IsZero() || p.Gone.After(r.applied)) {
			before[p.Owner]++
		}
	}
	for _, x := range r.restarts(func(x *nodes.Restart) bool { return owner[x.PodUID] != "" }) {
		started[owner[x.PodUID]]++
	}
	if len(before) < 5 {
		t.Errorf("only these workloads ran before: %v", before)
	}
	for name, pods := range before {
		want := pods * r.often()
		if r.accepted[name] {
			want = 0
		}
		if started[name] != want {
			t.Errorf("%s: %d containers started for %d pods, expected %d: %s", name, started[name], pods, want,
				nodes.TellRestarts(r.restarts(func(x *nodes.Restart) bool { return owner[x.PodUID] == name })))
		}
	}
}

func (r *rotation) assertCounts(ctx context.Context, t *testing.T) {
	counted := 0
	for _, p := range r.bed.book.Pods() {
		if r.accepted[p.Owner] || !p.Gone.IsZero() && p.Gone.Before(r.applied) {
			continue
		}
		list, err := r.bed.book.Counts(ctx, p)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, c := range list {
			counted++
			if c.Failures > 0 || c.Calls == 0 {
				t.Errorf("%s/%s (%s): of %d calls %d failed, last at %s: %s", p.Namespace, p.Name, p.Owner, c.Calls, c.Failures, c.LastFailure.Format("15:04:05.000"), c.LastError)
			}
		}
	}
	if counted < 8 {
		t.Errorf("only %d containers told a count", counted)
	}
}

func (r *rotation) assertNoNodePods(ctx context.Context, t *testing.T) {
	out, err := r.bed.Kubectl.Run(ctx, "-n", nodesNamespace, "get", "pods", "-o", "name")
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.TrimSpace(out); text != "" {
		t.Errorf("still in %s: %s", nodesNamespace, text)
	}
}

// assertKilled: as often as it was to be.
func (r *rotation) assertKilled(t *testing.T) {
	t.Helper()
	if len(r.kills) != r.planned {
		t.Errorf("killed: %+v; expected are %d", r.kills, r.planned)
	}
}

func (r *rotation) assertKills(t *testing.T) {
	phases := map[string]bool{}
	for _, k := range r.kills {
		phases[k.Phase] = true
	}
	if len(r.kills) != r.planned || len(phases) != r.planned {
		t.Errorf("killed: %+v; expected one in each of %d phases", r.kills, r.planned)
	}
	holders := map[string]bool{}
	for _, l := range r.bed.recorder.Leaders() {
		if l.At.After(r.applied) && l.At.Before(r.settled) && l.Holder != "" {
			holders[l.Holder] = true
		}
	}
	if l := r.leaderAt(r.applied); l != "" {
		holders[l] = true
	}
	if len(holders) < 2 {
		t.Errorf("these led: %v; both replicas are expected to", holders)
	}
}

func (r *rotation) leaderAt(at time.Time) string {
	holder := ""
	for _, l := range r.bed.recorder.Leaders() {
		if !l.At.After(at) {
			holder = l.Holder
		}
	}
	return holder
}

// assertAgain applies what is applied already, and compares everything after a while with everything before.
func (r *rotation) assertAgain(ctx context.Context, t *testing.T) {
	version := func() string {
		return r.bed.kubectl(ctx, t, "get", "certificaterotation", rotationName, "-o", "jsonpath={.metadata.resourceVersion} {.metadata.generation}")
	}
	trust := func() string {
		return r.bed.kubectl(ctx, t, "get", "configmaps", "-A", "--field-selector=metadata.name=kube-root-ca.crt", "-o", "jsonpath={.items[*].metadata.resourceVersion}")
	}
	wasVersion, wasTrust, from := version(), trust(), time.Now()
	was := r.bed.snapshots(ctx, t)
	if out := r.bed.apply(ctx, t, r.manifest); !strings.Contains(out, "unchanged") {
		t.Errorf("kubectl apply said %q", out)
	}
	select {
	case <-ctx.Done():
	case <-time.After(20 * time.Second): // the time in which nothing must happen
	}
	if now := version(); now != wasVersion {
		t.Errorf("resourceVersion and generation were %s, are %s", wasVersion, now)
	}
	if now := trust(); now != wasTrust {
		t.Errorf("the versions of kube-root-ca.crt were %s, are %s", wasTrust, now)
	}
	if seen := nodes.Restarts(r.bed.observer.Events(), from, time.Now()); len(seen) > 0 {
		t.Errorf("restarted: %s", nodes.TellRestarts(seen))
	}
	now := r.bed.snapshots(ctx, t)
	for name := range was {
		every := func(path string) bool { return !strings.HasPrefix(path, "/var/lib/kubelet/pods/") }
		for _, d := range append(snapshot.Shape(was[name], now[name]), snapshot.Content(was[name], now[name], every)...) {
			t.Errorf("%s: %s", name, d)
		}
	}
}
