//go:build linux

package node

import (
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/sandbox/backend"
	"github.com/creto-systems/creto/sandbox/backend/backendtest"
	"github.com/creto-systems/creto/sandbox/bubblewrap"
	"github.com/creto-systems/creto/sandbox/kind"
	"github.com/creto-systems/creto/sandbox/oci"
)

// The whole path with whatever isolates here: claim, allocation, run, report, usage, output, proof.
func TestRealSandboxes(t *testing.T) {
	var works []backend.Backend
	for _, b := range []backend.Backend{bubblewrap.New(bubblewrap.Config{}), oci.New(oci.Config{})} {
		if err := b.Probe(t.Context()); err != nil {
			t.Logf("%s: %v", b.Name(), err)
			continue
		}
		works = append(works, b)
	}
	if len(works) == 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("neither bubblewrap nor runc works here")
		}
		t.Skip("neither bubblewrap nor runc works here")
	}
	rootfs, program := backendtest.Build(t, "github.com/creto-systems/creto/sandbox/hello")
	want, err := backend.HashRootfs(rootfs)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range works {
		t.Run(b.Name(), func(t *testing.T) {
			w := newWorld(t)
			a := w.start(b, func(c *Config) { c.Templates[0].Dir = rootfs })
			claim := w.claim(func(c *kind.ClaimBody) { c.Command, c.Class = []string{program, "exit=7"}, b.Class() })
			s := w.await(claim)
			run, err := kind.OpenStatement(t.Context(), w.node.Key.Public(), s.GetStatement())
			if err != nil {
				t.Fatal(err)
			}
			if s.GetState() != "finished" || s.GetExitCode() != 7 {
				t.Fatalf("got %s with %d (%s), want finished with 7", s.GetState(), s.GetExitCode(), run.Reason)
			}
			if run.Rootfs != want || run.Backend != b.Name() || run.BackendVersion != b.Version() || run.Isolation != b.Class() {
				t.Errorf("got rootfs %x under %s %s, %s", run.Rootfs, run.Backend, run.BackendVersion, run.Isolation)
			}
			if run.Finished.Before(run.Started) || time.Since(run.Finished) > time.Hour {
				t.Errorf("got a run from %s to %s", run.Started, run.Finished)
			}
			for _, q := range s.GetUsage() {
				if q.GetN() == 0 {
					t.Errorf("got no %s", q.GetMeter())
				}
			}
			a.end()

			// The output is in the log's addendum, encrypted, and is what the statement's digest says.
			var addendum []byte
			w.with(func() {
				snap := w.f.Read()
				defer snap.Close()
				sealed, err := snap.Addenda(w.f.Slot, s.GetReportIndex())
				if err != nil || len(sealed) != 1 {
					t.Fatalf("got %d addenda, %v", len(sealed), err)
				}
				opened, err := ledger.OpenAddendum(w.kek, w.f.LedgerID, w.f.Tenant, sealed[0])
				if err != nil {
					t.Fatal(err)
				}
				addendum = opened.Data
			})
			if sha256.Sum256(addendum) != run.Output || uint64(len(addendum)) != run.OutputBytes {
				t.Errorf("got %d bytes of output, want the %d of the statement", len(addendum), run.OutputBytes)
			}
			var v struct {
				UID     int      `json:"uid"`
				Network string   `json:"network"`
				Write   string   `json:"write"`
				Root    []string `json:"root"`
			}
			if err := json.Unmarshal(addendum, &v); err != nil {
				t.Fatal(err)
			}
			if v.UID == 0 || v.Network == "connected" || v.Write == "written" {
				t.Errorf("the program saw %+v", v)
			}
			if left, err := filepath.Glob("/sys/fs/cgroup/*/creto/" + a.runPrefix() + "*"); err != nil || len(left) > 0 {
				t.Errorf("control groups stay behind: %v %v", left, err)
			}
		})
	}
}
