package bubblewrap

import (
	"github.com/creto-systems/creto/sandbox/backend"
	"github.com/creto-systems/creto/sandbox/kind"
)

// Name of the backend in attestations.
const Name = "bubblewrap"

// DefaultUIDBase is the first user id on the host that runs get when the node is root.
const DefaultUIDBase = 2_000_000

// insideID is the user and group of the command as it sees itself.
const insideID = "65534"

// Config configures a Backend.
type Config struct {
	Program  string // bwrap; "" = found in PATH
	NoCgroup bool   // leave control groups alone, as where they are not writable
	UIDBase  int    // 0 = DefaultUIDBase; one id for each place of the node, from here on, unused by anything else
}

// Backend runs commands under bwrap.
type Backend struct {
	cfg     Config
	version string
}

var _ backend.Backend = (*Backend)(nil)

// New returns a Backend.
func New(cfg Config) *Backend {
	if cfg.Program == "" {
		cfg.Program = "bwrap"
	}
	if cfg.UIDBase == 0 {
		cfg.UIDBase = DefaultUIDBase
	}
	return &Backend{cfg: cfg}
}

// Name is bubblewrap.
func (b *Backend) Name() string { return Name }

// Version is bwrap's, after Probe.
func (b *Backend) Version() string { return b.version }

// Class is process.
func (b *Backend) Class() kind.Class { return kind.Process }
