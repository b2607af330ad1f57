package faults

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"certrotation.dev/tests/faults/fault"
	"certrotation.dev/tests/snapshot"
	"certrotation.dev/tests/story"
)

// rotation is one run under faults, with all that was seen of it.
type rotation struct {
	bed     *bed
	name    string // trigger, and name of the schedule
	id      string
	old     *x509.Certificate
	new     *x509.Certificate
	before  map[string]*snapshot.Node
	after   map[string]*snapshot.Node
	applied time.Time
	ended   time.Time
	paused  *pause

	firstVersion, firstEntry int
	versions                 []story.Version
	entries                  []fault.Entry
	end                      []string // state, normalized
	writes                   map[string]*writes
}

// rotate makes one whole run while the kinds strike; during, if not nil, is what else happens meanwhile.
func (b *bed) rotate(ctx context.Context, t *testing.T, name string, seed int64, kinds []fault.Kind, during func(*rotation)) *rotation {
	t.Helper()
	published := b.Authorities.Published()
	if len(published) != 1 {
		t.Fatalf("the cluster publishes %d authorities; before a run it should be one", len(published))
	}
	r := &rotation{bed: b, name: name, old: published[0], before: b.snapshots(ctx, t)}
	r.firstVersion, r.firstEntry = len(b.recorder.Versions()), b.proxy.length()
	b.proxy.command(ctx, t, fault.Command{Do: fault.Begin, Name: name, Seed: seed, Kinds: kinds})
	r.applied = time.Now()
	say("%s: seed %d, %v", name, seed, kinds)
	b.apply(ctx, t, fmt.Appendf(nil, "apiVersion: certrotation.dev/v1alpha1\nkind: CertificateRotation\nmetadata: {name: %s}\nspec: {trigger: %q}\n", rotationName, name))
	if during != nil {
		during(r)
	}
	r.finish(ctx, t)
	return r
}

// finish waits for the end, ends the faults, and collects.
func (r *rotation) finish(ctx context.Context, t *testing.T) {
	t.Helper()
	waiting, end := within(ctx, t, 8*time.Minute)
	defer end()
	said := ""
	_, _, err := r.bed.recorder.Await(waiting, r.firstVersion, func(v *story.Version) bool {
		if v.Status.Run.Trigger == r.name && v.Status.Phase != said {
			said = v.Status.Phase
			say("%s: %s after %.0f s", r.name, said, v.At.Sub(r.applied).Seconds())
		}
		return v.Done(r.name)
	})
	r.bed.proxy.command(ctx, t, fault.Command{Do: fault.Begin})
	if err != nil {
		t.Fatal(err)
	}
	r.settle(waiting, t)
	r.collect(ctx, t)
}

// settle waits until nothing more is done: no node Pod is left, and the status stays as it is.
func (r *rotation) settle(ctx context.Context, t *testing.T) {
	t.Helper()
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	versions, since := 0, time.Now()
	for {
		if n := len(r.bed.recorder.Versions()); n != versions {
			versions, since = n, time.Now()
		}
		left := r.bed.kubectl(ctx, t, "-n", nodesNamespace, "get", "pods", "-o", "name")
		if left == "" && time.Since(since) > 4*time.Second {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: it does not come to rest; in %s: %q", r.name, nodesNamespace, left)
		case <-ticker.C:
		}
	}
}

func (b *bed) snapshots(ctx context.Context, t *testing.T) map[string]*snapshot.Node {
	t.Helper()
	all := map[string]*snapshot.Node{}
	for _, n := range b.nodes {
		taken, err := n.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		all[n.Name] = taken
	}
	return all
}

func (r *rotation) collect(ctx context.Context, t *testing.T) {
	t.Helper()
	r.ended = time.Now()
	r.after = r.bed.snapshots(ctx, t)
	for _, v := range r.bed.recorder.Versions()[r.firstVersion:] {
		if v.Status.Run.Trigger == r.name {
			r.versions = append(r.versions, v)
		}
	}
	for _, v := range r.versions {
		if v.Status.Run.ID != "" {
			r.id = v.Status.Run.ID
		}
	}
	if published := r.bed.Authorities.Published(); len(published) == 1 {
		r.new = published[0]
	}
	if r.new == nil || r.new.Equal(r.old) || r.id == "" {
		t.Fatalf("%s: no other authority is published, or no run had an id (%q)", r.name, r.id)
	}
	r.entries = r.bed.proxy.entries(r.firstEntry)
	r.save(t)
	r.writes = countWrites(r)
	r.end = r.endState(ctx, t)
}

// save keeps the proxy's record, for whoever looks into a run afterwards: FAULTS_RECORDS names the folder.
func (r *rotation) save(t *testing.T) {
	t.Helper()
	folder := os.Getenv("FAULTS_RECORDS")
	if folder == "" {
		return
	}
	var text bytes.Buffer
	for _, e := range r.entries {
		if err := json.NewEncoder(&text).Encode(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(folder, r.name+".jsonl"), text.Bytes(), 0o644); err != nil {
		t.Error(err)
	}
}

// plain takes out of a text what differs from run to run.
func (r *rotation) plain(text string) string {
	return strings.NewReplacer(r.id, "RUN", `"`+r.name+`"`, "TRIGGER", r.name, "TRIGGER").Replace(text)
}
