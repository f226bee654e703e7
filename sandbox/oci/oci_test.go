//go:build linux

package oci

import (
	"errors"
	"testing"

	"github.com/creto-systems/creto/sandbox/backend"
	"github.com/creto-systems/creto/sandbox/backend/backendtest"
)

func TestBackend(t *testing.T) { backendtest.Suite(t, New(Config{}), true) }

func TestProbeSaysWhatIsMissing(t *testing.T) {
	if err := New(Config{Program: "no-such-runc"}).Probe(t.Context()); !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}
