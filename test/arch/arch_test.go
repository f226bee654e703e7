package arch

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

const root = "../.."

// TestTree holds this repository against the table.
func TestTree(t *testing.T) {
	found, err := Check(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		t.Error(v)
	}
}

// TestLinks asks the go command what the packages that run in other people's programs link in
// the end: a direct import is only the first step.
func TestLinks(t *testing.T) {
	server := []string{"github.com/hashicorp/raft", "github.com/hashicorp/raft-wal", "github.com/cockroachdb/pebble", "github.com/cockroachdb/pebble/v2"}
	for _, dir := range []string{"meter/enforce", "sdk/go", "ledger/verify", "nhi", "meter/kind", "oversight/kind", "sandbox/kind", "sandbox/node", "sandbox/bubblewrap", "sandbox/oci"} {
		t.Run(dir, func(t *testing.T) {
			if files, err := filepath.Glob(filepath.Join(root, dir, "*.go")); err != nil || len(files) == 0 {
				t.Skipf("%s holds no Go", dir)
			}
			cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "./"+dir)
			cmd.Dir = root
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
			}
			for linked := range strings.FieldsSeq(string(out)) {
				for _, library := range server {
					if within(linked, library) {
						t.Errorf("%s links %s", dir, linked)
					}
				}
			}
		})
	}
}

// TestCheckFinds breaks each rule once in a tree that is otherwise right.
func TestCheckFinds(t *testing.T) {
	const own = Module + "/"
	for _, tt := range []struct {
		name  string
		files map[string]string // added to the sound tree
		want  []string          // violations; nil means none
	}{
		{"sound", nil, nil},
		{"domains meet", map[string]string{
			"meter/a.go": imports("meter", own+"oversight"),
		}, []string{"meter/a.go: room meter must not import oversight"}},
		{"domains meet in a test", map[string]string{
			"sandbox/a_test.go": imports("sandbox", own+"meter"),
		}, []string{"sandbox/a_test.go: room sandbox must not import meter"}},
		{"adapter reaches across", map[string]string{
			"oversight/slack/a.go":      "// Package slack is commented.\n" + imports("slack", own+"sandbox", own+"oversight"),
			"oversight/slack/DESIGN.md": "",
		}, []string{"oversight/slack/a.go: room oversight must not import sandbox"}},
		{"consensus knows a domain", map[string]string{
			"consensus/a.go": imports("consensus", own+"nhi"),
		}, []string{"consensus/a.go: room consensus must not import nhi"}},
		{"arrow up", map[string]string{
			"nhi/a.go": imports("nhi", own+"nhi/registry"),
		}, []string{"nhi/a.go: room nhi must not import nhi/registry"}},
		{"ledger knows consensus", map[string]string{
			"ledger/a.go": imports("ledger", own+"consensus"),
		}, []string{"ledger/a.go: room ledger must not import consensus"}},
		{"raft in cmd", map[string]string{
			"cmd/creto/a.go": imports("main", "github.com/hashicorp/raft"),
		}, []string{"cmd/creto/a.go: room cmd must not import github.com/hashicorp/raft: it stays in consensus"}},
		{"raft-wal in the ledger", map[string]string{
			"ledger/a_test.go": imports("ledger", "github.com/hashicorp/raft-wal/metadb"),
		}, []string{"ledger/a_test.go: room ledger must not import github.com/hashicorp/raft-wal/metadb: it stays in consensus"}},
		{"pebble in a domain", map[string]string{
			"meter/a.go": imports("meter", "github.com/cockroachdb/pebble/v2/vfs"),
		}, []string{"meter/a.go: room meter must not import github.com/cockroachdb/pebble/v2/vfs: it stays in consensus and ledger"}},
		{"pebble at home and in test", map[string]string{
			"ledger/a.go":    imports("ledger", "github.com/cockroachdb/pebble/v2"),
			"consensus/a.go": imports("consensus", "github.com/cockroachdb/pebble/v2", "github.com/hashicorp/raft"),
			"test/a.go":      "// Package test is commented.\n" + imports("test", "github.com/hashicorp/raft", "github.com/cockroachdb/pebble/v2", own+"meter", own+"sandbox"),
			"test/DESIGN.md": "",
		}, nil},
		{"API types beyond rpc.go", map[string]string{
			"meter/rpc.go":      imports("meter", own+"proto/creto/v1"),
			"meter/rpc_test.go": imports("meter", own+"proto/creto/v1"),
			"meter/quota.go":    imports("meter", own+"proto/creto/v1"),
			"cmd/creto/a.go":    imports("main", own+"proto/creto/v1"),
		}, []string{"meter/quota.go: generated API types belong in rpc.go"}},
		{"outside module in nhi", map[string]string{
			"nhi/a.go":        imports("nhi", "github.com/cloudflare/circl/sign/mldsa/mldsa65", "github.com/google/go-cmp/cmp"),
			"nhi/a_test.go":   imports("nhi", "github.com/google/go-cmp/cmp", "filippo.io/mldsa"),
			"nhi/registry.go": imports("nhi", "github.com/cedar-policy/cedar-go"),
		}, []string{
			"nhi/a.go: room nhi must not import github.com/google/go-cmp/cmp: outside modules it may use are github.com/cloudflare/circl, github.com/fxamacker/cbor/v2, filippo.io/edwards25519",
			"nhi/registry.go: room nhi must not import github.com/cedar-policy/cedar-go: outside modules it may use are github.com/cloudflare/circl, github.com/fxamacker/cbor/v2, filippo.io/edwards25519",
		}},
		{"verifier with a network", map[string]string{
			"ledger/verify/a.go": imports("verify", "net/http", "golang.org/x/mod/sumdb/note", own+"ledger"),
		}, []string{
			"ledger/verify/a.go: room ledger/verify must not import ledger",
			"ledger/verify/a.go: room ledger/verify must not import net/http",
		}},
		{"enforcer with a server", map[string]string{
			"meter/enforce/a.go":      "// Package enforce is commented.\n" + imports("enforce", own+"ledger"),
			"meter/enforce/DESIGN.md": "",
		}, []string{"meter/enforce/a.go: room meter/enforce must not import ledger"}},
		{"test code in a product", map[string]string{
			"nhi/a.go":              imports("nhi", own+"test/shared"),
			"nhi/a_test.go":         imports("nhi", own+"test/shared"),
			"test/shared/a.go":      "// Package shared is commented.\npackage shared\n",
			"test/shared/DESIGN.md": "",
		}, []string{"nhi/a.go: imports test/shared outside a test"}},
		{"contexts out of nowhere", map[string]string{
			"meter/a.go":      "package meter\n\nimport \"context\"\n\nvar c = context.Background()\n",
			"meter/b.go":      "package meter\n\nimport std \"context\"\n\nfunc f() context { return std.TODO() }\n",
			"meter/a_test.go": "package meter\n\nimport \"context\"\n\nvar d = context.Background()\n",
			"cmd/creto/a.go":  "package main\n\nimport \"context\"\n\nvar e = context.Background()\n",
		}, []string{
			"meter/a.go: line 5: context.Background below cmd",
			"meter/b.go: line 5: context.TODO below cmd",
		}},
		{"init", map[string]string{
			"ledger/a.go": "package ledger\n\nfunc init() {}\n\ntype t struct{}\n\nfunc (t) init() {}\n",
		}, []string{"ledger/a.go: line 3: has an init function"}},
		{"cgo", map[string]string{
			"ledger/a.go": imports("ledger", "C"),
		}, []string{"ledger/a.go: uses cgo"}},
		{"undocumented package", map[string]string{
			"ledger/tiles/a.go": "package tiles\n",
		}, []string{"ledger/tiles: package has no DESIGN.md", "ledger/tiles: package has no comment"}},
		{"folders", map[string]string{
			".github/ci.yaml":      "",
			"pkg/a.go":             "package pkg\n",
			"meter/util/a.go":      "// Package util is commented.\npackage util\n",
			"meter/util/DESIGN.md": "",
			"bin/creto":            "",
			"deploy/a.go":          "package deploy\n",
			"tools/go.mod":         "module tools\n",
			"tools/a.go":           "package tools\n",
			"meter/testdata/a.go":  "package broken (\n",
		}, []string{
			".github: is not one of the top-level folders",
			"deploy/a.go: is Go outside every room",
			"meter/util: is named for no subject",
			"pkg: is not one of the top-level folders",
		}},
		{"generated code is exempt from comments, not from arrows", map[string]string{
			"proto/creto/v1/b.pb.go": "// Code generated by hand. DO NOT EDIT.\n\n" + imports("cretov1", own+"ledger") + "\nfunc init() {}\n",
		}, []string{"proto/creto/v1/b.pb.go: room proto must not import ledger"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			found, err := Check(soundTree(tt.files))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, v := range found {
				got = append(got, v.String())
			}
			if g, w := strings.Join(got, "\n"), strings.Join(tt.want, "\n"); g != w {
				t.Errorf("got:\n%s\nwant:\n%s", g, w)
			}
		})
	}
}

// TestCheckRefusesWhatItCannotRead: a file that does not parse is an error, never a pass.
func TestCheckRefusesWhatItCannotRead(t *testing.T) {
	if _, err := Check(soundTree(map[string]string{"nhi/a.go": "package nhi (\n"})); err == nil {
		t.Error("got no error for a file that does not parse")
	}
}

// soundTree is a house in which every room stands and nothing is wrong.
func soundTree(more map[string]string) fs.FS {
	const own = Module + "/"
	tree := fstest.MapFS{}
	add := func(name, text string) { tree[name] = &fstest.MapFile{Data: []byte(text)} }
	add("go.mod", "module "+Module+"\n")
	add("proto/creto/v1/a.pb.go", "// Code generated by hand. DO NOT EDIT.\n\npackage cretov1\n")
	for dir, deps := range map[string][]string{
		"nhi":           nil,
		"nhi/canon":     nil,
		"nhi/registry":  {"nhi", "nhi/canon"},
		"nhi/authz":     {"nhi"},
		"ledger/verify": {"nhi"},
		"ledger":        {"nhi", "ledger/verify"},
		"consensus":     nil,
		"meter":         {"nhi", "nhi/registry", "ledger"},
		"oversight":     {"nhi", "ledger"},
		"sandbox":       {"nhi", "ledger"},
		"cmd/creto":     {"consensus", "meter", "oversight", "sandbox", "nhi/authz"},
	} {
		var paths []string
		for _, d := range deps {
			paths = append(paths, own+d)
		}
		name := filepath.Base(dir)
		if dir == "cmd/creto" {
			name = "main"
		}
		add(dir+"/doc.go", "// Package "+name+" is commented.\n"+imports(name, paths...))
		add(dir+"/DESIGN.md", "")
	}
	for name, text := range more {
		add(name, text)
	}
	return tree
}

// imports is the text of a file of package name with these imports.
func imports(name string, paths ...string) string {
	var b strings.Builder
	b.WriteString("package " + name + "\n")
	for _, p := range paths {
		b.WriteString("\nimport _ \"" + p + "\"\n")
	}
	return b.String()
}
