package shared

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFind(t *testing.T) {
	top := t.TempDir()
	mkdir(t, top, "shared/conformance")
	mkdir(t, top, "repo/nhi/canon")
	mkdir(t, top, "elsewhere")
	if err := os.WriteFile(filepath.Join(top, "repo/go.mod"), []byte("module m\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, env, from, want string
	}{
		{"conformance", "", "repo/nhi/canon", "shared/conformance"},
		{"conformance", "", "repo", "shared/conformance"},
		{"conformance", filepath.Join(top, "elsewhere"), "repo", "elsewhere"},
		{"conformance", filepath.Join(top, "missing"), "repo", ""},
		{"data", "", "repo", ""},
		{"conformance", "", "elsewhere", ""},
	} {
		getenv := func(string) string { return tt.env }
		got, where := find(tt.name, getenv, filepath.Join(top, tt.from))
		want := ""
		if tt.want != "" {
			want = filepath.Join(top, tt.want)
		}
		if got != want {
			t.Errorf("find(%q) from %s with env %q: got %q, want %q", tt.name, tt.from, tt.env, got, want)
		}
		if (where == "") != (got != "") {
			t.Errorf("find(%q) from %s: got folder %q and explanation %q, want exactly one", tt.name, tt.from, got, where)
		}
	}
}

func mkdir(t *testing.T, top, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(top, path), 0o755); err != nil {
		t.Fatal(err)
	}
}
