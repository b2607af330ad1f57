package nodes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"

	"certrotation.dev/tests/snapshot"
)

// program is where the on-node program is put; no component looks there.
const program = "/usr/local/bin/certrotation-test-onnode"

// Node is one node of a kind cluster, which is a container of that name.
type Node struct{ Name string }

// List finds the nodes of a cluster, load balancers aside.
func List(ctx context.Context, cluster string) ([]Node, error) {
	out, err := run(ctx, nil, "docker", "ps", "--filter", "label=io.x-k8s.kind.cluster="+cluster, "--format",
		`{{.Names}} {{.Label "io.x-k8s.kind.role"}}`)
	if err != nil {
		return nil, err
	}
	var list []Node
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		if fields := strings.Fields(line); len(fields) == 2 && (fields[1] == "control-plane" || fields[1] == "worker") {
			list = append(list, Node{fields[0]})
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no container is a node of the cluster %q; is it up?", cluster)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list, nil
}

func run(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	if stdin != nil {
		command.Stdin = bytes.NewReader(stdin)
	}
	out, err := command.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(append([]string{name}, args...), " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, err
}

// Run runs a command on the node and gives what it prints on standard output.
func (n Node) Run(ctx context.Context, command ...string) ([]byte, error) {
	return run(ctx, nil, "docker", append([]string{"exec", n.Name}, command...)...)
}

// Feed runs a command on the node with something on its standard input.
func (n Node) Feed(ctx context.Context, stdin []byte, command ...string) error {
	_, err := run(ctx, stdin, "docker", append([]string{"exec", "-i", n.Name}, command...)...)
	return err
}

// Install builds the on-node program once and puts it on every node.
func Install(ctx context.Context, list []Node) error {
	folder, err := os.MkdirTemp("", "onnode")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	binary := filepath.Join(folder, "onnode")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, "certrotation.dev/tests/onnode")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	for _, n := range list {
		if _, err := run(ctx, nil, "docker", "cp", binary, n.Name+":"+program); err != nil {
			return err
		}
	}
	return nil
}

// Snapshot describes the node's files.
func (n Node) Snapshot(ctx context.Context) (*snapshot.Node, error) {
	out, err := n.Run(ctx, program, "snapshot")
	if err != nil {
		return nil, err
	}
	taken := &snapshot.Node{}
	if err := json.Unmarshal(out, taken); err != nil {
		return nil, fmt.Errorf("%s: %w", n.Name, err)
	}
	taken.Name = n.Name
	return taken, nil
}

// Kill signals the first process of a container on the node ("KILL", "TERM", "STOP", "CONT").
func (n Node) Kill(ctx context.Context, container, signal string) error {
	_, err := n.Run(ctx, program, "kill", container, signal)
	return err
}

// Swap exchanges the content of two files; the first one's by a rename. Done twice, all is as before.
func (n Node) Swap(ctx context.Context, file, other string) error {
	_, err := n.Run(ctx, program, "swap", file, other)
	return err
}

// Invocation is systemd's id of the present run of a unit.
func (n Node) Invocation(ctx context.Context, unit string) (string, error) {
	out, err := n.Run(ctx, "systemctl", "show", "-p", "InvocationID", "--value", unit)
	return strings.TrimSpace(string(out)), err
}

// Write puts a file on the node.
func (n Node) Write(ctx context.Context, path string, content []byte) error {
	return n.Feed(ctx, content, "sh", "-c", `cat > "$0"`, path)
}
