package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"certrotation.dev/tests/access"
	"certrotation.dev/tests/fixture"
	"certrotation.dev/tests/snapshot"
	"certrotation.dev/tests/story"
)

const planTrigger = "planned"

func manifest(name, trigger, mode string) []byte {
	return []byte(fmt.Sprintf("apiVersion: certrotation.dev/v1alpha1\nkind: CertificateRotation\nmetadata: {name: %s}\nspec: {trigger: %s, mode: %s}\n", name, trigger, mode))
}

func planManifest(mode string) []byte { return manifest(rotationName, planTrigger, mode) }

// TestPlan asks for a plan and holds it against what is there and against the run that follows; what the
// plan itself may change is nothing.
func TestPlan(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := open(ctx, t)
	b.populate(ctx, t)
	b.makeCopies(ctx, t)
	t.Run("what blocks a run stalls its plan", func(t *testing.T) { b.assertBlocked(ctx, t) })
	t.Run("a plan that is withdrawn leaves no node Pod", func(t *testing.T) { b.assertWithdrawn(ctx, t) })
	p := &planned{bed: b, files: b.snapshots(ctx, t), objects: b.objects(ctx, t), containers: b.containers(ctx, t), kubelets: b.invocations(ctx, t)}
	t.Run("of all three authorities", func(t *testing.T) { b.assertThree(ctx, t) })
	p.ask(ctx, t)
	t.Run("nothing has changed", func(t *testing.T) { p.assertNothingChanged(ctx, t) })
	t.Run("no node Pod was able to write", p.assertReadOnly)
	t.Run("status says so", func(t *testing.T) { p.assertStatus(ctx, t) })
	t.Run("every pod that reads the authority is counted, by owner", func(t *testing.T) { p.assertWorkloads(ctx, t) })
	t.Run("a person's part is named", p.assertByPerson)
	t.Run("what stops working is named", p.assertStopsWorking)
	t.Run("restarts and times", p.assertPhases)
	t.Run("a plan that is there is not made again", func(t *testing.T) { p.assertAgain(ctx, t) })
	t.Run("Apply with the same trigger runs, and waits for whom the plan has named", func(t *testing.T) { p.assertApply(ctx, t) })
	t.Run("a plan waits for the run that is under way", func(t *testing.T) { b.assertQueued(ctx, t) })
}

// assertBlocked: the authority's key is away for a moment.
func (b *bed) assertBlocked(ctx context.Context, t *testing.T) {
	waiting, end := within(ctx, t, 2*time.Minute)
	defer end()
	const key = "/etc/kubernetes/pki/ca.key"
	node := b.node(t, b.controlPlanes()[0])
	move := func(from, to string) {
		if _, err := node.Run(ctx, "mv", from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(key, key+".aside")
	defer move(key+".aside", key)
	b.apply(ctx, t, manifest(rotationName, "blocked", "Plan"))
	v, _, err := b.recorder.Await(waiting, 0, func(v *story.Version) bool { return v.Status.Is("Stalled") })
	if err != nil {
		t.Fatal(err)
	}
	s := &v.Status
	if s.Is("Ready") || s.Phase != "" || s.Condition("Stalled").Reason != "Blocked" || s.Plan.BlockersTotal != 1 || len(s.Plan.Phases) != 7 {
		t.Errorf("status is: %s, %+v", s.Tell(), s.Plan)
	}
	if len(s.Blockers) != 1 || s.Blockers[0].Code != "CAKeyMissing" || !strings.Contains(s.Blockers[0].Object, node.Name) {
		t.Errorf("blockers: %+v", s.Blockers)
	}
}

func (b *bed) assertWithdrawn(ctx context.Context, t *testing.T) {
	waiting, end := within(ctx, t, 2*time.Minute)
	defer end()
	b.awaitNodePods(waiting, t, 0)
	b.apply(ctx, t, manifest("withdrawn", "withdrawn", "Plan"))
	b.awaitNodePods(waiting, t, 1)
	b.kubectl(ctx, t, "delete", "certificaterotation", "withdrawn", "--timeout=20s")
	b.awaitNodePods(waiting, t, 0)
}

// assertThree: what restarts for etcd's authority, and that with several control planes somebody else answers meanwhile.
func (b *bed) assertThree(ctx context.Context, t *testing.T) {
	waiting, end := within(ctx, t, 3*time.Minute)
	defer end()
	text := strings.Replace(string(manifest(rotationName, "three", "Plan")), "mode:", "authorities: [Kubernetes, FrontProxy, Etcd], mode:", 1)
	b.apply(ctx, t, []byte(text))
	v, _, err := b.recorder.Await(waiting, 0, func(v *story.Version) bool {
		return v.Trigger == "three" && v.Status.Phase == "Planned" && v.Status.ObservedGeneration == v.Generation
	})
	if err != nil {
		t.Fatal(err)
	}
	planes := b.planesInOrder()
	drop := v.Status.Plan.Phase("DroppingOld")
	for _, component := range []string{"kube-controller-manager", "etcd", "kube-apiserver"} {
		if on := restarting(drop, component); !slices.Equal(on, planes) {
			t.Errorf("%s restarts on %v, there are %v", component, on, planes)
		}
	}
	if alone := len(planes) == 1; alone != (drop.APIAwaySeconds > 0) {
		t.Errorf("with %d control planes the API is away for %d s", len(planes), drop.APIAwaySeconds)
	}
	b.awaitNodePods(waiting, t, 0)
}

func (b *bed) planesInOrder() []string { return slices.Sorted(slices.Values(b.controlPlanes())) }

// restarting names the nodes on which a component restarts in a phase, in order.
func restarting(phase *story.PlanPhase, component string) []string {
	var list []string
	for _, r := range phase.Restarts {
		if r.Component == component {
			list = append(list, r.Nodes...)
		}
	}
	slices.Sort(list)
	return list
}

// awaitNodePods waits until there are at least so many node Pods; 0: until there is none.
func (b *bed) awaitNodePods(ctx context.Context, t *testing.T, most int) {
	t.Helper()
	for {
		list, err := b.Client.CoreV1().Pods(nodesNamespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(list.Items); n == 0 && most == 0 || most > 0 && n >= most {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d node Pods", len(list.Items))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (b *bed) assertQueued(ctx context.Context, t *testing.T) {
	waiting, end := within(ctx, t, time.Minute)
	defer end()
	b.apply(ctx, t, manifest("another", "another", "Plan"))
	b.kubectl(waiting, t, "wait", "--for=jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}=Queued", "--timeout=30s", "certificaterotation/another")
	if said := b.kubectl(waiting, t, "get", "certificaterotation/another", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].message}`); !strings.Contains(said, "the run of "+rotationName) || !strings.Contains(said, "plan") {
		t.Errorf("it says %q", said)
	}
}

// planned is one plan with what was there before it.
type planned struct {
	bed        *bed
	files      map[string]*snapshot.Node
	objects    map[string]string
	containers map[string]string
	kubelets   map[string]string
	made       story.Version
	pods       []corev1.Pod // node Pods as they were seen
}

// makeCopies makes what no run looks after: kubeconfigs and bundles elsewhere, a certificate from the CSR API, and a stranger's.
func (b *bed) makeCopies(ctx context.Context, t *testing.T) {
	t.Helper()
	published := b.Authorities.Published()
	if len(published) != 1 {
		t.Fatalf("%d authorities are published", len(published))
	}
	ca := access.PEM(published[0])
	issued, err := access.ClientCertificate(ctx, b.Client, pkix.Name{CommonName: "certrotation-test:planned"}, 2*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := func(ca []byte) []byte {
		file := filepath.Join(t.TempDir(), "kubeconfig")
		if err := access.WriteKubeconfig(file, &rest.Config{Host: "https://elsewhere:6443", BearerToken: "not-a-token", TLSClientConfig: rest.TLSClientConfig{CAData: ca}}); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	b.secret(ctx, t, "elsewhere", map[string][]byte{"value": kubeconfig(ca), "note": []byte("nothing")})
	b.secret(ctx, t, "elsewhere-client", map[string][]byte{"tls.crt": access.PEM(issued.Leaf)})
	b.secret(ctx, t, "stranger", map[string][]byte{"value": kubeconfig(strangersCA(t)), "broken": []byte("-----BEGIN CERTIFICATE-----\nnone\n")})
	bundle := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "elsewhere-bundle"}, Data: map[string]string{"bundle.pem": string(strangersCA(t)) + string(ca)}}
	if _, err := b.Client.CoreV1().ConfigMaps(fixture.NamespaceB).Create(ctx, bundle, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (b *bed) secret(ctx context.Context, t *testing.T, name string, data map[string][]byte) {
	t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}
	if _, err := b.Client.CoreV1().Secrets(fixture.Namespace).Create(ctx, s, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// strangersCA has the cluster's subject, and is another one.
func strangersCA(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	return access.PEM(issue(t, root, root, &key.PublicKey, key))
}

// objects gives resourceVersions of everything that a plan could have touched.
func (b *bed) objects(ctx context.Context, t *testing.T) map[string]string {
	t.Helper()
	kinds := "secrets,configmaps,serviceaccounts,services,deployments,daemonsets,statefulsets,replicasets,jobs,roles,rolebindings,clusterroles,clusterrolebindings,csr,namespaces"
	out := b.kubectl(ctx, t, "get", kinds, "-A", "--no-headers", "-o", "custom-columns=K:.kind,NS:.metadata.namespace,N:.metadata.name,V:.metadata.resourceVersion")
	all := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		f := strings.Fields(line)
		all[strings.Join(f[:3], "/")] = f[3]
	}
	if len(all) < 50 {
		t.Fatalf("only %d objects: %v", len(all), all)
	}
	return all
}

// containers gives the ids of each pod's containers, node Pods aside.
func (b *bed) containers(ctx context.Context, t *testing.T) map[string]string {
	t.Helper()
	list, err := b.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "metadata.namespace!=" + nodesNamespace})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, p := range list.Items {
		for _, c := range p.Status.ContainerStatuses {
			all[p.Namespace+"/"+p.Name+"/"+c.Name] = c.ContainerID
		}
	}
	return all
}

// ask applies the plan, notes the node Pods that come, and waits until it is there and they are gone.
func (p *planned) ask(ctx context.Context, t *testing.T) {
	t.Helper()
	waiting, end := within(ctx, t, 3*time.Minute)
	defer end()
	watch, err := p.bed.Client.CoreV1().Pods(nodesNamespace).Watch(waiting, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	p.bed.apply(ctx, t, planManifest("Plan"))
	p.made, _, err = p.bed.recorder.Await(waiting, 0, func(v *story.Version) bool {
		return v.Trigger == planTrigger && v.Status.Phase == "Planned" && v.Status.ObservedGeneration == v.Generation
	})
	if err != nil {
		t.Fatal(err)
	}
	say("planned after %.1f s: %s", time.Since(begun).Seconds(), p.made.Status.Plan.Summary)
	alive := map[string]bool{}
	for {
		select {
		case e := <-watch.ResultChan():
			pod, is := e.Object.(*corev1.Pod)
			if !is {
				t.Fatalf("the watch of node Pods ended: %v", e)
			}
			if alive[pod.Name] = e.Type != "DELETED"; alive[pod.Name] {
				p.pods = append(p.pods, *pod)
			} else {
				delete(alive, pod.Name)
			}
		case <-waiting.Done():
			t.Fatalf("node Pods are left: %v", slices.Collect(maps.Keys(alive)))
		}
		if len(p.pods) > 0 && len(alive) == 0 {
			watch.Stop()
			return
		}
	}
}

func (p *planned) assertNothingChanged(ctx context.Context, t *testing.T) {
	for _, d := range differences(p.objects, p.bed.objects(ctx, t)) {
		t.Error(d)
	}
	for _, d := range differences(p.containers, p.bed.containers(ctx, t)) {
		t.Error("container: " + d)
	}
	for _, d := range differences(p.kubelets, p.bed.invocations(ctx, t)) {
		t.Error("kubelet: " + d)
	}
	r := &rotation{bed: p.bed, before: p.files, after: p.bed.snapshots(ctx, t)}
	r.assertFilesAsBefore(t)
	for _, n := range p.bed.nodes {
		if out, err := n.Run(ctx, "sh", "-c", "ls -d /var/lib/certrotation /etc/kubernetes/pki/certrotation 2>/dev/null || true"); err != nil || len(out) > 0 {
			t.Errorf("%s: %s %v", n.Name, out, err)
		}
	}
}

func differences(before, after map[string]string) []string {
	var list []string
	for name, was := range before {
		if is, there := after[name]; !there || is != was {
			list = append(list, fmt.Sprintf("%s was %s, is %q", name, was, is))
		}
	}
	for name := range after {
		if _, there := before[name]; !there {
			list = append(list, name+" was not there before")
		}
	}
	return list
}

func (p *planned) assertReadOnly(t *testing.T) {
	seen := map[string]bool{}
	for i := range p.pods {
		pod := &p.pods[i]
		seen[pod.Spec.NodeName] = true
		for _, v := range pod.Spec.Volumes {
			if v.HostPath == nil || *v.HostPath.Type != corev1.HostPathDirectory {
				t.Errorf("%s: volume %s is no folder that is there: %+v", pod.Name, v.Name, v.VolumeSource)
			}
		}
		for _, c := range pod.Spec.Containers {
			for _, m := range c.VolumeMounts {
				if !m.ReadOnly {
					t.Errorf("%s: %s can be written", pod.Name, m.MountPath)
				}
			}
			if c.Args[0] != "inspect" || slices.Contains(c.SecurityContext.Capabilities.Add, "DAC_OVERRIDE") {
				t.Errorf("%s: %v with %v", pod.Name, c.Args, c.SecurityContext.Capabilities.Add)
			}
		}
	}
	if len(seen) != len(p.bed.nodes) {
		t.Errorf("node Pods were on %v only", seen)
	}
}

func (p *planned) assertStatus(ctx context.Context, t *testing.T) {
	s := &p.made.Status
	ready := s.Condition("Ready")
	if !s.Is("Ready") || ready.Reason != "Planned" || ready.ObservedGeneration != p.made.Generation {
		t.Errorf("Ready is %+v", ready)
	}
	if s.Condition("Stalled") != nil || s.Condition("Reconciling") != nil || len(s.Blockers) > 0 || s.Run.ID != "" {
		t.Errorf("at the end: %s", s.Tell())
	}
	if s.Plan.ObservedGeneration != p.made.Generation || s.Plan.Trigger != planTrigger || s.Plan.Authority != s.Authorities[0].Current.Fingerprint {
		t.Errorf("the plan is for generation %d, trigger %q, authority %s", s.Plan.ObservedGeneration, s.Plan.Trigger, s.Plan.Authority)
	}
	waiting, end := within(ctx, t, 30*time.Second)
	defer end()
	for !slices.ContainsFunc(p.bed.recorder.Events(), func(e story.Event) bool { return e.Reason == "Planned" && e.Type == "Normal" }) {
		select {
		case <-waiting.Done():
			t.Fatalf("no Event Planned among %v", p.bed.recorder.Events())
		case <-time.After(100 * time.Millisecond):
		}
	}
	if strings.Contains(p.made.Raw, "PRIVATE KEY") || strings.Contains(p.made.Raw, "not-a-token") {
		t.Error("the status holds something private")
	}
}

// readers counts, independently of the controller, the pods with a mounted kube-root-ca.crt by owner.
func (b *bed) readers(ctx context.Context, t *testing.T) map[string]int64 {
	t.Helper()
	list, err := b.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int64{}
	for i := range list.Items {
		pod := &list.Items[i]
		if pod.Namespace == systemNamespace || pod.Namespace == nodesNamespace || pod.DeletionTimestamp != nil || !mountsRoot(pod) {
			continue
		}
		all[b.owner(ctx, t, pod)]++
	}
	return all
}

func mountsRoot(pod *corev1.Pod) bool {
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ConfigMap != nil && s.ConfigMap.Name == "kube-root-ca.crt" {
				return true
			}
		}
	}
	return false
}

func (b *bed) owner(ctx context.Context, t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return "Pod/" + pod.Namespace + "/" + pod.Name
	}
	if owner.Kind == "ReplicaSet" {
		set, err := b.Client.AppsV1().ReplicaSets(pod.Namespace).Get(ctx, owner.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		owner = metav1.GetControllerOf(set)
	}
	return owner.Kind + "/" + pod.Namespace + "/" + owner.Name
}

func (p *planned) assertWorkloads(ctx context.Context, t *testing.T) {
	w := p.made.Status.Plan.Phase("RestartingWorkloads").Workloads
	said, pods := map[string]int64{}, int64(0)
	for _, o := range append(slices.Clone(w.Rolled), w.ByPerson...) {
		said[o.Name] += o.Pods
		pods += o.Pods
	}
	if is := p.bed.readers(ctx, t); !reflect.DeepEqual(said, is) {
		t.Errorf("the plan says %v, there are %v", said, is)
	}
	if pods != w.PodsTotal || w.RolledPods+w.ByPersonPods != pods || w.PodsUnlisted != 0 || int(w.RolledTotal) != len(w.Rolled) || int(w.ByPersonTotal) != len(w.ByPerson) {
		t.Errorf("totals: %+v", w)
	}
}

func (p *planned) byPerson() []string {
	var list []string
	for _, o := range p.made.Status.Plan.Phase("RestartingWorkloads").Workloads.ByPerson {
		list = append(list, o.Name)
	}
	slices.Sort(list)
	return list
}

func (p *planned) assertByPerson(t *testing.T) {
	if list := p.byPerson(); !slices.Equal(list, []string{frozen, alone}) {
		t.Errorf("a person must see to %v", list)
	}
	for _, o := range p.made.Status.Plan.Phase("RestartingWorkloads").Workloads.ByPerson {
		if o.Name == frozen && !strings.Contains(o.Reason, "paused") || o.Name == alone && !strings.Contains(o.Reason, "bare pod") {
			t.Errorf("%s: %q", o.Name, o.Reason)
		}
	}
}

func (p *planned) assertStopsWorking(t *testing.T) {
	s := p.made.Status.Plan.Phase("DroppingOld").StopsWorking
	var copies []string
	for _, c := range s.Copies {
		copies = append(copies, c.Object+" "+c.Key+" "+strings.Join(c.Holds, "+"))
		if c.Object == "Secret/"+fixture.Namespace+"/elsewhere-client" && c.Subject != "CN=certrotation-test:planned" {
			t.Errorf("the subject of %s is %q", c.Object, c.Subject)
		}
	}
	for _, wanted := range []string{
		"Secret/" + fixture.Namespace + "/elsewhere value KubeconfigTrustingOldAuthority",
		"Secret/" + fixture.Namespace + "/elsewhere-client tls.crt CertificateFromOldAuthority",
		"ConfigMap/" + fixture.NamespaceB + "/elsewhere-bundle bundle.pem OldAuthority",
	} {
		if !slices.Contains(copies, wanted) {
			t.Errorf("%q is not named in %q", wanted, copies)
		}
	}
	if len(copies) != 3 || s.CopiesTotal != 3 {
		t.Errorf("%d copies, %d listed: %q", s.CopiesTotal, len(copies), copies)
	}
	found := false
	for _, c := range s.Certificates {
		left := time.Until(c.NotAfter)
		found = found || c.Subject == "CN=certrotation-test:planned" && left > time.Hour && left < 3*time.Hour
		if strings.Contains(c.Subject, "system:node:") {
			t.Errorf("a kubelet's certificate, which a run replaces: %+v", c)
		}
	}
	if !found || s.CertificatesTotal == 0 || !strings.Contains(s.Unknown, "can't be known") {
		t.Errorf("certificates: %+v", s)
	}
}

func (p *planned) assertPhases(t *testing.T) {
	plan := &p.made.Status.Plan
	var names []string
	sum := int64(0)
	for _, phase := range plan.Phases {
		names = append(names, phase.Phase)
		sum += phase.EstimatedSeconds
		if phase.APIAwaySeconds != 0 {
			t.Errorf("%s: the API is away for %d s", phase.Phase, phase.APIAwaySeconds)
		}
	}
	if !slices.Equal(names, story.Phases[:7]) || sum != plan.EstimatedSeconds || sum < 30 || sum > 600 {
		t.Errorf("phases %v take %d s, all %d s", names, sum, plan.EstimatedSeconds)
	}
	planes, all := p.bed.planesInOrder(), slices.Sorted(maps.Keys(p.kubelets))
	for _, r := range []struct {
		phase, component string
		on               []string
	}{
		{"TrustingBoth", "kube-controller-manager", planes}, {"ReissuingLeaves", "kube-controller-manager", planes},
		{"ReissuingLeaves", "kube-scheduler", planes}, {"ReissuingLeaves", "kubelet", all}, {"DroppingOld", "kube-controller-manager", planes},
		{"DroppingOld", "kube-apiserver", nil}, {"DroppingOld", "etcd", nil},
	} {
		if on := restarting(plan.Phase(r.phase), r.component); !slices.Equal(on, r.on) {
			t.Errorf("%s: %s restarts on %v instead of %v", r.phase, r.component, on, r.on)
		}
	}
	if cuts := plan.Phase("ReissuingLeaves").SessionCuts; cuts != 2 {
		t.Errorf("sessions are cut %d times", cuts)
	}
}

// assertAgain: the same manifest, and a label that touches the object, make no pass plan anew.
func (p *planned) assertAgain(ctx context.Context, t *testing.T) {
	from := len(p.bed.recorder.Versions())
	if out := p.bed.apply(ctx, t, planManifest("Plan")); !strings.Contains(out, "unchanged") {
		t.Errorf("kubectl apply says %q", out)
	}
	p.bed.kubectl(ctx, t, "annotate", "certificaterotation", rotationName, "certrotation-test=again")
	waiting, end := within(ctx, t, 15*time.Second)
	defer end()
	if v, _, err := p.bed.recorder.Await(waiting, from, func(v *story.Version) bool { return v.Status.Plan.MadeAt != p.made.Status.Plan.MadeAt }); err == nil {
		t.Errorf("made again: %s", v.Status.Tell())
	}
	list, err := p.bed.Client.CoreV1().Pods(nodesNamespace).List(ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) > 0 {
		t.Errorf("%d node Pods: %v", len(list.Items), err)
	}
}

func (p *planned) assertApply(ctx context.Context, t *testing.T) {
	waiting, end := within(ctx, t, 10*time.Minute)
	defer end()
	begun := time.Now()
	p.bed.apply(ctx, t, planManifest("Apply"))
	v, _, err := p.bed.recorder.Await(waiting, 0, func(v *story.Version) bool { return v.Status.Run.ID != "" && v.Status.Run.Trigger == planTrigger })
	if err != nil {
		t.Fatal(err)
	}
	if v.Status.Plan.Trigger != "" || v.Status.Is("Ready") {
		t.Errorf("the run has begun: %s", v.Status.Tell())
	}
	v, _, err = p.bed.recorder.Await(waiting, 0, func(v *story.Version) bool {
		var list []string
		for _, b := range v.Status.Blockers {
			if b.Code == "Straggler" {
				list = append(list, b.Object)
			}
		}
		slices.Sort(list)
		return v.Status.Phase == "RestartingWorkloads" && v.Status.Is("Stalled") && slices.Equal(list, p.byPerson())
	})
	if err != nil {
		t.Fatal(err)
	}
	say("the run waits for a person after %.0f s; the plan says %d s until the drop", time.Since(begun).Seconds(), p.made.Status.Plan.EstimatedSeconds-p.made.Status.Plan.Phase("DroppingOld").EstimatedSeconds)
	for _, stay := range story.Stays(slices.DeleteFunc(p.bed.recorder.Versions(), func(v story.Version) bool { return v.Status.Run.Trigger != planTrigger })) {
		say("  %s %.0f s, planned %d s", stay.Phase, stay.To.Sub(stay.From).Seconds(), p.made.Status.Plan.Phase(stay.Phase).EstimatedSeconds)
	}
}
