package registry

import (
	"bytes"
	"crypto/sha512"
	"slices"
	"sort"
	"testing"

	"github.com/creto-systems/creto/nhi"
)

// state is a View over sorted rows.
type state struct {
	rows map[string][]byte // table ‖ key
	keys []string          // sorted
}

func newState() *state { return &state{rows: map[string][]byte{}} }

func (s *state) Get(table byte, key []byte) ([]byte, bool) {
	v, ok := s.rows[string(rune(table))+string(key)]
	return v, ok
}

func (s *state) Scan(table byte, prefix, from []byte, reverse bool, fn func(k, v []byte) bool) {
	p := string(rune(table)) + string(prefix)
	lo := sort.SearchStrings(s.keys, p)
	hi := lo
	for hi < len(s.keys) && bytes.HasPrefix([]byte(s.keys[hi]), []byte(p)) {
		hi++
	}
	keys := slices.Clone(s.keys[lo:hi])
	f := string(rune(table)) + string(from)
	if reverse {
		slices.Reverse(keys)
	}
	for _, k := range keys {
		if from != nil && (reverse && k > f || !reverse && k < f) {
			continue
		}
		if !fn([]byte(k[1:]), s.rows[k]) {
			return
		}
	}
}

func (s *state) put(w Write) {
	k := string(rune(w.Table)) + string(w.Key)
	if _, ok := s.rows[k]; !ok {
		i := sort.SearchStrings(s.keys, k)
		s.keys = slices.Insert(s.keys, i, k)
	}
	s.rows[k] = bytes.Clone(w.Value)
}

type person struct {
	id  nhi.ID
	key *nhi.PrivateKey
	typ Type
}

const (
	second = int64(1_000_000_000)
	nowMs  = int64(1_800_000_000_000)
)

// world is one tenant's log and the system log, driven event by event.
type world struct {
	testing.TB
	ledger          nhi.Digest
	tenantID        nhi.ID
	tenant, system  *state
	index, sysIndex uint64
	time            int64
	entities        uint64
	revocation      uint64
	tree            Tree
	keys            *nhi.KeyCache
	authority       *person
	admin           *person
	deciders        map[string]Decider
}

func idOf(name string) nhi.ID {
	sum := sha512.Sum512([]byte("id " + name))
	return nhi.ID(sum[:16])
}

func keyOf(t testing.TB, name string) *nhi.PrivateKey {
	t.Helper()
	seed := sha512.Sum512([]byte("key " + name))
	k, err := nhi.NewPrivateKey(seed[:])
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{
		TB: t, ledger: nhi.Digest{1, 2, 3}, tenantID: idOf("tenant"), tenant: newState(), system: newState(),
		time: nowMs * 1_000_000, keys: nhi.NewKeyCache(64), deciders: map[string]Decider{},
	}
	for _, d := range Deciders() {
		w.deciders[d.Kind] = d
	}
	w.authority = &person{idOf("authority"), keyOf(t, "authority"), Authority}
	w.admin = &person{idOf("admin"), keyOf(t, "admin"), Admin}
	founding, err := Register(w.sysEnv(), NewIdentity{
		ID: w.admin.id, Type: Admin, Suite: nhi.SuiteMLDSA65Ed25519, Public: w.admin.key.Public().Bytes(), Founding: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range founding {
		w.system.put(r)
	}
	w.sysIndex++
	b, err := NewRegistration(w.authority.key, w.ledger, w.tenantID, w.authority.id, Authority)
	if err != nil {
		t.Fatal(err)
	}
	w.want(OK, w.do(By{Key: w.authority.key.Public().ID()}, KindRegister, b))
	return w
}

func (w *world) env() *Env {
	return &Env{
		View: w.tenant, System: w.system, Ledger: w.ledger, Slot: 1, Tenant: w.tenantID,
		AuthorityID: w.authority.id, AuthorityKey: w.authority.key.Public().ID(),
		Index: w.index, SystemIndex: w.sysIndex, Time: w.time, Tree: w.tree, Keys: w.keys,
	}
}

func (w *world) sysEnv() *Env {
	return &Env{
		View: w.system, System: w.system, Ledger: w.ledger, Index: w.sysIndex, SystemIndex: w.sysIndex, Time: w.time, Keys: w.keys,
	}
}

func (w *world) at() Position {
	return Position{Slot: 1, Entities: w.entities, Revocation: w.revocation, Index: w.index}
}

type encoder interface{ Encode() ([]byte, error) }

// do applies one event to the tenant's log and returns what was decided. Like the
// ledger it gives every decision an index, accepted or not.
func (w *world) do(by By, kind string, body encoder) Result {
	w.Helper()
	raw, err := body.Encode()
	if err != nil {
		w.Fatalf("encode %s: %v", kind, err)
	}
	return w.raw(by, kind, raw)
}

func (w *world) raw(by By, kind string, raw []byte) Result {
	w.Helper()
	r := w.deciders[kind].Decide(w.env(), by, raw)
	if r.Code != OK && (len(r.Writes) != 0 || r.Bump != 0) {
		w.Fatalf("%s refused with %v and yet writes", kind, r.Code)
	}
	for _, row := range r.Writes {
		if row.Delete || !slices.Contains(Tables(), row.Table) {
			w.Fatalf("%s writes to table %#x, delete %v", kind, row.Table, row.Delete)
		}
		if _, there := w.tenant.Get(row.Table, row.Key); there {
			w.Fatalf("%s overwrites a row of table %#x", kind, row.Table)
		}
		w.tenant.put(row)
	}
	if r.Bump&BumpEntities != 0 {
		w.entities++
	}
	if r.Bump&BumpRevocation != 0 {
		w.revocation++
	}
	w.index++
	w.time += second
	return r
}

func (w *world) want(code Code, r Result) {
	w.Helper()
	if r.Code != code {
		w.Fatalf("got %v, want %v", r.Code, code)
	}
}

func (w *world) by(p *person) By {
	w.Helper()
	id, err := ResolveIdentity(w.tenant, p.id, w.index)
	if err != nil {
		w.Fatal(err)
	}
	return By{Identity: id, Key: p.key.Public().ID()}
}

func (w *world) byAdmin(p *person) By {
	w.Helper()
	id, err := ResolveIdentity(w.system, p.id, w.sysIndex)
	if err != nil {
		w.Fatal(err)
	}
	return By{Identity: id, Key: p.key.Public().ID()}
}

func (w *world) register(name string, t Type) *person {
	w.Helper()
	p := &person{idOf(name), keyOf(w, name), t}
	b, err := NewRegistration(p.key, w.ledger, w.tenantID, p.id, t)
	if err != nil {
		w.Fatal(err)
	}
	w.want(OK, w.do(w.by(w.authority), KindRegister, b))
	return p
}

func (w *world) rotate(p *person, name string, overlap int64) *nhi.PrivateKey {
	w.Helper()
	next := keyOf(w, name)
	b, err := NewRotation(next, w.ledger, w.tenantID, p.id, p.typ, overlap)
	if err != nil {
		w.Fatal(err)
	}
	w.want(OK, w.do(w.by(p), KindRotate, b))
	old := p.key
	p.key = next
	return old
}

// rootLink is a wide root link from a human to an agent.
func (w *world) rootLink(from, to *person) *Link {
	return &Link{
		Ledger: w.ledger, Tenant: w.tenantID, Issuer: from.id, Subject: to.id, SubjectKey: to.key.Public().ID(),
		MaxDepth: 7, NotBefore: nowMs - 1000, Expires: nowMs + 3_600_000,
		Scopes: []Scope{
			{Actions: []string{"usage", "quota.*"}, Resource: AccountResource(idOf("team")), Caps: map[string]uint64{"tokens": 1000, "usd": 50}},
			{Actions: []string{"deploy"}, Resource: "service/web", Caps: nil},
		},
		Budgets:    []Budget{{"tokens", "token", 100_000, Total}, {"usd", "micro", 5_000_000, Month}},
		Oversight:  []string{"sre"},
		Redelegate: true,
		Purpose:    Purpose{Label: "nightly report"},
	}
}

// signed signs a link with from's key; a root is countersigned.
func (w *world) signed(l *Link, from *person) (*RegisterLinkBody, nhi.LinkID) {
	w.Helper()
	body, sig, id, err := SignLink(from.key, l)
	if err != nil {
		w.Fatal(err)
	}
	b := &RegisterLinkBody{Body: body, Signature: sig, Evidence: Evidence{Kind: CompositeKey, Bytes: []byte{}}}
	if l.isRoot() {
		if b.Countersignature, err = Countersign(w.authority.key, id); err != nil {
			w.Fatal(err)
		}
	}
	return b, id
}

func (w *world) link(l *Link, from *person) nhi.LinkID {
	w.Helper()
	b, id := w.signed(l, from)
	w.want(OK, w.do(w.by(from), KindRegisterLink, b))
	return id
}

func (w *world) childOf(parent nhi.LinkID, to *person) *Link {
	w.Helper()
	r, err := ResolveLink(w.tenant, parent, w.index)
	if err != nil {
		w.Fatal(err)
	}
	return Child(r.Link, parent, to.id, to.key.Public().ID(), [16]byte{byte(w.index)})
}

// family is a human, four agents and a chain of two links through the first two.
type family struct {
	*world
	human          *person
	a, b, c, other *person
	root, second   nhi.LinkID
}

func newFamily(t testing.TB) *family {
	t.Helper()
	w := newWorld(t)
	w.tree = Path{idOf("project"), idOf("team"), w.tenantID}
	f := &family{world: w}
	f.human = w.register("human", Human)
	f.a, f.b, f.c = w.register("a", Agent), w.register("b", Agent), w.register("c", Agent)
	f.other = w.register("other", Agent)
	f.root = w.link(w.rootLink(f.human, f.a), f.human)
	f.second = w.link(w.childOf(f.root, f.b), f.a)
	return f
}

// third is a link from b to c, which every test of a rule changes in one way.
func (f *family) third() *Link { return f.childOf(f.second, f.c) }
