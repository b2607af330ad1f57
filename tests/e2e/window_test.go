package e2e

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/probe"
)

// window is the time in which a control plane's etcd and API server restart.
type window struct {
	node, address string
	gone          time.Time // the first of the two
	back          time.Time // the last of the two has started
	served        time.Time // and a request was served
}

func (w window) String() string {
	return fmt.Sprintf("%s: away at %s, both back after %.1f s, serving after %.1f s", w.node, w.gone.Format("15:04:05.000"),
		w.back.Sub(w.gone).Seconds(), w.served.Sub(w.gone).Seconds())
}

// addresses says where each control plane's API server is dialled.
func (c *closer) addresses(ctx context.Context, t *testing.T) map[string]string {
	t.Helper()
	list, err := c.bed.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, n := range list.Items {
		for _, a := range n.Status.Addresses {
			if at := net.JoinHostPort(a.Address, "6443"); a.Type == corev1.NodeInternalIP && slices.Contains(c.bed.Servers, at) {
				all[n.Name] = at
			}
		}
	}
	return all
}

// windows gives one for each control plane, in the order of time.
func (c *closer) windows(ctx context.Context, t *testing.T) []window {
	t.Helper()
	addresses := c.addresses(ctx, t)
	var list []window
	for _, node := range c.bed.controlPlanes() {
		w := window{node: node, address: addresses[node]}
		for _, e := range c.bed.observer.Events() {
			if e.Node != node || e.Already || e.At.Before(c.applied) || e.At.After(c.settled) || !isStatic(&e, "kube-apiserver") && !isStatic(&e, "etcd") {
				continue
			}
			if e.What == nodes.ContainerGone && w.gone.IsZero() {
				w.gone = e.At
			}
			if e.What == nodes.ContainerStarted {
				w.back = e.At
			}
		}
		if w.gone.IsZero() || w.back.Before(w.gone) {
			t.Fatalf("%s: etcd and API server were not seen to end and to start again: %+v", node, w)
		}
		w.served = c.servedAfter(w)
		if w.served.IsZero() {
			t.Fatalf("%s: no request was served after %s", node, w.back.Format("15:04:05.000"))
		}
		list = append(list, w)
	}
	slices.SortFunc(list, func(a, b window) int { return a.gone.Compare(b.gone) })
	return list
}

// attemptsAt are all attempts at one API server.
func (c *closer) attemptsAt(address string) []probe.Attempt {
	var all []probe.Attempt
	for _, set := range append(slices.Clone(c.sets), c.aggregated...) {
		if set.Address == address {
			all = append(all, set.Attempts()...)
		}
	}
	return all
}

func (c *closer) servedAfter(w window) time.Time {
	var first time.Time
	for _, a := range c.attemptsAt(w.address) {
		if ended := a.Ended(); a.Kind == probe.Served && ended.After(w.back) && (first.IsZero() || ended.Before(first)) {
			first = ended
		}
	}
	return first
}

// aim is how long a request may wait, where nothing else keeps the machine busy.
const aim = 10 * time.Second

// assertWindows: each one is over before the next begins, and in each requests were made that waited and were served.
func (c *closer) assertWindows(ctx context.Context, t *testing.T) {
	var last window
	var told []string
	for _, w := range c.windows(ctx, t) {
		if w.gone.Before(last.served) {
			t.Errorf("%s begins before the other is over, %s", w, last)
		}
		last = w
		waited := probe.Filter(c.attemptsAt(w.address), func(a *probe.Attempt) bool {
			return a.Started.After(w.gone) && a.Started.Before(w.back) && a.Kind == probe.Served
		})
		if len(waited) == 0 {
			t.Errorf("%s: no request that was made meanwhile was served, so nothing is shown of how long they wait", w)
		}
		told = append(told, fmt.Sprintf("%s; %d requests were made meanwhile and served", w, len(waited)))
	}
	most := longest(c.attempts())
	for _, set := range c.aggregated {
		most = max(most, longest(set.Attempts()))
	}
	say("etcd's windows: %s; the longest request took %.1f s, of %.0f that are aimed at", strings.Join(told, "; "), most.Seconds(), aim.Seconds())
	t.Logf("%s; the longest request took %.1f s, of %.0f that are aimed at", strings.Join(told, "; "), most.Seconds(), aim.Seconds())
}
