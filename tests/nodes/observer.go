package nodes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
)

// Observer collects the events of all nodes.
type Observer struct {
	mu     sync.Mutex
	events []Event
	more   chan struct{}
	failed error
	ending bool // on our word
	gone   map[string]bool
	stop   []func() error
}

// Observe starts on every node, and returns when all are at work.
func Observe(ctx context.Context, list []Node) (*Observer, error) {
	o := &Observer{more: make(chan struct{}), gone: map[string]bool{}}
	for _, n := range list {
		if err := o.start(n); err != nil {
			return nil, errors.Join(err, o.Stop())
		}
	}
	for _, n := range list {
		if _, err := o.Await(ctx, func(e *Event) bool { return e.What == Watching && e.Node == n.Name }); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", n.Name, err), o.Stop())
		}
	}
	return o, nil
}

// start runs the on-node program until its standard input is closed.
func (o *Observer) start(n Node) error {
	command := exec.Command("docker", "exec", "-i", n.Name, program, "follow")
	var stderr bytes.Buffer
	command.Stderr = &stderr
	in, err := command.StdinPipe()
	if err != nil {
		return err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		broken := o.read(n.Name, out)
		err := errors.Join(broken, command.Wait())
		o.note(n.Name, err, stderr.String())
		ended <- err
	}()
	o.stop = append(o.stop, func() error {
		if err := errors.Join(in.Close(), <-ended); !o.isGone(n.Name) {
			return err
		}
		return nil
	})
	return nil
}

// Forget says that the node is about to be removed: that no more comes from it is no failure.
func (o *Observer) Forget(node string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gone[node] = true
}

func (o *Observer) isGone(node string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.gone[node]
}

func (o *Observer) read(node string, out io.Reader) error {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("%w in %q", err, lines.Text())
		}
		e.Node = node
		o.mu.Lock()
		o.events = append(o.events, e)
		close(o.more)
		o.more = make(chan struct{})
		o.mu.Unlock()
	}
	return lines.Err()
}

func (o *Observer) note(node string, err error, stderr string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil && o.ending || o.gone[node] {
		return
	}
	o.failed = errors.Join(o.failed, fmt.Errorf("the observer on %s ended: %v %s", node, err, stderr))
	close(o.more)
	o.more = make(chan struct{})
}

// Stop ends all; an observer that had ended before is an error.
func (o *Observer) Stop() error {
	o.mu.Lock()
	o.ending = true
	o.mu.Unlock()
	var all error
	for _, stop := range o.stop {
		all = errors.Join(all, stop())
	}
	o.stop = nil
	return errors.Join(all, o.Err())
}

// Err is not nil when an observer ended too early: then events are missing.
func (o *Observer) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}

// Events gives all so far, in the order of their arrival.
func (o *Observer) Events() []Event {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]Event(nil), o.events...)
}

// Select gives those for which keep is true.
func (o *Observer) Select(keep func(*Event) bool) []Event {
	var some []Event
	for _, e := range o.Events() {
		if keep(&e) {
			some = append(some, e)
		}
	}
	return some
}

// Await waits for an event, past ones included, and gives the first.
func (o *Observer) Await(ctx context.Context, is func(*Event) bool) (Event, error) {
	for next := 0; ; {
		o.mu.Lock()
		fresh, more, failed := o.events[next:], o.more, o.failed
		next = len(o.events)
		o.mu.Unlock()
		for i := range fresh {
			if e := fresh[i]; is(&e) {
				return e, nil
			}
		}
		if failed != nil {
			return Event{}, failed
		}
		select {
		case <-more:
		case <-ctx.Done():
			return Event{}, fmt.Errorf("the event did not come: %w", ctx.Err())
		}
	}
}
