package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// A bar appears after two seconds of work, says how far it is, and is taken away; where nobody watches there is none.
func TestProgress(t *testing.T) {
	var out bytes.Buffer
	a := &app{err: &out, getenv: func(string) string { return "" }}
	p := a.progress("exporting", "leaves") // a buffer is no terminal
	p.begun = time.Time{}
	p.set(1, 2)
	p.done()
	if out.Len() > 0 {
		t.Errorf("without a terminal: got %q, want nothing", out.String())
	}
	p = &progress{a: a, what: "exporting", unit: "leaves", begun: time.Now().Add(time.Hour)}
	p.set(1, 2)
	p.done()
	if out.Len() > 0 {
		t.Errorf("at once: got %q, want nothing", out.String())
	}
	p.begun = time.Time{}
	p.set(1, 2)
	p.set(2, 2) // within a tenth of a second
	want := "\r\x1b[Kexporting  [" + strings.Repeat("=", 15) + strings.Repeat(" ", 15) + "] 1/2 leaves"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	p.done()
	if want += "\r\x1b[K"; out.String() != want {
		t.Errorf("got %q, want the bar taken away", out.String())
	}
	out.Reset()
	p.last = time.Time{}
	p.set(7, 0)
	if want := "\r\x1b[Kexporting  7 leaves"; out.String() != want {
		t.Errorf("without a total: got %q, want %q", out.String(), want)
	}
}
