package faults

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"slices"
	"strings"
	"testing"

	"certrotation.dev/tests/faults/fault"
)

// course is a rotation, what strikes it, and what else happens to it. Its name is not that of an earlier one: it is the trigger.
type course struct {
	name   string
	kinds  []fault.Kind
	during func(context.Context, *testing.T, *rotation, int64)
}

// Two courses that are no kind of answer.
var (
	leader = course{"leader", nil, pauseLeader}
	tokens = course{"tokens", nil, expireTokens}
)

// sample puts what does not depend on each other into two rotations.
func sample() []course {
	return []course{
		{"answers", []fault.Kind{fault.Conflict, fault.Gone, fault.Busy, fault.Internal, fault.Unavailable, fault.Lost, fault.Timeout, fault.Reset, fault.Half}, expireTokens},
		{"streams", []fault.Kind{fault.Stall, fault.Duplicate, fault.Delay, fault.Missing, fault.Stale}, pauseLeader},
	}
}

// each gives every kind a rotation of its own.
func each() []course {
	list := []course{leader, tokens}
	for _, k := range fault.Kinds() {
		list = append(list, course{string(k), []fault.Kind{k}, nil})
	}
	return list
}

// named picks courses by their names.
func named(t *testing.T, names []string) (list []course) {
	t.Helper()
	for _, name := range names {
		at := slices.IndexFunc(append(each(), sample()...), func(c course) bool { return c.name == name })
		if at < 0 {
			t.Fatalf("there is no fault %q", name)
		}
		list = append(list, append(each(), sample()...)[at])
	}
	return list
}

// TestFaults makes one rotation after the other on one cluster; the first is quiet, and what the others are held against.
func TestFaults(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	seed := number(t, "FAULTS_SEED", rand.Int63n(100000))
	courses, seeds := sample(), int64(1)
	switch names := os.Getenv("FAULTS"); names {
	case "":
	case "all":
		courses, seeds = each(), number(t, "FAULTS_SEEDS", 1)
	default:
		courses, seeds = named(t, strings.Split(names, ",")), number(t, "FAULTS_SEEDS", 1)
	}
	b := open(ctx, t)
	say("seed: FAULTS_SEED=%d", seed)
	b.quiet = b.course(ctx, t, course{name: "quiet"}, seed)
	for i := range seeds {
		for _, c := range courses {
			b.course(ctx, t, c, seed+i)
		}
	}
	say("\n%s", b.table)
}

// course makes one rotation and judges it. One that does not come to its end ends the test: nothing can begin after it.
func (b *bed) course(ctx context.Context, t *testing.T, c course, seed int64) *rotation {
	var r *rotation
	good := t.Run(c.name, func(t *testing.T) {
		var during func(*rotation)
		if c.during != nil {
			during = func(r *rotation) { c.during(ctx, t, r, seed) }
		}
		b.runs++
		r = b.rotate(ctx, t, fmt.Sprintf("%s-%d", c.name, b.runs), seed, c.kinds, during)
		t.Log(r.tellWrites())
		t.Run("every fault has struck", func(t *testing.T) { r.assertStruck(t, c) })
		r.assertInvariants(ctx, t)
		if b.quiet != nil {
			t.Run("the end is the quiet run's", r.assertSame)
			t.Run("no object is written more often than in the quiet run and by retries", r.assertWrites)
		} else {
			t.Run("everything goes through the proxy", r.assertThroughProxy)
		}
		if r.paused != nil {
			t.Run("a leader that was away for three terms writes nothing", r.assertFenced)
		}
	})
	if r == nil {
		say("\n%s%s: FAILED, did not come to its end", b.table, c.name)
		t.FailNow()
	}
	b.table += r.line(c, map[bool]string{true: "ok", false: "FAILED"}[good])
	return r
}

// line is the run's in the table at the end.
func (r *rotation) line(c course, verdict string) string {
	struck := r.struck()
	text := fmt.Sprintf("%-12s %4.0f s  %s\n", c.name, r.ended.Sub(r.applied).Seconds(), verdict)
	for _, name := range sorted(struck) {
		text += fmt.Sprintf("    %-12s %d\n", name, struck[name])
	}
	return text
}

func (r *rotation) assertStruck(t *testing.T, c course) {
	struck := r.struck()
	for _, k := range c.kinds {
		if struck[string(k)] == 0 {
			t.Errorf("%s never struck, so this run shows nothing of it; take another seed, or a higher chance", k)
		}
	}
	for _, e := range r.entries {
		if e.Error != "" {
			t.Errorf("the proxy itself failed: %s %s: %s", e.Verb, e.Object, e.Error)
		}
	}
}

// assertThroughProxy: if the controller had another way, the record would tell nothing.
func (r *rotation) assertThroughProxy(t *testing.T) {
	for _, want := range []string{"POST /api/v1/namespaces/certrotation-nodes/secrets/certrotation-kubernetes-RUN", "PUT " + aRequest + "/status",
		"PATCH /api/v1/namespaces/kube-public/configmaps/cluster-info", "PATCH /apis/apps/v1/namespaces/certrotation-test/deployments/web", "Lease"} {
		if w := r.writes[want]; w == nil || w.done == 0 {
			t.Errorf("no %s went through the proxy", want)
		}
	}
	log := r.bed.kubectl(t.Context(), t, "-n", systemNamespace, "logs", "-l", "app.kubernetes.io/name=certrotation", "--tail=-1")
	for _, line := range strings.Split(log, "\n") {
		if strings.Contains(line, "older than one that came before") {
			t.Errorf("the API server itself is taken to answer from the past: %s", line)
		}
	}
}
