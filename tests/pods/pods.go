// Package pods follows the test workload's pods: which there were, whose they are, and what each one
// counted by itself, those that are gone included.
//
// Invariants:
//   - A pod is known by its uid, so one that was replaced under the same name is another.
//   - A count is the pod's own word: its HTTP answer while it runs, its termination message afterwards. A
//     pod whose count was not seen is an error, never a zero.
package pods

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Counts is what a pod of the workload says of itself.
type Counts struct {
	Pod                string    `json:"pod"`
	Started            time.Time `json:"started"`
	Calls              int       `json:"calls"`
	Failures           int       `json:"failures"`
	Unready            int       `json:"failuresBeforeFirstSuccess"`
	FirstSuccessMillis int64     `json:"firstSuccessMillis"`
	Watches            int       `json:"watches"`
	WatchEvents        int       `json:"watchEvents"`
	MaxMillis          int64     `json:"maxMillis"`
	LastError          string    `json:"lastError"`
	LastFailure        time.Time `json:"lastFailure"`
}

// Pod is one pod, as last seen.
type Pod struct {
	Namespace, Name, Node string
	UID                   types.UID
	Owner                 string // Deployment/namespace/name and the like; Pod/… for one that nobody owns
	Created               time.Time
	Gone                  time.Time // zero while it exists
	Containers            []string  // ids, in the order in which they were seen
	messages              map[string]string
	ready                 bool
}

// Book is what was seen.
type Book struct {
	mu     sync.Mutex
	pods   map[types.UID]*Pod
	owners map[types.UID]string // of ReplicaSets
	client kubernetes.Interface
}

// Label is on every pod of the workload.
const Label = "certrotation-test=workload"

// Follow keeps the book until ctx ends; it returns after the first list.
func Follow(ctx context.Context, client kubernetes.Interface) (*Book, error) {
	b := &Book{pods: map[types.UID]*Pod{}, owners: map[types.UID]string{}, client: client}
	options := func(o *metav1.ListOptions) { o.LabelSelector = Label }
	lw := cache.NewFilteredListWatchFromClient(client.CoreV1().RESTClient(), "pods", metav1.NamespaceAll, options)
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{ListerWatcher: lw, ObjectType: &corev1.Pod{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { b.see(ctx, o, false) },
			UpdateFunc: func(_, o any) { b.see(ctx, o, false) },
			DeleteFunc: func(o any) { b.see(ctx, o, true) },
		}})
	go informer.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return nil, fmt.Errorf("list of the workload's pods: %w", ctx.Err())
	}
	return b, nil
}

func (b *Book) see(ctx context.Context, object any, gone bool) {
	if last, is := object.(cache.DeletedFinalStateUnknown); is {
		object = last.Obj
	}
	p, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	owner := b.owner(ctx, p)
	b.mu.Lock()
	defer b.mu.Unlock()
	mine := b.pods[p.UID]
	if mine == nil {
		mine = &Pod{Namespace: p.Namespace, Name: p.Name, UID: p.UID, Created: p.CreationTimestamp.Time, messages: map[string]string{}}
		b.pods[p.UID] = mine
	}
	mine.Owner, mine.Node = owner, p.Spec.NodeName
	mine.update(p)
	if gone {
		mine.Gone = time.Now()
	}
}

func (p *Pod) update(object *corev1.Pod) {
	p.ready = false
	for _, c := range object.Status.Conditions {
		p.ready = p.ready || c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	}
	for _, s := range object.Status.ContainerStatuses {
		for _, t := range []*corev1.ContainerStateTerminated{s.LastTerminationState.Terminated, s.State.Terminated} {
			if t != nil {
				p.note(t.ContainerID)
				p.messages[t.ContainerID] = t.Message
			}
		}
		p.note(s.ContainerID)
	}
}

func (p *Pod) note(id string) {
	if id == "" {
		return
	}
	for _, have := range p.Containers {
		if have == id {
			return
		}
	}
	p.Containers = append(p.Containers, id)
}

// owner names what a person would restart: for a ReplicaSet its Deployment.
func (b *Book) owner(ctx context.Context, p *corev1.Pod) string {
	ref := metav1.GetControllerOf(p)
	if ref == nil {
		return "Pod/" + p.Namespace + "/" + p.Name
	}
	if ref.Kind != "ReplicaSet" {
		return ref.Kind + "/" + p.Namespace + "/" + ref.Name
	}
	b.mu.Lock()
	known := b.owners[ref.UID]
	b.mu.Unlock()
	if known != "" {
		return known
	}
	name := "ReplicaSet/" + p.Namespace + "/" + ref.Name
	if set, err := b.client.AppsV1().ReplicaSets(p.Namespace).Get(ctx, ref.Name, metav1.GetOptions{}); err == nil {
		if up := metav1.GetControllerOf(set); up != nil {
			name = up.Kind + "/" + p.Namespace + "/" + up.Name
		}
		b.mu.Lock()
		b.owners[ref.UID] = name
		b.mu.Unlock()
	}
	return name
}

// Pods gives all pods ever seen, in the order of their creation.
func (b *Book) Pods() []Pod {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []Pod
	for _, p := range b.pods {
		list = append(list, *p)
	}
	sort.Slice(list, func(i, j int) bool {
		if !list[i].Created.Equal(list[j].Created) {
			return list[i].Created.Before(list[j].Created)
		}
		return list[i].Name < list[j].Name
	})
	return list
}

// Unready names the pods that exist and are not ready.
func (b *Book) Unready() []string {
	var list []string
	for _, p := range b.Pods() {
		if p.Gone.IsZero() && !p.ready {
			list = append(list, p.Namespace+"/"+p.Name)
		}
	}
	return list
}

// Counts gives what each container of a pod counted.
func (b *Book) Counts(ctx context.Context, p Pod) ([]Counts, error) {
	var list []Counts
	for i, id := range p.Containers {
		text := p.messages[id]
		if text == "" && p.Gone.IsZero() && i == len(p.Containers)-1 {
			answer, err := b.client.CoreV1().Pods(p.Namespace).ProxyGet("http", p.Name, "8080", "/counts", nil).DoRaw(ctx)
			if err != nil {
				return nil, fmt.Errorf("count of %s/%s: %w", p.Namespace, p.Name, err)
			}
			text = string(answer)
		}
		var c Counts
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			return nil, fmt.Errorf("count of container %.24s of %s/%s is not known: %q: %w", id, p.Namespace, p.Name, text, err)
		}
		list = append(list, c)
	}
	return list, nil
}
