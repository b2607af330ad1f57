// Package e2e holds the tests that run against a live cluster; see README.md here. There is nothing in it
// but tests, so that `go vet ./...` and `go test ./...` work without a cluster: then they are skipped.
package e2e
