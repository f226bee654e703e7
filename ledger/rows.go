package ledger

import (
	"encoding/binary"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

const rowVersion = 1

// tenantRow is the stored Tenant.
type tenantRow struct {
	V            uint64    `cbor:"1,keyasint"`
	ID           nhi.ID    `cbor:"2,keyasint"`
	AuthorityID  nhi.ID    `cbor:"3,keyasint"`
	AuthorityKey nhi.KeyID `cbor:"4,keyasint"`
	Zone         string    `cbor:"5,keyasint"`
	Strict       bool      `cbor:"6,keyasint"`
	Created      uint64    `cbor:"7,keyasint"`
	Suite        nhi.Suite `cbor:"8,keyasint"`
	Public       []byte    `cbor:"9,keyasint"` // the authority's first key, which registers itself with it
}

func slotKey(slot uint32) []byte { return binary.BigEndian.AppendUint32(nil, slot) }

func encodeTenant(t *tenantRow) []byte { return canon.MustMarshal(t) }

func decodeTenant(slot uint32, b []byte) (*tenantRow, Tenant, error) {
	r := new(tenantRow)
	if err := canon.Unmarshal(b, r); err != nil {
		return nil, Tenant{}, corrupt("tenant in slot %d: %v", slot, err)
	}
	return r, Tenant{
		Slot: slot, ID: r.ID, AuthorityID: r.AuthorityID, AuthorityKey: r.AuthorityKey, Zone: r.Zone, Strict: r.Strict,
		Created: r.Created,
	}, nil
}

func encodeEpochs(e verify.Epochs) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 24), e.Policy)
	b = binary.BigEndian.AppendUint64(b, e.Entities)
	return binary.BigEndian.AppendUint64(b, e.Revocation)
}

func decodeEpochs(b []byte) (verify.Epochs, error) {
	if len(b) != 24 {
		return verify.Epochs{}, corrupt("epochs of %d bytes", len(b))
	}
	return verify.Epochs{
		Policy:     binary.BigEndian.Uint64(b),
		Entities:   binary.BigEndian.Uint64(b[8:]),
		Revocation: binary.BigEndian.Uint64(b[16:]),
	}, nil
}

// request is the idempotency row: what the first event under (signer, id) led to.
type request struct {
	intent    nhi.Digest // payload digest
	index     uint64
	leaf      nhi.Digest
	time      int64
	quality   verify.Quality // without certificate
	outcome   verify.OutcomeCode
	conflicts uint32 // other intents under the same id; the first has a leaf
	detail    []byte
}

const requestSize = 1 + 32 + 8 + 32 + 8 + 3 + 4

func (r *request) encode() []byte {
	b := make([]byte, 0, requestSize+len(r.detail))
	b = append(b, rowVersion)
	b = append(b, r.intent[:]...)
	b = binary.BigEndian.AppendUint64(b, r.index)
	b = append(b, r.leaf[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.time))
	b = append(b, byte(r.quality.Code), byte(r.quality.Flags), byte(r.outcome))
	b = binary.BigEndian.AppendUint32(b, r.conflicts)
	return append(b, r.detail...)
}

func (r *request) decode(b []byte) error {
	if len(b) < requestSize || b[0] != rowVersion {
		return corrupt("request of %d bytes", len(b))
	}
	r.intent = nhi.Digest(b[1:33])
	r.index = binary.BigEndian.Uint64(b[33:])
	r.leaf = nhi.Digest(b[41:73])
	r.time = int64(binary.BigEndian.Uint64(b[73:]))
	r.quality = verify.Quality{Code: verify.QualityCode(b[81]), Flags: verify.QualityFlags(b[82])}
	r.outcome = verify.OutcomeCode(b[83])
	r.conflicts = binary.BigEndian.Uint32(b[84:])
	if len(b) > requestSize {
		r.detail = b[requestSize:]
	}
	return nil
}

// payloadRow is what is stored beside a leaf: version ‖ position in the envelope ‖ len(detail) ‖ detail ‖ payload.
func appendPayload(b []byte, position int, detail, payload []byte) []byte {
	b = append(b, rowVersion)
	b = binary.AppendUvarint(b, uint64(position))
	b = binary.AppendUvarint(b, uint64(len(detail)))
	b = append(b, detail...)
	return append(b, payload...)
}

func decodePayload(b []byte) (position int, detail, payload []byte, err error) {
	if len(b) < 3 || b[0] != rowVersion {
		return 0, nil, nil, corrupt("payload row of %d bytes", len(b))
	}
	b = b[1:]
	k, n := binary.Uvarint(b)
	if n <= 0 || k >= nhi.MaxBatch {
		return 0, nil, nil, corrupt("payload row's position")
	}
	b = b[n:]
	d, n := binary.Uvarint(b)
	if n <= 0 || d > uint64(len(b)-n) {
		return 0, nil, nil, corrupt("payload row's detail")
	}
	b = b[n:]
	return int(k), b[:d:d], b[d:], nil
}

// appendSignature is the signature record: version ‖ key id ‖ batch ‖ len(signature) ‖ signature ‖ payload digests.
func appendSignature(b []byte, e *nhi.Envelope, digests []nhi.Digest) []byte {
	b = append(b, rowVersion)
	b = append(b, e.KeyID[:]...)
	batch := byte(0)
	if e.Batch {
		batch = 1
	}
	b = append(b, batch)
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.Signature)))
	b = append(b, e.Signature...)
	for i := range digests {
		b = append(b, digests[i][:]...)
	}
	return b
}

// SignatureRecord is one signature as it is kept: once for all events it covers.
type SignatureRecord struct {
	Key       nhi.KeyID
	Batch     bool
	Signature []byte
	Digests   []nhi.Digest // payload digests under the signature, in order
}

func decodeSignature(b []byte) (*SignatureRecord, error) {
	const fixed = 1 + 32 + 1 + 4
	if len(b) < fixed || b[0] != rowVersion || b[33] > 1 {
		return nil, corrupt("signature record of %d bytes", len(b))
	}
	n := binary.BigEndian.Uint32(b[34:])
	rest := b[fixed:]
	if uint64(n) > uint64(len(rest)) || (len(rest)-int(n))%32 != 0 {
		return nil, corrupt("signature record of %d bytes", len(b))
	}
	r := &SignatureRecord{Key: nhi.KeyID(b[1:33]), Batch: b[33] == 1, Signature: rest[:n:n]}
	for rest = rest[n:]; len(rest) > 0; rest = rest[32:] {
		r.Digests = append(r.Digests, nhi.Digest(rest[:32]))
	}
	if len(r.Digests) == 0 || len(r.Digests) > nhi.MaxBatch {
		return nil, corrupt("signature record over %d payloads", len(r.Digests))
	}
	return r, nil
}
