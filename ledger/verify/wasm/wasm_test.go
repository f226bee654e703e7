package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/ledger/verify/verifytest"
)

// TestBrowserBuild builds the WebAssembly program, runs it under node and has it verify a proof, a flipped one, and with
// another trust file.
func TestBrowserBuild(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		node = "" // the build is tested all the same
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "verify.wasm")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if node == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("node is absent")
		}
		t.Skip("node is absent: the program was built, not run")
	}
	l, err := verifytest.New("wasm", 1)
	if err != nil {
		t.Fatal(err)
	}
	tenant := l.AddTenant()
	if err := l.AppendSystem(tenant, "system.tick"); err != nil {
		t.Fatal(err)
	}
	if err := l.Seal(); err != nil {
		t.Fatal(err)
	}
	p, err := l.EventProof(tenant, 0)
	if err != nil {
		t.Fatal(err)
	}
	file, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	runtime := filepath.Join(strings.TrimSpace(string(root)), "lib", "wasm", "wasm_exec.js")
	script := `
require(process.argv[2]);
const fs = require("fs");
const go = new Go();
WebAssembly.instantiate(fs.readFileSync(process.argv[3]), go.importObject).then(({instance}) => {
  go.run(instance);
  const file = new Uint8Array(fs.readFileSync(process.argv[4])), trust = fs.readFileSync(process.argv[5], "utf8");
  const flipped = file.slice(); flipped[flipped.length >> 1] ^= 1;
  const results = [cretoVerify(file, trust), cretoVerify(flipped, trust), cretoVerify(file, "junk"), cretoVerify("x", trust), cretoVerify()];
  console.log("[" + results.join(",") + "]");
  process.exit(0);
});`
	for name, content := range map[string][]byte{"proof": file, "trust.txt": l.Trust(), "run.js": []byte(script)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), node, filepath.Join(dir, "run.js"), runtime, program, filepath.Join(dir, "proof"), filepath.Join(dir, "trust.txt")).Output()
	if err != nil {
		t.Fatalf("run: %v\n%s", err, out)
	}
	var got []verify.Report
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(got) != 5 || !got[0].OK || got[0].Kind != verify.KindEvent {
		t.Fatalf("got %+v, want the proof verified first", got)
	}
	for i, r := range got[1:] {
		if r.OK || r.Failure == nil || r.Failure.Detail == "" {
			t.Errorf("call %d: got %+v, want a failure", i+1, r)
		}
	}
}
