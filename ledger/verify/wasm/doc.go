//go:build !(js && wasm)

// Command wasm is ledger/verify for a browser; it builds only with GOOS=js GOARCH=wasm.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "build with GOOS=js GOARCH=wasm")
	os.Exit(1)
}
