package ledger_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

func newKEK(t *testing.T, name string) *ledger.FileKEK {
	t.Helper()
	k, err := ledger.NewFileKEK(ledgertest.Seed(name)[:32], ledgertest.Random(name))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAddendumIsSealedBoundAndErased(t *testing.T) {
	dir := t.TempDir()
	f := ledgertest.NewWith(t, ledgertest.Options{Config: func(c *ledger.Config) { c.Dir, c.FS = dir, nil }})
	kek := newKEK(t, "kek")
	human := ledgertest.NewIdentity(t, "human", registry.Human)
	name := nhi.Addendum{Salt: [16]byte{1}, Data: []byte("Ada Lovelace, who shall be forgotten")}
	sealed, err := ledger.SealAddendum(kek, ledgertest.Random("seal"), f.LedgerID, f.Tenant, name)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed.Ciphertext, name.Data) {
		t.Fatal("the ciphertext shows the data")
	}
	b, err := registry.NewRegistration(human.Key, f.LedgerID, f.Tenant, human.ID, registry.Human)
	if err != nil {
		t.Fatal(err)
	}
	s := f.Event(f.Authority, registry.KindRegister, b)
	s.Event.Addenda = []nhi.Digest{nhi.AddendumDigest(name)}
	stray := sealed
	stray.Digest = nhi.Digest{7} // nothing commits to it
	r := f.Accepted(f.SubmitCommand(&ledger.Command{
		Tenant: f.Tenant, Envelopes: [][]byte{f.Sign(s)}, Addenda: []ledger.SealedAddenda{{Event: 0, Sealed: []ledger.SealedAddendum{stray, sealed}}},
	})...)
	f.Seal()

	snap := f.Read()
	got, err := snap.Addenda(f.Slot, r.Index)
	if err != nil || len(got) != 1 {
		t.Fatalf("addenda: got %d, %v, want 1", len(got), err)
	}
	if a, err := ledger.OpenAddendum(kek, f.LedgerID, f.Tenant, got[0]); err != nil || !bytes.Equal(a.Data, name.Data) || a.Salt != name.Salt {
		t.Errorf("open: got %q, %v", a.Data, err)
	}
	for what, open := range map[string]func() error{
		"another tenant": func() error { return second(ledger.OpenAddendum(kek, f.LedgerID, nhi.ID{9}, got[0])) },
		"another ledger": func() error { return second(ledger.OpenAddendum(kek, nhi.Digest{9}, f.Tenant, got[0])) },
		"another KEK":    func() error { return second(ledger.OpenAddendum(newKEK(t, "other"), f.LedgerID, f.Tenant, got[0])) },
		"changed": func() error {
			x := got[0]
			x.Ciphertext = bytes.Clone(x.Ciphertext)
			x.Ciphertext[20] ^= 1
			return second(ledger.OpenAddendum(kek, f.LedgerID, f.Tenant, x))
		},
		"another digest": func() error {
			x := got[0]
			x.Digest[0] ^= 1
			return second(ledger.OpenAddendum(kek, f.LedgerID, f.Tenant, x))
		},
	} {
		if err := open(); !errors.Is(err, ledger.ErrUnwrap) && !errors.Is(err, ledger.ErrAddendum) {
			t.Errorf("open with %s: got %v, want a refusal", what, err)
		}
	}
	snap.Close()

	if err := f.Log.Sync(); err != nil {
		t.Fatal(err)
	}
	if !onDisk(t, dir, sealed.Ciphertext) || !onDisk(t, dir, sealed.WrappedKey) {
		t.Fatal("the test looks in the wrong place: the sealed addendum is not on disk")
	}
	erase := f.Accepted(f.Submit(f.Event(f.Authority, registry.KindErase, &registry.EraseBody{Index: r.Index}))...)
	if err := f.Log.Purge(t.Context(), f.Slot, r.Index, r.Index); err != nil {
		t.Fatal(err)
	}
	if onDisk(t, dir, sealed.Ciphertext) || onDisk(t, dir, sealed.WrappedKey) {
		t.Error("the sealed addendum is still in the state store")
	}
	f.Seal()
	e := f.Stored(r.Index)
	if e.Erased == nil || e.Erased.Index != erase.Index || e.Addenda != 0 {
		t.Errorf("erasure: got %+v, want at index %d", e.Erased, erase.Index)
	}
	// The proof of the event still verifies.
	snap = f.Read()
	defer snap.Close()
	tn, err := snap.Tenant(f.Tenant)
	if err != nil {
		t.Fatal(err)
	}
	p, err := snap.EventProof(tn, r.Index, f.Anchor())
	if err != nil {
		t.Fatal(err)
	}
	file, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify.VerifyAny(bytes.NewReader(file), f.Trust(), verify.Options{}); err != nil {
		t.Errorf("proof after erasure: %v", err)
	}
	// Who erases, and what.
	f.Want(verify.OutcomeNotFound, f.Submit(f.Event(f.Authority, registry.KindErase, &registry.EraseBody{Index: 1 << 40}))...)
	f.Want(verify.OutcomeUnauthorized, f.Submit(f.Event(human, registry.KindErase, &registry.EraseBody{Index: r.Index}))...)
	again := f.Accepted(f.Submit(f.Event(f.Authority, registry.KindErase, &registry.EraseBody{Index: r.Index}))...)
	if e := f.Stored(r.Index); e.Erased.Index != erase.Index || again.Index == erase.Index {
		t.Errorf("second erasure: got %+v, want the first to count", e.Erased)
	}
}

// onDisk looks for bytes in every file of the store. Files that the store deletes a moment later than it replaces them may
// vanish meanwhile.
func onDisk(t *testing.T, dir string, want []byte) bool {
	t.Helper()
	want = want[12:44] // a piece that compression cannot shorten
	found := false
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		found = found || bytes.Contains(b, want)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return found
}

func TestKEKFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	if err := ledger.CreateKEKFile(path, ledgertest.Random("a")); err != nil {
		t.Fatal(err)
	}
	if err := ledger.CreateKEKFile(path, ledgertest.Random("b")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second creation: got %v, want ErrExist", err)
	}
	k, err := ledger.LoadKEKFile(path, ledgertest.Random("c"))
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := k.Wrap([]byte("record key"), []byte("context"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Unwrap(wrapped, []byte("context")); err != nil || string(got) != "record key" {
		t.Errorf("unwrap: got %q, %v", got, err)
	}
	for i := range wrapped {
		bad := bytes.Clone(wrapped)
		bad[i] ^= 1
		if _, err := k.Unwrap(bad, []byte("context")); !errors.Is(err, ledger.ErrUnwrap) {
			t.Errorf("byte %d changed: got %v, want ErrUnwrap", i, err)
		}
	}
	if _, err := k.Unwrap(wrapped[:5], []byte("context")); !errors.Is(err, ledger.ErrUnwrap) {
		t.Errorf("cut off: got %v, want ErrUnwrap", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.LoadKEKFile(path, nil); err == nil || !strings.Contains(err.Error(), "lets others read it") {
		t.Errorf("file that others may read: got %v", err)
	}
}
