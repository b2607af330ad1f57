package nodes

import (
	"fmt"
	"sort"
	"strings"
	"time"
)

// Restart is a container or process that started while we looked.
type Restart struct {
	At        time.Time `json:"at"`
	Node      string    `json:"node"`
	Namespace string    `json:"namespace,omitempty"`
	Pod       string    `json:"pod,omitempty"`
	PodUID    string    `json:"podUID,omitempty"`
	Component string    `json:"component"`
	ID        string    `json:"id"` // of the container, or pid and start time of the process
}

// Restarts are all starts between two moments. What was there when the observer began is none.
func Restarts(events []Event, from, to time.Time) []Restart {
	var list []Restart
	for i := range events {
		e := &events[i]
		if e.Already || e.What != ContainerStarted && e.What != ProcessStarted || e.At.Before(from) || !to.IsZero() && e.At.After(to) {
			continue
		}
		r := Restart{At: e.At, Node: e.Node, Namespace: e.Namespace, Pod: e.Pod, PodUID: e.PodUID, Component: e.Container, ID: e.ID}
		if e.What == ProcessStarted {
			r.ID = fmt.Sprintf("pid %d of %s", e.PID, e.Started.UTC().Format("15:04:05.00"))
		}
		list = append(list, r)
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].At.Before(list[j].At) })
	return list
}

// Static reports whether it is the container of a static Pod of the control plane, by its name.
func (r *Restart) Static(component string) bool {
	return r.Namespace == "kube-system" && r.Component == component && r.Pod == component+"-"+r.Node
}

// Kubelet reports whether it is a kubelet.
func (r *Restart) Kubelet() bool { return r.Pod == "" && r.Component == "kubelet" }

func (r Restart) String() string {
	name := r.Component
	if r.Pod != "" {
		name = r.Namespace + "/" + r.Pod + "/" + r.Component
	}
	return fmt.Sprintf("%s %s on %s (%.24s)", r.At.Format("15:04:05.000"), name, r.Node, r.ID)
}

// TellRestarts lists them, for messages.
func TellRestarts(list []Restart) string {
	if len(list) == 0 {
		return "none"
	}
	var lines []string
	for _, r := range list {
		lines = append(lines, r.String())
	}
	return "\n  " + strings.Join(lines, "\n  ")
}
