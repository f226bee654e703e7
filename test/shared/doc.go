// Package shared finds data that tests read in place and that is not part of this repository:
// public conformance vectors and recorded traffic.
//
// The one call is [Dir]: tests ask for a folder by name and are skipped where it is absent,
// so a clean clone tests what it holds; in CI an absent folder is a failure, so that a skip
// can never pass for a result. The package never downloads anything.
package shared
