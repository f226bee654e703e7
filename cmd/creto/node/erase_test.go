package node

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// TestErasedBytesLeaveEveryStore erases a name in a running cluster. Nobody asks the nodes to: the ciphertext and its wrapped
// key go from the table files of all of them.
func TestErasedBytesLeaveEveryStore(t *testing.T) {
	c := startDev(t, DevConfig{})
	cc := c.dial(0, c.ReadToken, false)
	name := nhi.Addendum{Salt: [16]byte{1}, Data: []byte("Ada Lovelace, who shall be forgotten")}
	key, err := nhi.NewPrivateKey(bytes.Repeat([]byte{7}, 64))
	if err != nil {
		t.Fatal(err)
	}
	b, err := registry.NewRegistration(key, c.LedgerID, c.Tenant, nhi.ID{7}, registry.Human)
	if err != nil {
		t.Fatal(err)
	}
	e := c.event(c.Tenant, c.Authority, registry.KindRegister, b)
	e.Addenda = []nhi.Digest{nhi.AddendumDigest(name)}
	env := c.sign(c.AuthorityKey, e)
	env.Addenda = []*cretov1.Addenda{{Items: []*cretov1.Addendum{{Salt: name.Salt[:], Data: name.Data}}}}
	resp, err := cretov1.NewEventServiceClient(cc).Submit(t.Context(), &cretov1.SubmitRequest{Tenant: c.Tenant[:], Envelopes: []*cretov1.Envelope{env}})
	if err != nil {
		t.Fatal(err)
	}
	index := resp.GetResults()[0].GetIndex()
	stored := func(s *Server) (e *ledger.StoredEvent, sealed []ledger.SealedAddendum) {
		snap, err := s.ledger.Read()
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close()
		tn, err := snap.Tenant(c.Tenant)
		if err != nil {
			t.Fatal(err)
		}
		if e, err = snap.Event(tn.Slot, index); err != nil {
			if errors.Is(err, ledger.ErrNotFound) {
				return nil, nil
			}
			t.Fatal(err)
		}
		if sealed, err = snap.Addenda(tn.Slot, index); err != nil {
			t.Fatal(err)
		}
		return e, sealed
	}
	var sealed ledger.SealedAddendum
	for i, s := range c.Servers() {
		await(t, func() bool { e, _ := stored(s); return e != nil })
		_, all := stored(s)
		if len(all) != 1 {
			t.Fatalf("node %d: got %d addenda, want 1", i, len(all))
		}
		sealed = all[0]
		if err := s.ledger.Sync(); err != nil {
			t.Fatal(err)
		}
		if !inTables(t, s.cfg.path(stateDir), sealed) {
			t.Fatalf("node %d: the test looks in the wrong place: the sealed addendum is not on disk", i)
		}
	}
	c.submit(cc, c.AuthorityKey, c.event(c.Tenant, c.Authority, registry.KindErase, &registry.EraseBody{Index: index}))
	for i, s := range c.Servers() {
		await(t, func() bool {
			e, _ := stored(s)
			return e.Erased != nil && s.ledger.Purged(e.Slot, index, *e.Erased)
		})
		if inTables(t, s.cfg.path(stateDir), sealed) {
			t.Errorf("node %d: the sealed addendum is still in a table file", i)
		}
	}
}

// await polls a condition of a cluster that runs by the machine's clock.
func await(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 30 seconds")
		}
	}
}

// inTables looks for a piece of ciphertext or wrapped key in the table files of a store.
func inTables(t *testing.T, dir string, s ledger.SealedAddendum) (found bool) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".sst") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // replaced meanwhile
		}
		if err != nil {
			t.Fatal(err)
		}
		// Random bytes, which compression cannot shorten.
		found = found || bytes.Contains(b, s.Ciphertext[12:44]) || bytes.Contains(b, s.WrappedKey[12:44])
	}
	return found
}
