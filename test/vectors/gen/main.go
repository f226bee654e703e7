// Command gen writes the vectors for composite keys, signatures, events and
// envelopes into test/vectors:
//
//	go run ./test/vectors/gen
//
// It builds keys and signatures from the formulas of docs/formats.md with
// filippo.io/mldsa and the standard library, not with package nhi, so that the
// tests of nhi that read the files compare two implementations. Seeds are fixed
// and signing is deterministic: a run changes nothing unless a format changed,
// and a test here fails if it would.
//
// It does not write vectors for leaves, heads and proof files.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := run("test/vectors"); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	files, err := generate()
	if err != nil {
		return err
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return fmt.Errorf("write vectors: %w", err)
		}
	}
	return nil
}
