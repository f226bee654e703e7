package publish

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
)

// fakeLedger is a spine that grows when told to: leaf n is the byte n.
type fakeLedger struct {
	mu      sync.Mutex
	size    uint64
	news    bool
	forked  bool // another root for every size
	applied chan struct{}
	voters  []Node
}

func (l *fakeLedger) root(size uint64) nhi.Digest {
	if l.forked {
		return sha256.Sum256([]byte{'f', byte(size)})
	}
	return sha256.Sum256([]byte{byte(size)})
}

func (l *fakeLedger) Sealed() Sealed {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size == 0 {
		return Sealed{}
	}
	return Sealed{Epoch: l.size, Size: l.size, Root: l.root(l.size)}
}

func (l *fakeLedger) SpineRoot(size uint64) (nhi.Digest, error) { return l.root(size), nil }
func (l *fakeLedger) News() bool                                { l.mu.Lock(); defer l.mu.Unlock(); return l.news }
func (l *fakeLedger) Applied() <-chan struct{}                  { l.mu.Lock(); defer l.mu.Unlock(); return l.applied }
func (l *fakeLedger) Voters() ([]Node, error)                   { return l.voters, nil }

func (l *fakeLedger) seal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.size++
	close(l.applied)
	l.applied = make(chan struct{})
}

// cluster is three publishers whose ledgers seal together, over a network that can be cut.
type cluster struct {
	t       *testing.T
	pubs    []*Publisher
	ledgers []*fakeLedger
	keys    []Keys
	fs      []vfs.FS
	mu      sync.Mutex
	cut     map[nhi.ID]bool
}

type link struct {
	c    *cluster
	from nhi.ID
	to   *Publisher
}

func (l link) ID() nhi.ID { return l.to.cfg.Node }
func (l link) Exchange(_ context.Context, own Cosignature) (*Cosignature, error) {
	l.c.mu.Lock()
	cut := l.c.cut[l.from] || l.c.cut[l.to.cfg.Node]
	l.c.mu.Unlock()
	if cut {
		return nil, errors.New("cut")
	}
	return l.to.Receive(own)
}

// sealer seals all ledgers, as consensus would.
type sealer struct {
	c      *cluster
	leader bool
}

func (s sealer) Leading() bool { return s.leader }
func (s sealer) ProposeSeal(_ context.Context, epoch uint64) error {
	for _, l := range s.c.ledgers {
		if l.Sealed().Epoch+1 == epoch {
			l.seal()
		}
	}
	return nil
}

func testKeys(t *testing.T, seed byte) Keys {
	t.Helper()
	pq, err := nhi.NewMLDSA44(bytes.Repeat([]byte{seed, 2}, 16))
	if err != nil {
		t.Fatal(err)
	}
	return Keys{
		Log: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32)),
		Ed:  ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed, 1}, 16)),
		PQ:  pq,
	}
}

func newCluster(t *testing.T, n int) *cluster {
	t.Helper()
	c := &cluster{t: t, cut: make(map[nhi.ID]bool)}
	var voters []Node
	for i := range n {
		k := testKeys(t, byte(i+1))
		node, err := NewNode("test.example/c", nhi.ID{byte(i + 1)}, k.Ed.Public().(ed25519.PublicKey), k.PQ.Public())
		if err != nil {
			t.Fatal(err)
		}
		voters = append(voters, node)
		c.keys = append(c.keys, k)
		c.fs = append(c.fs, vfs.NewMem())
	}
	for i := range n {
		c.ledgers = append(c.ledgers, &fakeLedger{news: true, applied: make(chan struct{}), voters: voters})
		c.pubs = append(c.pubs, c.open(i))
	}
	return c
}

func (c *cluster) open(i int) *Publisher {
	c.t.Helper()
	id := nhi.ID{byte(i + 1)}
	p, err := New(Config{
		Cluster: "test.example/c", Node: id, Keys: c.keys[i], Dir: "local", FS: c.fs[i],
		Ledger: c.ledgers[i], Sealer: sealer{c, i == 0}, Now: time.Now,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Peers: func() []Peer {
			var peers []Peer
			for j, q := range c.pubs {
				if j != i {
					peers = append(peers, link{c, id, q})
				}
			}
			return peers
		},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

func (c *cluster) close() {
	c.t.Helper()
	for _, p := range c.pubs {
		if err := p.Close(); err != nil {
			c.t.Error(err)
		}
	}
}

// run runs all publishers until the function it returns is called.
func (c *cluster) run() (stop func()) {
	ctx, cancel := context.WithCancel(c.t.Context())
	var wg sync.WaitGroup
	for _, p := range c.pubs {
		wg.Go(func() {
			if err := p.Run(ctx); !errors.Is(err, context.Canceled) {
				c.t.Errorf("run: got %v, want context canceled", err)
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
		c.close()
	}
}

// TestPublishQuorum shows that a sealed head is published everywhere under a note that carries the log's signature and both
// cosignatures of a majority.
func TestPublishQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		stop := c.run()
		defer stop()
		for _, p := range c.pubs {
			if err := p.WaitPublished(t.Context(), 3); err != nil {
				t.Fatal(err)
			}
			h, raw := p.Checkpoint()
			note, err := verify.ParseNote(raw)
			if err != nil {
				t.Fatal(err)
			}
			cp, err := verify.ParseCheckpoint(note.Text)
			if err != nil || cp.Size != h.Size || cp.Root != h.Root {
				t.Fatalf("checkpoint: got %+v, %v, want size %d", cp, err, h.Size)
			}
			v, err := p.VKey(cp.Origin)
			if err != nil {
				t.Fatal(err)
			}
			keys := map[string]bool{}
			for _, s := range note.Signatures {
				keys[s.Name] = true
				if v.Matches(s) {
					if _, err := v.Verify(note.Text, s); err != nil {
						t.Error(err)
					}
				}
			}
			if len(note.Signatures) < 5 || len(keys) != len(note.Signatures) {
				t.Errorf("got %d signatures of %d keys, want the log's and two of at least two nodes", len(note.Signatures), len(keys))
			}
		}
	})
}

// TestPublishMinority shows that nothing is published without a majority, that at most MaxUnpublished seals wait for it,
// and that publishing goes on once the majority is back.
func TestPublishMinority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		c.cut[nhi.ID{2}], c.cut[nhi.ID{3}] = true, true
		stop := c.run()
		defer stop()
		time.Sleep(time.Minute)
		if got := c.pubs[0].Published(); got.Size != 0 {
			t.Errorf("published alone: got size %d, want 0", got.Size)
		}
		if got := c.ledgers[0].Sealed().Size; got != MaxUnpublished {
			t.Errorf("seals without a quorum: got %d, want %d", got, MaxUnpublished)
		}
		c.mu.Lock()
		c.cut = map[nhi.ID]bool{}
		c.mu.Unlock()
		if err := c.pubs[0].WaitPublished(t.Context(), MaxUnpublished+1); err != nil {
			t.Fatal(err)
		}
	})
}

// TestMarkSurvives shows that a node that comes back with another root for a size it has signed refuses to go on, and one
// that is behind its mark signs nothing until it has caught up.
func TestMarkSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		stop := c.run()
		if err := c.pubs[0].WaitPublished(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		stop()
		size := c.ledgers[0].size
		want := c.pubs[0].Published()

		c.ledgers[0].size = 1
		p := c.open(0)
		if got := p.Published(); got != want {
			t.Errorf("published after a restart: got %+v, want %+v", got, want)
		}
		if err := p.sign(); err != nil || p.mu.own != nil {
			t.Errorf("behind the mark: got own %v, err %v, want nothing signed", p.mu.own, err)
		}
		c.ledgers[0].size = size
		c.ledgers[0].forked = true
		if err := p.sign(); err == nil {
			t.Error("another root for a signed size was signed")
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestReceiveRefuses shows which cosignatures do not count.
func TestReceiveRefuses(t *testing.T) {
	c := newCluster(t, 3)
	for _, l := range c.ledgers {
		l.seal()
	}
	for _, p := range c.pubs {
		if err := p.sign(); err != nil {
			t.Fatal(err)
		}
	}
	good := *c.pubs[1].mu.own
	for name, change := range map[string]func(*Cosignature){
		"not a voter":    func(c *Cosignature) { c.Node = nhi.ID{7} },
		"another node":   func(c *Cosignature) { c.Node = nhi.ID{3} },
		"another size":   func(c *Cosignature) { c.Size++ },
		"another root":   func(c *Cosignature) { c.Root[0] ^= 1 },
		"one line":       func(c *Cosignature) { c.Lines = c.Lines[:1] },
		"no lines":       func(c *Cosignature) { c.Lines = nil },
		"swapped lines":  func(c *Cosignature) { c.Lines = [][]byte{c.Lines[1], c.Lines[0]} },
		"size zero":      func(c *Cosignature) { c.Size = 0 },
		"size too large": func(c *Cosignature) { c.Size = 1 << 60 },
		"garbage":        func(c *Cosignature) { c.Lines = [][]byte{[]byte("\u2014 x y\n"), c.Lines[1]} },
	} {
		bad := good
		bad.Lines = append([][]byte(nil), good.Lines...)
		change(&bad)
		if _, err := c.pubs[0].Receive(bad); !errors.Is(err, ErrCosignature) {
			t.Errorf("%s: got %v, want ErrCosignature", name, err)
		}
	}
	if got := c.pubs[0].Published().Size; got != 0 {
		t.Errorf("published by refused cosignatures: got size %d, want 0", got)
	}
	if _, err := c.pubs[0].Receive(good); err != nil {
		t.Errorf("the good one: got %v, want nil", err)
	}
	if got := c.pubs[0].Published().Size; got != 1 {
		t.Errorf("published: got size %d, want 1", got)
	}

	// A node that signs another root for the same size, with its own key.
	c.ledgers[2].forked = true
	fs := vfs.NewMem()
	c.fs[2] = fs
	forked := c.open(2)
	if err := forked.sign(); err != nil {
		t.Fatal(err)
	}
	var e *EquivocationError
	if _, err := c.pubs[0].Receive(*forked.mu.own); !errors.As(err, &e) || e.Node != (nhi.ID{3}) {
		t.Errorf("a forked head: got %v, want an EquivocationError of node 3", err)
	}
	for _, p := range append(c.pubs, forked) {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestForkBeyondMark shows that a node whose spine has grown past its mark on another history refuses to sign it.
func TestForkBeyondMark(t *testing.T) {
	c := newCluster(t, 3)
	c.ledgers[0].seal()
	if err := c.pubs[0].sign(); err != nil {
		t.Fatal(err)
	}
	c.ledgers[0].forked = true
	c.ledgers[0].seal()
	before := *c.pubs[0].mu.own
	if err := c.pubs[0].sign(); err == nil {
		t.Error("a fork beyond the mark was signed")
	}
	if got := *c.pubs[0].mu.own; got.Size != before.Size {
		t.Errorf("own cosignature: got size %d, want %d", got.Size, before.Size)
	}
	c.close()
}

// TestLyingVoter shows that one voter with another root stops nobody else: the others publish without it, keep its
// signatures as evidence over a restart, and the voter itself, contradicted by a majority, stops.
func TestLyingVoter(t *testing.T) {
	c := newCluster(t, 3)
	c.ledgers[2].forked = true
	for _, l := range c.ledgers {
		l.seal()
	}
	for _, p := range c.pubs {
		if err := p.sign(); err != nil {
			t.Fatal(err)
		}
	}
	lie := *c.pubs[2].mu.own
	for _, p := range c.pubs[:2] {
		var e *EquivocationError
		if _, err := p.Receive(lie); !errors.As(err, &e) {
			t.Errorf("the lie: got %v, want an EquivocationError", err)
		}
	}
	for i, p := range c.pubs[:2] {
		if _, err := p.Receive(*c.pubs[1-i].mu.own); err != nil {
			t.Fatal(err)
		}
		if got := p.Published(); got.Size != 1 || got.Root != c.ledgers[0].root(1) {
			t.Errorf("published: got %+v, want size 1 of the honest root", got)
		}
		e, err := p.Evidence(nhi.ID{3})
		if err != nil || e == nil || e.Theirs != lie.Root || len(e.Signature) != 2 {
			t.Errorf("evidence: got %+v, %v, want the lines over root %x", e, err, lie.Root)
		}
	}
	for _, p := range c.pubs[:2] {
		_, _ = c.pubs[2].Receive(*p.mu.own) // the answer is in assemble, which signLoop asks
	}
	if err := c.pubs[2].assemble(); !errors.Is(err, ErrDiverged) {
		t.Errorf("the voter that lies: got %v, want ErrDiverged", err)
	}
	c.close()
}

// TestFloodingVoter shows that cosignatures for sizes far ahead displace only the sender's own.
func TestFloodingVoter(t *testing.T) {
	c := newCluster(t, 3)
	for size := range uint64(40) {
		cp := verify.Checkpoint{Origin: verify.SpineOrigin("test.example/c"), Size: 1_000_000 + size, Root: nhi.Digest{1}}
		flood := Cosignature{Node: nhi.ID{3}, Epoch: cp.Size, Size: cp.Size, Root: cp.Root}
		for _, s := range []verify.NoteSigner{c.pubs[2].ed, c.pubs[2].pq} {
			line, err := verify.Cosign(cp, s, 1)
			if err != nil {
				t.Fatal(err)
			}
			flood.Lines = append(flood.Lines, line.AppendTo(nil))
		}
		if _, err := c.pubs[0].Receive(flood); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(c.pubs[0].mu.pending[nhi.ID{3}]); got > keptCosignatures {
		t.Errorf("kept of the flood: got %d, want at most %d", got, keptCosignatures)
	}
	for _, l := range c.ledgers {
		l.seal()
	}
	for _, p := range c.pubs[:2] {
		if err := p.sign(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.pubs[0].Receive(*c.pubs[1].mu.own); err != nil {
		t.Fatal(err)
	}
	if got := c.pubs[0].Published().Size; got != 1 {
		t.Errorf("published beside a flood: got size %d, want 1", got)
	}
	c.close()
}
