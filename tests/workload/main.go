// Workload is a client of the API as there are many: it reads the cluster's CA once, at start, from
// the volume that every pod has, and talks to the API with its ServiceAccount's token, in new
// connections several times a second and in one watch that it keeps open. It counts what fails.
//
//	workload                 run; settings are in the environment, see settings()
//	workload reply           print what comes on standard input until that ends (for exec sessions)
//	workload hold            print a line every second until standard input ends (for exec sessions)
//	workload tick            the same, for ever (a pod that does not talk to the API)
//	workload serve           answer the API server as a webhook and as an aggregated API server, see serve()
//
// Its count is served at :8080/counts, printed with each failure and at the end, and left as the
// container's termination message, so that it outlives the pod. Failures are counted from the first
// success on: before, a pod may be up sooner than the node's Service rules.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		os.Exit(command(os.Args[1:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
}

func command(args []string) int {
	switch {
	case args[0] == "reply":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, "workload:", err)
			return 1
		}
	case args[0] == "hold":
		ended := make(chan struct{})
		go func() { _, _ = os.Stdin.Read(make([]byte, 1)); close(ended) }()
		tick(ended)
	case args[0] == "tick":
		terminated := make(chan os.Signal, 1)
		signal.Notify(terminated, syscall.SIGTERM)
		ended := make(chan struct{})
		go func() { <-terminated; close(ended) }()
		tick(ended)
	case args[0] == "serve":
		return serve()
	default:
		fmt.Fprintln(os.Stderr, "usage: workload [reply | hold | tick | serve]")
		return 2
	}
	return 0
}

func tick(ended <-chan struct{}) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		fmt.Println(time.Now().Format(time.RFC3339Nano))
		select {
		case <-ended:
			return
		case <-ticker.C:
		}
	}
}

func run(ctx context.Context) error {
	s, err := settings()
	if err != nil {
		return err
	}
	c := &counts{started: time.Now(), pod: os.Getenv("POD_NAME")}
	server := &http.Server{Addr: ":8080", Handler: c, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "workload:", err)
		}
	}()
	s.talk(ctx, c)
	text := c.json()
	fmt.Println(text)
	return os.WriteFile("/dev/termination-log", []byte(text), 0o644)
}
