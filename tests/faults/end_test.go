package faults

import (
	"context"
	"fmt"
	"regexp"
	"sort"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"certrotation.dev/tests/access"
	"certrotation.dev/tests/snapshot"
)

// endState describes everything that a run may have changed, a line each, so that two runs' can be compared: their names, keys,
// serials and times aside.
func (r *rotation) endState(ctx context.Context, t *testing.T) []string {
	t.Helper()
	var list []string
	add := func(format string, args ...any) { list = append(list, r.plain(fmt.Sprintf(format, args...))) }
	for name, node := range r.after {
		r.describeNode(name, node, add)
	}
	r.describeBundles(ctx, t, add)
	r.describeSecrets(ctx, t, add)
	r.describeWorkloads(ctx, t, add)
	r.describeStatus(add)
	sort.Strings(list)
	return list
}

type adder func(format string, args ...any)

// transient is what kubelets write for themselves all the time.
var transient = regexp.MustCompile(`^/var/lib/kubelet/(pods|plugins|plugins_registry|device-plugins|pod-resources|checkpoints)(/|$)|_state$|/kubelet-(client|server)-\d{4}-`)

func (r *rotation) describeNode(name string, node *snapshot.Node, add adder) {
	old := snapshot.Of(r.old)
	for _, trace := range node.Traces(old) {
		add("%s: of the old authority: %s", name, trace)
	}
	for i := range node.Files {
		f := &node.Files[i]
		if transient.MatchString(f.Path) {
			continue
		}
		add("%s: %s is a %s, %s, %d:%d", name, f.Path, f.Type, f.Mode, f.UID, f.GID)
		rotated := false
		for j := range f.Certificates {
			rotated = r.describeCertificate(name, f, &f.Certificates[j], add) || rotated
		}
		for j := range f.Keys {
			add("%s: %s %s: a key", name, f.Path, f.Keys[j].Place)
			rotated = rotated || snapshot.Of(r.new).Holds(&f.Keys[j])
		}
		if f.Type == "file" && !rotated {
			add("%s: %s holds %s", name, f.Path, f.SHA256)
		}
	}
}

// describeCertificate is true for what is the new authority's.
func (r *rotation) describeCertificate(name string, f *snapshot.File, c *snapshot.Certificate, add adder) bool {
	new := snapshot.Of(r.new)
	whose, subject := "another's", c.Subject
	switch {
	case new.Trusts(c):
		whose, subject = "the new authority", ""
	case new.Issued(c):
		whose = "issued by the new authority"
	}
	add("%s: %s %s: %s %s, names %v, usages %v", name, f.Path, c.Place, whose, subject, c.Names, c.Usages)
	return whose != "another's"
}

func (r *rotation) describeBundles(ctx context.Context, t *testing.T, add adder) {
	t.Helper()
	maps, err := r.bed.Client.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range maps.Items {
		switch m.Name {
		case "kube-root-ca.crt", "cluster-info", "extension-apiserver-authentication":
			list, err := access.Certificates([]byte(bundleOf(&m)))
			add("ConfigMap %s/%s: rank %d, %v, keys %v", m.Namespace, m.Name, r.rank(list), err, sorted(m.Data))
		}
	}
}

func (r *rotation) describeSecrets(ctx context.Context, t *testing.T, add adder) {
	t.Helper()
	secrets, err := r.bed.Client.CoreV1().Secrets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range secrets.Items {
		if s.Type == corev1.SecretTypeServiceAccountToken {
			list, err := access.Certificates(s.Data["ca.crt"])
			add("Secret %s/%s: rank %d, %v", s.Namespace, s.Name, r.rank(list), err)
			continue
		}
		if role := s.Labels[labelRole]; role != "" && s.Labels[labelRun] != r.id {
			if s.Data["tls.key"] != nil || role != "retired" || len(s.Data) > 0 {
				add("Secret %s/%s of an earlier run: role %s, %v", s.Namespace, s.Name, role, sorted(s.Data))
			}
			continue
		}
		if strings.HasPrefix(s.Namespace, "certrotation-") || s.Namespace == "kube-system" {
			add("Secret %s/%s: labels %v, annotations %v, keys %v", s.Namespace, s.Name, s.Labels, sorted(s.Annotations), sorted(s.Data))
		}
	}
	pods, err := r.bed.Client.CoreV1().Pods(nodesNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods.Items {
		add("node Pod %s is left", p.Name)
	}
}

func (r *rotation) describeWorkloads(ctx context.Context, t *testing.T, add adder) {
	t.Helper()
	out := r.bed.kubectl(ctx, t, "get", "deployments,daemonsets", "-A", "-o",
		`jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name}: {.spec.template.metadata.annotations.certrotation\.dev/restarted-for-run}{"\n"}{end}`)
	for _, line := range strings.Split(out, "\n") {
		add("%s", line)
	}
}

func (r *rotation) describeStatus(add adder) {
	s := r.versions[len(r.versions)-1].Status
	add("status: phase %s, waiting for %q, %d blockers, run %s", s.Phase, s.WaitingFor, len(s.Blockers), s.Run.Trigger)
	for _, c := range s.Conditions {
		add("status: %s %s %s: %s", c.Type, c.Status, c.Reason, c.Message)
	}
	for _, h := range s.History[max(0, len(s.History)-1):] {
		add("status: the last run was %s, %s", h.Trigger, h.Result)
	}
	for _, a := range s.Authorities {
		add("status: authority %s, current is the new one: %v, next %q", a.Name,
			strings.EqualFold(strings.ReplaceAll(a.Current.Fingerprint, ":", ""), snapshot.Fingerprint(r.new)), a.Next.Fingerprint)
	}
}
