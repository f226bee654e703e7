package verify

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/test/shared"
	"github.com/transparency-dev/merkle/proof"
	"golang.org/x/mod/sumdb/tlog"
)

func loadJSON(t *testing.T, name string, v any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(shared.Dir(t, "conformance"), name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// digests converts a proof of the vectors; false if an element is not 32 bytes, which our types cannot express.
func digests(t *testing.T, b64 []string) ([]nhi.Digest, bool) {
	t.Helper()
	var out []nhi.Digest
	for _, s := range b64 {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) != 32 {
			return nil, false
		}
		out = append(out, nhi.Digest(b))
	}
	return out, true
}

func TestConformanceInclusion(t *testing.T) {
	var file struct {
		Vectors []struct {
			File, Root, LeafHash, Desc string
			LeafIdx, TreeSize          uint64
			Proof                      []string
			WantErr                    bool
		}
	}
	loadJSON(t, "merkle-inclusion.json", &file)
	if len(file.Vectors) != 98 {
		t.Fatalf("got %d vectors, want 98", len(file.Vectors))
	}
	for _, v := range file.Vectors {
		path, ok := digests(t, v.Proof)
		root, rok := digests(t, []string{v.Root})
		leaf, lok := digests(t, []string{v.LeafHash})
		err := errors.New("not 32 bytes")
		if ok && rok && lok {
			err = VerifyInclusion(v.LeafIdx, v.TreeSize, leaf[0], path, root[0])
		}
		if (err != nil) != v.WantErr {
			t.Errorf("%s: got %v, want error: %t", v.File, err, v.WantErr)
		}
	}
}

// vectorRoot takes a root of the vectors. A few are no digests but words; those keep only their being equal or not.
func vectorRoot(t *testing.T, b64 string) nhi.Digest {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(b64)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != 32 {
		return sha256.Sum256(b)
	}
	return nhi.Digest(b)
}

func TestConformanceConsistency(t *testing.T) {
	var file struct {
		Vectors []struct {
			File, Root1, Root2, Desc string
			Size1, Size2             uint64
			Proof                    []string
			WantErr                  bool
		}
	}
	loadJSON(t, "merkle-consistency.json", &file)
	if len(file.Vectors) != 98 {
		t.Fatalf("got %d vectors, want 98", len(file.Vectors))
	}
	for _, v := range file.Vectors {
		path, ok := digests(t, v.Proof)
		err := errors.New("not 32 bytes")
		if ok {
			err = VerifyConsistency(v.Size1, v.Size2, path, vectorRoot(t, v.Root1), vectorRoot(t, v.Root2))
		}
		if (err != nil) != v.WantErr {
			t.Errorf("%s: sizes %d, %d: got %v, want error: %t", v.File, v.Size1, v.Size2, err, v.WantErr)
		}
	}
}

func TestConformanceReferenceTree(t *testing.T) {
	var file struct {
		Leaves []string   `json:"leaf_inputs_hex"`
		Nodes  [][]string `json:"node_hashes_hex_by_level"`
		Roots  []string   `json:"roots_hex_by_size"`
	}
	loadJSON(t, "rfc6962-reference-tree.json", &file)
	tree := NewTree()
	var hashes []nhi.Digest
	for size := 0; ; size++ {
		root, err := tree.Root()
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(root[:]); got != file.Roots[size] {
			t.Errorf("size %d: got root %s, want %s", size, got, file.Roots[size])
		}
		if got := NewSmallTree(hashes).Root(); got != root {
			t.Errorf("size %d: got root %x of the small tree, want %x", size, got, root)
		}
		if size == len(file.Leaves) {
			break
		}
		leaf, err := hex.DecodeString(file.Leaves[size])
		if err != nil {
			t.Fatal(err)
		}
		h := LeafHash(leaf)
		if got := hex.EncodeToString(h[:]); got != file.Nodes[0][size] {
			t.Errorf("leaf %d: got %s, want %s", size, got, file.Nodes[0][size])
		}
		hashes = append(hashes, h)
		if err := tree.Append(h); err != nil {
			t.Fatal(err)
		}
	}
	if got := NodeHash(hashes[0], hashes[1]); hex.EncodeToString(got[:]) != file.Nodes[1][0] {
		t.Errorf("got node %x, want %s", got, file.Nodes[1][0])
	}
}

func TestConformanceBoundary(t *testing.T) {
	var file struct {
		Proofs []struct {
			Kind        string
			Index, Size uint64
			Proof       []string
		}
		Roots []struct {
			Size uint64
			Root string
		}
	}
	loadJSON(t, "synthetic-boundary.json", &file)
	tree, hashes := NewTree(), []nhi.Digest(nil)
	roots := map[uint64]nhi.Digest{}
	rootAt := func(size uint64) nhi.Digest {
		if r, ok := roots[size]; ok {
			return r
		}
		r := NewSmallTree(hashes[:size]).Root()
		roots[size] = r
		return r
	}
	for i := range uint64(131072) {
		h := LeafHash(binary.BigEndian.AppendUint64(nil, i))
		hashes = append(hashes, h)
		if err := tree.Append(h); err != nil {
			t.Fatal(err)
		}
		for _, r := range file.Roots {
			if r.Size == i+1 {
				want, _ := digests(t, []string{r.Root})
				got, err := tree.Root()
				if err != nil || got != want[0] {
					t.Errorf("size %d: got root %x, %v, want %x", r.Size, got, err, want[0])
				}
				resumed, err := ResumeTree(r.Size, tree.Hashes())
				if err != nil {
					t.Fatal(err)
				}
				if again, err := resumed.Root(); err != nil || again != got || resumed.Size() != r.Size {
					t.Errorf("size %d: got root %x of the resumed tree, %v", r.Size, again, err)
				}
				roots[r.Size] = got
			}
		}
	}
	if len(file.Proofs) < 19 || len(file.Roots) < 17 {
		t.Fatalf("got %d proofs, %d roots", len(file.Proofs), len(file.Roots))
	}
	for _, p := range file.Proofs {
		path, _ := digests(t, p.Proof)
		var err error
		if p.Kind == "inclusion" {
			err = VerifyInclusion(p.Index, p.Size, hashes[p.Index], path, rootAt(p.Size))
			if got := NewSmallTree(hashes[:p.Size]).Path(int(p.Index)); !slices.Equal(got, path) {
				t.Errorf("index %d, size %d: the small tree gives another path", p.Index, p.Size)
			}
		} else {
			err = VerifyConsistency(p.Index, p.Size, path, rootAt(p.Index), rootAt(p.Size))
		}
		if err != nil {
			t.Errorf("%s %d, %d: %v", p.Kind, p.Index, p.Size, err)
		}
	}
}

// TestConformanceHugeShapes checks that the path lengths we accept at sizes no tree can be built at are the ones the
// library computes, and that sizes beyond 2^53-1 and paths beyond 63 hashes are refused.
func TestConformanceHugeShapes(t *testing.T) {
	var file struct {
		Shapes []struct {
			Kind     string
			A, Size  string
			ProofLen int `json:"proof_len"`
		}
	}
	loadJSON(t, "huge-shapes.json", &file)
	if len(file.Shapes) == 0 {
		t.Fatal("no shapes")
	}
	for _, s := range file.Shapes {
		a, err := strconv.ParseUint(s.A, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		size, err := strconv.ParseUint(s.Size, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		path := make([]nhi.Digest, s.ProofLen)
		if s.Kind != "inclusion" {
			if err := VerifyConsistency(a, size, path, nhi.Digest{1}, nhi.Digest{2}); !errors.Is(err, ErrProof) {
				t.Errorf("consistency %s, %s: got %v, want ErrProof", s.A, s.Size, err)
			}
			continue
		}
		root, err := rootFromPath(a, size, nhi.Digest{}, path)
		if allowed := size <= MaxTreeSize && s.ProofLen <= MaxProofHashes; (err == nil) != allowed {
			t.Errorf("inclusion %s, %s with %d hashes: got %v, want allowed: %t", s.A, s.Size, s.ProofLen, err, allowed)
		}
		if err == nil {
			if err := VerifyInclusion(a, size, nhi.Digest{}, path, root); err != nil {
				t.Errorf("inclusion %s, %s: %v", s.A, s.Size, err)
			}
			if err := VerifyInclusion(a, size, nhi.Digest{}, path[1:], root); err == nil {
				t.Errorf("inclusion %s, %s: accepted a path that is one short", s.A, s.Size)
			}
		}
	}
}

// TestMerkleTraps names what the library accepts and we do not.
func TestMerkleTraps(t *testing.T) {
	junk, empty := nhi.Digest{1}, EmptyRoot()
	if got := hex.EncodeToString(empty[:]); got != "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
		t.Errorf("got empty root %s", got)
	}
	for _, c := range []struct {
		name         string
		size1, size2 uint64
		path         []nhi.Digest
		root1, root2 nhi.Digest
		ok           bool
	}{
		{"from the empty tree", 0, 5, nil, empty, junk, false},
		{"empty with another root", 0, 5, nil, junk, junk, false},
		{"empty with a proof", 0, 5, []nhi.Digest{junk}, empty, junk, false},
		{"empty to empty", 0, 0, nil, empty, empty, false},
		{"empty to empty with another root", 0, 0, nil, empty, junk, false},
		{"same size, same root", 5, 5, nil, junk, junk, true},
		{"same size, two roots", 5, 5, nil, junk, empty, false},
		{"same size with a proof", 5, 5, []nhi.Digest{junk}, junk, junk, false},
		{"shrinking", 6, 5, nil, junk, junk, false},
		{"beyond the cap", 1, MaxTreeSize + 1, nil, junk, junk, false},
		{"64 hashes", 1, MaxTreeSize, make([]nhi.Digest, 64), junk, junk, false},
	} {
		if err := VerifyConsistency(c.size1, c.size2, c.path, c.root1, c.root2); (err == nil) != c.ok {
			t.Errorf("%s: got %v, want ok: %t", c.name, err, c.ok)
		}
	}
	if err := VerifyInclusion(0, 0, junk, nil, junk); err == nil {
		t.Error("inclusion in the empty tree: accepted")
	}
	if err := VerifyInclusion(0, MaxTreeSize+1, junk, nil, junk); err == nil {
		t.Error("inclusion beyond the cap: accepted")
	}
	if _, err := ResumeTree(3, []nhi.Digest{junk}); err == nil {
		t.Error("a compact range with a hash too few: accepted")
	}
	if _, err := ResumeTree(MaxTreeSize+1, nil); err == nil {
		t.Error("a compact range beyond the cap: accepted")
	}
	full, err := ResumeTree(MaxTreeSize, make([]nhi.Digest, 53))
	if err != nil {
		t.Fatal(err)
	}
	if err := full.Append(junk); err == nil {
		t.Error("appended to a tree of 2^53-1 leaves")
	}
	last, err := ResumeTree(MaxTreeSize-1, make([]nhi.Digest, 52))
	if err != nil {
		t.Fatal(err)
	}
	if err := last.Append(junk); err != nil {
		t.Errorf("append leaf 2^53-2: %v", err)
	}
}

// TestMerkleAgainstSumdb checks every proof of small trees against golang.org/x/mod's implementation.
func TestMerkleAgainstSumdb(t *testing.T) {
	const n = 70
	var hashes []nhi.Digest
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var out []tlog.Hash
		for _, i := range indexes {
			out = append(out, stored[i])
		}
		return out, nil
	})
	for i := range int64(n) {
		leaf := []byte(strconv.FormatInt(i, 10))
		hashes = append(hashes, LeafHash(leaf))
		hs, err := tlog.StoredHashes(i, leaf, reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hs...)
	}
	for size := int64(1); size <= n; size++ {
		root, err := tlog.TreeHash(size, reader)
		if err != nil {
			t.Fatal(err)
		}
		small := NewSmallTree(hashes[:size])
		if small.Root() != nhi.Digest(root) {
			t.Fatalf("size %d: roots differ", size)
		}
		for i := range size {
			var p tlog.RecordProof
			for _, h := range small.Path(int(i)) {
				p = append(p, tlog.Hash(h))
			}
			if err := tlog.CheckRecord(p, size, root, i, tlog.Hash(hashes[i])); err != nil {
				t.Fatalf("size %d, leaf %d: sumdb refuses our path: %v", size, i, err)
			}
			if err := VerifyInclusion(uint64(i), uint64(size), hashes[i], small.Path(int(i)), nhi.Digest(root)); err != nil {
				t.Fatal(err)
			}
			old, err := tlog.TreeHash(i+1, reader)
			if err != nil {
				t.Fatal(err)
			}
			tp, err := tlog.ProveTree(size, i+1, reader)
			if err != nil {
				t.Fatal(err)
			}
			var path []nhi.Digest
			for _, h := range tp {
				path = append(path, nhi.Digest(h))
			}
			if err := VerifyConsistency(uint64(i+1), uint64(size), path, nhi.Digest(old), nhi.Digest(root)); err != nil {
				t.Fatalf("sizes %d, %d: %v", i+1, size, err)
			}
		}
	}
}

// pathLength returns the number of hashes of an inclusion path.
func pathLength(t testing.TB, index, size uint64) int {
	t.Helper()
	nodes, err := proof.Inclusion(index, size)
	if err != nil {
		t.Fatal(err)
	}
	_, begin, end := nodes.Ephem()
	if end > begin {
		return len(nodes.IDs) - (end - begin) + 1
	}
	return len(nodes.IDs)
}

func TestProofLengthAtTheCap(t *testing.T) {
	for _, index := range []uint64{0, 1, MaxTreeSize / 2, MaxTreeSize - 1} {
		if n := pathLength(t, index, MaxTreeSize); n > MaxProofHashes {
			t.Errorf("index %d: got %d hashes at size 2^53-1, want at most %d", index, n, MaxProofHashes)
		}
	}
}

func BenchmarkVerifyInclusion10M(b *testing.B) {
	const size, index = 10_000_000, 7_654_321
	path := make([]nhi.Digest, pathLength(b, index, size))
	root, err := rootFromPath(index, size, nhi.Digest{}, path)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := VerifyInclusion(index, size, nhi.Digest{}, path, root); err != nil {
			b.Fatal(err)
		}
	}
}
