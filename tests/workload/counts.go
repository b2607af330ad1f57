package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// counts is what this process saw. Its JSON form is what tests read: see Counts in the e2e tests.
type counts struct {
	mu        sync.Mutex
	pod       string
	started   time.Time
	first     time.Time // success
	calls     int
	failures  int
	unready   int // failures before the first success
	watches   int // times that the watch was opened
	events    int // that the watch brought
	lastError string
	failedAt  time.Time
	longest   time.Duration
}

func (c *counts) served(took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	c.longest = max(c.longest, took)
	if c.first.IsZero() {
		c.first = time.Now()
	}
}

func (c *counts) failed(what string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first.IsZero() {
		c.unready++
		return
	}
	c.calls++
	c.failures++
	c.failedAt = time.Now()
	c.lastError = what + ": " + err.Error()
	fmt.Println(c.format())
}

func (c *counts) opened() { c.mu.Lock(); c.watches++; c.mu.Unlock() }

func (c *counts) event() { c.mu.Lock(); c.events++; c.mu.Unlock() }

func (c *counts) ready() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.first.IsZero() && c.watches > 0
}

func (c *counts) json() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.format()
}

func (c *counts) format() string {
	out := map[string]any{"pod": c.pod, "started": c.started, "calls": c.calls, "failures": c.failures, "failuresBeforeFirstSuccess": c.unready,
		"watches": c.watches, "watchEvents": c.events, "maxMillis": c.longest.Milliseconds()}
	if !c.first.IsZero() {
		out["firstSuccessMillis"] = c.first.Sub(c.started).Milliseconds()
	}
	if c.lastError != "" {
		out["lastError"], out["lastFailure"] = c.lastError, c.failedAt
	}
	text, err := json.Marshal(out)
	if err != nil {
		return fmt.Sprintf("%q", err)
	}
	return string(text)
}

// ServeHTTP answers /counts, and /ready once the API was reached.
func (c *counts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/ready" && !c.ready() {
		http.Error(w, "the API was not reached yet", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintln(w, c.json())
}
