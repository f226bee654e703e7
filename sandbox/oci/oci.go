package oci

import (
	"github.com/creto-systems/creto/sandbox/backend"
	"github.com/creto-systems/creto/sandbox/kind"
)

// Name of the backend in attestations.
const Name = "runc"

// DefaultUIDBase is the first user id that runs get.
const DefaultUIDBase = 2_001_000

// Config configures a Backend.
type Config struct {
	Program string // runc; "" = found in PATH
	Dir     string // where bundles and the state of runc live while a run lasts; "" = the folder for temporary files
	UIDBase int    // 0 = DefaultUIDBase; one id for each place of the node, from here on, unused by anything else
}

// Backend runs commands in containers.
type Backend struct {
	cfg     Config
	version string
}

var _ backend.Backend = (*Backend)(nil)

// New returns a Backend.
func New(cfg Config) *Backend {
	if cfg.Program == "" {
		cfg.Program = "runc"
	}
	if cfg.UIDBase == 0 {
		cfg.UIDBase = DefaultUIDBase
	}
	return &Backend{cfg: cfg}
}

// Name is runc.
func (b *Backend) Name() string { return Name }

// Version is runc's, after Probe.
func (b *Backend) Version() string { return b.version }

// Class is container.
func (b *Backend) Class() kind.Class { return kind.Container }
