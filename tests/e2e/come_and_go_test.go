package e2e

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/story"
)

// TestNodesComeAndGo has workers go down before a run and in the middle of it. One comes back each time and is caught up with; the other is
// deleted and forgotten. Two workers are needed.
func TestNodesComeAndGo(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := open(ctx, t)
	workers := b.workers()
	if len(workers) < 2 {
		t.Skip("two workers are needed: E2E_WORKERS=2")
	}
	stays, goes := workers[0], workers[1]
	c := &comings{bed: b}

	c.freeze(ctx, t, stays)
	files := b.filesBut(ctx, t, stays)
	c.walker = b.walk(ctx, t, "comes-and-goes")
	c.awaitDown(ctx, t, time.Time{}, "Preparing", stays)
	t.Run("a worker that is down at the start holds it, and nothing is touched", func(t *testing.T) { c.assertUntouched(ctx, t, files) })
	now := c.thaw(ctx, t, stays)

	c.pauseIn(ctx, t, now, "ReissuingLeaves")
	c.learn(ctx, t)
	c.freeze(ctx, t, stays, goes)
	now = c.resume(ctx, t)
	c.awaitDown(ctx, t, now, "ReissuingLeaves", stays, goes)
	t.Run("two that go down in the middle hold it", func(t *testing.T) { c.assertHeld(ctx, t) })
	now = c.forget(ctx, t, goes)
	t.Run("one that is deleted is forgotten, and the other still waited for", func(t *testing.T) { c.assertForgotten(ctx, t, now, stays, goes) })
	now = c.thaw(ctx, t, stays)
	c.awaitCompleted(ctx, t, now)

	for _, n := range []nodes.Node{b.node(t, b.controlPlanes()[0]), stays} {
		t.Run(n.Name+" has the new authority alone", func(t *testing.T) { c.assertNode(ctx, t, n) })
	}
	t.Run("at the end only those that are there were counted", func(t *testing.T) { c.assertCounted(t, int64(len(b.nodes)-1)) })
	t.Run("the drop came last, and Completed after it", c.assertStory)
}

type comings struct {
	*walker
	bed *bed
}

// workers are the nodes without an API server.
func (b *bed) workers() []nodes.Node {
	planes := " " + strings.Join(b.controlPlanes(), " ") + " "
	var list []nodes.Node
	for _, n := range b.nodes {
		if !strings.Contains(planes, " "+n.Name+" ") {
			list = append(list, n)
		}
	}
	return list
}

func docker(ctx context.Context, t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput(); err != nil {
		t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// freeze stops every process of those nodes, and waits until the cluster has noticed.
func (c *comings) freeze(ctx context.Context, t *testing.T, list ...nodes.Node) {
	t.Helper()
	for _, n := range list {
		docker(ctx, t, "pause", n.Name)
		t.Cleanup(func() { exec.Command("docker", "unpause", n.Name).Run() })
	}
	for _, n := range list {
		c.bed.kubectl(ctx, t, "wait", "--for=condition=Ready=Unknown", "--timeout=120s", "node/"+n.Name)
		say("%s is down", n.Name)
	}
}

func (c *comings) thaw(ctx context.Context, t *testing.T, n nodes.Node) time.Time {
	t.Helper()
	before := time.Now()
	docker(ctx, t, "unpause", n.Name)
	c.bed.kubectl(ctx, t, "wait", "--for=condition=Ready", "--timeout=120s", "node/"+n.Name)
	say("%s is back", n.Name)
	return before
}

// filesBut tells of files of all nodes but those that are down.
func (b *bed) filesBut(ctx context.Context, t *testing.T, down nodes.Node) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, n := range b.nodes {
		if n == down {
			continue
		}
		taken, err := n.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range taken.Files {
			if strings.HasPrefix(f.Path, "/etc/kubernetes") || strings.HasPrefix(f.Path, "/var/lib/kubelet/pki") {
				all[n.Name+":"+f.Path] = f.SHA256 + f.Target
			}
		}
	}
	return all
}

// awaitDown waits until status says that the run is held by those, by name.
func (c *comings) awaitDown(ctx context.Context, t *testing.T, after time.Time, phase string, down ...nodes.Node) {
	t.Helper()
	// Both replicas of the controller may be on them: a third is made once their Pods are given up.
	c.await(ctx, t, after, 4*time.Minute, "status to name who is down", func(s *story.Status) bool {
		for _, n := range down {
			if !holdsUp(s, n) {
				return false
			}
		}
		return s.Phase == phase
	})
}

// holdsUp: the node is named by the condition and listed as a blocker with the next step.
func holdsUp(s *story.Status, n nodes.Node) bool {
	stalled, listed := s.Condition("Stalled"), false
	for _, b := range s.Blockers {
		listed = listed || b.Code == "NodeNotReady" && b.Object == "Node/"+n.Name && strings.Contains(b.Message, "repair or delete it")
	}
	return listed && stalled != nil && stalled.Reason == "NodeNotReady" && s.WaitsFor(n.Name) && strings.Contains(stalled.Message, n.Name)
}

// remains: for some seconds status goes on naming those, and the run stands where it is.
func (c *comings) remains(ctx context.Context, t *testing.T, down ...nodes.Node) {
	t.Helper()
	phase, ticker := c.last().Phase, time.NewTicker(250*time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		case <-ticker.C:
		}
		s := c.last()
		for _, n := range down {
			if !holdsUp(s, n) || s.Phase != phase {
				t.Fatalf("%s is down, and: %s", n.Name, s.Tell())
			}
		}
	}
}

func (c *comings) assertUntouched(ctx context.Context, t *testing.T, files map[string]string) {
	down := c.bed.workers()[0]
	c.remains(ctx, t, down)
	if len(files) < 20 {
		t.Errorf("only %d files are compared", len(files))
	}
	for _, d := range differences(files, c.bed.filesBut(ctx, t, down)) {
		t.Error(d)
	}
	warned := false
	for _, e := range c.bed.recorder.Events() {
		warned = warned || e.Type == "Warning" && e.Reason == "NodeNotReady" && strings.Contains(e.Message, down.Name)
	}
	if !warned {
		t.Error("no Warning tells of it")
	}
}

func (c *comings) assertHeld(ctx context.Context, t *testing.T) {
	c.remains(ctx, t, c.bed.workers()[:2]...)
	c.notDropped(ctx, t)
}

// forget removes a machine for good and deletes its node, and gives when that began.
func (c *comings) forget(ctx context.Context, t *testing.T, n nodes.Node) time.Time {
	t.Helper()
	c.bed.observer.Forget(n.Name)
	docker(ctx, t, "rm", "--force", "--volumes", n.Name)
	before := time.Now()
	c.bed.kubectl(ctx, t, "delete", "node", n.Name)
	return before
}

func (c *comings) assertForgotten(ctx context.Context, t *testing.T, after time.Time, stays, goes nodes.Node) {
	c.await(ctx, t, after, time.Minute, goes.Name+" to be forgotten", func(s *story.Status) bool {
		return !s.WaitsFor(goes.Name) && holdsUp(s, stays)
	})
	c.remains(ctx, t, stays)
}
