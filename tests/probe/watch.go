package probe

import (
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Break is the end of something that was meant to stay open.
type Break struct {
	What   string    `json:"what"`
	Node   string    `json:"node,omitempty"`
	Opened time.Time `json:"opened"`
	At     time.Time `json:"at"`
	Error  string    `json:"error"`
}

func (b Break) String() string {
	return fmt.Sprintf("%s (node %q), open since %s, ended at %s: %s", b.What, b.Node, b.Opened.Format("15:04:05.000"), b.At.Format("15:04:05.000"), b.Error)
}

// Held keeps something open, opens it again whenever it ends, and remembers each end.
type Held struct {
	mu     sync.Mutex
	breaks []Break
	opened int
	seen   int
}

// Breaks gives each end so far.
func (h *Held) Breaks() []Break {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Break(nil), h.breaks...)
}

// Seen is how many messages came through, and how often it was opened.
func (h *Held) Seen() (messages, opened int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen, h.opened
}

func (h *Held) message() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen++
}

// keep opens again and again until ctx ends. open says by the callback that it is open, and returns
// when it is not any more.
func (h *Held) keep(ctx context.Context, what, node string, open func(ctx context.Context, opened func()) error) {
	for ctx.Err() == nil {
		var since time.Time
		err := open(ctx, func() {
			since = time.Now()
			h.mu.Lock()
			h.opened++
			h.mu.Unlock()
		})
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = fmt.Errorf("ended without an error")
		}
		h.mu.Lock()
		h.breaks = append(h.breaks, Break{What: what, Node: node, Opened: since, At: time.Now(), Error: err.Error()})
		h.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// HoldWatch keeps one watch of a namespace's ConfigMaps open until ctx ends. The server closes a watch
// by itself after half an hour to an hour; a run is shorter.
func HoldWatch(ctx context.Context, config func() *rest.Config, namespace string) *Held {
	held := &Held{}
	go held.keep(ctx, "watch", "", func(ctx context.Context, opened func()) error {
		client, done, err := freshClient(config())
		if err != nil {
			return err
		}
		defer done()
		return watchOnce(ctx, client, namespace, opened, held.message)
	})
	return held
}

func watchOnce(ctx context.Context, client kubernetes.Interface, namespace string, opened, message func()) error {
	watch, err := client.CoreV1().ConfigMaps(namespace).Watch(ctx, metav1.ListOptions{AllowWatchBookmarks: true})
	if err != nil {
		return err
	}
	defer watch.Stop()
	opened()
	for event := range watch.ResultChan() {
		if event.Type == "ERROR" {
			return fmt.Errorf("the server sent an error: %v", event.Object)
		}
		message()
	}
	return nil
}
