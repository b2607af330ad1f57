package timeline

import (
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/probe"
	"certrotation.dev/tests/snapshot"
)

func TestLags(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(100, 0).Add(time.Duration(ms) * time.Millisecond) }
	leaf := []snapshot.Certificate{{Fingerprint: "f1"}, {Fingerprint: "x"}}
	ca := []snapshot.Certificate{{Subject: "CN=old"}, {Subject: "CN=new"}}
	events := []nodes.Event{
		{At: at(0), What: nodes.FileChanged, Node: "a", Path: "/etc/kubernetes/pki/apiserver.crt", Certificates: leaf},
		{At: at(10), What: nodes.Presents, Node: "b", Path: "1:6443", Certificates: leaf},
		{At: at(20), What: nodes.Presents, Node: "a", Path: "1:6443", Certificates: []snapshot.Certificate{{Fingerprint: "f0"}}},
		{At: at(45), What: nodes.Presents, Node: "a", Path: "1:6443", Certificates: leaf},
		{At: at(100), What: nodes.FileChanged, Node: "a", Path: "/etc/kubernetes/pki/ca.crt", Certificates: ca},
		{At: at(160), What: nodes.Accepts, Node: "a", Path: "1:6443", Names: []string{"CN=new", "CN=old"}},
		{At: at(200), What: nodes.FileChanged, Node: "a", Path: "/etc/kubernetes/scheduler.conf"},
		{At: at(250), What: nodes.FileChanged, Node: "a", Path: "/etc/kubernetes/scheduler.conf"},
		{At: at(1250), What: nodes.ContainerStarted, Node: "a", Container: "kube-scheduler"},
	}
	var seen []float64
	for _, l := range Lags(events, at(-1), at(5000), "CN=old", "CN=new") {
		seen = append(seen, l.Millis)
	}
	if !reflect.DeepEqual(seen, []float64{45, 60, 1000}) {
		t.Errorf("%v", seen)
	}
}

func TestUsagesAndFile(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	events := []nodes.Event{
		{At: at(1), What: nodes.Memory, ID: "c", Pod: "p", RSS: 9000, Anonymous: 2000, CPUSeconds: 0.5},
		{At: at(3), What: nodes.Memory, ID: "c", Pod: "p", RSS: 12000, Anonymous: 3000, CPUSeconds: 1.5},
		{At: at(4), What: nodes.Memory, ID: "c", Pod: "p", RSS: 11000, Anonymous: 2500, CPUSeconds: 2},
		{At: at(9), What: nodes.Memory, ID: "c", Pod: "p", RSS: 99999, Anonymous: 99999, CPUSeconds: 9},
	}
	usage := Usages(events, at(2), at(5))
	want := []Usage{{Pod: "p", ID: "c", IdleRSSKiB: 9000, IdleAnonymousKiB: 2000, PeakRSSKiB: 12000, PeakAnonymousKiB: 3000, CPUSeconds: 1.5}}
	if !reflect.DeepEqual(usage, want) {
		t.Errorf("%+v", usage)
	}
	path := filepath.Join(t.TempDir(), "timeline.json")
	record := &Rotation{Trigger: "one", Controller: usage, Failures: []probe.Attempt{{Cell: probe.Cell{Trust: probe.OldTrust, Credential: probe.Token}, Kind: probe.Reset, Took: time.Second}}}
	if err := Write(path, []*Rotation{record}); err != nil {
		t.Fatal(err)
	}
	back, err := Read(path)
	if err != nil || len(back) != 1 || !reflect.DeepEqual(back[0].Failures, record.Failures) || !reflect.DeepEqual(back[0].Controller, usage) {
		t.Errorf("%v %+v", err, back)
	}
}
