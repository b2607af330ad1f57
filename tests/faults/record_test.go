package faults

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"certrotation.dev/tests/faults/fault"
)

const (
	program = "/usr/local/bin/certrotation-test-proxy"
	port    = "7443"
)

// record is the proxy, and what it has told so far.
type record struct {
	in     io.WriteCloser
	mu     sync.Mutex
	list   []fault.Entry
	more   chan struct{}
	failed error
	ended  chan struct{}
}

// startProxy puts the proxy on a node and starts it; it ends with the test.
func startProxy(ctx context.Context, t *testing.T, node string) *record {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "proxy")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, "certrotation.dev/tests/faults/proxy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	for _, c := range []*exec.Cmd{build, exec.CommandContext(ctx, "docker", "cp", binary, node+":"+program)} {
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", c, err, out)
		}
	}
	r := &record{more: make(chan struct{}), ended: make(chan struct{})}
	if err := r.start(exec.Command("docker", "exec", "-i", node, program, "-listen", ":"+port)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.in.Close(); <-r.ended })
	if _, err := r.await(ctx, 0, func(e *fault.Entry) bool { return e.What == fault.Listening }); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *record) start(command *exec.Cmd) error {
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if r.in, err = command.StdinPipe(); err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	go func() {
		defer close(r.ended)
		broken := r.read(out)
		r.note(fmt.Errorf("the proxy has ended: %w", errors.Join(broken, command.Wait(), errors.New(strings.TrimSpace(stderr.String())))))
	}()
	return nil
}

func (r *record) read(out io.Reader) error {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e fault.Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("%w in %q", err, lines.Text())
		}
		r.mu.Lock()
		r.list = append(r.list, e)
		close(r.more)
		r.more = make(chan struct{})
		r.mu.Unlock()
	}
	return lines.Err()
}

func (r *record) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = err
	close(r.more)
	r.more = make(chan struct{})
}

// await waits for an entry from the index on, and gives the index after it.
func (r *record) await(ctx context.Context, from int, is func(*fault.Entry) bool) (int, error) {
	for {
		r.mu.Lock()
		fresh, more, failed := r.list[from:], r.more, r.failed
		r.mu.Unlock()
		for i := range fresh {
			from++
			if is(&fresh[i]) {
				return from, nil
			}
		}
		if failed != nil {
			return from, failed
		}
		select {
		case <-more:
		case <-ctx.Done():
			return from, fmt.Errorf("what was awaited of the proxy did not come: %w", ctx.Err())
		}
	}
}

// entries gives all from an index on.
func (r *record) entries(from int) []fault.Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]fault.Entry(nil), r.list[from:]...)
}

func (r *record) length() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.list)
}

// command is carried out when it returns.
func (r *record) command(ctx context.Context, t *testing.T, c fault.Command) {
	t.Helper()
	line, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	from := r.length()
	if _, err := r.in.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	if _, err := r.await(ctx, from, func(e *fault.Entry) bool { return e.What == fault.Obeyed && e.Note == c.Do }); err != nil {
		t.Fatal(err)
	}
}
