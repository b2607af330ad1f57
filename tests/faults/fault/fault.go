// Package fault says which faults there are, when one strikes, and how the proxy (../proxy) tells of it.
//
// Invariants:
//   - Whether a request is struck follows from the seed, the request's verb and path, and how often that came: not from the
//     clock, nor from what other requests do meanwhile. A seed that found something finds it again.
//   - A record holds names, never what an object holds.
package fault

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"time"
)

// Kind is one way in which the API server has a bad day.
type Kind string

// Every kind there is. Before the commit: nothing was done. After: it was done, and the client can't know.
const (
	Conflict    Kind = "conflict"    // writes: 409, before
	Gone        Kind = "gone"        // lists: 410; watches: an ERROR event with code 410
	Busy        Kind = "busy"        // 429 with Retry-After, before
	Internal    Kind = "internal"    // 500, before
	Unavailable Kind = "unavailable" // 503, before
	Lost        Kind = "lost"        // writes: the connection is reset in place of the answer, after
	Timeout     Kind = "timeout"     // writes: 504, after
	Reset       Kind = "reset"       // the connection is reset in mid-body; writes: after
	Half        Kind = "half"        // half a JSON document, and a good end; writes: after
	Stall       Kind = "stall"       // half the body, and then nothing until the client gives up
	Duplicate   Kind = "duplicate"   // watches: an event comes twice
	Delay       Kind = "delay"       // watches: an event, and what follows, comes late
	Missing     Kind = "missing"     // watches: an event does not come
	Stale       Kind = "stale"       // lists and gets: what the same request got some seconds ago
)

// What a request is, for the question which kinds can strike it.
const (
	Write  = "write"
	Read   = "read"   // of one object
	List   = "list"   // of many
	Stream = "stream" // a watch when it is opened
	Frame  = "frame"  // one event of a watch
)

var strikes = map[Kind][]string{
	Conflict: {Write}, Lost: {Write}, Timeout: {Write},
	Gone: {List, Frame}, Busy: {Write, Read, List, Stream}, Internal: {Write, Read, List, Stream},
	Unavailable: {Write, Read, List, Stream}, Reset: {Write, Read, List, Frame}, Half: {Write, Read, List, Frame},
	Stall: {List, Frame}, Duplicate: {Frame}, Delay: {Frame}, Missing: {Frame}, Stale: {Read, List},
}

// Kinds lists all, in the order of the table in README.md.
func Kinds() []Kind {
	return []Kind{Conflict, Gone, Busy, Internal, Unavailable, Lost, Timeout, Reset, Half, Stall, Duplicate, Delay, Missing, Stale}
}

// Class gives the class for which the kind is counted as having struck at all.
func (k Kind) Class() string { return strikes[k][0] }

// Strikes reports whether the kind can strike what is of that class.
func (k Kind) Strikes(class string) bool { return slices.Contains(strikes[k], class) }

// AfterCommit reports whether a write was carried out before the fault.
func (k Kind) AfterCommit() bool { return slices.Contains([]Kind{Lost, Timeout, Reset, Half}, k) }

// chance is how much of a class is struck. Of reads there are thousands in a rotation, of writes a hundred.
var chance = map[string]float64{Write: 0.35, Read: 0.03, List: 0.03, Stream: 0.3, Frame: 0.25}

// A stalled list costs the client its time-out of half a minute, so one is enough; a stalled watch is told from a quiet one after
// minutes only.
var most = map[Kind]map[string]int{Stall: {List: 1, Frame: 3}}

// Schedule decides. The zero value strikes nothing.
type Schedule struct {
	Seed  int64
	Kinds []Kind

	mu     sync.Mutex
	count  map[string]int   // by class, verb and path
	spells map[string]spell // ditto
	struck map[Kind]map[string]int
}

// spell is a fault that strikes the same request again and again: a client that tries five times must also see six.
type spell struct {
	kind Kind
	left int
}

// Strike says what strikes the next request of that class, verb and path; "" for nothing.
func (s *Schedule) Strike(class, verb, path string) Kind {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == nil {
		s.count, s.spells, s.struck = map[string]int{}, map[string]spell{}, map[Kind]map[string]int{}
	}
	key := class + " " + verb + " " + path
	s.count[key]++
	if on := s.spells[key]; on.left > 0 {
		s.spells[key] = spell{on.kind, on.left - 1}
		return s.take(on.kind, class)
	}
	kind, length := s.draw(class, fmt.Sprintf("%d %s %d", s.Seed, key, s.count[key]))
	if length > 1 {
		s.spells[key] = spell{kind, length - 1}
	}
	return s.take(kind, class)
}

// draw gives a kind and for how many requests in a row.
func (s *Schedule) draw(class, text string) (Kind, int) {
	var fit []Kind
	for _, k := range s.Kinds {
		if k.Strikes(class) {
			fit = append(fit, k)
		}
	}
	sum := fnv.New128a()
	sum.Write([]byte(text))
	bytes := mix(sum.Sum(nil))
	u := float64(binary.BigEndian.Uint64(bytes)>>11) / (1 << 53)
	if len(fit) == 0 || u >= chance[class] {
		return "", 0
	}
	kind := fit[int(bytes[8])%len(fit)]
	return kind, kind.length(class, bytes[9])
}

// mix spreads what FNV leaves in the lower bits of short texts (the finalizer of SplitMix64).
func mix(sum []byte) []byte {
	var out []byte
	for i := 0; i < len(sum); i += 8 {
		x := binary.BigEndian.Uint64(sum[i:])
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		out = binary.BigEndian.AppendUint64(out, x^x>>31)
	}
	return out
}

// length: mostly one, sometimes more than a client tries again. What is done after the commit, or to a stream, comes alone.
func (k Kind) length(class string, random byte) int {
	switch {
	case k.AfterCommit() && class == Write || class == Frame || k == Stall || k == Stale:
		return 1
	case k == Busy: // each costs a second
		return 1 + int(random)%2
	case random < 160:
		return 1
	case random < 220:
		return 2
	}
	return 6
}

// take counts, and spares what has had enough.
func (s *Schedule) take(kind Kind, class string) Kind {
	if kind == "" {
		return ""
	}
	if limit := most[kind][class]; limit > 0 && s.struck[kind][class] >= limit {
		return ""
	}
	if s.struck[kind] == nil {
		s.struck[kind] = map[string]int{}
	}
	s.struck[kind][class]++
	return kind
}

// Entry is one line of the proxy's record: a write, or a fault, or an answer to a command.
type Entry struct {
	At       time.Time `json:"at"` // when the request came
	Ended    time.Time `json:"ended"`
	What     string    `json:"what"`
	Pod      string    `json:"pod,omitempty"` // who, by his token
	Class    string    `json:"class,omitempty"`
	Verb     string    `json:"verb,omitempty"`
	Object   string    `json:"object,omitempty"` // path without query; of a new object with its name
	Note     string    `json:"note,omitempty"`   // of a node Pod its step, of an Event what it says
	Kind     Kind      `json:"kind,omitempty"`
	Told     int       `json:"told,omitempty"`   // status that the client was told; 0: none
	Answer   int       `json:"answer,omitempty"` // status that the API server gave; 0: it was not asked
	Version  string    `json:"version,omitempty"`
	Schedule string    `json:"schedule,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// What an entry tells of.
const (
	Request   = "request"   // a write, or any request that was struck
	Listening = "listening" // the proxy is at work
	Obeyed    = "obeyed"    // a command was carried out; Note names it
	Holding   = "holding"   // a write is held back before the API server sees it
	Heard     = "heard"     // a request for the Lease, of a pod that is listened to
	Refused   = "refused"   // 401, for the token has expired
	Renewed   = "renewed"   // a pod has come with another token
	Broken    = "broken"    // the proxy itself could not do its work
)

// Committed reports whether the API server has carried out the write.
func (e *Entry) Committed() bool { return e.Class == Write && e.Answer/100 == 2 }

// Command is one line of the proxy's standard input.
type Command struct {
	Do    string `json:"do"`
	Name  string `json:"name,omitempty"`
	Seed  int64  `json:"seed,omitempty"`
	Kinds []Kind `json:"kinds,omitempty"`
	Pod   string `json:"pod,omitempty"`
	Nth   int    `json:"nth,omitempty"`
}

// What can be asked of the proxy.
const (
	Begin   = "schedule" // from now on Kinds strike, drawn by Seed; entries carry Name
	Hold    = "hold"     // the Nth write of Pod from now on, its Lease aside, waits for Release
	Release = "release"
	Listen  = "listen" // tell of every request of Pod
	Expire  = "expire" // every token that was seen is refused until its pod comes with another
)
