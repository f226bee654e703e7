package ledger_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi/canon"
)

// doubling is a counter that a later version has changed: from level 2 on everything counts twice.
func doubling() *counter {
	return &counter{decide: func(v ledger.View, ev *ledger.Event, _ ledger.Stamp) (ledger.Decision, bool) {
		var b countBody
		if v.Active() < 2 || canon.Unmarshal(ev.Body, &b) != nil {
			return ledger.Decision{}, false
		}
		n := counted(v, ev.Account) + 2*b.N
		return ledger.Decision{
			Writes:     []ledger.Write{{Table: tableCounter, Key: bytes.Clone(ev.Account[:]), Value: binary.BigEndian.AppendUint64(nil, n)}},
			Quantities: []verify.Quantity{{Meter: "tokens", N: 2 * b.N}},
		}, true
	}}
}

// TestActivate shows how behaviour changes: a binary that knows the new level runs as before until the log says so, and from
// that command on every node behaves anew, however commands fall into Apply calls.
func TestActivate(t *testing.T) {
	f := ledgertest.NewWith(t, ledgertest.Options{Kinds: usageKinds(doubling()), Config: func(c *ledger.Config) { c.Level = 2 }})
	usage := func() ledgertest.Signed {
		s := f.Event(f.Authority, "plain", countBody{N: 7})
		s.Event.Account = account
		return s
	}
	count := func(want uint64, active uint32) {
		t.Helper()
		f.WithView(f.Tenant, func(v ledger.View) {
			if got := counted(v, account); got != want || v.Active() != active || v.System().Active() != active {
				t.Errorf("got %d counted at level %d and %d, want %d at %d", got, v.Active(), v.System().Active(), want, active)
			}
		})
	}
	f.Accepted(f.Submit(usage())...)
	count(7, 1)
	for _, level := range []uint32{1, 3} { // only the next one is possible
		if got := f.Apply(&ledger.Command{Type: ledger.CommandActivate, Active: level}); got != uint32(1) {
			t.Errorf("activate %d: got %v, want no effect at level 1", level, got)
		}
	}
	f.Accepted(f.Submit(usage())...)
	count(14, 1)
	if got := f.Apply(&ledger.Command{Type: ledger.CommandActivate, Active: 2}); got != uint32(2) {
		t.Errorf("activate 2: got %v, want 2", got)
	}
	f.Accepted(f.Submit(usage())...)
	count(28, 2)
	f.Seal()
	s := f.Read()
	defer s.Close()
	sys, err := s.Head(ledger.SystemSlot)
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Event(ledger.SystemSlot, sys.Size-1)
	if err != nil {
		t.Fatal(err)
	}
	var body ledger.VersionBody
	if err := canon.Unmarshal(e.Payload, &body); err != nil || e.Leaf.Kind != ledger.KindVersion || body.Active != 2 || e.Leaf.Cause.Kind != verify.CauseCommand {
		t.Errorf("leaf: got %s, %+v, %v, want %s of level 2", e.Leaf.Kind, body, err, ledger.KindVersion)
	}
	spine, err := s.Leaf(ledger.SpineSlot, s.Epoch()-1)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := verify.DecodeSpineLeaf(spine); err != nil || l.ActiveVersion != 2 {
		t.Errorf("spine leaf: got %+v, %v, want active version 2", l, err)
	}

	// Another node applies all of it in one call: the level changes in the middle of a batch.
	cfg := f.Config
	cfg.FS = vfs.NewMem()
	again := f.Open(cfg)
	if _, err := again.Apply(f.Entries); err != nil {
		t.Fatal(err)
	}
	other, err := again.Read()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if other.StateHash() != s.StateHash() || other.Active() != 2 {
		t.Errorf("replay: got state %x at level %d, want %x at 2", other.StateHash(), other.Active(), s.StateHash())
	}

	// A binary of yesterday stops where the level rises, and for good.
	cfg.FS, cfg.Level = vfs.NewMem(), 1
	old := f.Open(cfg)
	for _, e := range f.Entries {
		if _, err = old.Apply([]ledger.Entry{e}); err != nil {
			break
		}
	}
	if fatal, ok := errors.AsType[*ledger.FatalError](err); !ok || !strings.Contains(err.Error(), "this binary knows 1") {
		t.Errorf("old binary: got %v, want a FatalError about the level", err)
	} else if old.AppliedIndex() != fatal.Index-1 {
		t.Errorf("old binary: applied %d, want everything before command %d", old.AppliedIndex(), fatal.Index)
	}
	if _, err := old.Apply(nil); err == nil {
		t.Error("old binary: applied again after it had stopped")
	}
}

// TestOldBinaryDoesNotOpenNewStore shows that a store whose level has risen is not opened by a binary that does not know it.
func TestOldBinaryDoesNotOpenNewStore(t *testing.T) {
	f := ledgertest.NewWith(t, ledgertest.Options{Config: func(c *ledger.Config) { c.Level = 2 }})
	f.Apply(&ledger.Command{Type: ledger.CommandActivate, Active: 2})
	if err := errors.Join(f.Log.Sync(), f.Log.Close()); err != nil {
		t.Fatal(err)
	}
	cfg := f.Config
	cfg.Level = 1
	if _, err := ledger.Open(cfg); err == nil || !strings.Contains(err.Error(), "active level is 2") {
		t.Errorf("open: got %v, want a refusal that names the level", err)
	}
	f.Open(f.Config)
}
