package verifytest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
)

// Cluster is the name of every test cluster.
const Cluster = "ledger.test"

// Start is the time of genesis in Unix nanoseconds: 2026-01-01T00:00:00Z.
const Start int64 = 1767225600 * 1e9

// Ledger is a small ledger in memory. It is not safe for concurrent use.
type Ledger struct {
	ID      nhi.Digest
	Log     verify.NoteSigner
	Nodes   []*Node
	Tenants []*Tenant // by slot; slot 0 is the system log
	Time    int64     // of the last leaf or seal
	Epochs  []*Epoch
	Grease  []verify.NoteSignature // added to every checkpoint
	rand    io.Reader
}

// Node is one cosigning node.
type Node struct {
	ID      nhi.ID
	Ed, PQ  verify.NoteSigner
	Receipt *nhi.PrivateKey
}

// Tenant is one tenant's log.
type Tenant struct {
	ID     nhi.ID // zero: the system log
	Slot   uint32
	Leaves []*Entry
}

// Entry is a leaf with what a proof of it needs.
type Entry struct {
	Leaf    []byte
	Payload []byte
	Key     *nhi.PublicKey
	Sig     []byte
	Batch   *nhi.BatchProof
}

// Epoch is what one seal committed.
type Epoch struct {
	Heads [][]byte // encoded head leaves by slot
	Spine []byte   // the encoded spine leaf
	Leaf  verify.SpineLeaf
}

// Agent is somebody who signs events.
type Agent struct {
	ID  nhi.ID
	Key *nhi.PrivateKey
	Seq uint64
}

// seedReader is an endless stream of SHA-256(seed ‖ counter).
type seedReader struct {
	seed [32]byte
	n    uint64
	rest []byte
}

func (r *seedReader) Read(p []byte) (int, error) {
	for i := range p {
		if len(r.rest) == 0 {
			sum := sha256.Sum256(binary.BigEndian.AppendUint64(r.seed[:], r.n))
			r.n, r.rest = r.n+1, sum[:]
		}
		p[i], r.rest = r.rest[0], r.rest[1:]
	}
	return len(p), nil
}

// New makes a ledger with the given number of nodes, an empty system log and everything else derived from the seed.
func New(seed string, nodes int) (*Ledger, error) {
	l := &Ledger{Time: Start, rand: &seedReader{seed: sha256.Sum256([]byte("creto verifytest " + seed))}}
	copy(l.ID[:], l.bytes(32))
	var err error
	if l.Log, err = verify.NewEd25519NoteSigner(verify.SpineOrigin(Cluster), verify.KeyEd25519, ed25519.NewKeyFromSeed(l.bytes(32))); err != nil {
		return nil, err
	}
	for range nodes {
		n := &Node{ID: l.NewID()}
		if n.Ed, err = verify.NewEd25519NoteSigner(verify.NodeKeyName(Cluster, n.ID, "ed"), verify.KeyCosignature, ed25519.NewKeyFromSeed(l.bytes(32))); err != nil {
			return nil, err
		}
		pq, err := nhi.NewMLDSA44(l.bytes(32))
		if err != nil {
			return nil, err
		}
		if n.PQ, err = verify.NewMLDSA44NoteSigner(verify.NodeKeyName(Cluster, n.ID, "pq"), pq); err != nil {
			return nil, err
		}
		if n.Receipt, err = nhi.NewPrivateKey(l.bytes(64)); err != nil {
			return nil, err
		}
		l.Nodes = append(l.Nodes, n)
	}
	l.Tenants = []*Tenant{{}}
	return l, nil
}

func (l *Ledger) bytes(n int) []byte {
	b := make([]byte, n)
	io.ReadFull(l.rand, b) // the stream does not end
	return b
}

// NewID draws an ID.
func (l *Ledger) NewID() nhi.ID { return nhi.ID(l.bytes(16)) }

// NewAgent draws an agent.
func (l *Ledger) NewAgent() (*Agent, error) {
	k, err := nhi.NewPrivateKey(l.bytes(64))
	if err != nil {
		return nil, err
	}
	return &Agent{ID: l.NewID(), Key: k}, nil
}

// AddTenant gives a new tenant the next slot.
func (l *Ledger) AddTenant() *Tenant {
	t := &Tenant{ID: l.NewID(), Slot: uint32(len(l.Tenants))}
	l.Tenants = append(l.Tenants, t)
	return t
}

// Event returns an encoded event of the agent.
func (l *Ledger) Event(t *Tenant, a *Agent, kind string, body []byte) ([]byte, error) {
	a.Seq++
	e := &nhi.Event{
		V: 1, LedgerID: l.ID, Tenant: t.ID, ID: [16]byte(l.bytes(16)), Kind: kind, Agent: a.ID,
		Seq: nhi.Seq{Instance: [8]byte(a.ID[:8]), N: a.Seq}, Account: nhi.ID{1}, ClientTime: l.Time, Nonce: [16]byte(l.bytes(16)), Body: body,
	}
	return e.Encode()
}

// Append sequences the events of an envelope, each with outcome accepted and the given quantities. edit, if not nil,
// changes a leaf before it is encoded.
func (l *Ledger) Append(t *Tenant, a *Agent, env *nhi.Envelope, quantities []verify.Quantity, edit func(*verify.Leaf)) error {
	for i, payload := range env.Payloads {
		e, err := nhi.DecodeEvent(payload)
		if err != nil {
			return err
		}
		leaf := &verify.Leaf{
			Kind: e.Kind, Agent: e.Agent, Link: e.Link, Seq: e.Seq, ID: e.ID, Payload: nhi.PayloadDigest(payload), Signature: env.SignatureDigest(),
			Quantities: quantities, Epochs: verify.Epochs{Policy: 1, Entities: 2, Revocation: 3}, Addenda: e.Addenda, Account: e.Account,
			Decision: sha256.Sum256([]byte("decision")), Assurance: verify.AssuranceSelf,
		}
		entry := &Entry{Payload: payload, Key: a.Key.Public(), Sig: env.Signature}
		if env.Batch {
			if entry.Batch, err = env.Proof(i); err != nil {
				return err
			}
		}
		if err := l.add(t, leaf, entry, edit); err != nil {
			return err
		}
	}
	return nil
}

// AppendSystem sequences a leaf of the ledger itself.
func (l *Ledger) AppendSystem(t *Tenant, kind string) error {
	return l.add(t, &verify.Leaf{Kind: kind, Cause: &verify.Cause{Kind: verify.CauseTick, Ref: []byte("lease")}}, &Entry{}, nil)
}

func (l *Ledger) add(t *Tenant, leaf *verify.Leaf, entry *Entry, edit func(*verify.Leaf)) error {
	l.Time += 1e9
	leaf.V, leaf.Cell, leaf.Slot, leaf.Index, leaf.Time = 1, 1, t.Slot, uint64(len(t.Leaves)), l.Time
	leaf.Quality = verify.Quality{Code: verify.QualityCarried, Flags: verify.FlagTest}
	if edit != nil {
		edit(leaf)
	}
	var err error
	if entry.Leaf, err = leaf.Encode(); err != nil {
		return err
	}
	t.Leaves = append(t.Leaves, entry)
	return nil
}

// tree returns the tree of the tenant's first size leaves.
func (t *Tenant) tree(size uint64) *verify.SmallTree {
	hashes := make([]nhi.Digest, size)
	for i := range hashes {
		hashes[i] = verify.LeafHash(t.Leaves[i].Leaf)
	}
	return verify.NewSmallTree(hashes)
}

// Seal commits the heads of all tenants to the spine.
func (l *Ledger) Seal() error {
	l.Time += 1e9
	e := &Epoch{}
	var hashes []nhi.Digest
	for _, t := range l.Tenants {
		size := uint64(len(t.Leaves))
		head := &verify.HeadLeaf{V: 1, Cell: 1, Slot: t.Slot, Origin: verify.TenantOrigin(Cluster, t.ID), Size: size, Root: t.tree(size).Root()}
		b, err := head.Encode()
		if err != nil {
			return err
		}
		e.Heads, hashes = append(e.Heads, b), append(hashes, verify.LeafHash(b))
	}
	e.Leaf = verify.SpineLeaf{
		V: 1, Cell: 1, Epoch: uint64(len(l.Epochs) + 1), Time: l.Time, HeadsSize: uint64(len(hashes)), HeadsRoot: verify.NewSmallTree(hashes).Root(),
		StateHash: sha256.Sum256([]byte("state")), ActiveVersion: 1, Flags: verify.FlagTest,
	}
	var err error
	if e.Spine, err = e.Leaf.Encode(); err != nil {
		return err
	}
	l.Epochs = append(l.Epochs, e)
	return nil
}

func (l *Ledger) spine() *verify.SmallTree { return verify.NewSmallTree(l.spineHashes()) }

func (l *Ledger) spineHashes() []nhi.Digest {
	hashes := make([]nhi.Digest, len(l.Epochs))
	for i, e := range l.Epochs {
		hashes[i] = verify.LeafHash(e.Spine)
	}
	return hashes
}

// Checkpoint returns the newest spine checkpoint, signed by the log key and cosigned by the first n nodes.
func (l *Ledger) Checkpoint(n int) (*verify.Note, error) { return l.CheckpointAt(len(l.Epochs), n) }

// Consistency proves that the spine of from epochs is a prefix of that of to epochs, cosigned by all nodes.
func (l *Ledger) Consistency(from, to int) (*verify.ConsistencyFile, error) {
	p := &verify.ConsistencyFile{LedgerID: l.ID}
	for _, c := range []struct {
		size int
		note *[]byte
	}{{from, &p.From}, {to, &p.To}} {
		n, err := l.CheckpointAt(c.size, len(l.Nodes))
		if err != nil {
			return nil, err
		}
		*c.note = n.Marshal()
	}
	p.Path = subproof(from, l.spineHashes()[:to], true)
	return p, nil
}

// subproof is SUBPROOF of RFC 6962, 2.1.2.
func subproof(m int, leaves []nhi.Digest, whole bool) []nhi.Digest {
	n := len(leaves)
	if m == n {
		if whole {
			return nil
		}
		return []nhi.Digest{verify.NewSmallTree(leaves).Root()}
	}
	k := 1
	for k*2 < n {
		k *= 2
	}
	if m <= k {
		return append(subproof(m, leaves[:k], whole), verify.NewSmallTree(leaves[k:]).Root())
	}
	return append(subproof(m-k, leaves[k:], false), verify.NewSmallTree(leaves[:k]).Root())
}

// CheckpointAt is Checkpoint of the first size epochs.
func (l *Ledger) CheckpointAt(size, n int) (*verify.Note, error) {
	c := verify.Checkpoint{Origin: verify.SpineOrigin(Cluster), Size: uint64(size), Root: verify.NewSmallTree(l.spineHashes()[:size]).Root()}
	note, err := verify.SignCheckpoint(c, l.Log)
	if err != nil {
		return nil, err
	}
	for _, node := range l.Nodes[:n] {
		for _, s := range []verify.NoteSigner{node.Ed, node.PQ} {
			sig, err := verify.Cosign(c, s, l.Time/1e9+1)
			if err != nil {
				return nil, err
			}
			note.Signatures = append(note.Signatures, sig)
		}
	}
	note.Signatures = append(note.Signatures, l.Grease...)
	return note, nil
}

// Trust returns the trust file: every node as the group of its two keys, and the smallest majority of nodes as quorum.
func (l *Ledger) Trust() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# trust file of a test ledger\nledger_id %x\n\nlog %s\n", l.ID, l.Log.VKey())
	var names []string
	for _, n := range l.Nodes {
		node := verify.NodeKeyName(Cluster, n.ID, "")
		node = strings.TrimSuffix(node, "/")
		for _, k := range []verify.VKey{n.Ed.VKey(), n.PQ.VKey()} {
			fmt.Fprintf(&b, "witness %s %s\n", k.Name, k)
		}
		fmt.Fprintf(&b, "group %s all %s/ed %s/pq\nreceipt_key %s %s\n", node, node, node, n.ID, n.Receipt.Public().ID())
		names = append(names, node)
	}
	if len(names) == 0 {
		b.WriteString("quorum none\n")
	} else {
		fmt.Fprintf(&b, "group nodes %d %s\nquorum nodes\n", len(names)/2+1, strings.Join(names, " "))
	}
	return []byte(b.String())
}

// headProof proves the tenant's head in an epoch (from 1) under the newest checkpoint.
func (l *Ledger) headProof(t *Tenant, epoch int, cosigners int) (*verify.HeadProof, error) {
	e := l.Epochs[epoch-1]
	note, err := l.Checkpoint(cosigners)
	if err != nil {
		return nil, err
	}
	p := &verify.TLogProof{Index: uint64(epoch - 1), Path: l.spine().Path(epoch - 1), Checkpoint: note.Marshal()}
	return &verify.HeadProof{Head: e.Heads[t.Slot], HeadPath: e.headPath(t.Slot), Spine: e.Spine, SpineProof: p.Marshal()}, nil
}

func (e *Epoch) headPath(slot uint32) []nhi.Digest {
	hashes := make([]nhi.Digest, len(e.Heads))
	for i, h := range e.Heads {
		hashes[i] = verify.LeafHash(h)
	}
	return verify.NewSmallTree(hashes).Path(int(slot))
}

// EventProof proves leaf index of the tenant under the newest epoch, cosigned by all nodes.
func (l *Ledger) EventProof(t *Tenant, index int) (*verify.EventProof, error) {
	h, err := l.headProof(t, len(l.Epochs), len(l.Nodes))
	if err != nil {
		return nil, err
	}
	head, err := verify.DecodeHeadLeaf(h.Head)
	if err != nil {
		return nil, err
	}
	entry := t.Leaves[index]
	p := &verify.EventProof{
		LedgerID: l.ID, Tenant: t.ID, Index: uint64(index), Payload: entry.Payload, Leaf: entry.Leaf, Path: t.tree(head.Size).Path(index),
		Head: h.Head, HeadPath: h.HeadPath, Spine: h.Spine, SpineProof: h.SpineProof,
	}
	if entry.Key != nil {
		p.Key = &verify.KeyRecord{Suite: uint8(entry.Key.Suite()), Public: entry.Key.Bytes()}
		p.Evidence = &verify.Evidence{KeyID: entry.Key.ID(), Signature: entry.Sig, Batch: entry.Batch}
	}
	return p, nil
}

// Completeness returns the completeness file of the tenant for [from, to), between two epochs counted from 1; start 0
// begins at the first leaf.
func (l *Ledger) Completeness(t *Tenant, from, to int64, start, end int) ([]byte, error) {
	h := &verify.CompletenessHeader{V: 1, LedgerID: l.ID, Tenant: t.ID, Cell: 1, Slot: t.Slot, From: from, To: to}
	if start > 0 {
		p, err := l.headProof(t, start, len(l.Nodes))
		if err != nil {
			return nil, err
		}
		head, err := verify.DecodeHeadLeaf(p.Head)
		if err != nil {
			return nil, err
		}
		if h.A = head.Size; h.A > 0 {
			h.Start = p
		}
		tree := verify.NewTree()
		for _, e := range t.Leaves[:h.A] {
			if err := tree.Append(verify.LeafHash(e.Leaf)); err != nil {
				return nil, err
			}
		}
		h.Range = tree.Hashes()
	}
	p, err := l.headProof(t, end, len(l.Nodes))
	if err != nil {
		return nil, err
	}
	head, err := verify.DecodeHeadLeaf(p.Head)
	if err != nil {
		return nil, err
	}
	h.B, h.End = head.Size, *p
	var out bytes.Buffer
	w, err := verify.NewCompletenessWriter(&out, h)
	if err != nil {
		return nil, err
	}
	for _, e := range t.Leaves[h.A:h.B] {
		if err := w.Leaf(e.Leaf, e.Payload); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
