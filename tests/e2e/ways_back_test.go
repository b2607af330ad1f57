package e2e

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"certrotation.dev/tests/fixture"
	"certrotation.dev/tests/story"
	"certrotation.dev/tests/timeline"
)

// beforeDrop is every phase that a run can be taken back from, in their order.
var beforeDrop = []string{"Preparing", "TrustingBoth", "ReissuingLeaves", "PublishingNew", "RestartingWorkloads"}

// TestEachRollback takes runs of all three authorities back from the end of each phase, one after the other on one cluster, and
// goes forward to the end then. On the longest way back the controller's leader is killed twice, at moments that are drawn.
func TestEachRollback(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := open(ctx, t)
	b.populate(ctx, t)
	t.Cleanup(func() { b.save(t) })
	all := []string{kubernetesAuthority, frontProxyAuthority, etcdAuthority}
	chance := rand.New(rand.NewPCG(drawn(t), 0))
	for i, phase := range beforeDrop {
		r := b.prepare(ctx, t, "back-"+strings.ToLower(phase), all...)
		if i == len(beforeDrop)-1 && setting("E2E_KILL", "1") == "1" {
			r.killLeader(ctx, "RollingBack", time.Duration(chance.Int64N(int64(10*time.Second))))
			r.killLeader(ctx, "RollingBack", time.Duration(chance.Int64N(int64(10*time.Second)))+20*time.Second)
		}
		r.start(ctx, t)
		r.awaitEndOf(ctx, t, i)
		r.turnRound(ctx, t)
		t.Run("from the end of "+phase, func(t *testing.T) {
			r.assertNothingHappened(ctx, t)
			r.assertKilled(t)
		})
	}
	t.Run("the controller's memory stays", func(t *testing.T) { assertMemoryStays(t, b.records[:len(beforeDrop)-1]) }) // as long as it lived

	b.kubectl(ctx, t, "-n", fixture.Namespace, "delete", "pod", "alone", "--wait=true")
	b.kubectl(ctx, t, "-n", fixture.Namespace, "rollout", "resume", "deployment/frozen")
	forward := b.prepare(ctx, t, "forward", all...)
	forward.begin(ctx, t)
	forward.finish(ctx, t, 15*time.Minute)
	t.Run("and forward to the end", func(t *testing.T) { forward.assert(ctx, t) })
}

// awaitEndOf waits until the run is past a phase of beforeDrop, or, in the last one, has nothing left but what only a person can do.
func (r *rotation) awaitEndOf(ctx context.Context, t *testing.T, phase int) {
	t.Helper()
	if phase == len(beforeDrop)-1 {
		r.awaitStragglers(ctx, t)
		return
	}
	waiting, end := within(ctx, t, 10*time.Minute)
	defer end()
	if _, err := r.await(waiting, "the end of "+beforeDrop[phase], func(v *story.Version) bool {
		return r.inRun(v) && slices.Contains(beforeDrop[phase+1:], v.Status.Phase)
	}); err != nil {
		r.collect(ctx, t)
		t.Fatal(err)
	}
}

// assertNothingHappened: for whoever looks afterwards, and for those who came with what was good at the start.
func (r *rotation) assertNothingHappened(ctx context.Context, t *testing.T) {
	t.Run("who came with the old certificate or a token was never refused", r.assertOldNeverFails)
	t.Run("neither API server nor etcd restarts", r.assertServersStay)
	t.Run("the open watch was never cut", r.assertWatch)
	t.Run("every file is as it was", r.assertFilesAsBefore)
	t.Run("kubeadm certs check-expiration is content", func(t *testing.T) { r.assertExpiration(ctx, t) })
	t.Run("no node Pod is left", func(t *testing.T) { r.assertNoNodePods(ctx, t) })
	t.Run("status says so", r.assertStatusRolledBack)
	if r.keys.New() == nil {
		return
	}
	m := r.mirrored(t)
	m.authorities = []string{kubernetesAuthority} // what became of the others' is in files alone, and in what is read of them
	t.Run("every kube-root-ca.crt carries the old authority only", func(t *testing.T) { m.assertConfigMaps(ctx, t) })
	t.Run("cluster-info carries the old authority only, signed", func(t *testing.T) { m.assertClusterInfo(ctx, t) })
	t.Run("what aggregated API servers read carries the old authority only", func(t *testing.T) { m.assertExtension(ctx, t) })
	t.Run("no object carries the new authority", func(t *testing.T) { m.assertNoObjectCarries(ctx, t) })
}

// What one process holds at its peak in a run, against what it held in its first. Glibc keeps some of what was freed.
const memoryGrowthKiB = 3 << 10

func assertMemoryStays(t *testing.T, records []*timeline.Rotation) {
	first, compared := map[string]int64{}, 0
	for _, record := range records {
		for _, u := range record.Controller {
			if before, known := first[u.ID]; !known {
				first[u.ID] = u.PeakAnonymousKiB
			} else if compared++; u.PeakAnonymousKiB > before+memoryGrowthKiB {
				t.Errorf("%s held %d KiB in %s, after %d KiB in its first run", u.Pod, u.PeakAnonymousKiB, record.Trigger, before)
			}
		}
	}
	if compared < 4 {
		t.Errorf("only %d measurements were compared", compared)
	}
}
