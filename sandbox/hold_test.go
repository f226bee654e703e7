package sandbox

import (
	"testing"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/sandbox/kind"
)

// The edge takes only statements that the reporting node itself has signed, about this very claim.
func TestReportIsHeldAgainstItsClaim(t *testing.T) {
	w := newWorld(t)
	n := w.ready("n1", 1)
	c := w.claimed(nil)
	stranger := ledgertest.NewIdentity(t, "stranger", registry.Agent)
	hold := func(s ledgertest.Signed) (err error) {
		w.WithView(w.Tenant, func(v ledger.View) { err = holdReport(t.Context(), v, s.Event, s.By.Key.Public()) })
		return err
	}
	if err := hold(w.stated(n.Key, n, c.Claim, nil)); err != nil {
		t.Errorf("a true statement: %v", err)
	}
	if err := hold(w.stated(stranger.Key, n, c.Claim, nil)); err == nil {
		t.Error("a statement that a stranger has signed is taken")
	}
	for name, change := range map[string]func(*kind.Run){
		"ledger":        func(r *kind.Run) { r.Ledger[0] ^= 1 },
		"tenant":        func(r *kind.Run) { r.Tenant[0] ^= 1 },
		"agent":         func(r *kind.Run) { r.Agent[0] ^= 1 },
		"link":          func(r *kind.Run) { r.Link[0] ^= 1 },
		"account":       func(r *kind.Run) { r.Account[0] ^= 1 },
		"node":          func(r *kind.Run) { r.Node[0] ^= 1 },
		"command":       func(r *kind.Run) { r.Command = []string{"/bin/rm", "-rf"} },
		"template":      func(r *kind.Run) { r.Template = "evil" },
		"memory":        func(r *kind.Run) { r.MemoryLimit++ },
		"sequence zero": func(r *kind.Run) { r.Sequence = 0 },
	} {
		if err := hold(w.stated(n.Key, n, c.Claim, change)); err == nil {
			t.Errorf("a statement with another %s is taken", name)
		}
	}
	// About claims that are not the node's, Decide has the word: it refuses on the record.
	other := w.ready("n2", 1)
	if err := hold(w.stated(other.Key, other, c.Claim, nil)); err != nil {
		t.Errorf("a report of another node's claim: got %v at the edge, want it left to Apply", err)
	}
}
