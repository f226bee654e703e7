package node

import (
	"testing"

	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// What was signed within a window of compromise, found out later, is marked wherever leaves are shown; what came before is not,
// and neither is anybody else's.
func TestIdentity18SuspectInQueries(t *testing.T) {
	c := startDev(t, DevConfig{Nodes: 1})
	cc := c.dial(0, c.ReadToken, false)
	thief, key := c.register(cc, registry.Service)
	honest, otherKey := c.register(cc, registry.Service)
	before := c.submit(cc, key, c.usage(thief, 1))
	within := c.submit(cc, key, c.usage(thief, 2))
	other := c.submit(cc, otherKey, c.usage(honest, 3))
	events := cretov1.NewEventServiceClient(cc)
	marked := func(when string, want bool) {
		t.Helper()
		for what, e := range map[string]struct {
			index uint64
			want  bool
		}{"before the window": {before.GetIndex(), false}, "within the window": {within.GetIndex(), want}, "another signer": {other.GetIndex(), false}} {
			got, err := events.GetEvent(t.Context(), &cretov1.GetEventRequest{Tenant: c.Tenant[:], Index: e.index})
			if err != nil || got.GetEvent().GetSuspect() != e.want {
				t.Errorf("%s, %s: got suspect %t, %v, want %t", when, what, got.GetEvent().GetSuspect(), err, e.want)
			}
		}
		list, err := events.ListEvents(t.Context(), &cretov1.ListEventsRequest{Tenant: c.Tenant[:], Filter: &cretov1.EventFilter{Kind: "usage"}})
		if err != nil || len(list.GetEvents()) != 3 {
			t.Fatalf("%s: list: got %v, %v, want three events", when, list, err)
		}
		for _, e := range list.GetEvents() {
			if e.GetSuspect() != (want && e.GetIndex() == within.GetIndex()) {
				t.Errorf("%s: list: leaf %d suspect %t", when, e.GetIndex(), e.GetSuspect())
			}
		}
	}
	marked("before it is known", false)
	root := within.GetLeafHash()
	c.submit(cc, c.AuthorityKey, c.event(c.Tenant, c.Authority, registry.KindRevoke, &registry.StatusBody{
		ID: thief, Reason: "stolen", CompromisedSince: within.GetTimeNs(),
	}))
	marked("after it is known", true)
	got, err := events.GetEvent(t.Context(), &cretov1.GetEventRequest{Tenant: c.Tenant[:], Index: within.GetIndex()})
	if err != nil || string(got.GetEvent().GetLeafHash()) != string(root) {
		t.Errorf("the leaf has changed: %v", err)
	}
	id, err := cretov1.NewIdentityServiceClient(cc).GetIdentity(t.Context(), &cretov1.GetIdentityRequest{Tenant: c.Tenant[:], Id: thief[:]})
	if err != nil || id.GetIdentity().GetCompromisedSinceNs() != within.GetTimeNs() {
		t.Errorf("identity: got %v, %v, want it compromised since %d", id, err, within.GetTimeNs())
	}
}
