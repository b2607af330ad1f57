package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"certrotation.dev/tests/fixture"
	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/probe"
	"certrotation.dev/tests/sampleserver"
)

// TestAuthorities replaces the front proxy's and etcd's authority, for which nothing but etcd and API servers
// restarts and nobody is refused anything; and then all three in one request. A real aggregated API server is
// asked through the API servers all the time, and writes are counted. The controller's leader is killed at moments that are drawn.
func TestAuthorities(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := open(ctx, t)
	b.populate(ctx, t)
	deploying, end := within(ctx, t, 5*time.Minute)
	defer end()
	if err := sampleserver.Deploy(deploying, b.Cluster); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.save(t) })

	two := b.prepare(ctx, t, setting("E2E_TRIGGER", "proxy-and-etcd"), frontProxyAuthority, etcdAuthority)
	seen := two.lookCloser(ctx, t)
	seed := drawn(t)
	two.killLeaders(ctx, seed, 2, 5*time.Second, "TrustingBoth", "ReissuingLeaves", "DroppingOld")
	two.begin(ctx, t)
	two.finish(ctx, t, 10*time.Minute)
	t.Run("front proxy and etcd", func(t *testing.T) {
		seen.assertAlone(ctx, t)
		two.assertKilled(t)
	})

	b.kubectl(ctx, t, "-n", fixture.Namespace, "delete", "pod", "alone", "--wait=true")
	b.kubectl(ctx, t, "-n", fixture.Namespace, "rollout", "resume", "deployment/frozen")
	b.kubectl(ctx, t, "-n", fixture.Namespace, "rollout", "status", "deployment/frozen", "--timeout=180s")
	three := b.prepare(ctx, t, setting("E2E_TRIGGER", "proxy-and-etcd")+"-and-own", kubernetesAuthority, frontProxyAuthority, etcdAuthority)
	seen = three.lookCloser(ctx, t)
	three.killLeaders(ctx, seed+1, 3, 10*time.Second, "TrustingBoth", "ReissuingLeaves", "RestartingWorkloads", "DroppingOld")
	three.begin(ctx, t)
	three.finish(ctx, t, 20*time.Minute)
	t.Run("all three", func(t *testing.T) {
		three.assert(ctx, t)
		seen.assertServers(ctx, t)
		three.assertKilled(t)
	})
}

// closer is what is looked at beside a rotation of other authorities than the cluster's own.
type closer struct {
	*rotation
	aggregated []*probe.Set
	writers    []*probe.Writer
	retained   map[string]retained  // by node
	podsBefore map[types.UID]string // pods, before the run
	mu         sync.Mutex
	away       []string // nodes that were not Ready
}

// Rates a second, over all API servers; E2E_PROBE_RATE does not change them.
const (
	aggregatedRate = 5
	writeRate      = 5
)

// lookCloser starts, after the probes of prepare; r.stop ends it too.
func (r *rotation) lookCloser(ctx context.Context, t *testing.T) *closer {
	t.Helper()
	c := &closer{rotation: r, retained: map[string]retained{}}
	probing, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	stop := r.stop
	r.stop = func() { cancel(); all.Wait(); stop() }
	t.Cleanup(r.stop)
	for i, address := range r.bed.Servers {
		cell := probe.Cell{Trust: probe.BothTrust, Credential: probe.Token}
		set := &probe.Set{Address: address, Path: sampleserver.Path, Keys: r.keys, Phase: r.bed.recorder.Phase, OnFailure: r.sayFailure,
			Cells: []probe.Cell{cell}, Factor: aggregatedRate / cell.Rate() / float64(len(r.bed.Servers))}
		writer := &probe.Writer{Config: r.through(address), Namespace: sampleserver.Namespace, Name: fmt.Sprintf("count-%d", i),
			Rate: float64(writeRate) / float64(len(r.bed.Servers)), Phase: r.bed.recorder.Phase}
		if err := writer.Create(ctx); err != nil {
			t.Fatal(err)
		}
		c.aggregated, c.writers = append(c.aggregated, set), append(c.writers, writer)
		all.Add(2)
		go func() { defer all.Done(); set.Run(probing) }()
		go func() { defer all.Done(); writer.Run(probing) }()
	}
	c.followNodes(probing, t)
	c.podsBefore = c.pods(ctx, t)
	c.retain(ctx, t)
	return c
}

// through gives clients of one API server, past any load balancer.
func (r *rotation) through(address string) func() *rest.Config {
	return func() *rest.Config {
		config := r.bed.Live.Fresh()
		config.Host = "https://" + address
		return config
	}
}

// followNodes notes whatever is not Ready, until ctx ends.
func (c *closer) followNodes(ctx context.Context, t *testing.T) {
	t.Helper()
	note := func(object any) {
		n, ok := object.(*corev1.Node)
		if !ok {
			return
		}
		for _, condition := range n.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue {
				c.mu.Lock()
				c.away = append(c.away, fmt.Sprintf("%s %s is %s: %s", time.Now().Format("15:04:05.000"), n.Name, condition.Status, condition.Message))
				c.mu.Unlock()
			}
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{ObjectType: &corev1.Node{},
		ListerWatcher: cache.NewListWatchFromClient(c.bed.Client.CoreV1().RESTClient(), "nodes", "", fields.Everything()),
		Handler:       cache.ResourceEventHandlerFuncs{AddFunc: note, UpdateFunc: func(_, now any) { note(now) }}})
	go informer.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		t.Fatal("no list of nodes")
	}
}

// pods says for every pod but those of the run which one it is, and on which node.
func (c *closer) pods(ctx context.Context, t *testing.T) map[types.UID]string {
	t.Helper()
	list, err := c.bed.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := map[types.UID]string{}
	for _, p := range list.Items {
		if p.Namespace != nodesNamespace {
			all[p.UID] = fmt.Sprintf("%s/%s on %s", p.Namespace, p.Name, p.Spec.NodeName)
		}
	}
	return all
}

// retained are certificates that a control plane presented before the run, put aside there; their keys stay.
type retained struct{ frontProxy, etcd string }

// retain puts them aside, and sees that they are good now: that they are refused afterwards means something then.
func (c *closer) retain(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, name := range c.bed.controlPlanes() {
		node := c.bed.node(t, name)
		aside := retained{"/tmp/certrotation-test-front-proxy.crt", "/tmp/certrotation-test-etcd.crt"}
		for from, to := range map[string]string{pki + "front-proxy-client.crt": aside.frontProxy, pki + "etcd/healthcheck-client.crt": aside.etcd} {
			if _, err := node.Run(ctx, "cp", from, to); err != nil {
				t.Fatal(err)
			}
		}
		c.retained[name] = aside
		for _, url := range c.takeUsers(ctx, t) {
			if status, err := c.asFrontProxy(ctx, t, name, url, aside.frontProxy); status != "200" {
				t.Fatalf("before the run %s gives %s to the front proxy's certificate: %v", url, status, err)
			}
		}
		if answer, err := c.askEtcd(ctx, t, name, aside.etcd); !strings.Contains(answer, `"health":"true"`) {
			t.Fatalf("before the run etcd on %s says %q: %v", name, answer, err)
		}
	}
}

// takeUsers are the URLs where servers take the front proxy's word for who asks: API servers and the aggregated one.
func (c *closer) takeUsers(ctx context.Context, t *testing.T) []string {
	t.Helper()
	addresses, err := sampleserver.Addresses(ctx, c.bed.Cluster)
	if err != nil {
		t.Fatal(err)
	}
	var urls []string
	for _, a := range addresses {
		urls = append(urls, "https://"+a+sampleserver.Path)
	}
	for _, a := range c.bed.Servers {
		urls = append(urls, "https://"+a+fixture.Path)
	}
	return urls
}

// asFrontProxy asks from a node with that certificate, which says that it speaks for a user, and gives the answer's status.
func (c *closer) asFrontProxy(ctx context.Context, t *testing.T, node, url, certificate string) (string, error) {
	t.Helper()
	out, err := c.bed.node(t, node).Run(ctx, "curl", "--silent", "--show-error", "--insecure", "--max-time", "30", "--output", "/dev/null",
		"--write-out", "%{http_code}", "--cert", certificate, "--key", pki+"front-proxy-client.key", "--header", "X-Remote-User: "+sampleserver.User, url)
	return string(out), err
}

// askEtcd asks the node's own member for its health, with that certificate.
func (c *closer) askEtcd(ctx context.Context, t *testing.T, node, certificate string) (string, error) {
	t.Helper()
	return askEtcd(ctx, c.bed.node(t, node), certificate)
}

func askEtcd(ctx context.Context, n nodes.Node, certificate string) (string, error) {
	out, err := n.Run(ctx, "curl", "--silent", "--show-error", "--max-time", "30", "--cacert", pki+"etcd/ca.crt",
		"--cert", certificate, "--key", pki+"etcd/healthcheck-client.key", "https://127.0.0.1:2379/health")
	return string(out), err
}

// assertAlone is for a run in which the cluster's own authority stays: nothing that was good is ever refused.
func (c *closer) assertAlone(ctx context.Context, t *testing.T) {
	t.Run("no probe ever fails", c.assertNoFailure)
	t.Run("nothing but etcd and API servers restarts", c.assertNothingElse)
	t.Run("no pod was moved or made anew", func(t *testing.T) { c.assertPodsStay(ctx, t) })
	t.Run("the open watch is cut by API servers' ends alone", c.assertWatch)
	t.Run("new logs and exec sessions never fail", c.assertSessions)
	t.Run("held sessions are cut only where it is announced", c.assertCuts)
	t.Run("the control plane restarts as it should and no more", c.assertControlPlaneRestarts)
	t.Run("no kubelet restarts", func(t *testing.T) { c.assertKubelets(ctx, t) })
	t.Run("workload pods count no failed call", func(t *testing.T) { c.assertCounts(ctx, t) })
	t.Run("nothing on a node is issued by or trusts the old authorities", c.assertNoTraces)
	t.Run("the new authorities are in place on every node", c.assertNewInPlace)
	t.Run("control planes' files hold one certificate each, of the new authorities", c.assertOneEach)
	t.Run("static Pod manifests and the kubelet's settings are as they were", c.assertManifests)
	t.Run("files have the modes and owners that they had, and none is left over", c.assertShape)
	t.Run("keys beside their certificates are kept, other authorities' files untouched", c.assertKept)
	t.Run("every certificate that was replaced has its predecessor's subject, names and usages", c.assertSuccessions)
	t.Run("kubeadm certs check-expiration is content", func(t *testing.T) { c.assertExpiration(ctx, t) })
	t.Run("what aggregated API servers read carries the new authority only", func(t *testing.T) { c.assertExtension(ctx, t) })
	t.Run("no object carries the old authorities", func(t *testing.T) { c.assertNoObjectCarries(ctx, t) })
	t.Run("no node Pod is left", func(t *testing.T) { c.assertNoNodePods(ctx, t) })
	t.Run("status", c.assertStatus)
	c.assertServers(ctx, t)
	t.Run("nothing went wrong on the way", func(t *testing.T) {
		if list := c.complaints.all(); len(list) > 0 {
			t.Errorf("%s", lines(list))
		}
	})
}

// assertServers is for any run of front proxy and etcd.
func (c *closer) assertServers(ctx context.Context, t *testing.T) {
	t.Run("the aggregated API server answers every request", c.assertAggregated)
	t.Run("no write fails, and none that was acknowledged is lost", func(t *testing.T) { c.assertWrites(ctx, t) })
	t.Run("control planes restart their etcd and API server one at a time, and requests wait", func(t *testing.T) { c.assertWindows(ctx, t) })
	t.Run("every node was Ready all the time", c.assertReadyNodes)
	t.Run("servers refuse what the old front proxy's authority issued, and accept the new", func(t *testing.T) { c.assertFrontProxy(ctx, t) })
	t.Run("etcd refuses what its old authority issued, and accepts the new", func(t *testing.T) { c.assertEtcd(ctx, t) })
	t.Run("no key is left in a Secret, nothing of the run on a node", func(t *testing.T) { c.assertNothingLeft(ctx, t) })
}

// assertNoFailure: before, after, and while the old authorities are dropped.
func (c *closer) assertNoFailure(t *testing.T) {
	assertAllTried(t, c.attempts(), []probe.Cell{{Trust: probe.OldTrust, Credential: probe.OldCertificate}, {Trust: probe.OldTrust, Credential: probe.Token},
		{Trust: probe.BothTrust, Credential: probe.OldCertificate}, {Trust: probe.BothTrust, Credential: probe.Token}}, 40)
	if failed := probe.Failed(c.attempts()); len(failed) > 0 {
		t.Errorf("of %d attempts failed: %s", len(c.attempts()), probe.Tell(failed))
	}
	if c.keys.New() != nil {
		t.Errorf("another authority was published: %s", c.keys.New().Subject)
	}
}

func (c *closer) assertAggregated(t *testing.T) {
	var all []probe.Attempt
	for _, set := range c.aggregated {
		all = append(all, set.Attempts()...)
	}
	during := probe.Filter(all, func(a *probe.Attempt) bool { return a.Started.After(c.applied) && a.Started.Before(c.completed) })
	if len(during) < 50 {
		t.Errorf("only %d requests were made during the run", len(during))
	}
	var failed, ending []probe.Attempt
	for _, a := range probe.Failed(all) {
		if ofItsOwnEnd(&a) {
			ending = append(ending, a)
		} else {
			failed = append(failed, a)
		}
	}
	if len(failed) > 0 {
		t.Errorf("of %d requests failed: %s", len(all), probe.Tell(failed))
	}
	if len(ending) > 5 {
		t.Errorf("%d requests met the sample's own end: %s", len(ending), probe.Tell(ending))
	}
	t.Logf("%d requests met the end of a sample's pod and were asked to come again", len(ending))
	t.Logf("%d requests, %d of them during the run, the longest %.1f s", len(all), len(during), longest(all).Seconds())
}

// ofItsOwnEnd: the sample's pod is restarted as a workload. The API server keeps its connection to a pod that ends, whose generic
// server answers what still comes with 503 and Retry-After, as in every rollout of it.
func ofItsOwnEnd(a *probe.Attempt) bool {
	return a.Phase == "RestartingWorkloads" && strings.Contains(a.Error, "HTTP 503") && strings.Contains(a.Error, "apiserver is shutting down")
}

func longest(attempts []probe.Attempt) time.Duration {
	var most time.Duration
	for i := range attempts {
		most = max(most, attempts[i].Took)
	}
	return most
}

// assertWrites reads back through each API server.
func (c *closer) assertWrites(ctx context.Context, t *testing.T) {
	for _, w := range c.writers {
		done, failed := w.Done(), w.Failed()
		if len(done) < 20 {
			t.Errorf("%s: only %d writes", w.Name, len(done))
		}
		for _, f := range failed[:min(len(failed), 10)] {
			t.Errorf("%s: %s", w.Name, f)
		}
		var most time.Duration
		for i := range done {
			most = max(most, done[i].Took)
		}
		t.Logf("%s: %d writes, %d failed, the longest %.1f s", w.Name, len(done), len(failed), most.Seconds())
		for _, address := range c.bed.Servers {
			c.assertReadBack(ctx, t, w, address)
		}
	}
}

func (c *closer) assertReadBack(ctx context.Context, t *testing.T, w *probe.Writer, address string) {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.through(address)())
	if err != nil {
		t.Fatal(err)
	}
	lost, err := w.Lost(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	if len(lost) > 0 {
		t.Errorf("%s, read from %s: %d acknowledged writes are lost:%s", w.Name, address, len(lost), lines(lost[:min(len(lost), 10)]))
	}
}

func (c *closer) assertReadyNodes(t *testing.T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.away) > 0 {
		t.Errorf("%s", lines(c.away))
	}
}

func (c *closer) assertPodsStay(ctx context.Context, t *testing.T) {
	now := c.pods(ctx, t)
	if len(c.podsBefore) < 10 {
		t.Errorf("only %d pods were seen before", len(c.podsBefore))
	}
	for uid, where := range c.podsBefore {
		if now[uid] != where {
			t.Errorf("%s before; the same pod is now %q", where, now[uid])
		}
	}
	for uid, where := range now {
		if c.podsBefore[uid] == "" {
			t.Errorf("%s was not there before", where)
		}
	}
}

func (c *closer) assertFrontProxy(ctx context.Context, t *testing.T) {
	for node, aside := range c.retained {
		for _, url := range c.takeUsers(ctx, t) {
			if status, err := c.asFrontProxy(ctx, t, node, url, aside.frontProxy); status != "401" && status != "403" {
				t.Errorf("%s gives %s to the old certificate of %s: %v", url, status, node, err)
			}
			if status, err := c.asFrontProxy(ctx, t, node, url, pki+"front-proxy-client.crt"); status != "200" {
				t.Errorf("%s gives %s to the new certificate of %s: %v", url, status, node, err)
			}
		}
	}
}

func (c *closer) assertEtcd(ctx context.Context, t *testing.T) {
	for node, aside := range c.retained {
		if answer, err := c.askEtcd(ctx, t, node, aside.etcd); err == nil || answer != "" {
			t.Errorf("etcd on %s answers the old certificate: %q, %v", node, answer, err)
		} else {
			t.Logf("%s, with the old certificate: %v", node, err)
		}
		if answer, err := c.askEtcd(ctx, t, node, pki+"etcd/healthcheck-client.crt"); !strings.Contains(answer, `"health":"true"`) {
			t.Errorf("etcd on %s says %q to the new certificate: %v", node, answer, err)
		}
	}
}

// assertNothingLeft: what the controller keeps of a run is a record without keys.
func (c *closer) assertNothingLeft(ctx context.Context, t *testing.T) {
	list, err := c.bed.Client.CoreV1().Secrets(nodesNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kept := map[string]bool{}
	for _, s := range list.Items {
		kept[s.Labels["certrotation.dev/authority"]] = true
		if s.Labels["certrotation.dev/role"] == "next" {
			t.Errorf("Secret %s/%s is that of a run under way", s.Namespace, s.Name)
		}
		for key, text := range s.Data {
			if strings.Contains(string(text), "PRIVATE KEY") {
				t.Errorf("Secret %s/%s %s holds a private key", s.Namespace, s.Name, key)
			}
		}
	}
	for _, name := range c.authorities {
		if !kept[name] {
			t.Errorf("there is no record of the run for %s, so no Secret was looked at", name)
		}
	}
	c.assertNodesForget(ctx, t)
}

// assertNodesForget: nothing of the run is on a node.
func (r *rotation) assertNodesForget(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, n := range r.bed.nodes {
		// The lock, and which certificate the API server is known to show to kubelets.
		if out, err := n.Run(ctx, "sh", "-c", "ls -A -I lock -I absorbed /var/lib/certrotation 2>/dev/null || true"); err != nil || strings.TrimSpace(string(out)) != "" {
			t.Errorf("%s: in /var/lib/certrotation is %q, %v", n.Name, out, err)
		}
		// What kube-proxy has there shows that the look sees something.
		if out, err := n.Run(ctx, "nft", "list", "tables"); err != nil || strings.Contains(string(out), "certrotation") || !strings.Contains(string(out), "table") {
			t.Errorf("%s: nftables holds %q, %v", n.Name, out, err)
		}
	}
}

// assertNothingElse: of all containers and kubelets, those alone start that read etcd's authority at their start, and what was killed.
func (c *closer) assertNothingElse(t *testing.T) {
	planes, killed := c.bed.controlPlanes(), map[string]int{}
	for _, k := range c.kills {
		killed[k.Pod]++
	}
	for _, x := range c.restarts(func(*nodes.Restart) bool { return true }) {
		if x.Namespace == systemNamespace && killed[x.Pod] > 0 {
			killed[x.Pod]--
		} else if x.Namespace != nodesNamespace && !(slices.Contains(planes, x.Node) && (x.Static("etcd") || x.Static("kube-apiserver"))) {
			t.Errorf("started: %s", x)
		}
	}
}
