package node

import (
	"crypto/sha256"
	"math"
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	meterkind "github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/sandbox"
	sandboxkind "github.com/creto-systems/creto/sandbox/kind"
)

// The rooms as the server wires them: a quota that blocks a meter of runs refuses claims, naming its level, and what a run
// has used counts against it.
func TestQuotasHoldSandboxClaims(t *testing.T) {
	f := ledgertest.NewWith(t, ledgertest.Options{Kinds: Kinds(), Config: func(c *ledger.Config) { c.Tree = tree }})
	org, team, other := ledgertest.ID("org"), ledgertest.ID("team"), ledgertest.ID("other")
	admit := func(name string, body any) {
		t.Helper()
		f.Accepted(f.Submit(f.Event(f.Authority, name, body))...)
	}
	admit(meterkind.Account, meterkind.AccountBody{ID: org, Type: "org"})
	admit(meterkind.Account, meterkind.AccountBody{ID: team, Parent: org, Type: "team"})
	admit(meterkind.Account, meterkind.AccountBody{ID: other, Type: "org"})
	human, agent := f.Register("human", registry.Human), f.Register("agent", registry.Agent)
	link := f.Delegate(nil, human, agent, func(l *registry.Link) {
		l.Budgets = []registry.Budget{{Meter: sandboxkind.MeterWall, Unit: "ns", Limit: uint64(time.Hour), Window: registry.Total}}
	})
	n := ledgertest.NewIdentity(t, "sandbox node", registry.Node)
	pop, err := registry.NewPossession(n.Key, f.LedgerID, nhi.ID{}, n.ID, registry.Node)
	if err != nil {
		t.Fatal(err)
	}
	pk := n.Key.Public()
	f.Accepted(f.Submit(f.SystemEvent(f.Admin, ledger.KindNodeAdd, &ledger.NodeAddBody{
		ID: n.ID, Role: registry.RoleSandbox, Suite: pk.Suite(), Public: pk.Bytes(), Possession: pop,
	}))...)
	rootfs := nhi.Digest{1}
	f.Accepted(f.Submit(f.Event(n, sandboxkind.Node, &sandboxkind.NodeBody{
		Node: n.ID, Classes: []sandboxkind.Class{sandboxkind.Process}, Templates: []sandboxkind.Template{{Name: "hello", Rootfs: rootfs}}, Capacity: 8, TTL: int64(24 * time.Hour),
	}))...)
	claim := func(account nhi.ID, wall time.Duration) ledger.EventResult {
		t.Helper()
		return f.Submit(f.Under(link, agent, sandboxkind.Claim, account, &sandboxkind.ClaimBody{
			Template: "hello", Command: []string{"/hello"}, Class: sandboxkind.Process,
			Limits: sandboxkind.Limits{Wall: int64(wall), Memory: 64 << 20}, TTL: int64(24 * time.Hour),
		}))[0]
	}
	refusedBy := func(r ledger.EventResult, account nhi.ID, by nhi.LinkID, remaining time.Duration) {
		t.Helper()
		f.Want(verify.OutcomeQuotaExhausted, r)
		d, err := meterkind.DecodeRefusal(r.Detail)
		if err != nil || d.Account != account || d.Link != by || d.Remaining != uint64(remaining) {
			t.Errorf("got %+v, %v, want a refusal by account %s, link %s with %s left", d, err, account, by, remaining)
		}
	}
	ran := func(claim uint64, account nhi.ID, cpu time.Duration) []ledger.EventResult {
		t.Helper()
		var i *sandbox.Info
		f.WithView(f.Tenant, func(v ledger.View) { i, _ = sandbox.Get(v, claim) })
		statement, err := sandboxkind.SignStatement(t.Context(), n.Key, &sandboxkind.Run{
			Ledger: f.LedgerID, Tenant: f.Tenant, Claim: claim, Agent: agent.ID, Link: link.ID, Account: account, PolicyEpoch: i.PolicyEpoch,
			Node: n.ID, Sequence: claim, Template: "hello", Rootfs: rootfs, Command: []string{"/hello"}, Isolation: sandboxkind.Process,
			Backend: "test", BackendVersion: "1", Status: sandboxkind.Finished, WallLimit: i.Wall, MemoryLimit: i.Memory,
		})
		if err != nil {
			t.Fatal(err)
		}
		report := f.Event(n, sandboxkind.Report, &sandboxkind.ReportBody{
			Claim: claim, Statement: statement, StatementDigest: sha256.Sum256(statement), Rootfs: rootfs, PolicyEpoch: i.PolicyEpoch,
			Sequence: claim, Status: sandboxkind.Finished,
		})
		usage := f.Event(n, sandboxkind.Usage, &sandboxkind.UsageBody{
			Claim: claim, From: sandboxkind.FromWait4, Sequence: claim,
			Quantities: map[string]uint64{sandboxkind.MeterCPU: uint64(cpu), sandboxkind.MeterWall: uint64(cpu)},
		})
		report.Event.Account, usage.Event.Account = account, account
		return f.SubmitBatch(report, usage)
	}

	// No account, no claim: nobody could be charged.
	f.Want(verify.OutcomeInvalid, claim(nhi.ID{}, time.Second))
	f.Want(verify.OutcomeNotFound, claim(ledgertest.ID("nobody"), time.Second))

	admit(meterkind.Set, meterkind.QuotaBody{Account: org, Meter: sandboxkind.MeterCPU, Period: meterkind.Total, Limit: uint64(10 * time.Second), Mode: meterkind.Block})
	refusedBy(claim(team, 11*time.Second), org, nhi.LinkID{}, 10*time.Second)
	refusedBy(claim(other, 2*time.Hour), nhi.ID{}, link.ID, time.Hour)
	first := f.Accepted(claim(team, 10*time.Second)).Index
	f.Accepted(ran(first, team, 4*time.Second)...)
	refusedBy(claim(team, 7*time.Second), org, nhi.LinkID{}, 6*time.Second)
	second := f.Accepted(claim(team, 6*time.Second)).Index

	// What has happened counts, beyond the limit too; then there is no room for anything.
	f.Accepted(ran(second, team, 8*time.Second)...)
	refusedBy(claim(team, time.Millisecond), org, nhi.LinkID{}, 0)
	third := f.Accepted(claim(other, time.Second)).Index
	f.Want(verify.OutcomeConflict, ran(third, other, math.MaxInt64)[1])
	f.Accepted(claim(other, time.Second))
}
