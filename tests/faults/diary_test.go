package faults

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// diary keeps every version of what a rotation's invariants speak of, as the API server itself sends them.
type diary struct {
	mu      sync.Mutex
	secrets []secretVersion
	bundles []bundleVersion
	pods    []podVersion
}

// secretVersion is one version of an authority's Secret: names of what is in it, nothing of the contents.
type secretVersion struct {
	at          time.Time
	name        string
	labels      map[string]string
	annotations map[string]string
	keys        map[string]bool
}

// bundleVersion is one version of a published bundle.
type bundleVersion struct {
	at     time.Time
	object string
	pem    string
}

// podVersion is one version of a pod.
type podVersion struct {
	at              time.Time
	namespace, name string
	uid, node       string
	created         time.Time
	phase           corev1.PodPhase
	mountsCA, gone  bool
	annotations     map[string]string
}

// keepDiary follows all of it until ctx ends; it returns after the first lists.
func keepDiary(ctx context.Context, client kubernetes.Interface) (*diary, error) {
	d := &diary{}
	one := func(name string) fields.Selector { return fields.OneTermEqualSelector(metav1.ObjectNameField, name) }
	for _, f := range []struct {
		resource, namespace string
		which               fields.Selector
		kind                runtime.Object
		take                func(object any, gone bool)
	}{
		{"secrets", nodesNamespace, fields.Everything(), &corev1.Secret{}, d.secret},
		{"configmaps", "", one("kube-root-ca.crt"), &corev1.ConfigMap{}, d.bundle},
		{"configmaps", "kube-public", one("cluster-info"), &corev1.ConfigMap{}, d.bundle},
		{"configmaps", "kube-system", one("extension-apiserver-authentication"), &corev1.ConfigMap{}, d.bundle},
		{"pods", "", fields.Everything(), &corev1.Pod{}, d.pod},
	} {
		lw := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), f.resource, f.namespace, f.which)
		_, informer := cache.NewInformerWithOptions(cache.InformerOptions{ListerWatcher: lw, ObjectType: f.kind,
			Handler: cache.ResourceEventHandlerFuncs{
				AddFunc:    func(o any) { f.take(o, false) },
				UpdateFunc: func(_, o any) { f.take(o, false) },
				DeleteFunc: func(o any) {
					if last, is := o.(cache.DeletedFinalStateUnknown); is {
						o = last.Obj
					}
					f.take(o, true)
				},
			}})
		go informer.RunWithContext(ctx)
		if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			return nil, fmt.Errorf("list of %s: %w", f.resource, ctx.Err())
		}
	}
	return d, nil
}

func (d *diary) secret(object any, gone bool) {
	s, ok := object.(*corev1.Secret)
	if !ok || gone {
		return
	}
	v := secretVersion{time.Now(), s.Name, s.Labels, s.Annotations, map[string]bool{}}
	for key := range s.Data {
		v.keys[key] = true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.secrets = append(d.secrets, v)
}

func (d *diary) bundle(object any, gone bool) {
	m, ok := object.(*corev1.ConfigMap)
	if !ok || gone {
		return
	}
	v := bundleVersion{time.Now(), m.Namespace + "/" + m.Name, bundleOf(m)}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bundles = append(d.bundles, v)
}

// bundleOf gives the authorities that a ConfigMap publishes, in PEM.
func bundleOf(m *corev1.ConfigMap) string {
	switch m.Name {
	case "kube-root-ca.crt":
		return m.Data["ca.crt"]
	case "extension-apiserver-authentication":
		return m.Data["client-ca-file"]
	}
	config, err := clientcmd.Load([]byte(m.Data["kubeconfig"]))
	if err != nil {
		return err.Error()
	}
	text := ""
	for _, c := range config.Clusters {
		text += string(c.CertificateAuthorityData)
	}
	return text
}

func (d *diary) pod(object any, gone bool) {
	p, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	v := podVersion{at: time.Now(), namespace: p.Namespace, name: p.Name, uid: string(p.UID), node: p.Spec.NodeName,
		created: p.CreationTimestamp.Time, phase: p.Status.Phase, gone: gone, annotations: p.Annotations}
	for _, volume := range p.Spec.Volumes {
		if volume.Projected == nil {
			continue
		}
		for _, source := range volume.Projected.Sources {
			v.mountsCA = v.mountsCA || source.ConfigMap != nil && source.ConfigMap.Name == "kube-root-ca.crt"
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pods = append(d.pods, v)
}

// pages gives all that was written down so far.
func (d *diary) pages() ([]secretVersion, []bundleVersion, []podVersion) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]secretVersion(nil), d.secrets...), append([]bundleVersion(nil), d.bundles...), append([]podVersion(nil), d.pods...)
}
