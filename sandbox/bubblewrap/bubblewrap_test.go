//go:build linux

package bubblewrap

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/creto-systems/creto/sandbox/backend"
	"github.com/creto-systems/creto/sandbox/backend/backendtest"
)

// cgroups reports whether control groups can be made here.
func cgroups(t *testing.T) bool {
	g, err := backend.NewCgroup("check", 64<<20, 8)
	if err != nil {
		t.Logf("no control groups: %v", err)
		return false
	}
	if err := g.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return true
}

func TestBackend(t *testing.T) { backendtest.Suite(t, New(Config{}), cgroups(t)) }

func TestBackendWithoutControlGroups(t *testing.T) {
	backendtest.Suite(t, New(Config{NoCgroup: true}), false)
}

func TestProbeSaysWhatIsMissing(t *testing.T) {
	if err := New(Config{Program: "no-such-bwrap"}).Probe(t.Context()); !errors.Is(err, backend.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

// Places of the node have user ids of their own, so that one run cannot reach another's processes or use up its limits.
func TestPlacesHaveTheirOwnUserIDs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: without it all runs are the node's own user")
	}
	b := New(Config{})
	backendtest.Ready(t, b)
	rootfs, program := backendtest.Build(t, "github.com/creto-systems/creto/sandbox/backend/backendtest/probe")
	done := make(chan error, 2)
	ctx, cancel := context.WithCancel(t.Context())
	for slot := range 2 {
		go func() {
			_, err := b.Run(ctx, backend.Spec{
				Name: "uids-" + string(rune('a'+slot)), Rootfs: rootfs, Command: []string{program, "spin"}, Wall: time.Minute, Memory: 64 << 20, Slot: slot,
			})
			done <- err
		}()
	}
	for deadline := time.Now().Add(10 * time.Second); countProcesses(DefaultUIDBase) < 4 || countProcesses(DefaultUIDBase+1) < 4; {
		if time.Now().After(deadline) {
			t.Error("the two runs have not two user ids on the host")
			break
		}
	}
	cancel()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
