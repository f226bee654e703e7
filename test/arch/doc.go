// Package arch holds the shape of this repository as a table, and checks the tree against it.
//
// [Check] walks a source tree and returns every [Violation]: an arrow between rooms that the
// table lacks, a library outside the room it is confined to, generated API types outside the
// files that speak the wire, a background context below cmd, an init function, a package
// without a comment or a DESIGN.md, a folder nobody planned. [Rooms] is the table.
//
// It reads import lines and syntax only, so it neither builds nor follows build tags: a file is
// held to the table on every platform. What a binary links in the end is the tests' matter
// (they ask go list).
package arch
