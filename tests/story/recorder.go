package story

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Resource is the CertificateRotation's.
var Resource = schema.GroupVersionResource{Group: "certrotation.dev", Version: "v1alpha1", Resource: "certificaterotations"}

// Event is one Event about the rotation, each time it was counted.
type Event struct {
	At                    time.Time `json:"at"`
	Name                  string    `json:"name"`
	Type, Reason, Message string
	Count                 int32
}

// Leader is a change of the Lease's holder.
type Leader struct {
	At     time.Time `json:"at"`
	Holder string    `json:"holder"`
}

// Recorder follows one CertificateRotation.
type Recorder struct {
	name     string
	mu       sync.Mutex
	versions []Version
	events   []Event
	leaders  []Leader
	broken   []error
	more     chan struct{}
}

// Lease is where the controller's replicas agree on who leads.
type Lease struct{ Namespace, Name string }

// Record follows the resource of that name (it need not exist yet), its Events and the Lease until ctx ends.
func Record(ctx context.Context, d dynamic.Interface, k kubernetes.Interface, name string, lease Lease) (*Recorder, error) {
	r := &Recorder{name: name, more: make(chan struct{})}
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(d, 0, metav1.NamespaceAll, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	})
	rotation := factory.ForResource(Resource).Informer()
	if _, err := rotation.AddEventHandler(handler(r.version)); err != nil {
		return nil, err
	}
	events := informer(k.CoreV1().RESTClient(), "events", "", fields.OneTermEqualSelector("involvedObject.kind", "CertificateRotation"), &corev1.Event{}, r.event)
	leases := informer(k.CoordinationV1().RESTClient(), "leases", lease.Namespace, fields.OneTermEqualSelector(metav1.ObjectNameField, lease.Name), &coordinationv1.Lease{}, r.lease)
	for _, c := range []cache.Controller{rotation, events, leases} {
		go c.RunWithContext(ctx)
		if !cache.WaitForCacheSync(ctx.Done(), c.HasSynced) {
			return nil, fmt.Errorf("the recorder of %s did not start: %w", name, ctx.Err())
		}
	}
	return r, nil
}

func handler(take func(any)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{AddFunc: take, UpdateFunc: func(_, now any) { take(now) }}
}

func informer(client cache.Getter, resource, namespace string, which fields.Selector, kind runtime.Object, take func(any)) cache.Controller {
	_, c := cache.NewInformerWithOptions(cache.InformerOptions{ObjectType: kind, Handler: handler(take),
		ListerWatcher: cache.NewListWatchFromClient(client, resource, namespace, which)})
	return c
}

func (r *Recorder) version(object any) {
	u, ok := object.(*unstructured.Unstructured)
	if !ok {
		return
	}
	v, err := readVersion(u)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.broken = append(r.broken, fmt.Errorf("status at resourceVersion %s can't be read: %w", v.ResourceVersion, err))
	}
	if n := len(r.versions); n > 0 && r.versions[n-1].ResourceVersion == v.ResourceVersion {
		return // the same, sent again after a new list
	}
	r.versions = append(r.versions, v)
	close(r.more)
	r.more = make(chan struct{})
}

func (r *Recorder) event(object any) {
	e, ok := object.(*corev1.Event)
	if !ok || e.InvolvedObject.Name != r.name {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, Event{At: time.Now(), Name: e.Name, Type: e.Type, Reason: e.Reason, Message: e.Message, Count: max(e.Count, 1)})
}

func (r *Recorder) lease(object any) {
	l, ok := object.(*coordinationv1.Lease)
	if !ok {
		return
	}
	holder := ""
	if l.Spec.HolderIdentity != nil {
		// "<pod>_<random>": a process that was started again is another candidate, in the same pod.
		holder, _, _ = strings.Cut(*l.Spec.HolderIdentity, "_")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.leaders); n == 0 || r.leaders[n-1].Holder != holder {
		r.leaders = append(r.leaders, Leader{At: time.Now(), Holder: holder})
	}
}

// Versions gives all versions so far.
func (r *Recorder) Versions() []Version {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Version(nil), r.versions...)
}

// Events gives all Events so far.
func (r *Recorder) Events() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Event(nil), r.events...)
}

// Leaders gives each holder of the Lease so far; "" where nobody held it.
func (r *Recorder) Leaders() []Leader {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Leader(nil), r.leaders...)
}

// Broken gives what could not be read.
func (r *Recorder) Broken() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]error(nil), r.broken...)
}

// Phase is the phase just now; it does not block for long.
func (r *Recorder) Phase() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.versions); n > 0 {
		return r.versions[n-1].Status.Phase
	}
	return ""
}

// Await waits for a version, past ones from the index on included; it gives the version and its index.
func (r *Recorder) Await(ctx context.Context, from int, is func(*Version) bool) (Version, int, error) {
	for next := from; ; {
		r.mu.Lock()
		for ; next < len(r.versions); next++ {
			if v := r.versions[next]; is(&v) {
				r.mu.Unlock()
				return v, next, nil
			}
		}
		more := r.more
		r.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return Version{}, 0, fmt.Errorf("%w; status is: %s", ctx.Err(), r.tell())
		}
	}
}

func (r *Recorder) tell() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.versions); n > 0 {
		return r.versions[n-1].Status.Tell()
	}
	return "there is no such object"
}

// Stay is a time in one phase.
type Stay struct {
	Phase string    `json:"phase"`
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
}

// Stays gives the phases of the versions in their order.
func Stays(versions []Version) []Stay {
	var list []Stay
	for _, v := range versions {
		if v.Status.Phase == "" {
			continue
		}
		if n := len(list); n > 0 {
			list[n-1].To = v.At
			if list[n-1].Phase == v.Status.Phase {
				continue
			}
		}
		list = append(list, Stay{Phase: v.Status.Phase, From: v.At, To: v.At})
	}
	return list
}
