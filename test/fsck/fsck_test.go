package fsck

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	tclient "github.com/transparency-dev/tessera/client"
	tfsck "github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/tiles"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

// published publishes the newest seal of a fixture. It signs once for each size: the checkpoint is what a verifier starts
// from, and is fetched often.
type published struct {
	f    *ledgertest.Fixture
	note []byte
	size uint64
}

func (p *published) refresh() {
	a := p.f.Anchor()
	p.note, p.size = a.Note, a.Size
}

func (p *published) Spine() ([]byte, uint64, error) { return p.note, p.size, nil }

func (p *published) Tenant(tenant nhi.ID, size uint64, root nhi.Digest) ([]byte, error) {
	return p.f.Checkpoint(verify.TenantOrigin(ledgertest.Cluster, tenant), size, root, false), nil
}

// site is the real handler over HTTP, with a place to tamper.
type site struct {
	*httptest.Server
	pub    *published
	tamper func(path string, body []byte) []byte
}

func newSite(t *testing.T, f *ledgertest.Fixture) *site {
	s := &site{pub: &published{f: f}}
	real := tiles.New(tiles.Config{Log: f.Log, Checkpoints: s.pub, Now: func() int64 { return f.Now }})
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.tamper == nil {
			real.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		real.ServeHTTP(rec, r)
		body := s.tamper(r.URL.Path, rec.Body.Bytes())
		w.WriteHeader(rec.Code)
		if _, err := w.Write(body); err != nil {
			t.Errorf("write: %v", err)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// bundleHasher splits an entry bundle and hashes its entries (c2sp.org/tlog-tiles), independently of the ledger's code.
func bundleHasher(bundle []byte) ([][]byte, error) {
	var out [][]byte
	for len(bundle) > 0 {
		if len(bundle) < 2 {
			return nil, errors.New("truncated bundle")
		}
		n := int(binary.BigEndian.Uint16(bundle))
		if len(bundle) < 2+n {
			return nil, errors.New("truncated entry")
		}
		h := sha256.Sum256(append([]byte{0}, bundle[2:2+n]...))
		out = append(out, h[:])
		bundle = bundle[2+n:]
	}
	return out, nil
}

// log is one log as an outsider knows it.
type log struct {
	origin, vkey, url, token string
}

func check(ctx context.Context, l log) error {
	v, err := note.NewVerifier(l.vkey)
	if err != nil {
		return fmt.Errorf("log key: %w", err)
	}
	u, err := url.Parse(l.url + "/")
	if err != nil {
		return err
	}
	f, err := tclient.NewHTTPFetcher(u, nil)
	if err != nil {
		return err
	}
	if l.token != "" {
		f.SetAuthorizationHeader("Bearer " + l.token)
	}
	return tfsck.New(l.origin, v, f, bundleHasher, tfsck.Opts{N: 2}).Check(ctx)
}

// tileReader is what x/mod needs of a log. Its paths are those of the Go checksum database, of height 8.
type tileReader struct {
	ctx  context.Context
	log  log
	seen int
}

func (r *tileReader) Height() int { return 8 }

func (r *tileReader) ReadTiles(ts []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, t := range ts {
		// "tile/8/<L>/<N>[.p/<W>]" there is "tile/<L>/<N>[.p/<W>]" here.
		b, err := fetch(r.ctx, r.log, "tile/"+strings.TrimPrefix(t.Path(), "tile/8/"))
		if err != nil {
			return nil, err
		}
		out = append(out, b)
		r.seen++
	}
	return out, nil
}

func (r *tileReader) SaveTiles([]tlog.Tile, [][]byte) {}

func fetch(ctx context.Context, l log, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url+"/"+path, nil)
	if err != nil {
		return nil, err
	}
	if l.token != "" {
		req.Header.Set("Authorization", "Bearer "+l.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s: %s", path, resp.Status)
	}
	return b, err
}

// readByMod opens the checkpoint and reads leaf hashes through x/mod's authenticating reader.
func readByMod(ctx context.Context, l log) (size int64, err error) {
	v, err := note.NewVerifier(l.vkey)
	if err != nil {
		return 0, err
	}
	raw, err := fetch(ctx, l, "checkpoint")
	if err != nil {
		return 0, err
	}
	n, err := note.Open(raw, note.VerifierList(v))
	if err != nil {
		return 0, err
	}
	lines := strings.Split(n.Text, "\n")
	if lines[0] != l.origin {
		return 0, fmt.Errorf("origin %q", lines[0])
	}
	// The checksum database's first line is its own; the other two are the same.
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + strings.Join(lines[1:], "\n")))
	if err != nil {
		return 0, err
	}
	if tree.N == 0 {
		return 0, nil
	}
	r := tlog.TileHashReader(tree, &tileReader{ctx: ctx, log: l})
	var indexes []int64
	for _, i := range []int64{0, tree.N / 3, tree.N / 2, tree.N - 1} {
		indexes = append(indexes, tlog.StoredHashIndex(0, i))
	}
	hashes, err := r.ReadHashes(indexes)
	if err != nil {
		return 0, err
	}
	for _, i := range []int64{0, tree.N / 2, tree.N - 1} {
		p, err := tlog.ProveRecord(tree.N, i, r)
		if err != nil {
			return 0, err
		}
		var h tlog.Hash
		for k, x := range indexes {
			if x == tlog.StoredHashIndex(0, i) {
				h = hashes[k]
			}
		}
		if err := tlog.CheckRecord(p, tree.N, tree.Hash, i, h); err != nil {
			return 0, err
		}
	}
	return tree.N, nil
}

// ping is a kind that writes nothing, to fill logs with.
type ping struct{}

func (ping) Name() string                                                        { return "ping" }
func (ping) Tables() []ledger.Table                                              { return nil }
func (ping) Decide(ledger.View, *ledger.Event, ledger.Stamp) (d ledger.Decision) { return }
func (ping) Expire(ledger.View, ledger.Timer, ledger.Stamp) (d ledger.Decision)  { return }

func fill(f *ledgertest.Fixture, tenant nhi.ID, by *ledgertest.Identity, n int) {
	for n > 0 {
		k := min(n, 256)
		events := make([]ledgertest.Signed, k)
		for i := range events {
			events[i] = f.Event(by, "ping", []byte{0xa0})
			events[i].Event.Tenant = tenant
		}
		f.Accepted(f.SubmitBatch(events...)...)
		n -= k
	}
}

// TestOutsidersAcceptTheLogAtExactSizes grows one tenant's log through the sizes at which tiles begin, fill and nest, and lets
// both outside verifiers read it at each, and the spine beside it.
func TestOutsidersAcceptTheLogAtExactSizes(t *testing.T) {
	sizes := []int64{0, 1, 255, 256, 257, 65537}
	if testing.Short() {
		sizes = sizes[:5]
	}
	f := ledgertest.New(t, ledger.Kind{Name: "ping", Handler: ping{}})
	site := newSite(t, f)
	tenant, token := ledgertest.ID("filled tenant"), "token of the filled tenant"
	authority := f.CreateEmptyTenant(tenant, "authority of the filled tenant", token)
	origin := verify.TenantOrigin(ledgertest.Cluster, tenant)
	l := log{origin: origin, vkey: f.VKey(origin), url: site.URL + "/t/" + tenant.String(), token: token}
	spineOrigin := verify.SpineOrigin(ledgertest.Cluster)
	spine := log{origin: spineOrigin, vkey: f.VKey(spineOrigin), url: site.URL + "/spine"}

	have := int64(0)
	for _, size := range sizes {
		if size > 0 && have == 0 {
			f.RegisterAuthority(tenant, authority)
			have++
		}
		fill(f, tenant, authority, int(size-have))
		have = size
		f.Seal()
		site.pub.refresh()
		for _, x := range []log{l, spine} {
			if err := check(t.Context(), x); err != nil {
				t.Errorf("size %d: fsck of %s: %v", size, x.origin, err)
			}
			n, err := readByMod(t.Context(), x)
			if err != nil {
				t.Errorf("size %d: x/mod on %s: %v", size, x.origin, err)
			}
			if x == l && n != size {
				t.Errorf("size of %s: got %d, want %d", x.origin, n, size)
			}
		}
	}
	t.Run("without token", func(t *testing.T) {
		x := l
		x.token = ""
		if err := check(t.Context(), x); err == nil {
			t.Error("fsck reads a tenant's log without its token")
		}
	})
	// One bit, in the hashes of a full tile, a partial one, a tile above them, and an entry.
	at := func(path string) func(string, []byte) []byte {
		return func(got string, body []byte) []byte {
			if strings.HasSuffix(got, path) && len(body) > 100 {
				body[33] ^= 1
			}
			return body
		}
	}
	for _, path := range []string{"/tile/0/000", "/tile/entries/000", "/tile/1/000"} {
		if testing.Short() && path == "/tile/1/000" {
			continue
		}
		t.Run("tampered"+path, func(t *testing.T) {
			site.tamper = at(path)
			defer func() { site.tamper = nil }()
			if err := check(t.Context(), l); err == nil {
				t.Error("fsck accepts a tampered resource")
			}
			if strings.Contains(path, "entries") {
				return // x/mod reads hashes only
			}
			if _, err := readByMod(t.Context(), l); err == nil {
				t.Error("x/mod accepts a tampered tile")
			}
		})
	}
}

// TestOutsidersAcceptALongSpine seals until the spine's own tiles nest.
func TestOutsidersAcceptALongSpine(t *testing.T) {
	f := ledgertest.New(t)
	site := newSite(t, f)
	origin := verify.SpineOrigin(ledgertest.Cluster)
	spine := log{origin: origin, vkey: f.VKey(origin), url: site.URL + "/spine"}
	for i := range 257 {
		f.Register(fmt.Sprintf("human %d", i), registry.Human)
		f.Seal()
		if n := i + 1; n == 1 || n == 255 || n == 256 || n == 257 {
			site.pub.refresh()
			if err := check(t.Context(), spine); err != nil {
				t.Errorf("spine of %d: fsck: %v", n, err)
			}
			if got, err := readByMod(t.Context(), spine); err != nil || got != int64(n) {
				t.Errorf("spine of %d: x/mod: got %d, %v", n, got, err)
			}
		}
	}
	site.tamper = func(path string, body []byte) []byte {
		if strings.HasSuffix(path, "/spine/tile/0/000") {
			body[5] ^= 1
		}
		return body
	}
	if err := check(t.Context(), spine); err == nil {
		t.Error("fsck accepts a tampered spine")
	}
	if _, err := readByMod(t.Context(), spine); err == nil {
		t.Error("x/mod accepts a tampered spine")
	}
}
