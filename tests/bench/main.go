// Bench prints the numbers of rotations from their record (../timeline), beside what is aimed at and what
// the same walk written as a shell script took.
package main

import (
	"fmt"
	"os"
	"sort"
	"text/tabwriter"

	"certrotation.dev/tests/timeline"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: bench TIMELINE")
		os.Exit(2)
	}
	list, err := timeline.Read(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	for _, r := range list {
		print(r)
	}
}

func print(r *timeline.Rotation) {
	out := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	defer out.Flush()
	fmt.Fprintf(out, "rotation %s on %d nodes", r.Trigger, r.Nodes)
	if r.Completed.IsZero() {
		fmt.Fprintf(out, ": NOT COMPLETED\n")
	} else {
		fmt.Fprintf(out, "\n")
	}
	walls(out, r)
	usage(out, r)
	lags(out, r)
	failures(out, r)
	fmt.Fprintln(out)
}

// The shell walk's times by what it did, measured on the same machine model: 120 s in all.
const shellWalk = "0.4 s trust both, 35 s published (restart of the controller-manager), 1 s leaves, 5 s kubelets, 3 s scheduler, 38 s workloads, 33 s published alone"

func walls(out *tabwriter.Writer, r *timeline.Rotation) {
	fmt.Fprintf(out, "\nwall time\tseconds\taim\tshell walk\n")
	for _, s := range r.Phases {
		if s.Phase != "Completed" {
			fmt.Fprintf(out, "  %s\t%.1f\n", s.Phase, s.To.Sub(s.From).Seconds())
		}
	}
	if !r.Completed.IsZero() {
		all := r.Completed.Sub(r.Applied).Seconds()
		fmt.Fprintf(out, "  from kubectl apply to Completed\t%.1f\n", all)
		fmt.Fprintf(out, "  of which the test kept it waiting\t%.1f\n", r.HeldSeconds)
		fmt.Fprintf(out, "  without that\t%.1f\t60\t120\n", all-r.HeldSeconds)
	}
	fmt.Fprintf(out, "  (shell walk: %s)\n", shellWalk)
}

func usage(out *tabwriter.Writer, r *timeline.Rotation) {
	fmt.Fprintf(out, "\ncontroller\tRSS idle\tRSS peak\tanonymous idle\tanonymous peak\tCPU s\n")
	var cpu float64
	for _, u := range r.Controller {
		fmt.Fprintf(out, "  %s %.8s\t%s\t%s\t%s\t%s\t%.2f\n", u.Pod, u.ID, mib(u.IdleRSSKiB), mib(u.PeakRSSKiB), mib(u.IdleAnonymousKiB), mib(u.PeakAnonymousKiB), u.CPUSeconds)
		cpu += u.CPUSeconds
	}
	fmt.Fprintf(out, "  all\t\t\t\t\t%.2f\n  aim\t\t18 MB\t\t6 MB\t2\n", cpu)
}

func mib(kib int64) string {
	if kib == 0 {
		return "-" // started later
	}
	return fmt.Sprintf("%.1f MB", float64(kib)*1024/1e6)
}

func lags(out *tabwriter.Writer, r *timeline.Rotation) {
	byComponent := map[string][]float64{}
	var names []string
	for _, l := range r.InForce {
		if byComponent[l.Component] == nil {
			names = append(names, l.Component)
		}
		byComponent[l.Component] = append(byComponent[l.Component], l.Millis)
	}
	sort.Strings(names)
	fmt.Fprintf(out, "\nfile replaced to seen in force\ttimes\tmedian ms\tlongest ms\n")
	for _, name := range names {
		all := byComponent[name]
		sort.Float64s(all)
		fmt.Fprintf(out, "  %s\t%d\t%.0f\t%.0f\n", name, len(all), all[len(all)/2], all[len(all)-1])
	}
}

func failures(out *tabwriter.Writer, r *timeline.Rotation) {
	fmt.Fprintf(out, "\nprobes\tattempts\tfailed\tp50 ms\tp99 ms\tmax ms\tlongest gap ms\n")
	for _, p := range r.Probes {
		fmt.Fprintf(out, "  %s\t%d\t%d\t%.1f\t%.1f\t%.1f\t%.0f\n", p.Cell, p.Attempts, p.Failures, p.P50Millis, p.P99Millis, p.MaxMillis, p.GapMillis)
	}
	total := 0
	for _, n := range r.Sessions {
		total += n
	}
	fmt.Fprintf(out, "  failed before the drop\t\t%d\n  new logs and exec sessions\t%d\t%d\n  held sessions cut\t\t%d\n", len(r.Failures), total, len(r.SessionErrors), len(r.Cuts))
	count := map[string]int{}
	for _, x := range r.Restarts {
		count[x.Component]++
	}
	fmt.Fprintf(out, "restarts\t%v\n", count)
}
