package node

import (
	"fmt"
	"net/http"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/publish"
	"github.com/creto-systems/creto/ledger/tiles"
	"github.com/creto-systems/creto/nhi"
)

// checkpoints gives the read listener what is published.
type checkpoints struct{ p *publish.Publisher }

func (c checkpoints) Spine() ([]byte, uint64, error) {
	h, note := c.p.Checkpoint()
	if note == nil {
		return nil, 0, fmt.Errorf("checkpoint: %w", ledger.ErrNotFound)
	}
	return note, h.Size, nil
}

func (c checkpoints) Tenant(tenant nhi.ID, size uint64, root nhi.Digest) ([]byte, error) {
	return c.p.SignTenant(tenant, size, root)
}

// readHandler serves tiles, checkpoints and the trust file.
func (s *Server) readHandler() (http.Handler, error) {
	t := tiles.New(tiles.Config{Log: s.ledger, Checkpoints: checkpoints{s.publisher}, Now: s.now, Logger: s.log})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.EscapedPath() != "/trust.txt" {
			t.ServeHTTP(w, r)
			return
		}
		trust, err := s.Trust()
		if err != nil {
			http.Error(w, "not found", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		_, _ = w.Write(trust.Format()) // the client is gone if this fails
	}), nil
}
