package e2e

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"certrotation.dev/tests/access"
	"certrotation.dev/tests/fixture"
)

// callees are those whom the API server calls, what their objects have held, and how each call went.
type callees struct {
	bed      *bed
	old      *x509.Certificate
	original map[string]string // caBundle of each object at the start
	mixed    string

	mu     sync.Mutex
	held   map[string][]heldBundle // by object and place
	calls  map[string]*called
	phases func() string
}

type heldBundle struct {
	at  time.Time
	pem string
}

// called counts the calls of one kind.
type called struct {
	served int
	slow   time.Duration
	failed []string
}

const (
	validated  = "ValidatingWebhookConfiguration/certrotation-test-validated"
	mutated    = "MutatingWebhookConfiguration/certrotation-test-mutated"
	late       = "ValidatingWebhookConfiguration/certrotation-test-late"
	churned    = "ValidatingWebhookConfiguration/certrotation-test-churned"
	mixed      = "ValidatingWebhookConfiguration/certrotation-test-mixed"
	aggregated = "APIService/v1.aggregated.certrotation.test"
	converted  = "CustomResourceDefinition/things.converted.certrotation.test"
)

var moved = []string{validated, mutated, late, churned, aggregated, converted}

// callees makes them, with certificates from the authority of the moment, and waits until each is served.
func (b *bed) callees(ctx context.Context, t *testing.T) *callees {
	t.Helper()
	c := &callees{bed: b, old: b.Authorities.Published()[0], original: map[string]string{}, held: map[string][]heldBundle{}, calls: map[string]*called{}}
	c.phases = func() string { return b.recorder.Phase() }
	bundle := string(access.PEM(c.old))
	noted := "# kept by hand\n" + strings.TrimSuffix(bundle, "\n")
	c.mixed = bundle + string(strangersCA(t))
	for _, object := range moved {
		c.original[object] = bundle
	}
	c.original[mutated], c.original[mixed] = noted, c.mixed
	c.follow(ctx, t)
	c.renew(ctx, t, "callee")
	c.renew(ctx, t, "late")
	manifest := string(fixture.Callees)
	for word, text := range map[string]string{"BUNDLE": bundle, "NOTED": noted, "MIXED": c.mixed} {
		manifest = strings.ReplaceAll(manifest, "caBundle: "+word, "caBundle: "+base64.StdEncoding.EncodeToString([]byte(text)))
	}
	b.apply(ctx, t, []byte(manifest))
	c.applyChurned(ctx, t)
	for _, name := range []string{"callee", "late"} {
		b.kubectl(ctx, t, "-n", fixture.Namespace, "rollout", "status", "deployment/"+name, "--timeout=180s")
	}
	b.kubectl(ctx, t, "wait", "--for=condition=Established", "--timeout=60s", "crd/things.converted.certrotation.test")
	b.kubectl(ctx, t, "wait", "--for=condition=Available", "--timeout=60s", "apiservice/v1.aggregated.certrotation.test")
	c.makeThing(ctx, t)
	c.call(ctx, t)
	return c
}

// applyChurned is what whoever owns that object does, now and again.
func (c *callees) applyChurned(ctx context.Context, t *testing.T) {
	t.Helper()
	encoded := base64.StdEncoding.EncodeToString([]byte(c.original[churned]))
	c.bed.apply(ctx, t, bytes.ReplaceAll(fixture.Churned, []byte("BUNDLE"), []byte(encoded)))
}

func (c *callees) makeThing(ctx context.Context, t *testing.T) {
	t.Helper()
	waiting, end := within(ctx, t, time.Minute)
	defer end()
	thing := []byte("{apiVersion: converted.certrotation.test/v1, kind: Thing, metadata: {name: one, namespace: " + fixture.Namespace + "}}")
	for {
		_, err := c.bed.Kubectl.Apply(waiting, thing)
		if err == nil {
			return
		}
		select {
		case <-waiting.Done():
			t.Fatal(err)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// --- Certificates --------------------------------------------------------------------------------------------

// signer reads what signs now: the first certificate of ca.crt always matches ca.key.
func (c *callees) signer(ctx context.Context, t *testing.T) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	node := c.bed.node(t, c.bed.controlPlanes()[0])
	file := func(path string) []byte {
		text, err := node.Run(ctx, "cat", path)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	list, err := access.Certificates(file("/etc/kubernetes/pki/ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(file("/etc/kubernetes/pki/ca.key"))
	if block == nil {
		t.Fatal("ca.key holds no key")
	}
	for _, parse := range []func([]byte) (any, error){
		func(der []byte) (any, error) { return x509.ParsePKCS1PrivateKey(der) },
		func(der []byte) (any, error) { return x509.ParseECPrivateKey(der) }, x509.ParsePKCS8PrivateKey} {
		if key, err := parse(block.Bytes); err == nil {
			return list[0], key.(crypto.Signer)
		}
	}
	t.Fatalf("ca.key holds a %s", block.Type)
	return nil, nil
}

// renew gives a callee a certificate from what signs now, and has kubelets bring it to its pods at once.
func (c *callees) renew(ctx context.Context, t *testing.T, name string) *x509.Certificate {
	t.Helper()
	authority, signer := c.signer(ctx, t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	host := name + "." + fixture.Namespace + ".svc"
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	secret := fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":%q,"namespace":%q},"type":"kubernetes.io/tls","data":{"tls.crt":%q,"tls.key":%q}}`,
		name, fixture.Namespace, base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	c.bed.apply(ctx, t, []byte(secret))
	c.bed.kubectl(ctx, t, "-n", fixture.Namespace, "annotate", "pods", "-l", "app="+name, "--overwrite", "certrotation-test/renewed="+serial.String())
	return authority
}

// awaitPresented waits until every pod of a callee presents what the authority has issued, seen from a node.
func (c *callees) awaitPresented(ctx context.Context, t *testing.T, name string, authority *x509.Certificate) {
	t.Helper()
	waiting, end := within(ctx, t, 3*time.Minute)
	defer end()
	list, err := c.bed.Client.CoreV1().Pods(fixture.Namespace).List(waiting, metav1.ListOptions{LabelSelector: "app=" + name})
	if err != nil || len(list.Items) == 0 {
		t.Fatalf("%d pods of %s: %v", len(list.Items), name, err)
	}
	for _, pod := range list.Items {
		for !c.presents(waiting, &pod, authority) {
			select {
			case <-waiting.Done():
				t.Fatalf("%s does not present a certificate from %s", pod.Name, authority.Subject)
			case <-time.After(500 * time.Millisecond):
			}
		}
	}
}

func (c *callees) presents(ctx context.Context, pod *corev1.Pod, authority *x509.Certificate) bool {
	look := "openssl s_client -connect " + pod.Status.PodIP + ":8443 </dev/null 2>/dev/null | openssl x509"
	out, err := c.bed.nodes[0].Run(ctx, "sh", "-c", look)
	if err != nil {
		return false
	}
	list, err := access.Certificates(out)
	return err == nil && len(list) == 1 && list[0].CheckSignatureFrom(authority) == nil
}

// --- What the objects hold ---------------------------------------------------------------------------------------

// follow writes down every caBundle that each of the test's objects ever held.
func (c *callees) follow(ctx context.Context, t *testing.T) {
	t.Helper()
	d, err := dynamic.NewForConfig(c.bed.Live.Config())
	if err != nil {
		t.Fatal(err)
	}
	factory := dynamicinformer.NewDynamicSharedInformerFactory(d, 0)
	for _, kind := range []schema.GroupVersionResource{
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"},
		{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"},
		{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"},
	} {
		informer := factory.ForResource(kind).Informer()
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: c.note, UpdateFunc: func(_, now any) { c.note(now) }}); err != nil {
			t.Fatal(err)
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
}

func (c *callees) note(object any) {
	u, is := object.(*unstructured.Unstructured)
	if !is || !strings.Contains(u.GetName(), "certrotation-test-") && !strings.Contains(u.GetName(), "certrotation.test") {
		return
	}
	name := u.GetKind() + "/" + u.GetName()
	hooks, _, _ := unstructured.NestedSlice(u.Object, "webhooks")
	for i, hook := range hooks {
		encoded, _, _ := unstructured.NestedString(hook.(map[string]any), "clientConfig", "caBundle")
		c.hold(name, i, encoded)
	}
	for _, path := range [][]string{{"spec", "caBundle"}, {"spec", "conversion", "webhook", "clientConfig", "caBundle"}} {
		if encoded, there, _ := unstructured.NestedString(u.Object, path...); there {
			c.hold(name, 0, encoded)
		}
	}
}

func (c *callees) hold(name string, place int, encoded string) {
	text, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := fmt.Sprintf("%s#%d", name, place)
	list := c.held[key]
	if len(list) == 0 || list[len(list)-1].pem != string(text) {
		c.held[key] = append(list, heldBundle{time.Now(), string(text)})
	}
}

// now is what an object holds, in its first place.
func (c *callees) now(object string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.held[object+"#0"]
	if len(list) == 0 {
		return ""
	}
	return list[len(list)-1].pem
}

// since gives the places of an object and what each has held from a moment on, what it held then included.
func (c *callees) since(object string, from time.Time) map[string][]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[string][]string{}
	for key, list := range c.held {
		if name, _, _ := strings.Cut(key, "#"); name != object {
			continue
		}
		for i, h := range list {
			if h.at.After(from) || i+1 == len(list) || list[i+1].at.After(from) {
				all[key] = append(all[key], h.pem)
			}
		}
	}
	return all
}

// --- Calls ----------------------------------------------------------------------------------------------------------

// call makes the API server call each of them several times a second, until ctx ends, and waits until each kind was served.
func (c *callees) call(ctx context.Context, t *testing.T) {
	t.Helper()
	admitted := func(label string) func(context.Context) error {
		return func(ctx context.Context) error {
			m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "called-", Labels: map[string]string{"certrotation-test": label}}}
			_, err := c.bed.Client.CoreV1().ConfigMaps(fixture.Namespace).Create(ctx, m, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		}
	}
	get := func(path string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := c.bed.Client.Discovery().RESTClient().Get().AbsPath(path).DoRaw(ctx)
			return err
		}
	}
	kinds := map[string]func(context.Context) error{validated: admitted("validated"), mutated: admitted("mutated"), late: admitted("late"),
		churned: admitted("churned"), aggregated: get("/apis/aggregated.certrotation.test/v1"),
		converted: get("/apis/converted.certrotation.test/v2/namespaces/" + fixture.Namespace + "/things/one")}
	for name, one := range kinds {
		c.calls[name] = &called{}
		go c.repeat(ctx, name, one)
	}
	waiting, end := within(ctx, t, time.Minute)
	defer end()
	for !c.allServed(5) {
		select {
		case <-waiting.Done():
			t.Fatalf("not all were served before the run: %s", c.tell())
		case <-time.After(100 * time.Millisecond):
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, count := range c.calls {
		count.failed = nil // informers of the API server may have been behind
	}
}

func (c *callees) repeat(ctx context.Context, name string, one func(context.Context) error) {
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for {
		calling, end := context.WithTimeout(ctx, 30*time.Second)
		begun := time.Now()
		err := one(calling)
		end()
		if ctx.Err() != nil {
			return
		}
		c.count(name, begun, err)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (c *callees) count(name string, begun time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	count := c.calls[name]
	if err == nil {
		count.served++
		count.slow = max(count.slow, time.Since(begun))
		return
	}
	count.failed = append(count.failed, fmt.Sprintf("%s in %s: %v", begun.Format("15:04:05.000"), c.phases(), err))
	if len(count.failed) <= 3 {
		say("%s: %v", name, err)
	}
}

func (c *callees) allServed(least int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, count := range c.calls {
		if count.served < least {
			return false
		}
	}
	return true
}

// tell is the table of all calls.
func (c *callees) tell() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for name, count := range c.calls {
		list = append(list, fmt.Sprintf("%-62s %5d served, %d failed, longest %d ms", name, count.served, len(count.failed), count.slow.Milliseconds()))
	}
	slices.Sort(list)
	return lines(list)
}

func (c *callees) assertCalls(t *testing.T, least int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, count := range c.calls {
		if count.served < least {
			t.Errorf("%s was called only %d times", name, count.served)
		}
		if len(count.failed) > 0 {
			t.Errorf("%s: %d of %d calls failed:%s", name, len(count.failed), count.served+len(count.failed), lines(count.failed[:min(len(count.failed), 5)]))
		}
	}
}

// assertNoticed: what can't fail shows nothing. The old authority comes back into two bundles whose servers have left it.
func (c *callees) assertNoticed(ctx context.Context, t *testing.T) {
	waiting, end := within(ctx, t, time.Minute)
	defer end()
	encoded := base64.StdEncoding.EncodeToString(access.PEM(c.old))
	for object, pointer := range map[string]string{late: "/webhooks/0/clientConfig/caBundle", aggregated: "/spec/caBundle"} {
		c.bed.kubectl(ctx, t, "patch", object, "--type=json", "-p", fmt.Sprintf(`[{"op":"replace","path":%q,"value":%q}]`, pointer, encoded))
	}
	for !c.hasFailed(late) || !c.hasFailed(aggregated) {
		select {
		case <-waiting.Done():
			t.Fatalf("not noticed: %s", c.tell())
		case <-time.After(100 * time.Millisecond):
		}
	}
	if c.hasFailed(validated) {
		t.Errorf("another one has failed: %s", c.tell())
	}
}

func (c *callees) hasFailed(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.calls[name].failed) > 0
}
