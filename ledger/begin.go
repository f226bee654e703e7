package ledger

import (
	"fmt"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// Kinds of the system log's leaves that no event brings about.
const (
	KindGenesis = "system.genesis"
	KindVersion = "system.version"
)

// GenesisResult is the result of a genesis command. Begun is false if the ledger had begun before.
type GenesisResult struct {
	Begun    bool
	LedgerID nhi.Digest
}

// VersionBody is the payload of a system.version leaf.
type VersionBody struct {
	Active uint32 `cbor:"1,keyasint"`
}

// begin is the genesis command: the first that is applied, and without effect ever after.
func (a *apply) begin(raw []byte) (GenesisResult, error) {
	if a.genesis != nil {
		return GenesisResult{LedgerID: a.id}, nil
	}
	g, err := DecodeGenesis(raw)
	if err != nil {
		return GenesisResult{}, err
	}
	a.found(g, append([]byte(nil), raw...))
	if g.Test {
		a.quality.Flags |= verify.FlagTest
	}
	a.meta.slots, a.meta.active = 1, 1
	a.x.set(genesisKey(), a.ident.Load().raw)
	a.x.set(rowKey(nil, tableTenants, SystemSlot, slotCountKey), slotKey(1))
	sys, err := a.tenant(SystemSlot)
	if err != nil {
		return GenesisResult{}, err
	}
	d, err := a.founders(g, sys.view, a.next)
	if err != nil {
		return GenesisResult{}, fmt.Errorf("register founders: %w", err)
	}
	if err := a.perform(sys, a.handlers[adminName], &d); err != nil {
		return GenesisResult{}, fmt.Errorf("register founders: %w", err)
	}
	leaf := &SystemLeaf{Kind: KindGenesis, Body: raw}
	if err := a.systemLeaf(sys, leaf, &verify.Cause{Kind: verify.CauseGenesis}, nhi.ID{}); err != nil {
		return GenesisResult{}, err
	}
	a.bump(sys, d.Bump)
	return GenesisResult{Begun: true, LedgerID: a.id}, nil
}

// activate raises the active feature level by one. A binary that does not know the new level stops; any other number than
// the next is without effect.
func (a *apply) activate(level uint32) (any, error) {
	if level != a.meta.active+1 {
		return a.meta.active, nil
	}
	if level > a.cfg.Level {
		return nil, fmt.Errorf("active level rises to %d, this binary knows %d", level, a.cfg.Level)
	}
	sys, err := a.tenant(SystemSlot)
	if err != nil {
		return nil, err
	}
	leaf := &SystemLeaf{Kind: KindVersion, Body: canon.MustMarshal(VersionBody{level})}
	if err := a.systemLeaf(sys, leaf, &verify.Cause{Kind: verify.CauseCommand}, nhi.ID{}); err != nil {
		return nil, err
	}
	a.meta.active = level
	for _, ts := range a.touched {
		ts.view.active = level
	}
	return level, nil
}
