package main

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// progress is a bar on stderr for work that takes more than two seconds, and only where somebody watches: on a terminal.
type progress struct {
	a     *app
	what  string
	unit  string
	begun time.Time

	mu    sync.Mutex
	last  time.Time
	shown bool
}

// progress returns a bar, or one that shows nothing where stderr is no terminal.
func (a *app) progress(what, unit string) *progress {
	p := &progress{a: a, what: what, unit: unit, begun: time.Now()}
	if !terminal(a.err) || a.getenv("TERM") == "dumb" {
		p.a = nil
	}
	return p
}

func (p *progress) set(done, total uint64) {
	if p == nil || p.a == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.begun) < 2*time.Second || now.Sub(p.last) < 100*time.Millisecond {
		return
	}
	p.last, p.shown = now, true
	if total == 0 {
		fmt.Fprintf(p.a.err, "\r\x1b[K%s  %d %s", p.what, done, p.unit)
		return
	}
	const width = 30
	fill := int(min(done, total) * width / total)
	fmt.Fprintf(p.a.err, "\r\x1b[K%s  [%s%s] %d/%d %s", p.what, strings.Repeat("=", fill), strings.Repeat(" ", width-fill), done, total, p.unit)
}

// done takes the bar away.
func (p *progress) done() {
	if p == nil || p.a == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.a.err, "\r\x1b[K")
	}
}
