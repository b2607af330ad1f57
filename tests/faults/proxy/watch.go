package main

import (
	"bufio"
	"context"
	"fmt"
	"hash/fnv"
	"net/http"
	"time"

	"certrotation.dev/tests/faults/fault"
)

// stream is a watch that is passed on event by event.
type stream struct {
	*exchange
	flush func() error
}

// watch passes a watch on. What strikes it when it is opened is an answer like any other's.
func (x *exchange) watch() {
	if kind := x.schedule.Strike(fault.Stream, x.r.Method, x.r.URL.Path); kind != "" {
		x.entry.Kind = kind
		x.refuse(kind)
		return
	}
	ctx, cancel := context.WithCancel(x.r.Context())
	defer cancel()
	response, err := x.send(ctx)
	if err != nil {
		if x.r.Context().Err() == nil {
			x.broken(err)
		}
		return
	}
	defer response.Body.Close()
	for name, values := range response.Header {
		x.w.Header()[name] = values
	}
	x.w.Header().Del("Content-Length")
	x.w.WriteHeader(response.StatusCode)
	s := &stream{x, http.NewResponseController(x.w).Flush}
	if s.flush() == nil {
		s.pass(bufio.NewReader(response.Body))
	}
}

// pass goes on until the stream ends, on this side or that.
func (s *stream) pass(in *bufio.Reader) {
	for {
		frame, err := in.ReadBytes('\n')
		if err != nil || !s.frame(frame) {
			return
		}
	}
}

// frame passes one event on, as the schedule will have it; false ends the stream.
func (s *stream) frame(frame []byte) bool {
	s.schedule, s.entry.Schedule, s.over = s.present() // a watch outlives schedules
	kind := s.schedule.Strike(fault.Frame, "WATCH", s.r.URL.Path)
	if kind == "" {
		return s.put(frame)
	}
	struck := s.entry
	struck.Class, struck.Kind, struck.At = fault.Frame, kind, time.Now()
	defer func() { s.tell(struck) }()
	switch kind {
	case fault.Missing:
		return true
	case fault.Duplicate:
		return s.put(frame) && s.put(frame)
	case fault.Delay:
		return s.wait(delay(frame)) && s.put(frame)
	case fault.Gone:
		s.put(fmt.Appendf(nil, `{"type":"ERROR","object":%s}`+"\n", status(http.StatusGone, "Expired", "too old resource version")))
	case fault.Half:
		s.put(frame[:len(frame)/2])
	case fault.Reset:
		s.put(frame[:len(frame)/2])
		s.cut("")
	case fault.Stall:
		s.put(frame[:len(frame)/2])
		s.stall()
	}
	return false
}

func (s *stream) put(bytes []byte) bool {
	_, err := s.w.Write(bytes)
	return err == nil && s.flush() == nil
}

// delay is between one and five seconds, by what the event holds.
func delay(frame []byte) time.Duration {
	sum := fnv.New32a()
	sum.Write(frame)
	return time.Second + time.Duration(sum.Sum32()%4000)*time.Millisecond
}

// wait is false when the client is gone.
func (s *stream) wait(length time.Duration) bool {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.over:
	case <-s.r.Context().Done():
		return false
	}
	return true
}
