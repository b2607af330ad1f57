// Package faults holds the tests that give the controller's API server bad days; see README.md here. There is nothing in it but tests,
// so that `go vet ./...` and `go test ./...` work without a cluster: then they are skipped.
package faults
