// Package nodes reaches into the nodes of a test cluster: it puts the on-node program (../onnode) there,
// and reads what that sees.
//
// Invariants:
//   - What happens on a node is told by the node itself, at the time it happened (all nodes share one
//     clock), not put together from what the API says about it.
//   - A container is counted by its id, a process by its id and start time; a restart can't hide.
//   - The stream of events has no gaps: when it ends before it was told to, the observer reports an error
//     and the test fails.
package nodes

import (
	"time"

	"certrotation.dev/tests/snapshot"
)

// What an event tells.
const (
	ContainerStarted = "container-started"
	ContainerGone    = "container-gone"
	ProcessStarted   = "process-started" // the kubelet, which is no container
	ProcessGone      = "process-gone"
	FileChanged      = "file-changed"
	FileGone         = "file-gone"
	VolumeChanged    = "volume-changed" // a CA in a pod's volume
	Presents         = "presents"       // the certificate of a server
	Accepts          = "accepts"        // names of the authorities that a server accepts clients of
	Memory           = "memory"
	Watching         = "watching" // the observer is at work; events before it describe what was there already
)

// Event is one line of the observer.
type Event struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`
	Node string    `json:"node,omitempty"` // filled in by the reader

	// Containers and processes.
	ID        string    `json:"id,omitempty"`
	Namespace string    `json:"namespace,omitempty"`
	Pod       string    `json:"pod,omitempty"`
	PodUID    string    `json:"podUID,omitempty"`
	Container string    `json:"container,omitempty"` // or the program's name
	PID       int       `json:"pid,omitempty"`
	Started   time.Time `json:"started,omitzero"`  // of the process
	Already   bool      `json:"already,omitempty"` // it was there when the observer began

	// Files and servers.
	Path         string                 `json:"path,omitempty"` // or address
	SHA256       string                 `json:"sha256,omitempty"`
	Certificates []snapshot.Certificate `json:"certificates,omitempty"`
	Names        []string               `json:"names,omitempty"`

	// Memory, in KiB, and processor time since the process began.
	RSS        int64   `json:"rss,omitempty"`
	Anonymous  int64   `json:"anonymous,omitempty"`
	CPUSeconds float64 `json:"cpuSeconds,omitempty"`
}
