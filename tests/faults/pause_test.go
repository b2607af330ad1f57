package faults

import (
	"context"
	"strings"
	"testing"
	"time"

	"certrotation.dev/tests/faults/fault"
	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/story"
)

// term is the Lease's: leaseDurationSeconds.
const term = 15 * time.Second

// pause is what was done to a leader.
type pause struct {
	pod              string
	stopped, resumed time.Time
}

// pauseLeader stops the leader's process while a write of it is on its way: the API server carries that out, its answer waits until the
// process goes on after three terms, and somebody else has led for long.
func pauseLeader(ctx context.Context, t *testing.T, r *rotation, seed int64) {
	t.Helper()
	waiting, end := within(ctx, t, 4*time.Minute)
	defer end()
	b := r.bed
	pod := b.leader(t)
	from := b.proxy.length()
	b.proxy.command(waiting, t, fault.Command{Do: fault.Hold, Pod: pod, Nth: 3 + int(seed%60)})
	if _, err := b.proxy.await(waiting, from, func(e *fault.Entry) bool { return e.What == fault.Holding }); err != nil {
		t.Fatal(err)
	}
	b.signal(waiting, t, pod, "STOP")
	r.paused = &pause{pod: pod, stopped: time.Now()}
	b.proxy.command(waiting, t, fault.Command{Do: fault.Release})
	say("%s: %s is stopped in %s", r.name, pod, b.recorder.Phase())
	select {
	case <-waiting.Done():
		t.Fatal(waiting.Err())
	case <-time.After(3 * term): // this is the fault
	}
	if now := b.leader(t); now == pod {
		t.Errorf("%s was away for three terms, and still leads", pod)
	}
	from = b.proxy.length()
	b.proxy.command(waiting, t, fault.Command{Do: fault.Listen, Pod: pod})
	r.paused.resumed = time.Now()
	b.signal(waiting, t, pod, "CONT")
	say("%s: %s goes on in %s", r.name, pod, b.recorder.Phase())
	if _, err := b.proxy.await(waiting, from, func(e *fault.Entry) bool { return e.What == fault.Heard && e.Pod == pod }); err != nil {
		t.Fatalf("%s goes on and asks for nothing: %v", pod, err)
	}
}

// leader is the Pod that leads.
func (b *bed) leader(t *testing.T) string {
	t.Helper()
	list := b.recorder.Leaders()
	if len(list) == 0 || list[len(list)-1].Holder == "" {
		t.Fatal("nobody leads")
	}
	return list[len(list)-1].Holder
}

// signal sends one to the container of a Pod of the controller.
func (b *bed) signal(ctx context.Context, t *testing.T, pod, signal string) {
	t.Helper()
	started := b.observer.Select(func(e *nodes.Event) bool {
		return e.What == nodes.ContainerStarted && e.Namespace == systemNamespace && e.Pod == pod && e.Container == "controller"
	})
	if len(started) == 0 {
		t.Fatalf("no container of %s was seen", pod)
	}
	last := started[len(started)-1]
	if err := (nodes.Node{Name: last.Node}).Kill(ctx, last.ID, signal); err != nil {
		t.Fatal(err)
	}
}

// assertFenced: what the paused leader asked for after it went on. Its first try for the Lease may be a write, and is refused.
func (r *rotation) assertFenced(t *testing.T) {
	heard := 0
	for _, e := range r.entries {
		if e.Pod != r.paused.pod || !e.At.After(r.paused.resumed) {
			continue
		}
		heard++
		if e.What == fault.Request && e.Class == fault.Write && (!aLease.MatchString(e.Object) || e.Committed()) {
			t.Errorf("%s, resumed at %s: %s %s was asked for by %s, who does not lead; the answer was %d", clock(e.At), clock(r.paused.resumed), e.Verb, e.Object, e.Pod, e.Answer)
		}
	}
	if heard == 0 {
		t.Errorf("nothing was heard of %s after it went on", r.paused.pod)
	}
	led := false
	for _, l := range r.bed.recorder.Leaders() {
		led = led || l.At.After(r.paused.stopped) && l.At.Before(r.paused.resumed) && l.Holder != "" && l.Holder != r.paused.pod
	}
	if !led {
		t.Error("nobody else took over")
	}
}

// expireTokens has the tokens of both replicas refused in the middle of the run, until each comes with another one from its file.
func expireTokens(ctx context.Context, t *testing.T, r *rotation, _ int64) {
	t.Helper()
	waiting, end := within(ctx, t, 5*time.Minute)
	defer end()
	b := r.bed
	inRun := func(v *story.Version) bool { return v.Status.Run.Trigger == r.name && v.Status.Phase == "TrustingBoth" }
	if _, _, err := b.recorder.Await(waiting, r.firstVersion, inRun); err != nil {
		t.Fatal(err)
	}
	from := b.proxy.length()
	b.proxy.command(waiting, t, fault.Command{Do: fault.Expire})
	say("%s: the tokens have expired", r.name)
	for _, pod := range b.replicas(waiting, t) {
		after := from
		for range 3 {
			var err error
			if after, err = b.proxy.await(waiting, after, func(e *fault.Entry) bool { return e.What == fault.Refused && e.Pod == pod.name }); err != nil {
				t.Fatalf("%s was not refused: %v", pod.name, err)
			}
		}
		b.renew(waiting, t, pod, from)
	}
	say("%s: both have come with new tokens", r.name)
}

type replica struct{ name, uid, node string }

func (b *bed) replicas(ctx context.Context, t *testing.T) (list []replica) {
	t.Helper()
	out := b.kubectl(ctx, t, "-n", systemNamespace, "get", "pods", "-l", "app.kubernetes.io/name=certrotation", "--field-selector=status.phase=Running",
		"-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.spec.nodeName}{"\n"}{end}`)
	for _, line := range strings.Split(out, "\n") {
		if f := strings.Fields(line); len(f) == 3 {
			list = append(list, replica{f[0], f[1], f[2]})
		}
	}
	if len(list) != 2 {
		t.Fatalf("%d replicas run: %q", len(list), out)
	}
	return list
}

// swapToken changes a volume as the kubelet does: beside, then one rename.
const swapToken = `set -e; cd /var/lib/kubelet/pods/"$0"/volumes/kubernetes.io~projected/kube-api-access-*; new=..test_"$1"
cp -a "$(readlink ..data)" "$new"; cat >"$new"/token; ln -s "$new" ..data_test; mv -T ..data_test ..data`

// renew gives a Pod another token, until it has come with it: its kubelet may put the old one back before.
func (b *bed) renew(ctx context.Context, t *testing.T, p replica, from int) {
	t.Helper()
	for i := 1; ; i++ {
		token := b.kubectl(ctx, t, "-n", systemNamespace, "create", "token", controller, "--duration=1h", "--bound-object-kind=Pod",
			"--bound-object-name="+p.name, "--bound-object-uid="+p.uid)
		if err := (nodes.Node{Name: p.node}).Feed(ctx, []byte(token), "sh", "-c", swapToken, p.uid, clock(time.Now())); err != nil {
			t.Fatal(err)
		}
		soon, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := b.proxy.await(soon, from, func(e *fault.Entry) bool { return e.What == fault.Renewed && e.Pod == p.name })
		cancel()
		if err == nil {
			return
		}
		if ctx.Err() != nil || i == 5 {
			t.Fatalf("%s does not come with its new token: %v", p.name, err)
		}
	}
}
