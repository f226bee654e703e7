// Package backendtest is the suite that every sandbox backend has to pass: what a run reports, that its limits hold, and that
// what tries to get out does not.
//
// The one call is Suite. It builds its probes from this repository, so it needs the Go tool; it is for tests only. A machine
// where the backend cannot work skips the suite with the reason, unless CI=true and no backend at all is there.
package backendtest
