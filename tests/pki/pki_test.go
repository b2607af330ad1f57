// Package pki judges the certificates that the C code makes with verifiers that are not its own: Go's crypto/x509 and
// crypto/tls, which all of Kubernetes uses, and OpenSSL's TLS, which curl and Python use.
package pki

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	repository = "../.."
	driverPath = "build/asan/tests/pki-driver"
	peerPath   = "build/release/tests/pki-peer"
)

func TestMain(m *testing.M) {
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	forgetRotations()
	os.Exit(code)
}

func build() error {
	command := exec.Command("make", "-s", "-f", "Makefile", "-f", "tests/pki/rules.mk", "pki-programs")
	command.Dir = repository
	command.Env = withoutMake(os.Environ())
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("building the test programs: %w\n%s", err, out)
	}
	return nil
}

// withoutMake drops what a calling make would hand down, its flags and its job server.
func withoutMake(environment []string) []string {
	var kept []string
	for _, entry := range environment {
		if !strings.HasPrefix(entry, "MAKEFLAGS=") && !strings.HasPrefix(entry, "MFLAGS=") && !strings.HasPrefix(entry, "MAKELEVEL=") {
			kept = append(kept, entry)
		}
	}
	return kept
}

func driver(arguments ...string) (string, error) {
	command := exec.Command(filepath.Join(repository, driverPath), arguments...)
	var problem strings.Builder
	command.Stderr = &problem
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("pki-driver %s: %w: %s", strings.Join(arguments, " "), err, problem.String())
	}
	return string(out), nil
}
