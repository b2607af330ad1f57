package e2e

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"certrotation.dev/tests/access"
	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/snapshot"
	"certrotation.dev/tests/story"
)

const (
	adminSecret = "certrotation-admin-kubeconfig"
	credential  = "authentication.kubernetes.io/credential-id"
	byNobody    = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0" // no certificate's fingerprint
)

// TestApproval takes a run that needs a person's yes through its gate: paused on the way and at the gate,
// late by its deadline, with every yes that must not count tried before the one that does.
func TestApproval(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := open(ctx, t)
	t.Cleanup(func() { b.save(t) })
	g := &gate{rotation: b.prepare(ctx, t, setting("E2E_TRIGGER", "approved")), directory: t.TempDir(),
		oldAdmin: &access.Kubectl{Kubeconfig: os.Getenv("E2E_KUBECONFIG")}}
	g.manifest = append(g.manifest, "  approval: Manual\n  deadline: 1m\n"...)
	g.begin(ctx, t)
	t.Run("an approval that comes too early is refused", func(t *testing.T) { g.assertTooEarly(ctx, t) })
	t.Run("paused in the middle of ReissuingLeaves", func(t *testing.T) { g.pausedIn(ctx, t, "ReissuingLeaves") })
	g.awaitGate(ctx, t)
	t.Run("status says what it waits for, and how to give it", g.assertStatusAtGate)
	t.Run("the deadline is told, and that is all", func(t *testing.T) { g.assertDeadline(ctx, t) })
	t.Run("the kubeconfig in the Secret trusts both and works", func(t *testing.T) { g.assertFirstKubeconfig(ctx, t) })
	t.Run("what does not come with it does not pass", func(t *testing.T) { g.assertRefusals(ctx, t) })
	t.Run("a change that comes too late is refused or ignored, by its field", func(t *testing.T) { g.assertChanges(ctx, t) })
	g.approve(ctx, t)
	g.finish(ctx, t, 10*time.Minute)
	t.Run("the same kubeconfig, then without the old authority", func(t *testing.T) { g.assertLastKubeconfig(ctx, t) })
	t.Run("no probe fails before DroppingOld begins", g.assertNoFailureBeforeDrop)
	t.Run("new trust with new credentials and tokens never fails", g.assertNewNeverFails)
	t.Run("after the end old certificates get 401", g.assertOldCertificatesRefused)
	t.Run("nothing on a node is issued by or trusts the old authority", g.assertNoTraces)
	t.Run("no node Pod is left", func(t *testing.T) { g.assertNoNodePods(ctx, t) })
	t.Run("phases come in their order, each once", g.assertPhases)
	t.Run("kubectl wait returns at the end and not before", g.assertWait)
}

// gate is a run with manual approval.
type gate struct {
	*rotation
	oldAdmin, newAdmin *access.Kubectl // the administrator's kubeconfig of before the run, and the one from the Secret
	client             *x509.Certificate
	directory          string
}

func (g *gate) patch(spec string) []string {
	return []string{"patch", "certificaterotation", rotationName, "--type=merge", "-p", `{"spec":` + spec + `}`}
}

// approval is the patch of a yes; without a fingerprint when that is "".
func (g *gate) approval(trigger, phase, fingerprint string) []string {
	named := ""
	if fingerprint != "" {
		named = fmt.Sprintf(`,"clientCertificateFingerprint":%q`, fingerprint)
	}
	return g.patch(fmt.Sprintf(`{"approve":{"trigger":%q,"phase":%q%s}}`, trigger, phase, named))
}

func (g *gate) set(ctx context.Context, t *testing.T, spec string) {
	t.Helper()
	g.bed.kubectl(ctx, t, g.patch(spec)...)
}

// refuses: the API server refuses the command and says all of that.
func refuses(ctx context.Context, t *testing.T, kubectl *access.Kubectl, args []string, says ...string) {
	t.Helper()
	_, err := kubectl.Run(ctx, args...)
	if err == nil {
		t.Errorf("taken: %s", strings.Join(args, " "))
		return
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("refused without %q: %v", text, err)
		}
	}
}

// last is the status as it is now.
func (g *gate) last() *story.Status {
	versions := g.bed.recorder.Versions()
	return &versions[len(versions)-1].Status
}

// says waits until a condition of a later version has that in its message.
func (g *gate) says(ctx context.Context, t *testing.T, after time.Time, condition, text string) {
	t.Helper()
	waiting, end := within(ctx, t, 30*time.Second)
	defer end()
	if _, err := g.await(waiting, fmt.Sprintf("%s to say %q", condition, text), func(v *story.Version) bool {
		c := v.Status.Condition(condition)
		return v.At.After(after) && c != nil && strings.Contains(c.Message, text)
	}); err != nil {
		t.Fatalf("%v; now: %s", err, g.last().Tell())
	}
}

// holds looks for a while: nothing is dropped.
func (g *gate) holds(ctx context.Context, t *testing.T, length time.Duration) {
	t.Helper()
	from := len(g.bed.recorder.Versions()) - 1
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(length); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		case <-ticker.C:
		}
		if g.assertNotDropped(t, from, nil); t.Failed() {
			return
		}
	}
}

// taken: the API server takes it, and it does not count: status says why, and nothing is dropped.
func (g *gate) taken(ctx context.Context, t *testing.T, args []string, says string) {
	t.Helper()
	before := time.Now()
	g.bed.kubectl(ctx, t, args...)
	g.says(ctx, t, before, "Ready", says)
	g.holds(ctx, t, 4*time.Second)
	g.set(ctx, t, `{"approve":null}`)
}

func (g *gate) assertTooEarly(ctx context.Context, t *testing.T) {
	refuses(ctx, t, g.oldAdmin, g.approval(g.trigger, "DroppingOld", ""), "spec.approve comes too early")
}

// pausedIn: what runs on a node is finished; then nothing changes on any node, and nobody is refused, until
// the pause ends.
func (g *gate) pausedIn(ctx context.Context, t *testing.T, phase string) {
	waiting, end := within(ctx, t, 5*time.Minute)
	defer end()
	if _, err := g.await(waiting, phase, func(v *story.Version) bool { return g.inRun(v) && v.Status.Phase == phase }); err != nil {
		t.Fatal(err)
	}
	asked := time.Now()
	g.set(ctx, t, `{"paused":true}`)
	g.says(ctx, t, asked, "Ready", "spec.paused to be false")
	finished := g.awaitNodePodsEnded(waiting, t)
	quiet := time.Now()
	g.holds(ctx, t, 10*time.Second)
	if begun := g.awaitNodePodsEnded(waiting, t); !slices.Equal(begun, finished) {
		t.Errorf("node Pods while paused: %v, after %v", begun, finished)
	}
	changed := g.bed.observer.Select(func(e *nodes.Event) bool {
		return e.What == nodes.FileChanged && !e.Already && e.At.After(quiet.Add(time.Second)) && strings.HasPrefix(e.Path, "/etc/kubernetes/")
	})
	for _, e := range changed {
		t.Errorf("on %s %s changed at %s, while paused since %s", e.Node, e.Path, e.At.Format("15:04:05.000"), quiet.Format("15:04:05.000"))
	}
	if now := g.last(); now.Phase != phase {
		t.Errorf("paused in %s, and now: %s", phase, now.Tell())
	}
	g.set(ctx, t, `{"paused":false}`)
}

// awaitNodePodsEnded waits until no node Pod runs, and names those that there are; each must have done its work.
func (g *gate) awaitNodePodsEnded(ctx context.Context, t *testing.T) []string {
	t.Helper()
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for {
		list, err := g.bed.Client.CoreV1().Pods(nodesNamespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var ended []string
		for _, p := range list.Items {
			if p.Status.Phase == corev1.PodSucceeded {
				ended = append(ended, string(p.UID))
			} else if p.Status.Phase == corev1.PodFailed {
				t.Errorf("node Pod %s failed: %s", p.Name, p.Status.Message)
			}
		}
		if len(ended) == len(list.Items) || t.Failed() {
			slices.Sort(ended)
			return ended
		}
		select {
		case <-ctx.Done():
			t.Fatalf("of %d node Pods %d have ended", len(list.Items), len(ended))
		case <-ticker.C:
		}
	}
}

func (g *gate) awaitGate(ctx context.Context, t *testing.T) {
	t.Helper()
	waiting, end := within(ctx, t, 10*time.Minute)
	defer end()
	if _, err := g.await(waiting, "AwaitingApproval", func(v *story.Version) bool {
		stalled := v.Status.Condition("Stalled")
		return g.inRun(v) && v.Status.Phase == "AwaitingApproval" && stalled != nil && stalled.Reason == "AwaitingApproval"
	}); err != nil {
		g.collect(ctx, t)
		t.Fatal(err)
	}
	g.take(ctx, t)
}

// take gets the kubeconfig from its Secret as a person would; the address in it is that of inside of Docker's network.
func (g *gate) take(ctx context.Context, t *testing.T) []string {
	t.Helper()
	secret, err := g.bed.Client.CoreV1().Secrets(systemNamespace).Get(ctx, adminSecret, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.Load(secret.Data["value"])
	if err != nil {
		t.Fatal(err)
	}
	if len(config.Clusters) != 1 || len(config.AuthInfos) != 1 {
		t.Fatalf("the kubeconfig has %d clusters and %d users", len(config.Clusters), len(config.AuthInfos))
	}
	var trusts []string
	for _, c := range config.Clusters {
		c.Server = g.bed.Live.Server
		authorities, err := access.Certificates(c.CertificateAuthorityData)
		if err != nil {
			t.Fatal(err)
		}
		for _, authority := range authorities {
			trusts = append(trusts, snapshot.Fingerprint(authority))
		}
	}
	for _, user := range config.AuthInfos {
		chain, err := access.Certificates(user.ClientCertificateData)
		if err != nil || len(chain) != 1 {
			t.Fatalf("the client certificate: %d certificates, %v", len(chain), err)
		}
		g.client = chain[0]
	}
	file := fmt.Sprintf("%s/%d.kubeconfig", g.directory, len(trusts))
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	g.newAdmin = &access.Kubectl{Kubeconfig: file}
	return trusts
}

func (g *gate) assertStatusAtGate(t *testing.T) {
	s := g.last()
	admin := s.AdminKubeconfig
	if admin.SecretRef.Namespace != systemNamespace || admin.SecretRef.Name != adminSecret {
		t.Errorf("status names the Secret %s/%s", admin.SecretRef.Namespace, admin.SecretRef.Name)
	}
	if admin.ClientCertificateFingerprint != snapshot.Fingerprint(g.client) {
		t.Errorf("status has fingerprint %s, the certificate in the Secret %s", admin.ClientCertificateFingerprint, snapshot.Fingerprint(g.client))
	}
	if want := []string{snapshot.Fingerprint(g.rotation.old()), snapshot.Fingerprint(g.rotation.new(t))}; !slices.Equal(admin.Authorities, want) {
		t.Errorf("status has authorities %v, expected %v", admin.Authorities, want)
	}
	for _, text := range []string{"kubectl get secret -n " + systemNamespace + " " + adminSecret, `"approve":{"trigger":"` + g.trigger + `","phase":"DroppingOld"}`} {
		if !strings.Contains(s.NextStep, text) {
			t.Errorf("nextStep is %q, without %q", s.NextStep, text)
		}
	}
	if ready := s.Condition("Ready"); ready == nil || !strings.Contains(ready.Message, "your approval, with the administrator's new kubeconfig") {
		t.Errorf("at the gate: %s", s.Tell())
	}
}

func (g *gate) assertDeadline(ctx context.Context, t *testing.T) {
	s := g.last()
	if got := s.Run.Deadline.Sub(s.Run.Started); got != time.Minute {
		t.Errorf("the deadline is %s after the start", got)
	}
	passed := s.Condition("DeadlineExceeded")
	if passed == nil || passed.Status != metav1.ConditionTrue || !strings.Contains(passed.Message, "your approval") {
		t.Fatalf("at the gate, after the deadline: %s", s.Tell())
	}
	if at := passed.LastTransitionTime.Time; at.Before(s.Run.Deadline) || at.After(s.Run.Deadline.Add(15*time.Second)) {
		t.Errorf("the deadline was %s, told at %s", s.Run.Deadline, at)
	}
	told := 0
	for _, e := range g.bed.recorder.Events() {
		if e.At.After(g.applied) && e.Reason == "DeadlineExceeded" {
			told++
			if e.Type != corev1.EventTypeWarning {
				t.Errorf("the Event is of type %s", e.Type)
			}
		}
	}
	if told != 1 {
		t.Errorf("%d Events tell of the deadline", told)
	}
	if !g.metric(ctx, t, "certrotation_deadline_exceeded 1") {
		t.Error("no replica has certrotation_deadline_exceeded 1")
	}
	g.holds(ctx, t, 4*time.Second)
}

// metric reports whether a replica has that line; the one that leads would.
func (g *gate) metric(ctx context.Context, t *testing.T, line string) bool {
	t.Helper()
	read := 0
	for _, pod := range g.bed.systemPods(ctx, t) {
		out, err := g.bed.Kubectl.Run(ctx, "get", "--raw", "/api/v1/namespaces/"+systemNamespace+"/pods/"+pod.Name+":8080/proxy/metrics")
		if err == nil && strings.Contains(out, "\n"+line+"\n") {
			return true
		}
		if err == nil {
			read++
		}
	}
	if read == 0 {
		t.Errorf("no replica's metrics could be read")
	}
	return false
}

func (g *gate) assertFirstKubeconfig(ctx context.Context, t *testing.T) {
	trusts := g.take(ctx, t)
	if want := []string{snapshot.Fingerprint(g.rotation.old()), snapshot.Fingerprint(g.rotation.new(t))}; !slices.Equal(trusts, want) {
		t.Errorf("it trusts %v, expected %v", trusts, want)
	}
	if err := g.client.CheckSignatureFrom(g.rotation.new(t)); err != nil {
		t.Errorf("its client certificate is not from the new authority: %v", err)
	}
	g.assertWorks(ctx, t, g.newAdmin)
}

// assertWorks: it reads, and the API server says that it comes with the certificate that status names.
func (g *gate) assertWorks(ctx context.Context, t *testing.T, kubectl *access.Kubectl) {
	t.Helper()
	if _, err := kubectl.Run(ctx, "get", "nodes"); err != nil {
		t.Error(err)
	}
	out, err := kubectl.Run(ctx, "auth", "whoami", "-o", "json")
	if want := "X509SHA256=" + g.last().AdminKubeconfig.ClientCertificateFingerprint; err != nil || !strings.Contains(out, credential) || !strings.Contains(out, want) {
		t.Errorf("the API server does not say %s: %v %s", want, err, out)
	}
}

func (g *gate) assertRefusals(ctx context.Context, t *testing.T) {
	fingerprint := snapshot.Fingerprint(g.client)
	secret := "kubectl get secret -n " + systemNamespace + " " + adminSecret
	t.Run("the old kubeconfig", func(t *testing.T) {
		refuses(ctx, t, g.oldAdmin, g.approval(g.trigger, "DroppingOld", ""), "certrotation-approvals", "new kubeconfig", secret)
	})
	t.Run("the old kubeconfig that names the new one", func(t *testing.T) {
		refuses(ctx, t, g.oldAdmin, g.approval(g.trigger, "DroppingOld", fingerprint), "certrotation-approvals", "another one", secret)
	})
	t.Run("a token that names nothing", func(t *testing.T) {
		refuses(ctx, t, g.bed.Kubectl, g.approval(g.trigger, "DroppingOld", ""), "certrotation-approvals", "clientCertificateFingerprint", secret)
	})
	t.Run("another phase", func(t *testing.T) {
		refuses(ctx, t, g.newAdmin, g.approval(g.trigger, "RestartingWorkloads", ""), "spec.approve.phase")
	})
	t.Run("another run", func(t *testing.T) {
		refuses(ctx, t, g.newAdmin, g.approval("another", "DroppingOld", ""), "the run under way is '"+g.trigger+"'")
	})
	t.Run("a new object", func(t *testing.T) {
		manifest := fmt.Sprintf("apiVersion: certrotation.dev/v1alpha1\nkind: CertificateRotation\nmetadata: {name: second}\nspec:\n  trigger: %q\n  approve: {trigger: %q, phase: DroppingOld}\n", g.trigger, g.trigger)
		if _, err := g.newAdmin.Apply(ctx, []byte(manifest)); err == nil || !strings.Contains(err.Error(), "comes too early") {
			t.Errorf("taken, or refused otherwise: %v", err)
		}
	})
	t.Run("another run, by a token that names the new one", func(t *testing.T) {
		g.taken(ctx, t, g.approval("another", "DroppingOld", fingerprint), "it is for another run or phase")
	})
	t.Run("a token that names another certificate", func(t *testing.T) {
		g.taken(ctx, t, g.approval(g.trigger, "DroppingOld", byNobody), "is not that of the new kubeconfig")
	})
	t.Run("without the admission policy", func(t *testing.T) { g.assertWithoutPolicy(ctx, t) })
}

// assertWithoutPolicy: with a binding that denies nothing anybody can set it, and the controller counts it as nothing.
func (g *gate) assertWithoutPolicy(ctx context.Context, t *testing.T) {
	lets := func(action string) {
		g.bed.kubectl(ctx, t, "patch", "validatingadmissionpolicybinding", "certrotation-approvals", "--type=merge", "-p",
			fmt.Sprintf(`{"spec":{"validationActions":[%q]}}`, action))
	}
	lets("Audit")
	defer func() {
		g.set(ctx, t, `{"approve":null}`)
		lets("Deny")
		g.awaitPolicy(ctx, t)
	}()
	waiting, end := within(ctx, t, 30*time.Second)
	defer end()
	before := time.Now()
	for {
		if _, err := g.oldAdmin.Run(ctx, g.approval(g.trigger, "DroppingOld", "")...); err == nil {
			break
		} else if waiting.Err() != nil {
			t.Fatalf("refused, with a binding that denies nothing: %v", err)
		}
	}
	g.says(ctx, t, before, "Ready", "ValidatingAdmissionPolicy certrotation-approvals or its binding is not in force")
	g.holds(ctx, t, 4*time.Second)
}

// awaitPolicy waits until the API server refuses again what it should.
func (g *gate) awaitPolicy(ctx context.Context, t *testing.T) {
	t.Helper()
	waiting, end := within(ctx, t, 30*time.Second)
	defer end()
	for {
		if _, err := g.oldAdmin.Run(ctx, append(g.approval(g.trigger, "DroppingOld", ""), "--dry-run=server")...); err != nil {
			return
		}
		if waiting.Err() != nil {
			t.Fatal("the policy is back, and refuses nothing")
		}
	}
}

func (g *gate) assertChanges(ctx context.Context, t *testing.T) {
	refuses(ctx, t, g.newAdmin, g.patch(`{"newAuthority":{"keyAlgorithm":"ECDSA-P384"}}`), "spec.newAuthority", g.trigger, "AwaitingApproval")
	refuses(ctx, t, g.newAdmin, g.patch(`{"leaves":{"validityPeriod":"48h"}}`), "spec.leaves", g.trigger, "AwaitingApproval")
	before := time.Now()
	g.set(ctx, t, `{"approval":"Automatic"}`)
	g.says(ctx, t, before, "ChangeIgnored", "spec.approval changed while the run is under way, and is ignored")
	g.holds(ctx, t, 4*time.Second)
	g.set(ctx, t, `{"approval":"Manual"}`)
	waiting, end := within(ctx, t, 30*time.Second)
	defer end()
	back := time.Now()
	if _, err := g.await(waiting, "ChangeIgnored to go", func(v *story.Version) bool {
		return v.At.After(back) && v.Status.Condition("ChangeIgnored") == nil
	}); err != nil {
		t.Fatal(err)
	}
}

// approve says yes with the new kubeconfig while the run is paused: it is kept, and nothing comes of it until the pause ends.
func (g *gate) approve(ctx context.Context, t *testing.T) {
	t.Helper()
	asked := time.Now()
	g.set(ctx, t, `{"paused":true}`)
	g.says(ctx, t, asked, "Ready", "spec.paused to be false")
	if _, err := g.newAdmin.Run(ctx, g.approval(g.trigger, "DroppingOld", "")...); err != nil {
		t.Fatal(err)
	}
	g.awaitLatched(ctx, t)
	t.Run("an approval while paused is kept and not acted upon", func(t *testing.T) { g.holds(ctx, t, 5*time.Second) })
	g.set(ctx, t, `{"approve":null,"paused":false}`) // as a tool would that does not know of it
}

func (g *gate) awaitLatched(ctx context.Context, t *testing.T) {
	t.Helper()
	waiting, end := within(ctx, t, 30*time.Second)
	defer end()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		list, err := g.bed.Client.CoreV1().Secrets(nodesNamespace).List(waiting, metav1.ListOptions{LabelSelector: "certrotation.dev/role=next"})
		if err != nil || len(list.Items) != 1 {
			t.Fatalf("%d runs are under way: %v", len(list.Items), err)
		}
		if list.Items[0].Annotations["certrotation.dev/approved"] == "DroppingOld" {
			return
		}
		select {
		case <-waiting.Done():
			t.Fatalf("the approval is not kept: %s", g.last().Tell())
		case <-ticker.C:
		}
	}
}

func (g *gate) assertLastKubeconfig(ctx context.Context, t *testing.T) {
	g.assertWorks(ctx, t, g.newAdmin) // the copy that was taken at the gate
	before := g.client
	trusts := g.take(ctx, t)
	want := []string{snapshot.Fingerprint(g.rotation.new(t))}
	if !slices.Equal(trusts, want) {
		t.Errorf("it trusts %v, expected %v", trusts, want)
	}
	if !g.client.Equal(before) {
		t.Errorf("its client certificate is %s, was %s", snapshot.Fingerprint(g.client), snapshot.Fingerprint(before))
	}
	g.assertWorks(ctx, t, g.newAdmin)
	s := g.last()
	if !slices.Equal(s.AdminKubeconfig.Authorities, want) || s.AdminKubeconfig.ClientCertificateFingerprint != snapshot.Fingerprint(before) {
		t.Errorf("status has %+v", s.AdminKubeconfig)
	}
	if ready := s.Condition("Ready"); ready == nil || !strings.Contains(ready.Message, systemNamespace+"/"+adminSecret) {
		t.Errorf("at the end: %s", s.Tell())
	}
	if s.Condition("DeadlineExceeded") != nil {
		t.Errorf("after the end: %s", s.Tell())
	}
	if g.metric(ctx, t, "certrotation_deadline_exceeded 1") {
		t.Error("after the end a replica has certrotation_deadline_exceeded 1")
	}
}
