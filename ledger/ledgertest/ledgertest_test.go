package ledgertest_test

import (
	"testing"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/nhi/registry"
)

func TestFixtureIsDeterministic(t *testing.T) {
	var hashes [2][32]byte
	for i := range hashes {
		f := ledgertest.New(t)
		human := f.Register("human", registry.Human)
		agent := f.Register("agent", registry.Agent)
		sub := f.Register("sub-agent", registry.Agent)
		root := f.Delegate(nil, human, agent, nil)
		f.Delegate(root, agent, sub, nil)
		if r := f.Seal(); !r.Sealed || r.Size != 1 {
			t.Fatalf("seal: got %+v", r)
		}
		s := f.Read()
		hashes[i] = s.StateHash()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if e := f.Stored(0); e.Leaf.Kind != registry.KindRegister || e.Signature == nil {
			t.Errorf("leaf 0: got %+v", e)
		}
		f.WithView(f.Tenant, func(v ledger.View) {
			if v.NextIndex() != 6 {
				t.Errorf("next index: got %d, want 6", v.NextIndex())
			}
		})
	}
	if hashes[0] != hashes[1] {
		t.Errorf("state hashes differ: %x and %x", hashes[0], hashes[1])
	}
}
