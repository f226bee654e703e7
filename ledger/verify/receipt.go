package verify

import "github.com/creto-systems/creto/nhi"

// Receipt is a node's promise at commit: this request has this leaf at this index. Canonical CBOR with the integer keys of
// the tags, all present.
type Receipt struct {
	V        uint64      `cbor:"1,keyasint"` // 1
	LedgerID nhi.Digest  `cbor:"2,keyasint"`
	Tenant   nhi.ID      `cbor:"3,keyasint"`
	Slot     uint32      `cbor:"4,keyasint"`
	Index    uint64      `cbor:"5,keyasint"`
	LeafHash nhi.Digest  `cbor:"6,keyasint"`
	Time     int64       `cbor:"7,keyasint"` // commit time, Unix nanoseconds
	Outcome  OutcomeCode `cbor:"8,keyasint"`
}

// SignedReceipt is a receipt with the answering node's signature. A node signs once per command: over the RFC 6962 root of
// the command's receipts, in order.
type SignedReceipt struct {
	V         uint64       `cbor:"1,keyasint"` // 1
	Body      []byte       `cbor:"2,keyasint"` // the encoded Receipt
	Node      nhi.ID       `cbor:"3,keyasint"`
	Key       nhi.KeyID    `cbor:"4,keyasint"`
	N         uint64       `cbor:"5,keyasint"`           // receipts under the signature
	K         uint64       `cbor:"6,keyasint"`           // this receipt's position, 0 ≤ K < N
	Path      []nhi.Digest `cbor:"7,keyasint,omitempty"` // inclusion path of leaf K in the tree of size N, leaf sibling first
	Signature []byte       `cbor:"8,keyasint"`           // over the encoded receiptRoot, context nhi.CtxReceipt
}
