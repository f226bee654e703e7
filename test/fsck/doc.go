// Package fsck holds the tests in which programs that know nothing of Creto read its logs over HTTP and accept them: tessera's
// fsck and the tile reader of golang.org/x/mod/sumdb/tlog. Both fail on a tampered tile, which is what makes their acceptance
// worth something. Nothing here is used outside tests.
package fsck
