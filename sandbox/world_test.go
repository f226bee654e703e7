package sandbox

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/sandbox/kind"
)

// world is a ledger with the sandbox's kinds, an agent under a chain and sandbox nodes.
type world struct {
	*ledgertest.Fixture
	t       testing.TB
	human   *ledgertest.Identity
	agent   *ledgertest.Identity
	link    *ledgertest.Link
	account nhi.ID
	charged []Charge
	refuse  verify.OutcomeCode // what the charger answers
	full    bool               // no quota has room
	asked   []Charge           // of Reserve
	seq     uint64
}

var rootfs = nhi.Digest{0xf5}

// charger keeps leases in a table of its own, one for each claim, and counts charges.
type charger struct{ w *world }

const tableLease ledger.Table = 0x3f

func (c charger) Tables() []ledger.Table { return []ledger.Table{tableLease} }

func (c charger) Reserve(v ledger.View, _ ledger.Stamp, ch Charge, _ int64) ([]uint64, ledger.Decision) {
	c.w.asked = append(c.w.asked, ch)
	if c.w.full {
		return nil, ledger.Decision{Outcome: verify.OutcomeQuotaExhausted, Detail: (&kind.Refusal{Hint: "full"}).Encode()}
	}
	lease := v.NextIndex() + 1<<53
	return []uint64{lease}, ledger.Decision{Writes: []ledger.Write{{Table: tableLease, Key: indexKey(lease), Value: []byte{1}}}}
}

func (c charger) Release(v ledger.View, _ ledger.Stamp, leases []uint64) (d ledger.Decision) {
	for _, l := range leases {
		if _, ok := v.Get(tableLease, indexKey(l)); !ok {
			c.w.t.Errorf("lease %d is given back twice", l)
		}
		d.Writes = append(d.Writes, ledger.Write{Table: tableLease, Key: indexKey(l), Delete: true})
	}
	return d
}

func (c charger) Charge(v ledger.View, at ledger.Stamp, leases []uint64, ch Charge) ledger.Decision {
	if c.w.refuse != verify.OutcomeAccepted {
		return ledger.Decision{Outcome: c.w.refuse}
	}
	c.w.charged = append(c.w.charged, ch)
	return c.Release(v, at, leases)
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, account: ledgertest.ID("account")}
	w.Fixture = ledgertest.New(t, New(charger{w}).Kinds()...)
	w.human = w.Register("human", registry.Human)
	w.agent = w.Register("agent", registry.Agent)
	w.link = w.Delegate(nil, w.human, w.agent, nil)
	return w
}

// node registers a sandbox node of the cluster.
func (w *world) node(name string) *ledgertest.Identity {
	w.t.Helper()
	n := ledgertest.NewIdentity(w.t, name, registry.Node)
	pop, err := registry.NewPossession(n.Key, w.LedgerID, nhi.ID{}, n.ID, registry.Node)
	if err != nil {
		w.t.Fatal(err)
	}
	pk := n.Key.Public()
	w.Accepted(w.Submit(w.SystemEvent(w.Admin, ledger.KindNodeAdd, &ledger.NodeAddBody{
		ID: n.ID, Role: registry.RoleSandbox, Suite: pk.Suite(), Public: pk.Bytes(), Possession: pop,
	}))...)
	return n
}

func (w *world) offer(n *ledgertest.Identity, capacity uint64, change func(*kind.NodeBody)) ledgertest.Signed {
	w.t.Helper()
	b := &kind.NodeBody{
		Node: n.ID, Classes: []kind.Class{kind.Process, kind.Container}, Templates: []kind.Template{{Name: "hello", Rootfs: rootfs}},
		Capacity: capacity, TTL: int64(time.Hour),
	}
	if change != nil {
		change(b)
	}
	return w.Event(n, kind.Node, b)
}

// ready is a node that offers hello.
func (w *world) ready(name string, capacity uint64) *ledgertest.Identity {
	w.t.Helper()
	n := w.node(name)
	w.Accepted(w.Submit(w.offer(n, capacity, nil))...)
	return n
}

func (w *world) claim(change func(*kind.ClaimBody)) ledgertest.Signed {
	w.t.Helper()
	b := &kind.ClaimBody{
		Template: "hello", Command: []string{"/hello"}, Class: kind.Process,
		Limits: kind.Limits{Wall: int64(time.Second), Memory: 64 << 20}, TTL: int64(time.Minute),
	}
	if change != nil {
		change(b)
	}
	return w.Under(w.link, w.agent, kind.Claim, w.account, b)
}

func (w *world) claimed(change func(*kind.ClaimBody)) *kind.Claimed {
	w.t.Helper()
	r := w.Accepted(w.Submit(w.claim(change))...)
	c, err := kind.DecodeClaimed(r.Detail)
	if err != nil {
		w.t.Fatal(err)
	}
	if c.Claim != r.Index {
		w.t.Fatalf("got claim %d, want its leaf's index %d", c.Claim, r.Index)
	}
	return c
}

// waits claims and expects that no node has room.
func (w *world) waits(change func(*kind.ClaimBody)) uint64 {
	w.t.Helper()
	c := w.claimed(change)
	if !c.Node.IsZero() {
		w.t.Fatalf("got node %s, want the claim to wait", c.Node)
	}
	return c.Claim
}

func (w *world) info(claim uint64) *Info {
	w.t.Helper()
	var i *Info
	w.WithView(w.Tenant, func(v ledger.View) { i, _ = Get(v, claim) })
	if i == nil {
		w.t.Fatalf("claim %d does not exist", claim)
	}
	return i
}

func (w *world) wantState(claim uint64, want State) *Info {
	w.t.Helper()
	i := w.info(claim)
	if i.State != want {
		w.t.Fatalf("claim %d: got %s, want %s", claim, i.State, want)
	}
	return i
}

// report is the report of a node about a claim.
func (w *world) report(n *ledgertest.Identity, claim uint64, change func(*kind.Run)) ledgertest.Signed {
	w.t.Helper()
	return w.stated(n.Key, n, claim, change)
}

// stated is a report of a node with a statement that somebody has signed.
func (w *world) stated(by nhi.Signer, n *ledgertest.Identity, claim uint64, change func(*kind.Run)) ledgertest.Signed {
	w.t.Helper()
	i := w.info(claim)
	w.seq++
	r := &kind.Run{
		Ledger: w.LedgerID, Tenant: w.Tenant, Claim: claim, Agent: i.Agent, Link: i.Link, Account: i.Account, PolicyEpoch: i.PolicyEpoch,
		Node: n.ID, Sequence: w.seq, Template: i.Template, Rootfs: i.Rootfs, Command: []string{"/hello"}, Isolation: i.Class,
		Backend: "test", BackendVersion: "1", Status: kind.Finished, MeasuredFrom: kind.FromWait4, WallLimit: i.Wall, MemoryLimit: i.Memory,
	}
	if change != nil {
		change(r)
	}
	env, err := kind.SignStatement(w.t.Context(), by, r)
	if err != nil {
		w.t.Fatal(err)
	}
	ev := w.Event(n, kind.Report, &kind.ReportBody{
		Claim: r.Claim, Statement: env, StatementDigest: sha256.Sum256(env), Rootfs: r.Rootfs, ExitCode: r.ExitCode, Output: r.Output,
		PolicyEpoch: r.PolicyEpoch, Sequence: max(1, r.Sequence), Status: r.Status, Reason: r.Reason,
	})
	ev.Event.Account = i.Account
	return ev
}

func (w *world) usage(n *ledgertest.Identity, claim uint64) ledgertest.Signed {
	w.t.Helper()
	return w.used(n, claim, nil)
}

func (w *world) used(n *ledgertest.Identity, claim uint64, change func(*kind.UsageBody)) ledgertest.Signed {
	w.t.Helper()
	b := &kind.UsageBody{
		Claim: claim, Quantities: map[string]uint64{kind.MeterCPU: 10, kind.MeterWall: 20}, From: kind.FromWait4, Sequence: w.seq,
	}
	if change != nil {
		change(b)
	}
	ev := w.Event(n, kind.Usage, b)
	ev.Event.Account = w.info(claim).Account
	return ev
}

// leaves counts the tenant's leaves of a kind.
func (w *world) leaves(name string) (n int, last []byte) {
	w.t.Helper()
	s := w.Read()
	defer s.Close()
	head, err := s.Head(w.Slot)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range head.Size {
		e, err := s.Event(w.Slot, i)
		if err != nil {
			w.t.Fatal(err)
		}
		if e.Leaf.Kind == name {
			n, last = n+1, e.Payload
		}
	}
	return n, last
}

// consistent holds the rows against each other: no node beyond its capacity, counters equal to what they count.
func (w *world) consistent() {
	w.t.Helper()
	w.WithView(w.Tenant, func(v ledger.View) {
		var waiting uint64
		open := map[nhi.ID]uint64{}
		leases := map[uint64]bool{}
		running := map[nhi.ID]uint64{}
		claims, _, more := List(v, 0, 0, MaxPage)
		if more {
			w.t.Fatal("more claims than a page")
		}
		for _, c := range claims {
			for _, l := range c.Leases {
				leases[l] = true
			}
			if holds := !c.State.Done() || c.State == Expired && !c.Node.IsZero() || (c.State == Finished || c.State == Killed) && c.Usage == 0; holds != (len(c.Leases) == 1) {
				w.t.Errorf("claim %d is %s: got leases %v", c.Claim, c.State, c.Leases)
			}
			switch c.State {
			case Waiting:
				waiting++
				open[c.Agent]++
			case Allocated:
				open[c.Agent]++
				running[c.Node]++
			}
		}
		counts := map[string]uint64{}
		v.Scan(TableCount, nil, nil, false, func(key, value []byte) bool {
			counts[string(key)] = decodeRow[countRow](TableCount, key, value).N
			return true
		})
		want := map[string]uint64{}
		if waiting > 0 {
			want[""] = waiting
		}
		for a, n := range open {
			want[string(a[:])] = n
		}
		if fmt.Sprint(counts) != fmt.Sprint(want) {
			w.t.Errorf("got counts %x, want %x", counts, want)
		}
		v.Scan(tableLease, nil, nil, false, func(key, _ []byte) bool {
			if l := lastIndex(tableLease, key); !leases[l] {
				w.t.Errorf("lease %d belongs to no claim", l)
			} else {
				delete(leases, l)
			}
			return true
		})
		if len(leases) > 0 {
			w.t.Errorf("leases %v of claims are not there", leases)
		}
		queued := uint64(0)
		v.Scan(TableWaiting, nil, nil, false, func(key, _ []byte) bool { queued++; return true })
		if queued != waiting {
			w.t.Errorf("got %d rows of waiting claims, want %d", queued, waiting)
		}
		for _, n := range Nodes(v) {
			if n.Running != running[n.ID] || int(n.Running) != len(Running(v, n.ID)) {
				w.t.Errorf("node %s: got %d running, want %d and %d rows", n.ID, n.Running, running[n.ID], len(Running(v, n.ID)))
			}
		}
	})
}
