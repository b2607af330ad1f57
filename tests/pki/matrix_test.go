package pki

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// The compatibility matrix. One end presents a certificate, in the way of a server or of a client; the other trusts one CA
// or both. It is the same for every mix of algorithms, for both roles, and for every pair of TLS libraries.
//
//	presented               trusted: O     N     O+N   N+O
//	O's leaf                         yes   no    yes   yes
//	N's leaf                         no    yes   yes   yes
//	N's leaf, then X                 yes   yes   yes   yes
//	O's leaf, then Y                 yes   yes   yes   yes
//	O's leaf reissued, then Y        yes   yes   yes   yes
//	a stranger's leaf, then X        no    no    no    no
//	N's leaf, then Y                 no    yes   yes   yes   (the wrong bridge helps nobody and harms nobody)
//	O's leaf, then X                 yes   no    yes   yes
//
// The rows with one bridge are why a rotation needs no moment at which all change at once.
var matrix = []struct {
	presented string
	files     []string // leaf first; %s is the role
	accepted  map[string]bool
}{
	{"O", []string{"%s"}, verdicts(true, false, true)},
	{"N", []string{"new-%s"}, verdicts(false, true, true)},
	{"N+X", []string{"new-%s", "x"}, verdicts(true, true, true)},
	{"O+Y", []string{"%s", "y"}, verdicts(true, true, true)},
	{"O'+Y", []string{"again-%s", "y"}, verdicts(true, true, true)},
	{"stranger+X", []string{"stranger-%s", "x"}, verdicts(false, false, false)},
	{"N+Y", []string{"new-%s", "y"}, verdicts(false, true, true)},
	{"O+X", []string{"%s", "x"}, verdicts(true, false, true)},
}

func verdicts(o, n, both bool) map[string]bool {
	return map[string]bool{"O": o, "N": n, "O+N": both, "N+O": both}
}

var trusts = map[string][]string{"O": {"ca"}, "N": {"new-ca"}, "O+N": {"ca", "new-ca"}, "N+O": {"new-ca", "ca"}}

// Who presents and who verifies: client-go to the API server, curl to it, client-go to OpenSSL's servers, curl to them.
var stacks = []struct{ presents, verifies string }{{"Go", "Go"}, {"OpenSSL", "Go"}, {"Go", "OpenSSL"}, {"OpenSSL", "OpenSSL"}}

func TestMatrix(t *testing.T) {
	for _, r := range rotations(t) {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			makeStrangers(t, r)
			makeBundles(t, r)
			ends := newEnds(t, r)
			for _, role := range []string{"server", "client"} {
				for _, row := range matrix {
					if role == "client" && row.presented == "O'+Y" {
						continue // reissued for the server alone
					}
					for trust, wanted := range row.accepted {
						for _, stack := range stacks {
							name := fmt.Sprintf("%s presents %s as %s, %s trusts %s", stack.presents, row.presented, role, stack.verifies, trust)
							ends.expect(t, name, role, stack.presents, stack.verifies, bundle(r, row.files, role), trustFile(r, trust), wanted)
						}
					}
				}
			}
			t.Logf("%d handshakes", ends.count)
		})
	}
}

// makeStrangers makes an authority of O's own name and its leaves, with a key that nobody trusts.
func makeStrangers(t *testing.T, r *rotation) {
	t.Helper()
	folder := t.TempDir()
	if err := kubeadmOriginWithFreshKey(folder); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"server", "client"} {
		for _, suffix := range []string{".crt", ".key"} {
			copyFile(t, filepath.Join(folder, role+suffix), filepath.Join(r.folder, "stranger-"+role+suffix))
		}
	}
}

func kubeadmOriginWithFreshKey(folder string) error {
	return kubeadmOrigin(folder, "ECDSA-P384")
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func bundlePath(r *rotation, names []string) string {
	path := r.folder + "/bundle"
	for _, name := range names {
		path += "-" + name
	}
	return path + ".pem"
}

func expand(files []string, role string) []string {
	var names []string
	for _, file := range files {
		if bytes.Contains([]byte(file), []byte("%s")) {
			file = fmt.Sprintf(file, role)
		}
		names = append(names, file)
	}
	return names
}

func writeBundle(t *testing.T, r *rotation, names []string) {
	t.Helper()
	var all []byte
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(r.folder, name+".crt"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text...)
	}
	if err := os.WriteFile(bundlePath(r, names), all, 0o600); err != nil {
		t.Fatal(err)
	}
}

func makeBundles(t *testing.T, r *rotation) {
	t.Helper()
	for _, names := range trusts {
		writeBundle(t, r, names)
	}
	for _, role := range []string{"server", "client"} {
		for _, row := range matrix {
			if role == "server" || row.presented != "O'+Y" {
				writeBundle(t, r, expand(row.files, role))
			}
		}
	}
}

// A presented chain and the key of its leaf.
type presented struct{ certificates, key string }

func bundle(r *rotation, files []string, role string) presented {
	key := role
	if files[0] == "stranger-%s" {
		key = "stranger-" + role
	}
	return presented{bundlePath(r, expand(files, role)), filepath.Join(r.folder, key+".key")}
}

func trustFile(r *rotation, trust string) string {
	return bundlePath(r, trusts[trust])
}
