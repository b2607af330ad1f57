package e2e

import (
	"context"
	"crypto/x509"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/snapshot"
	"certrotation.dev/tests/story"
)

// noKubeconfig holds a run at the end of PublishingNew, a phase too short to be met otherwise.
const noKubeconfig = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: certrotation-test-hold}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [secrets]}]}
  validations: [{expression: "object.metadata.name != 'certrotation-admin-kubeconfig'", message: held by a test}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: certrotation-test-hold}
spec: {policyName: certrotation-test-hold, validationActions: [Deny]}
`

// TestJoins has fresh workers join before, in each phase of, and after one run, by the old authority's discovery hash or by the new one's.
// What joins in the middle is caught up with before the run goes on.
func TestJoins(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := open(ctx, t)
	j := &joins{bed: b, machines: map[string]chan error{}}
	t.Cleanup(func() { j.remove() })
	j.make(ctx, "before", "preparing", "trusting", "reissuing", "publishing", "restarting", "gate", "dropping", "after")
	old := b.Authorities.Published()[0]

	j.join(ctx, t, "before", old)
	j.walker = b.walk(ctx, t, "joins", "approval: Manual")
	now := time.Now()
	for _, phase := range []struct{ name, node string }{{"Preparing", "preparing"}, {"TrustingBoth", "trusting"}} {
		j.pauseIn(ctx, t, now, phase.name)
		j.join(ctx, t, phase.node, old)
		now = j.resume(ctx, t)
	}
	j.pauseIn(ctx, t, now, "ReissuingLeaves")
	j.join(ctx, t, "reissuing", j.learn(ctx, t))
	b.apply(ctx, t, []byte(noKubeconfig))
	now = j.resume(ctx, t)
	j.awaitPhase(ctx, t, now, "PublishingNew")
	now = j.join(ctx, t, "publishing", old)
	j.awaitNamed(ctx, t, now, "publishing")
	b.kubectl(ctx, t, "delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", "certrotation-test-hold")
	j.pauseIn(ctx, t, now, "RestartingWorkloads")
	j.join(ctx, t, "restarting", j.new)
	now = j.resume(ctx, t)
	j.awaitGate(ctx, t, now)
	now = j.join(ctx, t, "gate", old)
	j.awaitNamed(ctx, t, now, "gate")
	j.awaitGate(ctx, t, now.Add(time.Second))
	now = j.approve(ctx, t)
	j.pauseIn(ctx, t, now, "DroppingOld")
	t.Run("once cluster-info holds the new authority alone the old hash is refused", func(t *testing.T) { j.assertOldHash(ctx, t, "dropping") })
	j.join(ctx, t, "dropping", j.new)
	now = j.resume(ctx, t)
	j.awaitCompleted(ctx, t, now)
	t.Run("afterwards the old hash is refused", func(t *testing.T) { j.refused(ctx, t, "after") })
	j.join(ctx, t, "after", j.new)

	for _, joined := range j.joined {
		t.Run("what has joined, "+joined.name+": the new authority alone", func(t *testing.T) { j.assertNode(ctx, t, j.node(joined.name)) })
	}
	t.Run("status has counted and named each one", j.assertCounted)
	t.Run("the drop came last, and Completed after it", j.assertStory)
}

type joins struct {
	*walker
	bed      *bed
	order    []string
	machines map[string]chan error // gets one value when the container is there
	joined   []joined
}

type joined struct {
	name   string
	at     time.Time
	middle bool // while the run was under way
}

func (j *joins) node(name string) nodes.Node { return nodes.Node{Name: j.bed.name + "-" + name} }

// make starts the machines one after the other while the run goes on.
func (j *joins) make(ctx context.Context, names ...string) {
	j.order = names
	for _, name := range names {
		j.machines[name] = make(chan error, 1)
	}
	image := setting("CERTROTATION_IMAGE", "certrotation:dev")
	go func() {
		for _, name := range names {
			j.machines[name] <- cluster(ctx, "machine", j.bed.name, j.node(name).Name, image, "certrotation-test/workload:dev")
		}
	}()
}

// cluster runs a program of tests/cluster.
func cluster(ctx context.Context, program string, args ...string) error {
	out, err := exec.CommandContext(ctx, "../cluster/"+program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("tests/cluster/%s %s: %w: %s", program, strings.Join(args, " "), err, out)
	}
	return nil
}

// awaitMachine waits until the container is there.
func (j *joins) awaitMachine(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	select {
	case err := <-j.machines[name]:
		j.machines[name] <- err
		if err != nil {
			t.Fatal(err)
		}
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
}

func (j *joins) try(ctx context.Context, t *testing.T, name string, by *x509.Certificate, key ...string) error {
	t.Helper()
	j.awaitMachine(ctx, t, name)
	return cluster(ctx, "join", append([]string{j.bed.name, j.node(name).Name, "sha256:" + snapshot.PublicKey(by)}, key...)...)
}

// join has the machine join by that authority's hash, with a key as a control plane, and gives when it began.
func (j *joins) join(ctx context.Context, t *testing.T, name string, by *x509.Certificate, key ...string) time.Time {
	t.Helper()
	began := time.Now()
	if err := j.try(ctx, t, name, by, key...); err != nil {
		t.Fatal(err)
	}
	if err := nodes.Install(ctx, []nodes.Node{j.node(name)}); err != nil {
		t.Fatal(err)
	}
	j.joined = append(j.joined, joined{name, began, j.walker != nil && j.last().Phase != "Completed"})
	say("%s has joined in %s", name, time.Since(began).Round(time.Second))
	return began
}

// refused: kubeadm finds that what cluster-info holds is not what the hash is of, and leaves the machine alone.
func (j *joins) refused(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	if err := j.try(ctx, t, name, j.old); err == nil || !strings.Contains(err.Error(), "are pinned") {
		t.Errorf("joined by the old hash, or refused otherwise: %v", err)
	}
}

func (j *joins) assertOldHash(ctx context.Context, t *testing.T, name string) {
	info := j.bed.kubectl(ctx, t, "-n", "kube-public", "get", "configmap", "cluster-info", "-o", "jsonpath={.data.kubeconfig}")
	certificates, _, err := snapshot.Inspect([]byte(info))
	if err != nil {
		t.Fatal(err)
	}
	if len(certificates) != 1 || certificates[0].Fingerprint != snapshot.Fingerprint(j.new) {
		t.Skipf("the pause came before: cluster-info holds %d authorities", len(certificates))
	}
	j.refused(ctx, t, name)
}

func (j *joins) awaitNamed(ctx context.Context, t *testing.T, after time.Time, name string) {
	t.Helper()
	j.await(ctx, t, after, time.Minute, "status to name "+name, func(s *story.Status) bool { return s.WaitsFor(j.node(name).Name) })
}

// assertCounted: who joined in the middle was waited for by name; at the end everybody was counted, and all were done.
func (j *joins) assertCounted(t *testing.T) {
	versions := j.run()
	for _, who := range j.joined {
		named := slices.ContainsFunc(versions, func(v story.Version) bool { return v.At.After(who.at) && v.Status.WaitsFor(j.node(who.name).Name) })
		if who.middle && !named {
			t.Errorf("status has never named %s", who.name)
		}
	}
	j.walker.assertCounted(t, int64(len(j.bed.nodes)+len(j.joined)-1)) // but the one that joined afterwards
}

// remove takes the machines and their nodes away: the next test begins with the cluster that it was.
func (j *joins) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for _, name := range j.order {
		node := j.node(name).Name
		exec.CommandContext(ctx, "docker", "rm", "--force", "--volumes", node).Run()
		exec.CommandContext(ctx, "docker", "exec", j.bed.nodes[0].Name, "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", "delete", "node", node, "--ignore-not-found").Run()
	}
}
