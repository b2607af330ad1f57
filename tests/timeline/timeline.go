// Package timeline is the record of one rotation that outlives the test: what happened when, as the
// benchmark and people read it.
//
// Invariants:
//   - It holds observations and sums of them, no judgement.
//   - It is written whether the test passes or not.
package timeline

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/probe"
	"certrotation.dev/tests/story"
)

// Kill is a process that the test killed.
type Kill struct {
	At    time.Time `json:"at"`
	Pod   string    `json:"pod"`
	Phase string    `json:"phase"`
}

// Lag is the time from a file's change to its being seen in force.
type Lag struct {
	Component string    `json:"component"`
	Node      string    `json:"node"`
	At        time.Time `json:"at"`
	Millis    float64   `json:"millis"`
}

// Usage is what one container of the controller used.
type Usage struct {
	Pod              string  `json:"pod"`
	ID               string  `json:"id"`
	IdleRSSKiB       int64   `json:"idleRSSKiB,omitempty"`
	IdleAnonymousKiB int64   `json:"idleAnonymousKiB,omitempty"`
	PeakRSSKiB       int64   `json:"peakRSSKiB"`
	PeakAnonymousKiB int64   `json:"peakAnonymousKiB"`
	CPUSeconds       float64 `json:"cpuSeconds"`
}

// Rotation is the record.
type Rotation struct {
	Cluster       string            `json:"cluster"`
	Trigger       string            `json:"trigger"`
	Nodes         int               `json:"nodes"`
	Applied       time.Time         `json:"applied"`
	Completed     time.Time         `json:"completed"`
	HeldSeconds   float64           `json:"heldSeconds"` // that the test itself kept the run waiting
	Phases        []story.Stay      `json:"phases"`
	Probes        []probe.Summary   `json:"probes"`
	Failures      []probe.Attempt   `json:"unexpectedFailures,omitempty"`
	Sessions      map[string]int    `json:"sessions"`
	SessionErrors []probe.Session   `json:"sessionErrors,omitempty"`
	Cuts          []probe.Break     `json:"cuts"`
	Restarts      []nodes.Restart   `json:"restarts"`
	Kills         []Kill            `json:"kills,omitempty"`
	Leaders       []story.Leader    `json:"leaders"`
	InForce       []Lag             `json:"inForce"`
	Controller    []Usage           `json:"controller"`
	Notes         map[string]string `json:"notes,omitempty"`
}

// Write puts records into a file.
func Write(path string, list []*Rotation) error {
	text, err := json.MarshalIndent(list, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// Read takes them back.
func Read(path string) ([]*Rotation, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []*Rotation
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

// Usages sums the samples of memory between two moments; idle is the last sample before from.
func Usages(events []nodes.Event, from, to time.Time) []Usage {
	byID := map[string]*Usage{}
	first := map[string]float64{}
	for i := range events {
		e := &events[i]
		if e.What != nodes.Memory || e.At.After(to) {
			continue
		}
		u := byID[e.ID]
		if u == nil {
			u = &Usage{Pod: e.Pod, ID: e.ID}
			byID[e.ID] = u
		}
		if e.At.Before(from) {
			u.IdleRSSKiB, u.IdleAnonymousKiB, first[e.ID] = e.RSS, e.Anonymous, e.CPUSeconds
			continue
		}
		u.PeakRSSKiB, u.PeakAnonymousKiB = max(u.PeakRSSKiB, e.RSS), max(u.PeakAnonymousKiB, e.Anonymous)
		u.CPUSeconds = e.CPUSeconds - first[e.ID]
	}
	var list []Usage
	for _, u := range byID {
		if u.PeakRSSKiB > 0 {
			list = append(list, *u)
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Pod+list[i].ID < list[j].Pod+list[j].ID })
	return list
}

// Lags finds, for each file's change between two moments, when it was seen in force. The names of both
// authorities are as their certificates' subjects say.
func Lags(events []nodes.Event, from, to time.Time, oldSubject, newSubject string) []Lag {
	var list []Lag
	for i := range events {
		e := &events[i]
		if e.What != nodes.FileChanged || e.Already || e.At.Before(from) || e.At.After(to) {
			continue
		}
		component, force := effect(e, oldSubject, newSubject)
		if component == "" {
			continue
		}
		if seen := after(events, e, force); seen != nil {
			list = append(list, Lag{Component: component, Node: e.Node, At: e.At, Millis: float64(seen.At.Sub(e.At).Microseconds()) / 1000})
		}
	}
	return list
}

// effect says what a change of a file leads to, and how to see that.
func effect(e *nodes.Event, oldSubject, newSubject string) (string, func(*nodes.Event) bool) {
	switch e.Path {
	case "/etc/kubernetes/pki/apiserver.crt":
		if len(e.Certificates) == 0 {
			return "", nil
		}
		leaf, length := e.Certificates[0].Fingerprint, len(e.Certificates)
		return "kube-apiserver certificate", func(s *nodes.Event) bool {
			return s.What == nodes.Presents && strings.HasSuffix(s.Path, ":6443") && s.Certificates[0].Fingerprint == leaf && len(s.Certificates) == length
		}
	case "/etc/kubernetes/pki/ca.crt":
		hasOld, hasNew := holds(e, oldSubject), holds(e, newSubject)
		return fmt.Sprintf("kube-apiserver client CA (old %v, new %v)", hasOld, hasNew), func(s *nodes.Event) bool {
			return s.What == nodes.Accepts && strings.HasSuffix(s.Path, ":6443") && has(s.Names, oldSubject) == hasOld && has(s.Names, newSubject) == hasNew
		}
	case "/var/lib/kubelet/pki/kubelet-client-current.pem":
		return "kubelet process after its client certificate", func(s *nodes.Event) bool { return s.What == nodes.ProcessStarted && s.Container == "kubelet" }
	case "/etc/kubernetes/scheduler.conf":
		return "kube-scheduler container after scheduler.conf", started("kube-scheduler")
	case "/etc/kubernetes/controller-manager.conf":
		return "kube-controller-manager container after controller-manager.conf", started("kube-controller-manager")
	}
	return "", nil
}

func started(component string) func(*nodes.Event) bool {
	return func(s *nodes.Event) bool { return s.What == nodes.ContainerStarted && s.Container == component }
}

func holds(e *nodes.Event, subject string) bool {
	for _, c := range e.Certificates {
		if c.Subject == subject {
			return true
		}
	}
	return false
}

func has(list []string, name string) bool {
	for _, have := range list {
		if have == name {
			return true
		}
	}
	return false
}

// after gives the first event on the same node, not before the cause, that shows the effect. What is
// observed of a server may come while the file's change is still being told, so times decide. The next
// change of the same file ends the search.
func after(events []nodes.Event, cause *nodes.Event, force func(*nodes.Event) bool) *nodes.Event {
	var first *nodes.Event
	for i := range events {
		s := &events[i]
		if s.Node != cause.Node || s.Already || s.At.Before(cause.At) || first != nil && !s.At.Before(first.At) {
			continue
		}
		again := s != cause && s.What == cause.What && s.Path == cause.Path
		if again || force(s) {
			first = s
		}
	}
	if first != nil && !force(first) {
		return nil
	}
	return first
}

// Tell prints the record for people.
func (r *Rotation) Tell() string {
	var text strings.Builder
	fmt.Fprintf(&text, "rotation %s on %s (%d nodes): %.1f s, of which the test held it for %.1f s\n", r.Trigger, r.Cluster, r.Nodes, r.Completed.Sub(r.Applied).Seconds(), r.HeldSeconds)
	for _, s := range r.Phases {
		fmt.Fprintf(&text, "  %s  %-20s %6.1f s  restarts: %s\n", s.From.Format("15:04:05.000"), s.Phase, s.To.Sub(s.From).Seconds(), r.restartsIn(s))
	}
	for _, k := range r.Kills {
		fmt.Fprintf(&text, "  %s  killed %s in %s\n", k.At.Format("15:04:05.000"), k.Pod, k.Phase)
	}
	for _, l := range r.Leaders {
		fmt.Fprintf(&text, "  %s  leader: %q\n", l.At.Format("15:04:05.000"), l.Holder)
	}
	for _, c := range r.Cuts {
		fmt.Fprintf(&text, "  %s\n", c)
	}
	text.WriteString(probe.Table(r.Probes))
	fmt.Fprintf(&text, "sessions: %v, failed: %d\n", r.Sessions, len(r.SessionErrors))
	return text.String()
}

func (r *Rotation) restartsIn(s story.Stay) string {
	count := map[string]int{}
	var names []string
	for _, x := range r.Restarts {
		if x.At.Before(s.From) || !x.At.Before(s.To) {
			continue
		}
		if count[x.Component]++; count[x.Component] == 1 {
			names = append(names, x.Component)
		}
	}
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, count[name])
	}
	return strings.Join(names, ", ")
}
