package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"certrotation.dev/tests/access"
	"certrotation.dev/tests/fixture"
	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/probe"
	"certrotation.dev/tests/snapshot"
)

// TestFaultsAreNoticed holds probes and observers against faults that it provokes: what can't fail shows
// nothing. It needs a cluster of its own (E2E_FAULTS=1), but no controller.
func TestFaultsAreNoticed(t *testing.T) {
	if os.Getenv("E2E_FAULTS") != "1" {
		t.Skip("E2E_FAULTS is not 1")
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := openQuietly(ctx, t)
	b.apply(ctx, t, fixture.Workloads)
	r := &rotation{bed: b, authorities: []string{kubernetesAuthority}, accepted: map[string]bool{}, applied: time.Now()}
	r.before, r.invocationsBefore = b.snapshots(ctx, t), b.invocations(ctx, t)
	var err error
	if r.keys, err = b.Keyring(ctx, func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	r.probe(ctx, t)
	plane := b.node(t, b.controlPlanes()[0])
	t.Run("quiet before", func(t *testing.T) { r.assertQuiet(t) })
	t.Run("a server certificate of another authority", func(t *testing.T) { r.swapServerCertificate(ctx, t, plane) })
	t.Run("a client authority that is not ours", func(t *testing.T) { r.swapClientAuthority(ctx, t, plane) })
	t.Run("a container that is killed", func(t *testing.T) { r.killContainer(ctx, t, plane) })
	t.Run("a kubelet that restarts", func(t *testing.T) { r.restartKubelet(ctx, t, plane) })
	t.Run("a file whose mode changed, one too many, one of the old authority", func(t *testing.T) { r.changeFiles(ctx, t, plane) })
	t.Run("a workload that can't reach the API", func(t *testing.T) { r.stopServer(ctx, t, plane) })
	r.stop()
	t.Log("\n" + probe.Table(probe.Summarize(r.attempts())) + probe.SessionTable(r.sessions.Done()))
	for _, c := range r.cuts() {
		t.Logf("%s: %s", r.cause(c), c)
	}
}

// openQuietly is open for a cluster without the CustomResourceDefinition.
func openQuietly(ctx context.Context, t *testing.T) *bed {
	t.Helper()
	kubeconfig := os.Getenv("E2E_KUBECONFIG")
	kubectl := &access.Kubectl{Kubeconfig: kubeconfig}
	if _, err := kubectl.Run(ctx, "apply", "-f", "../../crd/certificaterotation.yaml"); err != nil {
		t.Fatal(err)
	}
	if _, err := kubectl.Run(ctx, "wait", "--for=condition=Established", "crd/certificaterotations.certrotation.dev", "--timeout=30s"); err != nil {
		t.Fatal(err)
	}
	return open(ctx, t)
}

func (r *rotation) assertQuiet(t *testing.T) {
	if failed := probe.Failed(r.attempts()); len(failed) > 0 {
		t.Error(probe.Tell(failed))
	}
	if cuts := r.cuts(); len(cuts) > 0 {
		t.Error(cuts)
	}
}

// otherwise makes a certificate like the one given, from an authority that nobody knows, and puts it and
// the authority on the node.
func (r *rotation) otherwise(ctx context.Context, t *testing.T, n nodes.Node, path string) (leaf, authority string) {
	t.Helper()
	text, err := n.Run(ctx, "cat", path)
	if err != nil {
		t.Fatal(err)
	}
	like, err := access.Certificates(text)
	if err != nil || len(like) == 0 {
		t.Fatalf("%s: %v", path, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a stranger"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	made := issue(t, root, root, &key.PublicKey, key)
	issued := *like[0]
	issued.SerialNumber = big.NewInt(2)
	return r.put(ctx, t, n, "leaf.crt", issue(t, &issued, made, like[0].PublicKey, key)), r.put(ctx, t, n, "authority.crt", made)
}

func issue(t *testing.T, template, parent *x509.Certificate, public any, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template.SignatureAlgorithm = x509.ECDSAWithSHA256
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (r *rotation) put(ctx context.Context, t *testing.T, n nodes.Node, name string, c *x509.Certificate) string {
	t.Helper()
	path := "/root/certrotation-test-" + name
	if err := n.Write(ctx, path, access.PEM(c)); err != nil {
		t.Fatal(err)
	}
	return path
}

// failedSince waits until there are failures after a moment and none any more for two seconds.
func (r *rotation) failedSince(t *testing.T, since time.Time) []probe.Attempt {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		failed := probe.Filter(r.attempts(), func(a *probe.Attempt) bool { return a.Kind != probe.Served && a.Started.After(since) })
		if n := len(failed); n > 0 && time.Since(failed[n-1].Ended()) > 2*time.Second {
			return failed
		}
	}
	t.Fatal("the probes noticed nothing, or go on failing")
	return nil
}

// swapUntil exchanges two files until the fault is seen on the node and by half a second of probes.
func (r *rotation) swapUntil(ctx context.Context, t *testing.T, n nodes.Node, file, other string, seen func(*nodes.Event) bool) []probe.Attempt {
	t.Helper()
	waiting, end := within(ctx, t, time.Minute)
	defer end()
	since := time.Now()
	if err := n.Swap(ctx, file, other); err != nil {
		t.Fatal(err)
	}
	_, noticed := r.bed.observer.Await(waiting, func(e *nodes.Event) bool { return e.Node == n.Name && e.At.After(since) && seen(e) })
	time.Sleep(500 * time.Millisecond)
	if err := n.Swap(ctx, file, other); err != nil {
		t.Fatal(err)
	}
	if noticed != nil {
		t.Errorf("the observer on the node did not see it: %v", noticed)
	}
	failed := r.failedSince(t, since)
	t.Logf("noticed by %s", probe.Tell(failed))
	return failed
}

func (r *rotation) swapServerCertificate(ctx context.Context, t *testing.T, n nodes.Node) {
	leaf, _ := r.otherwise(ctx, t, n, "/etc/kubernetes/pki/apiserver.crt")
	failed := r.swapUntil(ctx, t, n, "/etc/kubernetes/pki/apiserver.crt", leaf, func(e *nodes.Event) bool {
		return e.What == nodes.Presents && e.Certificates[0].Issuer == "CN=a stranger"
	})
	for _, a := range failed {
		if a.Kind != probe.Untrusted || !strings.Contains(a.Server, "a stranger") {
			t.Errorf("expected is an untrusted server of a stranger: %s", probe.Tell([]probe.Attempt{a}))
		}
	}
}

func (r *rotation) swapClientAuthority(ctx context.Context, t *testing.T, n nodes.Node) {
	_, authority := r.otherwise(ctx, t, n, "/etc/kubernetes/pki/apiserver.crt")
	failed := r.swapUntil(ctx, t, n, "/etc/kubernetes/pki/ca.crt", authority, func(e *nodes.Event) bool {
		return e.What == nodes.Accepts && strings.HasSuffix(e.Path, ":6443") && slices.Contains(e.Names, "CN=a stranger")
	})
	for _, a := range failed {
		if a.Kind != probe.Unauthorized || a.Cell.Credential != probe.OldCertificate {
			t.Errorf("expected is a 401 for a certificate: %s", probe.Tell([]probe.Attempt{a}))
		}
	}
}

func (r *rotation) killContainer(ctx context.Context, t *testing.T, n nodes.Node) {
	since := time.Now()
	var victim nodes.Event
	for _, e := range r.bed.observer.Events() {
		if e.What == nodes.ContainerStarted && e.Node == n.Name && e.Container == "kube-scheduler" {
			victim = e
		}
	}
	if err := n.Kill(ctx, victim.ID, "KILL"); err != nil {
		t.Fatal(err)
	}
	waiting, end := within(ctx, t, time.Minute)
	defer end()
	if _, err := r.bed.observer.Await(waiting, func(e *nodes.Event) bool {
		return e.What == nodes.ContainerStarted && e.Container == "kube-scheduler" && e.At.After(since)
	}); err != nil {
		t.Fatal(err)
	}
	r.settled = time.Now()
	seen := r.restarts(func(x *nodes.Restart) bool { return x.Static("kube-scheduler") })
	if len(seen) != 1 || seen[0].ID == victim.ID {
		t.Errorf("counted: %s", nodes.TellRestarts(seen))
	}
}

func (r *rotation) restartKubelet(ctx context.Context, t *testing.T, n nodes.Node) {
	since := time.Now()
	if _, err := n.Run(ctx, "systemctl", "restart", "kubelet"); err != nil {
		t.Fatal(err)
	}
	waiting, end := within(ctx, t, time.Minute)
	defer end()
	if _, err := r.bed.observer.Await(waiting, func(e *nodes.Event) bool { return e.What == nodes.ProcessStarted && e.At.After(since) }); err != nil {
		t.Fatal(err)
	}
	for len(r.cuts()) < 2 && waiting.Err() == nil {
		time.Sleep(100 * time.Millisecond)
	}
	r.settled = time.Now()
	if seen := r.restarts(func(x *nodes.Restart) bool { return x.Kubelet() }); len(seen) != 1 {
		t.Errorf("counted: %s", nodes.TellRestarts(seen))
	}
	if now := r.bed.invocations(ctx, t); now[n.Name] == r.invocationsBefore[n.Name] {
		t.Error("systemd's invocation is the same as before")
	}
	for _, cut := range r.cuts() {
		if r.cause(cut) != "the kubelet's restart" {
			t.Errorf("not explained by the kubelet's restart: %s", cut)
		}
	}
}

func (r *rotation) changeFiles(ctx context.Context, t *testing.T, n nodes.Node) {
	commands := []string{"chmod 0640 /etc/kubernetes/admin.conf", "cp /etc/kubernetes/pki/ca.crt /etc/kubernetes/left-over.crt",
		"cp -p /etc/kubernetes/manifests/etcd.yaml /root/etcd.yaml && echo '# a comment' >> /etc/kubernetes/scheduler.conf"}
	for _, c := range commands {
		if _, err := n.Run(ctx, "sh", "-c", c); err != nil {
			t.Fatal(err)
		}
	}
	after := r.bed.snapshots(ctx, t)
	restore := "chmod 0600 /etc/kubernetes/admin.conf; rm /etc/kubernetes/left-over.crt; sed -i '$d' /etc/kubernetes/scheduler.conf"
	if _, err := n.Run(ctx, "sh", "-c", restore); err != nil {
		t.Fatal(err)
	}
	var shape []string
	for _, d := range snapshot.Shape(r.before[n.Name], after[n.Name]) {
		shape = append(shape, d.String())
	}
	want := []string{"/etc/kubernetes/admin.conf: mode was 0600, is 0640", "/etc/kubernetes/left-over.crt: was not there before"}
	if !slices.Equal(shape, want) {
		t.Errorf("seen %v, expected %v", shape, want)
	}
	content := snapshot.Content(r.before[n.Name], after[n.Name], func(name string) bool { return strings.HasPrefix(name, "/etc/kubernetes/") })
	if len(content) != 1 || content[0].Path != "/etc/kubernetes/scheduler.conf" {
		t.Errorf("content: %v", content)
	}
	traces := after[n.Name].Traces(snapshot.Of(r.old()))
	for _, place := range []string{"/etc/kubernetes/left-over.crt", "/etc/kubernetes/admin.conf", "/etc/kubernetes/kubelet.conf", "/etc/kubernetes/pki/apiserver.crt",
		"/etc/kubernetes/pki/ca.key", "/var/lib/kubelet/pki/kubelet-client-current.pem"} {
		if !slices.ContainsFunc(traces, func(x snapshot.Trace) bool { return x.Path == place }) {
			t.Errorf("no trace of the authority was found in %s", place)
		}
	}
	for _, x := range traces {
		if strings.Contains(x.Path, "front-proxy") || strings.Contains(x.Path, "etcd") {
			t.Errorf("another authority's: %s", x)
		}
	}
	t.Logf("%d traces, %d in pods' volumes", len(traces), len(slices.DeleteFunc(traces, func(x snapshot.Trace) bool { return !strings.HasPrefix(x.Path, "/var/lib/kubelet/pods/") })))
	if again := snapshot.Shape(r.before[n.Name], r.bed.snapshots(ctx, t)[n.Name]); len(again) > 0 {
		t.Errorf("not restored: %v", again)
	}
}

// stopServer kills the API server; it is away for some seconds.
func (r *rotation) stopServer(ctx context.Context, t *testing.T, n nodes.Node) {
	for _, what := range []string{"deployment/web", "daemonset/agent", "statefulset/store", "deployment/frozen"} {
		r.bed.kubectl(ctx, t, "-n", fixture.Namespace, "rollout", "status", what, "--timeout=180s")
	}
	var victim nodes.Event
	for _, e := range r.bed.observer.Events() {
		if e.What == nodes.ContainerStarted && e.Node == n.Name && e.Container == "kube-apiserver" {
			victim = e
		}
	}
	since := time.Now()
	if err := n.Kill(ctx, victim.ID, "KILL"); err != nil {
		t.Fatal(err)
	}
	failed := r.failedSince(t, since)
	t.Logf("noticed by %s", probe.Tell(failed))
	counting := 0
	var last error
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && counting == 0; time.Sleep(time.Second) {
		for _, p := range r.bed.book.Pods() {
			list, err := r.bed.book.Counts(ctx, p)
			if err != nil {
				last = err // the API server is on its way back
			}
			for _, c := range list {
				counting += c.Failures
			}
		}
	}
	if counting == 0 {
		t.Errorf("no pod of the workload counted a failure; the last count that could not be read: %v", last)
	}
	t.Logf("the workload's pods counted %d failures", counting)
	if len(r.watch.Breaks()) == 0 {
		t.Error("the open watch did not notice")
	}
}
