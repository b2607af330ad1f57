// Package crd holds the definition of CertificateRotation against a real API server: what its schema allows is taken, what is wrong with
// one field is refused by that field's name. ./run runs it, beside what it asks for by hand.
//
//	KUBECONFIG=FILE   a cluster with crd/ installed and no controller
//	CRD_SEED=N        makes the same values again
package crd

import (
	"context"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kinds "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	objectName = "crd-generated"
	atRest     = 60 // specs, each with some of its mutations
	mutated    = 4
	inFlight   = 2 // specs that are taken through every phase
)

var resource = kinds.GroupVersionResource{Group: "certrotation.dev", Version: "v1alpha1", Resource: "certificaterotations"}

// desk is an API server, and who brings it manifests.
type desk struct {
	*generator
	root  *schema
	api   dynamic.ResourceInterface
	cases int
}

func open(t *testing.T) *desk {
	t.Helper()
	path := os.Getenv("KUBECONFIG")
	if path == "" {
		t.Skip("KUBECONFIG names no cluster; tests/crd/run runs this")
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CRD_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("CRD_SEED: %v", err)
		}
	}
	t.Logf("CRD_SEED=%d", seed)
	d := &desk{generator: &generator{rand.New(rand.NewPCG(seed, seed)), t}, root: readSchema(t), api: client.Resource(resource)}
	t.Cleanup(func() { t.Logf("%d requests were judged", d.cases) })
	return d
}

func object(spec any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "certrotation.dev/v1alpha1", "kind": "CertificateRotation",
		"metadata": map[string]any{"name": objectName}, "spec": spec}}
}

// create asks what the API server would say; nothing is stored.
func (d *desk) create(ctx context.Context, spec any) error {
	d.cases++
	_, err := d.api.Create(ctx, object(spec), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict})
	return err
}

// names reports whether a refusal says which field is meant: the field itself, or one of its items.
func names(err error, field string) bool {
	said := err.Error()
	for at := strings.Index(said, field); at >= 0; {
		rest := said[at+len(field):]
		if strings.HasPrefix(rest, ":") || strings.HasPrefix(rest, `"`) || strings.HasPrefix(rest, "[") {
			return true
		}
		next := strings.Index(rest, field)
		if next < 0 {
			return false
		}
		at += len(field) + next
	}
	return false
}

func (d *desk) mustRefuse(ctx context.Context, t *testing.T, m mutation) {
	t.Helper()
	switch err := d.create(ctx, m.spec); {
	case err == nil:
		t.Errorf("%s: %s was taken:\n%s", m.field, m.what, text(m.spec))
	case !names(err, m.field):
		t.Errorf("%s: %s was refused without its name: %v", m.field, m.what, err)
	}
}

// TestAtRest: everything that can be wrong with a spec that has every field, and a sample of it with others.
func TestAtRest(t *testing.T) {
	d := open(t)
	ctx := t.Context()
	assertKnown(t, d.root)
	mutations := 0
	for i := range atRest {
		spec := d.spec(d.root, i == 0)
		if err := d.create(ctx, copied(spec)); err != nil {
			t.Errorf("a spec that the schema allows was refused: %v\n%s", err, text(spec))
		}
		all := d.mutations(d.root, spec)
		d.Shuffle(len(all), func(a, b int) { all[a], all[b] = all[b], all[a] })
		if i > 0 {
			all = all[:min(mutated, len(all))]
		}
		mutations += len(all)
		for _, m := range all {
			d.mustRefuse(ctx, t, m)
		}
	}
	t.Logf("%d specs, %d things wrong with them", atRest, mutations)
}

// TestInFlight writes each phase into the status, as the controller does, and edits then.
func TestInFlight(t *testing.T) {
	d := open(t)
	ctx := t.Context()
	locked := d.root.locked()
	if len(locked) == 0 {
		t.Fatal("the definition locks no field")
	}
	for range inFlight {
		d.fly(ctx, t, locked)
	}
}

// over: a run that has ended, or a plan, locks nothing.
func over(phase string) bool {
	return slices.Contains([]string{"Completed", "RolledBack", "Planned"}, phase)
}

func (d *desk) fly(ctx context.Context, t *testing.T, locked []string) {
	_ = d.api.Delete(ctx, objectName, metav1.DeleteOptions{}) // of an earlier run of this test
	made, err := d.api.Create(ctx, object(d.spec(d.root, d.IntN(2) == 0)), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.api.Delete(ctx, objectName, metav1.DeleteOptions{}) }()
	spec := made.Object["spec"].(map[string]any)
	for _, phase := range d.root.Properties["status"].Properties["phase"].Enum {
		status := map[string]any{"phase": phase, "run": map[string]any{"trigger": spec["trigger"], "id": "0123456789ab"}}
		now, err := d.api.Patch(ctx, objectName, types.MergePatchType, []byte(text(map[string]any{"status": status})), metav1.PatchOptions{}, "status")
		if err != nil {
			t.Fatal(err)
		}
		d.edit(ctx, t, now, locked, phase.(string))
	}
	kept, err := d.api.Get(ctx, objectName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if kept.GetGeneration() != made.GetGeneration() || text(kept.Object["spec"]) != text(spec) {
		t.Errorf("of %s this is left: %s", text(spec), text(kept.Object["spec"]))
	}
}

// edit changes each field to something else that is right in itself.
func (d *desk) edit(ctx context.Context, t *testing.T, now *unstructured.Unstructured, locked []string, phase string) {
	spec := now.Object["spec"].(map[string]any)
	for _, field := range slices.Sorted(maps.Keys(d.root.Properties["spec"].Properties)) {
		other := d.otherwise(spec, field)
		if other == nil {
			continue // there is but one value
		}
		err := d.update(ctx, now, other)
		free := field == "trigger" || over(phase) || !slices.Contains(locked, field)
		switch {
		case free && err != nil:
			t.Errorf("in phase %s spec.%s can't become %s: %v", phase, field, text(other[field]), err)
		case !free && err == nil:
			t.Errorf("in phase %s spec.%s became %s", phase, field, text(other[field]))
		case !free && !names(err, "spec."+field) || !free && !strings.Contains(err.Error(), "can't change while the run '"+spec["trigger"].(string)+"' is in phase "+phase):
			t.Errorf("in phase %s it says of spec.%s: %v", phase, field, err)
		}
	}
	next := d.spec(d.root, true) // another run may be anything
	next["trigger"] = "next-" + d.matching(parsed(t, `[a-z]{5}`), 5)
	if err := d.update(ctx, now, next); err != nil {
		t.Errorf("in phase %s the next run can't be described: %v\n%s", phase, err, text(next))
	}
}

// update asks what the API server would say; nothing is stored.
func (d *desk) update(ctx context.Context, now *unstructured.Unstructured, spec map[string]any) error {
	d.cases++
	to := now.DeepCopy()
	to.Object["spec"] = copied(spec)
	_, err := d.api.Update(ctx, to, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict})
	return err
}

// otherwise gives the spec with another value of one field, absent too where it may be; nil when none is found.
func (d *desk) otherwise(spec map[string]any, field string) map[string]any {
	s := d.root.Properties["spec"]
	for range 200 {
		other := copied(spec).(map[string]any)
		if delete(other, field); s.requires(field) || d.IntN(4) > 0 {
			other[field] = d.value(s.Properties[field], "spec."+field, false)
		}
		s.complete(other)
		before := text(other)
		d.mend(other)
		if text(other) == before && s.Properties[field].canonical(other[field]) != s.Properties[field].canonical(spec[field]) {
			return other
		}
	}
	return nil
}
