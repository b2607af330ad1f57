package faults

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/dynamic"
	"k8s.io/klog/v2"

	"certrotation.dev/tests/fixture"
	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/pods"
	"certrotation.dev/tests/story"
)

const (
	systemNamespace = "certrotation-system"
	nodesNamespace  = "certrotation-nodes"
	controller      = "certrotation-controller"
	rotationName    = "cluster"
)

//go:embed workloads.yaml
var workloads []byte

// client-go's own log tells of each connection that ends.
func TestMain(m *testing.M) {
	klog.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// say prints at once, for whoever watches a run; the verdict does not depend on it.
func say(format string, args ...any) {
	fmt.Printf("%s  %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

// bed is a live cluster whose controller goes through the proxy, and everything that looks at it.
type bed struct {
	*fixture.Cluster
	name     string
	nodes    []nodes.Node
	observer *nodes.Observer
	recorder *story.Recorder
	book     *pods.Book
	diary    *diary
	proxy    *record
	quiet    *rotation // the one that nothing disturbed
	runs     int
	table    string
}

// number reads a setting.
func number(t *testing.T, name string, otherwise int64) int64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("%s is %q; it must be a whole number", name, text)
	}
	return value
}

// open looks at the cluster of the environment, or skips the test when there is none.
func open(ctx context.Context, t *testing.T) *bed {
	t.Helper()
	kubeconfig, name := os.Getenv("E2E_KUBECONFIG"), os.Getenv("E2E_CLUSTER")
	if kubeconfig == "" || name == "" {
		t.Skip("E2E_KUBECONFIG and E2E_CLUSTER name no cluster; tests/faults/run makes one and runs this")
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
	b.populate(ctx, t)
	b.detour(ctx, t)
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
	if b.recorder, err = story.Record(ctx, d, b.Client, rotationName, story.Lease{Namespace: systemNamespace, Name: controller}); err != nil {
		t.Fatal(err)
	}
	if b.book, err = pods.Follow(ctx, b.Client); err != nil {
		t.Fatal(err)
	}
	if b.diary, err = keepDiary(ctx, b.Client); err != nil {
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
	return strings.TrimSpace(out)
}

func (b *bed) apply(ctx context.Context, t *testing.T, manifest []byte) {
	t.Helper()
	if _, err := b.Kubectl.Apply(ctx, manifest); err != nil {
		t.Fatal(err)
	}
}

// populate makes what a rotation has to take care of.
func (b *bed) populate(ctx context.Context, t *testing.T) {
	t.Helper()
	b.apply(ctx, t, workloads)
	b.apply(ctx, t, fixture.Legacy)
	for _, what := range []string{"deployment/web", "daemonset/agent"} {
		b.kubectl(ctx, t, "-n", fixture.Namespace, "rollout", "status", what, "--timeout=180s")
	}
	b.kubectl(ctx, t, "-n", fixture.Namespace, "wait", `--for=jsonpath={.data.token}`, "secret/legacy-token", "--timeout=60s")
}

// detour starts the proxy and sends the controller through it: two variables, and nothing else of it, are changed.
func (b *bed) detour(ctx context.Context, t *testing.T) {
	t.Helper()
	address, _, err := net.SplitHostPort(b.Servers[0])
	if err != nil {
		t.Fatal(err)
	}
	b.proxy = startProxy(ctx, t, b.name+"-control-plane")
	b.kubectl(ctx, t, "-n", systemNamespace, "set", "env", "deployment/"+controller,
		"KUBERNETES_SERVICE_HOST="+address, "KUBERNETES_SERVICE_PORT="+port)
	b.kubectl(ctx, t, "-n", systemNamespace, "rollout", "status", "deployment/"+controller, "--timeout=180s")
}

// within gives a context for one wait; how long is for the machine at hand, E2E_PATIENCE multiplies it.
func within(ctx context.Context, t *testing.T, length time.Duration) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(ctx, length*time.Duration(number(t, "E2E_PATIENCE", 1)))
}
