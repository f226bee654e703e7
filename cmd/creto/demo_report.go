package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// leftOut begins the line of a step that showed nothing, and says why.
const leftOut = "LEFT OUT: "

// demoStep is one thing that the demonstration shows. What run returns is the line that says so; more lines follow after
// a newline.
type demoStep struct {
	name string
	run  func(context.Context) (string, error)
}

// demoReport prints what was shown and how long it took to out, one line for each step, and, where somebody watches, what
// is being done to talk.
type demoReport struct {
	out, talk io.Writer
	live      bool

	mu   sync.Mutex
	what string // guarded by mu

	left []string // names of steps that were left out
}

func newDemoReport(out, talk io.Writer) *demoReport {
	return &demoReport{out: out, talk: talk, live: terminal(talk) && os.Getenv("TERM") != "dumb"}
}

func (r *demoReport) title(text string) { fmt.Fprintf(r.out, "%s\n", text) }

func (r *demoReport) section(title string) { fmt.Fprintf(r.out, "\n%s\n", title) }

// step runs one step and prints its line.
func (r *demoReport) step(ctx context.Context, s demoStep) error {
	r.mu.Lock()
	r.what = s.name
	r.mu.Unlock()
	r.progress(0, 0)
	begun := time.Now()
	text, err := s.run(ctx)
	r.clear()
	if err != nil {
		fmt.Fprintf(r.out, "  FAIL %6.2f s  %s: %v\n", time.Since(begun).Seconds(), s.name, err)
		return err
	}
	first, rest, more := strings.Cut(text, "\n")
	mark := "ok  "
	if strings.HasPrefix(first, leftOut) {
		mark = "--  "
		r.left = append(r.left, s.name)
	}
	fmt.Fprintf(r.out, "  %s %6.2f s  %s\n", mark, time.Since(begun).Seconds(), first)
	if more {
		for line := range strings.SplitSeq(rest, "\n") {
			fmt.Fprintf(r.out, "                 %s\n", line)
		}
	}
	return nil
}

// progress shows how far the current step is; total 0 shows only its name.
func (r *demoReport) progress(done, total int) {
	if !r.live {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if total == 0 {
		fmt.Fprintf(r.talk, "\r\x1b[K  …  %s", r.what)
		return
	}
	const width = 30
	fill := min(done, total) * width / total
	fmt.Fprintf(r.talk, "\r\x1b[K  …  %s  [%s%s] %s of %s", r.what, strings.Repeat("=", fill), strings.Repeat(" ", width-fill),
		thousands(uint64(done)), thousands(uint64(total)))
}

func (r *demoReport) clear() {
	if r.live {
		fmt.Fprint(r.talk, "\r\x1b[K")
	}
}

func (r *demoReport) failed(hint string) {
	if hint != "" {
		fmt.Fprintf(r.talk, "  hint: %s\n", hint)
	}
}

// close says that everything held, or everything but what was left out, and what to try next.
func (r *demoReport) close(took time.Duration, next []string) {
	but := ""
	if len(r.left) > 0 {
		but = " but what was left out (" + strings.Join(r.left, ", ") + ")"
	}
	fmt.Fprintf(r.out, "\nAll of it%s held, in %.0f s. Try next:\n\n", but, took.Seconds())
	for _, command := range next {
		fmt.Fprintf(r.out, "  %s\n", command)
	}
}

// thousands writes a number with commas between its thousands.
func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
