package node

import (
	"crypto/sha256"
	"math"
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/meter"
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

	counters := func(account nhi.ID) (charged, open time.Duration) {
		t.Helper()
		f.WithView(f.Tenant, func(v ledger.View) {
			cs, err := meter.New().QueryQuota(v, account, sandboxkind.MeterCPU, nhi.LinkID{}, f.Now)
			if err != nil || len(cs) != 1 {
				t.Fatalf("got counters %+v, %v, want one", cs, err)
			}
			charged, open = time.Duration(cs[0].Charged), time.Duration(cs[0].Open)
		})
		return charged, open
	}
	want := func(wantCharged, wantOpen time.Duration) {
		t.Helper()
		if charged, open := counters(team); charged != wantCharged || open != wantOpen {
			t.Errorf("got %s charged and %s open, want %s and %s", charged, open, wantCharged, wantOpen)
		}
	}

	// No account, no claim: nobody could be charged.
	f.Want(verify.OutcomeInvalid, claim(nhi.ID{}, time.Second))
	f.Want(verify.OutcomeNotFound, claim(ledgertest.ID("nobody"), time.Second))

	admit(meterkind.Set, meterkind.QuotaBody{Account: org, Meter: sandboxkind.MeterCPU, Period: meterkind.Total, Limit: uint64(10 * time.Second), Mode: meterkind.Block})
	refusedBy(claim(team, 11*time.Second), org, nhi.LinkID{}, 10*time.Second)
	refusedBy(claim(other, 2*time.Hour), nhi.ID{}, link.ID, time.Hour)

	// Runs at the same time share the room: each holds all that it may use.
	first := f.Accepted(claim(team, 6*time.Second))
	want(0, 6*time.Second)
	refusedBy(claim(team, 5*time.Second), org, nhi.LinkID{}, 4*time.Second)
	second := f.Accepted(claim(team, 4*time.Second)).Index
	refusedBy(claim(team, time.Millisecond), org, nhi.LinkID{}, 0)
	claimed, err := sandboxkind.DecodeClaimed(first.Detail)
	if err != nil || len(claimed.Leases) != 2 {
		t.Fatalf("got %+v, %v, want leases of CPU time and, for the link's budget, wall time", claimed, err)
	}
	// The agent cannot take its run's room back.
	for _, l := range claimed.Leases {
		f.Want(verify.OutcomeUnauthorized, f.Submit(f.Under(link, agent, meterkind.Close, team, meterkind.CloseBody{Lease: l}))...)
	}
	f.Accepted(ran(first.Index, team, 2*time.Second)...)
	want(2*time.Second, 4*time.Second)

	// What has happened counts, beyond what was reserved too; then there is no room for anything.
	f.Accepted(ran(second, team, 9*time.Second)...)
	want(10*time.Second, 0)
	refusedBy(claim(team, time.Millisecond), org, nhi.LinkID{}, 0)

	// A node's word is taken within the limits of the run. What it had reserved is held until it is written off.
	third := f.Accepted(claim(other, time.Second))
	f.Want(verify.OutcomeConflict, ran(third.Index, other, math.MaxInt64)[1])
	f.Accepted(claim(other, time.Second))
	if claimed, err = sandboxkind.DecodeClaimed(third.Detail); err != nil || len(claimed.Leases) != 1 {
		t.Fatalf("got %+v, %v, want the lease of wall time", claimed, err)
	}
	f.Accepted(f.Submit(f.Event(f.Authority, meterkind.WriteOff, meterkind.CloseBody{Lease: claimed.Leases[0]}))...)

	// The usage is the agent's, whoever held the leases.
	f.WithView(f.Tenant, func(v ledger.View) {
		u, err := meter.New().QueryUsage(v, meter.UsageQuery{Meter: sandboxkind.MeterCPU, Agent: agent.ID, To: math.MaxInt64}, f.Now)
		if err != nil || len(u.Rows) != 1 || u.Rows[0].Sum != uint64(11*time.Second) || u.Rows[0].Count != 2 {
			t.Errorf("got usage %+v, %v, want 11 s of two runs", u, err)
		}
	})
}

// Leases of several claims that stand in the same counters are given back in one step.
func TestWaitingClaimsGiveTheirRoomBack(t *testing.T) {
	f := ledgertest.NewWith(t, ledgertest.Options{Kinds: Kinds(), Config: func(c *ledger.Config) { c.Tree = tree }})
	f.Accepted(f.Submit(f.Event(f.Authority, meterkind.Set, meterkind.QuotaBody{
		Account: f.Tenant, Meter: sandboxkind.MeterWall, Period: meterkind.Total, Limit: uint64(30 * time.Second), Mode: meterkind.Block,
	}))...)
	human, agent := f.Register("human", registry.Human), f.Register("agent", registry.Agent)
	link := f.Delegate(nil, human, agent, nil)
	for range 3 {
		f.Accepted(f.Submit(f.Under(link, agent, sandboxkind.Claim, f.Tenant, &sandboxkind.ClaimBody{
			Template: "hello", Command: []string{"/hello"}, Class: sandboxkind.Process,
			Limits: sandboxkind.Limits{Wall: int64(10 * time.Second), Memory: 64 << 20}, TTL: int64(time.Hour),
		}))...)
	}
	open := func() (n uint64) {
		t.Helper()
		f.WithView(f.Tenant, func(v ledger.View) {
			cs, err := meter.New().QueryQuota(v, f.Tenant, sandboxkind.MeterWall, nhi.LinkID{}, f.Now)
			if err != nil || len(cs) != 1 {
				t.Fatalf("got counters %+v, %v, want one", cs, err)
			}
			n = cs[0].Open
		})
		return n
	}
	if got := open(); got != uint64(30*time.Second) {
		t.Fatalf("got %d open, want 30 s", got)
	}
	f.Accepted(f.Submit(f.Event(human, registry.KindRevokeLink, &registry.RevokeLinkBody{Link: link.ID}))...)
	n := ledgertest.NewIdentity(t, "sandbox node", registry.Node)
	pop, err := registry.NewPossession(n.Key, f.LedgerID, nhi.ID{}, n.ID, registry.Node)
	if err != nil {
		t.Fatal(err)
	}
	pk := n.Key.Public()
	f.Accepted(f.Submit(f.SystemEvent(f.Admin, ledger.KindNodeAdd, &ledger.NodeAddBody{
		ID: n.ID, Role: registry.RoleSandbox, Suite: pk.Suite(), Public: pk.Bytes(), Possession: pop,
	}))...)
	// The node looks for work, and finds that nobody may ask for it any more.
	f.Accepted(f.Submit(f.Event(n, sandboxkind.Node, &sandboxkind.NodeBody{
		Node: n.ID, Classes: []sandboxkind.Class{sandboxkind.Process}, Templates: []sandboxkind.Template{{Name: "hello"}}, Capacity: 8, TTL: int64(time.Hour),
	}))...)
	if got := open(); got != 0 {
		t.Errorf("got %d open after all claims have ended, want none", got)
	}
}
