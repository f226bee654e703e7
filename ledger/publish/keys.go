package publish

import (
	"crypto/ed25519"
	"fmt"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
)

// Keys are the private halves a voter signs heads with.
type Keys struct {
	Log ed25519.PrivateKey     // the ledger's log key, held by every voter
	Ed  ed25519.PrivateKey     // this node's type 04 cosigning key
	PQ  *nhi.MLDSA44PrivateKey // this node's type 06 cosigning key
}

// edSigner signs notes with a plain Ed25519 key: type 01 for the log, type 04 for a node.
type edSigner struct {
	vkey verify.VKey
	key  ed25519.PrivateKey
}

func (s edSigner) VKey() verify.VKey { return s.vkey }

// SignNote goes through nhi, which refuses messages that begin like a composite signature's.
func (s edSigner) SignNote(msg []byte) ([]byte, error) { return nhi.SignEd25519(s.key, msg) }

type pqSigner struct {
	vkey verify.VKey
	key  *nhi.MLDSA44PrivateKey
}

func (s pqSigner) VKey() verify.VKey                   { return s.vkey }
func (s pqSigner) SignNote(msg []byte) ([]byte, error) { return s.key.Sign(msg) }

// logSigner returns the log key's signer under an origin: the spine's, or a tenant's.
func logSigner(origin string, key ed25519.PrivateKey) (edSigner, error) {
	v, err := verify.NewVKey(origin, verify.KeyEd25519, key.Public().(ed25519.PublicKey))
	if err != nil {
		return edSigner{}, fmt.Errorf("name the log key: %w", err)
	}
	return edSigner{v, key}, nil
}

func nodeSigners(cluster string, node nhi.ID, k Keys) (edSigner, pqSigner, error) {
	ed, err := verify.NewVKey(verify.NodeKeyName(cluster, node, "ed"), verify.KeyCosignature, k.Ed.Public().(ed25519.PublicKey))
	if err != nil {
		return edSigner{}, pqSigner{}, fmt.Errorf("name the node's ed key: %w", err)
	}
	pq, err := verify.NewVKey(verify.NodeKeyName(cluster, node, "pq"), verify.KeyMLDSA44, k.PQ.Public())
	if err != nil {
		return edSigner{}, pqSigner{}, fmt.Errorf("name the node's pq key: %w", err)
	}
	return edSigner{ed, k.Ed}, pqSigner{pq, k.PQ}, nil
}

// Node is a voter whose cosignatures count: its id and its two verifier keys.
type Node struct {
	ID nhi.ID
	Ed verify.VKey // type 04, <cluster>/node/<id>/ed
	PQ verify.VKey // type 06, <cluster>/node/<id>/pq
}

// NewNode names a node's cosigning keys. ed has 32 bytes, pq 1,312.
func NewNode(cluster string, id nhi.ID, ed, pq []byte) (Node, error) {
	e, err := verify.NewVKey(verify.NodeKeyName(cluster, id, "ed"), verify.KeyCosignature, ed)
	if err != nil {
		return Node{}, fmt.Errorf("node %s: %w", id, err)
	}
	p, err := verify.NewVKey(verify.NodeKeyName(cluster, id, "pq"), verify.KeyMLDSA44, pq)
	if err != nil {
		return Node{}, fmt.Errorf("node %s: %w", id, err)
	}
	return Node{ID: id, Ed: e, PQ: p}, nil
}
