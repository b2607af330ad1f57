package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"

	"certrotation.dev/tests/fixture"
	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/pods"
	"certrotation.dev/tests/snapshot"
	"certrotation.dev/tests/story"
	"certrotation.dev/tests/timeline"
)

const (
	systemNamespace = "certrotation-system"
	nodesNamespace  = "certrotation-nodes"
	controller      = "certrotation-controller"
	rotationName    = "cluster"
)

var lease = story.Lease{Namespace: systemNamespace, Name: controller}

// bed is a live cluster with everything that looks at it.
type bed struct {
	*fixture.Cluster
	name     string
	nodes    []nodes.Node
	observer *nodes.Observer
	recorder *story.Recorder
	book     *pods.Book
	records  []*timeline.Rotation
}

// settings from the environment.
func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func number(t *testing.T, name string, otherwise float64) float64 {
	text := setting(name, fmt.Sprint(otherwise))
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || value < 0 {
		t.Fatalf("%s is %q; it must be a number, 0 or more", name, text)
	}
	return value
}

// probeRate multiplies how often is probed.
func probeRate(t *testing.T) float64 {
	factor := number(t, "E2E_PROBE_RATE", 1)
	if factor == 0 {
		t.Fatal("E2E_PROBE_RATE is 0; without probes nothing is shown")
	}
	return factor
}

// open looks at the cluster of the environment, or skips the test when there is none.
func open(ctx context.Context, t *testing.T) *bed {
	t.Helper()
	kubeconfig, name := os.Getenv("E2E_KUBECONFIG"), os.Getenv("E2E_CLUSTER")
	if kubeconfig == "" || name == "" {
		t.Skip("E2E_KUBECONFIG and E2E_CLUSTER name no cluster; tests/e2e/run makes one and runs this")
	}
	b := &bed{name: name}
	var err error
	if b.Cluster, err = fixture.Open(ctx, kubeconfig); err != nil {
		t.Fatal(err)
	}
	if b.nodes, err = nodes.List(ctx, name); err != nil {
		t.Fatal(err)
	}
	if err := nodes.Install(ctx, b.nodes); err != nil {
		t.Fatal(err)
	}
	b.look(ctx, t)
	return b
}

// look starts the observers.
func (b *bed) look(ctx context.Context, t *testing.T) {
	t.Helper()
	var err error
	if b.observer, err = nodes.Observe(ctx, b.nodes); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.observer.Stop(); err != nil {
			t.Errorf("events of nodes are missing: %v", err)
		}
	})
	d, err := dynamic.NewForConfig(b.Live.Config())
	if err != nil {
		t.Fatal(err)
	}
	if b.recorder, err = story.Record(ctx, d, b.Client, rotationName, lease); err != nil {
		t.Fatal(err)
	}
	if b.book, err = pods.Follow(ctx, b.Client); err != nil {
		t.Fatal(err)
	}
}

// kubectl runs a command that must succeed.
func (b *bed) kubectl(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	out, err := b.Kubectl.Run(ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (b *bed) apply(ctx context.Context, t *testing.T, manifest []byte) string {
	t.Helper()
	out, err := b.Kubectl.Apply(ctx, manifest)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// populate makes what the issue asks for to be there before the run.
func (b *bed) populate(ctx context.Context, t *testing.T) {
	t.Helper()
	b.apply(ctx, t, fixture.Workloads)
	b.apply(ctx, t, fixture.Legacy)
	for _, what := range []string{"deployment/web", "deployment/frozen", "daemonset/agent", "statefulset/store"} {
		b.kubectl(ctx, t, "-n", fixture.Namespace, "rollout", "status", what, "--timeout=180s")
	}
	b.kubectl(ctx, t, "-n", fixture.NamespaceB, "rollout", "status", "deployment/web", "--timeout=180s")
	b.kubectl(ctx, t, "-n", fixture.Namespace, "wait", "--for=condition=Ready", "pod/alone", "--timeout=180s")
	b.kubectl(ctx, t, "-n", fixture.Namespace, "patch", "deployment/frozen", "-p", `{"spec":{"paused":true}}`)
	b.kubectl(ctx, t, "-n", fixture.Namespace, "wait", `--for=jsonpath={.data.token}`, "secret/legacy-token", "--timeout=60s")
	b.kubectl(ctx, t, "-n", systemNamespace, "rollout", "status", "deployment/"+controller, "--timeout=180s")
}

// snapshots describes the files of all nodes.
func (b *bed) snapshots(ctx context.Context, t *testing.T) map[string]*snapshot.Node {
	t.Helper()
	all := map[string]*snapshot.Node{}
	for _, n := range b.nodes {
		taken, err := n.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		all[n.Name] = taken
	}
	return all
}

func (b *bed) invocations(ctx context.Context, t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, n := range b.nodes {
		id, err := n.Invocation(ctx, "kubelet")
		if err != nil || id == "" {
			t.Fatalf("the kubelet on %s has no invocation id: %v", n.Name, err)
		}
		all[n.Name] = id
	}
	return all
}

func (b *bed) node(t *testing.T, name string) nodes.Node {
	t.Helper()
	for _, n := range b.nodes {
		if n.Name == name {
			return n
		}
	}
	t.Fatalf("there is no node %q", name)
	return nodes.Node{}
}

// controlPlanes are the names of the nodes with an API server.
func (b *bed) controlPlanes() []string {
	seen := map[string]bool{}
	var list []string
	for _, e := range b.observer.Events() {
		if e.What == nodes.ContainerStarted && e.Container == "kube-apiserver" && !seen[e.Node] {
			seen[e.Node] = true
			list = append(list, e.Node)
		}
	}
	return list
}

// save writes the records for the benchmark; E2E_TIMELINE names the file.
func (b *bed) save(t *testing.T) {
	path := setting("E2E_TIMELINE", filepath.Join(os.TempDir(), "certrotation-timeline.json"))
	if err := timeline.Write(path, b.records); err != nil {
		t.Errorf("the timeline could not be written: %v", err)
		return
	}
	for _, r := range b.records {
		t.Log("\n" + r.Tell())
	}
	t.Logf("timeline: %s", path)
}

// systemPods names the controller's pods.
func (b *bed) systemPods(ctx context.Context, t *testing.T) []corev1.Pod {
	t.Helper()
	list, err := b.Client.CoreV1().Pods(systemNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// within gives a context for one wait; how long is for the machine at hand, E2E_PATIENCE multiplies it.
func within(ctx context.Context, t *testing.T, length time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, time.Duration(float64(length)*number(t, "E2E_PATIENCE", 1)))
}

func lines(list []string) string { return "\n  " + strings.Join(list, "\n  ") }
