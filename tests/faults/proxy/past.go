package main

import "time"

// How old an answer from the past is: an API server that lags behind.
const (
	pastLeast = 2 * time.Second
	pastMost  = 10 * time.Second
)

type remembered struct {
	at time.Time
	*answer
}

// past remembers what each read was answered.
type past struct {
	answers map[string][]remembered
}

// pastOr keeps an answer for later, and gives an older one where that is wanted and there is one.
func (x *exchange) pastOr(now *answer, wanted bool) *answer {
	key := x.r.URL.RequestURI() + " " + x.r.Header.Get("Accept")
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.past.answers == nil {
		x.past.answers = map[string][]remembered{}
	}
	list := x.past.answers[key]
	for len(list) > 0 && time.Since(list[0].at) > pastMost {
		list = list[1:]
	}
	x.past.answers[key] = append(list, remembered{time.Now(), now})
	if !wanted {
		return now
	}
	if len(list) == 0 || time.Since(list[0].at) < pastLeast || aboutLease(x.r.URL.Path) {
		x.entry.Kind = "" // there is no past
		return now
	}
	return list[0].answer
}
