package registry

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// identityRow is the value of TableIdentity; the index of the version is in the key.
type identityRow struct {
	Type             Type      `cbor:"1,keyasint"`
	Status           Status    `cbor:"2,keyasint"`
	Role             Role      `cbor:"3,keyasint"`
	Key              nhi.KeyID `cbor:"4,keyasint"`
	Registered       uint64    `cbor:"5,keyasint"`
	Reason           string    `cbor:"6,keyasint"`
	CompromisedSince int64     `cbor:"7,keyasint"`
	CompromisedUntil int64     `cbor:"8,keyasint"`
}

type keyRow struct {
	Owner      nhi.ID        `cbor:"1,keyasint"`
	Suite      nhi.Suite     `cbor:"2,keyasint"`
	Public     []byte        `cbor:"3,keyasint"`
	Components [2]nhi.Digest `cbor:"4,keyasint"`
	From       uint64        `cbor:"5,keyasint"`
}

type keyStateRow struct {
	Until int64 `cbor:"1,keyasint"`
}

// componentRow says which key holds a component; a component that was registered
// alone (a node's cosigning key) names no key.
type componentRow struct {
	Key   nhi.KeyID `cbor:"1,keyasint"`
	Owner nhi.ID    `cbor:"2,keyasint"`
	Index uint64    `cbor:"3,keyasint"`
}

type linkRow struct {
	Body  []byte `cbor:"1,keyasint"`
	Index uint64 `cbor:"2,keyasint"`
	Time  int64  `cbor:"3,keyasint"`
	Via   []byte `cbor:"4,keyasint"` // for each scope, the parent's scope that contains it
}

type guardRow struct {
	Text  string `cbor:"1,keyasint"`
	Index uint64 `cbor:"2,keyasint"`
}

// Tombstone says that a key or link was revoked.
type Tombstone struct {
	Index            uint64 `cbor:"1,keyasint"`
	Time             int64  `cbor:"2,keyasint"` // ns
	By               nhi.ID `cbor:"3,keyasint"`
	Reason           string `cbor:"4,keyasint"`
	CompromisedSince int64  `cbor:"5,keyasint"` // ns; 0 = not known to be compromised
}

type suiteRow struct {
	Suite nhi.Suite `cbor:"1,keyasint"`
	Index uint64    `cbor:"2,keyasint"`
}

// What a tombstone is about: the first byte of its key.
const (
	tombKey  byte = 1
	tombLink byte = 2
)

// corrupt is the panic of a row that does not decode: a wrong state must stop the
// node instead of being answered from.
type corrupt struct {
	table byte
	err   error
}

func (c corrupt) Error() string {
	return fmt.Sprintf("identity registry: row of table %#x does not decode: %v", c.table, c.err)
}

func decodeRow(table byte, b []byte, row any) {
	if err := canon.Unmarshal(b, row); err != nil {
		panic(corrupt{table, err})
	}
}

// rowReader reads a row field by field, without reflection: identities and keys
// are read for each member of a chain whenever an epoch has risen. The first
// error stays; end panics with it.
type rowReader struct {
	r     canon.Reader
	table byte
	next  uint64 // key of the next field
	err   error
}

func readRow(table byte, b []byte, fields int) rowReader {
	d := rowReader{r: canon.NewReader(b), table: table, next: 1}
	n, err := d.r.Map()
	if err == nil && n != fields {
		err = fmt.Errorf("%d fields, want %d", n, fields)
	}
	d.err = err
	return d
}

func field[T any](d *rowReader, read func() (T, error)) (v T) {
	if d.err != nil {
		return v
	}
	k, err := d.r.Uint()
	if err == nil && k != d.next {
		err = fmt.Errorf("field %d, want %d", k, d.next)
	}
	d.next++
	if err == nil {
		v, err = read()
	}
	d.err = err
	return v
}

func (d *rowReader) fixed(dst []byte) {
	field(d, func() (struct{}, error) { return struct{}{}, d.r.Fixed(dst) })
}

func (d *rowReader) end() {
	if d.err == nil {
		d.err = d.r.End()
	}
	if d.err != nil {
		panic(corrupt{d.table, d.err})
	}
}

func readIdentity(b []byte) (r identityRow) {
	d := readRow(TableIdentity, b, 8)
	r.Type = Type(field(&d, d.r.Uint))
	r.Status = Status(field(&d, d.r.Uint))
	r.Role = Role(field(&d, d.r.Uint))
	d.fixed(r.Key[:])
	r.Registered = field(&d, d.r.Uint)
	r.Reason = string(field(&d, d.r.Text))
	r.CompromisedSince = field(&d, d.r.Int)
	r.CompromisedUntil = field(&d, d.r.Int)
	d.end()
	return r
}

func readKey(b []byte) (r keyRow) {
	d := readRow(TableKey, b, 5)
	d.fixed(r.Owner[:])
	r.Suite = nhi.Suite(field(&d, d.r.Uint))
	r.Public = slices.Clone(field(&d, d.r.Bytes))
	field(&d, func() (int, error) {
		n, err := d.r.Array()
		if err == nil && n != len(r.Components) {
			err = fmt.Errorf("%d components", n)
		}
		for i := 0; i < len(r.Components) && err == nil; i++ {
			err = d.r.Fixed(r.Components[i][:])
		}
		return n, err
	})
	r.From = field(&d, d.r.Uint)
	d.end()
	return r
}

func versioned(id []byte, index uint64) []byte {
	return binary.BigEndian.AppendUint64(slices.Clip(id), index)
}

func versionOf(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(key)-8:]) }

func set(table byte, key []byte, row any) Write {
	return Write{Table: table, Key: key, Value: canon.MustMarshal(row)}
}

func mark(table byte, parts ...[]byte) Write {
	return Write{Table: table, Key: slices.Concat(parts...), Value: []byte{}}
}

func setIdentity(id *Identity, index uint64) Write {
	return set(TableIdentity, versioned(id.ID[:], index), identityRow{
		Type: id.Type, Status: id.Status, Role: id.Role, Key: id.Key,
		Registered: id.Registered, Reason: id.Reason, CompromisedSince: id.CompromisedSince, CompromisedUntil: id.CompromisedUntil,
	})
}

func tombstoneKey(what byte, id [32]byte) []byte { return append([]byte{what}, id[:]...) }

func getTombstone(v View, what byte, id [32]byte, asOf uint64) (*Tombstone, bool) {
	b, ok := v.Get(TableTombstone, tombstoneKey(what, id))
	if !ok {
		return nil, false
	}
	t := new(Tombstone)
	decodeRow(TableTombstone, b, t)
	return t, t.Index <= asOf
}

// latest calls fn with the newest version of id at or before asOf.
func latest(v View, table byte, id []byte, asOf uint64, fn func(index uint64, value []byte)) bool {
	found := false
	v.Scan(table, id, versioned(id, asOf), true, func(key, value []byte) bool {
		found = true
		fn(versionOf(key), value)
		return false
	})
	return found
}
