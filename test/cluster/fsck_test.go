package cluster

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
	"time"

	tclient "github.com/transparency-dev/tessera/client"
	tfsck "github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/creto-systems/creto/ledger/verify"
)

// TestOutsidersAcceptEveryNode: programs that know nothing of Creto read the tenant's log and the spine from each of three
// nodes, at the size they have, and accept them; through a proxy that flips one bit of a tile they do not.
func TestOutsidersAcceptEveryNode(t *testing.T) {
	h := newHarness(t, Options{})
	tenant := h.tenant()
	l := h.load(tenant, 6)
	h.more(l, 700, 60*time.Second)
	h.ok(l.Stop(20 * time.Second))
	h.ok(h.Settle(t.Context()))
	spine, err := verify.ParseVKey(h.Init.Genesis.LogKey)
	h.ok(err)
	origin := verify.TenantOrigin(name, tenant.ID)
	key, err := verify.NewVKey(origin, verify.KeyEd25519, []byte(spine.Key))
	h.ok(err)
	var sizes []int64
	for i, n := range h.Nodes {
		for _, log := range []outside{
			{origin, key.String(), "http://" + n.Read + "/t/" + tenant.ID.String(), tenant.Token},
			{verify.SpineOrigin(name), spine.String(), "http://" + n.Read + "/spine", ""},
		} {
			if err := log.fsck(t.Context()); err != nil {
				t.Errorf("node %d: fsck of %s: %v", i, log.origin, err)
			}
			size, err := log.sumdb(t.Context())
			if err != nil {
				t.Errorf("node %d: x/mod on %s: %v", i, log.origin, err)
			}
			if log.origin == origin {
				sizes = append(sizes, size)
			}
			flipped := httptest.NewServer(flip(log.url))
			bad := log
			bad.url = flipped.URL
			if err := bad.fsck(t.Context()); err == nil {
				t.Errorf("node %d: fsck accepts a flipped bit in %s", i, log.origin)
			}
			if _, err := bad.sumdb(t.Context()); err == nil {
				t.Errorf("node %d: x/mod accepts a flipped bit in %s", i, log.origin)
			}
			flipped.Close()
			if log.token != "" {
				log.token = "creto-read-wrong"
				if err := log.fsck(t.Context()); err == nil {
					t.Errorf("node %d: fsck reads a tenant's log with a wrong token", i)
				}
			}
		}
	}
	if sizes[0] < 700 || sizes[1] != sizes[0] || sizes[2] != sizes[0] {
		t.Errorf("sizes: got %v, want one above 700 three times", sizes)
	}
	t.Logf("%d leaves on each node", sizes[0])
	h.end()
}

// flip forwards to a log and flips a bit of the hashes of its lowest tiles.
func flip(to string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, to+r.URL.Path, nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		req.Header = r.Header
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && strings.HasPrefix(r.URL.Path, "/tile/0/") && len(b) > 33 {
			b[33] ^= 1
		}
		w.WriteHeader(resp.StatusCode)
		_, _ = w.Write(b)
	})
}

// outside is one log as an outsider knows it.
type outside struct{ origin, vkey, url, token string }

func (o outside) fsck(ctx context.Context) error {
	v, err := note.NewVerifier(o.vkey)
	if err != nil {
		return err
	}
	u, err := url.Parse(o.url + "/")
	if err != nil {
		return err
	}
	f, err := tclient.NewHTTPFetcher(u, nil)
	if err != nil {
		return err
	}
	if o.token != "" {
		f.SetAuthorizationHeader("Bearer " + o.token)
	}
	return tfsck.New(o.origin, v, f, bundleHashes, tfsck.Opts{N: 2}).Check(ctx)
}

// bundleHashes splits an entry bundle (c2sp.org/tlog-tiles) and hashes its entries.
func bundleHashes(bundle []byte) (out [][]byte, err error) {
	for len(bundle) > 0 {
		if len(bundle) < 2 || len(bundle) < 2+int(binary.BigEndian.Uint16(bundle)) {
			return nil, errors.New("truncated bundle")
		}
		n := int(binary.BigEndian.Uint16(bundle))
		h := sha256.Sum256(append([]byte{0}, bundle[2:2+n]...))
		out, bundle = append(out, h[:]), bundle[2+n:]
	}
	return out, nil
}

func (o outside) sumdb(ctx context.Context) (int64, error) {
	v, err := note.NewVerifier(o.vkey)
	if err != nil {
		return 0, err
	}
	raw, err := Get(ctx, o.url+"/checkpoint", o.token)
	if err != nil {
		return 0, err
	}
	n, err := note.Open(raw, note.VerifierList(v))
	if err != nil {
		return 0, err
	}
	first, rest, _ := strings.Cut(n.Text, "\n")
	if first != o.origin {
		return 0, fmt.Errorf("origin %q", first)
	}
	// The checksum database's first line is its own; the other two are the same.
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + rest))
	if err != nil {
		return 0, err
	}
	r := tlog.TileHashReader(tree, &tiles{ctx, o})
	for _, i := range []int64{0, tree.N / 3, tree.N - 1} {
		hashes, err := r.ReadHashes([]int64{tlog.StoredHashIndex(0, i)})
		if err != nil {
			return 0, err
		}
		p, err := tlog.ProveRecord(tree.N, i, r)
		if err != nil {
			return 0, err
		}
		if err := tlog.CheckRecord(p, tree.N, tree.Hash, i, hashes[0]); err != nil {
			return 0, err
		}
	}
	return tree.N, nil
}

type tiles struct {
	ctx context.Context
	o   outside
}

func (t *tiles) Height() int { return 8 }

func (t *tiles) ReadTiles(ts []tlog.Tile) (out [][]byte, err error) {
	for _, x := range ts {
		b, err := Get(t.ctx, t.o.url+"/tile/"+strings.TrimPrefix(x.Path(), "tile/8/"), t.o.token)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

func (t *tiles) SaveTiles([]tlog.Tile, [][]byte) {}
