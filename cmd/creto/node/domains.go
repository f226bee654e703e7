package node

import (
	"context"
	"slices"

	"google.golang.org/grpc"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/meter"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/authz"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/nhi/spiffe"
	"github.com/creto-systems/creto/oversight"
	oversightkind "github.com/creto-systems/creto/oversight/kind"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	"github.com/creto-systems/creto/sandbox"
)

// domains are the rooms whose handlers the ledger calls, wired to one another: what one uses of another is a function of the
// same view, so one event changes both in one step.
type domains struct {
	meter     *meter.Meter
	oversight *oversight.Oversight
	sandbox   *sandbox.Sandbox
}

func newDomains() *domains {
	m := meter.New()
	return &domains{
		meter:     m,
		oversight: oversight.New(oversight.Config{Reserver: reserver{m}, Tree: tree, Ancestors: ancestors}),
		sandbox:   sandbox.New(charger{m}),
	}
}

// Kinds returns every kind of event that a server knows beside the ledger's own.
func Kinds() []ledger.Kind { return newDomains().kinds() }

// kinds are all kinds beside the ledger's own.
func (d *domains) kinds() []ledger.Kind {
	return slices.Concat(d.meter.Kinds(), d.oversight.Kinds(), d.sandbox.Kinds())
}

// tree gives the identity registry a tenant's accounts.
func tree(v ledger.View) registry.Tree { return meter.Tree{View: v} }

// ancestors are the accounts above one.
func ancestors(v ledger.View, account nhi.ID) []nhi.ID {
	path, ok := meter.Path(v, account, nil)
	if !ok {
		return nil
	}
	return path[1:]
}

// bundle returns the tenant's published policy; false = none.
func (d *domains) bundle(v ledger.View) (authz.Bundle, bool) {
	p := oversight.CurrentPolicy(v)
	return p.Bundle, p.Epoch != 0
}

// questions are asked of policy about kinds that bring an action of their own.
func (d *domains) questions() map[string]question {
	return map[string]question{oversightkind.Request: d.oversight.AuthzRequest, oversightkind.Claim: d.oversight.AuthzRequest}
}

// register registers the rooms' services.
func (d *domains) register(g grpc.ServiceRegistrar, s *Server) {
	d.meter.RegisterService(g, s)
	d.oversight.RegisterService(g, s, s)
	d.sandbox.RegisterService(g, sandbox.ServiceConfig{
		Reads: snapshots{s}, Changes: s, Submitter: s.edge, Logger: s.log,
		Peer: func(ctx context.Context) (nhi.ID, bool) {
			p := callerOf(ctx).principal // the guard has held it against the ledger
			return p.ID, p.System && p.Role == spiffe.RoleSandbox
		},
	})
}

// serves says whether a sandbox node has registered in a tenant, as far as this node has applied.
func (s *Server) serves(tenant, id nhi.ID) bool {
	snap, err := s.ledger.Read()
	if err != nil {
		return false
	}
	defer snap.Close()
	t, err := snap.Tenant(tenant)
	if err != nil || t.Slot == ledger.SystemSlot {
		return false
	}
	found := false
	err = ledger.Guard(func() error {
		v, err := snap.View(t)
		if err == nil {
			found = slices.ContainsFunc(sandbox.Nodes(v), func(n sandbox.NodeInfo) bool { return n.ID == id })
		}
		return err
	})
	return err == nil && found
}

// snapshots gives the sandbox's queries what they read.
type snapshots struct{ s *Server }

func (r snapshots) Snapshot(ctx context.Context, tenant nhi.ID, c cretov1.Consistency, fn func(*ledger.Snapshot, ledger.Tenant, *cretov1.ReadInfo) error) error {
	return r.s.tenantRead(ctx, tenant[:], c, fn)
}

// reserver lets claims of approvals reserve quota.
type reserver struct{ meter *meter.Meter }

func (r reserver) Tables() []ledger.Table { return r.meter.Tables() }

func (r reserver) ReserveAll(v ledger.View, at ledger.Stamp, chain *registry.Chain, holder nhi.ID, want []oversight.Reservation) ([]uint64, []ledger.Write, []ledger.Timer, *oversight.QuotaRefusal) {
	rs := make([]meter.Reservation, len(want))
	for i, w := range want {
		// All of it or nothing: what was approved is one amount.
		rs[i] = meter.Reservation{Account: w.Account, Meter: w.Meter, Want: w.Amount, Min: w.Amount, TTL: w.TTL}
	}
	grants, writes, timers, refused := r.meter.ReserveAll(v, at, chain, holder, rs)
	if refused != nil {
		d := refused.Decision()
		return nil, nil, nil, &oversight.QuotaRefusal{Outcome: d.Outcome, Detail: d.Detail}
	}
	leases := make([]uint64, len(grants))
	for i, g := range grants {
		leases[i] = g.Lease
	}
	return leases, writes, timers, nil
}
