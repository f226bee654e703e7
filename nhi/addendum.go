package nhi

import "crypto/sha256"

// Addendum is personal or bulky data beside an event. The event commits to it by
// its salted digest, so that it can be erased and the event still verifies; the
// salt, erased with it, keeps the digest from giving the data away.
type Addendum struct {
	Salt [16]byte `cbor:"1,keyasint"`
	Data []byte   `cbor:"2,keyasint"`
}

// AddendumDigest is SHA-256("creto/addendum/v1\0" ‖ salt ‖ data).
func AddendumDigest(a Addendum) Digest {
	var d Digest
	h := sha256.New()
	writeAll(h, []byte("creto/addendum/v1\x00"), a.Salt[:], a.Data)
	h.Sum(d[:0])
	return d
}

// CheckAddenda holds addenda against the digests that an event commits to: as
// many, in the same order, within MaxAddenda and MaxAddendumBytes.
func CheckAddenda(e *Event, addenda []Addendum) error {
	bad := func(field string, err error) error {
		return &InvalidError{Object: "addenda", Field: field, Err: err}
	}
	if len(addenda) > MaxAddenda {
		return bad("", ErrTooMany)
	}
	if len(addenda) != len(e.Addenda) {
		return bad("count", ErrSyntax)
	}
	total := 0
	for i := range addenda {
		if total += len(addenda[i].Data); total > MaxAddendumBytes {
			return bad("", ErrTooLarge)
		}
	}
	for i := range addenda {
		if AddendumDigest(addenda[i]) != e.Addenda[i] {
			return bad("digest", ErrAddendum)
		}
	}
	return nil
}
