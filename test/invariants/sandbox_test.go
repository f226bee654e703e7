package invariants

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/sandbox"
	skind "github.com/creto-systems/creto/sandbox/kind"
)

// Claims hold room as leases: until their usage is counted, they end without a run, or somebody writes it off.
func TestSandboxClaimsHoldRoom(t *testing.T) {
	w := newWorld(t, nil)
	for _, m := range []string{skind.MeterCPU, skind.MeterWall} {
		w.Accepted(w.submit(w.Event(w.Authority, kind.Set, kind.QuotaBody{
			Account: w.Tenant, Meter: m, Period: kind.Total, Limit: uint64(time.Minute), Mode: kind.Block,
		})))
	}
	claim := func(ttl time.Duration) ledger.EventResult {
		return w.Accepted(w.submit(w.Under(w.link, w.agent, skind.Claim, w.account, &skind.ClaimBody{
			Template: "hello", Command: []string{"/hello"}, Class: skind.Process,
			Limits: skind.Limits{Wall: int64(10 * time.Second), Memory: 64 << 20}, TTL: int64(ttl),
		})))
	}
	claim(time.Minute) // ends before a node comes
	w.Advance(2 * time.Minute)
	w.Tick()

	n := ledgertest.NewIdentity(t, "sandbox node", registry.Node)
	pop, err := registry.NewPossession(n.Key, w.LedgerID, nhi.ID{}, n.ID, registry.Node)
	if err != nil {
		t.Fatal(err)
	}
	pk := n.Key.Public()
	w.Accepted(w.Submit(w.SystemEvent(w.Admin, ledger.KindNodeAdd, &ledger.NodeAddBody{
		ID: n.ID, Role: registry.RoleSandbox, Suite: pk.Suite(), Public: pk.Bytes(), Possession: pop,
	}))...)
	rootfs := nhi.Digest{1}
	w.Accepted(w.submit(w.Event(n, skind.Node, &skind.NodeBody{
		Node: n.ID, Classes: []skind.Class{skind.Process}, Templates: []skind.Template{{Name: "hello", Rootfs: rootfs}}, Capacity: 8, TTL: int64(24 * time.Hour),
	})))
	run := claim(time.Hour).Index
	var i *sandbox.Info
	w.WithView(w.Tenant, func(v ledger.View) { i, _ = sandbox.Get(v, run) })
	statement, err := skind.SignStatement(t.Context(), n.Key, &skind.Run{
		Ledger: w.LedgerID, Tenant: w.Tenant, Claim: run, Agent: w.agent.ID, Link: w.link.ID, Account: w.account, PolicyEpoch: i.PolicyEpoch,
		Node: n.ID, Sequence: run, Template: "hello", Rootfs: rootfs, Command: []string{"/hello"}, Isolation: skind.Process,
		Backend: "test", BackendVersion: "1", Status: skind.Finished, WallLimit: i.Wall, MemoryLimit: i.Memory,
	})
	if err != nil {
		t.Fatal(err)
	}
	report := w.Event(n, skind.Report, &skind.ReportBody{
		Claim: run, Statement: statement, StatementDigest: sha256.Sum256(statement), Rootfs: rootfs, PolicyEpoch: i.PolicyEpoch,
		Sequence: run, Status: skind.Finished,
	})
	usage := w.Event(n, skind.Usage, &skind.UsageBody{
		Claim: run, From: skind.FromWait4, Sequence: run, Quantities: map[string]uint64{skind.MeterCPU: uint64(12 * time.Second), skind.MeterWall: 5},
	})
	report.Event.Account, usage.Event.Account = w.account, w.account
	w.Accepted(w.submit(report))
	w.Accepted(w.submit(usage))
	lost, err := skind.DecodeClaimed(claim(time.Hour).Detail) // its node never says anything
	if err != nil {
		t.Fatal(err)
	}
	claim(time.Hour)
	w.Accepted(w.submit(w.Event(w.Authority, kind.WriteOff, kind.CloseBody{Lease: lost.Leases[0], Spent: uint64(3 * time.Second)})))
	w.Seal()
	if _, err := w.check(); err != nil {
		t.Error(err)
	}
}
