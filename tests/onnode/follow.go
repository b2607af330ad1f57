package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"certrotation.dev/tests/nodes"
)

// teller writes events, one per line.
type teller struct {
	mu  sync.Mutex
	out *json.Encoder
}

func (t *teller) tell(e nodes.Event) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.out.Encode(e); err != nil {
		os.Exit(1) // nobody listens any more
	}
}

// follow runs the observers until standard input ends or one of them fails.
func follow() error {
	t := &teller{out: json.NewEncoder(os.Stdout)}
	failed := make(chan error, 8)
	nudge := make(chan struct{}, 1)
	observers := []func(ready func()) error{
		func(ready func()) error { return followContainers(t, ready) },
		func(ready func()) error { return followFiles(t, nudge, ready) },
		func(ready func()) error { return followProcess(t, "kubelet", ready) },
		func(ready func()) error { return followVolumes(t, ready) },
		func(ready func()) error { return followServers(t, nudge, ready) },
		func(ready func()) error { return followMemory(t, "certrotation-system", ready) },
	}
	var ready sync.WaitGroup
	for _, observe := range observers {
		ready.Add(1)
		go func() { failed <- observe(sync.OnceFunc(ready.Done)) }()
	}
	begun := make(chan struct{})
	go func() { ready.Wait(); t.tell(nodes.Event{What: nodes.Watching}); close(begun) }()
	ended := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, os.Stdin); ended <- err }()
	select {
	case err := <-failed:
		return errors.Join(err, errors.New("an observer ended"))
	case err := <-ended:
		return err
	}
}

// every calls look now and then once per period; the first error ends it.
func every(period time.Duration, ready func(), look func() error) error {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		if err := look(); err != nil {
			return err
		}
		ready()
		<-ticker.C
	}
}
