package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/story"
)

// TestRenewedAndBack takes a run of all three authorities back after kubeadm has renewed every certificate in the middle, with new keys,
// and a person has edited a kubeconfig: the certificates of before fit no key any more, so new ones must come from the old authorities,
// and every server must start with them.
func TestRenewedAndBack(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	b := open(ctx, t)
	o := &others{bed: b, plane: b.node(t, b.controlPlanes()[0]), worker: b.workers()[0]}
	before := o.script(ctx, t, authoritiesScript)
	o.walker = b.walk(ctx, t, "renewed", "approval: Manual", "authorities: [Kubernetes, FrontProxy, Etcd]")
	o.awaitGate(ctx, t, time.Now())
	o.learn(ctx, t)
	renewed := time.Now()
	o.run(ctx, t, o.plane, "kubeadm", "certs", "renew", "all")
	o.fallsBack(ctx, t, renewed, "ReissuingLeaves", o.plane)
	o.awaitHealed(ctx, t)
	o.script(ctx, t, `sed -i 's|server: .*|server: https://127.0.0.1:6443|' /etc/kubernetes/controller-manager.conf`)
	keys := o.script(ctx, t, keysScript)
	turned := o.set(ctx, t, `{"rollback":{"trigger":"renewed"}}`)
	o.await(ctx, t, turned, 10*time.Minute, "RolledBack", func(s *story.Status) bool { return s.Phase == "RolledBack" })
	t.Run("authorities are byte for byte as before", func(t *testing.T) {
		if now := o.script(ctx, t, authoritiesScript); now != before {
			t.Errorf("before:\n%s\nnow:\n%s", before, now)
		}
	})
	t.Run("keys are those that kubeadm has made", func(t *testing.T) {
		if now := o.script(ctx, t, keysScript); now != keys {
			t.Errorf("before:\n%s\nnow:\n%s", keys, now)
		}
	})
	t.Run("every certificate fits its key and is from the old authority", func(t *testing.T) { o.assertPairs(ctx, t) })
	t.Run("the edited kubeconfig keeps its edit, and has a certificate of the old authority", func(t *testing.T) { o.assertEdited(ctx, t) })
	t.Run("every server starts with them", func(t *testing.T) { o.assertStartsAnew(ctx, t) })
}

const (
	authoritiesScript = `cd /etc/kubernetes/pki && sha256sum ca.crt ca.key front-proxy-ca.crt front-proxy-ca.key etcd/ca.crt etcd/ca.key`
	keysScript        = `cd /etc/kubernetes/pki && sha256sum apiserver.key apiserver-kubelet-client.key apiserver-etcd-client.key front-proxy-client.key etcd/server.key etcd/peer.key etcd/healthcheck-client.key`
	// each line: file, and what is wrong with it
	pairsScript = `cd /etc/kubernetes/pki
of() { openssl "$@" | sha256sum; }
for pair in ca:apiserver ca:apiserver-kubelet-client front-proxy-ca:front-proxy-client etcd/ca:apiserver-etcd-client \
		etcd/ca:etcd/server etcd/ca:etcd/peer etcd/ca:etcd/healthcheck-client; do
	ca=${pair%%:*} leaf=${pair#*:}
	[ "$(of x509 -in "$leaf.crt" -noout -pubkey)" = "$(of pkey -in "$leaf.key" -pubout)" ] || echo "$leaf: certificate and key differ"
	openssl verify -CAfile "$ca.crt" "$leaf.crt" >/dev/null || echo "$leaf: not from $ca"
	[ "$(grep -c BEGIN "$leaf.crt")" = 1 ] || echo "$leaf: more than one certificate"
done`
	editedScript = `set -e; cd /tmp; conf=/etc/kubernetes/controller-manager.conf
sed -n 's/ *client-certificate-data: //p' $conf | base64 -d >edited.crt
sed -n 's/ *client-key-data: //p' $conf | base64 -d >edited.key
openssl verify -CAfile /etc/kubernetes/pki/ca.crt edited.crt
[ "$(openssl x509 -in edited.crt -noout -pubkey)" = "$(openssl pkey -in edited.key -pubout)" ]
sed -n 's/ *certificate-authority-data: //p' $conf | base64 -d | cmp - /etc/kubernetes/pki/ca.crt
rm edited.key
grep -q 'server: https://127.0.0.1:6443$' $conf`
)

// script runs on the control plane; its output.
func (o *others) script(ctx context.Context, t *testing.T, text string) string {
	t.Helper()
	out, err := o.plane.Run(ctx, "sh", "-c", text)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func (o *others) assertPairs(ctx context.Context, t *testing.T) {
	if wrong := o.script(ctx, t, pairsScript); wrong != "" {
		t.Error(wrong)
	}
}

func (o *others) assertEdited(ctx context.Context, t *testing.T) {
	if out, err := o.plane.Run(ctx, "sh", "-c", editedScript); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// running is the container of a static Pod that started last.
func (o *others) running(component string) string {
	id := ""
	for _, e := range o.bed.observer.Events() {
		if e.What == nodes.ContainerStarted && e.Container == component {
			id = e.ID
		}
	}
	return id
}

// assertStartsAnew kills what has read its files long ago, and sees it and what it talks to work again.
func (o *others) assertStartsAnew(ctx context.Context, t *testing.T) {
	waiting, end := within(ctx, t, 3*time.Minute)
	defer end()
	for _, component := range []string{"etcd", "kube-apiserver", "kube-controller-manager"} {
		id := o.running(component)
		if err := o.plane.Kill(ctx, id, "KILL"); err != nil {
			t.Fatalf("%s: %v", component, err)
		}
		if _, err := o.bed.observer.Await(waiting, func(e *nodes.Event) bool {
			return e.What == nodes.ContainerStarted && e.Container == component && e.ID != id
		}); err != nil {
			t.Fatalf("%s does not start again: %v", component, err)
		}
	}
	for _, path := range []string{"/readyz", "/api/v1/nodes/" + o.plane.Name + "/proxy/healthz", "/api/v1/nodes/" + o.worker.Name + "/proxy/healthz"} {
		o.awaitAnswer(waiting, t, path)
	}
	if _, err := o.bed.Kubectl.Run(waiting, "-n", "kube-system", "wait", "--for=condition=Ready", "pod", "-l", "tier=control-plane", "--timeout=120s"); err != nil {
		t.Error(err)
	}
}

func (o *others) awaitAnswer(ctx context.Context, t *testing.T, path string) {
	t.Helper()
	for {
		out, err := o.bed.Kubectl.Run(ctx, "get", "--raw", path)
		if err == nil && strings.TrimSpace(out) == "ok" {
			return
		}
		select {
		case <-ctx.Done():
			t.Errorf("%s: %q %v", path, out, err)
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
}
