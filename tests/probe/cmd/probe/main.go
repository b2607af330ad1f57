// Probe asks a cluster's API servers all the time, as every kind of client that a rotation knows, and
// prints each failure as it happens and a table at the end. It makes what it needs in the namespace
// certrotation-test, and leaves it there.
//
//	probe -kubeconfig FILE [-rotation NAME] [-duration 5m] [-sessions]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/dynamic"

	"certrotation.dev/tests/fixture"
	"certrotation.dev/tests/probe"
	"certrotation.dev/tests/story"
)

type options struct {
	kubeconfig, rotation string
	duration             time.Duration
	logs, exec           float64
}

func main() {
	var o options
	flag.StringVar(&o.kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"), "the administrator's kubeconfig")
	flag.StringVar(&o.rotation, "rotation", "", "name of the CertificateRotation whose phase is noted with each failure")
	flag.DurationVar(&o.duration, "duration", 0, "how long to probe; 0 is until interrupted")
	flag.Float64Var(&o.logs, "logs", 0, "new logs sessions a second (needs the workload image on the nodes)")
	flag.Float64Var(&o.exec, "exec", 0, "new exec sessions a second")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	cluster, err := fixture.Open(ctx, o.kubeconfig)
	if err != nil {
		return err
	}
	phase, err := phases(ctx, cluster, o.rotation)
	if err != nil {
		return err
	}
	keys, err := cluster.Keyring(ctx, func(err error) { fmt.Println("new client certificate:", err) })
	if err != nil {
		return err
	}
	working := ctx
	if o.duration > 0 {
		var cancel context.CancelFunc
		working, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	}
	fmt.Printf("probing %v; the authority is %s\n", cluster.Servers, keys.Old().Subject)
	return work(working, cluster, keys, phase, o)
}

func phases(ctx context.Context, cluster *fixture.Cluster, rotation string) (func() string, error) {
	if rotation == "" {
		return func() string { return "" }, nil
	}
	client, err := dynamic.NewForConfig(cluster.Live.Config())
	if err != nil {
		return nil, err
	}
	lease := story.Lease{Namespace: "certrotation-system", Name: "certrotation-controller"}
	recorder, err := story.Record(ctx, client, cluster.Client, rotation, lease)
	if err != nil {
		return nil, err
	}
	return recorder.Phase, nil
}

func work(ctx context.Context, cluster *fixture.Cluster, keys *probe.Keyring, phase func() string, o options) error {
	var all sync.WaitGroup
	var sets []*probe.Set
	for _, address := range cluster.Servers {
		set := &probe.Set{Address: address, Path: fixture.Path, Keys: keys, Phase: phase,
			OnFailure:    func(a probe.Attempt) { fmt.Println(probe.Tell([]probe.Attempt{a})) },
			NewPublished: func() bool { return cluster.NewPublished(keys) }}
		sets = append(sets, set)
		all.Add(1)
		go func() { defer all.Done(); set.Run(ctx) }()
	}
	watch := probe.HoldWatch(ctx, cluster.Live.Fresh, fixture.Namespace)
	sessions := &probe.Sessions{Config: cluster.Live.Fresh, LogsRate: o.logs, ExecRate: o.exec, Phase: phase,
		OnFailure: func(s probe.Session) {
			fmt.Printf("%s %s through %s: %s\n", s.Started.Format("15:04:05.000"), s.What, s.Node, s.Error)
		}}
	if o.logs+o.exec > 0 {
		pods, err := cluster.SessionPods(ctx)
		if err != nil {
			return err
		}
		sessions.Pods = pods
		all.Add(1)
		go func() { defer all.Done(); sessions.Run(ctx) }()
	}
	all.Wait()
	report(sets, watch, sessions)
	return nil
}

func report(sets []*probe.Set, watch *probe.Held, sessions *probe.Sessions) {
	for _, set := range sets {
		fmt.Printf("\n%s\n%s", set.Address, probe.Table(probe.Summarize(set.Attempts())))
		for _, p := range set.Presentations() {
			fmt.Printf("from %s: %s\n", p.At.Format("15:04:05.000"), p.Server)
		}
	}
	fmt.Print(probe.SessionTable(sessions.Done()))
	messages, opened := watch.Seen()
	fmt.Printf("watch: opened %d times, %d messages\n", opened, messages)
	for _, b := range append(watch.Breaks(), sessions.Breaks()...) {
		fmt.Println("cut:", b)
	}
}
