package nhi

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"

	"github.com/creto-systems/creto/nhi/canon"
)

// Limits of an Envelope.
const (
	MaxBatch          = 1024                                                // payloads under one signature
	MaxBatchBytes     = 128 << 10                                           // payloads of a batch together
	MaxSignatureBytes = SignatureSize                                       // the longest of any suite
	MaxEnvelopeBytes  = MaxBatchBytes + 4*MaxBatch + MaxSignatureBytes + 64 // encoded

	batchVersion       = 1
	batchStatementSize = 130
)

// Envelope is payloads and the one signature over them: over the PAE of a single
// payload, or, if Batch is set, over the statement of a batch. It travels in
// commands and is stored; which agent may use KeyID is not its business.
// Payloads that DecodeEnvelope returns alias its input.
type Envelope struct {
	Payloads  [][]byte `cbor:"1,keyasint"`
	KeyID     KeyID    `cbor:"2,keyasint"`
	Signature []byte   `cbor:"3,keyasint"`
	Batch     bool     `cbor:"4,keyasint"`
}

func badEnvelope(field string, err error) error {
	return &InvalidError{Object: "envelope", Field: field, Err: err}
}

// SignEvent signs one encoded event, which it checks first: nobody's signature
// goes under bytes that the ledger must refuse. The envelope aliases payload.
func SignEvent(s Signer, payload []byte) (*Envelope, error) {
	if _, err := DecodeEvent(payload); err != nil {
		return nil, fmt.Errorf("sign event: %w", err)
	}
	sig, err := s.Sign(CtxEvent, PAE(PayloadType, payload))
	if err != nil {
		return nil, fmt.Errorf("sign event: %w", err)
	}
	return &Envelope{Payloads: [][]byte{payload}, KeyID: s.Public().ID(), Signature: sig}, nil
}

// SignBatch signs 1 to MaxBatch encoded events, all of the given ledger and
// tenant, with one signature. The envelope aliases payloads.
func SignBatch(s Signer, ledgerID Digest, tenant ID, payloads [][]byte) (*Envelope, error) {
	e := &Envelope{Payloads: payloads, KeyID: s.Public().ID(), Batch: true}
	if err := e.checkPayloads(); err != nil {
		return nil, fmt.Errorf("sign batch: %w", err)
	}
	events, digests, err := e.decode()
	if err != nil {
		return nil, fmt.Errorf("sign batch: %w", err)
	}
	if events[0].LedgerID != ledgerID || events[0].Tenant != tenant {
		return nil, fmt.Errorf("sign batch: %w", ErrForeign)
	}
	e.Signature, err = s.Sign(CtxBatch, e.statement(events[0], digests).encode())
	if err != nil {
		return nil, fmt.Errorf("sign batch: %w", err)
	}
	return e, nil
}

// Check holds e against the limits on counts and sizes. It looks at no payload
// and does no arithmetic, so it is what a node does first.
func (e *Envelope) Check() error {
	if err := e.checkPayloads(); err != nil {
		return err
	}
	if len(e.Signature) == 0 || len(e.Signature) > MaxSignatureBytes {
		return badEnvelope("signature", ErrBadSignature)
	}
	return nil
}

func (e *Envelope) checkPayloads() error {
	if len(e.Payloads) == 0 {
		return badEnvelope("payloads", ErrEmpty)
	}
	if len(e.Payloads) > MaxBatch || !e.Batch && len(e.Payloads) > 1 {
		return badEnvelope("payloads", ErrTooMany)
	}
	total := 0
	for _, p := range e.Payloads {
		if len(p) == 0 {
			return badEnvelope("payloads", ErrEmpty)
		}
		if len(p) > MaxPayloadBytes {
			return badEnvelope("payloads", ErrTooLarge)
		}
		total += len(p)
	}
	if total > MaxBatchBytes {
		return badEnvelope("payloads", ErrTooLarge)
	}
	return nil
}

// Verify checks the signature and everything under it and returns the digest of
// each payload, in order. See VerifyEvents.
func (e *Envelope) Verify(pk *PublicKey) ([]Digest, error) {
	_, digests, err := e.VerifyEvents(pk)
	return digests, err
}

// VerifyEvents checks limits, decodes every payload strictly, and verifies the
// one signature; in a batch all events must name the same ledger and tenant. It
// returns the events and the digest of each payload, in order. An envelope is
// good or bad as a whole. Errors: *InvalidError, ErrKeyMismatch, ErrBadSignature.
func (e *Envelope) VerifyEvents(pk *PublicKey) ([]*Event, []Digest, error) {
	if err := e.Check(); err != nil {
		return nil, nil, err
	}
	if e.KeyID != pk.id {
		return nil, nil, ErrKeyMismatch
	}
	events, digests, err := e.decode()
	if err != nil {
		return nil, nil, err
	}
	if e.Batch {
		msg := e.statement(events[0], digests).encode()
		err = pk.verify(string(CtxBatch), sha512.Sum512(msg), e.Signature)
	} else {
		err = pk.verify(string(CtxEvent), paeSHA512(e.Payloads[0]), e.Signature)
	}
	if err != nil {
		return nil, nil, err
	}
	return events, digests, nil
}

// decode decodes all payloads, in one allocation for the events, and refuses
// events that differ in ledger or tenant.
func (e *Envelope) decode() ([]*Event, []Digest, error) {
	slab := make([]Event, len(e.Payloads))
	events := make([]*Event, len(e.Payloads))
	digests := make([]Digest, len(e.Payloads))
	for i, p := range e.Payloads {
		ev := &slab[i]
		if err := decodeEvent(ev, p); err != nil {
			return nil, nil, fmt.Errorf("payload %d: %w", i, err)
		}
		if ev.LedgerID != slab[0].LedgerID || ev.Tenant != slab[0].Tenant {
			return nil, nil, fmt.Errorf("payload %d: %w", i, badEvent("", ErrForeign))
		}
		events[i], digests[i] = ev, PayloadDigest(p)
	}
	return events, digests, nil
}

// SignatureDigest is SHA-256 of the signature bytes, as a leaf holds it.
func (e *Envelope) SignatureDigest() Digest { return sha256.Sum256(e.Signature) }

// Encode returns the canonical encoding of e.
func (e *Envelope) Encode() ([]byte, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	size := 64 + len(e.Signature)
	for _, p := range e.Payloads {
		size += len(p) + 5
	}
	b := canon.AppendMap(make([]byte, 0, size), 4)
	b = canon.AppendArray(append(b, 1), len(e.Payloads))
	for _, p := range e.Payloads {
		b = canon.AppendBytes(b, p)
	}
	b = canon.AppendBytes(append(b, 2), e.KeyID[:])
	b = canon.AppendBytes(append(b, 3), e.Signature)
	return canon.AppendBool(append(b, 4), e.Batch), nil
}

// DecodeEnvelope decodes an envelope of at most MaxEnvelopeBytes and checks it
// as Check does. Payloads and signature alias b.
func DecodeEnvelope(b []byte) (*Envelope, error) {
	if len(b) > MaxEnvelopeBytes {
		return nil, badEnvelope("", ErrTooLarge)
	}
	e := new(Envelope)
	if err := e.read(b); err != nil {
		if cerr := canon.Check(b); cerr != nil {
			err = cerr
		}
		return nil, badEnvelope("", err)
	}
	if err := e.Check(); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *Envelope) read(b []byte) error {
	r := canon.NewReader(b)
	n, err := r.Map()
	if err != nil {
		return err
	}
	if n != 4 {
		return fieldCount(n, 4, r.Offset())
	}
	if err := key(&r, 1); err != nil {
		return err
	}
	if n, err = r.Array(); err != nil {
		return err
	}
	if n > MaxBatch {
		return ErrTooMany
	}
	e.Payloads = make([][]byte, n)
	for i := range e.Payloads {
		if e.Payloads[i], err = r.Bytes(); err != nil {
			return err
		}
	}
	if err := fixed(&r, 2, e.KeyID[:]); err != nil {
		return err
	}
	if err := key(&r, 3); err != nil {
		return err
	}
	if e.Signature, err = r.Bytes(); err != nil {
		return err
	}
	if err := key(&r, 4); err != nil {
		return err
	}
	if e.Batch, err = r.Bool(); err != nil {
		return err
	}
	return r.End()
}

// batchStatement is what a batch signature signs.
type batchStatement struct {
	V        uint64 `cbor:"1,keyasint"`
	LedgerID Digest `cbor:"2,keyasint"`
	Tenant   ID     `cbor:"3,keyasint"`
	KeyID    KeyID  `cbor:"4,keyasint"`
	N        uint64 `cbor:"5,keyasint"`
	Root     Digest `cbor:"6,keyasint"`
}

func (e *Envelope) statement(ev *Event, digests []Digest) *batchStatement {
	return &batchStatement{
		V: batchVersion, LedgerID: ev.LedgerID, Tenant: ev.Tenant, KeyID: e.KeyID,
		N: uint64(len(digests)), Root: merkleRoot(digests),
	}
}

func (s *batchStatement) encode() []byte {
	b := canon.AppendMap(make([]byte, 0, batchStatementSize), 6)
	b = canon.AppendUint(append(b, 1), s.V)
	b = canon.AppendBytes(append(b, 2), s.LedgerID[:])
	b = canon.AppendBytes(append(b, 3), s.Tenant[:])
	b = canon.AppendBytes(append(b, 4), s.KeyID[:])
	b = canon.AppendUint(append(b, 5), s.N)
	return canon.AppendBytes(append(b, 6), s.Root[:])
}

// BatchProof shows that one event was in a signed batch, without the others. The
// first six fields are the signed statement. It is a canonical CBOR map.
type BatchProof struct {
	V        uint64   `cbor:"1,keyasint"`
	LedgerID Digest   `cbor:"2,keyasint"`
	Tenant   ID       `cbor:"3,keyasint"`
	KeyID    KeyID    `cbor:"4,keyasint"`
	N        uint64   `cbor:"5,keyasint"` // payloads in the batch
	Root     Digest   `cbor:"6,keyasint"` // RFC 6962 root over their digests
	K        uint64   `cbor:"7,keyasint"` // position of this one
	Path     []Digest `cbor:"8,keyasint"` // from the leaf upwards
}

func badProof(field string, err error) error {
	return &InvalidError{Object: "batch proof", Field: field, Err: err}
}

// Proof returns the proof of payload k of a batch.
func (e *Envelope) Proof(k int) (*BatchProof, error) {
	if !e.Batch {
		return nil, badProof("", ErrSyntax)
	}
	if err := e.checkPayloads(); err != nil {
		return nil, err
	}
	if k < 0 || k >= len(e.Payloads) {
		return nil, badProof("position", ErrTooMany)
	}
	events, digests, err := e.decode()
	if err != nil {
		return nil, err
	}
	s := e.statement(events[0], digests)
	return &BatchProof{
		V: s.V, LedgerID: s.LedgerID, Tenant: s.Tenant, KeyID: s.KeyID, N: s.N, Root: s.Root,
		K: uint64(k), Path: merklePath([]Digest{}, k, digests),
	}, nil
}

// VerifyBatchPath checks that payload digest d is number K of N under the root
// of the proof, and that the path is as long as K and N make it. It does not
// check the signature over the root; VerifySignature does.
func VerifyBatchPath(p *BatchProof, d Digest) error {
	if p.V != batchVersion {
		return badProof("version", ErrVersion)
	}
	if p.N == 0 || p.N > MaxBatch {
		return badProof("size", ErrTooMany)
	}
	if p.K >= p.N {
		return badProof("position", ErrTooMany)
	}
	if len(p.Path) != pathLength(p.K, p.N) {
		return badProof("path", ErrSyntax)
	}
	root := rootFromPath(d, p.K, p.N, p.Path)
	if !bytes.Equal(root[:], p.Root[:]) {
		return badProof("path", ErrBadPath)
	}
	return nil
}

// VerifySignature checks the batch signature over the statement of the proof.
func (p *BatchProof) VerifySignature(pk *PublicKey, sig []byte) error {
	if p.V != batchVersion {
		return badProof("version", ErrVersion)
	}
	if p.KeyID != pk.id {
		return ErrKeyMismatch
	}
	s := batchStatement{p.V, p.LedgerID, p.Tenant, p.KeyID, p.N, p.Root}
	return pk.verify(string(CtxBatch), sha512.Sum512(s.encode()), sig)
}

// Verify checks everything about one event of a batch that needs no network:
// the payload, its path, that it names the batch's ledger and tenant, and the
// signature.
func (p *BatchProof) Verify(pk *PublicKey, payload, sig []byte) (*Event, error) {
	ev, err := DecodeEvent(payload)
	if err != nil {
		return nil, err
	}
	if ev.LedgerID != p.LedgerID || ev.Tenant != p.Tenant {
		return nil, badEvent("", ErrForeign)
	}
	if err := VerifyBatchPath(p, PayloadDigest(payload)); err != nil {
		return nil, err
	}
	if err := p.VerifySignature(pk, sig); err != nil {
		return nil, err
	}
	return ev, nil
}
