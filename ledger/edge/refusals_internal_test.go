package edge

import (
	"testing"

	"github.com/creto-systems/creto/nhi"
)

// TestRefusersAreForgotten shows that the number of keys that are kept is bounded, and that the one refused longest ago goes.
func TestRefusersAreForgotten(t *testing.T) {
	r := newRefusals(1, 1)
	r.most = 3
	who := func(n byte) refuser { return refuser{key: nhi.KeyID{n}} }
	for n := range byte(3) {
		if err := r.take(who(n), 1, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.take(who(0), 1, 0); err == nil {
		t.Error("key 0: got nil, want its rate exceeded")
	}
	if err := r.take(who(3), 1, 0); err != nil {
		t.Errorf("a fourth key: got %v", err)
	}
	if len(r.by) != 3 || r.recent.Len() != 3 {
		t.Errorf("got %d keys, %d in order, want 3", len(r.by), r.recent.Len())
	}
	if err := r.take(who(0), 1, 0); err == nil {
		t.Error("key 0, refused most recently: got nil, want it remembered")
	}
	if err := r.take(who(1), 1, 0); err != nil {
		t.Errorf("key 1, refused longest ago: got %v, want it forgotten", err)
	}
}
