package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"certrotation.dev/tests/fixture"
	"certrotation.dev/tests/flux"
)

// What is in Git beside the request: a client of the API, which has to be rolled.
const gitops = `apiVersion: v1
kind: ServiceAccount
metadata: {name: gitops, namespace: certrotation-test}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: gitops, namespace: certrotation-test}
rules:
  - {apiGroups: [""], resources: [configmaps], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: gitops, namespace: certrotation-test}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: gitops}
subjects:
  - {kind: ServiceAccount, name: gitops, namespace: certrotation-test}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: gitops, namespace: certrotation-test, labels: {certrotation-test: workload}}
spec:
  replicas: 1
  selector: {matchLabels: {app: gitops}}
  template:
    metadata:
      labels: {app: gitops, certrotation-test: workload}
      annotations: {from: git}
    spec:
      serviceAccountName: gitops
      terminationGracePeriodSeconds: 10
      containers:
        - name: workload
          image: certrotation-test/workload:dev
          imagePullPolicy: Never
          env: [{name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}, {name: WORKLOAD_PER_SECOND, value: "4"}]
          readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
          resources: {requests: {cpu: 5m, memory: 16Mi}}
`

const restartedAnnotation = "certrotation.dev/restarted-for-run"

type fluxed struct {
	*git
	flux *flux.Flux
}

// TestFlux has Flux's own kustomize-controller apply a request and a Deployment, again and again, as it does with everything from Git: the
// run is completed, and what a person does to it in an emergency works in the way that README.md says.
func TestFlux(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := open(ctx, t)
	f := &fluxed{git: &git{bed: b}}
	var err error
	if f.flux, err = flux.Deploy(ctx, b.Cluster, b.gateway(ctx, t)); err != nil {
		t.Fatal(err)
	}
	f.awaitApplied(ctx, t, f.commit(ctx, t, nil))
	t.Run("a run from Git is completed, and Flux is ready when it is and not before", func(t *testing.T) { f.assertCompletes(ctx, t) })
	t.Run("the restart of what Flux applies stays", func(t *testing.T) { f.assertRestartStays(ctx, t) })
	f.patchKustomization(ctx, t, `{"spec":{"wait":false}}`)
	f.commit(ctx, t, manifest(rotationName, "two", "Apply"))
	f.awaitPhase(ctx, t, rotationName, "two", "TrustingBoth")
	t.Run("what Git can't change is refused, and Flux says which field", func(t *testing.T) { f.assertRefusal(ctx, t) })
	t.Run("a pause by kubectl is taken out again", func(t *testing.T) { f.assertPauseReverted(ctx, t) })
	t.Run("a pause stays where Flux is told to leave the object alone", func(t *testing.T) { f.assertPauseStays(ctx, t) })
	t.Run("a way back by kubectl is taken out again, and carried out", func(t *testing.T) { f.assertRollback(ctx, t) })
	t.Run("taken out of Git it is pruned", func(t *testing.T) { f.assertPruned(ctx, t) })
}

// gateway is an address of this machine that pods reach: where the nodes send what is not for them.
func (b *bed) gateway(ctx context.Context, t *testing.T) string {
	t.Helper()
	out, err := b.nodes[0].Run(ctx, "ip", "-4", "route", "show", "default")
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(string(out))
	if len(words) < 3 || words[1] != "via" {
		t.Fatalf("the default route is %q", out)
	}
	return words[2]
}

// commit puts the Deployment and, if there is one, a request into Git.
func (f *fluxed) commit(ctx context.Context, t *testing.T, request []byte) string {
	t.Helper()
	files := map[string]string{"gitops.yaml": gitops}
	if request != nil {
		files["rotation.yaml"] = string(request)
	}
	revision, err := f.flux.Commit(ctx, files)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

// said is what the Kustomization says of itself.
func (f *fluxed) said(ctx context.Context, t *testing.T) (ready bool, revision, message string) {
	t.Helper()
	ready, revision, message, err := f.flux.Says(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return ready, revision, message
}

func (f *fluxed) awaitApplied(ctx context.Context, t *testing.T, revision string) {
	t.Helper()
	f.await(ctx, t, "Flux to be ready with "+revision, func() (bool, string) {
		ready, last, message := f.said(ctx, t)
		return ready && last == revision, message
	})
}

func (f *fluxed) reconcile(ctx context.Context, t *testing.T) {
	t.Helper()
	if err := f.flux.Reconcile(ctx); err != nil {
		t.Fatal(err)
	}
}

func (f *fluxed) patchKustomization(ctx context.Context, t *testing.T, patch string) {
	t.Helper()
	f.bed.kubectl(ctx, t, "-n", flux.Namespace, "patch", "kustomization", flux.Name, "--type=merge", "-p", patch)
}

func (f *fluxed) assertCompletes(ctx context.Context, t *testing.T) {
	begun, revision := time.Now(), f.commit(ctx, t, manifest(rotationName, "one", "Apply"))
	early := 0
	f.await(ctx, t, "the run to be completed, and Flux to be ready", func() (bool, string) {
		ready, last, message := f.said(ctx, t)
		// Asked after Flux: what was Completed then still is.
		phase := f.get(ctx, t, rotationName, "{.status.phase}")
		if ready && last == revision && phase != "Completed" {
			t.Errorf("Flux was ready in phase %q: %s", phase, message)
		}
		if phase != "" && phase != "Completed" {
			early++
		}
		return ready && last == revision && phase == "Completed", phase + ", " + message
	})
	if early == 0 {
		t.Error("the run was never seen under way, so this shows nothing")
	}
	say("completed and seen to be by Flux after %.1f s", time.Since(begun).Seconds())
}

// deployment gives the Deployment's generation, what its pods carry from the run and from Git, and its ReplicaSets.
func (f *fluxed) deployment(ctx context.Context, t *testing.T) string {
	t.Helper()
	d, err := f.bed.Client.AppsV1().Deployments(fixture.Namespace).Get(ctx, "gitops", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sets, err := f.bed.Client.AppsV1().ReplicaSets(fixture.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=gitops"})
	if err != nil {
		t.Fatal(err)
	}
	pods, err := f.bed.Client.CoreV1().Pods(fixture.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=gitops"})
	if err != nil {
		t.Fatal(err)
	}
	alive := []string{}
	for _, p := range pods.Items {
		if p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning {
			alive = append(alive, p.Name)
		}
	}
	a := d.Spec.Template.Annotations
	return fmt.Sprintf("generation %d, %s=%q, from=%q, %d ReplicaSets, %v", d.Generation, restartedAnnotation, a[restartedAnnotation], a["from"], len(sets.Items), alive)
}

// assertRestartStays: Flux looks at the Deployment again, more than once, and leaves what it has not set.
func (f *fluxed) assertRestartStays(ctx context.Context, t *testing.T) {
	before := f.deployment(ctx, t)
	if strings.Contains(before, restartedAnnotation+`=""`) || !strings.Contains(before, `from="git", 2 ReplicaSets`) {
		t.Errorf("after the run it is %s", before)
	}
	f.reconcile(ctx, t)
	f.bed.kubectl(ctx, t, "-n", fixture.Namespace, "label", "deployment", "gitops", "certrotation-test=drift", "--overwrite")
	f.reconcile(ctx, t)
	if label := f.bed.kubectl(ctx, t, "-n", fixture.Namespace, "get", "deployment", "gitops", "-o", "jsonpath={.metadata.labels.certrotation-test}"); label != "workload" {
		t.Errorf("Flux did not revert what was done to the Deployment meanwhile (%q), so this shows nothing", label)
	}
	if after := f.deployment(ctx, t); after != before {
		t.Errorf("after Flux has looked again it is %s; it was %s", after, before)
	}
}

func (f *fluxed) assertRefusal(ctx context.Context, t *testing.T) {
	const ecdsa = "apiVersion: certrotation.dev/v1alpha1\nkind: CertificateRotation\nmetadata: {name: cluster}\n" +
		"spec: {trigger: two, newAuthority: {keyAlgorithm: ECDSA-P256}}\n"
	f.patchSpec(ctx, t, `{"paused":true}`, "--field-manager=flux-client-side-apply") // so that it is still under way
	f.commit(ctx, t, []byte(ecdsa))
	f.await(ctx, t, "Flux to be refused", func() (bool, string) {
		ready, _, message := f.said(ctx, t)
		return !ready && strings.Contains(message, "spec.newAuthority can't change while the run 'two' is in phase"), message
	})
	f.awaitApplied(ctx, t, f.commit(ctx, t, manifest(rotationName, "two", "Apply")))
	if paused := f.paused(ctx, t); paused != "true" {
		t.Errorf("Flux has taken out what flux-client-side-apply has set: paused is %q", paused)
	}
	f.patchSpec(ctx, t, `{"paused":null}`, "--field-manager=flux-client-side-apply")
}

func (f *fluxed) patchSpec(ctx context.Context, t *testing.T, patch string, more ...string) {
	t.Helper()
	f.bed.kubectl(ctx, t, append([]string{"patch", "certificaterotation", rotationName, "--type=merge", "-p", `{"spec":` + patch + `}`}, more...)...)
}

func (f *fluxed) paused(ctx context.Context, t *testing.T) string {
	t.Helper()
	return f.get(ctx, t, rotationName, "{.spec.paused}")
}

func (f *fluxed) assertPauseReverted(ctx context.Context, t *testing.T) {
	f.patchSpec(ctx, t, `{"paused":true}`)
	f.reconcile(ctx, t)
	if paused := f.paused(ctx, t); paused != "false" {
		t.Errorf("after Flux has looked again paused is %q; README.md says that it is taken out", paused)
	}
}

// assertPauseStays: the documented way. It ends with the annotation.
func (f *fluxed) assertPauseStays(ctx context.Context, t *testing.T) {
	b := f.bed
	b.kubectl(ctx, t, "annotate", "certificaterotation", rotationName, "kustomize.toolkit.fluxcd.io/reconcile=disabled")
	f.patchSpec(ctx, t, `{"paused":true}`)
	f.await(ctx, t, "the run to be paused", func() (bool, string) {
		reason := f.get(ctx, t, rotationName, `{.status.conditions[?(@.type=="Ready")].reason}`)
		return reason == "Paused", reason
	})
	phase := f.get(ctx, t, rotationName, "{.status.phase}")
	for range 3 {
		f.reconcile(ctx, t)
	}
	now := f.get(ctx, t, rotationName, "{.spec.paused} {.status.phase}")
	if now != "true "+phase {
		t.Errorf("after Flux has looked three times it is %q", now)
	}
	b.kubectl(ctx, t, "annotate", "certificaterotation", rotationName, "kustomize.toolkit.fluxcd.io/reconcile-")
	f.reconcile(ctx, t)
	if paused := f.paused(ctx, t); paused != "false" {
		t.Errorf("with the annotation gone paused is %q; README.md says that Flux ends it", paused)
	}
}

func (f *fluxed) assertRollback(ctx context.Context, t *testing.T) {
	f.patchSpec(ctx, t, `{"rollback":{"trigger":"two"}}`)
	f.reconcile(ctx, t)
	if left := f.get(ctx, t, rotationName, "{.spec.rollback}"); left != "" {
		t.Errorf("Flux has left rollback %s, so this shows nothing", left)
	}
	f.awaitPhase(ctx, t, rotationName, "two", "RolledBack")
	f.reconcile(ctx, t)
	if roles := f.roles(ctx, t); roles["two"] != "rolled-back" || roles["one"] != "current" {
		t.Errorf("the Secrets' roles are %v", roles)
	}
	f.assertPublishes(t, "one")
}

func (f *fluxed) assertPruned(ctx context.Context, t *testing.T) {
	f.commit(ctx, t, nil)
	f.awaitGone(ctx, t, rotationName)
	if now := f.bed.kubectl(ctx, t, "get", "certificaterotations", "-o", "name"); now != "" {
		t.Errorf("there is %s", now)
	}
}
