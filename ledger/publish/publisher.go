package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
)

// Defaults and bounds.
const (
	DefaultSealInterval    = 250 * time.Millisecond // at most one seal in this time, while there is news
	DefaultRefreshInterval = 10 * time.Minute       // an idle checkpoint gets fresh cosignatures
	MaxUnpublished         = 2                      // seals that await their quorum
	maxPendingSizes        = 16                     // sizes for which cosignatures of others wait for us to get there
	retryInterval          = time.Second            // a peer that has not answered is asked again
	exchangeTimeout        = 5 * time.Second
)

// Sealed is one committed seal as this node applied it.
type Sealed struct {
	Epoch uint64
	Size  uint64     // leaves of the spine
	Root  nhi.Digest // root of the spine at Size, computed by this node
}

// Ledger is what the publisher reads of the ledger. Implementations are safe for concurrent use.
type Ledger interface {
	// Sealed returns the newest seal this node has applied; the zero value before the first.
	Sealed() Sealed
	// SpineRoot returns the root of the spine at a size this node has applied.
	SpineRoot(size uint64) (nhi.Digest, error)
	// News says whether some log has grown since the last seal.
	News() bool
	// Applied returns a channel that is closed when something has been applied after the call.
	Applied() <-chan struct{}
	// Voters are the nodes whose cosignatures count, as of the newest applied command, ascending by id.
	Voters() ([]Node, error)
}

// Sealer proposes seals. Propose returns when the seal is committed or will not be.
type Sealer interface {
	Leading() bool
	ProposeSeal(ctx context.Context, epoch uint64) error
}

// Cosignature is what nodes exchange: one node's signature lines over the spine's checkpoint of a size.
type Cosignature struct {
	Node  nhi.ID
	Epoch uint64
	Size  uint64
	Root  nhi.Digest
	Lines [][]byte // type 04, then type 06, as note signature lines with their newline
}

// Peer hands this node's cosignature to another node and returns that node's own newest one.
type Peer interface {
	ID() nhi.ID
	Exchange(ctx context.Context, own Cosignature) (*Cosignature, error)
}

// Config configures a Publisher. The zero value of an optional field means its default.
type Config struct {
	Cluster string
	Node    nhi.ID
	Keys    Keys
	Dir     string // the local store
	FS      vfs.FS // optional: the default file system
	Ledger  Ledger
	Sealer  Sealer
	Peers   func() []Peer    // the other voters, asked at every round
	Now     func() time.Time // the node's clock, for the times of cosignatures
	Logger  *slog.Logger

	SealInterval    time.Duration // optional
	RefreshInterval time.Duration // optional
}

// Publisher publishes one ledger on one node.
type Publisher struct {
	cfg   Config
	store *store
	log   edSigner // type 01 under the spine's origin
	ed    edSigner
	pq    pqSigner

	mu struct {
		sync.Mutex
		mark      mark
		own       *Cosignature         // ours over mark; nil until signed in this process
		logLine   verify.NoteSignature // the log's signature over mark
		ownTime   int64                // Unix seconds of own
		pending   map[uint64]map[nhi.ID]Cosignature
		published published
		changed   chan struct{} // closed and replaced when published or own changes
	}
}

// EquivocationError is evidence that a node has signed another root than this node computed for the same size.
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

// New opens the local store and loads the mark. It starts nothing.
func New(cfg Config) (*Publisher, error) {
	if cfg.SealInterval == 0 {
		cfg.SealInterval = DefaultSealInterval
	}
	if cfg.RefreshInterval == 0 {
		cfg.RefreshInterval = DefaultRefreshInterval
	}
	if cfg.FS == nil {
		cfg.FS = vfs.Default
	}
	p := &Publisher{cfg: cfg}
	var err error
	if p.log, err = logSigner(verify.SpineOrigin(cfg.Cluster), cfg.Keys.Log); err != nil {
		return nil, err
	}
	if p.ed, p.pq, err = nodeSigners(cfg.Cluster, cfg.Node, cfg.Keys); err != nil {
		return nil, err
	}
	if p.store, err = openStore(cfg.Dir, cfg.FS); err != nil {
		return nil, err
	}
	p.mu.pending = make(map[uint64]map[nhi.ID]Cosignature)
	p.mu.changed = make(chan struct{})
	if _, err := p.store.get(keyMark, &p.mu.mark); err != nil {
		return nil, errors.Join(err, p.store.close())
	}
	if _, err := p.store.get(keyPublished, &p.mu.published); err != nil {
		return nil, errors.Join(err, p.store.close())
	}
	return p, nil
}

// Close closes the local store. Run must have returned.
func (p *Publisher) Close() error { return p.store.close() }

// Run seals, signs and exchanges until ctx ends. An error other than the context's means that this node must not go on:
// its state and its mark contradict each other, or its disk failed.
func (p *Publisher) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.sealLoop(ctx) })
	g.Go(func() error { return p.signLoop(ctx) })
	g.Go(func() error { return p.exchangeLoop(ctx) })
	return g.Wait()
}

// sealLoop proposes the next seal while this node leads, there is news, and not too many await their quorum.
func (p *Publisher) sealLoop(ctx context.Context) error {
	tick := time.NewTicker(p.cfg.SealInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if !p.cfg.Sealer.Leading() || !p.cfg.Ledger.News() {
			continue
		}
		last := p.cfg.Ledger.Sealed()
		if last.Size >= p.Published().Size+MaxUnpublished {
			continue
		}
		if err := p.cfg.Sealer.ProposeSeal(ctx, last.Epoch+1); err != nil && ctx.Err() == nil {
			// Another leader, or no quorum: whoever leads next proposes it again, and a double is a no-op.
			p.cfg.Logger.Debug("seal not proposed", "epoch", last.Epoch+1, "err", err)
		}
	}
}

// signLoop signs every new head, and the same head again when it has been idle for RefreshInterval.
func (p *Publisher) signLoop(ctx context.Context) error {
	for {
		applied := p.cfg.Ledger.Applied()
		if err := p.sign(); err != nil {
			return err
		}
		p.mu.Lock()
		due := time.Unix(p.mu.ownTime, 0).Add(p.cfg.RefreshInterval).Sub(p.cfg.Now())
		p.mu.Unlock()
		timer := time.NewTimer(max(due, retryInterval))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-applied:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// sign signs the newest sealed head, if it is new or due for a refresh.
func (p *Publisher) sign() error {
	head := p.cfg.Ledger.Sealed()
	if head.Size == 0 {
		return nil
	}
	now := p.cfg.Now()
	p.mu.Lock()
	last, signed, at := p.mu.mark, p.mu.own != nil, p.mu.ownTime
	p.mu.Unlock()
	switch {
	case head.Size < last.Size:
		// Raft is still replaying towards what this node has signed before.
		return nil
	case head.Size == last.Size && head.Root != last.Root:
		return fmt.Errorf("spine size %d has root %x, but this node has signed root %x for it: its state is not what it was",
			head.Size, head.Root, last.Root)
	case head.Size == last.Size && signed && now.Sub(time.Unix(at, 0)) < p.cfg.RefreshInterval:
		return nil
	}
	m := mark{head.Epoch, head.Size, head.Root}
	if m != last {
		// If we crash after this line, nothing was signed and the same head is signed after the restart.
		if err := p.store.put(keyMark, &m); err != nil {
			return err
		}
	}
	cp := verify.Checkpoint{Origin: verify.SpineOrigin(p.cfg.Cluster), Size: head.Size, Root: head.Root}
	note, err := verify.SignCheckpoint(cp, p.log)
	if err != nil {
		return err
	}
	unix := max(now.Unix(), 1)
	own := &Cosignature{Node: p.cfg.Node, Epoch: head.Epoch, Size: head.Size, Root: head.Root}
	for _, s := range []verify.NoteSigner{p.ed, p.pq} {
		line, err := verify.Cosign(cp, s, unix)
		if err != nil {
			return err
		}
		own.Lines = append(own.Lines, line.AppendTo(nil))
	}
	p.mu.Lock()
	p.mu.mark, p.mu.own, p.mu.logLine, p.mu.ownTime = m, own, note.Signatures[0], unix
	p.addLocked(*own)
	p.wakeLocked()
	p.mu.Unlock()
	return p.assemble()
}

func (p *Publisher) wakeLocked() {
	close(p.mu.changed)
	p.mu.changed = make(chan struct{})
}

// addLocked keeps the newest cosignature of a node for a size, and forgets sizes that have been overtaken.
func (p *Publisher) addLocked(c Cosignature) {
	if p.mu.pending[c.Size] == nil {
		p.mu.pending[c.Size] = make(map[nhi.ID]Cosignature)
	}
	p.mu.pending[c.Size][c.Node] = c
	for len(p.mu.pending) > maxPendingSizes {
		smallest := c.Size
		for size := range p.mu.pending {
			smallest = min(smallest, size)
		}
		delete(p.mu.pending, smallest)
	}
}

// Receive takes another node's cosignature and returns this node's own newest one, nil if it has none yet. The error
// matches ErrCosignature, or is an *EquivocationError.
func (p *Publisher) Receive(c Cosignature) (*Cosignature, error) {
	voters, err := p.cfg.Ledger.Voters()
	if err != nil {
		return nil, err
	}
	if err := p.check(c, voters); err != nil {
		return nil, err
	}
	p.mu.Lock()
	stale := c.Size < p.mu.published.Size
	if !stale {
		p.addLocked(c)
	}
	own := p.mu.own
	p.mu.Unlock()
	if !stale {
		if err := p.assemble(); err != nil {
			return own, err
		}
	}
	return own, nil
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

// assemble publishes the largest size for which this node has signed and a majority of the voters agrees.
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
	for size, cosigs := range p.mu.pending {
		if size > m.Size {
			continue // not applied here yet
		}
		want := m.Root
		if size < m.Size {
			if want, err = p.cfg.Ledger.SpineRoot(size); err != nil {
				return err
			}
		}
		for id, c := range cosigs {
			if c.Root == want {
				continue
			}
			delete(cosigs, id)
			err := &EquivocationError{Node: id, Size: size, Ours: want, Theirs: c.Root, Signature: c.Lines}
			p.cfg.Logger.Error("heads differ", "err", err, "lines", fmt.Sprintf("%q", c.Lines))
			return err
		}
		if size < m.Size {
			delete(p.mu.pending, size)
		}
	}
	cosigs := p.mu.pending[m.Size]
	note := verify.Note{
		Text:       verify.Checkpoint{Origin: verify.SpineOrigin(p.cfg.Cluster), Size: m.Size, Root: m.Root}.Text(),
		Signatures: []verify.NoteSignature{p.mu.logLine},
	}
	count := 0
	for _, v := range voters {
		c, ok := cosigs[v.ID]
		if !ok {
			continue
		}
		count++
		for _, l := range c.Lines {
			lines, err := verify.ParseSignatureLines(l)
			if err != nil {
				return err
			}
			note.Signatures = append(note.Signatures, lines...)
		}
	}
	if count*2 <= len(voters) {
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

// exchangeLoop hands every new cosignature of ours to the other voters, and asks those that have not answered again until
// the head is published everywhere we know of.
func (p *Publisher) exchangeLoop(ctx context.Context) error {
	answered := make(map[nhi.ID]uint64) // by peer: largest size it has answered with
	var sent int64                      // time of the cosignature the answers are about
	for {
		p.mu.Lock()
		own, at, changed := p.mu.own, p.mu.ownTime, p.mu.changed
		p.mu.Unlock()
		waiting := false
		if own != nil {
			if at != sent {
				// A refresh goes to everybody again.
				clear(answered)
				sent = at
			}
			waiting = p.exchange(ctx, *own, answered)
		}
		if !waiting {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			}
			continue
		}
		retry := time.NewTimer(retryInterval)
		select {
		case <-ctx.Done():
			retry.Stop()
			return ctx.Err()
		case <-changed:
			retry.Stop()
		case <-retry.C:
		}
	}
}

// exchange asks every peer that has not answered with own's size, side by side, and says whether some still have to.
func (p *Publisher) exchange(ctx context.Context, own Cosignature, answered map[nhi.ID]uint64) bool {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	var (
		g  errgroup.Group
		mu sync.Mutex
	)
	var asked []Peer
	for _, peer := range p.cfg.Peers() {
		if answered[peer.ID()] < own.Size {
			asked = append(asked, peer)
		}
	}
	for _, peer := range asked {
		g.Go(func() error {
			theirs, err := peer.Exchange(ctx, own)
			if err != nil || theirs == nil {
				return nil // asked again
			}
			if theirs.Node != peer.ID() {
				p.cfg.Logger.Warn("cosignature of another node", "peer", peer.ID().String(), "node", theirs.Node.String())
				return nil
			}
			if _, err := p.Receive(*theirs); err != nil {
				p.cfg.Logger.Warn("cosignature refused", "peer", peer.ID().String(), "err", err)
				return nil
			}
			mu.Lock()
			answered[peer.ID()] = theirs.Size
			mu.Unlock()
			return nil
		})
	}
	_ = g.Wait() // the functions return nil
	for _, peer := range asked {
		if answered[peer.ID()] < own.Size {
			return true
		}
	}
	return false
}
