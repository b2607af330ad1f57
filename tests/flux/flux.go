// Package flux puts Flux's kustomize-controller on a test cluster (./build makes its image), and plays the Git repository to it.
//
// Invariants:
//   - What reconciles is Flux's own program, with its own definitions. Its source-controller is not there: what it would have fetched is
//     served from here, and its status on the GitRepository is written from here.
//   - The repository is what Commit was last given.
package flux

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"certrotation.dev/tests/fixture"
)

//go:embed flux.yaml
var manifest string

// Of ./build, and the source-controller whose definitions go with it.
const (
	module  = "github.com/fluxcd/kustomize-controller@v1.7.3"
	sources = "github.com/fluxcd/source-controller@v1.8.5"
)

const (
	Namespace = "flux-system"
	Name      = "fleet" // of the GitRepository and the Kustomization
)

// Flux is one that runs on a cluster.
type Flux struct {
	cluster *fixture.Cluster
	server  string // where pods reach this process, host:port

	mu      sync.Mutex
	archive []byte
}

// Deploy brings it up. The repository is served on an address of this machine that the nodes reach.
func Deploy(ctx context.Context, c *fixture.Cluster, address string) (*Flux, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, err
	}
	f := &Flux{cluster: c, server: listener.Addr().String()}
	server := &http.Server{Handler: f, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }() // until it is closed
	context.AfterFunc(ctx, func() { _ = server.Close() })
	for _, m := range []string{module, sources} {
		if err := define(ctx, c, m); err != nil {
			return nil, err
		}
	}
	if _, err := c.Kubectl.Run(ctx, "wait", "--for=condition=Established", "--timeout=60s", "crd/kustomizations.kustomize.toolkit.fluxcd.io",
		"crd/gitrepositories.source.toolkit.fluxcd.io"); err != nil {
		return nil, err
	}
	if _, err := c.Kubectl.Apply(ctx, []byte(manifest)); err != nil {
		return nil, err
	}
	_, err = c.Kubectl.Run(ctx, "-n", Namespace, "rollout", "status", "deployment/kustomize-controller", "--timeout=180s")
	return f, err
}

// define applies a module's definitions. They are too long for what client-side apply notes on the object.
func define(ctx context.Context, c *fixture.Cluster, module string) error {
	command := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	command.Dir = os.TempDir() // of no module
	out, err := command.Output()
	if err != nil {
		return fmt.Errorf("go mod download %s: %w: %s", module, err, out)
	}
	var at struct{ Dir string }
	if err := json.Unmarshal(out, &at); err != nil {
		return err
	}
	_, err = c.Kubectl.Run(ctx, "apply", "--server-side", "-f", filepath.Join(at.Dir, "config/crd/bases"))
	return err
}

// ServeHTTP gives the repository's archive.
func (f *Flux) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, _ = w.Write(f.archive) // who is gone hears nothing
}

// Commit makes files the content of the repository, and says so as source-controller does. It gives the revision.
func (f *Flux) Commit(ctx context.Context, files map[string]string) (string, error) {
	archive, err := packed(files)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(archive)
	digest := hex.EncodeToString(sum[:])
	f.mu.Lock()
	f.archive = archive
	f.mu.Unlock()
	revision, now := "main@sha1:"+digest[:40], time.Now().UTC().Format(time.RFC3339)
	status, err := json.Marshal(map[string]any{"status": map[string]any{
		"observedGeneration": 1,
		"artifact": map[string]any{"digest": "sha256:" + digest, "revision": revision, "lastUpdateTime": now, "path": digest[:12] + ".tar.gz",
			"url": "http://" + f.server + "/" + digest[:12] + ".tar.gz", "size": len(archive)},
		"conditions": []any{map[string]any{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "stored " + revision,
			"observedGeneration": 1, "lastTransitionTime": now}}}})
	if err != nil {
		return "", err
	}
	_, err = f.cluster.Kubectl.Run(ctx, "-n", Namespace, "patch", "gitrepository", Name, "--subresource=status", "--type=merge", "-p", string(status))
	return revision, err
}

func packed(files map[string]string) ([]byte, error) {
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	archive := tar.NewWriter(zipped)
	for name, content := range files {
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: time.Now()}); err != nil {
			return nil, err
		}
		if _, err := archive.Write([]byte(content)); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	err := zipped.Close()
	return out.Bytes(), err
}

// Reconcile has Flux look again, and waits until it has done so. With a health check in the Kustomization that lasts as long as that does.
func (f *Flux) Reconcile(ctx context.Context) error {
	asked := time.Now().Format(time.RFC3339Nano)
	if _, err := f.cluster.Kubectl.Run(ctx, "-n", Namespace, "annotate", "--overwrite", "kustomization", Name, "reconcile.fluxcd.io/requestedAt="+asked); err != nil {
		return err
	}
	_, err := f.cluster.Kubectl.Run(ctx, "-n", Namespace, "wait", "--for=jsonpath={.status.lastHandledReconcileAt}="+asked, "--timeout=120s", "kustomization/"+Name)
	return err
}

// Says gives what the Kustomization says of itself: whether it is ready, the revision that it last applied, and its message.
func (f *Flux) Says(ctx context.Context) (ready bool, revision, message string, err error) {
	out, err := f.cluster.Kubectl.Run(ctx, "-n", Namespace, "get", "kustomization", Name, "-o",
		`jsonpath={.status.conditions[?(@.type=="Ready")].status}|{.status.lastAppliedRevision}|{.status.conditions[?(@.type=="Ready")].message}`)
	parts := strings.SplitN(out, "|", 3)
	if err != nil || len(parts) != 3 {
		return false, "", "", fmt.Errorf("%q: %w", out, err)
	}
	return parts[0] == "True", parts[1], parts[2], nil
}
