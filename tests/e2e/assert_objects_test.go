package e2e

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"certrotation.dev/tests/access"
	"certrotation.dev/tests/fixture"
	"certrotation.dev/tests/snapshot"
)

// onlyNew says what is wrong with a bundle that must hold the new authority and nothing else.
func (r *rotation) onlyNew(t *testing.T, bundle []byte) string {
	t.Helper()
	return holdsOnly(bundle, r.new(t))
}

func holdsOnly(bundle []byte, authority *x509.Certificate) string {
	list, err := access.Certificates(bundle)
	switch {
	case err != nil:
		return err.Error()
	case len(list) == 1 && list[0].Equal(authority):
		return ""
	}
	var names []string
	for _, c := range list {
		names = append(names, fmt.Sprintf("%s %.12s", c.Subject, snapshot.Fingerprint(c)))
	}
	return fmt.Sprintf("holds %d certificates: %v", len(list), names)
}

func (r *rotation) assertConfigMaps(ctx context.Context, t *testing.T) {
	spaces, err := r.bed.Client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, ns := range spaces.Items {
		cm, err := r.bed.Client.CoreV1().ConfigMaps(ns.Name).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		if err != nil {
			t.Error(err)
		} else if wrong := r.onlyNew(t, []byte(cm.Data["ca.crt"])); wrong != "" {
			t.Errorf("%s/kube-root-ca.crt %s", ns.Name, wrong)
		}
	}
}

func (r *rotation) assertTokenSecrets(ctx context.Context, t *testing.T) {
	list, err := r.bed.Client.CoreV1().Secrets("").List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(corev1.SecretTypeServiceAccountToken)})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) == 0 {
		t.Error("there is no ServiceAccount token Secret")
	}
	for _, s := range list.Items {
		if wrong := r.onlyNew(t, s.Data["ca.crt"]); wrong != "" {
			t.Errorf("Secret %s/%s %s", s.Namespace, s.Name, wrong)
		}
	}
}

// assertClusterInfo checks the ConfigMap that joining nodes read: its authority, and for each bootstrap
// token that may sign a detached JWS over the kubeconfig (RFC 7515 appendix F, HS256 with the token's secret).
func (r *rotation) assertClusterInfo(ctx context.Context, t *testing.T) {
	cm, err := r.bed.Client.CoreV1().ConfigMaps("kube-public").Get(ctx, "cluster-info", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text := cm.Data["kubeconfig"]
	config, err := clientcmd.Load([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(config.Clusters) == 0 {
		t.Error("cluster-info names no cluster")
	}
	for name, c := range config.Clusters {
		if wrong := r.onlyNew(t, c.CertificateAuthorityData); wrong != "" {
			t.Errorf("cluster-info, cluster %q, %s", name, wrong)
		}
	}
	tokens, err := r.bed.Client.CoreV1().Secrets("kube-system").List(ctx, metav1.ListOptions{FieldSelector: "type=bootstrap.kubernetes.io/token"})
	if err != nil {
		t.Fatal(err)
	}
	signed := 0
	for _, s := range tokens.Items {
		if string(s.Data["usage-bootstrap-signing"]) != "true" || expired(s.Data["expiration"]) {
			continue
		}
		signed++
		id := string(s.Data["token-id"])
		if wrong := checkJWS(cm.Data["jws-kubeconfig-"+id], text, string(s.Data["token-secret"])); wrong != "" {
			t.Errorf("the signature for bootstrap token %s: %s", id, wrong)
		}
	}
	if signed == 0 {
		t.Error("there is no bootstrap token that may sign, so no signature was checked")
	}
}

func expired(text []byte) bool {
	at, err := time.Parse(time.RFC3339, string(text))
	return err == nil && time.Now().After(at)
}

func checkJWS(signature, content, secret string) string {
	parts := strings.Split(signature, ".")
	if len(parts) != 3 || parts[1] != "" {
		return fmt.Sprintf("%q is no detached JWS", signature)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(content))))
	given, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return err.Error()
	}
	if !hmac.Equal(given, mac.Sum(nil)) {
		return "does not fit the content"
	}
	return ""
}

func (r *rotation) assertExtension(ctx context.Context, t *testing.T) {
	cm, err := r.bed.Client.CoreV1().ConfigMaps("kube-system").Get(ctx, "extension-apiserver-authentication", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	inForce := map[string]*x509.Certificate{"client-ca-file": r.old(), "requestheader-client-ca-file": r.inFile(t, r.after, frontProxyAuthority)}
	if r.rotates(kubernetesAuthority) {
		inForce["client-ca-file"] = r.new(t)
	}
	for key, authority := range inForce {
		if wrong := holdsOnly([]byte(cm.Data[key]), authority); wrong != "" {
			t.Errorf("kube-system/extension-apiserver-authentication %s %s", key, wrong)
		}
	}
}

// assertNoObjectCarries looks through every ConfigMap and Secret. The controller's own namespace is left
// out: it keeps the record of its runs there.
func (r *rotation) assertNoObjectCarries(ctx context.Context, t *testing.T) {
	successions := r.successions(t)
	looked := 0
	look := func(what, namespace, name, key string, text []byte) {
		looked++
		certificates, keys, err := snapshot.Inspect(text)
		if err != nil || namespace == systemNamespace {
			return // no certificate, or none of ours
		}
		file := snapshot.Node{Files: []snapshot.File{{Path: what + " " + namespace + "/" + name + " " + key, Certificates: certificates, Keys: keys}}}
		for _, s := range successions {
			for _, trace := range file.Traces(snapshot.Of(s.old)) {
				t.Errorf("%s authority: %s", s.name, trace)
			}
		}
	}
	maps, err := r.bed.Client.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range maps.Items {
		for key, text := range m.Data {
			look("ConfigMap", m.Namespace, m.Name, key, []byte(text))
		}
	}
	secrets, err := r.bed.Client.CoreV1().Secrets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range secrets.Items {
		for key, text := range s.Data {
			look("Secret", s.Namespace, s.Name, key, text)
		}
	}
	if looked < 10 {
		t.Errorf("only %d entries of ConfigMaps and Secrets were looked at", looked)
	}
}

func (r *rotation) assertLegacyToken(ctx context.Context, t *testing.T) {
	secret, err := r.bed.Client.CoreV1().Secrets(fixture.Namespace).Get(ctx, "legacy-token", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(&rest.Config{Host: r.bed.Live.Server, BearerToken: string(secret.Data["token"]),
		TLSClientConfig: rest.TLSClientConfig{CAData: secret.Data["ca.crt"]}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().ConfigMaps(fixture.Namespace).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{}); err != nil {
		t.Errorf("with the token and the CA of the Secret: %v", err)
	}
}

// assertVolumes looks at the CA in the volumes of all pods that run; kubelets refresh them within about a
// minute and a half, and status is Completed only when they have been seen.
func (r *rotation) assertVolumes(ctx context.Context, t *testing.T) {
	seen := 0
	for name, node := range r.after {
		for i := range node.Files {
			f := &node.Files[i]
			if !strings.HasPrefix(f.Path, "/var/lib/kubelet/pods/") || !strings.HasSuffix(f.Path, "/ca.crt") || r.ofAccepted(f.Path) {
				continue
			}
			seen++
			if len(f.Certificates) != 1 || f.Certificates[0].Fingerprint != snapshot.Fingerprint(r.new(t)) {
				t.Errorf("%s: %s holds %d certificates, not the new authority alone", name, f.Path, len(f.Certificates))
			}
		}
	}
	if seen < 8 {
		t.Errorf("only %d volumes with a CA were seen", seen)
	}
}

// user is a person with a kubeconfig and a client certificate from the CSR API.
type user struct {
	bed    *bed
	config *rest.Config
	file   string
}

func newUser(ctx context.Context, t *testing.T, b *bed) *user {
	t.Helper()
	known, _ := b.Authorities.Known()
	u := &user{bed: b, file: t.TempDir() + "/user.kubeconfig"}
	certificate, key, err := access.ClientCertificatePEM(ctx, b.Client, "certrotation-test:user", "certrotation-test:probes")
	if err != nil {
		t.Fatal(err)
	}
	u.config = &rest.Config{Host: b.Live.Server, TLSClientConfig: rest.TLSClientConfig{CertData: certificate, KeyData: key, CAData: access.PEM(known[len(known)-1])}}
	if err := access.WriteKubeconfig(u.file, u.config); err != nil {
		t.Fatal(err)
	}
	return u
}

func (u *user) get() error {
	kubectl := &access.Kubectl{Kubeconfig: u.file}
	_, err := kubectl.Run(context.Background(), "-n", fixture.Namespace, "get", "serviceaccount", "prober")
	return err
}

func (u *user) works(t *testing.T) {
	if err := u.get(); err != nil {
		t.Error(err)
	}
}

// refused: by his own trust the server is a stranger; and when he trusts it, it does not know him.
func (u *user) refused(t *testing.T, authority *x509.Certificate) {
	if err := u.get(); err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("with the old trust kubectl says: %v", err)
	}
	u.config.CAData = access.PEM(authority)
	if err := access.WriteKubeconfig(u.file, u.config); err != nil {
		t.Fatal(err)
	}
	if err := u.get(); err == nil || !strings.Contains(err.Error(), "Unauthorized") && !strings.Contains(err.Error(), "must be logged in") {
		t.Errorf("with the old certificate and the new trust kubectl says: %v", err)
	}
}
