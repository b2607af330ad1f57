package e2e

import (
	"context"
	"encoding/json"
	"path"
	"slices"
	"strings"
	"testing"

	"certrotation.dev/tests/snapshot"
)

// acceptedVolumes are the folders of pods that were accepted as stragglers.
func (r *rotation) acceptedVolumes() []string {
	var list []string
	for _, p := range r.bed.book.Pods() {
		if r.accepted[p.Owner] || r.accepted["Pod/"+p.Namespace+"/"+p.Name] {
			list = append(list, "/var/lib/kubelet/pods/"+string(p.UID)+"/")
		}
	}
	return list
}

func (r *rotation) ofAccepted(path string) bool {
	return slices.ContainsFunc(r.acceptedVolumes(), func(folder string) bool { return strings.HasPrefix(path, folder) })
}

func (r *rotation) assertNoTraces(t *testing.T) {
	for _, s := range r.successions(t) {
		r.assertNoTracesOf(t, s)
	}
}

func (r *rotation) assertNoTracesOf(t *testing.T, s succession) {
	authority := snapshot.Of(s.old)
	for name, before := range r.before {
		if len(before.Traces(authority)) == 0 && r.hasAuthority(name, s.name) {
			t.Errorf("%s: nothing of the old %s authority was found before the run either, so this shows nothing", name, s.name)
		}
		for _, trace := range r.after[name].Traces(authority) {
			if !r.ofAccepted(trace.Path) {
				t.Errorf("%s: %s", name, trace)
			}
		}
	}
}

// assertNewInPlace: where the old authority left its traces before, the new one has the same.
func (r *rotation) assertNewInPlace(t *testing.T) {
	for _, s := range r.successions(t) {
		r.assertInPlace(t, s)
	}
}

func (r *rotation) assertInPlace(t *testing.T, s succession) {
	was, is := snapshot.Of(s.old), snapshot.Of(s.new)
	for name, before := range r.before {
		now := map[string]bool{}
		for _, trace := range r.after[name].Traces(is) {
			now[trace.Path+" "+trace.Place] = true
		}
		for _, trace := range before.Traces(was) {
			if strings.HasPrefix(trace.Path, "/var/lib/kubelet/pods/") || strings.HasPrefix(path.Base(trace.Path), "kubelet-client-2") {
				continue // pods come and go; dated files have other names
			}
			if !now[trace.Path+" "+trace.Place] {
				t.Errorf("%s: there is nothing of the new %s authority where before was: %s", name, s.name, trace)
			}
		}
	}
}

// assertOneEach: on control planes an authority's files, and what it issues, hold one certificate each, of the
// new authority; the key beside ca.crt is its own.
func (r *rotation) assertOneEach(t *testing.T) {
	for _, s := range r.successions(t) {
		successor := snapshot.Of(s.new)
		for _, name := range r.bed.controlPlanes() {
			key := r.after[name].Find(kubeadm[s.name].authority + ".key")
			if key == nil || len(key.Keys) != 1 || !successor.Holds(&key.Keys[0]) {
				t.Errorf("%s: %s.key is not the key of the new %s authority alone", name, kubeadm[s.name].authority, s.name)
			}
			for _, leaf := range kubeadm[s.name].leaves {
				file := r.after[name].Find(leaf + ".crt")
				if file == nil || len(file.Certificates) != 1 || !successor.Issued(&file.Certificates[0]) || file.Certificates[0].CA {
					t.Errorf("%s: %s.crt does not hold one certificate of the new %s authority: %+v", name, leaf, s.name, file)
				}
			}
		}
	}
}

func (r *rotation) assertManifests(t *testing.T) {
	manifests := 0
	which := func(name string) bool {
		if snapshot.Manifest(name) {
			manifests++
			return true
		}
		return name == "/var/lib/kubelet/config.yaml" || name == "/var/lib/kubelet/kubeadm-flags.env"
	}
	for name, before := range r.before {
		for _, d := range snapshot.Content(before, r.after[name], which) {
			t.Errorf("%s: %s", name, d)
		}
	}
	if manifests < 4 {
		t.Errorf("only %d manifests were compared", manifests)
	}
}

func (r *rotation) assertShape(t *testing.T) {
	for name, before := range r.before {
		if len(before.Files) < 5 {
			t.Errorf("%s: only %d files were compared", name, len(before.Files))
		}
		for _, d := range snapshot.Shape(before, r.after[name]) {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// assertKept: a key in a file of its own stays, but that of an authority that is replaced; the files of
// authorities that are not, and those of ServiceAccounts, do not change at all.
func (r *rotation) assertKept(t *testing.T) {
	kept := func(name string) bool {
		of := owner(name)
		own := strings.HasPrefix(name, pki) && strings.HasSuffix(name, ".key") && name != kubeadm[of].authority+".key"
		return own || of != "" && !r.rotates(of)
	}
	for name, before := range r.before {
		for _, d := range snapshot.Content(before, r.after[name], kept) {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func (r *rotation) assertSuccessions(t *testing.T) {
	for _, s := range r.successions(t) {
		r.assertSuccession(t, s)
	}
	for name := range r.after {
		r.assertPairs(t, name)
	}
}

func (r *rotation) assertSuccession(t *testing.T, s succession) {
	authority, successor := snapshot.Of(s.old), snapshot.Of(s.new)
	for name, before := range r.before {
		replaced := 0
		for _, pair := range snapshot.Successions(before, r.after[name]) {
			if !authority.Issued(pair.Before) {
				continue
			}
			replaced++
			if lost := pair.Lost(); lost != "" {
				t.Errorf("%s: %s (%s): %s", name, pair.Path, pair.Place, lost)
			} else if !successor.Issued(pair.After) {
				t.Errorf("%s: %s (%s): %s is not issued by the new %s authority", name, pair.Path, pair.Place, pair.After.Subject, s.name)
			}
		}
		if replaced == 0 && r.hasAuthority(name, s.name) {
			t.Errorf("%s: nothing that the old %s authority issued was found before the run", name, s.name)
		}
	}
}

// assertPairs: each certificate that has a key in the same file or beside it fits the key.
func (r *rotation) assertPairs(t *testing.T, name string) {
	for i := range r.after[name].Files {
		f := &r.after[name].Files[i]
		if len(f.Certificates) == 0 || f.Certificates[0].CA && !strings.HasSuffix(f.Path, "ca.crt") || strings.HasPrefix(f.Path, "/var/lib/kubelet/pods/") {
			continue
		}
		keys := f.Keys
		if beside := r.after[name].Find(strings.TrimSuffix(f.Path, ".crt") + ".key"); len(keys) == 0 && beside != nil {
			keys = beside.Keys
		}
		if len(keys) == 0 {
			continue
		}
		fits := slices.ContainsFunc(f.Certificates, func(c snapshot.Certificate) bool { return c.PublicKey == keys[0].PublicKey })
		if !fits {
			t.Errorf("%s: %s and its key do not fit", name, f.Path)
		}
	}
}

func (r *rotation) assertExpiration(ctx context.Context, t *testing.T) {
	for _, name := range r.bed.controlPlanes() {
		out, err := r.bed.node(t, name).Run(ctx, "kubeadm", "certs", "check-expiration", "-o", "json")
		if err != nil {
			t.Error(err)
			continue
		}
		type entry struct {
			Name     string `json:"name"`
			Residual int64  `json:"residualTime"`
			Missing  bool   `json:"missing"`
			External bool   `json:"externallyManaged"`
		}
		var answer struct {
			Certificates []entry `json:"certificates"`
			Authorities  []entry `json:"certificateAuthorities"`
		}
		if err := json.Unmarshal(out, &answer); err != nil {
			t.Errorf("%s: %v in %s", name, err, out)
			continue
		}
		if len(answer.Certificates) < 9 || len(answer.Authorities) < 3 {
			t.Errorf("%s: kubeadm sees %d certificates and %d authorities", name, len(answer.Certificates), len(answer.Authorities))
		}
		for _, e := range append(answer.Certificates, answer.Authorities...) {
			if e.Missing && r.before[name].Find("/etc/kubernetes/"+e.Name) == nil && e.Name == "super-admin.conf" {
				continue // only the first control plane has it
			}
			if e.Missing || e.External || e.Residual < 24*3600 {
				t.Errorf("%s: kubeadm says %+v", name, e)
			}
		}
	}
}
