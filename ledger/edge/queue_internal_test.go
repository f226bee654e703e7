package edge

import (
	"errors"
	"runtime"
	"testing"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
)

// waiting returns an item of n events and size bytes.
func waiting(tenant nhi.ID, n, size int) *item {
	return &item{tenant: tenant, events: make([]*nhi.Event, n), size: size, answer: make(chan answer, 1)}
}

// TestTenantsTakeTurns shows that a tenant with much to do gets one command, and then everybody else theirs.
func TestTenantsTakeTurns(t *testing.T) {
	e := New(Config{})
	flood, late, other := nhi.ID{1}, nhi.ID{2}, nhi.ID{3}
	push := func(it *item) {
		t.Helper()
		if err := e.push(it); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		push(waiting(flood, maxCommandEvents, 1000))
	}
	push(waiting(late, 1, 1000))
	push(waiting(other, 1, maxCommandBytes-1))
	push(waiting(other, 1, 2)) // does not fit into the same command
	push(waiting(late, 1, 1000))
	type turn struct {
		tenant nhi.ID
		items  int
	}
	for i, want := range []turn{{flood, 1}, {late, 2}, {other, 1}, {flood, 1}, {other, 1}, {flood, 1}, {flood, 1}} {
		items := e.take()
		if len(items) == 0 {
			t.Fatalf("turn %d: nothing, want %+v", i, want)
		}
		if got := (turn{items[0].tenant, len(items)}); got != want {
			t.Errorf("turn %d: got %+v, want %+v", i, got, want)
		}
	}
	if items := e.take(); items != nil || len(e.queues) != 0 || len(e.ring) != 0 {
		t.Errorf("in the end: got %d items, %d queues, %d in the ring, want none", len(items), len(e.queues), len(e.ring))
	}
}

// TestQueueIsBounded shows that a full tenant is pushed back and another is not.
func TestQueueIsBounded(t *testing.T) {
	for name, it := range map[string]func() *item{
		"events": func() *item { return waiting(nhi.ID{1}, maxQueueEvents/4, 10) },
		"bytes":  func() *item { return waiting(nhi.ID{1}, 1, maxQueueBytes/4) },
	} {
		e := New(Config{})
		for i := range 4 {
			if err := e.push(it()); err != nil {
				t.Fatalf("%s: item %d: %v", name, i, err)
			}
		}
		if err := e.push(it()); !errors.Is(err, ErrPushback) || !e.full(nhi.ID{1}, len(it().events)) {
			t.Errorf("%s: got %v, full %t, want ErrPushback and full", name, err, e.full(nhi.ID{1}, len(it().events)))
		}
		if err := e.push(waiting(nhi.ID{2}, 1, 10)); err != nil {
			t.Errorf("%s: another tenant: %v", name, err)
		}
		if e.take() == nil {
			t.Fatal("nothing to take")
		}
		if err := e.push(waiting(nhi.ID{1}, 1, 10)); err != nil {
			t.Errorf("%s: after a command has left: %v", name, err)
		}
	}
	// What is larger than the bound can still come when nothing else waits.
	if err := New(Config{}).push(waiting(nhi.ID{1}, maxQueueEvents+1, maxQueueBytes+1)); err != nil {
		t.Errorf("alone: %v", err)
	}
}

// TestNodeIsBounded shows that all tenants together are pushed back at the node's bound, and that what ends gives its bytes
// back.
func TestNodeIsBounded(t *testing.T) {
	e := New(Config{})
	const size = maxQueueBytes / 2
	ctx := t.Context()
	answers := make(chan error)
	n := 0
	for ; n*size <= maxNodeBytes-size; n++ {
		it := waiting(nhi.ID{1, byte(n)}, 1, size)
		go func() {
			_, err := e.enqueue(ctx, it)
			answers <- err
		}()
	}
	for bytes, tenants := e.Load(); tenants != n || bytes != int64(n*size); bytes, tenants = e.Load() {
		runtime.Gosched()
	}
	if _, err := e.enqueue(ctx, waiting(nhi.ID{9}, 1, size)); !errors.Is(err, ErrPushback) {
		t.Errorf("beyond the node's bound: got %v, want ErrPushback", err)
	}
	if bytes, _ := e.Load(); bytes != int64(n*size) {
		t.Errorf("bytes after a pushback: got %d, want %d", bytes, n*size)
	}
	// A command that is answered makes room.
	items := e.take()
	e.flying <- struct{}{}
	e.cfg.LedgerID = func() nhi.Digest { return nhi.Digest{} }
	e.finish(items, []ledger.EventResult{{State: ledger.Stale}}, nil)
	if err := <-answers; err != nil {
		t.Error(err)
	}
	if bytes, tenants := e.Load(); bytes != int64((n-1)*size) || tenants != n-1 {
		t.Errorf("after an answer: got %d bytes of %d tenants, want %d of %d", bytes, tenants, (n-1)*size, n-1)
	}
	e.drain()
	for range n - 1 {
		if err := <-answers; !errors.Is(err, ErrUnavailable) {
			t.Errorf("drained: got %v, want ErrUnavailable", err)
		}
	}
	if bytes, tenants := e.Load(); bytes != 0 || tenants != 0 {
		t.Errorf("drained: got %d bytes of %d tenants, want none", bytes, tenants)
	}
}
