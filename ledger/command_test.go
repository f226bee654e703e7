package ledger_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

func commands() []*ledger.Command {
	return []*ledger.Command{
		{Type: ledger.CommandTick, Time: 5},
		{Type: ledger.CommandSeal, Time: -1, Epoch: 7},
		{Type: ledger.CommandGenesis, Time: 1 << 60, Genesis: []byte{1, 2}},
		{Type: ledger.CommandActivate, Active: 2},
		{Type: ledger.CommandEvents, Tenant: nhi.ID{1}, Envelopes: [][]byte{{1}, {2, 3}}},
		{
			Type: ledger.CommandEvents, Time: 9, Envelopes: [][]byte{{1}},
			Verdicts: []ledger.Verdict{
				{}, {Outcome: ledger.VerdictAllow, Epochs: verify.Epochs{Policy: 1, Entities: 2, Revocation: 1 << 40}, Digest: nhi.Digest{3}},
				{Outcome: ledger.VerdictNeedsOversight, Chains: []string{"a", "b"}, Policies: []string{"p"}},
				{Outcome: ledger.VerdictDeny, Policies: []string{"p", "q"}},
			},
			Addenda: []ledger.SealedAddenda{
				{Event: 0, Sealed: []ledger.SealedAddendum{{Digest: nhi.Digest{1}, WrappedKey: []byte{2}, Ciphertext: []byte{3}}}},
				{Event: 3, Sealed: []ledger.SealedAddendum{{Digest: nhi.Digest{4}, WrappedKey: []byte{5}, Ciphertext: []byte{6}}}},
			},
		},
	}
}

func TestCommandRoundTrip(t *testing.T) {
	for _, c := range commands() {
		b, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := canon.Check(b); err != nil {
			t.Errorf("type %d is not canonical: %v", c.Type, err)
		}
		got, err := ledger.DecodeCommand(b)
		if err != nil {
			t.Fatalf("type %d: %v", c.Type, err)
		}
		if d := cmp.Diff(c, got); d != "" {
			t.Errorf("type %d (-want +got):\n%s", c.Type, d)
		}
		for i := range b {
			if _, err := ledger.DecodeCommand(b[:i]); err == nil {
				t.Errorf("type %d: the first %d bytes are accepted", c.Type, i)
			}
		}
	}
}

// TestCommandThatCannotBeReadIsNotProposed: what Apply would stop at must not come out of Encode.
func TestCommandThatCannotBeReadIsNotProposed(t *testing.T) {
	events := func(edit func(c *ledger.Command)) *ledger.Command {
		c := &ledger.Command{Type: ledger.CommandEvents, Envelopes: [][]byte{{1}}}
		edit(c)
		return c
	}
	for name, c := range map[string]*ledger.Command{
		"unknown type":   {Type: 9},
		"no envelope":    events(func(c *ledger.Command) { c.Envelopes = nil }),
		"too many":       events(func(c *ledger.Command) { c.Envelopes = make([][]byte, ledger.MaxCommandEvents+1) }),
		"too large":      events(func(c *ledger.Command) { c.Envelopes = [][]byte{make([]byte, ledger.MaxCommandSize)} }),
		"unsorted names": events(func(c *ledger.Command) { c.Verdicts = []ledger.Verdict{{Outcome: 1, Policies: []string{"b", "a"}}} }),
		"long name": events(func(c *ledger.Command) {
			c.Verdicts = []ledger.Verdict{{Outcome: 1, Policies: []string{string(make([]byte, 200))}}}
		}),
		"bad outcome": events(func(c *ledger.Command) { c.Verdicts = []ledger.Verdict{{Outcome: 4}} }),
		"addenda order": events(func(c *ledger.Command) {
			one := []ledger.SealedAddendum{{}}
			c.Addenda = []ledger.SealedAddenda{{Event: 1, Sealed: one}, {Event: 1, Sealed: one}}
		}),
		"addenda of nothing": events(func(c *ledger.Command) { c.Addenda = []ledger.SealedAddenda{{Event: 1}} }),
		"invalid text":       events(func(c *ledger.Command) { c.Verdicts = []ledger.Verdict{{Outcome: 1, Chains: []string{"\xff"}}} }),
		"huge epoch":         {Type: ledger.CommandSeal, Epoch: 1 << 60},
	} {
		if b, err := c.Encode(); err == nil {
			_, derr := ledger.DecodeCommand(b)
			t.Errorf("%s: encoded (decoding it says %v)", name, derr)
		}
	}
}

func FuzzDecodeCommand(f *testing.F) {
	for _, c := range commands() {
		b, err := c.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ledger.DecodeCommand(b)
		if err != nil {
			return
		}
		again, err := c.Encode()
		if err != nil {
			t.Fatalf("decoded but not encoded: %v", err)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x decodes, but encodes to %x", b, again)
		}
	})
}

func FuzzCursor(f *testing.F) {
	f.Add(ledger.EncodeCursor(true, 7), true)
	f.Add(ledger.EncodeCursor(false, 1<<50), false)
	f.Add("AQ==", true)
	f.Fuzz(func(t *testing.T, s string, newest bool) {
		if i, err := ledger.ParseCursor(s, newest); err == nil && ledger.EncodeCursor(newest, i) != s {
			t.Errorf("%q is another spelling of the cursor of %d", s, i)
		}
	})
}

func FuzzDecodeGenesis(f *testing.F) {
	f.Add([]byte{0xa0})
	if raw, err := ledgertest.New(f).Genesis.Encode(); err != nil {
		f.Fatal(err)
	} else {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if g, err := ledger.DecodeGenesis(b); err == nil {
			if again, err := g.Encode(); err != nil || !bytes.Equal(again, b) {
				t.Errorf("%x decodes, but encodes to %x, %v", b, again, err)
			}
		}
	})
}
