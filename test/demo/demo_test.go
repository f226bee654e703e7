package demo

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf16"
)

// names are the humans of the demonstration. They stand nowhere but in this file and where the demonstration puts them.
var names = []string{"Zdenka Quillfeather", "Obadiah Thrumpington"}

// built is the folder of the programs, for all tests.
var built string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "creto-demo-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	built = dir
	return m.Run()
}

var build = sync.OnceValue(func() error {
	for _, b := range []struct{ out, pkg string }{{"creto", "./cmd/creto"}, {"creto-hello", "./sandbox/hello"}} {
		cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(built, b.out), b.pkg)
		cmd.Dir = filepath.Join("..", "..")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", b.pkg, err, out)
		}
	}
	return nil
})

// program builds creto and what its demonstration needs beside it, once.
func program(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the demonstration kills processes and isolates others as Linux does")
	}
	if err := build(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(built, "creto")
}

func TestDemo(t *testing.T) {
	creto := program(t)
	dir := filepath.Join(t.TempDir(), "out")
	cmd := exec.CommandContext(t.Context(), creto, "demo", "--dir", dir, "--events", "900", "--human", names[0], "--human", names[1])
	cmd.Dir = filepath.Join("..", "..") // ../shared/data lies beside it
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	if err := cmd.Run(); err != nil {
		t.Fatalf("creto demo: %v\n%s%s%s", err, out.Bytes(), talk.Bytes(), logs(dir))
	}
	if talk.Len() > 0 {
		t.Errorf("without a terminal, got talk %q, want none", talk.Bytes())
	}
	if bytes.ContainsAny(out.Bytes(), "\x1b\r") {
		t.Error("without a terminal, got control characters in the output, want none")
	}
	for _, want := range []string{
		`three servers on loopback, processes \d+, \d+ and \d+`,
		`engineering lead > coder > reviewer > tester`,
		`kill -9 of node \d, the leader`,
		`requests refused, exactly those`,
		`each event gets its first answer`,
		`all three have applied entry [\d,]+ and have state hash [0-9a-f]+`,
		`may not approve; the engineering lead does`,
		`a second claim is refused: already claimed at index \d+`,
		`erased at index \d+`,
		`financial controller > buyer +\d+ `,
		`creto verify passes`,
		`added up from the leaves: [\d,]+ input`,
		`fails at step "leaves" with exit code 12: damaged`,
		`fails at step "leaves" with exit code 12: tampering`,
		`Try next:`,
	} {
		if !regexp.MustCompile(want).Match(out.Bytes()) {
			t.Errorf("nothing printed matches %s", want)
		}
	}
	switch line := regexp.MustCompile(`a command ran under (bubblewrap|runc|oci) .*exit code 0`); {
	case line.Match(out.Bytes()):
	case bytes.Contains(out.Bytes(), []byte("LEFT OUT: ")) && os.Getenv("CI") != "true":
		t.Log("neither bubblewrap nor runc is here: the sandbox was left out")
	default:
		t.Error("no command ran in a sandbox")
	}
	if t.Failed() {
		t.Logf("it printed:\n%s", out.Bytes())
	}

	for _, found := range search(t, dir) {
		t.Error(found)
	}
	if found := leaks(out.Bytes()); found != "" {
		t.Errorf("a human's name in what was printed, %s", found)
	}
}

// TestLeakIsFound shows that the search finds what it is for.
func TestLeakIsFound(t *testing.T) {
	name := []byte(names[0])
	for form, leaked := range map[string][]byte{
		"text": name, "hex": []byte(hex.EncodeToString(name)), "base64": []byte(base64.StdEncoding.EncodeToString(append([]byte("{"), name...))),
		"url base64": []byte(base64.RawURLEncoding.EncodeToString(append([]byte("??"), name...))), "upper case": bytes.ToUpper(name),
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "000001.sst"), slices.Concat([]byte("before"), leaked, []byte("after")), 0o600); err != nil {
			t.Fatal(err)
		}
		if len(search(t, dir)) == 0 {
			t.Errorf("%s: a name in the clear was not found", form)
		}
	}
	if found := search(t, t.TempDir()); len(found) != 0 {
		t.Errorf("empty folder: got %q, want nothing", found)
	}
}

func TestRefuses(t *testing.T) {
	creto := program(t)
	foreign := t.TempDir()
	keep := filepath.Join(foreign, "keep")
	if err := os.WriteFile(keep, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		env  string
		args []string
		want string
	}{
		{"a folder of somebody else", "CI=", []string{"--dir", foreign}, "did not make it"},
		{"a sandbox left out in CI", "CI=true", []string{"--no-sandbox", "--dir", t.TempDir()}, "refused where CI=true"},
		{"one human", "CI=", []string{"--human", "A", "--dir", t.TempDir()}, "two humans"},
		{"too little traffic", "CI=", []string{"--events", "3", "--dir", t.TempDir()}, "too few"},
		{"no such file", "CI=", []string{"--csv", filepath.Join(foreign, "none.csv"), "--dir", t.TempDir()}, "none.csv"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), creto, append([]string{"demo"}, tt.args...)...)
			cmd.Env = append(os.Environ(), tt.env)
			out, err := cmd.CombinedOutput()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.ExitCode() != 1 {
				t.Errorf("got %v, want exit code 1", err)
			}
			if !strings.Contains(string(out), tt.want) {
				t.Errorf("got %q, want something about %q", out, tt.want)
			}
		})
	}
	if b, err := os.ReadFile(keep); err != nil || string(b) != "mine" {
		t.Errorf("the folder of somebody else was touched: got %q, %v", b, err)
	}
}

// search looks for the humans' names in every file below dir and says where it found one.
func search(t *testing.T, dir string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if leak := leaks([]byte(d.Name())); leak != "" {
			found = append(found, fmt.Sprintf("a human's name in the name of %s", path))
		}
		if !d.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if leak := leaks(b); leak != "" {
			found = append(found, fmt.Sprintf("a human's name in %s, %s", path, leak))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// leaks says in which form data holds a human's name, or one of its words, "" if in none.
func leaks(data []byte) string {
	lower := bytes.ToLower(data)
	for _, name := range names {
		for _, word := range append(strings.Fields(name), name) {
			if bytes.Contains(lower, []byte(strings.ToLower(word))) {
				return "as text"
			}
			if bytes.Contains(lower, []byte(hex.EncodeToString([]byte(word)))) {
				return "as hex"
			}
			var wide []byte
			for _, u := range utf16.Encode([]rune(word)) {
				wide = append(wide, byte(u), byte(u>>8))
			}
			if bytes.Contains(data, wide) {
				return "as UTF-16"
			}
			for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				for shift := range 3 {
					if bytes.Contains(data, inside(e, word, shift)) {
						return "as base64"
					}
				}
			}
		}
	}
	return ""
}

// inside is the part of the base64 of text that does not depend on what stands before and after it, where shift bytes
// (modulo 3) stand before it.
func inside(e *base64.Encoding, text string, shift int) []byte {
	padded := append(make([]byte, shift), text...)
	encoded := e.EncodeToString(padded[:len(padded)/3*3])
	return []byte(encoded[(shift*8+5)/6:])
}

// logs returns the end of what the servers said, for a failure.
func logs(dir string) (out []byte) {
	files, _ := filepath.Glob(filepath.Join(dir, "logs", "*.log"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		out = fmt.Appendf(out, "--- %s\n%s\n", filepath.Base(f), b[max(0, len(b)-4000):])
	}
	return out
}
