package e2e

import (
	"context"
	"crypto/rsa"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"certrotation.dev/tests/snapshot"
)

// TestGit does to CertificateRotations what tools that own manifests do, and people who make mistakes: what is done stays done, what runs
// obeys what it was begun with, and one waits for the other.
func TestGit(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := open(ctx, t)
	g := &git{bed: b}
	b.apply(ctx, t, manifest(rotationName, "one", "Apply"))
	g.awaitPhase(ctx, t, rotationName, "one", "Completed")
	t.Run("what is done stays done", func(t *testing.T) { g.assertDone(ctx, t) })
	t.Run("what runs obeys what it was begun with", func(t *testing.T) { g.assertInFlight(ctx, t) })
	t.Run("deleted before the drop, it is rolled back", func(t *testing.T) { g.assertDeletedEarly(ctx, t) })
	t.Run("of two in one second one runs and one waits; deleted after the drop has begun, it is completed", func(t *testing.T) { g.assertTwins(ctx, t) })
}

type git struct{ bed *bed }

func (g *git) get(ctx context.Context, t *testing.T, name, path string) string {
	t.Helper()
	return g.bed.kubectl(ctx, t, "get", "certificaterotation", name, "--ignore-not-found", "-o", "jsonpath="+path)
}

func (g *git) patch(ctx context.Context, t *testing.T, name, patch string) {
	t.Helper()
	g.bed.kubectl(ctx, t, "patch", "certificaterotation", name, "--type=merge", "-p", patch)
}

func (g *git) await(ctx context.Context, t *testing.T, what string, is func() (bool, string)) {
	t.Helper()
	waiting, end := within(ctx, t, 6*time.Minute)
	defer end()
	for {
		good, said := is()
		if good {
			return
		}
		select {
		case <-waiting.Done():
			t.Fatalf("waited for %s; it is %q", what, said)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// awaitPhase waits until the resource tells of that run, in that phase.
func (g *git) awaitPhase(ctx context.Context, t *testing.T, name, trigger, phase string) {
	t.Helper()
	want := trigger + " " + phase
	g.await(ctx, t, name+" to be "+want, func() (bool, string) {
		now := g.get(ctx, t, name, "{.status.run.trigger} {.status.phase}")
		return now == want, now
	})
	say("%s: %s", name, want)
}

// awaitCompleted waits for a Completed that is of the present generation, whatever it says of a run.
func (g *git) awaitCompleted(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	g.await(ctx, t, name+" to be Completed", func() (bool, string) {
		now := strings.Fields(g.get(ctx, t, name, "{.metadata.generation} {.status.observedGeneration} {.status.phase}"))
		return len(now) == 3 && now[0] == now[1] && now[2] == "Completed", fmt.Sprint(now)
	})
}

func (g *git) awaitGone(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	g.await(ctx, t, name+" to be gone", func() (bool, string) {
		now := g.get(ctx, t, name, "{.status.phase} {.status.waitingFor}")
		return now == "", now
	})
}

// roles gives the role of each run's Secret, by its trigger.
func (g *git) roles(ctx context.Context, t *testing.T) map[string]string {
	t.Helper()
	list, err := g.bed.Client.CoreV1().Secrets(nodesNamespace).List(ctx, metav1.ListOptions{LabelSelector: "certrotation.dev/authority"})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, s := range list.Items {
		all[s.Annotations["certrotation.dev/trigger"]] = s.Labels["certrotation.dev/role"]
	}
	return all
}

func (g *git) authority(t *testing.T) string {
	t.Helper()
	published := g.bed.Authorities.Published()
	if len(published) != 1 {
		t.Fatalf("the cluster publishes %d authorities", len(published))
	}
	return snapshot.Fingerprint(published[0])
}

// still does something to the resource, and looks whether anything of the cluster has changed some time after.
func (g *git) still(ctx context.Context, t *testing.T, what string, do func(*testing.T)) {
	t.Run(what, func(t *testing.T) {
		b := g.bed
		b.awaitNodePods(ctx, t, 0)
		objects, containers, kubelets := b.objects(ctx, t), b.containers(ctx, t), b.invocations(ctx, t)
		do(t)
		g.awaitCompleted(ctx, t, rotationName)
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Second): // the time in which nothing must happen
		}
		b.awaitNodePods(ctx, t, 0)
		for _, list := range [][]string{differences(objects, b.objects(ctx, t)), differences(containers, b.containers(ctx, t)), differences(kubelets, b.invocations(ctx, t))} {
			for _, d := range list {
				t.Error(d)
			}
		}
	})
}

func (g *git) assertDone(ctx context.Context, t *testing.T) {
	b := g.bed
	again := manifest(rotationName, "one", "Apply")
	g.still(ctx, t, "applied again", func(t *testing.T) { b.apply(ctx, t, again) })
	g.still(ctx, t, "its status wiped", func(t *testing.T) { g.wipe(ctx, t) })
	g.still(ctx, t, "deleted and made again", func(t *testing.T) {
		b.kubectl(ctx, t, "delete", "certificaterotation", rotationName, "--timeout=30s")
		b.apply(ctx, t, again)
	})
	g.still(ctx, t, "deleted, and made again under another name", func(t *testing.T) {
		b.apply(ctx, t, manifest("another", "one", "Apply"))
		g.awaitCompleted(ctx, t, "another")
		b.kubectl(ctx, t, "delete", "certificaterotation", "another", "--timeout=30s")
	})
	g.still(ctx, t, "its trigger changed and changed back", func(t *testing.T) {
		g.patch(ctx, t, rotationName, `{"spec":{"trigger":"slip"}}`)
		g.patch(ctx, t, rotationName, `{"spec":{"trigger":"one"}}`)
	})
}

func (g *git) wipe(ctx context.Context, t *testing.T) {
	t.Helper()
	g.bed.kubectl(ctx, t, "patch", "certificaterotation", rotationName, "--subresource=status", "--type=json", "-p", `[{"op":"remove","path":"/status"}]`)
}

func (g *git) assertInFlight(ctx context.Context, t *testing.T) {
	b := g.bed
	before := g.authority(t)
	g.patch(ctx, t, rotationName, `{"spec":{"trigger":"two"}}`)
	g.awaitPhase(ctx, t, rotationName, "two", "TrustingBoth")
	const edit = `{"spec":{"newAuthority":{"keyAlgorithm":"ECDSA-P256"}}}`
	t.Run("an edit is refused, by the field's name", func(t *testing.T) {
		_, err := b.Kubectl.Run(ctx, "patch", "certificaterotation", rotationName, "--type=merge", "-p", edit)
		if err == nil || !strings.Contains(err.Error(), "spec.newAuthority can't change while") {
			t.Errorf("it says %v", err)
		}
	})
	t.Run("with its status wiped an edit passes, and is not obeyed", func(t *testing.T) { g.editBlind(ctx, t, edit) })
	t.Run("its trigger changed and changed back changes nothing", func(t *testing.T) {
		g.patch(ctx, t, rotationName, `{"spec":{"trigger":"slip"}}`)
		g.await(ctx, t, "the new generation to be seen", func() (bool, string) {
			now := strings.Fields(g.get(ctx, t, rotationName, "{.metadata.generation} {.status.observedGeneration} {.status.run.trigger}"))
			return len(now) == 3 && now[0] == now[1] && now[2] == "two", fmt.Sprint(now)
		})
		g.patch(ctx, t, rotationName, `{"spec":{"trigger":"two"}}`)
	})
	t.Run("a second one waits, and says for which", func(t *testing.T) {
		b.apply(ctx, t, manifest("second", "three", "Apply"))
		b.kubectl(ctx, t, "wait", "--for=jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}=Queued", "--timeout=60s", "certificaterotation/second")
		if said := g.get(ctx, t, "second", `{.status.conditions[?(@.type=="Ready")].message}`); !strings.Contains(said, "the run of "+rotationName) {
			t.Errorf("it says %q", said)
		}
	})
	t.Run("the controller's namespace deleted in the middle, and installed again", func(t *testing.T) { g.reinstall(ctx, t) })
	g.await(ctx, t, "the run to end", func() (bool, string) {
		role := g.roles(ctx, t)["two"]
		return role == "current", role
	})
	roles := g.roles(ctx, t)
	if roles["one"] != "retired" || roles["slip"] != "" {
		t.Errorf("the Secrets' roles are %v", roles)
	}
	t.Run("the authority is the one that was asked for at the start", func(t *testing.T) {
		for _, c := range b.Authorities.Published() {
			if _, is := c.PublicKey.(*rsa.PublicKey); !is && snapshot.Fingerprint(c) != before {
				t.Errorf("the new authority has a key of type %T", c.PublicKey)
			}
		}
	})
}

// editBlind wipes the status, on which the API server's rules rest, and edits at once; the controller may be faster.
func (g *git) editBlind(ctx context.Context, t *testing.T, edit string) {
	t.Helper()
	for range 20 {
		g.wipe(ctx, t)
		if _, err := g.bed.Kubectl.Run(ctx, "patch", "certificaterotation", rotationName, "--type=merge", "-p", edit); err == nil {
			g.await(ctx, t, "the status to come back", func() (bool, string) {
				now := g.get(ctx, t, rotationName, "{.status.run.trigger}")
				return now == "two", now
			})
			return
		}
	}
	t.Error("the edit was refused each time, so this shows nothing")
}

func (g *git) reinstall(ctx context.Context, t *testing.T) {
	b := g.bed
	b.kubectl(ctx, t, "delete", "namespace", systemNamespace, "--timeout=120s")
	objects, err := b.Kubectl.Run(ctx, "kustomize", "../../deploy")
	if err != nil {
		t.Fatal(err)
	}
	image := setting("CERTROTATION_IMAGE", "certrotation:dev")
	b.apply(ctx, t, []byte(strings.ReplaceAll(objects, "image: certrotation:dev", "image: "+image)))
	b.kubectl(ctx, t, "-n", systemNamespace, "rollout", "status", "deployment/"+controller, "--timeout=180s")
	say("the controller is there again")
}

// assertDeletedEarly: the one that has waited runs now.
func (g *git) assertDeletedEarly(ctx context.Context, t *testing.T) {
	b := g.bed
	g.awaitPhase(ctx, t, "second", "three", "ReissuingLeaves")
	b.kubectl(ctx, t, "delete", "certificaterotation", "second", "--wait=false")
	g.awaitPhase(ctx, t, "second", "three", "RollingBack")
	g.awaitGone(ctx, t, "second")
	if roles := g.roles(ctx, t); roles["three"] != "rolled-back" || roles["two"] != "current" {
		t.Errorf("the Secrets' roles are %v", roles)
	}
	g.assertPublishes(t, "two")
	g.awaitCompleted(ctx, t, rotationName)
	g.still(ctx, t, "made again, it does not run again", func(t *testing.T) {
		b.apply(ctx, t, manifest("second", "three", "Apply"))
		g.await(ctx, t, "second to be RolledBack", func() (bool, string) {
			now := g.get(ctx, t, "second", "{.status.phase}")
			return now == "RolledBack", now
		})
	})
}

// assertPublishes: the authority of that run is the only one that is published; its subject says whose it is.
func (g *git) assertPublishes(t *testing.T, trigger string) {
	t.Helper()
	list, err := g.bed.Client.CoreV1().Secrets(nodesNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: "certrotation.dev/authority"})
	if err != nil {
		t.Fatal(err)
	}
	published := g.bed.Authorities.Published()
	for _, s := range list.Items {
		if s.Annotations["certrotation.dev/trigger"] != trigger {
			continue
		}
		if len(published) != 1 || !strings.Contains(published[0].Subject.String(), "certrotation-"+s.Labels["certrotation.dev/run"]) {
			t.Errorf("%d authorities are published, the first is %s; the run's Secret is %s", len(published), published[0].Subject, s.Name)
		}
		return
	}
	t.Errorf("there is no Secret of %s", trigger)
}

func (g *git) assertTwins(ctx context.Context, t *testing.T) {
	b := g.bed
	twins := append(append(manifest("twin-a", "five", "Apply"), "---\n"...), manifest("twin-b", "six", "Apply")...)
	b.apply(ctx, t, twins)
	made := g.get(ctx, t, "twin-a", "{.metadata.creationTimestamp}") + " " + g.get(ctx, t, "twin-b", "{.metadata.creationTimestamp}")
	say("the twins are of %s", made)
	b.kubectl(ctx, t, "wait", "--for=jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}=Queued", "--timeout=60s", "certificaterotation/twin-b")
	if said := g.get(ctx, t, "twin-b", `{.status.conditions[?(@.type=="Ready")].message}`); !strings.Contains(said, "twin-a") {
		t.Errorf("twin-b says %q", said)
	}
	b.kubectl(ctx, t, "delete", "certificaterotation", "twin-b", "--timeout=30s")
	g.awaitPhase(ctx, t, "twin-a", "five", "DroppingOld")
	b.kubectl(ctx, t, "delete", "certificaterotation", "twin-a", "--wait=false")
	g.awaitGone(ctx, t, "twin-a")
	if roles := g.roles(ctx, t); roles["five"] != "current" || roles["two"] != "retired" || roles["six"] != "" {
		t.Errorf("the Secrets' roles are %v", roles)
	}
	g.assertPublishes(t, "five")
	g.awaitCompleted(ctx, t, rotationName)
	g.assertNoKeys(ctx, t)
}

// assertNoKeys: after all of it no Secret holds an authority's key.
func (g *git) assertNoKeys(ctx context.Context, t *testing.T) {
	t.Helper()
	list, err := g.bed.Client.CoreV1().Secrets(nodesNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list.Items {
		for key := range s.Data {
			if strings.HasSuffix(key, ".key") {
				t.Errorf("Secret %s holds %s", s.Name, key)
			}
		}
	}
}
