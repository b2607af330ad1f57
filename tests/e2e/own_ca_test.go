package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"certrotation.dev/tests/access"
	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/snapshot"
	"certrotation.dev/tests/story"
)

const ownSecret = "own-ca"

// TestOwnCA replaces kubeadm's RSA authority by one that a person brings, ECDSA on P-384: refused while there is something wrong with it,
// begun by itself when that is put right, and in force at the end exactly as it was given. On the way every kind of credential that
// people hold is taken at four stages, and used from then on.
func TestOwnCA(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := open(ctx, t)
	t.Cleanup(func() { b.save(t) })
	o := &ownCA{gate: &gate{rotation: b.prepare(ctx, t, setting("E2E_TRIGGER", "own-ca")), directory: t.TempDir()}}
	o.certificate, o.key = makeAuthority(t, nil)
	w := newWallet(ctx, t, o.rotation, o.certificate)
	w.take(ctx, t, atStart)
	t.Run("for one authority alone", func(t *testing.T) { o.assertOneAlone(ctx, t) })
	o.manifest = append(o.manifest, "  approval: Manual\n  newAuthority: {secretRef: {name: "+ownSecret+"}}\n"...)
	o.begin(ctx, t)
	t.Run("what can't serve is refused, by name and reason, and nothing is touched", func(t *testing.T) { o.assertRefused(ctx, t) })
	w.awaitUses(ctx, t, atStart)
	o.putRight(ctx, t)
	o.pauseWhereBothArePublished(ctx, t, w)
	w.take(ctx, t, inMiddle)
	w.awaitUses(ctx, t, inMiddle)
	w.paused.Store(false)
	o.set(ctx, t, `{"paused":false}`)
	o.awaitGate(ctx, t)
	w.take(ctx, t, atGate)
	w.awaitUses(ctx, t, atGate)
	t.Run("until its end the run has a copy of the key, and nobody else", func(t *testing.T) { o.assertCopies(ctx, t, 1) })
	if _, err := o.newAdmin.Run(ctx, o.approval(o.trigger, "DroppingOld", "")...); err != nil {
		t.Fatal(err)
	}
	o.finish(ctx, t, 10*time.Minute)
	w.take(ctx, t, atEnd)
	w.awaitUses(ctx, t, atEnd)
	w.close()
	t.Run("credentials of every kind and time", w.assertFates)
	o.assertEnd(ctx, t)
}

// ownCA is a run to an authority that a person brings.
type ownCA struct {
	*gate
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	secret      *corev1.Secret // when it was put right
}

// makeAuthority makes a root as a person would, but for what change does to it.
func makeAuthority(t *testing.T, change func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(5 * 8760 * time.Hour),
		Subject: pkix.Name{Organization: []string{"Example Corp"}, OrganizationalUnit: []string{fmt.Sprintf("%x", serial)}, CommonName: "Kubernetes Root"},
		IsCA:    true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made, key
}

// assertOneAlone: one Secret can't be the authority of several.
func (o *ownCA) assertOneAlone(ctx context.Context, t *testing.T) {
	manifest := fmt.Sprintf("apiVersion: certrotation.dev/v1alpha1\nkind: CertificateRotation\nmetadata: {name: %s}\nspec: {trigger: %q, "+
		"authorities: [Kubernetes, FrontProxy, Etcd], newAuthority: {secretRef: {name: %s}}}\n", rotationName, o.trigger, ownSecret)
	if _, err := o.bed.Kubectl.Apply(ctx, []byte(manifest)); err == nil || !strings.Contains(err.Error(), "secretRef brings one authority; name one in spec.authorities") {
		t.Errorf("taken, or refused otherwise: %v", err)
	}
}

// `openssl ecparam -genkey -name secp384r1` writes the curve's name before the key.
var secp384r1 = []byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22}

// put writes the Secret; it need not be there.
func (o *ownCA) put(ctx context.Context, t *testing.T, certificate *x509.Certificate, key *ecdsa.PrivateKey) *corev1.Secret {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	secrets := o.bed.Client.CoreV1().Secrets(nodesNamespace)
	wanted := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: ownSecret}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{
		"tls.crt": access.PEM(certificate), "tls.key": append(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: secp384r1}),
			pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})...)}}
	written, err := secrets.Update(ctx, wanted, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		written, err = secrets.Create(ctx, wanted, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return written
}

// assertRefused brings one after the other what can't serve, while the request stands. The last one shows only when nodes were looked at.
func (o *ownCA) assertRefused(ctx context.Context, t *testing.T) {
	o.assertBlocked(ctx, t, o.applied, "it is not in the namespace "+nodesNamespace)
	_, stranger := makeAuthority(t, nil)
	o.assertNotTaken(ctx, t, o.certificate, stranger, "tls.key is not its key")
	for _, c := range []struct {
		says   string
		change func(*x509.Certificate)
	}{
		{"it expires at", func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-8760*time.Hour), time.Now().Add(-time.Hour)
		}},
		{"it is no authority", func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature }},
		{"its subject is that of the authority in force", func(c *x509.Certificate) { c.RawSubject = o.old().RawSubject }},
	} {
		certificate, key := makeAuthority(t, c.change)
		o.assertNotTaken(ctx, t, certificate, key, c.says)
	}
	t.Run("a Warning names it", o.assertWarned)
	t.Run("nodes are as they were", func(t *testing.T) { o.assertUntouched(ctx, t) })
}

func (o *ownCA) assertNotTaken(ctx context.Context, t *testing.T, certificate *x509.Certificate, key *ecdsa.PrivateKey, says string) {
	t.Helper()
	before := time.Now()
	o.put(ctx, t, certificate, key)
	o.assertBlocked(ctx, t, before, says)
}

// assertBlocked waits until status, from that time on, names the Secret and the reason and nothing else.
func (o *ownCA) assertBlocked(ctx context.Context, t *testing.T, after time.Time, says string) {
	t.Helper()
	waiting, end := within(ctx, t, time.Minute)
	defer end()
	v, err := o.await(waiting, fmt.Sprintf("status to say %q", says), func(v *story.Version) bool {
		return v.Trigger == o.trigger && !v.At.Before(after) && o.blockedBy(v, says)
	})
	if err != nil {
		t.Fatalf("%v; blockers: %+v", err, o.last().Blockers)
	}
	say("refused after %.1f s: %s", v.At.Sub(after).Seconds(), v.Status.Blockers[0].Message)
}

func (o *ownCA) blockedBy(v *story.Version, says string) bool {
	s := &v.Status
	if s.Phase != "Preparing" || s.ObservedGeneration != v.Generation || len(s.Blockers) != 1 || !s.Is("Stalled") || s.Is("Ready") || s.Condition("Ready") == nil {
		return false
	}
	by, stalled := s.Blockers[0], s.Condition("Stalled").Message
	return by.Code == "AuthorityUnusable" && by.Object == "Secret/"+ownSecret && strings.Contains(by.Message, says) &&
		strings.Contains(stalled, "Secret/"+ownSecret) && strings.Contains(stalled, says)
}

func (o *ownCA) assertWarned(t *testing.T) {
	for _, e := range o.bed.recorder.Events() {
		if e.At.After(o.applied) && e.Type == corev1.EventTypeWarning && e.Reason == "AuthorityUnusable" && strings.Contains(e.Message, "Secret/"+ownSecret) {
			return
		}
	}
	t.Errorf("of %d Events none is a Warning of it", len(o.bed.recorder.Events()))
}

// assertUntouched compares every file with before, and what runs; and no authority is stored.
func (o *ownCA) assertUntouched(ctx context.Context, t *testing.T) {
	o.assertSameFiles(t, o.bed.snapshots(ctx, t))
	for _, x := range nodes.Restarts(o.bed.observer.Events(), o.applied, time.Now()) {
		if x.Namespace != nodesNamespace {
			t.Errorf("started: %s", x)
		}
	}
	if now := o.bed.invocations(ctx, t); !maps.Equal(now, o.invocationsBefore) {
		t.Errorf("kubelets are %v, were %v", now, o.invocationsBefore)
	}
	if of := o.runSecrets(ctx, t); len(of) > 0 {
		t.Errorf("there is a run: %v", of)
	}
}

// runSecrets names the Secrets of the run under way.
func (o *ownCA) runSecrets(ctx context.Context, t *testing.T) []string {
	t.Helper()
	list, err := o.bed.Client.CoreV1().Secrets(nodesNamespace).List(ctx, metav1.ListOptions{LabelSelector: "certrotation.dev/role=next"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range list.Items {
		names = append(names, s.Namespace+"/"+s.Name)
	}
	return names
}

// putRight: the run begins by itself.
func (o *ownCA) putRight(ctx context.Context, t *testing.T) {
	t.Helper()
	o.secret = o.put(ctx, t, o.certificate, o.key)
	waiting, end := within(ctx, t, 2*time.Minute)
	defer end()
	if _, err := o.await(waiting, "the run to begin", func(v *story.Version) bool { return o.inRun(v) && !v.Status.Is("Stalled") }); err != nil {
		o.collect(ctx, t)
		t.Fatal(err)
	}
}

// pauseWhereBothArePublished: the controller-manager that has started with both publishes them, and signs by the old one. Who signs changes
// only when every server has its new leaf.
func (o *ownCA) pauseWhereBothArePublished(ctx context.Context, t *testing.T, w *wallet) {
	t.Helper()
	waiting, end := within(ctx, t, 5*time.Minute)
	defer end()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for !o.bothArePublished(waiting, t, w) {
		select {
		case <-waiting.Done():
			t.Fatalf("both authorities were never published: %s", o.last().Tell())
		case <-ticker.C:
		}
	}
	asked := time.Now()
	o.set(ctx, t, `{"paused":true}`)
	o.says(ctx, t, asked, "Ready", "spec.paused to be false")
	o.awaitNodePodsEnded(waiting, t)
	say("paused: %s", o.last().Tell())
	w.paused.Store(true)
}

func (o *ownCA) bothArePublished(ctx context.Context, t *testing.T, w *wallet) bool {
	t.Helper()
	for _, read := range []func(context.Context) ([]byte, error){w.published, w.legacyTrust} {
		bundle, err := read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if w.trusted(t, bundle) != "O+N" {
			return false
		}
	}
	return true
}

// assertCopies looks for the key in every Secret: beside the person's there are so many, those of the run under way.
func (o *ownCA) assertCopies(ctx context.Context, t *testing.T, copies int) {
	list, err := o.bed.Client.CoreV1().Secrets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wanted := append(o.runSecrets(ctx, t), nodesNamespace+"/"+ownSecret)
	var found []string
	for _, s := range list.Items {
		for _, text := range s.Data {
			if _, keys, err := snapshot.Inspect(text); err == nil && slices.ContainsFunc(keys, func(k snapshot.Key) bool { return snapshot.Of(o.certificate).Holds(&k) }) {
				found = append(found, s.Namespace+"/"+s.Name)
			}
		}
	}
	slices.Sort(found)
	slices.Sort(wanted)
	if !slices.Equal(found, wanted) || len(found) != copies+1 {
		t.Errorf("the key is in %v, expected in %v, which should be %d", found, wanted, copies+1)
	}
}

func (o *ownCA) assertEnd(ctx context.Context, t *testing.T) {
	t.Run("ca.crt and ca.key are exactly what was given", func(t *testing.T) { o.assertGiven(ctx, t) })
	t.Run("the person's Secret is as it was given", func(t *testing.T) { o.assertSecretUntouched(ctx, t) })
	t.Run("no copy of the key is left in any other Secret", func(t *testing.T) { o.assertCopies(ctx, t, 0) })
	t.Run("nothing of the run is on a node", func(t *testing.T) { o.assertNodesForget(ctx, t) })
	t.Run("status names it", o.assertAuthorities)
	t.Run("nothing on a node is issued by or trusts the old authority", o.assertNoTraces)
	t.Run("the new authority is in place on every node", o.assertNewInPlace)
	t.Run("control planes' files hold one certificate each, of the new authority", o.assertOneEach)
	t.Run("every certificate that was replaced has its predecessor's subject, names and usages", o.assertSuccessions)
	t.Run("static Pod manifests and the kubelet's settings are as they were", o.assertManifests)
	t.Run("files have the modes and owners that they had, and none is left over", o.assertShape)
	t.Run("keys beside their certificates are kept, other authorities' files untouched", o.assertKept)
	t.Run("kubeadm certs check-expiration is content", func(t *testing.T) { o.assertExpiration(ctx, t) })
	t.Run("every kube-root-ca.crt carries the new authority only", func(t *testing.T) { o.assertConfigMaps(ctx, t) })
	t.Run("every ServiceAccount token Secret carries the new authority only", func(t *testing.T) { o.assertTokenSecrets(ctx, t) })
	t.Run("cluster-info carries the new authority only, signed for every bootstrap token", func(t *testing.T) { o.assertClusterInfo(ctx, t) })
	t.Run("what aggregated API servers read carries the new authority only", func(t *testing.T) { o.assertExtension(ctx, t) })
	t.Run("no object carries the old authority", func(t *testing.T) { o.assertNoObjectCarries(ctx, t) })
	t.Run("no probe fails before DroppingOld begins", o.assertNoFailureBeforeDrop)
	t.Run("new trust with new credentials and tokens never fails", o.assertNewNeverFails)
	t.Run("tokens and new certificates never fail for those who trust both", o.assertBothNeverFails)
	t.Run("between drop and end only what is old is refused", o.assertDropIsClean)
	t.Run("after the end old certificates get 401", o.assertOldCertificatesRefused)
	t.Run("after the end old trust fails", o.assertOldTrustFails)
	t.Run("no node Pod is left", func(t *testing.T) { o.assertNoNodePods(ctx, t) })
	t.Run("phases come in their order, each once", o.assertPhases)
	t.Run("kubectl wait returns at the end and not before", o.assertWait)
	t.Run("nothing went wrong on the way", func(t *testing.T) {
		if list := o.complaints.all(); len(list) > 0 {
			t.Errorf("%s", lines(list))
		}
	})
}

// assertGiven: on every node the certificate; the key where kubeadm looks for it, and nowhere else.
func (o *ownCA) assertGiven(ctx context.Context, t *testing.T) {
	if !o.new(t).Equal(o.certificate) {
		t.Errorf("%s is published, %s was given", o.new(t).Subject, o.certificate.Subject)
	}
	for name, node := range o.after {
		if crt := node.Find(caFile); crt == nil || len(crt.Certificates) != 1 || crt.Certificates[0].Fingerprint != snapshot.Fingerprint(o.certificate) {
			t.Errorf("%s: %s is not the certificate that was given: %+v", name, caFile, crt)
		}
		for i := range node.Files {
			f := &node.Files[i]
			holds := slices.ContainsFunc(f.Keys, func(k snapshot.Key) bool { return snapshot.Of(o.certificate).Holds(&k) })
			if holds != (f.Path == authorityKey) {
				t.Errorf("%s: the key is in %s: %v", name, f.Path, holds)
			}
		}
	}
	for _, name := range o.bed.controlPlanes() {
		text, err := o.bed.node(t, name).Run(ctx, "cat", authorityKey)
		if err != nil {
			t.Fatal(err)
		}
		if key := parseKey(t, text); !o.key.Equal(key) {
			t.Errorf("%s: %s is not the key that was given", name, authorityKey)
		}
	}
}

// parseKey reads either form in which such a key may be written.
func parseKey(t *testing.T, text []byte) any {
	t.Helper()
	block, rest := pem.Decode(text)
	if block == nil || len(strings.TrimSpace(string(rest))) > 0 {
		t.Fatalf("%d bytes are not one PEM block", len(text))
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (o *ownCA) assertSecretUntouched(ctx context.Context, t *testing.T) {
	now, err := o.bed.Client.CoreV1().Secrets(nodesNamespace).Get(ctx, ownSecret, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if now.UID != o.secret.UID || now.ResourceVersion != o.secret.ResourceVersion || !maps.EqualFunc(now.Data, o.secret.Data, bytes.Equal) {
		t.Errorf("it is version %s with %d entries, was %s with %d", now.ResourceVersion, len(now.Data), o.secret.ResourceVersion, len(o.secret.Data))
	}
}
