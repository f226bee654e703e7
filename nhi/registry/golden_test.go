package registry

import (
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creto-systems/creto/nhi"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/link.txt anew")

// The bytes of a link and its id are frozen: they are signed and stand in leaves.
func TestGoldenLink(t *testing.T) {
	f := newFamily(t)
	l := f.third()
	l.Guards, l.Attest, l.Nonce = nhi.Digest{1}, nhi.Digest{2}, [16]byte{3}
	l.Oversight = append(l.Oversight, "cfo")
	body, sig, id, err := SignLink(f.b.key, l)
	if err != nil {
		t.Fatal(err)
	}
	counter := BudgetCounter(id)
	got := "body " + hex.EncodeToString(body) + "\nlink_id " + id.String() + "\nbudget_counter " + hex.EncodeToString(counter[:]) +
		"\nissuer_seed " + hex.EncodeToString(f.b.key.Seed()) + "\nsignature " + hex.EncodeToString(sig) + "\n"
	path := filepath.Join("testdata", "link.txt")
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range w {
		if i >= len(g) || g[i] != w[i] {
			t.Errorf("line %d differs:\ngot  %.200s\nwant %.200s", i+1, g[min(i, len(g)-1)], w[i])
		}
	}
}
