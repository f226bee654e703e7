package publish

import (
	"context"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
)

// Height is the newest published spine: its epoch, size and root.
type Height struct {
	Epoch uint64
	Size  uint64
	Root  nhi.Digest
}

// Published returns the published height; the zero value before anything was published.
func (p *Publisher) Published() Height {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Height{p.mu.published.Epoch, p.mu.published.Size, p.mu.published.Root}
}

// Checkpoint returns the newest published spine checkpoint with its height: a note signed by the log key and cosigned by
// the node quorum. The note is nil before anything was published, and must not be modified.
func (p *Publisher) Checkpoint() (Height, []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Height{p.mu.published.Epoch, p.mu.published.Size, p.mu.published.Root}, p.mu.published.Note
}

// WaitPublished returns when the published epoch is at least epoch, or with ctx's error.
func (p *Publisher) WaitPublished(ctx context.Context, epoch uint64) error {
	for {
		p.mu.Lock()
		reached, changed := p.mu.published.Size > 0 && p.mu.published.Epoch >= epoch, p.mu.changed
		p.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// SignTenant returns the checkpoint of a tenant's log (the zero id: the system log) at a published head, signed by the log
// key only: it serves tile clients, who follow one log without the spine.
func (p *Publisher) SignTenant(tenant nhi.ID, size uint64, root nhi.Digest) ([]byte, error) {
	origin := verify.TenantOrigin(p.cfg.Cluster, tenant)
	s, err := logSigner(origin, p.cfg.Keys.Log)
	if err != nil {
		return nil, err
	}
	n, err := verify.SignCheckpoint(verify.Checkpoint{Origin: origin, Size: size, Root: root}, s)
	if err != nil {
		return nil, err
	}
	return n.Marshal(), nil
}

// VKey returns the log key's verifier key under an origin.
func (p *Publisher) VKey(origin string) (verify.VKey, error) {
	s, err := logSigner(origin, p.cfg.Keys.Log)
	return s.vkey, err
}
