package invariants

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/creto-systems/creto/cmd/creto/node"
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/meter"
	"github.com/creto-systems/creto/nhi/registry"
)

// Stopped is the state store of a node that is not running.
type Stopped struct {
	Replica
	log *ledger.Log
}

// LedgerConfig is how a server opens the state store in dir.
func LedgerConfig(dir string) ledger.Config {
	return ledger.Config{Dir: dir, Kinds: node.Kinds(), Tree: func(v ledger.View) registry.Tree { return meter.Tree{View: v} }}
}

// Open opens the state store of the stopped node in a directory.
func Open(name, nodeDir string) (*Stopped, error) {
	l, err := ledger.Open(LedgerConfig(filepath.Join(nodeDir, "state")))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	s, err := l.Read()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", name, err), l.Close())
	}
	return &Stopped{Replica{name, s}, l}, nil
}

// Close closes the store.
func (s *Stopped) Close() error { return errors.Join(s.Snap.Close(), s.log.Close()) }
