package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/keyfile"
)

// newTerminal returns both ends of a pseudo-terminal: the one that a person sits at, and the program's.
func newTerminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no pseudo-terminal: %v", err)
		}
		t.Skipf("no pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	fd := int(person.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}

// prompted closes asked once a prompt was written.
type prompted struct {
	bytes.Buffer
	want  string
	asked func()
}

func (p *prompted) Write(b []byte) (int, error) {
	n, err := p.Buffer.Write(b)
	if strings.Contains(p.String(), p.want) {
		p.asked()
	}
	return n, err
}

func TestAsk(t *testing.T) {
	for _, hidden := range []bool{true, false} {
		person, program := newTerminal(t)
		a := &app{in: program, err: new(bytes.Buffer)}
		if _, err := person.WriteString("correct horse\n"); err != nil {
			t.Fatal(err)
		}
		got, err := a.ask(t.Context(), program, "say: ", hidden)
		if err != nil || strings.TrimSpace(got) != "correct horse" {
			t.Errorf("hidden %v: got %q, %v", hidden, got, err)
		}
	}
}

// TestAskInterrupted holds a question against an interrupt: it ends at once, and the terminal shows again what is typed.
func TestAskInterrupted(t *testing.T) {
	for _, hidden := range []bool{true, false} {
		person, program := newTerminal(t)
		before, err := term.GetState(int(program.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		a := &app{in: program, err: &prompted{want: "say: ", asked: cancel}}
		if _, err := a.ask(ctx, program, "say: ", hidden); !errors.Is(err, context.Canceled) {
			t.Errorf("hidden %v: got %v, want canceled", hidden, err)
		}
		if hidden {
			continue // the read, which nobody waits for, may set the terminal at any moment
		}
		if after, err := term.GetState(int(program.Fd())); err != nil || *after != *before {
			t.Errorf("the terminal is not as it was: %v", err)
		}
		if _, err := person.WriteString("end it\n"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPassphraseInterrupted runs a whole command into a prompt and interrupts it there.
func TestPassphraseInterrupted(t *testing.T) {
	key := filepath.Join(t.TempDir(), "h.key")
	signer, err := nhi.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := keyfile.Write(key, "correct horse", keyfile.Key{Role: "human", Suite: signer.Public().Suite(), Seed: signer.Seed()}); err != nil {
		t.Fatal(err)
	}
	_, program := newTerminal(t)
	ctx, cancel := context.WithCancel(t.Context())
	stderr := &prompted{want: "passphrase of", asked: cancel}
	a := &app{
		args: []string{"approval", "approve", "1", "--as", key, "--config", os.DevNull}, in: program, out: new(bytes.Buffer), err: stderr,
		getenv: func(string) string { return "" },
	}
	if code := a.run(ctx); code != exitLocal || !strings.HasSuffix(stderr.String(), "creto: interrupted\n") {
		t.Errorf("got code %d, %q", code, stderr.String())
	}
}
