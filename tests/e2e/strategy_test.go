package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"certrotation.dev/tests/nodes"
)

const (
	authorityKey    = "/etc/kubernetes/pki/ca.key"
	managerManifest = "/etc/kubernetes/manifests/kube-controller-manager.yaml"
)

// TestBundleStrategy takes a cluster whose authority's key is kept elsewhere to a new authority: nothing that
// the old one could sign is there, so everybody is given both, servers switch, and the old one is taken away.
// The probes are TestRotation's, and so is the end.
func TestBundleStrategy(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := open(ctx, t)
	b.populate(ctx, t)
	t.Cleanup(func() { b.save(t) })

	r := b.prepare(ctx, t, setting("E2E_TRIGGER", "bundle"))
	user := newUser(ctx, t, b)
	t.Run("the user's kubeconfig works before", user.works)
	b.takeKeyAway(ctx, t)
	r.twice = true
	r.manifest = append(r.manifest, "  strategy: Bundle\n"...)
	r.begin(ctx, t)
	r.stragglers(ctx, t)
	r.finish(ctx, t, 15*time.Minute)
	t.Run("end", func(t *testing.T) {
		r.assert(ctx, t)
		t.Run("the user's kubeconfig is refused afterwards", func(t *testing.T) { user.refused(t, r.new(t)) })
		t.Run("the old authority's key is nowhere, the new one's where kubeadm looks for it", r.assertKeyInPlace)
	})
}

// takeKeyAway makes of each control plane what kubeadm makes with an external authority: no ca.key, and nothing
// to sign with for the controller-manager.
// https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-certs/#external-ca-mode
func (b *bed) takeKeyAway(ctx context.Context, t *testing.T) {
	t.Helper()
	waiting, end := within(ctx, t, 3*time.Minute)
	defer end()
	for _, name := range b.controlPlanes() {
		n := b.node(t, name)
		text, err := n.Run(ctx, "cat", managerManifest)
		if err != nil {
			t.Fatal(err)
		}
		external := strings.NewReplacer("--cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt", "--cluster-signing-cert-file=",
			"--cluster-signing-key-file="+authorityKey, "--cluster-signing-key-file=").Replace(string(text))
		from := time.Now()
		if err := n.Write(ctx, managerManifest, []byte(external)); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Run(ctx, "rm", authorityKey); err != nil {
			t.Fatal(err)
		}
		_, err = b.observer.Await(waiting, func(e *nodes.Event) bool {
			return e.What == nodes.ContainerStarted && e.Node == name && e.Container == "kube-controller-manager" && e.At.After(from)
		})
		if err != nil {
			t.Fatalf("the controller-manager on %s did not start without a signer: %v", name, err)
		}
	}
	b.awaitManager(waiting, t)
}

// awaitManager waits until a controller-manager leads: it publishes the authority in a namespace that is new.
func (b *bed) awaitManager(ctx context.Context, t *testing.T) {
	t.Helper()
	const space = "certrotation-test-leads"
	b.kubectl(ctx, t, "create", "namespace", space)
	for {
		if _, err := b.Kubectl.Run(ctx, "-n", space, "get", "configmap", "kube-root-ca.crt"); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatal("no controller-manager leads after its restart")
		case <-time.After(250 * time.Millisecond):
		}
	}
	b.kubectl(ctx, t, "delete", "namespace", space)
}

func (r *rotation) assertKeyInPlace(t *testing.T) {
	for _, name := range r.bed.controlPlanes() {
		f := r.after[name].Find(authorityKey)
		if f == nil || len(f.Keys) != 1 {
			t.Errorf("%s: %s holds no key", name, authorityKey)
			continue
		}
		if crt := r.after[name].Find("/etc/kubernetes/pki/ca.crt"); crt == nil || len(crt.Certificates) != 1 || crt.Certificates[0].PublicKey != f.Keys[0].PublicKey {
			t.Errorf("%s: %s is not the key of the authority in force", name, authorityKey)
		}
	}
}
