package tiles

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
)

// Checkpoints gives the signed checkpoints that may leave the node. Both methods are safe for concurrent use, and answer
// with an error that matches ledger.ErrNotFound while nothing is published.
type Checkpoints interface {
	// Spine returns the newest published checkpoint of the spine, with its signatures, and its size.
	Spine() (note []byte, size uint64, err error)
	// Tenant signs the checkpoint of a tenant's log at a head that a published epoch sealed.
	Tenant(tenant nhi.ID, size uint64, root nhi.Digest) (note []byte, err error)
}

// Config configures the handler.
type Config struct {
	Log         *ledger.Log
	Checkpoints Checkpoints
	Now         func() int64 // the node's clock, ns, against which read tokens expire
	Trust       []byte       // optional: the trust file that /trust.txt shows
	Logger      *slog.Logger // optional
}

// maxToken bounds a bearer token, bytes.
const maxToken = 512

type handler struct{ Config }

// New returns the handler of /spine/…, /t/<tenant>/… and /trust.txt.
func New(cfg Config) http.Handler {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &handler{cfg}
}

// errHidden is the one answer to everything that is not there or not to be seen.
var errHidden = errors.New("not found")

// errLater is the answer to what is not there yet but can come: it must not be cached.
var errLater = errors.New("not published yet")

// errBehind is the answer to what may be published and is not here: the node has yet to apply what it, before it was
// restarted, or others have published.
var errBehind = errors.New("this node is behind what is published")

// absent says whether an error means that something is not there, or not to be seen.
func absent(err error) bool {
	return errors.Is(err, errHidden) || errors.Is(err, errLater) || errors.Is(err, ledger.ErrNotFound) || errors.Is(err, ledger.ErrRange) ||
		errors.Is(err, ledger.ErrNoLedger)
}

// ServeHTTP answers GET and HEAD.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Browser verifiers read from anywhere; nothing here depends on cookies.
	w.Header().Set("Access-Control-Allow-Origin", "*")
	if r.Method == http.MethodOptions {
		w.Header().Set("Access-Control-Allow-Methods", "GET, HEAD")
		w.Header().Set("Access-Control-Allow-Headers", "Authorization")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD, OPTIONS")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	a, err := h.answer(r)
	switch {
	case err == nil:
		a.write(w, r)
	case errors.Is(err, errBehind):
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Retry-After", "1")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case absent(err):
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, "not found", http.StatusNotFound)
	default:
		h.Logger.Error("serve tile", "path", r.URL.Path, "error", err)
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, "internal error", http.StatusInternalServerError)
	}
}

// answer is a body with what may be remembered of it.
type answer struct {
	body    []byte
	typ     string
	public  bool // anybody may have it
	forever bool // it never changes
}

const (
	typeText   = "text/plain; charset=utf-8"
	typeBinary = "application/octet-stream"
)

func (a *answer) write(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Content-Type", a.typ)
	head.Set("X-Content-Type-Options", "nosniff")
	scope := "private"
	if a.public {
		scope = "public"
	} else {
		head.Set("Vary", "Authorization")
	}
	switch {
	case a.forever:
		head.Set("Cache-Control", scope+", max-age=31536000, immutable")
	default:
		head.Set("Cache-Control", "no-cache")
	}
	head.Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	// The client is gone if this fails, and there is nobody else to tell.
	_, _ = w.Write(a.body)
}

func (h *handler) answer(r *http.Request) (a *answer, err error) {
	// The path as it was sent: an escaped spelling of a path is another path.
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), "/")
	if !ok {
		return nil, errHidden
	}
	if path == "trust.txt" && len(h.Trust) > 0 {
		return &answer{body: h.Trust, typ: typeText, public: true}, nil
	}
	s, err := h.Log.Read()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if rest, ok := strings.CutPrefix(path, "spine/"); ok {
		return h.spine(s, rest)
	}
	rest, ok := strings.CutPrefix(path, "t/")
	if !ok {
		return nil, errHidden
	}
	t, err := h.authorized(s, r, &rest)
	if err != nil {
		return nil, err
	}
	return h.tenant(s, t, rest)
}

// authorized finds the tenant that rest begins with and holds the bearer token against it. All failures are one.
func (h *handler) authorized(s *ledger.Snapshot, r *http.Request, rest *string) (ledger.Tenant, error) {
	text, below, _ := strings.Cut(*rest, "/")
	*rest = below
	id, err := nhi.ParseID(text)
	if err != nil || id.IsZero() {
		return ledger.Tenant{}, errHidden
	}
	auth := r.Header.Values("Authorization")
	if len(auth) != 1 {
		return ledger.Tenant{}, errHidden
	}
	token, ok := strings.CutPrefix(auth[0], "Bearer ")
	if !ok || token == "" || len(token) > maxToken {
		return ledger.Tenant{}, errHidden
	}
	t, err := s.Tenant(id)
	if errors.Is(err, ledger.ErrNotFound) {
		return ledger.Tenant{}, errHidden
	}
	if err != nil {
		return ledger.Tenant{}, err
	}
	valid, err := s.ReadTokenValid(t.Slot, []byte(token), h.Now())
	if err != nil {
		return ledger.Tenant{}, err
	}
	if !valid {
		return ledger.Tenant{}, errHidden
	}
	return t, nil
}

func (h *handler) spine(s *ledger.Snapshot, path string) (*answer, error) {
	res, ok := parsePath(path)
	if !ok {
		return nil, errHidden
	}
	note, size, err := h.Checkpoints.Spine()
	if err != nil {
		return nil, err
	}
	if res.checkpoint {
		return &answer{body: note, typ: typeText, public: true}, nil
	}
	a, err := read(s, ledger.SpineSlot, min(size, s.Epoch()), res, true)
	return a, behind(s, size, err)
}

// behind turns the absence of something into errBehind where the node has not applied all epochs that are published.
func behind(s *ledger.Snapshot, published uint64, err error) error {
	if published > s.Epoch() && absent(err) {
		return errBehind
	}
	return err
}

// tenant answers for one log, as far as the newest published epoch sealed it.
func (h *handler) tenant(s *ledger.Snapshot, t ledger.Tenant, path string) (*answer, error) {
	res, ok := parsePath(path)
	if !ok {
		return nil, errHidden
	}
	_, epoch, err := h.Checkpoints.Spine()
	if err != nil {
		return nil, err
	}
	_, head, err := s.SealedHead(t.Slot, min(epoch, s.Epoch()))
	if err != nil {
		return nil, behind(s, epoch, err)
	}
	if res.checkpoint {
		note, err := h.Checkpoints.Tenant(t.ID, head.Size, head.Root)
		if err != nil {
			return nil, err
		}
		return &answer{body: note, typ: typeText}, nil
	}
	a, err := read(s, t.Slot, head.Size, res, false)
	return a, behind(s, epoch, err)
}

// read returns a tile or an entry bundle of a log within a published size.
func read(s *ledger.Snapshot, slot uint32, size uint64, res resource, public bool) (*answer, error) {
	a := &answer{typ: typeBinary, public: public, forever: true}
	if !res.entries {
		var err error
		a.body, err = s.Tile(slot, size, res.level, res.index, res.width)
		return a, err
	}
	from := res.index * tileWidth
	to := from + uint64(res.width)
	if to > size {
		return nil, errLater
	}
	err := s.Leaves(slot, from, to, func(_ uint64, leaf []byte) error {
		if len(leaf) > verify.MaxLeafSize {
			return fmt.Errorf("leaf of %d bytes: %w", len(leaf), ledger.ErrCorrupt)
		}
		a.body = binary.BigEndian.AppendUint16(a.body, uint16(len(leaf)))
		a.body = append(a.body, leaf...)
		return nil
	})
	return a, err
}
