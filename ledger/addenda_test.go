package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

// addendum registers a human with one sealed addendum.
func addendum(t *testing.T, f *ledgertest.Fixture, name string) (ledger.EventResult, ledger.SealedAddendum) {
	t.Helper()
	data := nhi.Addendum{Salt: [16]byte{1}, Data: []byte("what " + name + " is called")}
	sealed, err := ledger.SealAddendum(newKEK(t, "kek"), ledgertest.Random("seal "+name), f.LedgerID, f.Tenant, data)
	if err != nil {
		t.Fatal(err)
	}
	human := ledgertest.NewIdentity(t, name, registry.Human)
	b, err := registry.NewRegistration(human.Key, f.LedgerID, f.Tenant, human.ID, registry.Human)
	if err != nil {
		t.Fatal(err)
	}
	s := f.Event(f.Authority, registry.KindRegister, b)
	s.Event.Addenda = []nhi.Digest{nhi.AddendumDigest(data)}
	return f.Accepted(f.SubmitCommand(&ledger.Command{
		Tenant: f.Tenant, Envelopes: [][]byte{f.Sign(s)}, Addenda: []ledger.SealedAddenda{{Event: 0, Sealed: []ledger.SealedAddendum{sealed}}},
	})...), sealed
}

// TestPurgeErasedFindsWhatIsNew shows that a node purges every erasure once, across restarts, without being told which, and
// leaves what was not erased.
func TestPurgeErasedFindsWhatIsNew(t *testing.T) {
	dir := t.TempDir()
	f := ledgertest.NewWith(t, ledgertest.Options{Config: func(c *ledger.Config) { c.Dir, c.FS = dir, nil }})
	kept, keptSealed := addendum(t, f, "kept")
	one, oneSealed := addendum(t, f, "one")
	two, twoSealed := addendum(t, f, "two")
	sync := func() {
		t.Helper()
		if err := f.Log.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	erase := func(index uint64) {
		t.Helper()
		f.Accepted(f.Submit(f.Event(f.Authority, registry.KindErase, &registry.EraseBody{Index: index}))...)
	}
	purge := func(want int) {
		t.Helper()
		if n, err := f.Log.PurgeErased(t.Context()); err != nil || n != want {
			t.Errorf("purge: got %d, %v, want %d", n, err, want)
		}
	}
	gone := func(name string, s ledger.SealedAddendum, want bool) {
		t.Helper()
		if got := !onDisk(t, dir, s.Ciphertext) && !onDisk(t, dir, s.WrappedKey); got != want {
			t.Errorf("%s is gone from the files: got %t, want %t", name, got, want)
		}
	}
	purged := func(index uint64) bool {
		e := f.Stored(index).Erased
		return e != nil && f.Log.Purged(f.Slot, index, *e)
	}
	sync()
	purge(0)
	erase(one.Index)
	sync()
	gone("one, erased and not purged", oneSealed, false)
	if purged(one.Index) {
		t.Error("one: purged before anything was")
	}
	purge(1)
	gone("one", oneSealed, true)
	purge(0)
	erase(two.Index)
	if !purged(one.Index) || purged(two.Index) {
		t.Errorf("purged: got %t, %t, want true, false", purged(one.Index), purged(two.Index))
	}
	sync()
	if err := f.Log.Close(); err != nil {
		t.Fatal(err)
	}
	f.Log = f.Open(f.Config)
	if !purged(one.Index) || purged(two.Index) {
		t.Errorf("purged after a restart: got %t, %t, want true, false", purged(one.Index), purged(two.Index))
	}
	purge(1)
	gone("two", twoSealed, true)
	gone("kept", keptSealed, false)
	if e := f.Stored(kept.Index); e.Erased != nil || e.Addenda != 1 {
		t.Errorf("kept: got %+v, want its addendum", e)
	}
	// A mark that cannot be read costs work and nothing else.
	if err := f.Log.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "creto-purged"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.Log = f.Open(f.Config)
	purge(2)
	purge(0)
}

// TestPurgeReachesTheLowestLevel shows that bytes go which a snapshot kept beside their deletion all the way down, where
// compactions no longer look.
func TestPurgeReachesTheLowestLevel(t *testing.T) {
	dir := t.TempDir()
	f := ledgertest.NewWith(t, ledgertest.Options{Config: func(c *ledger.Config) { c.Dir, c.FS = dir, nil }})
	// Many neighbours, so that one deletion among them makes no file worth rewriting.
	for i := range 30 {
		addendum(t, f, fmt.Sprintf("before %d", i))
	}
	r, sealed := addendum(t, f, "erased")
	for i := range 30 {
		addendum(t, f, fmt.Sprintf("after %d", i))
	}
	snap := f.Read()
	f.Accepted(f.Submit(f.Event(f.Authority, registry.KindErase, &registry.EraseBody{Index: r.Index}))...)
	if err := f.Log.CompactAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if n, err := f.Log.PurgeErased(ctx); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("purge below an open snapshot: got %d, %v, want a deadline", n, err)
	}
	if err := f.Log.CompactAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !onDisk(t, dir, sealed.Ciphertext) {
		t.Error("the test looks in the wrong place: the sealed addendum is not on disk")
	}
	if err := snap.Close(); err != nil {
		t.Fatal(err)
	}
	later := f.Read() // shows nothing of it
	defer later.Close()
	f.Apply(&ledger.Command{Type: ledger.CommandTick})
	if n, err := f.Log.PurgeErased(t.Context()); n != 1 || err != nil {
		t.Errorf("purge: got %d, %v, want 1", n, err)
	}
	if onDisk(t, dir, sealed.Ciphertext) || onDisk(t, dir, sealed.WrappedKey) {
		t.Error("the sealed addendum is still in the state store")
	}
}

// TestRunPurge shows the duty: it purges what is there when it starts, and what is erased later.
func TestRunPurge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := ledgertest.New(t)
		one, _ := addendum(t, f, "one")
		two, _ := addendum(t, f, "two")
		erase := func(index uint64) ledger.Erasure {
			f.Accepted(f.Submit(f.Event(f.Authority, registry.KindErase, &registry.EraseBody{Index: index}))...)
			return *f.Stored(index).Erased
		}
		e := erase(one.Index)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Log.RunPurge(ctx) }()
		time.Sleep(time.Second)
		if !f.Log.Purged(f.Slot, one.Index, e) {
			t.Error("what was erased before the duty began is not purged")
		}
		e = erase(two.Index)
		time.Sleep(time.Minute)
		if !f.Log.Purged(f.Slot, two.Index, e) {
			t.Error("what was erased meanwhile is not purged")
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run: got %v, want canceled", err)
		}
		if err := f.Log.Close(); err != nil {
			t.Fatal(err)
		}
	})
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
