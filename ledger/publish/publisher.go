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
	keptCosignatures       = 4                      // newest ones per voter that wait for this node to get there
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
		own       *Cosignature             // ours over mark; nil until signed in this process
		logLine   verify.NoteSignature     // the log's signature over mark
		ownTime   int64                    // Unix seconds of own
		pending   map[nhi.ID][]Cosignature // by voter, oldest first, at most keptCosignatures of different sizes
		published published
		changed   chan struct{} // closed and replaced when published or own changes
	}
}

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
	p.mu.pending = make(map[nhi.ID][]Cosignature)
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
		// Looking again costs nothing, so that no missed wake-up can leave a head unsigned.
		timer := time.NewTimer(retryInterval)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-applied:
			timer.Stop()
		case <-timer.C:
			// What Receive found out against this node stops it here.
			if err := p.assemble(); err != nil {
				return err
			}
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
	if last.Size > 0 && head.Size > last.Size {
		// A larger tree must extend the one that was signed: state that was lost or restored may have grown past the mark.
		root, err := p.cfg.Ledger.SpineRoot(last.Size)
		if err != nil {
			return err
		}
		if root != last.Root {
			return fmt.Errorf("spine of size %d has root %x at size %d, but this node has signed root %x there: its state is not what it was",
				head.Size, root, last.Size, last.Root)
		}
	}
	m := mark(head)
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
