package main

import (
	"bufio"
	"context"
	"fmt"
	"os"

	"golang.org/x/term"
)

// ask shows a prompt and returns the line that is typed, which the terminal does not show if it is hidden. It ends with ctx, so
// that an interrupt is a way out of every question; the terminal is then as it was.
//
// The read itself cannot be ended. After an interrupt it waits on, in a program that does nothing else than end.
func (a *app) ask(ctx context.Context, in *os.File, prompt string, hidden bool) (string, error) {
	fd := int(in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("ask at the terminal: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	fmt.Fprint(a.err, prompt)
	type typed struct {
		line string
		err  error
	}
	answer := make(chan typed, 1)
	go func() {
		if hidden {
			b, err := term.ReadPassword(fd)
			answer <- typed{string(b), err}
			return
		}
		line, err := bufio.NewReader(in).ReadString('\n')
		answer <- typed{line, err}
	}()
	select {
	case t := <-answer:
		if hidden {
			fmt.Fprintln(a.err)
		}
		return t.line, t.err
	case <-ctx.Done():
		fmt.Fprintln(a.err)
		if err := term.Restore(fd, before); err != nil {
			return "", fmt.Errorf("restore the terminal: %w", err)
		}
		return "", ctx.Err()
	}
}
