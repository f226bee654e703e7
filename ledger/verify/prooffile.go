package verify

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// MaxProofFile bounds a proof file of any kind but completeness, in bytes.
const MaxProofFile = 1 << 20

// MaxChain bounds the delegation links of an event proof.
const MaxChain = 8

// container is the outer form of a .creto-proof file: canonical CBOR. The checksum tells a file that was damaged from one
// that was intact and lies.
type container struct {
	V    uint64     `cbor:"1,keyasint"` // 1
	Type string     `cbor:"2,keyasint"` // a FileKind
	Body []byte     `cbor:"3,keyasint"` // canonical CBOR of the kind's own map
	Sum  nhi.Digest `cbor:"4,keyasint"`
}

// containerHead is how every container begins: a map of four, key 1, value 1, key 2.
const containerHead = "\xa4\x01\x01\x02"

func containerSum(typ string, body []byte) nhi.Digest {
	h := sha256.New()
	h.Write([]byte("creto/file/v1\x00" + typ + "\x00"))
	h.Write(body)
	var d nhi.Digest
	h.Sum(d[:0])
	return d
}

func encodeContainer(kind FileKind, body any) ([]byte, error) {
	b, err := canon.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode %s proof: %w", kind, err)
	}
	return wrapBody(kind, b)
}

func wrapBody(kind FileKind, b []byte) ([]byte, error) {
	out, err := canon.Marshal(&container{V: 1, Type: string(kind), Body: b, Sum: containerSum(string(kind), b)})
	if err != nil {
		return nil, fmt.Errorf("encode %s proof: %w", kind, err)
	}
	if len(out) > MaxProofFile {
		return nil, fmt.Errorf("encode %s proof: %d bytes are more than %d", kind, len(out), MaxProofFile)
	}
	return out, nil
}

// decodeContainer decodes the outer form and says whether its checksum matches.
func decodeContainer(b []byte) (c *container, intact bool, err error) {
	c = new(container)
	if err := canon.UnmarshalMax(b, c, MaxProofFile); err != nil {
		return nil, false, fmt.Errorf("decode proof file: %w", err)
	}
	if c.V != 1 {
		return nil, false, fmt.Errorf("decode proof file: version %d is unknown", c.V)
	}
	return c, c.Sum == containerSum(c.Type, c.Body), nil
}

// EventProof is the content of an event proof file: everything that leads from an event to a checkpoint of the spine.
type EventProof struct {
	LedgerID   nhi.Digest    `cbor:"1,keyasint"`
	Tenant     nhi.ID        `cbor:"2,keyasint"`           // zero: the system log
	Index      uint64        `cbor:"3,keyasint"`           // of the leaf in the tenant's log
	Payload    []byte        `cbor:"4,keyasint,omitempty"` // the signed event; absent when erased or never there
	Evidence   *Evidence     `cbor:"5,keyasint,omitempty"` // absent for leaves without a signature
	Key        *KeyRecord    `cbor:"6,keyasint,omitempty"` // the key of Evidence
	Links      [][]byte      `cbor:"7,keyasint,omitempty"` // bodies of the chain's links, the leaf's own link first
	Leaf       []byte        `cbor:"8,keyasint"`
	Path       []nhi.Digest  `cbor:"9,keyasint,omitempty"`  // leaf → Head.Root at Head.Size
	Head       []byte        `cbor:"10,keyasint"`           // an encoded HeadLeaf
	HeadPath   []nhi.Digest  `cbor:"11,keyasint,omitempty"` // head leaf → SpineLeaf.HeadsRoot at (slot, HeadsSize)
	Spine      []byte        `cbor:"12,keyasint"`           // an encoded SpineLeaf
	SpineProof []byte        `cbor:"13,keyasint"`           // tlog-proof@v1 of the spine leaf, without extra data
	Register   *Registration `cbor:"14,keyasint,omitempty"`
}

// Evidence is the signature over an event: alone, or over the batch that it was in.
type Evidence struct {
	KeyID     nhi.KeyID       `cbor:"1,keyasint"`
	Signature []byte          `cbor:"2,keyasint"`
	Batch     *nhi.BatchProof `cbor:"3,keyasint,omitempty"` // present if the signature covers a batch
}

// KeyRecord is a public key.
type KeyRecord struct {
	Suite  uint8  `cbor:"1,keyasint"` // an nhi.Suite
	Public []byte `cbor:"2,keyasint"`
}

// Registration is the leaf with which a key was registered, and its way to the same spine leaf. Head and HeadPath are
// absent where the leaf is in the log of the proof itself.
type Registration struct {
	Payload  []byte       `cbor:"1,keyasint"`
	Leaf     []byte       `cbor:"2,keyasint"`
	Path     []nhi.Digest `cbor:"3,keyasint,omitempty"`
	Head     []byte       `cbor:"4,keyasint,omitempty"`
	HeadPath []nhi.Digest `cbor:"5,keyasint,omitempty"`
}

// Encode returns the bytes of the .creto-proof file.
func (p *EventProof) Encode() ([]byte, error) { return encodeContainer(KindEvent, p) }

// DecodeEventProof decodes a .creto-proof file of kind event. It verifies nothing but the file's checksum.
func DecodeEventProof(b []byte) (*EventProof, error) {
	c, intact, err := decodeContainer(b)
	if err != nil {
		return nil, err
	}
	if c.Type != string(KindEvent) {
		return nil, fmt.Errorf("decode event proof: the file is of kind %q", clip(c.Type))
	}
	if !intact {
		return nil, errors.New("decode event proof: checksum does not match")
	}
	p := new(EventProof)
	if err := canon.UnmarshalMax(c.Body, p, MaxProofFile); err != nil {
		return nil, fmt.Errorf("decode event proof: %w", err)
	}
	return p, nil
}

// ReceiptFile is the content of a receipt file.
type ReceiptFile struct {
	Receipt SignedReceipt `cbor:"1,keyasint"`
	Key     KeyRecord     `cbor:"2,keyasint"`           // the node's key
	Leaf    []byte        `cbor:"3,keyasint,omitempty"` // the leaf the receipt is about, if it is at hand
}

// Encode returns the bytes of the .creto-proof file.
func (p *ReceiptFile) Encode() ([]byte, error) { return encodeContainer(KindReceipt, p) }
