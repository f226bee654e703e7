package verify

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// MaxReceipts bounds the receipts under one signature.
const MaxReceipts = 4096

// SignReceipts signs the receipts of one command with one signature of the node's key, in order.
func SignReceipts(s nhi.Signer, ledgerID nhi.Digest, node nhi.ID, receipts []Receipt) ([]SignedReceipt, error) {
	if len(receipts) == 0 || len(receipts) > MaxReceipts {
		return nil, fmt.Errorf("sign receipts: %d receipts, want 1 to %d", len(receipts), MaxReceipts)
	}
	bodies := make([][]byte, len(receipts))
	hashes := make([]nhi.Digest, len(receipts))
	for i := range receipts {
		if receipts[i].LedgerID != ledgerID {
			return nil, errors.New("sign receipts: a receipt of another ledger")
		}
		body, err := receipts[i].Encode()
		if err != nil {
			return nil, fmt.Errorf("sign receipts: %w", err)
		}
		bodies[i], hashes[i] = body, LeafHash(body)
	}
	tree := NewSmallTree(hashes)
	root := receiptRoot{V: 1, LedgerID: ledgerID, Node: node, N: uint64(len(receipts)), Root: tree.Root()}
	sig, err := s.Sign(nhi.CtxReceipt, root.encode())
	if err != nil {
		return nil, fmt.Errorf("sign receipts: %w", err)
	}
	key := s.Public().ID()
	out := make([]SignedReceipt, len(receipts))
	for i := range out {
		out[i] = SignedReceipt{V: 1, Body: bodies[i], Node: node, Key: key, N: root.N, K: uint64(i), Path: tree.Path(i), Signature: sig}
	}
	return out, nil
}

// Encode returns the canonical bytes of the signed receipt.
func (s *SignedReceipt) Encode() ([]byte, error) {
	if len(s.Path) > 64 || len(s.Signature) > 8<<10 || len(s.Body) > 4<<10 {
		return nil, errors.New("encode receipt: path, signature or body is out of bounds")
	}
	// By hand: a node encodes one for every event that it acknowledges.
	n := 7
	if len(s.Path) > 0 {
		n = 8
	}
	b := canon.AppendMap(make([]byte, 0, 128+len(s.Body)+len(s.Signature)+34*len(s.Path)), n)
	b = canon.AppendUint(append(b, 1), s.V)
	b = canon.AppendBytes(append(b, 2), s.Body)
	b = canon.AppendBytes(append(b, 3), s.Node[:])
	b = canon.AppendBytes(append(b, 4), s.Key[:])
	b = canon.AppendUint(append(b, 5), s.N)
	b = canon.AppendUint(append(b, 6), s.K)
	if len(s.Path) > 0 {
		b = canon.AppendArray(append(b, 7), len(s.Path))
		for i := range s.Path {
			b = canon.AppendBytes(b, s.Path[i][:])
		}
	}
	return canon.AppendBytes(append(b, 8), s.Signature), nil
}

// JoinReceipt puts a signature into the encoding of a signed receipt whose signature is empty: answers that hold many receipts
// under one signature hold it once. It verifies nothing.
func JoinReceipt(unsigned, signature []byte) ([]byte, error) {
	// Field 8 is the last one of the map.
	body, ok := bytes.CutSuffix(unsigned, []byte{8, 0x40})
	if !ok || len(signature) == 0 || len(signature) > 8<<10 {
		return nil, errors.New("join receipt: it has a signature, or there is none for it")
	}
	b := append(make([]byte, 0, len(unsigned)+len(signature)+3), body...)
	return canon.AppendBytes(append(b, 8), signature), nil
}

// DecodeSignedReceipt decodes the canonical bytes of a signed receipt. It verifies nothing.
func DecodeSignedReceipt(b []byte) (*SignedReceipt, error) {
	s := new(SignedReceipt)
	if err := canon.UnmarshalMax(b, s, 16<<10); err != nil {
		return nil, fmt.Errorf("decode receipt: %w", err)
	}
	return s, nil
}

// Verify checks the node's signature under its key and returns the receipt. Whether the key is the node's is the caller's
// question; a trust file answers it with receipt_key.
func (s *SignedReceipt) Verify(pk *nhi.PublicKey) (*Receipt, error) {
	c, err := DecodeReceipt(s.Body)
	if err != nil {
		return nil, err
	}
	if s.V != 1 || s.N == 0 || s.N > MaxReceipts || s.K >= s.N {
		return nil, errors.New("verify receipt: version, position or number of receipts is out of range")
	}
	if pk.ID() != s.Key {
		return nil, fmt.Errorf("%w: the receipt names another key", ErrSignature)
	}
	root, err := rootFromPath(s.K, s.N, LeafHash(s.Body), s.Path)
	if err != nil {
		return nil, err
	}
	signed := receiptRoot{V: 1, LedgerID: c.LedgerID, Node: s.Node, N: s.N, Root: root}
	if err := pk.Verify(nhi.CtxReceipt, signed.encode(), s.Signature); err != nil {
		return nil, fmt.Errorf("%w: receipt of node %s", ErrSignature, s.Node)
	}
	return c, nil
}

// CheckLeaf reports how the leaf at the receipt's index differs from what the receipt promised. A difference between a
// verified receipt and a proven leaf of the same tenant and index is evidence against the node that signed the receipt.
func (c *Receipt) CheckLeaf(leaf []byte) error {
	l, err := DecodeLeaf(leaf)
	switch {
	case err != nil:
		return err
	case LeafHash(leaf) != c.LeafHash:
		return errors.New("the leaf is not the one that the receipt promised")
	case l.Slot != c.Slot || l.Index != c.Index || l.Time != c.Time || l.Outcome.Code != c.Outcome:
		return errors.New("the receipt contradicts the leaf whose hash it names")
	}
	return nil
}

// VerifyReceiptFile verifies a receipt file against a trust file. The report is never nil; the error is a *Failure.
func VerifyReceiptFile(file []byte, t *Trust, o Options) (*Report, error) {
	r := newRun(KindReceipt, t, o)
	if err := r.receipt(file); err != nil {
		return r.failed(err)
	}
	return r.finish(), nil
}

func (r *run) receipt(file []byte) error {
	c, intact, err := decodeContainer(file)
	if err != nil {
		return r.fail(StepFile, ClassMalformed, ExitMalformed, err)
	}
	r.damaged = !intact
	malformed := func(err error) error {
		class := ClassMalformed
		if r.damaged {
			class = ClassDamaged
		}
		return r.fail(StepFile, class, ExitMalformed, err)
	}
	if c.Type != string(KindReceipt) {
		return malformed(fmt.Errorf("the file is of kind %q", clip(c.Type)))
	}
	p := new(ReceiptFile)
	if err := canon.UnmarshalMax(c.Body, p, MaxProofFile); err != nil {
		return malformed(fmt.Errorf("decode receipt file: %w", err))
	}
	body, err := DecodeReceipt(p.Receipt.Body)
	if err != nil {
		return malformed(err)
	}
	r.ok(StepFile, "a receipt of %d bytes", len(file))
	if err := r.checkLedger(body.LedgerID); err != nil {
		return err
	}
	x := r.opt.Expect
	if x.Tenant != nil && *x.Tenant != body.Tenant || x.Index != nil && *x.Index != body.Index {
		return r.fail(StepAsked, ClassMismatch, ExitInclusion, fmt.Errorf("the receipt is about leaf %d of %s", body.Index, logOf(body.Tenant)))
	}
	r.ok(StepAsked, "leaf %d of %s", body.Index, logOf(body.Tenant))
	if err := r.checkReceiptKey(p); err != nil {
		return err
	}
	if p.Leaf == nil {
		r.skip(StepPayload, "the leaf itself is not in the file")
	} else if err := body.CheckLeaf(p.Leaf); err != nil {
		return r.fail(StepPayload, ClassTampering, ExitSignature, err)
	} else {
		r.ok(StepPayload, "the leaf in the file is the one promised")
	}
	if r.damaged {
		return r.fail(StepIntegrity, ClassDamaged, ExitMalformed, errors.New("the file's checksum does not match its content"))
	}
	r.ok(StepIntegrity, "the file is as it was written")
	r.rep.AsOf = formatTime(body.Time)
	r.rep.Subject = &Subject{
		LedgerID: fmt.Sprintf("%x", body.LedgerID), Tenant: body.Tenant.String(), Slot: body.Slot, Index: body.Index,
		Time: formatTime(body.Time), Outcome: body.Outcome.String(), Payload: "none", LeafHash: fmt.Sprintf("%x", body.LeafHash),
	}
	r.proves("promised: node %s signed that leaf %d of %s has this hash, time %s and outcome %q",
		p.Receipt.Node, body.Index, logOf(body.Tenant), formatTime(body.Time), body.Outcome)
	r.doesNotProve(
		"that the leaf is in the published log: fetch its event proof once it is published; a proof of another leaf at this index is evidence against the node",
		"anything that the other nodes say",
	)
	return nil
}

func (r *run) checkReceiptKey(p *ReceiptFile) error {
	trusted := false
	for _, k := range r.trust.Receipts {
		trusted = trusted || k.Node == p.Receipt.Node && k.Key == p.Receipt.Key
	}
	if !trusted {
		class := ClassTrust
		if r.damaged {
			class = ClassDamaged
		}
		return r.fail(StepReceipt, class, ExitUntrusted, fmt.Errorf("the trust file has no receipt_key line for node %s with this key", p.Receipt.Node))
	}
	pk, err := nhi.ParsePublicKey(nhi.Suite(p.Key.Suite), p.Key.Public)
	if err != nil {
		return r.fail(StepReceipt, ClassTampering, ExitSignature, err)
	}
	if _, err := p.Receipt.Verify(pk); err != nil {
		return r.fail(StepReceipt, ClassTampering, ExitSignature, err)
	}
	r.rep.Keys = append(r.rep.Keys, KeyUse{Role: "node", Name: p.Receipt.Node.String(), ID: p.Receipt.Key.String()})
	r.ok(StepReceipt, "number %d of %d receipts under one signature of node %s", p.Receipt.K, p.Receipt.N, p.Receipt.Node)
	return nil
}
