package e2e

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"certrotation.dev/tests/access"
	"certrotation.dev/tests/fixture"
	"certrotation.dev/tests/story"
)

const (
	objectMax = corev1.MaxSecretSize // what the API server takes in a Secret or ConfigMap
	largeOnes = 60                   // of that size: more than a page of them
	// Of this size fifty, which is a page, are just as large as a page may be, in base64: 8 MiB.
	middlingSize = 115 << 10
	pagesGrow    = 4 << 10  // KiB that the controller may need more for any number of namespaces
	runGrows     = 16 << 10 // and for a run: two thousand patches at a time are held ready
	limitGrace   = 8 << 10  // KiB below its limit of memory
	rootCA       = "kube-root-ca.crt"
)

type large struct {
	*git
	client     kubernetes.Interface
	namespaces int
	made       story.Status // of the last plan
}

// TestLarge has the controller read ten thousand namespaces, and objects as large as the API takes: it needs no more memory for the first,
// never comes near its limit, and loses nothing. E2E_NAMESPACES: how many.
func TestLarge(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := open(ctx, t)
	config := b.Live.Config()
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	l := &large{git: &git{bed: b}, client: client, namespaces: int(number(t, "E2E_NAMESPACES", 10000))}
	few := l.plan(ctx, t, "few")
	l.fill(ctx, t)
	t.Run("a plan needs no more memory for any number of namespaces", func(t *testing.T) {
		if many := l.plan(ctx, t, "many"); many > few+pagesGrow {
			t.Errorf("a plan took %d KiB, with %d namespaces more %d KiB", few, l.namespaces, many)
		}
	})
	t.Run("what is too large is refused by the API server", func(t *testing.T) { l.assertLimit(ctx, t) })
	l.fillSecrets(ctx, t)
	t.Run("objects of the largest size are read to their ends", func(t *testing.T) { l.assertLarge(ctx, t) })
	t.Run("a Secret of that size is no authority, and is named", func(t *testing.T) { l.assertNoAuthority(ctx, t) })
	t.Run("a run reaches every namespace", func(t *testing.T) { l.assertRun(ctx, t, few) })
	t.Run("the controller was never ended for its memory", func(t *testing.T) { l.assertAlive(ctx, t) })
}

// peak asks the kernel for the most memory that each controller had since it was last asked, in KiB, and gives the largest.
func (l *large) peak(ctx context.Context, t *testing.T) int {
	t.Helper()
	const look = `for p in $(pidof certrotation-controller); do sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB$/\1/p' /proc/$p/status; echo 5 >/proc/$p/clear_refs; done`
	most, n := 0, 0
	for _, node := range l.bed.nodes {
		out, err := node.Run(ctx, "sh", "-c", look)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range strings.Fields(string(out)) {
			kib, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			most, n = max(most, kib), n+1
		}
	}
	if n != 2 {
		t.Errorf("%d controllers run", n)
	}
	return most
}

// plan asks for one under a name of its own, waits for it, and gives what memory it took.
func (l *large) plan(ctx context.Context, t *testing.T, trigger string) int {
	t.Helper()
	l.bed.awaitNodePods(ctx, t, 0)
	l.peak(ctx, t)
	begun := time.Now()
	l.bed.apply(ctx, t, manifest(rotationName, trigger, "Plan"))
	l.await(ctx, t, "the plan "+trigger, func() (bool, string) {
		now := l.get(ctx, t, rotationName, "{.status.phase} {.status.plan.trigger}")
		return now == "Planned "+trigger, now + ": " + l.get(ctx, t, rotationName, "{.status.waitingFor}")
	})
	took := time.Since(begun)
	l.made = story.Status{}
	if err := json.Unmarshal([]byte(l.get(ctx, t, rotationName, "{.status}")), &l.made); err != nil {
		t.Fatal(err)
	}
	kib := l.peak(ctx, t)
	say("plan %s: %.1f s, at most %d KiB", trigger, took.Seconds(), kib)
	return kib
}

// each does something n times, several at a time, and ends the test with the first error.
func each(t *testing.T, n int, do func(i int) error) {
	t.Helper()
	next, failed := make(chan int), make(chan error, n)
	var all sync.WaitGroup
	for range 16 {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := range next {
				if err := do(i); err != nil {
					failed <- err
				}
			}
		}()
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
}

// fill makes the namespaces, and what the controller-manager would publish in them, for that makes no more than twenty in a second.
func (l *large) fill(ctx context.Context, t *testing.T) {
	begun := time.Now()
	published, err := l.client.CoreV1().ConfigMaps("kube-public").Get(ctx, rootCA, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	each(t, l.namespaces, func(i int) error {
		name := fmt.Sprintf("certrotation-test-%05d", i)
		if _, err := l.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		copied := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: rootCA, Annotations: published.Annotations}, Data: published.Data}
		if _, err := l.client.CoreV1().ConfigMaps(name).Create(ctx, copied, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		return nil
	})
	say("%d namespaces after %.0f s", l.namespaces, time.Since(begun).Seconds())
}

func (l *large) secret(ctx context.Context, namespace, name string, data map[string][]byte) error {
	_, err := l.client.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}, metav1.CreateOptions{})
	return err
}

func (l *large) assertLimit(ctx context.Context, t *testing.T) {
	for _, size := range []int{objectMax + 1, 3 << 19} {
		err := l.secret(ctx, nodesNamespace, "large", map[string][]byte{"a": make([]byte, size)})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("may not be more than %d bytes", objectMax)) {
			t.Errorf("of a Secret of %d bytes the API server says %v", size, err)
		}
	}
}

// What is in the large ones, and by what the plan must name it.
func largeValues(ca []byte) []struct{ name, holds, value string } {
	random := make([]byte, objectMax*3/4)
	_, _ = rand.Read(random) // it never fails
	padding := base64.StdEncoding.EncodeToString(random)
	cluster := "- {name: a, cluster: {server: https://a, certificate-authority-data: " + base64.StdEncoding.EncodeToString(ca) + "}}\n"
	const kubeconfig = "apiVersion: v1\nkind: Config\nclusters:\n"
	deep := "certificate-authority-data: " + strings.Repeat("[", objectMax)
	begins := strings.Repeat("-----BEGIN CERTIFICATE-----\n", objectMax/28)
	return []struct{ name, holds, value string }{
		{"at-its-end", "OldAuthority", padding[:objectMax-len(ca)-1] + "\n" + string(ca)},
		{"kubeconfig", "KubeconfigTrustingOldAuthority", kubeconfig + strings.Repeat(cluster, (objectMax-len(kubeconfig))/len(cluster))},
		{"deep", "UnreadableKubeconfig", deep[:objectMax]},
		{"begins", "", begins},
	}
}

func (l *large) fillSecrets(ctx context.Context, t *testing.T) {
	t.Helper()
	begun, values := time.Now(), largeValues(access.PEM(l.bed.Authorities.Published()[0]))
	each(t, largeOnes, func(i int) error {
		v := values[i%len(values)]
		return l.secret(ctx, fixture.Namespace, fmt.Sprintf("%s-%d", v.name, i), map[string][]byte{"a": []byte(v.value)})
	})
	middling := map[string][]byte{"a": []byte(values[0].value[:middlingSize])}
	each(t, 2*largeOnes, func(i int) error { return l.secret(ctx, fixture.NamespaceB, fmt.Sprintf("middling-%d", i), middling) })
	for _, namespace := range []string{systemNamespace, nodesNamespace} {
		if err := l.secret(ctx, namespace, "large", map[string][]byte{corev1.TLSCertKey: []byte(values[0].value[8:]), corev1.TLSPrivateKeyKey: []byte("no key")}); err != nil {
			t.Fatal(err)
		}
	}
	say("%d Secrets of %d bytes after %.0f s", largeOnes, objectMax, time.Since(begun).Seconds())
}

func (l *large) assertLarge(ctx context.Context, t *testing.T) {
	kib := l.plan(ctx, t, "large")
	if limit := l.limit(ctx, t); kib > limit-limitGrace {
		t.Errorf("the controller took %d KiB of the %d that it may", kib, limit)
	}
	holds, s := map[string]int{}, l.made.Plan.Phase("DroppingOld").StopsWorking
	for _, c := range s.Copies {
		holds[strings.Join(c.Holds, "+")]++
	}
	wanted := map[string]int{"OldAuthority": largeOnes/4 + 1} // one is the controller's own namespace's
	for _, v := range largeValues(nil)[1:3] {
		wanted[v.holds] = largeOnes / 4
	}
	if fmt.Sprint(holds) != fmt.Sprint(wanted) || int(s.CopiesTotal) != len(s.Copies) {
		t.Errorf("of the large ones the plan names %v, %d in all; it should be %v", holds, s.CopiesTotal, wanted)
	}
}

// limit is what the controller's container may have, in KiB.
func (l *large) limit(ctx context.Context, t *testing.T) int {
	t.Helper()
	d, err := l.client.AppsV1().Deployments(systemNamespace).Get(ctx, controller, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return int(d.Spec.Template.Spec.Containers[0].Resources.Limits.Memory().Value() >> 10)
}

func (l *large) assertNoAuthority(ctx context.Context, t *testing.T) {
	l.bed.apply(ctx, t, []byte("apiVersion: certrotation.dev/v1alpha1\nkind: CertificateRotation\nmetadata: {name: cluster}\n"+
		"spec: {trigger: brought, mode: Plan, newAuthority: {secretRef: {name: large}}}\n"))
	l.await(ctx, t, "the plan to be blocked by it", func() (bool, string) {
		said := l.get(ctx, t, rotationName, `{range .status.blockers[*]}{.code} {.object}: {.message}{"\n"}{end}`)
		return strings.Contains(said, "AuthorityUnusable") && strings.Contains(said, "Secret/large: tls.key: "), said
	})
	say("%s", l.get(ctx, t, rotationName, `{range .status.blockers[*]}{.code} {.object}: {.message}{"\n"}{end}`))
}

func (l *large) assertRun(ctx context.Context, t *testing.T, few int) {
	b := l.bed
	b.kubectl(ctx, t, "delete", "certificaterotation", rotationName, "--timeout=60s")
	b.awaitNodePods(ctx, t, 0)
	l.peak(ctx, t)
	begun := time.Now()
	b.apply(ctx, t, manifest(rotationName, "run", "Apply"))
	waiting, end := within(ctx, t, 20*time.Minute)
	defer end()
	if _, _, err := b.recorder.Await(waiting, 0, func(v *story.Version) bool { return v.Done("run") }); err != nil {
		t.Fatal(err)
	}
	kib := l.peak(ctx, t)
	say("run: %.0f s, at most %d KiB", time.Since(begun).Seconds(), kib)
	if kib > few+runGrows {
		t.Errorf("the run took %d KiB, a plan of a small cluster %d", kib, few)
	}
	l.assertPublished(ctx, t)
}

// assertPublished looks into every namespace: the new authority, and nothing else.
func (l *large) assertPublished(ctx context.Context, t *testing.T) {
	t.Helper()
	published := l.bed.Authorities.Published()
	if len(published) != 1 {
		t.Fatalf("%d authorities are published", len(published))
	}
	want, n, more := strings.TrimSpace(string(access.PEM(published[0]))), 0, ""
	for {
		page, err := l.client.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + rootCA, Limit: 500, Continue: more})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.Items {
			if n++; strings.TrimSpace(m.Data["ca.crt"]) != want {
				t.Errorf("namespace %s has not the new authority alone", m.Namespace)
			}
		}
		if more = page.Continue; more == "" {
			break
		}
	}
	if n < l.namespaces {
		t.Errorf("%d namespaces have %s; there should be more than %d", n, rootCA, l.namespaces)
	}
}

func (l *large) assertAlive(ctx context.Context, t *testing.T) {
	for _, p := range l.bed.systemPods(ctx, t) {
		for _, c := range p.Status.ContainerStatuses {
			if c.RestartCount != 0 {
				t.Errorf("%s has restarted %d times: %+v", p.Name, c.RestartCount, c.LastTerminationState)
			}
		}
	}
}
