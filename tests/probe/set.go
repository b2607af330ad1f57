package probe

import (
	"context"
	"crypto/x509"
	"fmt"
	"sync"
	"time"
)

// waiting is how many attempts of one kind may be under way: enough for a server that keeps clients
// waiting for as long as the longest timeout allows, at 20 a second.
const waiting = 600

// Set is the probes of one API server, through one address.
type Set struct {
	Address string        // host:port, dialled directly
	Path    string        // what is asked for; every credential of the keyring may read it
	Keys    *Keyring      //
	Phase   func() string // the rotation's phase; must not block
	Timeout time.Duration // of one attempt; 0 is 30 s
	Cells   []Cell        // the kinds that are probed; nil is all nine
	Factor  float64       // multiplies the rate of each kind (Cell.Rate); 0 is 1
	// OnFailure, if set, is told of each failed attempt, for instance to print it.
	OnFailure func(Attempt)
	// NewPublished, if set, reports whether the cluster has told its clients to trust the new
	// authority alone; from then on there are clients with new trust.
	NewPublished func() bool

	mu        sync.Mutex
	attempts  []Attempt
	presented []Presented
	armed     time.Time
}

// Presented is the moment when a server was first seen with a certificate.
type Presented struct {
	At     time.Time `json:"at"`
	Server string    `json:"server"`
}

// Run probes until ctx ends, and returns when the last attempt has its result.
func (s *Set) Run(ctx context.Context) {
	if s.Timeout == 0 {
		s.Timeout = 30 * time.Second
	}
	if s.Cells == nil {
		s.Cells = Cells()
	}
	if s.Factor == 0 {
		s.Factor = 1
	}
	var all sync.WaitGroup
	for i, cell := range s.Cells {
		all.Add(1)
		go func() {
			defer all.Done()
			offset := time.Duration(i) * 5 * time.Millisecond // not all at the same instant
			s.pace(ctx, cell, offset)
		}()
	}
	all.Wait()
}

// pace starts the attempts of one kind, each in its turn whether or not the last one is done.
func (s *Set) pace(ctx context.Context, cell Cell, offset time.Duration) {
	slots := make(chan struct{}, waiting)
	var under sync.WaitGroup
	defer under.Wait()
	ticker := time.NewTicker(time.Duration(float64(time.Second) / (cell.Rate() * s.Factor)))
	defer ticker.Stop()
	time.Sleep(offset)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		r, ready := s.prepare(cell)
		if !ready {
			continue
		}
		select {
		case slots <- struct{}{}:
			under.Add(1)
			go func() { defer under.Done(); s.attempt(cell, r); <-slots }()
		default:
			s.record(Attempt{Cell: cell, Started: time.Now(), Kind: Overrun, Error: fmt.Sprintf("%d attempts are still waiting", waiting), Server: s.Address})
		}
	}
}

func (s *Set) prepare(cell Cell) (request, bool) {
	r := request{address: s.Address, path: s.Path, roots: s.Keys.roots(cell.Trust)}
	if r.roots == nil || !s.Keys.credential(cell.Credential, &r) {
		return r, false
	}
	return r, cell.Trust != NewTrust || s.newTrustExists()
}

// newTrustExists: clients that trust only the new authority exist once this server has shown that it
// is ready for them, or the cluster has told clients to be such.
func (s *Set) newTrustExists() bool {
	if !s.Armed().IsZero() {
		return true
	}
	if s.NewPublished == nil || s.Keys.New() == nil || !s.NewPublished() {
		return false
	}
	s.arm()
	return true
}

func (s *Set) arm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.armed.IsZero() {
		s.armed = time.Now()
	}
}

// Armed is when the probes with new trust began, or zero.
func (s *Set) Armed() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.armed
}

// attempt has a life of its own: the end of the run does not cut it off.
func (s *Set) attempt(cell Cell, r request) {
	ctx, cancel := context.WithTimeout(context.Background(), s.Timeout)
	defer cancel()
	a, chain := try(ctx, r)
	a.Cell = cell
	s.look(chain, a.Server)
	s.record(a)
}

// look notices a server that presents another certificate than before.
func (s *Set) look(chain []*x509.Certificate, server string) {
	if len(chain) == 0 {
		return
	}
	s.mu.Lock()
	known := false
	for _, p := range s.presented {
		known = known || p.Server == server
	}
	if !known {
		s.presented = append(s.presented, Presented{At: time.Now(), Server: server})
	}
	unarmed := s.armed.IsZero()
	s.mu.Unlock()
	if unarmed && s.Keys.provesNew(chain) {
		s.arm()
	}
}

func (s *Set) record(a Attempt) {
	if s.Phase != nil {
		a.Phase = s.Phase()
	}
	if a.Kind == Served {
		a.Server = "" // kept for failures; a run has tens of thousands of attempts
	}
	s.mu.Lock()
	s.attempts = append(s.attempts, a)
	s.mu.Unlock()
	if a.Kind != Served && s.OnFailure != nil {
		s.OnFailure(a)
	}
}

// Attempts gives all attempts so far, in the order of their results.
func (s *Set) Attempts() []Attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Attempt(nil), s.attempts...)
}

// Presentations gives each certificate that the server was seen with, and since when.
func (s *Set) Presentations() []Presented {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Presented(nil), s.presented...)
}
