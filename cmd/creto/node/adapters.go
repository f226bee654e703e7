package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/creto-systems/creto/consensus"
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/edge"
	"github.com/creto-systems/creto/ledger/publish"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

// stateMachine hands what consensus has ordered to the ledger.
type stateMachine struct {
	log    *ledger.Log
	views  *views
	sealed atomic.Pointer[publish.Sealed] // newest seal that this process has applied or found

	mu      sync.Mutex
	applied chan struct{} // closed after the next Apply, once sealed is stored; nil while nobody waits
}

// Applied returns a channel that is closed after the next Apply. Unlike the ledger's own, it is closed only when sealed
// shows what that Apply brought.
func (m *stateMachine) Applied() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.applied == nil {
		m.applied = make(chan struct{})
	}
	return m.applied
}

func (m *stateMachine) AppliedIndex() uint64 { return m.log.AppliedIndex() }

func (m *stateMachine) Apply(entries []consensus.Entry) ([]any, error) {
	in := make([]ledger.Entry, len(entries))
	for i, e := range entries {
		in[i] = ledger.Entry(e)
	}
	results, err := m.log.Apply(in)
	m.views.applied()
	for _, r := range results {
		if s, ok := r.(ledger.SealResult); ok && s.Sealed {
			m.sealed.Store(&publish.Sealed{Epoch: s.Epoch, Size: s.Size, Root: s.Root})
		}
	}
	m.mu.Lock()
	if m.applied != nil {
		close(m.applied)
		m.applied = nil
	}
	m.mu.Unlock()
	return results, err
}

// proposer lets the edge propose.
type proposer struct{ node *consensus.Node }

func (p proposer) Leading() bool { return p.node.Leading() }

func (p proposer) Propose(data []byte) func(context.Context) (any, error) {
	f := p.node.ProposeAsync(data)
	return func(ctx context.Context) (any, error) {
		r, _, err := f.Wait(ctx)
		if errors.Is(err, consensus.ErrPushback) {
			err = fmt.Errorf("%w: %w", edge.ErrPushback, err)
		}
		return r, err
	}
}

// edgeState is what the edge reads of the ledger.
type edgeState struct {
	log   *ledger.Log
	views *views
}

func (s edgeState) View(tenant nhi.ID) (ledger.View, func(), error) { return s.views.open(tenant) }

// viewOf opens the view of a tenant; the error matches edge.ErrUnknownTenant if there is none.
func viewOf(snap *ledger.Snapshot, tenant nhi.ID) (ledger.View, error) {
	t, err := snap.Tenant(tenant)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil, edge.ErrUnknownTenant
	}
	if err != nil {
		return nil, err
	}
	return snap.View(t)
}

func (s edgeState) Kind(name string) (ledger.Kind, bool) { return s.log.Kind(name) }

func (s edgeState) PublicKey(v ledger.View, key nhi.KeyID) (pk *nhi.PublicKey, err error) {
	err = ledger.Guard(func() error {
		pk, err = s.log.PublicKey(v, key)
		return err
	})
	return pk, err
}

func (s edgeState) Authorize(v ledger.View, ev *nhi.Event, key nhi.KeyID, at int64) (a ledger.Authority, err error) {
	err = ledger.Guard(func() error {
		a, err = s.log.Authorize(v, ev, key, at)
		return err
	})
	return a, err
}

// publishLedger is what the publisher reads of the ledger.
type publishLedger struct {
	log     *ledger.Log
	machine *stateMachine
	cluster string
}

func (p *publishLedger) Sealed() publish.Sealed {
	if s := p.machine.sealed.Load(); s != nil {
		return *s
	}
	return publish.Sealed{}
}

// restore finds the newest seal in a store that has been opened.
func (p *publishLedger) restore() error {
	snap, err := p.log.Read()
	if errors.Is(err, ledger.ErrNoLedger) {
		return nil
	}
	if err != nil {
		return err
	}
	defer snap.Close()
	epoch := snap.Epoch()
	if epoch == 0 {
		return nil
	}
	root, err := snap.RootAt(ledger.SpineSlot, epoch)
	if err != nil {
		return err
	}
	p.machine.sealed.CompareAndSwap(nil, &publish.Sealed{Epoch: epoch, Size: epoch, Root: root})
	return nil
}

func (p *publishLedger) SpineRoot(size uint64) (nhi.Digest, error) {
	snap, err := p.log.Read()
	if err != nil {
		return nhi.Digest{}, err
	}
	defer snap.Close()
	return snap.RootAt(ledger.SpineSlot, size)
}

func (p *publishLedger) News() bool {
	snap, err := p.log.Read()
	if err != nil {
		return false
	}
	defer snap.Close()
	news, err := snap.News()
	return err == nil && news
}

func (p *publishLedger) Applied() <-chan struct{} { return p.machine.Applied() }

func (p *publishLedger) Voters() ([]publish.Node, error) {
	ms, err := members(p.log)
	if err != nil {
		return nil, err
	}
	var out []publish.Node
	for _, m := range ms {
		if m.State != ledger.MemberVoter || m.Role != registry.RoleVoter {
			continue
		}
		n, err := publish.NewNode(p.cluster, m.ID, m.Ed, m.PQ)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

// members returns the nodes that the ledger knows, none before genesis.
func members(log *ledger.Log) ([]ledger.Member, error) {
	snap, err := log.Read()
	if errors.Is(err, ledger.ErrNoLedger) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	return snap.Members()
}

// sealer lets the publisher propose seals.
type sealer struct {
	node *consensus.Node
	now  func() int64
}

func (s sealer) Leading() bool { return s.node.Leading() }

func (s sealer) ProposeSeal(ctx context.Context, epoch uint64) error {
	_, err := propose(ctx, s.node, &ledger.Command{Type: ledger.CommandSeal, Time: s.now(), Epoch: epoch})
	return err
}

// propose commits one command and returns what applying it gave.
func propose(ctx context.Context, n *consensus.Node, c *ledger.Command) (any, error) {
	data, err := c.Encode()
	if err != nil {
		return nil, err
	}
	r, _, err := n.Propose(ctx, data)
	return r, err
}
