//go:build !linux

package oci

import (
	"context"
	"fmt"
	"runtime"

	"github.com/creto-systems/creto/sandbox/backend"
)

// Probe says that this needs Linux.
func (b *Backend) Probe(context.Context) error {
	return fmt.Errorf("%w: runc needs Linux, this is %s", backend.ErrUnavailable, runtime.GOOS)
}

// Run says that this needs Linux.
func (b *Backend) Run(ctx context.Context, _ backend.Spec) (*backend.Result, error) {
	return nil, b.Probe(ctx)
}
