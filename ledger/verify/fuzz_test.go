package verify_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// FuzzDecodeLeaf: what decodes encodes to the same bytes, and both codecs agree on what is a leaf.
func FuzzDecodeLeaf(f *testing.F) {
	fx := newFixture(f, 0)
	for _, e := range fx.one.Leaves {
		f.Add(e.Leaf)
	}
	rev := uint64(1)
	full := &verify.Leaf{
		V: 1, Index: 2, Kind: "x", Quality: verify.Quality{Code: 1, Flags: 3, Cert: []byte{1}}, Reverses: &rev, Lease: &verify.LeaseRef{ID: 1, To: 2},
		Cause: &verify.Cause{Kind: 1, Ref: []byte{1}}, Addenda: []nhi.Digest{{1}}, Outcome: verify.Outcome{Code: 3, Detail: nhi.Digest{1}},
	}
	f.Add(encode(f, full))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := verify.DecodeLeaf(b)
		if err == nil {
			if again, err := l.Encode(); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("got %x, %v, want %x", again, err, b)
			}
		}
		var r verify.Leaf
		reflected := len(b) <= verify.MaxLeafSize && canon.Unmarshal(b, &r) == nil && r.Check() == nil
		if reflected != (err == nil) {
			t.Fatalf("by hand: %v, by reflection: %t", err, reflected)
		}
	})
}

func FuzzDecodeHeads(f *testing.F) {
	fx := newFixture(f, 0)
	f.Add(fx.Epochs[0].Heads[1])
	f.Add(fx.Epochs[0].Spine)
	f.Add(encode(f, &verify.Receipt{V: 1, Index: 3}))
	f.Fuzz(func(t *testing.T, b []byte) {
		same := func(v interface{ Encode() ([]byte, error) }) {
			if again, err := v.Encode(); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("got %x, %v, want %x", again, err, b)
			}
		}
		if h, err := verify.DecodeHeadLeaf(b); err == nil {
			same(h)
		}
		if s, err := verify.DecodeSpineLeaf(b); err == nil {
			same(s)
		}
		if r, err := verify.DecodeReceipt(b); err == nil {
			same(r)
		}
		if s, err := verify.DecodeSignedReceipt(b); err == nil {
			same(s)
		}
	})
}

func FuzzParseNote(f *testing.F) {
	fx := newFixture(f, 0)
	n := must[*verify.Note](f)(fx.Checkpoint(0))
	f.Add(n.Marshal())
	f.Add([]byte("a\n\nb\n\n— x AAAAAAA=\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := verify.ParseNote(b)
		if err != nil {
			return
		}
		if again := n.Marshal(); !bytes.Equal(again, b) {
			t.Fatalf("got %q, want %q", again, b)
		}
		if c, err := verify.ParseCheckpoint(n.Text); err == nil && c.Text() != n.Text {
			t.Fatalf("got %q, want %q", c.Text(), n.Text)
		}
		fx.trust.Endorse(n)
	})
}

func FuzzParseVKey(f *testing.F) {
	fx := newFixture(f, 1)
	f.Add(fx.Log.VKey().String())
	f.Add(fx.Nodes[0].PQ.VKey().String())
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := verify.ParseVKey(s); err == nil && v.String() != s {
			t.Fatalf("got %q, want %q", v.String(), s)
		}
	})
}

func FuzzParseTrust(f *testing.F) {
	fx := newFixture(f, 1)
	f.Add(fx.Ledger.Trust())
	f.Add([]byte("ledger_id 00\nquorum none\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		trust, err := verify.ParseTrust(b)
		if err != nil {
			return
		}
		text := trust.Format()
		again, err := verify.ParseTrust(text)
		if err != nil || !bytes.Equal(again.Format(), text) || again.Fingerprint() != trust.Fingerprint() {
			t.Fatalf("got %v and %q, want %q", err, again.Format(), text)
		}
	})
}

func FuzzParseTLogProof(f *testing.F) {
	fx := newFixture(f, 0)
	f.Add(fx.proof(f, fx.one, 0).SpineProof)
	f.Add([]byte("c2sp.org/tlog-proof@v1\nextra AAAA\nindex 1\n\nx\n\n— x AAAAAAA=\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := verify.ParseTLogProof(b); err == nil && !bytes.Equal(p.Marshal(), b) {
			t.Fatalf("got %q, want %q", p.Marshal(), b)
		}
	})
}

// FuzzVerifyAny: no input makes it panic, and nothing but the files it was seeded with verifies. The ledger has no nodes,
// so that the files are short and mutate well.
func FuzzVerifyAny(f *testing.F) {
	fx := newFixture(f, 0)
	event, complete := encode(f, fx.proof(f, fx.one, 6)), fx.completeness(f, 0, 1, 0, 1)
	note := must[*verify.Note](f)(fx.Checkpoint(0)).Marshal()
	consistent := encode(f, must[*verify.ConsistencyFile](f)(fx.Consistency(1, 2)))
	for _, b := range [][]byte{event, complete, note, consistent} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := verify.VerifyAny(bytes.NewReader(b), fx.trust, verify.Options{})
		if r == nil || r.OK != (err == nil) {
			t.Fatalf("got %+v, %v", r, err)
		}
		// A note may carry any signatures by unknown keys; files of the other kinds are bound by every byte.
		if r.OK && r.Kind != verify.KindCheckpoint && !bytes.Equal(b, event) && !bytes.Equal(b, complete) && !bytes.Equal(b, consistent) {
			t.Fatalf("a file that nobody wrote verifies: %x", b)
		}
	})
}

// FuzzEventBody: whatever somebody makes of the body of a proof, with a fitting checksum, it proves no leaf that the ledger
// does not have.
func FuzzEventBody(f *testing.F) {
	fx := newFixture(f, 0)
	known := map[string]bool{}
	for _, tenant := range fx.Tenants {
		for _, e := range tenant.Leaves {
			known[fmt.Sprintf("%x", verify.LeafHash(e.Leaf))] = true
		}
	}
	for _, index := range []int{0, 3, 6} {
		f.Add(must[[]byte](f)(canon.Marshal(fx.proof(f, fx.one, index))))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := verify.EncodeContainer(verify.KindEvent, b)
		if err != nil {
			return
		}
		if r, err := verify.VerifyEventProof(file, fx.trust, verify.Options{}); err == nil && !known[r.Subject.LeafHash] {
			t.Fatalf("a leaf that nobody wrote is proven: %+v", r.Subject)
		}
	})
}
