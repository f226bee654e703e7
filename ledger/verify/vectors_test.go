package verify_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/google/go-cmp/cmp"
)

// TestVectors reads test/vectors/ledger.json as a second implementation would.
func TestVectors(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "test", "vectors", "ledger.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Leaves []struct {
			Name, Bytes, Hash, Index, Time, Kind, Outcome string
			Quantities                                    map[string]string
		}
		BadLeaves                      []struct{ Name, Bytes string } `json:"bad_leaves"`
		Heads                          []struct{ Bytes, Hash string } `json:"head_leaves"`
		Spine                          []struct{ Bytes, Hash string } `json:"spine_leaves"`
		Checkpoint, Trust, Fingerprint string
		Files                          []struct {
			Name, Kind, Bytes, Step, Class string
			ExitCode                       int `json:"exit_code"`
		}
	}
	check(t, json.Unmarshal(raw, &v))
	if len(v.Leaves) == 0 || len(v.BadLeaves) == 0 || len(v.Heads) == 0 || len(v.Spine) == 0 || len(v.Files) == 0 {
		t.Fatal("vectors are missing")
	}
	unhex := func(s string) []byte { return must[[]byte](t)(hex.DecodeString(s)) }
	hash := func(b []byte) string {
		d := verify.LeafHash(b)
		return hex.EncodeToString(d[:])
	}
	for _, c := range v.Leaves {
		b := unhex(c.Bytes)
		l, err := verify.DecodeLeaf(b)
		if err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		var sums map[string]string
		for _, q := range l.Quantities {
			if sums == nil {
				sums = map[string]string{}
			}
			sums[q.Meter] = strconv.FormatUint(q.N, 10)
		}
		got := []any{hash(b), strconv.FormatUint(l.Index, 10), strconv.FormatInt(l.Time, 10), l.Kind, l.Outcome.Code.String(), sums}
		if d := cmp.Diff([]any{c.Hash, c.Index, c.Time, c.Kind, c.Outcome, c.Quantities}, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.Name, d)
		}
	}
	for _, c := range v.BadLeaves {
		if l, err := verify.DecodeLeaf(unhex(c.Bytes)); err == nil {
			t.Errorf("%s: decoded %+v", c.Name, l)
		}
	}
	for _, c := range v.Heads {
		if _, err := verify.DecodeHeadLeaf(unhex(c.Bytes)); err != nil || hash(unhex(c.Bytes)) != c.Hash {
			t.Errorf("head %s: %v", c.Bytes, err)
		}
	}
	for _, c := range v.Spine {
		if _, err := verify.DecodeSpineLeaf(unhex(c.Bytes)); err != nil || hash(unhex(c.Bytes)) != c.Hash {
			t.Errorf("spine leaf %s: %v", c.Bytes, err)
		}
	}
	trust := must[*verify.Trust](t)(verify.ParseTrust([]byte(v.Trust)))
	if got := trust.Fingerprint(); got != v.Fingerprint {
		t.Errorf("got fingerprint %q, want %q", got, v.Fingerprint)
	}
	if _, err := verify.VerifyCheckpoint([]byte(v.Checkpoint), trust, verify.Options{}); err != nil {
		t.Errorf("checkpoint: %v", err)
	}
	for _, c := range v.Files {
		r, err := verify.VerifyAny(bytes.NewReader(unhex(c.Bytes)), trust, verify.Options{})
		if string(r.Kind) != c.Kind || r.OK != (c.ExitCode == 0) {
			t.Errorf("%s: got kind %q, ok %t, %v", c.Name, r.Kind, r.OK, err)
		}
		if f, ok := errors.AsType[*verify.Failure](err); ok && (f.ExitCode != c.ExitCode || f.Step != c.Step || string(f.Class) != c.Class) {
			t.Errorf("%s: got exit %d in step %q, class %q, want %d, %q, %q", c.Name, f.ExitCode, f.Step, f.Class, c.ExitCode, c.Step, c.Class)
		}
	}
}
