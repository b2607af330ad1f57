package probe

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Writer counts in a ConfigMap, one write after the other, each in a new connection: write n sets `count`
// and adds a key of its own, so that each write that was acknowledged can be looked for. A number is written
// once: one that failed is not tried again, and may or may not be there.
type Writer struct {
	Config          func() *rest.Config // called for each write; its clients must share no connection
	Namespace, Name string
	Rate            float64 // writes a second, as long as each ends in its turn
	Phase           func() string

	mu   sync.Mutex
	done []Write
}

// Write is one write and its result.
type Write struct {
	Key     string
	Started time.Time
	Took    time.Duration
	Version string // the resourceVersion that was acknowledged
	Error   string
	Phase   string
}

func (w Write) String() string {
	return fmt.Sprintf("%s %s in phase %q after %.1f ms: %s", w.Started.Format("15:04:05.000"), w.Key, w.Phase, millis(w.Took), w.Error)
}

// Create makes the ConfigMap anew, empty.
func (w *Writer) Create(ctx context.Context) error {
	client, done, err := freshClient(w.Config())
	if err != nil {
		return err
	}
	defer done()
	configMaps := client.CoreV1().ConfigMaps(w.Namespace)
	if err := configMaps.Delete(ctx, w.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	_, err = configMaps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: w.Name}}, metav1.CreateOptions{})
	return err
}

// Run writes until ctx ends; the write that is under way then is finished.
func (w *Writer) Run(ctx context.Context) {
	ticker := time.NewTicker(time.Duration(float64(time.Second) / w.Rate))
	defer ticker.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		w.one(n)
	}
}

func (w *Writer) one(n int) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	result := Write{Key: fmt.Sprintf("write-%06d", n), Started: time.Now()}
	var err error
	result.Version, err = w.write(ctx, n, result.Key)
	result.Took = time.Since(result.Started)
	if err != nil {
		result.Error = err.Error()
	}
	if w.Phase != nil {
		result.Phase = w.Phase()
	}
	w.mu.Lock()
	w.done = append(w.done, result)
	w.mu.Unlock()
}

func (w *Writer) write(ctx context.Context, n int, key string) (string, error) {
	client, done, err := freshClient(w.Config())
	if err != nil {
		return "", err
	}
	defer done()
	patch, err := json.Marshal(map[string]any{"data": map[string]string{"count": fmt.Sprint(n), key: ""}})
	if err != nil {
		return "", err
	}
	written, err := client.CoreV1().ConfigMaps(w.Namespace).Patch(ctx, w.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return "", err
	}
	return written.ResourceVersion, nil
}

// Done gives all writes that have a result.
func (w *Writer) Done() []Write {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Write(nil), w.done...)
}

// Failed gives those that were not acknowledged.
func (w *Writer) Failed() []Write {
	var list []Write
	for _, one := range w.Done() {
		if one.Error != "" {
			list = append(list, one)
		}
	}
	return list
}

// Lost reads back through a client, and names the acknowledged writes that are not there.
func (w *Writer) Lost(ctx context.Context, client kubernetes.Interface) ([]string, error) {
	now, err := client.CoreV1().ConfigMaps(w.Namespace).Get(ctx, w.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	var lost []string
	for _, one := range w.Done() {
		if _, there := now.Data[one.Key]; !there && one.Error == "" {
			lost = append(lost, fmt.Sprintf("%s, acknowledged at %s as resourceVersion %s", one.Key, one.Started.Add(one.Took).Format("15:04:05.000"), one.Version))
		}
	}
	return lost, nil
}
