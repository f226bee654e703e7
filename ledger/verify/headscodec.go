package verify

import (
	"fmt"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// MaxHeadLeafSize bounds the encoding of a head leaf, a spine leaf and a receipt.
const MaxHeadLeafSize = 512

// Check reports the first field of the head that is out of bounds, as a *FieldError.
func (h *HeadLeaf) Check() error {
	bad := func(field, reason string) error { return &FieldError{"head", field, reason} }
	switch {
	case h.V != 1:
		return bad("v", "is not 1")
	case !validKeyName(h.Origin):
		return bad("origin", "is not an origin of at most 255 bytes")
	case h.Size > MaxTreeSize:
		return bad("size", "is beyond 2^53-1")
	case h.Size == 0 && h.Root != EmptyRoot():
		return bad("root", "is not the empty root at size 0")
	}
	return nil
}

// Encode returns the canonical bytes of the head leaf.
func (h *HeadLeaf) Encode() ([]byte, error) {
	if err := h.Check(); err != nil {
		return nil, err
	}
	b := append(make([]byte, 0, 128), majorMap|6)
	b = canon.AppendUint(append(b, 1), h.V)
	b = canon.AppendUint(append(b, 2), h.Cell)
	b = canon.AppendUint(append(b, 3), uint64(h.Slot))
	b = canon.AppendText(append(b, 4), h.Origin)
	b = canon.AppendUint(append(b, 5), h.Size)
	return canon.AppendBytes(append(b, 6), h.Root[:]), nil
}

// DecodeHeadLeaf decodes the canonical bytes of a head leaf.
func DecodeHeadLeaf(b []byte) (*HeadLeaf, error) {
	h := new(HeadLeaf)
	r := newReader(b)
	if r.fixedMap(6, 1) {
		h.V = r.uint(1)
	}
	if r.key(2) {
		h.Cell = r.uint(1<<64 - 1)
	}
	if r.key(3) {
		h.Slot = uint32(r.uint(1<<32 - 1))
	}
	if r.key(4) {
		h.Origin = r.text(MaxOriginSize)
	}
	if r.key(5) {
		h.Size = r.uint(MaxTreeSize)
	}
	if r.key(6) {
		r.fixed(h.Root[:])
	}
	if err := r.done(); err != nil {
		return nil, fmt.Errorf("decode head leaf: %w", err)
	}
	if err := h.Check(); err != nil {
		return nil, err
	}
	return h, nil
}

// Check reports the first field of the spine leaf that is out of bounds, as a *FieldError.
func (s *SpineLeaf) Check() error {
	bad := func(field, reason string) error { return &FieldError{"spine leaf", field, reason} }
	switch {
	case s.V != 1:
		return bad("v", "is not 1")
	case s.Time < 0:
		return bad("time", "is negative")
	case s.HeadsSize > 1<<32:
		return bad("heads size", "is beyond the number of slots")
	case s.HeadsSize == 0 && s.HeadsRoot != EmptyRoot():
		return bad("heads root", "is not the empty root at size 0")
	}
	return nil
}

// Encode returns the canonical bytes of the spine leaf.
func (s *SpineLeaf) Encode() ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	n := byte(8)
	if s.Flags != 0 {
		n = 9
	}
	b := append(make([]byte, 0, 128), majorMap|n)
	b = canon.AppendUint(append(b, 1), s.V)
	b = canon.AppendUint(append(b, 2), s.Cell)
	b = canon.AppendUint(append(b, 3), s.Epoch)
	b = canon.AppendUint(append(b, 4), uint64(s.Time))
	b = canon.AppendUint(append(b, 5), s.HeadsSize)
	b = canon.AppendBytes(append(b, 6), s.HeadsRoot[:])
	b = canon.AppendBytes(append(b, 7), s.StateHash[:])
	b = canon.AppendUint(append(b, 8), s.ActiveVersion)
	if s.Flags != 0 {
		b = canon.AppendUint(append(b, 9), uint64(s.Flags))
	}
	return b, nil
}

// DecodeSpineLeaf decodes the canonical bytes of a spine leaf.
func DecodeSpineLeaf(b []byte) (*SpineLeaf, error) {
	s := new(SpineLeaf)
	r := newReader(b)
	n := r.pairs(9)
	if n < 8 {
		r.fail(errUnknownKey)
	}
	if r.key(1) {
		s.V = r.uint(1)
	}
	if r.key(2) {
		s.Cell = r.uint(1<<64 - 1)
	}
	if r.key(3) {
		s.Epoch = r.uint(1<<64 - 1)
	}
	if r.key(4) {
		s.Time = int64(r.uint(maxUnixNano))
	}
	if r.key(5) {
		s.HeadsSize = r.uint(1 << 32)
	}
	if r.key(6) {
		r.fixed(s.HeadsRoot[:])
	}
	if r.key(7) {
		r.fixed(s.StateHash[:])
	}
	if r.key(8) {
		s.ActiveVersion = r.uint(1<<64 - 1)
	}
	if n == 9 && r.key(9) {
		if s.Flags = QualityFlags(r.uint(255)); s.Flags == 0 {
			r.fail(errNotCanonical)
		}
	}
	if err := r.done(); err != nil {
		return nil, fmt.Errorf("decode spine leaf: %w", err)
	}
	if err := s.Check(); err != nil {
		return nil, err
	}
	return s, nil
}

// Encode returns the canonical bytes of the receipt.
func (c *Receipt) Encode() ([]byte, error) {
	switch {
	case c.V != 1:
		return nil, &FieldError{"receipt", "v", "is not 1"}
	case c.Index >= MaxTreeSize:
		return nil, &FieldError{"receipt", "index", "is beyond 2^53-2"}
	case c.Time < 0:
		return nil, &FieldError{"receipt", "time", "is negative"}
	}
	b := append(make([]byte, 0, 160), majorMap|8)
	b = canon.AppendUint(append(b, 1), c.V)
	b = canon.AppendBytes(append(b, 2), c.LedgerID[:])
	b = canon.AppendBytes(append(b, 3), c.Tenant[:])
	b = canon.AppendUint(append(b, 4), uint64(c.Slot))
	b = canon.AppendUint(append(b, 5), c.Index)
	b = canon.AppendBytes(append(b, 6), c.LeafHash[:])
	b = canon.AppendUint(append(b, 7), uint64(c.Time))
	return canon.AppendUint(append(b, 8), uint64(c.Outcome)), nil
}

// DecodeReceipt decodes the canonical bytes of a receipt.
func DecodeReceipt(b []byte) (*Receipt, error) {
	c := new(Receipt)
	r := newReader(b)
	if r.fixedMap(8, 1) {
		if c.V = r.uint(1); c.V != 1 {
			r.fail(errRange)
		}
	}
	if r.key(2) {
		r.fixed(c.LedgerID[:])
	}
	if r.key(3) {
		r.fixed(c.Tenant[:])
	}
	if r.key(4) {
		c.Slot = uint32(r.uint(1<<32 - 1))
	}
	if r.key(5) {
		c.Index = r.uint(MaxTreeSize - 1)
	}
	if r.key(6) {
		r.fixed(c.LeafHash[:])
	}
	if r.key(7) {
		c.Time = int64(r.uint(maxUnixNano))
	}
	if r.key(8) {
		c.Outcome = OutcomeCode(r.uint(255))
	}
	if err := r.done(); err != nil {
		return nil, fmt.Errorf("decode receipt: %w", err)
	}
	return c, nil
}

// receiptRoot is what a node signs once per command, under nhi.CtxReceipt.
type receiptRoot struct {
	V        uint64     `cbor:"1,keyasint"` // 1
	LedgerID nhi.Digest `cbor:"2,keyasint"`
	Node     nhi.ID     `cbor:"3,keyasint"`
	N        uint64     `cbor:"4,keyasint"`
	Root     nhi.Digest `cbor:"5,keyasint"` // RFC 6962 root over the encoded receipts
}

func (c *receiptRoot) encode() []byte {
	b := append(make([]byte, 0, 128), majorMap|5)
	b = canon.AppendUint(append(b, 1), c.V)
	b = canon.AppendBytes(append(b, 2), c.LedgerID[:])
	b = canon.AppendBytes(append(b, 3), c.Node[:])
	b = canon.AppendUint(append(b, 4), c.N)
	return canon.AppendBytes(append(b, 5), c.Root[:])
}
