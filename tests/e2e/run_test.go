package e2e

import (
	"context"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"certrotation.dev/tests/fixture"
	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/probe"
	"certrotation.dev/tests/snapshot"
	"certrotation.dev/tests/story"
	"certrotation.dev/tests/timeline"
)

// rotation is one run, with all that was seen of it. Assertions are made over it afterwards.
type rotation struct {
	bed         *bed
	trigger     string
	authorities []string // that are replaced
	manifest    []byte
	twice       bool            // strategy Bundle: clients restart to know both authorities, and to forget the old one
	accepted    map[string]bool // names of stragglers that were accepted

	keys     *probe.Keyring
	sets     []*probe.Set
	sessions *probe.Sessions
	watch    *probe.Held
	stop     func() // the probes
	forget   func() // what is learned of authorities

	before, after             map[string]*snapshot.Node
	invocationsBefore         map[string]string
	applied, dropped, settled time.Time // dropped: DroppingOld was seen; settled: all was collected
	turned                    time.Time // when the way back was asked for
	completed                 time.Time
	firstVersion              int // of the recorder, that belongs to this run
	versions                  []story.Version
	waited                    waited
	held                      time.Duration // that the test kept the run waiting
	complaints                complaints
	said                      atomic.Int32 // failures that were told at once
	mu                        sync.Mutex
	planned                   int // kills
	kills                     []timeline.Kill
	killing                   sync.WaitGroup
}

// waited is how `kubectl wait` ended.
type waited struct {
	at    time.Time
	out   string
	err   error
	ready bool // at once afterwards, by another look
	done  chan struct{}
}

type complaints struct {
	mu   sync.Mutex
	list []string
}

func (c *complaints) add(format string, args ...any) {
	say(format, args...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, time.Now().Format("15:04:05.000")+" "+fmt.Sprintf(format, args...))
}

func (c *complaints) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.list...)
}

// often gives how many restarts a run needs of what Bridge restarts once.
func (r *rotation) often() int {
	if r.twice {
		return 2
	}
	return 1
}

// prepare looks at everything as it is, and starts the probes. Without authorities it is the one that is the
// default, Kubernetes.
func (b *bed) prepare(ctx context.Context, t *testing.T, trigger string, authorities ...string) *rotation {
	t.Helper()
	r := &rotation{bed: b, trigger: trigger, authorities: []string{kubernetesAuthority}, accepted: map[string]bool{}}
	text := fmt.Sprintf("apiVersion: certrotation.dev/v1alpha1\nkind: CertificateRotation\nmetadata: {name: %s}\nspec:\n  trigger: %q\n", rotationName, trigger)
	if len(authorities) > 0 {
		r.authorities = authorities
		text += fmt.Sprintf("  authorities: [%s]\n", strings.Join(authorities, ", "))
	}
	r.manifest = []byte(text)
	r.before, r.invocationsBefore = b.snapshots(ctx, t), b.invocations(ctx, t)
	r.firstVersion = len(b.recorder.Versions())
	var err error
	var following context.Context
	following, r.forget = context.WithCancel(ctx)
	t.Cleanup(r.forget)
	if r.keys, err = b.Keyring(following, func(err error) { r.complaints.add("client certificate: %v", err) }); err != nil {
		t.Fatal(err)
	}
	r.probe(ctx, t)
	return r
}

// probe starts all probes and waits until each kind has been served.
func (r *rotation) probe(ctx context.Context, t *testing.T) {
	t.Helper()
	sessionPods, err := r.bed.SessionPods(ctx)
	if err != nil {
		t.Fatal(err)
	}
	probing, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	r.stop = func() { cancel(); all.Wait() }
	t.Cleanup(r.stop)
	for _, address := range r.bed.Entrances {
		set := &probe.Set{Address: address, Path: fixture.Path, Keys: r.keys, Phase: r.bed.recorder.Phase, Factor: probeRate(t),
			NewPublished: func() bool { return r.bed.NewPublished(r.keys) }, OnFailure: r.sayFailure}
		r.sets = append(r.sets, set)
		all.Add(1)
		go func() { defer all.Done(); set.Run(probing) }()
	}
	// Past a load balancer, which ends what is idle for a while.
	r.watch = probe.HoldWatch(probing, r.through(r.bed.Servers[0]), fixture.Namespace)
	r.sessions = &probe.Sessions{Config: r.bed.Live.Fresh, Pods: sessionPods, Phase: r.bed.recorder.Phase,
		LogsRate: number(t, "E2E_LOGS_RATE", 3), ExecRate: number(t, "E2E_EXEC_RATE", 2)}
	all.Add(1)
	go func() { defer all.Done(); r.sessions.Run(probing) }()
	start, end := within(ctx, t, time.Minute)
	defer end()
	if err := r.sessions.AwaitHeld(start); err != nil {
		t.Fatal(err)
	}
	r.awaitServed(start, t)
}

// awaitServed waits until every probe that there can be before a rotation was served some times.
func (r *rotation) awaitServed(ctx context.Context, t *testing.T) {
	t.Helper()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		quiet := 0
		for _, set := range r.sets {
			served := map[probe.Cell]int{}
			for _, a := range set.Attempts() {
				if a.Kind == probe.Served {
					served[a.Cell]++
				}
			}
			for _, trust := range []probe.Trust{probe.OldTrust, probe.BothTrust} {
				for _, as := range []probe.Credential{probe.OldCertificate, probe.Token} {
					if served[probe.Cell{Trust: trust, Credential: as}] < 5 {
						quiet++
					}
				}
			}
		}
		if quiet == 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d kinds of probe were not served before the run began:\n%s", quiet, probe.Table(probe.Summarize(r.attempts())))
		case <-ticker.C:
		}
	}
}

// start applies the manifest.
func (r *rotation) start(ctx context.Context, t *testing.T) {
	t.Helper()
	r.applied = time.Now()
	r.bed.apply(ctx, t, r.manifest)
	go r.sayPhases(ctx)
}

// begin applies the manifest and starts `kubectl wait`.
func (r *rotation) begin(ctx context.Context, t *testing.T) {
	t.Helper()
	r.start(ctx, t)
	r.waited.done = make(chan struct{})
	go func() {
		defer close(r.waited.done)
		r.waited.out, r.waited.err = r.bed.Kubectl.Run(ctx, "wait", "--for=condition=Ready", "--timeout=2h", "certificaterotation/"+rotationName)
		r.waited.at = time.Now()
		out, err := r.bed.Kubectl.Run(ctx, "get", "certificaterotation/"+rotationName, "-o", `jsonpath={.status.phase} {.status.run.trigger} {.status.conditions[?(@.type=="Ready")].status}`)
		r.waited.ready = err == nil && out == "Completed "+r.trigger+" True"
	}()
}

// sayPhases tells of each phase when it begins, until the end.
func (r *rotation) sayPhases(ctx context.Context) {
	last := ""
	for next := r.firstVersion; ; next++ {
		v, at, err := r.bed.recorder.Await(ctx, next, func(v *story.Version) bool { return r.inRun(v) && v.Status.Phase != last })
		if err != nil {
			return
		}
		last, next = v.Status.Phase, at
		say("%s %s %s", r.trigger, last, v.Status.ProgressSummary)
		if last == "Completed" || last == "RolledBack" {
			return
		}
	}
}

// sayFailure tells of a failure that should not be, as long as there are few.
func (r *rotation) sayFailure(a probe.Attempt) {
	expected := r.rotates(kubernetesAuthority) && (a.Phase == "DroppingOld" || a.Phase == "Completed")
	if expected || r.said.Add(1) > 20 {
		return
	}
	say("failed: %s", probe.Tell([]probe.Attempt{a}))
}

// await waits for a version of this run.
func (r *rotation) await(ctx context.Context, what string, is func(*story.Version) bool) (story.Version, error) {
	v, _, err := r.bed.recorder.Await(ctx, r.firstVersion, is)
	if err != nil {
		err = fmt.Errorf("waited for %s: %w", what, err)
	}
	return v, err
}

// inRun reports whether a version tells of this run.
func (r *rotation) inRun(v *story.Version) bool { return v.Status.Run.Trigger == r.trigger }

// finish waits for the end, lets the probes go on for a while, and collects.
func (r *rotation) finish(ctx context.Context, t *testing.T, patience time.Duration) {
	t.Helper()
	waiting, end := within(ctx, t, patience)
	defer end()
	v, err := r.await(waiting, "Completed", func(v *story.Version) bool { return v.Done(r.trigger) })
	if err != nil {
		r.collect(ctx, t)
		t.Fatal(err)
	}
	r.completed = v.At
	if r.rotates(kubernetesAuthority) {
		r.seeOldRefused(waiting, t)
	} else {
		r.seeEachTried(waiting, t)
	}
	select {
	case <-r.waited.done:
	case <-waiting.Done():
	}
	r.killing.Wait()
	r.collect(ctx, t)
}

// seeOldRefused waits until every kind of probe was tried 40 times after the end, 10 s of the slower ones.
func (r *rotation) seeOldRefused(ctx context.Context, t *testing.T) {
	t.Helper()
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for {
		tried := map[probe.Cell]int{}
		for _, a := range r.attempts() {
			if a.Started.After(r.completed) {
				tried[a.Cell]++
			}
		}
		missing := 0
		for _, c := range probe.Cells() {
			if tried[c] < 40*len(r.sets) {
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

// collect stops the probes, looks at everything as it is now, and makes the record.
func (r *rotation) collect(ctx context.Context, t *testing.T) {
	t.Helper()
	r.stop()
	r.forget()
	r.after = r.bed.snapshots(ctx, t)
	r.settled = time.Now()
	r.versions = r.bed.recorder.Versions()[r.firstVersion:]
	for i := range r.versions {
		if v := &r.versions[i]; r.inRun(v) && v.Status.Phase == "DroppingOld" && r.dropped.IsZero() {
			r.dropped = v.At
		}
	}
	r.bed.records = append(r.bed.records, r.record(t))
}

func (r *rotation) record(t *testing.T) *timeline.Rotation {
	events := r.bed.observer.Events()
	record := &timeline.Rotation{Cluster: r.bed.name, Trigger: r.trigger, Nodes: len(r.bed.nodes), Applied: r.applied, Completed: r.completed,
		HeldSeconds: r.held.Seconds(), Phases: story.Stays(r.mine()), Probes: probe.Summarize(r.attempts()), Sessions: map[string]int{},
		Cuts: r.cuts(), Restarts: nodes.Restarts(events, r.applied, r.settled), Kills: r.kills, Leaders: r.bed.recorder.Leaders(),
		Controller: timeline.Usages(events, r.applied, r.settled), Notes: map[string]string{}}
	for _, s := range r.sessions.Done() {
		record.Sessions[s.What]++
		if s.Error != "" {
			record.SessionErrors = append(record.SessionErrors, s)
		}
	}
	record.Failures = probe.Failed(r.beforeDrop())
	if authority := r.keys.New(); authority != nil {
		record.InForce = timeline.Lags(events, r.applied, r.settled, r.keys.Old().Subject.String(), authority.Subject.String())
	}
	for i, c := range r.complaints.all() {
		record.Notes[fmt.Sprintf("complaint %d", i+1)] = c
	}
	return record
}

// mine are the versions that tell of this run.
func (r *rotation) mine() []story.Version {
	var list []story.Version
	for _, v := range r.versions {
		if r.inRun(&v) {
			list = append(list, v)
		}
	}
	return list
}

func (r *rotation) attempts() []probe.Attempt {
	var all []probe.Attempt
	for _, set := range r.sets {
		all = append(all, set.Attempts()...)
	}
	return all
}

// beforeDrop are the attempts that had their result before DroppingOld was seen.
func (r *rotation) beforeDrop() []probe.Attempt {
	return probe.Filter(r.attempts(), func(a *probe.Attempt) bool { return r.dropped.IsZero() || a.Ended().Before(r.dropped) })
}

// cuts are the ends of what was held open; a try to open again that failed is none.
func (r *rotation) cuts() []probe.Break {
	var list []probe.Break
	for _, b := range append(r.sessions.Breaks(), r.watch.Breaks()...) {
		if !b.Opened.IsZero() {
			list = append(list, b)
		}
	}
	return list
}

// old and new are the authorities of this run.
func (r *rotation) old() *x509.Certificate { return r.keys.Old() }

func (r *rotation) new(t *testing.T) *x509.Certificate {
	t.Helper()
	authority := r.keys.New()
	if authority == nil {
		t.Fatal("no new authority was ever published")
	}
	return authority
}

// drawn is the seed of all that is left to chance: E2E_SEED, or a new one. It is printed: with it the same happens again.
func drawn(t *testing.T) uint64 {
	t.Helper()
	value, err := strconv.ParseUint(setting("E2E_SEED", fmt.Sprint(rand.Uint32())), 10, 64)
	if err != nil {
		t.Fatalf("E2E_SEED: %v", err)
	}
	say("E2E_SEED=%d", value)
	return value
}

// killLeaders kills the controller's leading process so many times, each in another one of these phases, within that time of the first
// thing that is done there. Which and when is drawn.
func (r *rotation) killLeaders(ctx context.Context, seed uint64, times int, within time.Duration, phases ...string) {
	if setting("E2E_KILL", "1") != "1" {
		return
	}
	chance := rand.New(rand.NewPCG(seed, 0))
	chance.Shuffle(len(phases), func(i, j int) { phases[i], phases[j] = phases[j], phases[i] })
	for _, phase := range phases[:times] {
		r.killLeader(ctx, phase, time.Duration(chance.Int64N(int64(within))))
	}
}

// killLeader kills the controller's leading process so long after the first thing that is done in a phase, and notes it.
func (r *rotation) killLeader(ctx context.Context, phase string, after time.Duration) {
	say("%s: the leader will be killed in %s, %.1f s after its first deed", r.trigger, phase, after.Seconds())
	r.planned++
	r.killing.Add(1)
	go func() {
		defer r.killing.Done()
		v, err := r.await(ctx, phase, func(v *story.Version) bool { return r.inRun(v) && v.Status.Phase == phase })
		if err != nil {
			r.complaints.add("no leader was killed in %s: %v", phase, err)
			return
		}
		if _, err := r.bed.observer.Await(ctx, func(e *nodes.Event) bool { return e.At.After(v.At) && isDeed(e) }); err != nil {
			r.complaints.add("no leader was killed in %s, where nothing was done: %v", phase, err)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(after):
		}
		if err := r.kill(ctx, phase); err != nil {
			r.complaints.add("the leader could not be killed in %s: %v", phase, err)
		}
	}()
}

// isDeed: a run has changed a file of Kubernetes' on a node, or restarted a workload.
func isDeed(e *nodes.Event) bool {
	switch e.What {
	case nodes.FileChanged:
		return !e.Already && strings.HasPrefix(e.Path, "/etc/kubernetes/")
	case nodes.ContainerStarted:
		return !e.Already && (e.Namespace == "kube-system" && e.Container == "kube-proxy" || e.Namespace == fixture.Namespace)
	}
	return false
}

func (r *rotation) kill(ctx context.Context, phase string) error {
	leaders := r.bed.recorder.Leaders()
	if len(leaders) == 0 || leaders[len(leaders)-1].Holder == "" {
		return fmt.Errorf("nobody leads")
	}
	holder := leaders[len(leaders)-1].Holder
	var victim nodes.Event
	for _, e := range r.bed.observer.Events() {
		if e.What == nodes.ContainerStarted && e.Namespace == systemNamespace && (holder == e.Pod || strings.HasPrefix(holder, e.Pod+"_")) {
			victim = e
		}
	}
	if victim.ID == "" {
		return fmt.Errorf("no container belongs to the leader %q", holder)
	}
	now := r.bed.recorder.Phase()
	for _, n := range r.bed.nodes {
		if n.Name != victim.Node {
			continue
		}
		if err := n.Kill(ctx, victim.ID, "KILL"); err != nil {
			return err
		}
	}
	say("killed the leader %s in %s", victim.Pod, now)
	r.mu.Lock()
	r.kills = append(r.kills, timeline.Kill{At: time.Now(), Pod: victim.Pod, Phase: now})
	r.mu.Unlock()
	_, err := r.bed.observer.Await(ctx, func(e *nodes.Event) bool { return e.What == nodes.ContainerGone && e.ID == victim.ID })
	return err
}
