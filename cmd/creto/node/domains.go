package node

import (
	"google.golang.org/grpc"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/meter"
	"github.com/creto-systems/creto/nhi/authz"
	"github.com/creto-systems/creto/nhi/registry"
)

// domains are the rooms whose handlers the ledger calls, wired to one another.
type domains struct {
	meter *meter.Meter
}

func newDomains() *domains {
	return &domains{meter: meter.New()}
}

// kinds are all kinds beside the ledger's own.
func (d *domains) kinds() []ledger.Kind {
	return d.meter.Kinds()
}

// tree gives the identity registry the tenant's accounts.
func (d *domains) tree(v ledger.View) registry.Tree { return meter.Tree{View: v} }

// bundle returns the tenant's published policy.
func (d *domains) bundle(v ledger.View) (authz.Bundle, bool) { return authz.Bundle{}, false }

// questions are asked of policy about kinds that bring an action of their own.
func (d *domains) questions() map[string]question { return nil }

// register registers the rooms' services.
func (d *domains) register(g grpc.ServiceRegistrar, s *Server) {
	d.meter.RegisterService(g, s)
}
