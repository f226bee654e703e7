package node

import (
	"sync"
	"time"
)

// Clock is the process's only source of time.
type Clock interface {
	Now() time.Time
}

// SystemClock is the machine's clock.
type SystemClock struct{}

// Now returns the time of day.
func (SystemClock) Now() time.Time { return time.Now() }

// TestClock is a clock that can be moved and frozen, for ledgers whose genesis says test. The zero value runs with the
// machine's clock. It is safe for concurrent use; the nodes of a development cluster share one.
type TestClock struct {
	mu     sync.Mutex
	offset time.Duration
	frozen time.Time // zero while it runs
}

// Now returns the clock's time.
func (c *TestClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nowLocked()
}

func (c *TestClock) nowLocked() time.Time {
	if !c.frozen.IsZero() {
		return c.frozen
	}
	return time.Now().Add(c.offset)
}

// Advance moves the clock forward by d, which is not negative, and returns the new time.
func (c *TestClock) Advance(d time.Duration) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frozen.IsZero() {
		c.offset += d
	} else {
		c.frozen = c.frozen.Add(d)
	}
	return c.nowLocked()
}

// Freeze stops the clock, Thaw lets it run on from where it stands.
func (c *TestClock) Freeze() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = c.nowLocked()
}

// Thaw lets a frozen clock run on.
func (c *TestClock) Thaw() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.frozen.IsZero() {
		c.offset = time.Until(c.frozen)
		c.frozen = time.Time{}
	}
}

// Frozen says whether the clock stands still.
func (c *TestClock) Frozen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.frozen.IsZero()
}
