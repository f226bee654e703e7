package node

import (
	"errors"
	"fmt"
	"sync"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/edge"
	"github.com/creto-systems/creto/nhi"
)

// maxFreeViews bounds the views of one tenant that are kept for the next check.
const maxFreeViews = 16

// views shares one snapshot, and the views made from it, among the checks that fall between two commands: a check would
// otherwise read tenant, head and epochs from the store for every envelope. The snapshot is dropped when a command has been
// applied, so that an idle node holds none of an older state.
type views struct {
	log *ledger.Log

	mu     sync.Mutex
	now    *shared // guarded by mu; nil: the next check opens one
	closed bool    // guarded by mu
}

// shared is a snapshot with its users.
type shared struct {
	snap  *ledger.Snapshot
	index uint64
	users int                      // guarded by views.mu; checks under way, and views.now
	free  map[nhi.ID][]ledger.View // guarded by views.mu
}

var errViewsClosed = fmt.Errorf("%w: the node is stopping", edge.ErrUnavailable)

// open returns a view of a tenant and what ends its use.
func (p *views) open(tenant nhi.ID) (ledger.View, func(), error) {
	s, v, err := p.take(tenant)
	if err != nil {
		return nil, nil, err
	}
	if v == nil {
		if v, err = viewOf(s.snap, tenant); err != nil {
			p.drop(s)
			return nil, nil, err
		}
	}
	return v, func() { p.put(s, tenant, v) }, nil
}

// take returns the snapshot of now, and a view that nobody else uses if there is one.
func (p *views) take(tenant nhi.ID) (*shared, ledger.View, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, errViewsClosed
	}
	if p.now != nil && p.now.index != p.log.AppliedIndex() {
		p.replaceLocked(nil)
	}
	if p.now == nil {
		// The index is read first: a command applied in between makes the snapshot newer than it says, and it is soon replaced.
		index := p.log.AppliedIndex()
		snap, err := p.log.Read()
		if errors.Is(err, ledger.ErrNoLedger) {
			err = fmt.Errorf("%w: %w", edge.ErrUnavailable, err)
		}
		if err != nil {
			return nil, nil, err
		}
		p.replaceLocked(&shared{snap: snap, index: index, free: make(map[nhi.ID][]ledger.View)})
	}
	s := p.now
	s.users++
	if free := s.free[tenant]; len(free) > 0 {
		v := free[len(free)-1]
		s.free[tenant] = free[:len(free)-1]
		return s, v, nil
	}
	return s, nil, nil
}

func (p *views) put(s *shared, tenant nhi.ID, v ledger.View) {
	p.mu.Lock()
	if s == p.now && len(s.free[tenant]) < maxFreeViews {
		s.free[tenant] = append(s.free[tenant], v)
	}
	p.mu.Unlock()
	p.drop(s)
}

func (p *views) drop(s *shared) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLocked(s)
}

func (p *views) dropLocked(s *shared) {
	if s.users--; s.users == 0 {
		_ = s.snap.Close() // it only reads
	}
}

func (p *views) replaceLocked(s *shared) {
	if p.now != nil {
		p.dropLocked(p.now)
	}
	if p.now = s; s != nil {
		s.users++
	}
}

// applied is told after every batch of commands.
func (p *views) applied() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.replaceLocked(nil)
}

// close ends sharing. Checks under way end with their own.
func (p *views) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.replaceLocked(nil)
}
