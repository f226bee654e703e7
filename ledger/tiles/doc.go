// Package tiles serves the logs over HTTP as c2sp.org/tlog-tiles wants them, so that verifiers, witnesses and mirrors that
// know nothing of Creto can read them.
//
// New makes the handler. /spine/… is public. /t/<tenant>/… opens to a bearer read token of that tenant, and everybody else
// gets the answer of a tenant that does not exist, byte for byte. The system log is not served: it names all tenants.
//
// Invariants: only what a published checkpoint covers is served; a tile or bundle once served never changes; a path has one
// spelling, and every other spelling is not found; no answer tells whether a tenant exists.
//
// It signs nothing (ledger/publish does), talks to no witness and has no write path.
package tiles
