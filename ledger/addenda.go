package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/creto-systems/creto/nhi"
)

// ErrAddendum says that a sealed addendum cannot be opened, or is not what the event committed to.
var ErrAddendum = errors.New("addendum cannot be opened")

// addendumContext binds a sealed addendum and its record key to ledger, tenant and digest.
func addendumContext(ledger nhi.Digest, tenant nhi.ID, digest nhi.Digest) []byte {
	b := append([]byte("creto/addendum-seal/v1\x00"), ledger[:]...)
	b = append(b, tenant[:]...)
	return append(b, digest[:]...)
}

// SealAddendum encrypts one addendum under a record key of its own, which the KEK wraps. The edge calls it before an event
// is proposed; from here on only ciphertext travels and is stored.
func SealAddendum(kek KEK, random io.Reader, ledger nhi.Digest, tenant nhi.ID, a nhi.Addendum) (SealedAddendum, error) {
	if len(a.Data) > nhi.MaxAddendumBytes {
		return SealedAddendum{}, fmt.Errorf("seal addendum: %d bytes are more than %d", len(a.Data), nhi.MaxAddendumBytes)
	}
	key := make([]byte, 32)
	if _, err := io.ReadFull(random, key); err != nil {
		return SealedAddendum{}, fmt.Errorf("seal addendum: draw key: %w", err)
	}
	defer clear(key)
	s := SealedAddendum{Digest: nhi.AddendumDigest(a)}
	ctx := addendumContext(ledger, tenant, s.Digest)
	aead, err := newGCM(key)
	if err != nil {
		return SealedAddendum{}, fmt.Errorf("seal addendum: %w", err)
	}
	plain := append(append(make([]byte, 0, len(a.Salt)+len(a.Data)), a.Salt[:]...), a.Data...)
	if s.Ciphertext, err = sealGCM(aead, random, nil, plain, ctx); err != nil {
		return SealedAddendum{}, fmt.Errorf("seal addendum: %w", err)
	}
	if s.WrappedKey, err = kek.Wrap(key, ctx); err != nil {
		return SealedAddendum{}, fmt.Errorf("seal addendum: wrap key: %w", err)
	}
	if len(s.WrappedKey) > maxWrappedKey {
		return SealedAddendum{}, fmt.Errorf("seal addendum: wrapped key of %d bytes", len(s.WrappedKey))
	}
	return s, nil
}

// OpenAddendum decrypts a sealed addendum and checks that it is what the event committed to. The error matches ErrAddendum
// or ErrUnwrap.
func OpenAddendum(kek KEK, ledger nhi.Digest, tenant nhi.ID, s SealedAddendum) (nhi.Addendum, error) {
	ctx := addendumContext(ledger, tenant, s.Digest)
	key, err := kek.Unwrap(s.WrappedKey, ctx)
	if err != nil {
		return nhi.Addendum{}, fmt.Errorf("open addendum: %w", err)
	}
	defer clear(key)
	aead, err := newGCM(key)
	if err != nil {
		return nhi.Addendum{}, fmt.Errorf("open addendum: %w", err)
	}
	plain, err := openGCM(aead, s.Ciphertext, ctx)
	var a nhi.Addendum
	if err != nil || len(plain) < len(a.Salt) {
		return nhi.Addendum{}, fmt.Errorf("open addendum: %w", ErrAddendum)
	}
	a.Salt = [16]byte(plain)
	a.Data = plain[len(a.Salt):]
	if nhi.AddendumDigest(a) != s.Digest {
		return nhi.Addendum{}, fmt.Errorf("open addendum: %w", ErrAddendum)
	}
	return a, nil
}

// keepAddenda stores what the edge has sealed for an event. What the event does not commit to is dropped.
func (a *apply) keepAddenda(ts *tenantState, index uint64, committed []nhi.Digest, sealed []SealedAddendum) {
	for i := range sealed {
		s := &sealed[i]
		n := slices.Index(committed, s.Digest)
		if n < 0 {
			continue
		}
		key := ordinalKey(nil, tableAddenda, ts.Slot, index, n)
		a.x.blind(key, append(s.Digest[:len(s.Digest):len(s.Digest)], s.Ciphertext...))
		a.x.feedDigests(key, s.Digest, sha256.Sum256(s.Ciphertext))
		key = ordinalKey(nil, tableKeyring, ts.Slot, index, n)
		a.x.blind(key, s.WrappedKey)
		a.x.feedDigests(key, sha256.Sum256(s.WrappedKey))
	}
}

// erase deletes the addenda of a leaf and their record keys. The leaf and its proof stay as they are.
func (a *apply) erase(ts *tenantState, index, by uint64) error {
	if index >= ts.tree.size() {
		return fmt.Errorf("%w: erase leaf %d of %d", ErrIsolation, index, ts.tree.size())
	}
	for n := range nhi.MaxAddenda {
		a.x.blindDel(ordinalKey(nil, tableAddenda, ts.Slot, index, n))
		a.x.blindDel(ordinalKey(nil, tableKeyring, ts.Slot, index, n))
	}
	key := indexKey(nil, tableErasures, ts.Slot, index)
	if _, ok := a.x.get(key); ok {
		return nil // the first erasure is the one that counts
	}
	row := binary.BigEndian.AppendUint64([]byte{rowVersion}, by)
	a.x.set(key, binary.BigEndian.AppendUint64(row, a.entry.Index))
	a.x.blind(purgeKey(nil, a.entry.Index, ts.Slot, index), []byte{rowVersion})
	a.erased = true
	return nil
}

// Erasure says where the addenda of a leaf were erased.
type Erasure struct {
	Index uint64 // leaf of the erasure, in the same log
	// RaftIndex is the command that erased. The erasure is complete when Log.Purged says so on every node, and neither a
	// retained Raft log nor a backup reaches back to before it: those hold ciphertext and the wrapped key.
	RaftIndex uint64
}

func decodeErasure(b []byte) (Erasure, error) {
	if len(b) != 17 || b[0] != rowVersion {
		return Erasure{}, corrupt("erasure of %d bytes", len(b))
	}
	return Erasure{Index: binary.BigEndian.Uint64(b[1:]), RaftIndex: binary.BigEndian.Uint64(b[9:])}, nil
}
