// Package backend is what every way of isolating a run has in common: the interface that a sandbox node drives, root file
// systems and their digest, control groups, and the running of one process with its output, limits and measurements.
//
// The two calls you need are Stage, which copies a template and returns the digest of what it copied, and Backend.Run.
// Implementations are sandbox/bubblewrap and sandbox/oci.
//
// Invariants:
//   - What runs is the staged copy whose digest Stage returned, mounted read-only; the template's folder may change meanwhile.
//   - Output is read to its end and hashed whole; at most MaxOutput bytes of it are kept.
//   - Every number says where it was measured, and is left out where it was not.
//   - A run ends at its wall limit whatever the command does, and takes all its processes with it.
//
// Isolation needs Linux; elsewhere the package compiles and every Probe says so.
package backend
