package faults

import (
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"

	"certrotation.dev/tests/faults/fault"
)

// writes is what the controller did to one object.
type writes struct {
	asked    int // requests
	done     int // that the API server carried out
	changed  int // of which the object became another version
	struck   int // faults, each of which may force one more
	versions map[string]bool
}

var (
	nodePod     = regexp.MustCompile(`^/api/v1/namespaces/certrotation-nodes/pods/certrotation-node-([0-9a-f]+)-\d+$`)
	anEvent     = regexp.MustCompile(`^/api/v1/namespaces/default/events/`)
	ourPod      = regexp.MustCompile(`^/api/v1/namespaces/certrotation-system/pods/`)
	aLease      = regexp.MustCompile(`^/apis/coordination.k8s.io/v1/namespaces/certrotation-system/leases`)
	anAuthority = regexp.MustCompile(`^/api/v1/namespaces/certrotation-nodes/secrets/certrotation-kubernetes-`)
	theirAccess = "/api/v1/namespaces/certrotation-system/secrets/certrotation-admin-kubeconfig"
	aRequest    = "/apis/certrotation.dev/v1alpha1/certificaterotations/" + rotationName
)

// key names what a write is counted under, the same in every run.
func (r *rotation) key(e *fault.Entry) string {
	switch {
	case nodePod.MatchString(e.Object) && e.Verb == "POST":
		return "node Pod for step " + e.Note + " on " + nodePod.FindStringSubmatch(e.Object)[1]
	case nodePod.MatchString(e.Object):
		return "removal of a node Pod"
	case anEvent.MatchString(e.Object):
		return "Event " + r.plain(e.Note)
	case ourPod.MatchString(e.Object):
		return "annotation of one of our Pods"
	case aLease.MatchString(e.Object):
		return "Lease"
	case e.Object == theirAccess: // made by the first run, and changed by the others
		return "the administrator's kubeconfig"
	case anAuthority.MatchString(e.Object) && !strings.HasSuffix(e.Object, r.id):
		return "retirement of the authority before"
	}
	return e.Verb + " " + r.plain(e.Object)
}

func countWrites(r *rotation) map[string]*writes {
	all := map[string]*writes{}
	for _, e := range r.entries {
		if e.Class != fault.Write || e.What != fault.Request {
			continue
		}
		key := r.key(&e)
		if all[key] == nil {
			all[key] = &writes{versions: map[string]bool{}}
		}
		w := all[key]
		w.asked++
		if e.Kind != "" {
			w.struck++
		}
		if e.Committed() {
			w.done++
			if version := e.Object + " " + e.Version; e.Version == "" || !w.versions[version] {
				w.versions[version] = true
				w.changed++
			}
		}
	}
	return all
}

// paced are the writes that come as long as something is waited for, so many in a time: what they may amount to in this run. A quiet
// run says nothing of them.
func (r *rotation) paced(key string) (most int, is bool) {
	seconds := r.ended.Sub(r.applied).Seconds()
	switch {
	case key == "PUT "+aRequest+"/status": // at most one a second, and one for each change of phase
		return int(seconds) + len(phases), true
	case key == "Lease": // each of two, every two seconds
		return int(2 * seconds / 1.8), true
	case key == "annotation of one of our Pods": // each of two, every five seconds
		return 2 + int(2*seconds/5), true
	case strings.HasPrefix(key, "node Pod for step workloads"), strings.HasPrefix(key, "node Pod for step volumes"): // looks, 1.5 s apart
		return int(seconds / 1.5), true
	case key == "removal of a node Pod":
		return r.made() + 4, true
	}
	return 0, false
}

// made is how many node Pods the run has made.
func (r *rotation) made() int {
	n := 0
	for key, w := range r.writes {
		if strings.HasPrefix(key, "node Pod for step") {
			n += w.done
		}
	}
	return n
}

// assertWrites: no object is written more often than in the quiet run plus the retries that faults have forced.
func (r *rotation) assertWrites(t *testing.T) {
	for _, key := range sorted(r.writes) {
		w, was := r.writes[key], r.bed.quiet.writes[key]
		if was == nil {
			was = &writes{}
		}
		asked, changed := was.asked, was.changed
		if most, is := r.paced(key); is {
			asked, changed = most, most
		}
		// Events' messages tell what is waited for; each comes once. The first run has no authority of an earlier one.
		if strings.HasPrefix(key, "Event ") || key == "retirement of the authority before" {
			asked, changed = 1, 1
		}
		if w.asked > asked+w.struck || w.changed > changed {
			t.Errorf("%s: asked for %d times, changed %d times, struck %d times; in the quiet run asked for %d times, changed %d times",
				key, w.asked, w.changed, w.struck, asked, changed)
		}
	}
}

// assertSame: the end is the quiet run's.
func (r *rotation) assertSame(t *testing.T) {
	for _, line := range difference(r.bed.quiet.end, r.end) {
		t.Error(line)
	}
	if len(r.end) < 50 {
		t.Errorf("only %d lines describe the end", len(r.end))
	}
}

func difference(was, is []string) []string {
	var list []string
	for _, line := range was {
		if !slices.Contains(is, line) {
			list = append(list, "missing: "+line)
		}
	}
	for _, line := range is {
		if !slices.Contains(was, line) {
			list = append(list, "beyond: "+line)
		}
	}
	return list
}

func sorted[V any](m map[string]V) []string {
	var list []string
	for key := range m {
		list = append(list, key)
	}
	sort.Strings(list)
	return list
}

// tellWrites is the table of a run, for its log.
func (r *rotation) tellWrites() string {
	text := ""
	for _, key := range sorted(r.writes) {
		w := r.writes[key]
		text += fmt.Sprintf("\n  %3d asked %3d done %3d changed %3d struck  %s", w.asked, w.done, w.changed, w.struck, key)
	}
	return text
}
