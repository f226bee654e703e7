package publish

import (
	"errors"
	"fmt"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
)

// EquivocationError is evidence that a node has signed another root than this node computed for the same size. Which of the
// two is wrong a third party decides by the other nodes' signatures.
type EquivocationError struct {
	Node      nhi.ID
	Size      uint64
	Ours      nhi.Digest
	Theirs    nhi.Digest
	Signature [][]byte // their signature lines
}

func (e *EquivocationError) Error() string {
	return fmt.Sprintf("node %s signed root %x for spine size %d, this node computed %x", e.Node, e.Theirs, e.Size, e.Ours)
}

// ErrCosignature is what a cosignature that does not count matches with errors.Is.
var ErrCosignature = errors.New("cosignature does not count")

// ErrDiverged means that a majority of the voters has signed another root than this node computed. This node must stop.
var ErrDiverged = errors.New("the quorum has another root than this node")

// addLocked keeps the newest cosignatures of each voter. However many a voter sends, only its own are displaced.
func (p *Publisher) addLocked(c Cosignature) {
	kept := p.mu.pending[c.Node]
	for i, k := range kept {
		if k.Size == c.Size {
			kept = append(kept[:i:i], kept[i+1:]...)
			break
		}
	}
	if len(kept) >= keptCosignatures {
		kept = kept[len(kept)-keptCosignatures+1:]
	}
	p.mu.pending[c.Node] = append(kept[:len(kept):len(kept)], c)
}

// Receive takes another node's cosignature and returns this node's own newest one, nil if it has none yet. The error
// matches ErrCosignature or is an *EquivocationError, or means that this node must stop.
func (p *Publisher) Receive(c Cosignature) (*Cosignature, error) {
	voters, err := p.cfg.Ledger.Voters()
	if err != nil {
		return nil, err
	}
	if err := p.check(c, voters); err != nil {
		return nil, err
	}
	p.mu.Lock()
	own, signed := p.mu.own, p.mu.mark.Size
	stale := c.Size < p.mu.published.Size
	if !stale {
		p.addLocked(c)
	}
	p.mu.Unlock()
	if stale {
		return own, nil
	}
	if c.Size <= signed {
		if want, err := p.cfg.Ledger.SpineRoot(c.Size); err == nil && want != c.Root {
			err := &EquivocationError{Node: c.Node, Size: c.Size, Ours: want, Theirs: c.Root, Signature: c.Lines}
			return own, errors.Join(err, p.assemble())
		}
	}
	return own, p.assemble()
}

// check verifies both signatures of a voter over what it claims.
func (p *Publisher) check(c Cosignature, voters []Node) error {
	node, ok := find(voters, c.Node)
	if !ok {
		return fmt.Errorf("%w: %s is not a voter", ErrCosignature, c.Node)
	}
	if c.Size == 0 || c.Size > verify.MaxTreeSize || len(c.Lines) != 2 {
		return fmt.Errorf("%w: size %d with %d lines", ErrCosignature, c.Size, len(c.Lines))
	}
	text := verify.Checkpoint{Origin: verify.SpineOrigin(p.cfg.Cluster), Size: c.Size, Root: c.Root}.Text()
	for i, key := range []verify.VKey{node.Ed, node.PQ} {
		lines, err := verify.ParseSignatureLines(c.Lines[i])
		if err != nil || len(lines) != 1 {
			return fmt.Errorf("%w: signature line %d of %s", ErrCosignature, i, c.Node)
		}
		if _, err := key.Verify(text, lines[0]); err != nil {
			return fmt.Errorf("%w: %w", ErrCosignature, err)
		}
	}
	return nil
}

func find(nodes []Node, id nhi.ID) (Node, bool) {
	for _, n := range nodes {
		if n.ID == id {
			return n, true
		}
	}
	return Node{}, false
}

// assemble publishes the head this node has signed if a majority of the voters agrees. A voter that contradicts it does not
// count, and what it signed is kept; if a majority contradicts it, this node is the one that went wrong.
func (p *Publisher) assemble() error {
	voters, err := p.cfg.Ledger.Voters()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.mu.mark
	if p.mu.own == nil || m.Size < p.mu.published.Size {
		return nil
	}
	note := verify.Note{
		Text:       verify.Checkpoint{Origin: verify.SpineOrigin(p.cfg.Cluster), Size: m.Size, Root: m.Root}.Text(),
		Signatures: []verify.NoteSignature{p.mu.logLine},
	}
	agree, contradict := 0, 0
	for _, v := range voters {
		c, ok := p.cosignatureLocked(v.ID, m.Size)
		if !ok {
			continue
		}
		if c.Root != m.Root {
			contradict++
			if err := p.recordLocked(&EquivocationError{Node: v.ID, Size: m.Size, Ours: m.Root, Theirs: c.Root, Signature: c.Lines}); err != nil {
				return err
			}
			continue
		}
		agree++
		for _, l := range c.Lines {
			lines, err := verify.ParseSignatureLines(l)
			if err != nil {
				return err
			}
			note.Signatures = append(note.Signatures, lines...)
		}
	}
	if contradict*2 > len(voters) {
		return fmt.Errorf("spine size %d: %w", m.Size, ErrDiverged)
	}
	if agree*2 <= len(voters) {
		return nil
	}
	pub := published{Epoch: m.Epoch, Size: m.Size, Root: m.Root, Time: p.mu.ownTime, Note: note.Marshal()}
	grown := pub.Size > p.mu.published.Size
	if !grown && len(pub.Note) <= len(p.mu.published.Note) && pub.Time == p.mu.published.Time {
		return nil
	}
	if err := p.store.put(keyPublished, &pub); err != nil {
		return err
	}
	p.mu.published = pub
	if grown {
		p.wakeLocked()
	}
	return nil
}

// cosignatureLocked returns what a voter has signed for a size.
func (p *Publisher) cosignatureLocked(id nhi.ID, size uint64) (Cosignature, bool) {
	for _, c := range p.mu.pending[id] {
		if c.Size == size {
			return c, true
		}
	}
	return Cosignature{}, false
}

// evidence is a kept equivocation. One per node is enough: a second says nothing that the first does not.
type evidence struct {
	Node   nhi.ID     `cbor:"1,keyasint"`
	Size   uint64     `cbor:"2,keyasint"`
	Ours   nhi.Digest `cbor:"3,keyasint"`
	Theirs nhi.Digest `cbor:"4,keyasint"`
	Lines  [][]byte   `cbor:"5,keyasint"`
}

func evidenceKey(node nhi.ID) []byte { return append([]byte("evidence/"), node[:]...) }

// recordLocked keeps the first evidence against a node on disk and says so in the log.
func (p *Publisher) recordLocked(e *EquivocationError) error {
	var have evidence
	if ok, err := p.store.get(evidenceKey(e.Node), &have); err != nil || ok {
		return err
	}
	p.cfg.Logger.Error("a node signed another head", "err", e, "lines", fmt.Sprintf("%q", e.Signature))
	return p.store.put(evidenceKey(e.Node), &evidence{Node: e.Node, Size: e.Size, Ours: e.Ours, Theirs: e.Theirs, Lines: e.Signature})
}

// Evidence returns the kept equivocation of a node, nil if there is none.
func (p *Publisher) Evidence(node nhi.ID) (*EquivocationError, error) {
	var e evidence
	ok, err := p.store.get(evidenceKey(node), &e)
	if err != nil || !ok {
		return nil, err
	}
	return &EquivocationError{Node: e.Node, Size: e.Size, Ours: e.Ours, Theirs: e.Theirs, Signature: e.Lines}, nil
}
