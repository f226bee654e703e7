package verify

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// The kinds of the system log's leaves that say which keys are in force.
const (
	kindGenesis    = "system.genesis"
	kindNodeAdd    = "admin.node.add"
	kindMember     = "admin.member"
	systemSlot     = 0
	maxKeyLeafSize = 64 << 10
	maxKeyNodes    = 4096 // voters that a system log may ever have had
)

// KeyLeafKinds are the kinds of the leaves that [KeyHistory.Add] must see, all of them and in order; others it passes over.
func KeyLeafKinds() []string { return []string{kindGenesis, kindNodeAdd, kindMember} }

// KeyHistory is what a system log says about the keys of its ledger: the log key, and which nodes could vote, and so
// cosign, from when until when. It begins with the genesis, whose hash is the ledger id, and so rests on nothing else.
type KeyHistory struct {
	Cluster string
	LogKey  VKey
	Nodes   []*NodeKeys // in the order in which they first got a vote
	ledger  nhi.Digest
	known   map[nhi.ID]*NodeKeys // registered with cosigning keys, vote or none
}

// NodeKeys are the cosigning keys of one node and the times of its vote.
type NodeKeys struct {
	ID      nhi.ID
	Ed, PQ  VKey
	Receipt nhi.KeyID // of the composite key it was registered with
	Spans   []Span
	founder bool // stands in the genesis
}

// Span is a half-open interval of commit times, in ns; an end of 0 is open.
type Span struct{ From, To int64 }

// Votes says whether the node has a vote at the end of what was read.
func (n *NodeKeys) Votes() bool { return len(n.Spans) > 0 && n.Spans[len(n.Spans)-1].To == 0 }

// NewKeyHistory returns an empty history of a ledger.
func NewKeyHistory(ledger nhi.Digest) *KeyHistory {
	return &KeyHistory{ledger: ledger, known: make(map[nhi.ID]*NodeKeys)}
}

// The bodies of key leaves, as far as they are needed here; docs/formats.md has them whole.
type (
	keyGenesis struct {
		V           uint64     `cbor:"1,keyasint"`
		Cluster     string     `cbor:"2,keyasint"`
		Cell        uint64     `cbor:"3,keyasint"`
		TrustDomain string     `cbor:"4,keyasint"`
		Test        bool       `cbor:"5,keyasint"`
		Admins      []keyAdmin `cbor:"6,keyasint"`
		Threshold   uint64     `cbor:"7,keyasint"`
		LogKey      string     `cbor:"8,keyasint"`
		Nodes       []keyNode  `cbor:"9,keyasint"`
		Created     int64      `cbor:"10,keyasint"`
		Nonce       [16]byte   `cbor:"11,keyasint"`
	}
	keyAdmin struct {
		ID     nhi.ID    `cbor:"1,keyasint"`
		Suite  nhi.Suite `cbor:"2,keyasint"`
		Public []byte    `cbor:"3,keyasint"`
	}
	keyNode struct {
		ID      nhi.ID    `cbor:"1,keyasint"`
		Suite   nhi.Suite `cbor:"2,keyasint"`
		Public  []byte    `cbor:"3,keyasint"`
		Ed      []byte    `cbor:"4,keyasint"`
		PQ      []byte    `cbor:"5,keyasint"`
		Address string    `cbor:"6,keyasint"`
	}
	keyNodeAdd struct {
		ID         nhi.ID     `cbor:"1,keyasint"`
		Role       uint64     `cbor:"2,keyasint"`
		Suite      nhi.Suite  `cbor:"3,keyasint"`
		Public     []byte     `cbor:"4,keyasint"`
		Possession []byte     `cbor:"5,keyasint"`
		Ed         []byte     `cbor:"6,keyasint,omitempty"`
		PQ         []byte     `cbor:"7,keyasint,omitempty"`
		Token      nhi.Digest `cbor:"8,keyasint,omitzero"`
	}
	keyMember struct {
		Op      uint64 `cbor:"1,keyasint"`
		Node    nhi.ID `cbor:"2,keyasint"`
		Address string `cbor:"3,keyasint,omitempty"`
	}
)

// What an admin.member leaf does; adding without a vote changes nothing here.
const (
	memberPromote = 2
	memberRemove  = 3
)

// errNoPayload says that a key leaf came without what it says.
var errNoPayload = errors.New("its content is not there")

// Add takes the next leaf of the system log with its payload, whose digest the caller has held against the leaf. Leaves of
// other kinds, and refused ones, change nothing.
func (h *KeyHistory) Add(l *Leaf, payload []byte) error {
	if !l.Outcome.Code.Accepted() {
		return nil
	}
	var err error
	switch l.Kind {
	case kindGenesis:
		err = h.genesis(l, payload)
	case kindNodeAdd:
		err = withEvent(payload, func(b *keyNodeAdd) error { return h.register(b) })
	case kindMember:
		err = withEvent(payload, func(b *keyMember) error { return h.member(b, l.Time) })
	default:
		return nil
	}
	if err != nil {
		return fmt.Errorf("key leaf %d (%s): %w", l.Index, l.Kind, err)
	}
	return nil
}

func withEvent[B any](payload []byte, do func(*B) error) error {
	if payload == nil {
		return errNoPayload
	}
	e, err := nhi.DecodeEvent(payload)
	if err != nil {
		return err
	}
	b := new(B)
	if err := canon.Unmarshal(e.Body, b); err != nil {
		return err
	}
	return do(b)
}

func (h *KeyHistory) genesis(l *Leaf, payload []byte) error {
	if payload == nil {
		return errNoPayload
	}
	sum := sha256.New()
	sum.Write([]byte("creto/genesis/v1\x00"))
	sum.Write(payload)
	g := new(keyGenesis)
	switch {
	case l.Index != 0 || h.Cluster != "":
		return errors.New("a genesis is leaf 0")
	case nhi.Digest(sum.Sum(nil)) != h.ledger:
		return errors.New("it is the genesis of another ledger")
	}
	if err := canon.UnmarshalMax(payload, g, maxKeyLeafSize); err != nil {
		return err
	}
	key, err := ParseVKey(g.LogKey)
	if err != nil {
		return err
	}
	h.Cluster, h.LogKey = g.Cluster, key
	for _, n := range g.Nodes {
		if len(n.Ed) == 0 {
			return fmt.Errorf("founder %s has no cosigning key", n.ID)
		}
		if err := h.register(&keyNodeAdd{ID: n.ID, Suite: n.Suite, Public: n.Public, Ed: n.Ed, PQ: n.PQ}); err != nil {
			return err
		}
		h.known[n.ID].founder = true
		if err := h.member(&keyMember{Op: memberPromote, Node: n.ID}, l.Time); err != nil {
			return err
		}
	}
	return nil
}

func (h *KeyHistory) register(b *keyNodeAdd) error {
	if len(b.Ed) == 0 {
		return nil // a sandbox node: it cosigns nothing
	}
	switch {
	case h.Cluster == "":
		return errors.New("it comes before the genesis")
	case h.known[b.ID] != nil:
		return fmt.Errorf("node %s is registered twice", b.ID)
	case len(h.known) == maxKeyNodes:
		return fmt.Errorf("more than %d voters", maxKeyNodes)
	}
	n := &NodeKeys{ID: b.ID}
	var err error
	if n.Ed, err = NewVKey(NodeKeyName(h.Cluster, b.ID, "ed"), KeyCosignature, b.Ed); err != nil {
		return err
	}
	if n.PQ, err = NewVKey(NodeKeyName(h.Cluster, b.ID, "pq"), KeyMLDSA44, b.PQ); err != nil {
		return err
	}
	pk, err := nhi.ParsePublicKey(b.Suite, b.Public)
	if err != nil {
		return err
	}
	n.Receipt = pk.ID()
	h.known[b.ID] = n
	return nil
}

func (h *KeyHistory) member(b *keyMember, at int64) error {
	n := h.known[b.Node]
	switch {
	case n == nil:
		return fmt.Errorf("node %s is not registered as a voter", b.Node)
	case b.Op == memberPromote && !n.Votes():
		if len(n.Spans) == 0 {
			h.Nodes = append(h.Nodes, n)
		}
		n.Spans = append(n.Spans, Span{From: at})
	case b.Op == memberRemove && n.Votes():
		n.Spans[len(n.Spans)-1].To = at
	}
	return nil
}

// Voters are the nodes with a vote at the end of what was read.
func (h *KeyHistory) Voters() []*NodeKeys {
	var out []*NodeKeys
	for _, n := range h.Nodes {
		if n.Votes() {
			out = append(out, n)
		}
	}
	return out
}

// Trust is the trust file that follows from the log alone: its log key, both cosigning keys of every node that ever had a
// vote, each with the times of its vote as its interval, and as quorum as many of them as are a majority of the voters of
// now. So what was proved before a node was replaced still verifies, and nothing that it signs afterwards counts. A trust file
// has room for MaxTrustGroups-1 nodes: of more, those whose vote ended first are left out.
//
// Who holds the keys of removed nodes can sign in the past, which the log's own order cannot disprove: an auditor who does not
// want to rely on them takes their lines out.
func (h *KeyHistory) Trust() *Trust {
	t := &Trust{LedgerID: h.ledger, Logs: []TrustLog{{Key: h.LogKey}}, Quorum: "quorum"}
	quorum := TrustGroup{Name: t.Quorum, K: len(h.Voters())/2 + 1}
	for _, n := range h.newest(MaxTrustGroups - 1) {
		name := n.ID.String()
		t.Witnesses = append(t.Witnesses, TrustWitness{Name: name + "-ed", Key: n.Ed}, TrustWitness{Name: name + "-pq", Key: n.PQ})
		t.Groups = append(t.Groups, TrustGroup{Name: name, K: 2, Members: []string{name + "-ed", name + "-pq"}})
		quorum.Members = append(quorum.Members, name)
		if from, to := n.interval(); from != 0 || to != math.MaxInt64 {
			t.Valid = append(t.Valid, TrustInterval{name + "-ed", from, to}, TrustInterval{name + "-pq", from, to})
		}
		if n.Votes() {
			t.Receipts = append(t.Receipts, TrustReceiptKey{Node: n.ID, Key: n.Receipt})
		}
	}
	t.Groups = append(t.Groups, quorum)
	return t
}

// newest are the voters, and of the other nodes those whose votes ended last, at most n in all, in the order of Nodes.
func (h *KeyHistory) newest(n int) []*NodeKeys {
	if len(h.Nodes) <= n {
		return h.Nodes
	}
	end := func(k *NodeKeys) int64 {
		if k.Votes() {
			return math.MaxInt64
		}
		return k.Spans[len(k.Spans)-1].To
	}
	ends := make([]int64, len(h.Nodes))
	for i, k := range h.Nodes {
		ends[i] = end(k)
	}
	slices.Sort(ends)
	var out []*NodeKeys
	for _, k := range h.Nodes {
		if end(k) >= ends[len(ends)-n] && len(out) < n {
			out = append(out, k)
		}
	}
	return out
}

// interval is the time of the node's votes, from the first to the last, in POSIX seconds. Cosignatures have whole seconds, and
// nodes' clocks differ: a minute is added at both ends. A founder's begins with time.
func (n *NodeKeys) interval() (from, to int64) {
	const slack = 60
	to = math.MaxInt64
	if first := n.Spans[0].From; !n.founder {
		from = max(0, first/int64(time.Second)-slack)
	}
	if last := n.Spans[len(n.Spans)-1].To; last != 0 {
		to = last/int64(time.Second) + slack
	}
	return from, to
}

// Check holds a trust file against the log: the same log key, no node key that the log does not know, every voter of now, and
// no interval that goes beyond a node's vote. Witnesses from outside the cluster are its reader's own choice.
func (h *KeyHistory) Check(t *Trust) error {
	if h.Cluster == "" {
		return errors.New("the log has no genesis")
	}
	if t.LedgerID != h.ledger {
		return errors.New("the trust file is of another ledger")
	}
	for _, l := range t.Logs {
		if l.Key.Name == h.LogKey.Name && l.Key.String() != h.LogKey.String() {
			return fmt.Errorf("the genesis names another log key than %s", l.Key)
		}
	}
	named := make(map[string]*TrustWitness)
	for i, w := range t.Witnesses {
		if strings.HasPrefix(w.Key.Name, h.Cluster+"/node/") {
			named[w.Key.String()] = &t.Witnesses[i]
		}
	}
	for _, n := range h.Nodes {
		for _, key := range []VKey{n.Ed, n.PQ} {
			w := named[key.String()]
			delete(named, key.String())
			if w == nil {
				if n.Votes() {
					return fmt.Errorf("node %s has a vote, and the trust file has not its key %s", n.ID, key.Name)
				}
				continue
			}
			from, to := n.interval()
			gotFrom, gotTo := t.interval(w.Name)
			if gotFrom < from || gotTo > to {
				return fmt.Errorf("the trust file takes signatures of %s outside of the time of node %s's vote", w.Name, n.ID)
			}
		}
	}
	for _, w := range named {
		return fmt.Errorf("the log knows no key %s of the trust file", w.Key.Name)
	}
	return nil
}

// interval returns the bounds within which a key's signatures count.
func (t *Trust) interval(name string) (from, to int64) {
	for _, v := range t.Valid {
		if v.Name == name {
			return v.From, v.To
		}
	}
	return 0, math.MaxInt64
}
