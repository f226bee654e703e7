package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestFileIsCurrent: the file in the repository is what the generator writes.
func TestFileIsCurrent(t *testing.T) {
	want, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join("..", fileName))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what go run ./test/vectors/ledger writes", fileName)
	}
}
