package publish

import (
	"crypto/ed25519"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/creto-systems/creto/nhi"
)

// brokenDisk is a memory file system that can be told to refuse writes to the local store's log, and shows what a loss of power
// leaves of it: what was synced and nothing else.
type brokenDisk struct {
	vfs.FS
	mem    *vfs.MemFS
	broken atomic.Bool
}

func newBrokenDisk() *brokenDisk {
	d := &brokenDisk{mem: vfs.NewCrashableMem()}
	d.FS = errorfs.Wrap(d.mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if d.broken.Load() && strings.HasSuffix(op.Path, ".log") && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return errorfs.ErrInjected
		}
		return nil
	}))
	return d
}

// dies calls do, which must fail: a node stops on the error as on the store's own panic.
func dies(t *testing.T, do func() error) {
	t.Helper()
	err := func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
		}()
		return do()
	}()
	if err == nil {
		t.Fatal("the node goes on")
	}
}

// TestCrashAroundASignature ends a node at every point between seeing a head and sending its signature, and starts it again on
// what its disk has synced: on the same head it signs the same size and root; on another history it signs nothing, once the
// mark may stand before a signature.
func TestCrashAroundASignature(t *testing.T) {
	for name, c := range map[string]struct {
		crash     func(t *testing.T, c *cluster, p *Publisher, disk *brokenDisk)
		signed    bool // a signature existed, in this process at least
		marked    bool // the mark is on disk
		published uint64
	}{
		"before the mark is written": {crash: func(t *testing.T, _ *cluster, p *Publisher, disk *brokenDisk) {
			disk.broken.Store(true)
			dies(t, p.sign)
		}},
		"between the mark and the signature": {marked: true, crash: func(t *testing.T, _ *cluster, p *Publisher, _ *brokenDisk) {
			p.ed.key = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) // the signer fails
			dies(t, p.sign)
		}},
		"between the signature and the quorum's note": {marked: true, signed: true, crash: func(t *testing.T, c *cluster, p *Publisher, disk *brokenDisk) {
			if err := p.sign(); err != nil {
				t.Fatal(err)
			}
			disk.broken.Store(true)
			dies(t, func() error {
				_, err := p.Receive(*c.pubs[1].mu.own)
				return err
			})
		}},
		"between the note and sending it": {marked: true, signed: true, published: 1, crash: func(t *testing.T, c *cluster, p *Publisher, _ *brokenDisk) {
			if err := p.sign(); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Receive(*c.pubs[1].mu.own); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			cl := newCluster(t, 3)
			for _, l := range cl.ledgers {
				l.seal()
			}
			if err := cl.pubs[1].sign(); err != nil {
				t.Fatal(err)
			}
			disk := newBrokenDisk()
			cl.fs[0] = disk
			p := cl.open(0)
			t.Cleanup(func() {
				cl.close()
				defer func() { _ = recover() }() // its store may have died as the node would
				_ = p.Close()
			})
			c.crash(t, cl, p, disk)
			if signed := p.mu.own != nil; signed != c.signed {
				t.Errorf("signed before the crash: got %t, want %t", signed, c.signed)
			}
			honest := cl.ledgers[0]
			want := honest.Sealed()

			// Each time the node starts on what the crash has left.
			restart := func(l *fakeLedger) *Publisher {
				t.Helper()
				cl.ledgers[0], cl.fs[0] = l, disk.mem.CrashClone(vfs.CrashCloneCfg{})
				p := cl.open(0)
				t.Cleanup(func() {
					if err := p.Close(); err != nil {
						t.Error(err)
					}
				})
				if got := p.Published().Size; got != c.published {
					t.Errorf("published after the crash: got size %d, want %d", got, c.published)
				}
				if got := p.mu.mark.Size != 0; got != c.marked {
					t.Errorf("mark after the crash: got %t, want %t", got, c.marked)
				}
				return p
			}
			ledger := func(size uint64, forked bool) *fakeLedger {
				return &fakeLedger{size: size, forked: forked, applied: make(chan struct{}), voters: honest.voters}
			}
			again := restart(ledger(want.Size, false))
			if err := again.sign(); err != nil {
				t.Fatalf("the same head after the crash: %v", err)
			}
			if got := again.mu.own; got.Size != want.Size || got.Root != want.Root || got.Node != (nhi.ID{1}) {
				t.Errorf("signed after the crash: got size %d, root %x, want %d, %x", got.Size, got.Root, want.Size, want.Root)
			}
			if _, err := again.Receive(*cl.pubs[1].mu.own); err != nil || again.Published().Size != want.Size {
				t.Errorf("published after the crash: got size %d, %v, want %d", again.Published().Size, err, want.Size)
			}
			grown := restart(ledger(want.Size+1, false))
			if err := grown.sign(); err != nil || grown.mu.own.Size != want.Size+1 {
				t.Errorf("the head grown meanwhile: got %v, want it signed", err)
			}
			if !c.marked {
				return // nothing was signed, so nothing contradicts another history
			}
			for size := want.Size; size <= want.Size+1; size++ {
				if fork := restart(ledger(size, true)); fork.sign() == nil || fork.mu.own != nil {
					t.Errorf("another history of size %d was signed after the crash", size)
				}
			}
			empty := restart(ledger(0, false))
			if err := empty.sign(); err != nil || empty.mu.own != nil {
				t.Errorf("behind the mark: got %v, want nothing signed", err)
			}
		})
	}
}
