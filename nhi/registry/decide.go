package registry

import (
	"slices"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// Decider decides the events of one kind. All of them are asks, whose signature
// is verified in Apply, and none asks Cedar.
type Decider struct {
	Kind   string
	System bool // only in slot 0
	// Check is what can be seen of a body without state; Decide repeats it.
	Check func(body []byte) error
	// Decide is a pure function of what it is given.
	Decide func(env *Env, by By, body []byte) Result
}

// Deciders returns one decider for each kind, ascending by kind.
func Deciders() []Decider {
	return []Decider{
		{Kind: KindMinSuite, System: true, Check: checks[MinSuiteBody], Decide: decideMinSuite},
		{Kind: KindGuard, Check: checks[GuardBody], Decide: decideGuard},
		{Kind: KindRegisterLink, Check: checkLinkBody, Decide: decideRegisterLink},
		{Kind: KindRevokeLink, Check: checks[RevokeLinkBody], Decide: decideRevokeLink},
		{Kind: KindErase, Check: checks[EraseBody], Decide: decideErase},
		{Kind: KindRegister, Check: checks[RegisterBody], Decide: decideRegister},
		{Kind: KindResume, Check: checks[StatusBody], Decide: decideResume},
		{Kind: KindRevoke, Check: checks[StatusBody], Decide: decideRevoke},
		{Kind: KindRotate, Check: checks[RotateBody], Decide: decideRotate},
		{Kind: KindSuspend, Check: checks[StatusBody], Decide: decideSuspend},
	}
}

// body is a pointer to one of the body types.
type body[B any] interface {
	*B
	check() error
}

func checks[B any, P body[B]](raw []byte) error { return decode(raw, P(new(B))) }

func checkLinkBody(raw []byte) error {
	b := new(RegisterLinkBody)
	if err := decode(raw, b); err != nil {
		return err
	}
	_, err := DecodeLink(b.Body)
	return err
}

// byAuthority accepts the tenant's authority, or in slot 0 an admin.
func (e *Env) byAuthority(by By) bool {
	if by.Identity == nil || by.Identity.Status != Active {
		return false
	}
	if e.Slot == 0 {
		return by.Identity.Type == Admin
	}
	return by.Identity.Type == Authority && by.Identity.ID == e.AuthorityID
}

// NewIdentity is an identity with its first key, as other handlers register one.
type NewIdentity struct {
	ID         nhi.ID
	Type       Type
	Role       Role
	Suite      nhi.Suite
	Public     []byte
	Possession []byte
	// Founding accepts the key without proof of possession: the genesis names it.
	Founding bool
	// Alone are components that the identity uses outside its composite key, by
	// nhi.ComponentID: they too are registered once.
	Alone []nhi.Digest
}

// Register returns the rows that register identities in the order given, at one
// index. It is for handlers that register nodes, admins and founding keys; who may
// do so is theirs to decide. They raise the entities epoch.
func Register(env *Env, all ...NewIdentity) ([]Write, error) {
	var writes []Write
	var ids []nhi.ID
	var components []nhi.Digest
	for _, n := range all {
		if n.ID.IsZero() || !n.Type.Valid() {
			return nil, refuse(CodeType)
		}
		if _, err := ResolveIdentity(env.View, n.ID, env.Index); err == nil || slices.Contains(ids, n.ID) {
			return nil, refuse(CodeExists)
		}
		pk, err := env.admit(n.Suite, n.Public)
		if err != nil {
			return nil, err
		}
		if !n.Founding {
			if err := verifyPossession(pk, env.Ledger, env.Tenant, n.ID, n.Type, n.Possession); err != nil {
				return nil, err
			}
		}
		own := pk.ComponentIDs()
		for _, c := range slices.Concat(own[:], n.Alone) {
			if slices.Contains(components, c) || env.componentKnown(c) {
				return nil, refuse(CodeComponent)
			}
			components = append(components, c)
		}
		for _, c := range n.Alone {
			writes = append(writes, set(TableComponent, c[:], componentRow{Owner: n.ID, Index: env.Index}))
		}
		writes = append(writes, env.newKey(n.ID, pk)...)
		writes = append(writes, setIdentity(&Identity{
			ID: n.ID, Type: n.Type, Status: Active, Role: n.Role, Key: pk.ID(), Registered: env.Index,
		}, env.Index))
		ids = append(ids, n.ID)
	}
	return writes, nil
}

// admit parses a key that is to be registered and holds its suite against the
// least of its class.
func (e *Env) admit(s nhi.Suite, public []byte) (*nhi.PublicKey, error) {
	if !known(s) {
		return nil, refuse(CodeSuite)
	}
	if s < MinSuite(e.System, ClassKey, e.SystemIndex) {
		return nil, refuse(CodeWeakSuite)
	}
	pk, err := e.Keys.Parse(s, public)
	if err != nil {
		return nil, refuseFor(CodeBadKey, err)
	}
	return pk, nil
}

// componentKnown reports whether a component key is registered in the tenant or
// in the system log.
func (e *Env) componentKnown(c nhi.Digest) bool {
	if _, ok := e.View.Get(TableComponent, c[:]); ok {
		return true
	}
	_, ok := e.System.Get(TableComponent, c[:])
	return ok
}

func (e *Env) newKey(owner nhi.ID, pk *nhi.PublicKey) []Write {
	id, comps := pk.ID(), pk.ComponentIDs()
	w := []Write{
		set(TableKey, id[:], keyRow{Owner: owner, Suite: pk.Suite(), Public: pk.Bytes(), Components: comps, From: e.Index}),
		mark(TableByOwner, versioned(owner[:], e.Index), id[:]),
	}
	for _, c := range comps {
		w = append(w, set(TableComponent, c[:], componentRow{Key: id, Owner: owner, Index: e.Index}))
	}
	return w
}

// SelfRegistration returns the key that signs an authority's registration of
// itself, which nobody else can vouch for: the one that the system log named when
// it created the tenant.
func SelfRegistration(env *Env, raw []byte) (*nhi.PublicKey, error) {
	b := new(RegisterBody)
	if err := decode(raw, b); err != nil {
		return nil, err
	}
	if env.Slot == 0 || env.AuthorityID.IsZero() || b.ID != env.AuthorityID || b.Type != Authority {
		return nil, refuse(CodeUnauthorized)
	}
	pk, err := env.Keys.Parse(b.Suite, b.Public)
	if err != nil {
		return nil, refuseFor(CodeBadKey, err)
	}
	if pk.ID() != env.AuthorityKey {
		return nil, refuse(CodeUnauthorized)
	}
	return pk, nil
}

func decideRegister(env *Env, by By, raw []byte) Result {
	b := new(RegisterBody)
	if err := decode(raw, b); err != nil {
		return refused(err)
	}
	if by.Identity == nil {
		pk, err := SelfRegistration(env, raw)
		if err != nil {
			return refused(err)
		}
		if by.Key != pk.ID() {
			return refused(refuse(CodeUnauthorized))
		}
	} else {
		if !env.byAuthority(by) {
			return refused(refuse(CodeUnauthorized))
		}
		// Nodes come with admin.node.add, authorities by themselves.
		if env.Slot == 0 && b.Type != Admin || env.Slot != 0 && b.Type != Human && b.Type != Agent && b.Type != Service {
			return refused(refuse(CodeType))
		}
	}
	writes, err := Register(env, NewIdentity{ID: b.ID, Type: b.Type, Suite: b.Suite, Public: b.Public, Possession: b.Possession})
	if err != nil {
		return refused(err)
	}
	pk, err := env.Keys.Parse(b.Suite, b.Public)
	if err != nil {
		return refused(refuseFor(CodeBadKey, err))
	}
	return Result{Writes: writes, Bump: BumpEntities, Detail: canon.MustMarshal(Registered{Key: pk.ID()})}
}

func decideRotate(env *Env, by By, raw []byte) Result {
	b := new(RotateBody)
	if err := decode(raw, b); err != nil {
		return refused(err)
	}
	id, err := ResolveIdentity(env.View, b.ID, env.Index)
	if err != nil {
		return refused(err)
	}
	// Itself, with its current key and not with one that was superseded.
	self := by.Identity != nil && by.Identity.ID == b.ID && by.Key == id.Key
	if !self && (!env.byAuthority(by) || by.Identity.ID == b.ID) {
		return refused(refuse(CodeUnauthorized))
	}
	if id.Status == Revoked || self && id.Status != Active {
		return refused(id.live(-1))
	}
	if b.OverlapUntil-env.Time > MaxOverlap {
		return refused(refuse(CodeTooLong))
	}
	pk, err := env.admit(b.Suite, b.Public)
	if err != nil {
		return refused(err)
	}
	for _, c := range pk.ComponentIDs() {
		if env.componentKnown(c) {
			return refused(refuse(CodeComponent))
		}
	}
	if err := verifyPossession(pk, env.Ledger, env.Tenant, b.ID, id.Type, b.Possession); err != nil {
		return refused(err)
	}
	until := max(b.OverlapUntil, env.Time)
	old := id.Key
	next := *id
	next.Key = pk.ID()
	writes := append(env.newKey(b.ID, pk),
		set(TableKeyState, versioned(old[:], env.Index), keyStateRow{Until: until}),
		setIdentity(&next, env.Index))
	return Result{
		Writes: writes, Bump: BumpEntities | BumpRevocation,
		Detail: canon.MustMarshal(Registered{Key: pk.ID(), Until: until}),
	}
}

// target resolves the identity that a status event is about and checks who asks.
// Nobody takes away the standing of an authority or their own as an admin: that
// would leave a log that nobody can administer.
func target(env *Env, by By, raw []byte, selfToo bool) (*StatusBody, *Identity, error) {
	b := new(StatusBody)
	if err := decode(raw, b); err != nil {
		return nil, nil, err
	}
	id, err := ResolveIdentity(env.View, b.ID, env.Index)
	if err != nil {
		return nil, nil, err
	}
	self := by.Identity != nil && by.Identity.ID == b.ID
	if !env.byAuthority(by) && (!self || !selfToo) {
		return nil, nil, refuse(CodeUnauthorized)
	}
	// A node is more than an identity: admin.node.remove takes its membership with it.
	if id.Type == Node {
		return nil, nil, refuse(CodeType)
	}
	if b.CompromisedSince > env.Time {
		return nil, nil, bad("compromised in the future")
	}
	if b.Key == (nhi.Digest{}) && (id.Type == Authority || self && id.Type == Admin) {
		return nil, nil, refuse(CodeUnauthorized)
	}
	return b, id, nil
}

// status changes an identity's standing. A window of compromise is never forgotten: resumption ends it, and a later statement
// can only make it begin earlier, and opens it again.
func (e *Env) status(id *Identity, s Status, b *StatusBody) Result {
	next := *id
	next.Status, next.Reason = s, b.Reason
	switch since := b.CompromisedSince; {
	case since != 0:
		if next.CompromisedSince == 0 || since < next.CompromisedSince {
			next.CompromisedSince = since
		}
		next.CompromisedUntil = 0
	case s == Active && next.CompromisedSince != 0 && next.CompromisedUntil == 0:
		next.CompromisedUntil = e.Time
	}
	return Result{Writes: []Write{setIdentity(&next, e.Index)}, Bump: BumpEntities | BumpRevocation}
}

func decideSuspend(env *Env, by By, raw []byte) Result {
	b, id, err := target(env, by, raw, true)
	if err != nil {
		return refused(err)
	}
	if b.Key != (nhi.Digest{}) {
		return refused(bad("keys are not suspended"))
	}
	if id.Status != Active {
		return refused(refuse(CodeState))
	}
	return env.status(id, Suspended, b)
}

func decideResume(env *Env, by By, raw []byte) Result {
	b, id, err := target(env, by, raw, false)
	if err != nil {
		return refused(err)
	}
	if b.Key != (nhi.Digest{}) || b.CompromisedSince != 0 {
		return refused(bad("resume with key or time"))
	}
	if id.Status != Suspended {
		return refused(refuse(CodeState))
	}
	return env.status(id, Active, b)
}

func decideRevoke(env *Env, by By, raw []byte) Result {
	b, id, err := target(env, by, raw, true)
	if err != nil {
		return refused(err)
	}
	if id.Status == Revoked {
		return refused(refuse(CodeRevoked))
	}
	if b.Key != (nhi.Digest{}) {
		return revokeKey(env, by, id, b)
	}
	return env.status(id, Revoked, b)
}

// revokeKey revokes one key of an identity, named by its own id or by that of a
// component: a component that is not safe makes the whole key unsafe.
func revokeKey(env *Env, by By, id *Identity, b *StatusBody) Result {
	key := nhi.KeyID(b.Key)
	if holder, err := ResolveComponent(env.View, b.Key, env.Index); err == nil {
		key = holder
	}
	k, err := ResolveKey(env.View, key, env.Index)
	if err != nil {
		return refused(err)
	}
	if k.Owner != id.ID {
		return refused(refuse(CodeUnknownKey))
	}
	if k.RevokedAt != 0 {
		return refused(refuse(CodeKeyRevoked))
	}
	self := by.Identity.ID == id.ID
	if id.Key == key && (id.Type == Authority || self && id.Type == Admin) {
		return refused(refuse(CodeUnauthorized))
	}
	return Result{
		Writes: []Write{set(TableTombstone, tombstoneKey(tombKey, key), Tombstone{
			Index: env.Index, Time: env.Time, By: by.Identity.ID, Reason: b.Reason, CompromisedSince: b.CompromisedSince,
		})},
		Bump: BumpEntities | BumpRevocation,
	}
}

// Revoke returns the rows that revoke an identity, for handlers that remove nodes;
// who may do so is theirs to decide. They raise both epochs.
func Revoke(env *Env, id nhi.ID, reason string) ([]Write, error) {
	b := &StatusBody{ID: id, Reason: reason}
	if err := b.check(); err != nil {
		return nil, err
	}
	cur, err := ResolveIdentity(env.View, id, env.Index)
	if err != nil {
		return nil, err
	}
	if cur.Status == Revoked {
		return nil, refuse(CodeRevoked)
	}
	return env.status(cur, Revoked, b).Writes, nil
}

func decideErase(env *Env, by By, raw []byte) Result {
	b := new(EraseBody)
	if err := decode(raw, b); err != nil {
		return refused(err)
	}
	if !env.byAuthority(by) {
		return refused(refuse(CodeUnauthorized))
	}
	if b.Index >= env.Index {
		return refused(refuse(CodeNotFound))
	}
	return Result{Erase: []uint64{b.Index}}
}

// MinSuite returns the least suite of a class at an index of the system log: the
// last one activated at or before it. system is the view of slot 0, systemIndex
// its next index.
func MinSuite(system View, class ObjectClass, systemIndex uint64) nhi.Suite {
	least := nhi.SuiteMLDSA65Ed25519
	latest(system, TableMinSuite, []byte{byte(class)}, systemIndex, func(_ uint64, value []byte) {
		var r suiteRow
		decodeRow(TableMinSuite, value, &r)
		least = r.Suite
	})
	return least
}

// activations returns every least suite of a class, past and waiting, ascending.
func activations(system View, class ObjectClass) []activation {
	var all []activation
	system.Scan(TableMinSuite, []byte{byte(class)}, nil, false, func(key, value []byte) bool {
		var r suiteRow
		decodeRow(TableMinSuite, value, &r)
		all = append(all, activation{versionOf(key), r.Suite})
		return true
	})
	return all
}

// decideMinSuite raises the least suite of a class. It never falls, and what has
// been activated or is waiting is not changed. So a class has at most as many
// rows as there are suites.
func decideMinSuite(env *Env, by By, raw []byte) Result {
	b := new(MinSuiteBody)
	if err := decode(raw, b); err != nil {
		return refused(err)
	}
	if env.Slot != 0 {
		return refused(refuse(CodeWrongLog))
	}
	if !env.byAuthority(by) {
		return refused(refuse(CodeUnauthorized))
	}
	if b.Activation <= env.Index {
		return refused(refuse(CodeDowngrade))
	}
	if all := activations(env.View, b.Class); len(all) > 0 {
		if last := all[len(all)-1]; last.from >= b.Activation || last.suite >= b.Suite {
			return refused(refuse(CodeDowngrade))
		}
	}
	return Result{
		Writes: []Write{set(TableMinSuite, versioned([]byte{byte(b.Class)}, b.Activation), suiteRow{Suite: b.Suite, Index: env.Index})},
		Bump:   BumpEntities, // of slot 0: what SuiteCache knows is out of date
	}
}
