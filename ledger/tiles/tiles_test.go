package tiles_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/tiles"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/test/shared"
)

// published publishes whatever is sealed.
type published struct{ f *ledgertest.Fixture }

func (p published) Spine() ([]byte, uint64, error) {
	a := p.f.Anchor()
	if a.Size == 0 {
		return nil, 0, ledger.ErrNotFound
	}
	return a.Note, a.Size, nil
}

func (p published) Tenant(tenant nhi.ID, size uint64, root nhi.Digest) ([]byte, error) {
	return p.f.Checkpoint(verify.TenantOrigin(ledgertest.Cluster, tenant), size, root, false), nil
}

func serve(t *testing.T, f *ledgertest.Fixture) http.Handler {
	t.Helper()
	return tiles.New(tiles.Config{Log: f.Log, Checkpoints: published{f}, Now: func() int64 { return f.Now }, Trust: []byte("trust\n")})
}

func get(h http.Handler, path, token string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.URL.Path, r.URL.RawPath = path, ""
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func ledgerDigest(token string) nhi.Digest { return sha256.Sum256([]byte(token)) }

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func grown(t *testing.T, n int) *ledgertest.Fixture {
	f := ledgertest.New(t)
	for i := range n {
		f.Register(fmt.Sprintf("human %d", i), registry.Human)
	}
	f.Seal()
	return f
}

func TestWhoMayNotReadGetsTheAnswerOfNothing(t *testing.T) {
	f := grown(t, 3)
	other := ledgertest.ID("other tenant")
	f.CreateTenant(other, "other authority", "other token")
	f.Accepted(f.Submit(f.Event(f.Authority, ledger.KindReadTokenAdd, &ledger.ReadTokenBody{Token: nhi.Digest{1}, Expires: f.Now + 1e9}))...)
	f.Seal()
	h := serve(t, f)
	want := get(h, "/t/"+ledgertest.ID("nobody").String()+"/checkpoint", ledgertest.ReadToken)
	wantBody := body(t, want)
	if want.StatusCode != http.StatusNotFound {
		t.Fatalf("unknown tenant: got %d, want 404", want.StatusCode)
	}
	for name, c := range map[string]struct{ path, token string }{
		"no token":              {"/t/" + f.Tenant.String() + "/checkpoint", ""},
		"wrong token":           {"/t/" + f.Tenant.String() + "/checkpoint", "wrong"},
		"another tenant's":      {"/t/" + f.Tenant.String() + "/checkpoint", "other token"},
		"long token":            {"/t/" + f.Tenant.String() + "/checkpoint", strings.Repeat("x", 4096)},
		"tile without token":    {"/t/" + f.Tenant.String() + "/tile/0/000.p/1", ""},
		"id in capitals":        {"/t/" + strings.ToUpper(f.Tenant.String()) + "/checkpoint", ledgertest.ReadToken},
		"the zero tenant":       {"/t/" + nhi.ID{}.String() + "/checkpoint", ledgertest.ReadToken},
		"the system log":        {"/system/checkpoint", ledgertest.ReadToken},
		"nothing below":         {"/t/" + f.Tenant.String(), ledgertest.ReadToken},
		"beyond the checkpoint": {"/t/" + f.Tenant.String() + "/tile/0/000.p/200", ledgertest.ReadToken},
	} {
		got := get(h, c.path, c.token)
		if b := body(t, got); got.StatusCode != want.StatusCode || b != wantBody || fmt.Sprint(got.Header) != fmt.Sprint(want.Header) {
			t.Errorf("%s: got %d %v %q, want %d %v %q", name, got.StatusCode, got.Header, b, want.StatusCode, want.Header, wantBody)
		}
	}
	if got := get(h, "/t/"+f.Tenant.String()+"/checkpoint", ledgertest.ReadToken); got.StatusCode != http.StatusOK {
		t.Errorf("right token: got %d, want 200", got.StatusCode)
	}
}

func TestReadTokenExpiresAndIsTakenBack(t *testing.T) {
	f := grown(t, 1)
	token := "another token of ours"
	digest := func() nhi.Digest { return ledgerDigest(token) }
	f.Accepted(f.Submit(f.Event(f.Authority, ledger.KindReadTokenAdd, &ledger.ReadTokenBody{Token: digest(), Expires: f.Now + 1e12}))...)
	h := serve(t, f)
	path := "/t/" + f.Tenant.String() + "/checkpoint"
	if got := get(h, path, token); got.StatusCode != http.StatusOK {
		t.Fatalf("new token: got %d, want 200", got.StatusCode)
	}
	f.Now += 2e12
	if got := get(h, path, token); got.StatusCode != http.StatusNotFound {
		t.Errorf("expired token: got %d, want 404", got.StatusCode)
	}
	f.Accepted(f.Submit(f.Event(f.Authority, ledger.KindReadTokenRemove, &ledger.ReadTokenBody{Token: ledgerDigest(ledgertest.ReadToken)}))...)
	if got := get(h, path, ledgertest.ReadToken); got.StatusCode != http.StatusNotFound {
		t.Errorf("token taken back: got %d, want 404", got.StatusCode)
	}
}

func TestHeadersAndMethods(t *testing.T) {
	f := grown(t, 3)
	h := serve(t, f)
	for _, c := range []struct{ path, token, typ, cache string }{
		{"/spine/checkpoint", "", "text/plain; charset=utf-8", "no-cache"},
		{"/spine/tile/0/000.p/1", "", "application/octet-stream", "public, max-age=31536000, immutable"},
		{"/spine/tile/entries/000.p/1", "", "application/octet-stream", "public, max-age=31536000, immutable"},
		{"/t/" + f.Tenant.String() + "/tile/0/000.p/4", ledgertest.ReadToken, "application/octet-stream", "private, max-age=31536000, immutable"},
		{"/trust.txt", "", "text/plain; charset=utf-8", "no-cache"},
	} {
		got := get(h, c.path, c.token)
		if got.StatusCode != http.StatusOK || got.Header.Get("Content-Type") != c.typ || got.Header.Get("Cache-Control") != c.cache {
			t.Errorf("%s: got %d %v, want %q and %q", c.path, got.StatusCode, got.Header, c.typ, c.cache)
		}
	}
	if b := body(t, get(h, "/t/"+f.Tenant.String()+"/tile/0/000.p/3", ledgertest.ReadToken)); len(b) != 3*32 {
		t.Errorf("partial tile: got %d bytes, want 96", len(b))
	}
	r := httptest.NewRequest(http.MethodPost, "/spine/checkpoint", bytes.NewReader(nil))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %d, want 405", w.Code)
	}
	r = httptest.NewRequest(http.MethodHead, "/spine/checkpoint", nil)
	w = httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK || w.Body.Len() != 0 {
		t.Errorf("HEAD: got %d with %d bytes, want 200 without", w.Code, w.Body.Len())
	}
}

func TestNothingIsServedBeforeTheFirstSeal(t *testing.T) {
	f := ledgertest.New(t)
	h := serve(t, f)
	for _, p := range []string{"/spine/checkpoint", "/spine/tile/0/000.p/1", "/t/" + f.Tenant.String() + "/checkpoint"} {
		if got := get(h, p, ledgertest.ReadToken); got.StatusCode != http.StatusNotFound {
			t.Errorf("%s: got %d, want 404", p, got.StatusCode)
		}
	}
}

// ahead publishes epochs that this node has not applied: they were before it was restarted.
type ahead struct {
	published
	by uint64
}

func (a ahead) Spine() ([]byte, uint64, error) {
	note, size, err := a.published.Spine()
	return note, size + a.by, err
}

// A node that has not applied yet what is published serves what it has, and for the rest says when to ask again.
func TestBehindWhatIsPublished(t *testing.T) {
	f := grown(t, 3)
	for f.Anchor().Size < 3 {
		f.Register(fmt.Sprintf("more %d", f.Anchor().Size), registry.Human)
		f.Seal()
	}
	spine := f.Anchor().Size
	s, err := f.Log.Read()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	slot, err := s.Tenant(f.Tenant)
	if err != nil {
		t.Fatal(err)
	}
	_, head, err := s.SealedHead(slot.Slot, spine)
	if err != nil {
		t.Fatal(err)
	}
	tenant := "/t/" + f.Tenant.String()
	for _, c := range []struct {
		path          string
		behind, level int // status codes of a node that is behind, and of one that is not
	}{
		{"/spine/checkpoint", 200, 200},
		{fmt.Sprintf("/spine/tile/0/000.p/%d", spine), 200, 200},
		{fmt.Sprintf("/spine/tile/entries/000.p/%d", spine), 200, 200},
		{fmt.Sprintf("/spine/tile/0/000.p/%d", spine+1), 503, 404},
		{fmt.Sprintf("/spine/tile/entries/000.p/%d", spine+1), 503, 404},
		{"/spine/tile/0/000", 503, 404},
		{"/spine/tile/1/000.p/1", 503, 404},
		{"/spine/tile/entries/000", 503, 404},
		{"/spine/elsewhere", 404, 404},
		{tenant + "/checkpoint", 200, 200},
		{fmt.Sprintf("%s/tile/entries/000.p/%d", tenant, head.Size), 200, 200},
		{fmt.Sprintf("%s/tile/0/000.p/%d", tenant, head.Size+1), 503, 404},
		{fmt.Sprintf("%s/tile/entries/000.p/%d", tenant, head.Size+1), 503, 404},
		{tenant + "/elsewhere", 404, 404},
		{"/t/" + ledgertest.ID("no tenant").String() + "/checkpoint", 404, 404},
	} {
		for by, want := range map[uint64]int{0: c.level, 300: c.behind} {
			h := tiles.New(tiles.Config{Log: f.Log, Checkpoints: ahead{published{f}, by}, Now: func() int64 { return f.Now }})
			got := get(h, c.path, ledgertest.ReadToken)
			if got.StatusCode != want {
				t.Errorf("%s, %d epochs behind: got %d, want %d", c.path, by, got.StatusCode, want)
			}
			if want != 200 && got.Header.Get("Cache-Control") != "no-store" || (want == 503) != (got.Header.Get("Retry-After") != "") {
				t.Errorf("%s, %d epochs behind: got headers %v, want no-store, and Retry-After with 503 only", c.path, by, got.Header)
			}
		}
	}
}

func TestPathsHaveOneSpelling(t *testing.T) {
	good := []string{"tile/0/000", "tile/0/255.p/7", "tile/entries/x001/234", "tile/3/x001/x234/067.p/255", "checkpoint", "tile/63/000"}
	bad := []string{
		"", "/", "Checkpoint", "checkpoint/", "tile", "tile/", "tile/0", "tile/0/", "tile/0/0", "tile/0/00", "tile/0/0000", "tile/00/000", "tile/01/000",
		"tile/64/000", "tile/-1/000", "tile/+0/000", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p/", "tile/0/000.p",
		"tile/0/x000/001", "tile/0/001/234", "tile/0/X001/234", "tile/0/x001/x234", "tile/0/x001/234/", "tile/0//000", "tile/0/000/", "tile/0/00a",
		"tile/entries", "tile/Entries/000", "tile/entries/000.p/1.p/1", "tile/data/000", "../checkpoint", "tile/0/../0/000", "tile/0/x999/x999/x999/x999/x999/999",
		"tile/0/x999/x999/x999/x999/x999/x999/999",
	}
	for _, p := range good {
		if !tiles.ValidPath(p) {
			t.Errorf("%q is refused", p)
		}
	}
	for _, p := range bad {
		if tiles.ValidPath(p) {
			t.Errorf("%q is accepted", p)
		}
	}
	// The examples of the specification.
	raw, err := os.ReadFile(filepath.Join(shared.Dir(t, "conformance"), "c2sp-examples.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		TilePaths [][2]any `json:"tile_paths"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.TilePaths) == 0 {
		t.Fatal("no tile paths in the examples")
	}
	for _, c := range doc.TilePaths {
		if got := tiles.ValidPath(c[0].(string)); got != c[1].(bool) {
			t.Errorf("%q: got %t, want %t", c[0], got, c[1])
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"checkpoint", "tile/0/x001/x234/067.p/8", "tile/entries/000", "tile/63/999.p/255", "tile/0/x000/001"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if again, ok := tiles.Respell(s); ok && again != s {
			t.Errorf("%q is another spelling of %q", s, again)
		}
	})
}
