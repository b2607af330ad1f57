package snapshot

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Trace is one place where something of an authority was found.
type Trace struct {
	Path, Place, What string
}

func (t Trace) String() string { return fmt.Sprintf("%s (%s): %s", t.Path, t.Place, t.What) }

// Traces finds what is of the authority: trust in it, certificates that it issued, its key.
func (n *Node) Traces(a Authority) []Trace {
	var list []Trace
	for i := range n.Files {
		f := &n.Files[i]
		for j := range f.Certificates {
			c := &f.Certificates[j]
			switch {
			case a.Trusts(c):
				list = append(list, Trace{f.Path, c.Place, "trusts " + c.Subject})
			case a.Issued(c):
				list = append(list, Trace{f.Path, c.Place, c.Subject + " issued by " + c.Issuer})
			}
		}
		for j := range f.Keys {
			if a.Holds(&f.Keys[j]) {
				list = append(list, Trace{f.Path, f.Keys[j].Place, "the authority's private key"})
			}
		}
	}
	return list
}

// Find gives the file at a path, or nil.
func (n *Node) Find(path string) *File {
	for i := range n.Files {
		if n.Files[i].Path == path {
			return &n.Files[i]
		}
	}
	return nil
}

// dated is the kubelet's name for a certificate that it was given at some time.
var dated = regexp.MustCompile(`^/var/lib/kubelet/pki/kubelet-(client|server)-\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d\.pem$`)

// own is what kubelets write for themselves all the time, and pods' volumes, which come and go.
func own(name string) bool {
	return inPod(name) || dated.MatchString(name) || strings.HasPrefix(name, "/var/lib/kubelet/plugins") ||
		strings.HasPrefix(name, "/var/lib/kubelet/device-plugins/") || strings.HasPrefix(name, "/var/lib/kubelet/pod-resources/") ||
		strings.HasPrefix(name, "/var/lib/kubelet/checkpoints/") || strings.HasSuffix(name, "_manager_state") ||
		name == "/var/lib/kubelet/actuated_pods_state" || name == "/var/lib/kubelet/allocated_pods_state"
}

// Difference is something that is not as it was.
type Difference struct {
	Path, What string
}

func (d Difference) String() string { return d.Path + ": " + d.What }

// Shape compares all but content: which files there are, their type, mode and owner. What kubelets
// write for themselves is left out.
func Shape(before, after *Node) []Difference {
	var list []Difference
	for i := range before.Files {
		was := &before.Files[i]
		if own(was.Path) {
			continue
		}
		is := after.Find(was.Path)
		if is == nil {
			list = append(list, Difference{was.Path, "is gone"})
			continue
		}
		list = append(list, shape(was, is)...)
	}
	for i := range after.Files {
		if is := &after.Files[i]; !own(is.Path) && before.Find(is.Path) == nil {
			list = append(list, Difference{is.Path, "was not there before"})
		}
	}
	return list
}

func shape(was, is *File) []Difference {
	var list []Difference
	note := func(what, before, after string) {
		if before != after {
			list = append(list, Difference{was.Path, fmt.Sprintf("%s was %s, is %s", what, before, after)})
		}
	}
	note("type", was.Type, is.Type)
	note("mode", was.Mode, is.Mode)
	note("owner", fmt.Sprintf("%d:%d", was.UID, was.GID), fmt.Sprintf("%d:%d", is.UID, is.GID))
	return list
}

// Content compares the bytes of the files for which which is true.
func Content(before, after *Node, which func(path string) bool) []Difference {
	var list []Difference
	for i := range before.Files {
		was := &before.Files[i]
		if was.Type != "file" || !which(was.Path) {
			continue
		}
		if is := after.Find(was.Path); is == nil {
			list = append(list, Difference{was.Path, "is gone"})
		} else if is.SHA256 != was.SHA256 {
			list = append(list, Difference{was.Path, fmt.Sprintf("content was %.12s, is %.12s", was.SHA256, is.SHA256)})
		}
	}
	return list
}

// Manifest reports whether a path is a static Pod's manifest.
func Manifest(name string) bool { return path.Dir(name) == "/etc/kubernetes/manifests" }

// Pair is a certificate and what took its place.
type Pair struct {
	Path, Place   string
	Before, After *Certificate
}

// Successions pairs each certificate that is not a CA with the one in the same place of the same file.
// After is nil where there is none any more.
func Successions(before, after *Node) []Pair {
	var list []Pair
	for i := range before.Files {
		was := &before.Files[i]
		if own(was.Path) {
			continue
		}
		is := after.Find(was.Path)
		for j := range was.Certificates {
			if c := &was.Certificates[j]; !c.CA {
				list = append(list, Pair{was.Path, c.Place, c, is.at(c.Place)})
			}
		}
	}
	return list
}

// Replaced reports whether it is another certificate.
func (p *Pair) Replaced() bool { return p.After == nil || p.Before.Fingerprint != p.After.Fingerprint }

// Lost says what the successor lacks of its predecessor, or has beyond it; empty is as it should be.
func (p *Pair) Lost() string {
	switch {
	case p.After == nil:
		return "nothing took its place"
	case p.After.Subject != p.Before.Subject:
		return fmt.Sprintf("subject was %q, is %q", p.Before.Subject, p.After.Subject)
	case !slices.Equal(p.After.Names, p.Before.Names):
		return fmt.Sprintf("names were %v, are %v", p.Before.Names, p.After.Names)
	case !slices.Equal(p.After.Usages, p.Before.Usages):
		return fmt.Sprintf("usages were %v, are %v", p.Before.Usages, p.After.Usages)
	}
	return ""
}

func (f *File) at(place string) *Certificate {
	if f == nil {
		return nil
	}
	for i := range f.Certificates {
		if f.Certificates[i].Place == place {
			return &f.Certificates[i]
		}
	}
	return nil
}
