package main

import (
	"crypto/sha256"
	"strings"
	"sync"
	"time"

	"certrotation.dev/tests/faults/fault"
)

// gate holds one write back, and listens to one pod.
type gate struct {
	tell func(fault.Entry)

	mu       sync.Mutex
	pod      string
	left     int           // writes until the one that is held; 0: none is
	open     chan struct{} // closed to let it go
	listened string
}

func (g *gate) hold(pod string, nth int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pod, g.left, g.open = pod, nth, make(chan struct{})
}

func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left = 0
	if g.open != nil {
		close(g.open)
		g.open = nil
	}
}

func (g *gate) listen(pod string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.listened = pod
}

func aboutLease(object string) bool { return strings.Contains(object, "/leases") }

// hear tells of a request of the pod that is listened to.
func (g *gate) hear(e *fault.Entry) {
	g.mu.Lock()
	mine := g.listened != "" && e.Pod == g.listened
	g.mu.Unlock()
	if mine {
		heard := *e
		heard.What = fault.Heard
		g.tell(heard)
	}
}

// pass waits if this is the write to be held.
func (g *gate) pass(e *fault.Entry) {
	if e.Class != fault.Write || aboutLease(e.Object) {
		return
	}
	g.mu.Lock()
	mine := g.left > 0 && e.Pod == g.pod
	if mine {
		g.left--
	}
	held, open := mine && g.left == 0, g.open
	g.mu.Unlock()
	if !held {
		return
	}
	told := *e
	told.What = fault.Holding
	g.tell(told)
	<-open
}

// tokens makes tokens expire: each that was seen, until its pod comes with another one.
type tokens struct {
	tell func(fault.Entry)

	mu      sync.Mutex
	seen    map[[32]byte]string // pod
	expired map[[32]byte]bool
}

func (t *tokens) expire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expired = map[[32]byte]bool{}
	for sum := range t.seen {
		t.expired[sum] = true
	}
}

// refuses reports whether the token has expired. One that is new renews its pod: kubelets put the old one back some day.
func (t *tokens) refuses(token, pod string) bool {
	if token == "" {
		return false
	}
	sum := sha256.Sum256([]byte(token))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.expired[sum] {
		return true
	}
	if t.seen == nil {
		t.seen = map[[32]byte]string{}
	}
	if _, known := t.seen[sum]; !known {
		t.seen[sum] = pod
		t.renew(pod)
	}
	return false
}

func (t *tokens) renew(pod string) {
	renewed := false
	for sum, of := range t.seen {
		if of == pod && t.expired[sum] {
			delete(t.expired, sum)
			renewed = true
		}
	}
	if renewed {
		t.tell(fault.Entry{What: fault.Renewed, Pod: pod, At: time.Now()})
	}
}
