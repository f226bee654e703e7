package ledger

import (
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
)

// The kinds of administrative acts. All but those about read tokens stand in the system log.
const (
	KindTenantCreate    = "admin.tenant.create"
	KindNodeAdd         = "admin.node.add"
	KindNodeRemove      = "admin.node.remove"
	KindMember          = "admin.member"
	KindJoinTokenAdd    = "admin.join_token.add"
	KindJoinTokenRedeem = "admin.join_token.redeem"
	KindReadTokenAdd    = "admin.read_token.add"
	KindReadTokenRemove = "admin.read_token.remove"
)

// Bounds of administration.
const (
	MaxReadTokens = 256 // of one tenant
	maxJoinTokens = 256 // neither redeemed nor expired
	maxZoneName   = 64
)

// adminName is the name of the handler of administrative acts.
const adminName = "admin"

var slotCountKey = []byte("n")

// Member is one node of the cluster.
type Member struct {
	ID      nhi.ID
	Role    registry.Role
	State   MemberState
	Address string // of its Raft listener; empty before it is announced
	Ed, PQ  []byte // cosigning keys; empty for sandbox nodes
}

// MemberState is where a node stands in the Raft configuration, as announced.
type MemberState uint8

// The states of a node.
const (
	MemberRegistered MemberState = 1
	MemberNonvoter   MemberState = 2
	MemberVoter      MemberState = 3
	MemberRemoved    MemberState = 4
)

type memberRow struct {
	V       uint64        `cbor:"1,keyasint"`
	Role    registry.Role `cbor:"2,keyasint"`
	State   MemberState   `cbor:"3,keyasint"`
	Address string        `cbor:"4,keyasint"`
	Ed      []byte        `cbor:"5,keyasint"`
	PQ      []byte        `cbor:"6,keyasint"`
}

type joinRow struct {
	V        uint64        `cbor:"1,keyasint"`
	Role     registry.Role `cbor:"2,keyasint"`
	Expires  int64         `cbor:"3,keyasint"`
	Redeemer nhi.ID        `cbor:"4,keyasint"` // node that served the join; zero = not redeemed
	Node     nhi.ID        `cbor:"5,keyasint"` // node that joins
	Used     bool          `cbor:"6,keyasint"` // the node is registered
	Request  nhi.Digest    `cbor:"7,keyasint,omitzero"`
}

type tokenRow struct {
	V       uint64 `cbor:"1,keyasint"`
	Expires int64  `cbor:"2,keyasint"`
	Added   uint64 `cbor:"3,keyasint"`
}

// adminHandler decides administrative acts.
type adminHandler struct {
	log *Log
}

func (*adminHandler) own()         {}
func (*adminHandler) Name() string { return adminName }

// Tables are the ledger's own, and the registry's: adding a node registers an identity.
func (h *adminHandler) Tables() []Table {
	return append((&identityHandler{}).Tables(), tableTenants, tableTenantID, tableTokens, tableJoin, tableMembers)
}

// Expire is never called.
func (*adminHandler) Expire(View, Timer, Stamp) Decision { return Decision{} }

func bodyCheck[B any, P interface {
	*B
	checker
}](ev *nhi.Event) error {
	return decodeBody(ev, P(new(B)))
}

func (l *Log) adminKinds() []Kind {
	h := &adminHandler{log: l}
	kind := func(name string, system bool, check func(*nhi.Event) error) Kind {
		return Kind{Name: name, Class: Ask, Handler: h, InApply: true, System: system, Check: check}
	}
	return []Kind{
		kind(KindTenantCreate, true, checkTenantCreate),
		kind(KindNodeAdd, true, bodyCheck[NodeAddBody]),
		kind(KindNodeRemove, true, bodyCheck[NodeRemoveBody]),
		kind(KindMember, true, bodyCheck[MemberBody]),
		kind(KindJoinTokenAdd, true, bodyCheck[JoinTokenBody]),
		kind(KindJoinTokenRedeem, true, bodyCheck[JoinRedeemBody]),
		kind(KindReadTokenAdd, false, bodyCheck[ReadTokenBody]),
		kind(KindReadTokenRemove, false, bodyCheck[ReadTokenBody]),
	}
}

func refusal(c verify.OutcomeCode) Decision { return Decision{Outcome: c} }

func refusalFrom(err error) Decision {
	return Decision{Outcome: OutcomeOf(registry.CodeOf(err)), Detail: refusalDetail(err)}
}

// Decide decides one administrative act. Each demands an active admin of the system log, but for those that a voter, or a
// tenant's authority, signs.
func (h *adminHandler) Decide(v View, ev *Event, at Stamp) Decision {
	admin := ev.Signer != nil && ev.Signer.Type == registry.Admin
	voter := ev.Signer != nil && ev.Signer.Type == registry.Node && ev.Signer.Role == registry.RoleVoter
	authority := ev.Signer != nil && ev.Signer.Type == registry.Authority
	allowed := admin
	switch ev.Kind {
	case KindNodeAdd, KindMember:
		allowed = admin || voter
	case KindJoinTokenRedeem:
		allowed = voter
	case KindReadTokenAdd, KindReadTokenRemove:
		allowed = authority
	}
	if !allowed {
		return refusal(verify.OutcomeUnauthorized)
	}
	switch ev.Kind {
	case KindTenantCreate:
		return withBody(ev, func(b *TenantCreateBody) Decision { return h.createTenant(v, b, at) })
	case KindNodeAdd:
		return withBody(ev, func(b *NodeAddBody) Decision { return h.addNode(v, ev, b, admin, at) })
	case KindNodeRemove:
		return withBody(ev, func(b *NodeRemoveBody) Decision { return h.removeNode(v, b, at) })
	case KindMember:
		return withBody(ev, func(b *MemberBody) Decision { return h.member(v, b) })
	case KindJoinTokenAdd:
		return withBody(ev, func(b *JoinTokenBody) Decision { return h.addJoinToken(v, b, at) })
	case KindJoinTokenRedeem:
		return withBody(ev, func(b *JoinRedeemBody) Decision { return h.redeem(v, ev, b, at) })
	case KindReadTokenAdd:
		return withBody(ev, func(b *ReadTokenBody) Decision { return h.addReadToken(v, b, at) })
	case KindReadTokenRemove:
		return withBody(ev, func(b *ReadTokenBody) Decision { return h.removeReadToken(v, b) })
	}
	return refusal(verify.OutcomeInvalid)
}

func withBody[B any, P interface {
	*B
	checker
}](ev *Event, decide func(P) Decision) Decision {
	b := P(new(B))
	if err := decodeBody(ev.Event, b); err != nil {
		return refusal(verify.OutcomeInvalid)
	}
	return decide(b)
}

func (h *adminHandler) createTenant(v View, b *TenantCreateBody, at Stamp) Decision {
	if _, ok := v.Get(tableTenantID, b.Tenant[:]); ok {
		return refusal(verify.OutcomeExists)
	}
	n, ok := v.Get(tableTenants, slotCountKey)
	if !ok || len(n) != 4 {
		panic(storePanic{corrupt("number of slots")})
	}
	slot := uint32(n[0])<<24 | uint32(n[1])<<16 | uint32(n[2])<<8 | uint32(n[3])
	if slot >= maxSlot {
		return refusal(verify.OutcomeLimit)
	}
	row := &tenantRow{
		V: rowVersion, ID: b.Tenant, AuthorityID: b.Authority, Zone: b.Zone, Strict: b.Strict, Created: v.NextIndex(), Suite: b.Suite,
		Public: b.Public,
	}
	pk, err := h.log.auth.keys.Parse(b.Suite, b.Public)
	if err != nil {
		return refusal(verify.OutcomeInvalid)
	}
	row.AuthorityKey = pk.ID()
	// What the authority's own registration will demand, demanded now: a tenant must not begin with a key that cannot speak.
	t := &Tenant{Slot: slot, ID: b.Tenant, AuthorityID: b.Authority, AuthorityKey: row.AuthorityKey, Zone: b.Zone}
	env := h.log.env(v.(*view).beside(t), at.Time)
	if _, err := registry.Register(&env, registry.NewIdentity{
		ID: b.Authority, Type: registry.Authority, Suite: b.Suite, Public: b.Public, Possession: b.Possession,
	}); err != nil {
		return refusalFrom(err)
	}
	return Decision{
		Detail: canon.MustMarshal(TenantCreated{slot}),
		Writes: []Write{
			{Table: tableTenants, Key: slotKey(slot), Value: encodeTenant(row)},
			{Table: tableTenants, Key: slotCountKey, Value: slotKey(slot + 1)},
			{Table: tableTenantID, Key: b.Tenant[:], Value: slotKey(slot)},
		},
		effect: effect{tenant: t, token: b.ReadToken, tokenRow: canon.MustMarshal(tokenRow{V: rowVersion})},
	}
}

// alone are the components of a voter's cosigning keys, which must not be registered for anything else.
func alone(ed, pq []byte) []nhi.Digest {
	if len(ed) == 0 {
		return nil
	}
	return []nhi.Digest{nhi.ComponentID("ed25519", ed), nhi.ComponentID("mldsa44", pq)}
}

func (h *adminHandler) addNode(v View, ev *Event, b *NodeAddBody, admin bool, at Stamp) Decision {
	var writes []Write
	if b.Token != (nhi.Digest{}) || !admin {
		row, ok := getRow[joinRow](v, tableJoin, b.Token[:])
		switch {
		case !ok:
			return refusal(verify.OutcomeNotFound)
		case row.Used:
			return refusal(verify.OutcomeClosed)
		case row.Node != b.ID || row.Redeemer != ev.Signer.ID || row.Role != b.Role:
			return refusal(verify.OutcomeUnauthorized)
		}
		row.Used = true
		writes = append(writes, Write{Table: tableJoin, Key: b.Token[:], Value: canon.MustMarshal(row)})
	}
	env := h.log.env(v, at.Time)
	ws, err := registry.Register(&env, registry.NewIdentity{
		ID: b.ID, Type: registry.Node, Role: b.Role, Suite: b.Suite, Public: b.Public, Possession: b.Possession, Alone: alone(b.Ed, b.PQ),
	})
	if err != nil {
		return refusalFrom(err)
	}
	row := memberRow{V: rowVersion, Role: b.Role, State: MemberRegistered, Ed: b.Ed, PQ: b.PQ}
	writes = append(append(writes, fromWrites(ws)...), Write{Table: tableMembers, Key: b.ID[:], Value: canon.MustMarshal(row)})
	return Decision{Writes: writes, Bump: BumpEntities}
}

func (h *adminHandler) removeNode(v View, b *NodeRemoveBody, at Stamp) Decision {
	row, ok := getRow[memberRow](v, tableMembers, b.ID[:])
	if !ok {
		return refusal(verify.OutcomeNotFound)
	}
	if row.State == MemberVoter || row.State == MemberNonvoter {
		return refusal(verify.OutcomeConflict) // it leaves the Raft configuration first
	}
	env := h.log.env(v, at.Time)
	ws, err := registry.Revoke(&env, b.ID, "removed")
	if err != nil {
		return refusalFrom(err)
	}
	row.State = MemberRemoved
	writes := append(fromWrites(ws), Write{Table: tableMembers, Key: b.ID[:], Value: canon.MustMarshal(row)})
	return Decision{Writes: writes, Bump: BumpEntities | BumpRevocation}
}

func (h *adminHandler) member(v View, b *MemberBody) Decision {
	row, ok := getRow[memberRow](v, tableMembers, b.Node[:])
	if !ok {
		return refusal(verify.OutcomeNotFound)
	}
	if row.Role != registry.RoleVoter {
		return refusal(verify.OutcomeUnauthorized)
	}
	switch {
	case b.Op == MemberAdd && (row.State == MemberRegistered || row.State == MemberNonvoter):
		row.State, row.Address = MemberNonvoter, b.Address
	case b.Op == MemberPromote && (row.State == MemberNonvoter || row.State == MemberVoter):
		row.State = MemberVoter
	case b.Op == MemberRemove && row.State != MemberRemoved:
		if row.State == MemberVoter && voters(v) == 1 {
			return refusal(verify.OutcomeConflict)
		}
		row.State = MemberRegistered
	default:
		return refusal(verify.OutcomeConflict)
	}
	return Decision{Writes: []Write{{Table: tableMembers, Key: b.Node[:], Value: canon.MustMarshal(row)}}}
}

func voters(v View) int {
	n := 0
	v.Scan(tableMembers, nil, nil, false, func(key, value []byte) bool {
		if m, err := decodeMember(key, value); err == nil && m.State == MemberVoter {
			n++
		}
		return true
	})
	return n
}

func (h *adminHandler) addJoinToken(v View, b *JoinTokenBody, at Stamp) Decision {
	if b.Expires <= at.Time {
		return refusal(verify.OutcomeExpired)
	}
	if _, ok := v.Get(tableJoin, b.Token[:]); ok {
		return refusal(verify.OutcomeExists)
	}
	open := 0
	v.Scan(tableJoin, nil, nil, false, func(_, value []byte) bool {
		row := new(joinRow)
		if err := canon.Unmarshal(value, row); err != nil {
			panic(storePanic{corrupt("join token: %v", err)})
		}
		if row.Redeemer.IsZero() && row.Expires > at.Time {
			open++
		}
		return open < maxJoinTokens
	})
	if open >= maxJoinTokens {
		return refusal(verify.OutcomeLimit)
	}
	row := joinRow{V: rowVersion, Role: b.Role, Expires: b.Expires}
	return Decision{Writes: []Write{{Table: tableJoin, Key: b.Token[:], Value: canon.MustMarshal(row)}}}
}

func (h *adminHandler) redeem(v View, ev *Event, b *JoinRedeemBody, at Stamp) Decision {
	row, ok := getRow[joinRow](v, tableJoin, b.Token[:])
	switch {
	case !ok:
		return refusal(verify.OutcomeNotFound)
	case !row.Redeemer.IsZero():
		return refusal(verify.OutcomeClosed)
	case at.Time >= row.Expires:
		return refusal(verify.OutcomeExpired)
	}
	row.Redeemer, row.Node, row.Request = ev.Signer.ID, b.Node, b.Request
	return Decision{Writes: []Write{{Table: tableJoin, Key: b.Token[:], Value: canon.MustMarshal(row)}}}
}

func (h *adminHandler) addReadToken(v View, b *ReadTokenBody, at Stamp) Decision {
	if b.Expires != 0 && b.Expires <= at.Time {
		return refusal(verify.OutcomeExpired)
	}
	if _, ok := v.Get(tableTokens, b.Token[:]); ok {
		return refusal(verify.OutcomeExists)
	}
	n := 0
	var expired [][]byte
	v.Scan(tableTokens, nil, nil, false, func(key, value []byte) bool {
		row := new(tokenRow)
		if err := canon.Unmarshal(value, row); err != nil {
			panic(storePanic{corrupt("read token: %v", err)})
		}
		if row.Expires != 0 && row.Expires <= at.Time {
			expired = append(expired, append([]byte(nil), key...))
		} else {
			n++
		}
		return true
	})
	if n >= MaxReadTokens {
		return refusal(verify.OutcomeLimit)
	}
	row := tokenRow{V: rowVersion, Expires: b.Expires, Added: v.NextIndex()}
	d := Decision{Writes: []Write{{Table: tableTokens, Key: b.Token[:], Value: canon.MustMarshal(row)}}}
	for _, k := range expired {
		d.Writes = append(d.Writes, Write{Table: tableTokens, Key: k, Delete: true})
	}
	return d
}

func (h *adminHandler) removeReadToken(v View, b *ReadTokenBody) Decision {
	if b.Expires != 0 {
		return refusal(verify.OutcomeInvalid)
	}
	if _, ok := v.Get(tableTokens, b.Token[:]); !ok {
		return refusal(verify.OutcomeNotFound)
	}
	return Decision{Writes: []Write{{Table: tableTokens, Key: b.Token[:], Delete: true}}}
}

// founders registers who stands in the genesis.
func (l *Log) founders(g *Genesis, v View, at int64) (Decision, error) {
	var all []registry.NewIdentity
	for _, a := range g.Admins {
		all = append(all, registry.NewIdentity{ID: a.ID, Type: registry.Admin, Suite: a.Suite, Public: a.Public, Founding: true})
	}
	var members []Write
	for _, n := range g.Nodes {
		all = append(all, registry.NewIdentity{
			ID: n.ID, Type: registry.Node, Role: registry.RoleVoter, Suite: n.Suite, Public: n.Public, Founding: true, Alone: alone(n.Ed, n.PQ),
		})
		row := memberRow{V: rowVersion, Role: registry.RoleVoter, State: MemberVoter, Address: n.Address, Ed: n.Ed, PQ: n.PQ}
		members = append(members, Write{Table: tableMembers, Key: n.ID[:], Value: canon.MustMarshal(row)})
	}
	env := l.env(v, at)
	ws, err := registry.Register(&env, all...)
	if err != nil {
		return Decision{}, err
	}
	return Decision{Writes: append(fromWrites(ws), members...), Bump: BumpEntities}, nil
}

func getRow[R any](v View, t Table, key []byte) (*R, bool) {
	b, ok := v.Get(t, key)
	if !ok {
		return nil, false
	}
	row := new(R)
	if err := canon.Unmarshal(b, row); err != nil {
		panic(storePanic{corrupt("row of table %#x: %v", byte(t), err)})
	}
	return row, true
}

func decodeMember(key, value []byte) (*Member, error) {
	row := new(memberRow)
	if err := canon.Unmarshal(value, row); err != nil {
		return nil, corrupt("member: %v", err)
	}
	if len(key) != len(nhi.ID{}) {
		return nil, corrupt("member key of %d bytes", len(key))
	}
	return &Member{ID: nhi.ID(key), Role: row.Role, State: row.State, Address: row.Address, Ed: row.Ed, PQ: row.PQ}, nil
}
