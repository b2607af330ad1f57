package probe

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
)

// Pod is one whose kubelet the sessions go through. Its image is the test workload's, whose program
// knows `reply` and `hold`.
type Pod struct {
	Namespace, Name, Node string
}

// Session is one `kubectl logs` or `kubectl exec`, from its own new connection.
type Session struct {
	What    string        `json:"what"`
	Node    string        `json:"node"`
	Started time.Time     `json:"started"`
	Took    time.Duration `json:"took"`
	Error   string        `json:"error,omitempty"`
	Phase   string        `json:"phase,omitempty"`
}

// Sessions opens logs and exec sessions all the time, and keeps one of each open per pod.
type Sessions struct {
	Config    func() *rest.Config // called for each session; its clients must share no connection
	Pods      []Pod
	LogsRate  float64 // new sessions a second, over all pods
	ExecRate  float64
	Phase     func() string
	OnFailure func(Session)

	mu   sync.Mutex
	done []Session
	held []*Held
}

// freshClient shares no connection with any other; done closes its own.
func freshClient(config *rest.Config) (*kubernetes.Clientset, func(), error) {
	settings, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, nil, err
	}
	transport := &http.Transport{TLSClientConfig: settings}
	wrapped, err := rest.HTTPWrappersForConfig(config, transport)
	if err != nil {
		return nil, nil, err
	}
	client, err := kubernetes.NewForConfigAndClient(config, &http.Client{Transport: wrapped})
	return client, transport.CloseIdleConnections, err
}

// Run works until ctx ends.
func (s *Sessions) Run(ctx context.Context) {
	var all sync.WaitGroup
	start := func(work func()) { all.Add(1); go func() { defer all.Done(); work() }() }
	for _, pod := range s.Pods {
		logs, exec := &Held{}, &Held{}
		s.mu.Lock()
		s.held = append(s.held, logs, exec)
		s.mu.Unlock()
		start(func() { logs.keep(ctx, "logs -f", pod.Node, s.follow(pod, logs.message)) })
		start(func() { exec.keep(ctx, "exec", pod.Node, s.holdExec(pod, exec.message)) })
	}
	start(func() { s.pace(ctx, "logs", s.LogsRate, s.logs) })
	start(func() { s.pace(ctx, "exec over WebSocket", s.ExecRate/2, s.execWebSocket) })
	start(func() { s.pace(ctx, "exec over SPDY", s.ExecRate/2, s.execSPDY) })
	all.Wait()
}

func (s *Sessions) pace(ctx context.Context, what string, rate float64, session func(context.Context, Pod) error) {
	if rate <= 0 {
		return
	}
	ticker := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer ticker.Stop()
	var under sync.WaitGroup
	defer under.Wait()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		pod := s.Pods[i%len(s.Pods)]
		under.Add(1)
		go func() { defer under.Done(); s.one(what, pod, session) }()
	}
}

func (s *Sessions) one(what string, pod Pod, session func(context.Context, Pod) error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	result := Session{What: what, Node: pod.Node, Started: time.Now()}
	if err := session(ctx, pod); err != nil {
		result.Error = err.Error()
	}
	result.Took = time.Since(result.Started)
	if s.Phase != nil {
		result.Phase = s.Phase()
	}
	s.mu.Lock()
	s.done = append(s.done, result)
	s.mu.Unlock()
	if result.Error != "" && s.OnFailure != nil {
		s.OnFailure(result)
	}
}

// Done gives all sessions that have a result.
func (s *Sessions) Done() []Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Session(nil), s.done...)
}

// Breaks gives each end of a session that was held open.
func (s *Sessions) Breaks() []Break {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Break
	for _, h := range s.held {
		all = append(all, h.Breaks()...)
	}
	return all
}

// AwaitHeld waits until every held session has brought a message.
func (s *Sessions) AwaitHeld(ctx context.Context) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		s.mu.Lock()
		quiet := 0
		for _, h := range s.held {
			if seen, _ := h.Seen(); seen == 0 {
				quiet++
			}
		}
		total := len(s.held)
		s.mu.Unlock()
		if total == 2*len(s.Pods) && quiet == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d held sessions brought nothing: %w; ends so far: %v", quiet, total, ctx.Err(), s.Breaks())
		case <-ticker.C:
		}
	}
}

func (s *Sessions) logs(ctx context.Context, pod Pod) error {
	client, done, err := freshClient(s.Config())
	if err != nil {
		return err
	}
	defer done()
	lines := int64(1)
	text, err := client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{TailLines: &lines}).DoRaw(ctx)
	if err == nil && len(bytes.TrimSpace(text)) == 0 {
		err = fmt.Errorf("the log is empty")
	}
	return err
}

// quiet is how long a held session may bring nothing; its pod writes a line every second.
const quiet = 15 * time.Second

func (s *Sessions) follow(pod Pod, message func()) func(context.Context, func()) error {
	return func(ctx context.Context, opened func()) error {
		client, done, err := freshClient(s.Config())
		if err != nil {
			return err
		}
		defer done()
		lines := int64(1)
		stream, err := client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Follow: true, TailLines: &lines}).Stream(ctx)
		if err != nil {
			return err
		}
		opened()
		return readLines(ctx, stream, message)
	}
}

// readLines reads until the stream ends or brings nothing for too long.
func readLines(ctx context.Context, stream io.ReadCloser, message func()) error {
	var once sync.Once
	stalled := false
	end := func(silence bool) { once.Do(func() { stalled = silence; stream.Close() }) }
	timer := time.AfterFunc(quiet, func() { end(true) })
	stop := context.AfterFunc(ctx, func() { end(false) })
	defer stop()
	defer timer.Stop()
	scanner := bufio.NewScanner(stream)
	for scanner.Scan() {
		timer.Reset(quiet)
		message()
	}
	end(false)
	if stalled {
		return fmt.Errorf("nothing came for %s", quiet)
	}
	return scanner.Err()
}

func (s *Sessions) execSPDY(ctx context.Context, pod Pod) error {
	return s.echo(ctx, pod, func(c *rest.Config, r *rest.Request) (remotecommand.Executor, error) {
		return remotecommand.NewSPDYExecutor(c, http.MethodPost, r.URL())
	})
}

func (s *Sessions) execWebSocket(ctx context.Context, pod Pod) error {
	return s.echo(ctx, pod, func(c *rest.Config, r *rest.Request) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(c, http.MethodGet, r.URL().String())
	})
}

type dial func(*rest.Config, *rest.Request) (remotecommand.Executor, error)

func (s *Sessions) exec(pod Pod, make dial, stdin bool, command ...string) (remotecommand.Executor, func(), error) {
	config := s.Config()
	client, done, err := freshClient(config)
	if err != nil {
		return nil, nil, err
	}
	request := client.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: command, Stdin: stdin, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := make(config, request)
	return executor, done, err
}

// echo sends a word and waits until it comes back; then the command ends, for its input does. What a command
// prints just before it ends may be lost on a busy node, whatever its certificates are.
func (s *Sessions) echo(ctx context.Context, pod Pod, make dial) error {
	word := fmt.Sprintf("hello-%d", time.Now().UnixNano())
	executor, done, err := s.exec(pod, make, true, "/workload", "reply")
	if err != nil {
		return err
	}
	defer done()
	in, say := io.Pipe()
	hear, out := io.Pipe()
	heard := ""
	listened := goDone(func() {
		defer say.Close()
		line, _ := bufio.NewReader(hear).ReadString('\n')
		heard = strings.TrimSpace(line)
	})
	spoken := goDone(func() { _, _ = io.WriteString(say, word+"\n") })
	var errors bytes.Buffer
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: out, Stderr: &errors})
	in.Close()
	out.Close()
	<-spoken
	<-listened
	if err == nil && heard != word {
		err = fmt.Errorf("the command said %q instead of %q (stderr %q)", heard, word, errors.String())
	}
	return err
}

func goDone(work func()) <-chan struct{} {
	done := make(chan struct{})
	go func() { defer close(done); work() }()
	return done
}

func (s *Sessions) holdExec(pod Pod, message func()) func(context.Context, func()) error {
	return func(ctx context.Context, opened func()) error {
		executor, done, err := s.exec(pod, func(c *rest.Config, r *rest.Request) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(c, http.MethodGet, r.URL().String())
		}, true, "/workload", "hold")
		if err != nil {
			return err
		}
		defer done()
		return holdStream(ctx, executor, opened, message)
	}
}

// holdStream keeps standard input open; the command ends by itself when that ends.
func holdStream(ctx context.Context, executor remotecommand.Executor, opened, message func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, keepOpen := io.Pipe()
	defer keepOpen.Close()
	out, lines := io.Pipe()
	read := make(chan error, 1)
	go func() {
		var first sync.Once
		err := readLines(ctx, out, func() { first.Do(opened); message() })
		cancel()
		read <- err
	}()
	err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: lines})
	lines.Close()
	if silence := <-read; silence != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = silence
	}
	return err
}
