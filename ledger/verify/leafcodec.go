package verify

import (
	"bytes"
	"fmt"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// Encode returns the canonical bytes of the leaf, or a *FieldError.
func (l *Leaf) Encode() ([]byte, error) { return l.AppendTo(make([]byte, 0, 512)) }

// AppendTo appends the canonical bytes of the leaf to dst and returns the longer slice. It is deterministic and, where dst
// has room, does not allocate. On error dst is returned unchanged.
func (l *Leaf) AppendTo(dst []byte) ([]byte, error) {
	if err := l.Check(); err != nil {
		return dst, err
	}
	out := canon.AppendMap(dst, l.fieldCount())
	out = canon.AppendUint(append(out, 1), l.V)
	out = canon.AppendUint(append(out, 2), l.Cell)
	out = canon.AppendUint(append(out, 3), uint64(l.Slot))
	out = canon.AppendUint(append(out, 4), l.Index)
	out = canon.AppendUint(append(out, 5), uint64(l.Time))
	out = l.Quality.appendTo(append(out, 6))
	out = canon.AppendText(append(out, 7), l.Kind)
	if l.Agent != (nhi.ID{}) {
		out = canon.AppendBytes(append(out, 8), l.Agent[:])
	}
	if l.Link != (nhi.LinkID{}) {
		out = canon.AppendBytes(append(out, 9), l.Link[:])
	}
	if l.Seq != (nhi.Seq{}) {
		out = append(out, 10, majorMap|2, 1)
		out = canon.AppendBytes(out, l.Seq.Instance[:])
		out = canon.AppendUint(append(out, 2), l.Seq.N)
	}
	if l.ID != ([16]byte{}) {
		out = canon.AppendBytes(append(out, 11), l.ID[:])
	}
	if l.Payload != (nhi.Digest{}) {
		out = canon.AppendBytes(append(out, 12), l.Payload[:])
	}
	if l.Signature != (nhi.Digest{}) {
		out = canon.AppendBytes(append(out, 13), l.Signature[:])
	}
	out = append(out, 14)
	if l.Outcome.Detail != (nhi.Digest{}) {
		out = canon.AppendUint(append(out, majorMap|2, 1), uint64(l.Outcome.Code))
		out = canon.AppendBytes(append(out, 2), l.Outcome.Detail[:])
	} else {
		out = canon.AppendUint(append(out, majorMap|1, 1), uint64(l.Outcome.Code))
	}
	if len(l.Quantities) > 0 {
		out = canon.AppendArray(append(out, 15), len(l.Quantities))
		for i := range l.Quantities {
			out = canon.AppendText(append(out, arrayOfTwo), l.Quantities[i].Meter)
			out = canon.AppendUint(out, l.Quantities[i].N)
		}
	}
	if l.Epochs != (Epochs{}) {
		out = canon.AppendUint(append(out, 16, majorMap|3, 1), l.Epochs.Policy)
		out = canon.AppendUint(append(out, 2), l.Epochs.Entities)
		out = canon.AppendUint(append(out, 3), l.Epochs.Revocation)
	}
	if len(l.Addenda) > 0 {
		out = canon.AppendArray(append(out, 17), len(l.Addenda))
		for i := range l.Addenda {
			out = canon.AppendBytes(out, l.Addenda[i][:])
		}
	}
	if c := l.Cause; c != nil {
		out = append(out, 18, majorMap|2, 1)
		if len(c.Ref) > 0 {
			out[len(out)-2] = majorMap | 3
		}
		out = canon.AppendUint(out, uint64(c.Kind))
		out = canon.AppendUint(append(out, 2), c.Index)
		if len(c.Ref) > 0 {
			out = canon.AppendBytes(append(out, 3), c.Ref)
		}
	}
	if l.Account != (nhi.ID{}) {
		out = canon.AppendBytes(append(out, 19), l.Account[:])
	}
	if l.Reverses != nil {
		out = canon.AppendUint(append(out, 20), *l.Reverses)
	}
	if l.Lease != nil {
		out = canon.AppendUint(append(out, 21, majorMap|3, 1), l.Lease.ID)
		out = canon.AppendUint(append(out, 2), l.Lease.From)
		out = canon.AppendUint(append(out, 3), l.Lease.To)
	}
	if l.Decision != (nhi.Digest{}) {
		out = canon.AppendBytes(append(out, 22), l.Decision[:])
	}
	if l.Assurance != 0 {
		out = canon.AppendUint(append(out, 23), uint64(l.Assurance))
	}
	if n := len(out) - len(dst); n > MaxLeafSize {
		return dst, &FieldError{"leaf", "", fmt.Sprintf("takes %d bytes, more than %d", n, MaxLeafSize)}
	}
	return out, nil
}

// fieldCount returns how many keys the encoding has.
func (l *Leaf) fieldCount() int {
	n := 8 // v, cell, slot, index, time, quality, kind, outcome
	for _, present := range [...]bool{
		l.Agent != nhi.ID{}, l.Link != nhi.LinkID{}, l.Seq != nhi.Seq{}, l.ID != [16]byte{}, l.Payload != nhi.Digest{},
		l.Signature != nhi.Digest{}, len(l.Quantities) > 0, l.Epochs != Epochs{}, len(l.Addenda) > 0, l.Cause != nil,
		l.Account != nhi.ID{}, l.Reverses != nil, l.Lease != nil, l.Decision != nhi.Digest{}, l.Assurance != 0,
	} {
		if present {
			n++
		}
	}
	return n
}

func (q *Quality) appendTo(dst []byte) []byte {
	n := byte(1)
	if q.Flags != 0 {
		n++
	}
	if len(q.Cert) > 0 {
		n++
	}
	dst = canon.AppendUint(append(dst, majorMap|n, 1), uint64(q.Code))
	if q.Flags != 0 {
		dst = canon.AppendUint(append(dst, 2), uint64(q.Flags))
	}
	if len(q.Cert) > 0 {
		dst = canon.AppendBytes(append(dst, 3), q.Cert)
	}
	return dst
}

// Check reports the first field that is out of bounds, as a *FieldError. A leaf that passes can be encoded, unless its
// encoding exceeds MaxLeafSize.
func (l *Leaf) Check() error {
	bad := func(field, reason string) error { return &FieldError{"leaf", field, reason} }
	switch {
	case l.V != LeafVersion:
		return bad("v", "is not 1")
	case l.Index >= MaxTreeSize:
		return bad("index", "is beyond 2^53-2")
	case l.Time < 0:
		return bad("time", "is negative")
	case len(l.Quality.Cert) > MaxCertSize:
		return bad("quality.cert", "is too long")
	case !validKind(l.Kind):
		return bad("kind", "does not match [a-z][a-z0-9_.]{0,63}")
	case len(l.Quantities) > MaxQuantities:
		return bad("quantities", "has too many meters")
	case len(l.Addenda) > MaxAddenda:
		return bad("addenda", "has too many digests")
	case l.Cause != nil && len(l.Cause.Ref) > MaxCauseRef:
		return bad("cause.ref", "is too long")
	case l.Reverses != nil && *l.Reverses >= l.Index:
		return bad("reverses", "does not name an earlier leaf")
	case l.Lease != nil && l.Lease.From > l.Lease.To:
		return bad("lease", "ends before it begins")
	}
	for i := range l.Quantities {
		m := l.Quantities[i].Meter
		if !validMeter(m) {
			return bad("quantities", "has a meter that is not 1 to 64 printable ASCII characters")
		}
		if i > 0 && l.Quantities[i-1].Meter >= m {
			return bad("quantities", "is not in strictly ascending order of meters")
		}
	}
	return nil
}

// validKind holds a kind to [a-z][a-z0-9_.]{0,63}.
func validKind(s string) bool {
	if len(s) == 0 || len(s) > MaxKindSize || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

func validMeter(s string) bool {
	if len(s) == 0 || len(s) > MaxMeterSize {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// DecodeLeaf decodes the canonical bytes of a leaf. Anything else, including a valid leaf in another encoding, is an
// error. The result does not alias b.
func DecodeLeaf(b []byte) (*Leaf, error) {
	l := new(Leaf)
	if err := l.Decode(b); err != nil {
		return nil, err
	}
	return l, nil
}

// Decode decodes b into l, replacing all of it; see DecodeLeaf. Slices that l already owns are used again.
func (l *Leaf) Decode(b []byte) error {
	if len(b) > MaxLeafSize {
		return &FieldError{"leaf", "", "is longer than 4096 bytes"}
	}
	quantities, addenda := l.Quantities[:0], l.Addenda[:0]
	*l = Leaf{Quantities: quantities, Addenda: addenda}
	r := newReader(b)
	var seen uint32
	for f := r.fields(23); ; {
		k, ok := f.key()
		if !ok {
			break
		}
		seen |= 1 << k
		switch k {
		case 1:
			l.V = r.uint(LeafVersion)
		case 2:
			l.Cell = r.uint(1<<64 - 1)
		case 3:
			l.Slot = uint32(r.uint(1<<32 - 1))
		case 4:
			l.Index = r.uint(MaxTreeSize - 1)
		case 5:
			l.Time = int64(r.uint(maxUnixNano))
		case 6:
			l.Quality.decode(r)
		case 7:
			l.Kind = r.text(MaxKindSize)
		case 8:
			r.nonzero(l.Agent[:])
		case 9:
			r.nonzero(l.Link[:])
		case 10:
			l.decodeSeq(r)
		case 11:
			r.nonzero(l.ID[:])
		case 12:
			r.nonzero(l.Payload[:])
		case 13:
			r.nonzero(l.Signature[:])
		case 14:
			l.Outcome.decode(r)
		case 15:
			l.decodeQuantities(r)
		case 16:
			l.decodeEpochs(r)
		case 17:
			n := r.array(MaxAddenda)
			if n == 0 {
				r.fail(errNotCanonical)
			}
			for range n {
				var d nhi.Digest
				r.fixed(d[:])
				l.Addenda = append(l.Addenda, d)
			}
		case 18:
			l.Cause = decodeCause(r)
		case 19:
			r.nonzero(l.Account[:])
		case 20:
			n := r.uint(MaxTreeSize - 1)
			l.Reverses = &n
		case 21:
			l.Lease = decodeLease(r)
		case 22:
			r.nonzero(l.Decision[:])
		case 23:
			if l.Assurance = Assurance(r.uint(255)); l.Assurance == 0 {
				r.fail(errNotCanonical)
			}
		default:
			r.fail(errUnknownKey)
		}
	}
	if err := r.done(); err != nil {
		return fmt.Errorf("decode leaf: %w", err)
	}
	const always = 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<14
	if seen&always != always {
		return &FieldError{"leaf", "", "lacks a field that every leaf has"}
	}
	return l.Check()
}

func (q *Quality) decode(r *reader) {
	seen := false
	for f := r.fields(3); ; {
		k, ok := f.key()
		if !ok {
			break
		}
		switch k {
		case 1:
			q.Code, seen = QualityCode(r.uint(255)), true
		case 2:
			if q.Flags = QualityFlags(r.uint(255)); q.Flags == 0 {
				r.fail(errNotCanonical)
			}
		case 3:
			if q.Cert = bytes.Clone(r.bytes(MaxCertSize)); len(q.Cert) == 0 {
				r.fail(errNotCanonical)
			}
		default:
			r.fail(errUnknownKey)
		}
	}
	if !seen {
		r.fail(errNotCanonical)
	}
}

func (l *Leaf) decodeSeq(r *reader) {
	if r.fixedMap(2, 1) {
		r.fixed(l.Seq.Instance[:])
		if r.key(2) {
			l.Seq.N = r.uint(1<<64 - 1)
		}
	}
	if l.Seq == (nhi.Seq{}) {
		r.fail(errNotCanonical)
	}
}

func (o *Outcome) decode(r *reader) {
	n := r.pairs(2)
	if n == 0 {
		r.fail(errNotCanonical)
	}
	if r.key(1) {
		o.Code = OutcomeCode(r.uint(255))
	}
	if n == 2 && r.key(2) {
		r.nonzero(o.Detail[:])
	}
}

func (l *Leaf) decodeQuantities(r *reader) {
	n := r.array(MaxQuantities)
	if n == 0 {
		r.fail(errNotCanonical)
	}
	for range n {
		if r.array(2) != 2 {
			r.fail(errNotCanonical)
			return
		}
		m := r.text(MaxMeterSize)
		l.Quantities = append(l.Quantities, Quantity{Meter: m, N: r.uint(1<<64 - 1)})
	}
}

func (l *Leaf) decodeEpochs(r *reader) {
	if r.fixedMap(3, 1) {
		l.Epochs.Policy = r.uint(1<<64 - 1)
	}
	if r.key(2) {
		l.Epochs.Entities = r.uint(1<<64 - 1)
	}
	if r.key(3) {
		l.Epochs.Revocation = r.uint(1<<64 - 1)
	}
	if l.Epochs == (Epochs{}) {
		r.fail(errNotCanonical)
	}
}

func decodeCause(r *reader) *Cause {
	c := new(Cause)
	n := r.pairs(3)
	if n < 2 {
		r.fail(errNotCanonical)
	}
	if r.key(1) {
		c.Kind = CauseKind(r.uint(255))
	}
	if r.key(2) {
		c.Index = r.uint(1<<64 - 1)
	}
	if n == 3 && r.key(3) {
		if c.Ref = bytes.Clone(r.bytes(MaxCauseRef)); len(c.Ref) == 0 {
			r.fail(errNotCanonical)
		}
	}
	return c
}

func decodeLease(r *reader) *LeaseRef {
	l := new(LeaseRef)
	if r.fixedMap(3, 1) {
		l.ID = r.uint(1<<64 - 1)
	}
	if r.key(2) {
		l.From = r.uint(1<<64 - 1)
	}
	if r.key(3) {
		l.To = r.uint(1<<64 - 1)
	}
	return l
}
