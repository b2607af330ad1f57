package probe

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Summary is what became of the probes of one kind.
type Summary struct {
	Cell     string         `json:"cell"`
	Attempts int            `json:"attempts"`
	Failures int            `json:"failures"`
	Kinds    map[Kind]int   `json:"kinds,omitempty"`
	ByPhase  map[string]int `json:"failuresByPhase,omitempty"`
	// First and last result of each sort; zero when there was none.
	FirstServed, LastServed time.Time `json:"-"`
	FirstFailed, LastFailed time.Time `json:"-"`
	// How long requests took, those that were served; and the longest time without a served one.
	P50Millis float64   `json:"p50Millis"`
	P99Millis float64   `json:"p99Millis"`
	MaxMillis float64   `json:"maxMillis"`
	GapMillis float64   `json:"gapMillis"`
	GapAt     time.Time `json:"gapAt"`
}

// Summarize counts per kind.
func Summarize(attempts []Attempt) []Summary {
	var all []Summary
	for _, cell := range Cells() {
		mine := Filter(attempts, func(a *Attempt) bool { return a.Cell == cell })
		if len(mine) > 0 {
			all = append(all, summarize(cell, mine))
		}
	}
	return all
}

func summarize(cell Cell, attempts []Attempt) Summary {
	s := Summary{Cell: cell.String(), Attempts: len(attempts), Kinds: map[Kind]int{}, ByPhase: map[string]int{}}
	slices.SortFunc(attempts, func(a, b Attempt) int { return a.Ended().Compare(b.Ended()) })
	var took []time.Duration
	for i := range attempts {
		a := &attempts[i]
		if a.Kind == Served {
			took = append(took, a.Took)
			s.served(a.Ended())
		} else {
			s.failed(a)
		}
	}
	if len(took) > 0 {
		slices.Sort(took)
		s.P50Millis, s.P99Millis = millis(took[len(took)/2]), millis(took[len(took)*99/100])
		s.MaxMillis = millis(took[len(took)-1])
	}
	return s
}

func (s *Summary) served(at time.Time) {
	if s.FirstServed.IsZero() {
		s.FirstServed = at
	} else if gap := millis(at.Sub(s.LastServed)); gap > s.GapMillis {
		s.GapMillis, s.GapAt = gap, s.LastServed
	}
	s.LastServed = at
}

func (s *Summary) failed(a *Attempt) {
	s.Failures++
	s.Kinds[a.Kind]++
	s.ByPhase[a.Phase]++
	if s.FirstFailed.IsZero() {
		s.FirstFailed = a.Ended()
	}
	s.LastFailed = a.Ended()
}

// Filter gives the attempts for which keep is true.
func Filter(attempts []Attempt, keep func(*Attempt) bool) []Attempt {
	var some []Attempt
	for i := range attempts {
		if keep(&attempts[i]) {
			some = append(some, attempts[i])
		}
	}
	return some
}

// Failed gives those that were not served.
func Failed(attempts []Attempt) []Attempt {
	return Filter(attempts, func(a *Attempt) bool { return a.Kind != Served })
}

// Tell names the first few attempts of a list, for messages.
func Tell(attempts []Attempt) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%d attempts", len(attempts))
	for i := range attempts[:min(len(attempts), 5)] {
		a := &attempts[i]
		result := "served"
		if a.Kind != Served {
			result = string(a.Kind) + ": " + a.Error
		}
		fmt.Fprintf(&text, "\n  %s %s in phase %q after %.1f ms: %s (%s)", a.Started.Format("15:04:05.000"), a.Cell, a.Phase, millis(a.Took), result, a.Server)
	}
	if len(attempts) > 5 {
		fmt.Fprintf(&text, "\n  … and %d more", len(attempts)-5)
	}
	return text.String()
}

// Table prints summaries for people.
func Table(all []Summary) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%-27s %8s %8s %8s %8s %8s %9s  %s\n", "probe", "attempts", "failed", "p50 ms", "p99 ms", "max ms", "gap ms", "failures by phase")
	for _, s := range all {
		fmt.Fprintf(&text, "%-27s %8d %8d %8.1f %8.1f %8.1f %9.1f  %v\n", s.Cell, s.Attempts, s.Failures, s.P50Millis, s.P99Millis, s.MaxMillis, s.GapMillis, s.ByPhase)
	}
	return text.String()
}

// SessionTable prints sessions by what they were and where.
func SessionTable(done []Session) string {
	type key struct{ what, node string }
	took, failed := map[key][]time.Duration{}, map[key]int{}
	var keys []key
	for _, s := range done {
		k := key{s.What, s.Node}
		if _, known := took[k]; !known {
			keys = append(keys, k)
		}
		took[k] = append(took[k], s.Took)
		if s.Error != "" {
			failed[k]++
		}
	}
	slices.SortFunc(keys, func(a, b key) int { return strings.Compare(a.what+a.node, b.what+b.node) })
	var text strings.Builder
	for _, k := range keys {
		slices.Sort(took[k])
		n := len(took[k])
		fmt.Fprintf(&text, "%-20s through %-22s %6d sessions, %d failed, p50 %.0f ms, max %.0f ms\n", k.what, k.node, n, failed[k], millis(took[k][n/2]), millis(took[k][n-1]))
	}
	return text.String()
}
