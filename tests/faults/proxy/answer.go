package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"certrotation.dev/tests/faults/fault"
)

// refusals are the answers that come without the API server.
var refusals = map[fault.Kind]struct {
	status  int
	reason  string
	message string
}{
	fault.Conflict:    {http.StatusConflict, "Conflict", "the object has been modified; please apply your changes to the latest version and try again"},
	fault.Gone:        {http.StatusGone, "Expired", "The provided continue parameter is too old"},
	fault.Busy:        {http.StatusTooManyRequests, "TooManyRequests", "the server has received too many requests and has asked us to try again later"},
	fault.Internal:    {http.StatusInternalServerError, "InternalError", "an error on the server has prevented the request from succeeding"},
	fault.Unavailable: {http.StatusServiceUnavailable, "ServiceUnavailable", "the server is currently unable to handle the request"},
	fault.Timeout:     {http.StatusGatewayTimeout, "Timeout", "the server was unable to return a response in the time allotted, but may still be processing the request"},
}

func (x *exchange) refuse(kind fault.Kind) {
	if kind == fault.Busy {
		x.w.Header().Set("Retry-After", "1")
	}
	x.status(refusals[kind].status, refusals[kind].reason, refusals[kind].message)
}

// status answers with an object of kind Status.
func (x *exchange) status(code int, reason, message string) {
	x.entry.Told = code
	body := status(code, reason, message)
	x.w.Header().Set("Content-Type", "application/json")
	x.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	x.w.WriteHeader(code)
	_, _ = x.w.Write(body) // who is gone hears nothing
}

func status(code int, reason, message string) []byte {
	body, err := json.Marshal(map[string]any{"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{},
		"status": "Failure", "code": code, "reason": reason, "message": message})
	if err != nil {
		panic(err) // there is nothing in it that JSON does not know
	}
	return body
}

// give passes an answer on, or what the fault leaves of it.
func (x *exchange) give(a *answer, kind fault.Kind) {
	x.entry.Told = a.status
	switch kind {
	case fault.Lost:
		x.entry.Told = 0
		x.cut("")
	case fault.Timeout:
		x.refuse(kind)
	case fault.Reset:
		x.cut(fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", a.status, http.StatusText(a.status),
			a.header.Get("Content-Type"), len(a.body), a.body[:len(a.body)/2]))
	case fault.Half:
		x.write(a, a.body[:len(a.body)/2], len(a.body)/2)
	case fault.Stall:
		x.write(a, a.body[:len(a.body)/2], len(a.body))
		x.stall()
	default:
		x.write(a, a.body, len(a.body))
	}
}

func (x *exchange) write(a *answer, body []byte, length int) {
	for name, values := range a.header {
		x.w.Header()[name] = values
	}
	x.w.Header().Set("Content-Length", strconv.Itoa(length))
	x.w.WriteHeader(a.status)
	_, _ = x.w.Write(body) // who is gone hears nothing
	if f, ok := x.w.(http.Flusher); ok {
		f.Flush()
	}
}

// stall waits until the client has had enough, or the schedule is over; the handler's end cuts the connection, for the body is short.
func (x *exchange) stall() {
	select {
	case <-x.r.Context().Done():
	case <-x.over:
	}
}

// cut sends raw bytes and resets the connection.
func (x *exchange) cut(raw string) {
	controller := http.NewResponseController(x.w)
	connection, buffered, err := controller.Hijack()
	if err != nil {
		x.entry.Error = err.Error()
		return
	}
	reset(connection, buffered, raw)
}

func reset(connection net.Conn, buffered *bufio.ReadWriter, raw string) {
	_, _ = buffered.WriteString(raw) // who is gone hears nothing
	_ = buffered.Flush()
	below := connection
	if over, is := connection.(*tls.Conn); is {
		below = over.NetConn()
	}
	if tcp, is := below.(*net.TCPConn); is {
		_ = tcp.SetLinger(0) // a reset, not an end
	}
	_ = below.Close()
}
