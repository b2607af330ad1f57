package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"certrotation.dev/tests/faults/fault"
)

const object = `{"kind":"ConfigMap","metadata":{"name":"a","resourceVersion":"7"},"data":{"text":"0123456789"}}`

// bench is a proxy between a client and a server that counts what it was asked.
type bench struct {
	t       *testing.T
	proxy   *proxy
	url     string
	client  *http.Client
	asked   atomic.Int64
	events  chan string
	mu      sync.Mutex
	entries []fault.Entry
}

func (b *bench) Write(line []byte) (int, error) {
	var e fault.Entry
	if err := json.Unmarshal(line, &e); err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries = append(b.entries, e)
	return len(line), nil
}

func (b *bench) last() fault.Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.entries) == 0 {
		return fault.Entry{}
	}
	return b.entries[len(b.entries)-1]
}

// await waits for an entry.
func (b *bench) await(is func(*fault.Entry) bool) fault.Entry {
	b.t.Helper()
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		b.mu.Lock()
		for _, e := range b.entries {
			if is(&e) {
				b.mu.Unlock()
				return e
			}
		}
		b.mu.Unlock()
	}
	b.t.Fatalf("the entry did not come; the last one is %+v", b.last())
	return fault.Entry{}
}

func (b *bench) upstream(w http.ResponseWriter, r *http.Request) {
	b.asked.Add(1)
	if r.URL.Query().Get("watch") != "true" {
		fmt.Fprintf(w, `{"n":%d,"object":%s}`, b.asked.Load(), object)
		return
	}
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	for {
		select {
		case event := <-b.events:
			fmt.Fprintln(w, event)
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

func newBench(t *testing.T, kinds ...fault.Kind) *bench {
	t.Helper()
	b := &bench{t: t, events: make(chan string)}
	pki := t.TempDir()
	writePKI(t, pki)
	pair, err := tls.LoadX509KeyPair(filepath.Join(pki, "apiserver.crt"), filepath.Join(pki, "apiserver.key"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(b.upstream))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	b.proxy = newProxy(server.URL, pki, newTeller(b))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() { _ = b.proxy.serve(listener) }()
	b.url = "https://" + listener.Addr().String()
	roots := x509.NewCertPool()
	text, err := os.ReadFile(filepath.Join(pki, "ca.crt"))
	if err != nil || !roots.AppendCertsFromPEM(text) {
		t.Fatal(err)
	}
	b.client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
	b.proxy.begin(fault.Command{Seed: 1, Kinds: kinds, Name: "test"})
	return b
}

// writePKI makes an authority and a certificate as kubeadm lays them out.
func writePKI(t *testing.T, folder string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, text := range map[string][]byte{"ca.crt": certificate, "apiserver.crt": certificate,
		"apiserver.key": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})} {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

type result struct {
	status int
	header http.Header
	body   string
	err    error
}

func (b *bench) do(method, path, token string) result {
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(object)
	}
	request, err := http.NewRequest(method, b.url+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := b.client.Do(request)
	if err != nil {
		return result{err: err}
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return result{response.StatusCode, response.Header, string(text), err}
}

// struck sends requests until one is struck by the kind, and gives how many went before.
func (b *bench) struck(method, path string, kind fault.Kind) (result, fault.Entry, int) {
	b.t.Helper()
	class := map[bool]string{true: fault.List, false: fault.Write}[method == http.MethodGet]
	foreseen := &fault.Schedule{Seed: 1, Kinds: []fault.Kind{kind}}
	for i := range 2000 {
		strikes := foreseen.Strike(class, method, strings.TrimSuffix(path, list)) != ""
		got := b.do(method, path, "")
		if strikes {
			return got, b.await(func(e *fault.Entry) bool { return e.Kind == kind }), i
		}
	}
	b.t.Fatalf("%s never struck %s %s", kind, method, path)
	return result{}, fault.Entry{}, 0
}

const list = "?limit=500"

func TestAnswersBeforeTheCommit(t *testing.T) {
	for kind, want := range map[fault.Kind]int{fault.Conflict: 409, fault.Busy: 429, fault.Internal: 500, fault.Unavailable: 503} {
		b := newBench(t, kind)
		got, e, before := b.struck(http.MethodPatch, "/a", kind)
		if got.status != want || e.Told != want || e.Answer != 0 || e.Committed() {
			t.Errorf("%s: the client was told %d, the record says %+v", kind, got.status, e)
		}
		if !strings.Contains(got.body, fmt.Sprintf(`"code":%d`, want)) {
			t.Errorf("%s: no Status in %q", kind, got.body)
		}
		if (got.header.Get("Retry-After") == "1") != (kind == fault.Busy) {
			t.Errorf("%s: Retry-After is %q", kind, got.header.Get("Retry-After"))
		}
		if b.asked.Load() != int64(before) {
			t.Errorf("%s: the server was asked %d times, expected %d", kind, b.asked.Load(), before)
		}
	}
}

func TestGoneOnLists(t *testing.T) {
	b := newBench(t, fault.Gone)
	if got, e, _ := b.struck(http.MethodGet, "/a"+list, fault.Gone); got.status != http.StatusGone || e.Class != fault.List || e.Verb != "LIST" {
		t.Errorf("%+v, %+v", got, e)
	}
}

func TestAfterTheCommit(t *testing.T) {
	for _, kind := range []fault.Kind{fault.Lost, fault.Timeout, fault.Reset, fault.Half} {
		b := newBench(t, kind)
		got, e, before := b.struck(http.MethodPut, "/a", kind)
		if b.asked.Load() != int64(before)+1 || e.Answer != 200 || !e.Committed() {
			t.Errorf("%s: %+v", kind, e)
		}
		switch kind {
		case fault.Lost:
			if !errors.Is(got.err, syscall.ECONNRESET) && !errors.Is(got.err, io.EOF) || e.Told != 0 {
				t.Errorf("lost: %+v, %+v", got, e)
			}
		case fault.Timeout:
			if got.status != http.StatusGatewayTimeout || e.Told != http.StatusGatewayTimeout {
				t.Errorf("timeout: %+v, %+v", got, e)
			}
		case fault.Reset:
			if got.err == nil || got.status != 0 && got.status != 200 {
				t.Errorf("reset: %+v", got)
			}
		case fault.Half:
			if got.err != nil || got.status != 200 || json.Valid([]byte(got.body)) || got.body == "" {
				t.Errorf("half: %+v", got)
			}
		}
	}
}

func TestStall(t *testing.T) {
	b := newBench(t, fault.Stall)
	b.client.Timeout = 300 * time.Millisecond
	got, _, _ := b.struck(http.MethodGet, "/a"+list, fault.Stall)
	if got.err == nil || got.body == "" || json.Valid([]byte(got.body)) {
		t.Errorf("%+v", got)
	}
}

func TestStale(t *testing.T) {
	b := newBench(t, fault.Stale)
	first := b.do(http.MethodGet, "/a"+list, "")
	time.Sleep(pastLeast) // before, nothing is old enough
	b.proxy.schedule = &fault.Schedule{Seed: 1, Kinds: []fault.Kind{fault.Stale}}
	got, e, _ := b.struck(http.MethodGet, "/a"+list, fault.Stale)
	if got.body != first.body || e.Kind != fault.Stale {
		t.Errorf("%q, first it was %q", got.body, first.body)
	}
}

// watch opens a watch and gives its frames; the channel closes when it ends.
func (b *bench) watch() (<-chan string, error) {
	response, err := (&http.Client{Transport: b.client.Transport}).Get(b.url + "/a?watch=true")
	if err != nil {
		return nil, err
	}
	frames := make(chan string, 100)
	go func() {
		defer close(frames)
		defer response.Body.Close()
		buffer := make([]byte, 4096)
		for {
			n, err := response.Body.Read(buffer)
			if n > 0 {
				frames <- string(buffer[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	return frames, nil
}

// event sends one to whoever watches, and gives what the client saw of it within the time.
func (b *bench) event(frames <-chan string, text string, within time.Duration) (seen string, ended bool) {
	b.events <- text
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		select {
		case more, ok := <-frames:
			if !ok {
				return seen, true
			}
			seen += more
		case <-timer.C:
			return seen, false
		}
	}
}

func TestWatches(t *testing.T) {
	const text = `{"type":"MODIFIED","object":{"metadata":{"resourceVersion":"9"}}}`
	for kind, want := range map[fault.Kind]struct {
		seen  string
		ended bool
	}{
		fault.Missing:   {"", false},
		fault.Duplicate: {text + "\n" + text + "\n", false},
		fault.Delay:     {"", false}, // not so soon
		fault.Half:      {text[:len(text)/2], true},
		fault.Reset:     {text[:len(text)/2], true},
		fault.Stall:     {text[:len(text)/2], false},
		fault.Gone:      {`"code":410`, true},
	} {
		b := newBench(t, kind)
		frames, err := b.watch()
		if err != nil {
			t.Fatal(err)
		}
		struck := false
		for i := 0; i < 100 && !struck; i++ {
			seen, ended := b.event(frames, text, 200*time.Millisecond)
			if struck = seen != text+"\n"; struck && (ended != want.ended || !strings.HasPrefix(seen, want.seen) && !(kind == fault.Gone && strings.Contains(seen, want.seen))) {
				t.Errorf("%s: seen %q, ended: %v", kind, seen, ended)
			}
		}
		if !struck {
			t.Errorf("%s never struck", kind)
		}
	}
}

func TestExpiredTokens(t *testing.T) {
	b := newBench(t)
	old, next, other := token("pod-a", "1"), token("pod-a", "2"), token("pod-b", "1")
	for _, k := range []string{old, other} {
		if got := b.do(http.MethodGet, "/a", k); got.status != 200 {
			t.Fatalf("%+v", got)
		}
	}
	b.proxy.tokens.expire()
	for _, k := range []string{old, other} {
		if got := b.do(http.MethodGet, "/a", k); got.status != http.StatusUnauthorized {
			t.Errorf("%+v", got)
		}
	}
	if e := b.last(); e.What != fault.Refused || e.Pod != "pod-b" || strings.Contains(fmt.Sprint(e), other) {
		t.Errorf("%+v", e)
	}
	for _, k := range []string{next, old} {
		if got := b.do(http.MethodGet, "/a", k); got.status != 200 {
			t.Errorf("renewed: %+v", got)
		}
	}
	b.await(func(e *fault.Entry) bool { return e.What == fault.Renewed && e.Pod == "pod-a" })
	if got := b.do(http.MethodGet, "/a", other); got.status != http.StatusUnauthorized {
		t.Errorf("another pod's token made this one good: %+v", got)
	}
}

func token(pod, salt string) string {
	claims := fmt.Sprintf(`{"kubernetes.io":{"namespace":"n","pod":{"name":%q}},"jti":%q}`, pod, salt)
	return "header." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".signature"
}

func TestHold(t *testing.T) {
	b := newBench(t)
	b.proxy.gate.hold("pod-a", 2)
	for _, path := range []string{"/first", "/apis/coordination.k8s.io/v1/namespaces/n/leases/l"} {
		if got := b.do(http.MethodPatch, path, token("pod-a", "1")); got.status != 200 {
			t.Fatalf("%+v", got)
		}
	}
	if got := b.do(http.MethodPatch, "/second", token("pod-b", "1")); got.status != 200 {
		t.Fatalf("%+v", got)
	}
	asked := b.asked.Load()
	done := make(chan result)
	go func() { done <- b.do(http.MethodPatch, "/second", token("pod-a", "1")) }()
	b.await(func(e *fault.Entry) bool { return e.What == fault.Holding && e.Object == "/second" && e.Pod == "pod-a" })
	if b.asked.Load() != asked {
		t.Error("the server was asked before the release")
	}
	b.proxy.gate.release()
	if got := <-done; got.status != 200 || b.asked.Load() != asked+1 {
		t.Errorf("%+v", got)
	}
}

func TestRecord(t *testing.T) {
	b := newBench(t)
	if got := b.do(http.MethodPost, "/api/v1/namespaces/n/configmaps?fieldManager=certrotation", token("pod-a", "1")); got.status != 200 {
		t.Fatalf("%+v", got)
	}
	e := b.await(func(e *fault.Entry) bool { return e.What == fault.Request })
	if e.Object != "/api/v1/namespaces/n/configmaps/a" || e.Verb != "POST" || e.Pod != "pod-a" || !e.Committed() || e.Schedule != "test" {
		t.Errorf("%+v", e)
	}
	b.do(http.MethodGet, "/quiet", "")
	if last := b.last(); last.Object == "/quiet" {
		t.Error("a read that nothing struck was recorded")
	}
}

func TestCommands(t *testing.T) {
	b := newBench(t)
	in := `{"do":"schedule","seed":3,"kinds":["lost"],"name":"x"}` + "\n" + `{"do":"hold","pod":"p","nth":1}` + "\n" + `{"do":"release"}` + "\n"
	if err := b.proxy.obey(strings.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	if b.proxy.schedule.Seed != 3 || b.proxy.name != "x" || b.last().What != fault.Obeyed {
		t.Errorf("%+v %q %+v", b.proxy.schedule, b.proxy.name, b.last())
	}
	for _, wrong := range []string{`{"do":"nothing"}`, `no JSON`} {
		if err := b.proxy.obey(bytes.NewBufferString(wrong + "\n")); err == nil {
			t.Errorf("%s was obeyed", wrong)
		}
	}
}

func TestServerAway(t *testing.T) {
	b := newBench(t)
	b.proxy.server = "https://127.0.0.1:1"
	if got := b.do(http.MethodPatch, "/a", ""); got.status != http.StatusBadGateway || b.last().Error == "" {
		t.Errorf("%+v %+v", got, b.last())
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := b.proxy.dial(ctx, "tcp", "127.0.0.1:1"); err == nil {
		t.Error("dialled")
	}
}
