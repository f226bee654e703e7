package arch

import "strings"

// Module is the path all our own imports begin with.
const Module = "github.com/creto-systems/creto"

// A Room is a folder with one purpose and a list of what it may import. A package belongs to
// the room with the longest Path that is a prefix of its folder; within a room everything may
// import everything.
type Room struct {
	Path string
	// Own lists the rooms it may import. "nhi/..." stands for nhi and every room below it,
	// "..." for all rooms.
	Own []string
	// External lists the module prefixes that non-test files may import besides the standard
	// library; nil leaves outside modules free (but see Confined).
	External []string
	// Denied lists packages of the standard library that non-test files must not import.
	Denied []string
	// AnyProto is set where every file may name the generated API types; elsewhere only
	// rpc.go, rpc_*.go and their tests may, and only in rooms that list proto in Own.
	AnyProto bool
	// Root allows background contexts: the room is where contexts begin.
	Root bool
}

// identity are the only outside modules that code which decides who signed what may rest on.
var identity = []string{
	"github.com/cloudflare/circl",
	"github.com/fxamacker/cbor/v2",
	"filippo.io/edwards25519",
}

// Rooms is the house. Arrows point down only; meter, oversight and sandbox never meet, they are
// joined in cmd/creto or through leaves.
var Rooms = []Room{
	{Path: "proto", Own: []string{}},

	{Path: "nhi", Own: []string{}, External: identity},
	{Path: "nhi/registry", Own: []string{"nhi"}, External: identity},
	{Path: "nhi/authz", Own: []string{"nhi"}, External: with(identity, "github.com/cedar-policy/cedar-go")},
	{Path: "nhi/spiffe", Own: []string{"nhi"}, External: with(identity, "github.com/spiffe/go-spiffe/v2")},
	{Path: "nhi/keyfile", Own: []string{"nhi"}, External: with(identity, "filippo.io/age")},

	{
		Path: "ledger/verify", Own: []string{"nhi"},
		External: []string{"golang.org/x/mod", "github.com/transparency-dev/merkle", "github.com/fxamacker/cbor/v2"},
		// A verifier is a function of the files it is given.
		Denied: []string{"net", "net/http", "os/exec", "math/rand", "math/rand/v2"},
	},
	{Path: "ledger", Own: []string{"nhi/...", "ledger/verify", "proto"}},
	{Path: "ledger/tiles", Own: []string{"nhi/...", "ledger", "ledger/verify", "proto"}},

	{Path: "consensus", Own: []string{}},

	{Path: "meter", Own: []string{"nhi/...", "ledger", "ledger/verify", "meter/kind", "meter/enforce", "proto"}},
	// What a room's events say: kind names, bodies and their codecs. Pure, because clients import it and link no store.
	{Path: "meter/kind", Own: []string{"nhi/...", "ledger/verify"}},
	{Path: "oversight/kind", Own: []string{"nhi/...", "ledger/verify"}},
	{Path: "sandbox/kind", Own: []string{"nhi/...", "ledger/verify"}},
	// The enforcer runs inside other people's programs.
	{Path: "meter/enforce", Own: []string{"nhi", "ledger/verify", "meter/kind", "proto"}},
	{Path: "oversight", Own: []string{"nhi/...", "ledger", "ledger/verify", "oversight/kind", "proto"}},
	{Path: "sandbox", Own: []string{"nhi/...", "ledger", "ledger/verify", "sandbox/kind", "proto"}},

	{Path: "sdk", Own: []string{"nhi/...", "ledger/verify", "meter/kind", "oversight/kind", "sandbox/kind", "meter/enforce", "proto"}, AnyProto: true, Root: true},
	{Path: "cmd", Own: []string{"..."}, AnyProto: true, Root: true},
	{Path: "test", Own: []string{"..."}, AnyProto: true, Root: true},
}

// Confined are libraries whose types stay behind one room's door; test may use all of them.
var Confined = map[string][]string{
	"github.com/hashicorp/raft":     {"consensus"},
	"github.com/hashicorp/raft-wal": {"consensus"},
	"github.com/cockroachdb/pebble": {"consensus", "ledger"},
}

// Folders are the only ones at the top of the tree that may hold anything of ours.
var Folders = []string{
	"proto", "nhi", "ledger", "consensus", "meter", "oversight", "sandbox", "cmd", "test",
	"docs", "deploy", "sdk", "tools", ".ci",
}

// unowned are folders that git ignores or owns.
var unowned = []string{".git", "bin", "demo-out"}

// drawers are names under which things are put that belong nowhere.
var drawers = []string{"common", "helper", "helpers", "misc", "pkg", "util", "utils"}

func with(list []string, more ...string) []string {
	return append(append([]string(nil), list...), more...)
}

// roomOf returns the room that holds the package folder dir (slash-separated, from the root).
func roomOf(dir string) *Room {
	var best *Room
	for i := range Rooms {
		r := &Rooms[i]
		if within(dir, r.Path) && (best == nil || len(r.Path) > len(best.Path)) {
			best = r
		}
	}
	return best
}

// within reports whether path is prefix or lies below it.
func within(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

// mayImport reports whether files of r may import packages of the room to.
func (r *Room) mayImport(to *Room) bool {
	if r == to {
		return true
	}
	for _, own := range r.Own {
		if own == "..." || own == to.Path {
			return true
		}
		if tree, ok := strings.CutSuffix(own, "/..."); ok && within(to.Path, tree) {
			return true
		}
	}
	return false
}
