package access

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Kubectl runs the real program. Server, if set, is used without any kubeconfig (see Live.Proxy).
type Kubectl struct {
	Program    string // "kubectl" if empty
	Kubeconfig string
	Server     string
}

func (k *Kubectl) command(ctx context.Context, args ...string) *exec.Cmd {
	program := k.Program
	if program == "" {
		program = "kubectl"
	}
	if k.Server != "" {
		args = append([]string{"--server=" + k.Server, "--kubeconfig=/dev/null"}, args...)
	} else {
		args = append([]string{"--kubeconfig=" + k.Kubeconfig}, args...)
	}
	command := exec.CommandContext(ctx, program, args...)
	command.Env = append(os.Environ(), "KUBECONFIG=")
	return command
}

// Run gives what kubectl prints on standard output.
func (k *Kubectl) Run(ctx context.Context, args ...string) (string, error) {
	return k.run(ctx, nil, args...)
}

// Apply applies a manifest and gives what kubectl says of it.
func (k *Kubectl) Apply(ctx context.Context, manifest []byte) (string, error) {
	return k.run(ctx, manifest, "apply", "-f", "-")
}

func (k *Kubectl) run(ctx context.Context, stdin []byte, args ...string) (string, error) {
	command := k.command(ctx, args...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	if stdin != nil {
		command.Stdin = bytes.NewReader(stdin)
	}
	out, err := command.Output()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), err
}
