// Package story writes down what a CertificateRotation says of itself while it runs: every version of its
// status, its Events, and who leads the controller.
//
// Invariants:
//   - Every version that the API server sent is kept, with the time it came; none is merged or dropped.
//   - The resource is read as it is, untyped: what is missing is seen as missing.
package story
