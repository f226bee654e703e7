package verify

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// keyLog writes key leaves as a system log has them.
type keyLog struct {
	t       *testing.T
	h       *KeyHistory
	index   uint64
	genesis []byte
}

const second = int64(1e9)

func newKeyNode(t *testing.T, id byte) keyNode {
	t.Helper()
	key, err := nhi.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var seed [nhi.MLDSA44SeedSize]byte
	if _, err := rand.Read(seed[:]); err != nil {
		t.Fatal(err)
	}
	pq, err := nhi.NewMLDSA44(seed[:])
	if err != nil {
		t.Fatal(err)
	}
	return keyNode{ID: nhi.ID{id}, Suite: key.Public().Suite(), Public: key.Public().Bytes(), Ed: ed, PQ: pq.Public()}
}

// newKeyLog begins a log with three founders.
func newKeyLog(t *testing.T) *keyLog {
	t.Helper()
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewVKey(SpineOrigin("c"), KeyEd25519, ed)
	if err != nil {
		t.Fatal(err)
	}
	return newKeyLogOf(t, key, newKeyNode(t, 1), newKeyNode(t, 2), newKeyNode(t, 3))
}

func newKeyLogOf(t *testing.T, log VKey, founders ...keyNode) *keyLog {
	t.Helper()
	g := &keyGenesis{V: 1, Cluster: "c", Cell: 1, TrustDomain: "c.internal", Threshold: 1, LogKey: log.String(), Created: 1,
		Admins: []keyAdmin{{ID: nhi.ID{99}, Suite: 1, Public: []byte{1}}}, Nodes: founders}
	raw := canon.MustMarshal(g)
	l := &keyLog{t: t, h: NewKeyHistory(sha256.Sum256(append([]byte("creto/genesis/v1\x00"), raw...))), genesis: raw}
	if err := l.add(kindGenesis, raw, 100*second, OutcomeAccepted); err != nil {
		t.Fatalf("genesis: %v", err)
	}
	return l
}

func (l *keyLog) add(kind string, payload []byte, at int64, outcome OutcomeCode) error {
	leaf := &Leaf{V: LeafVersion, Index: l.index, Time: at, Kind: kind, Outcome: Outcome{Code: outcome}}
	l.index++
	return l.h.Add(leaf, payload)
}

func (l *keyLog) event(kind string, body any, at int64) error {
	l.t.Helper()
	e := &nhi.Event{V: 1, Kind: kind, Agent: nhi.ID{99}, ID: [16]byte{byte(l.index + 1)}, Nonce: [16]byte{1}, ClientTime: 1, Body: canon.MustMarshal(body)}
	raw, err := e.Encode()
	if err != nil {
		l.t.Fatal(err)
	}
	return l.add(kind, raw, at, OutcomeAccepted)
}

func (l *keyLog) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *keyLog) join(n keyNode, at int64) {
	l.t.Helper()
	l.must(l.event(kindNodeAdd, &keyNodeAdd{ID: n.ID, Role: 1, Suite: n.Suite, Public: n.Public, Possession: []byte{1}, Ed: n.Ed, PQ: n.PQ}, at))
	l.must(l.event(kindMember, &keyMember{Op: 1, Node: n.ID, Address: "h:1"}, at+second))
	l.must(l.event(kindMember, &keyMember{Op: memberPromote, Node: n.ID}, at+2*second))
}

// The log names who could vote when, and the trust file that follows from it is right; others are not.
func TestKeyHistory(t *testing.T) {
	l := newKeyLog(t)
	founders := l.h.Trust()
	l.must(l.h.Check(founders))
	if founders.Groups[3].K != 2 || len(founders.Valid) != 0 || len(founders.Receipts) != 3 {
		t.Errorf("founders: got %+v, want two of three without bounds", founders)
	}
	four := newKeyNode(t, 4)
	l.join(four, 1000*second)
	if v := l.h.Voters(); len(v) != 4 || l.h.Trust().Groups[4].K != 3 {
		t.Errorf("after a join: got %d voters, want 4, of whom 3 are needed", len(v))
	}
	if err := l.h.Check(founders); err == nil || !strings.Contains(err.Error(), "has not its key") {
		t.Errorf("the founders' trust file after a join: got %v, want a missing key", err)
	}
	l.must(l.event(kindMember, &keyMember{Op: memberRemove, Node: nhi.ID{1}}, 2000*second))
	after := l.h.Trust()
	l.must(l.h.Check(after))
	again, err := ParseTrust(after.Format())
	l.must(err)
	l.must(l.h.Check(again))
	if from, to := again.interval(nhi.ID{1}.String() + "-ed"); from != 0 || to != 2060 {
		t.Errorf("removed founder: got [%d, %d), want [0, 2060)", from, to)
	}
	if from, _ := again.interval(nhi.ID{4}.String() + "-pq"); from != 942 {
		t.Errorf("joined node: got from %d, want 942", from)
	}
	if again.Groups[4].K != 2 || len(again.Groups[4].Members) != 4 || len(again.Receipts) != 3 {
		t.Errorf("got quorum %+v, want two of the four who ever voted", again.Groups[4])
	}
	// A node that comes back has its vote from the first time to the last.
	l.must(l.event(kindMember, &keyMember{Op: memberPromote, Node: nhi.ID{1}}, 3000*second))
	if len(l.h.Trust().Valid) != 2 || len(l.h.Nodes) != 4 {
		t.Errorf("after its return: got %+v, want bounds of the joined node only", l.h.Trust().Valid)
	}
	l.must(l.event(kindMember, &keyMember{Op: memberRemove, Node: nhi.ID{1}}, 4000*second))

	edit := func(change func(*Trust)) *Trust {
		c, err := ParseTrust(l.h.Trust().Format())
		l.must(err)
		change(c)
		return c
	}
	stranger := newKeyNode(t, 9)
	strange, err := NewVKey(NodeKeyName("c", stranger.ID, "ed"), KeyCosignature, stranger.Ed)
	l.must(err)
	outside, err := NewVKey("witness.example", KeyCosignature, stranger.Ed)
	l.must(err)
	for name, c := range map[string]struct {
		trust *Trust
		want  string
	}{
		"unchanged":            {edit(func(*Trust) {}), ""},
		"a witness of its own": {edit(func(c *Trust) { c.Witnesses = append(c.Witnesses, TrustWitness{Name: "w", Key: outside}) }), ""},
		"without removed node": {edit(func(c *Trust) { c.Witnesses = c.Witnesses[2:] }), ""},
		"an unknown node":      {edit(func(c *Trust) { c.Witnesses = append(c.Witnesses, TrustWitness{Name: "x", Key: strange}) }), "knows no key"},
		"a voter less":         {edit(func(c *Trust) { c.Witnesses = append(c.Witnesses[:2:2], c.Witnesses[4:]...) }), "has not its key"},
		"no end":               {edit(func(c *Trust) { c.Valid = c.Valid[2:] }), "outside of the time"},
		"a later end":          {edit(func(c *Trust) { c.Valid[0].To++ }), "outside of the time"},
		"an earlier beginning": {edit(func(c *Trust) { c.Valid[2].From-- }), "outside of the time"},
		"another ledger":       {edit(func(c *Trust) { c.LedgerID[0] ^= 1 }), "another ledger"},
		"another log key":      {edit(func(c *Trust) { c.Logs[0].Key.Key = string(stranger.Ed) }), "another log key"},
	} {
		err := l.h.Check(c.trust)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// What a removed node signed while it had its vote counts for ever; what it signs afterwards does not, nor what the node in its
// place signs with a date before it came.
func TestCosignaturesOutsideOfAVote(t *testing.T) {
	origin := SpineOrigin("c")
	log := logSigner(t, origin).VKey()
	founder := func(id byte) keyNode {
		n := newKeyNode(t, id)
		n.Ed, n.PQ = []byte(nodeSigner(t, id, KeyCosignature).VKey().Key), []byte(nodeSigner(t, id, KeyMLDSA44).VKey().Key)
		return n
	}
	l := newKeyLogOf(t, log, founder(1), founder(2), founder(3))
	l.join(founder(4), 1000*second) // a vote from 1002 on
	l.must(l.event(kindMember, &keyMember{Op: memberRemove, Node: nhi.ID{1}}, 2000*second))
	trust, err := ParseTrust(l.h.Trust().Format())
	l.must(err)
	c := Checkpoint{Origin: origin, Size: 9, Root: nhi.Digest{1}}
	note := func(at int64, ids ...byte) *Note {
		var signers []NoteSigner
		for _, id := range ids {
			signers = append(signers, nodeSigner(t, id, KeyCosignature), nodeSigner(t, id, KeyMLDSA44))
		}
		return signedNote(t, c, at, signers...)
	}
	for _, c := range []struct {
		name string
		at   int64
		ids  []byte
		want bool
	}{
		{"founders, before everything", 500, []byte{1, 2}, true},
		{"the removed node, on its last day", 1999, []byte{1, 4}, true},
		{"the removed node, later", 2100, []byte{1, 2}, false},
		{"the removed node, later, beside a majority", 2100, []byte{1, 2, 4}, true},
		{"the node in its place", 2100, []byte{4, 3}, true},
		{"the node in its place, dated back", 900, []byte{4, 3}, false},
	} {
		if _, err := trust.Endorse(note(c.at, c.ids...)); (err == nil) != c.want {
			t.Errorf("%s: got %v, want a quorum: %t", c.name, err, c.want)
		}
	}
}

func nodeSigner(t *testing.T, id byte, typ KeyType) NoteSigner {
	t.Helper()
	if typ == KeyCosignature {
		return edSigner(t, NodeKeyName("c", nhi.ID{id}, "ed"), 50+id)
	}
	return pqSigner(t, NodeKeyName("c", nhi.ID{id}, "pq"), 60+id)
}

// However often nodes are replaced, the trust file can be read, and has every voter.
func TestKeyHistoryOfManyReplacements(t *testing.T) {
	l := newKeyLog(t)
	const replaced = 140
	template := newKeyNode(t, 4)
	pk, err := nhi.ParsePublicKey(template.Suite, template.Public)
	l.must(err)
	for i := range replaced { // the history takes any keys; what they are is the ledger's to check
		ed, _, err := ed25519.GenerateKey(rand.Reader)
		l.must(err)
		pq := slices.Clone(template.PQ)
		pq[0], pq[1] = byte(i), byte(i>>8)
		n := keyNode{ID: nhi.ID{4, byte(i)}, Suite: template.Suite, Public: pk.Bytes(), Ed: ed, PQ: pq}
		l.join(n, int64(1000+10*i)*second)
		if i < replaced-1 {
			l.must(l.event(kindMember, &keyMember{Op: memberRemove, Node: n.ID}, int64(1005+10*i)*second))
		}
	}
	full := l.h.Trust()
	full.Receipts = full.Receipts[:3] // the last voter's is that of all the others here
	trust, err := ParseTrust(full.Format())
	l.must(err)
	l.must(l.h.Check(trust))
	last := trust.Groups[len(trust.Groups)-1]
	if len(trust.Groups) != MaxTrustGroups || last.K != 3 || len(last.Members) != MaxTrustGroups-1 {
		t.Errorf("got %d groups, quorum %d of %d, want %d, 3 of %d", len(trust.Groups), last.K, len(last.Members), MaxTrustGroups, MaxTrustGroups-1)
	}
	has := func(i int) bool { return slices.Contains(last.Members, nhi.ID{4, byte(i)}.String()) }
	if left := replaced + 3 - (MaxTrustGroups - 1); has(left-1) || !has(left) || !has(replaced-1) {
		t.Errorf("left out: got %t, %t and %t, want node %d and not node %d and the last", !has(left-1), !has(left), !has(replaced-1), left-1, left)
	}
}

// What is no key leaf, was refused, or does not fit together changes nothing, or is an error.
func TestKeyHistoryRefuses(t *testing.T) {
	l := newKeyLog(t)
	n := newKeyNode(t, 7)
	add := &keyNodeAdd{ID: n.ID, Role: 1, Suite: n.Suite, Public: n.Public, Possession: []byte{1}, Ed: n.Ed, PQ: n.PQ}
	l.must(l.add("usage", nil, second, OutcomeAccepted))
	l.must(l.add(kindMember, []byte("anything"), second, OutcomeUnauthorized))
	l.must(l.event(kindNodeAdd, &keyNodeAdd{ID: nhi.ID{8}, Role: 2, Suite: 1, Public: []byte{1}, Possession: []byte{1}}, second)) // a sandbox node
	for name, err := range map[string]error{
		"second genesis":   l.add(kindGenesis, l.genesis, second, OutcomeAccepted),
		"no payload":       l.add(kindMember, nil, second, OutcomeAccepted),
		"no event":         l.add(kindMember, []byte{0xa0}, second, OutcomeAccepted),
		"unknown node":     l.event(kindMember, &keyMember{Op: memberPromote, Node: nhi.ID{55}}, second),
		"sandbox node":     l.event(kindMember, &keyMember{Op: memberPromote, Node: nhi.ID{8}}, second),
		"registered twice": l.event(kindNodeAdd, &keyNodeAdd{ID: nhi.ID{1}, Role: 1, Suite: n.Suite, Public: n.Public, Possession: []byte{1}, Ed: n.Ed, PQ: n.PQ}, second),
		"short key":        l.event(kindNodeAdd, &keyNodeAdd{ID: nhi.ID{6}, Role: 1, Suite: n.Suite, Public: n.Public, Possession: []byte{1}, Ed: n.Ed[:31], PQ: n.PQ}, second),
		"before a genesis": withEvent(nil, func(*keyNodeAdd) error { return nil }),
		"foreign genesis":  NewKeyHistory(nhi.Digest{1}).Add(&Leaf{Kind: kindGenesis}, l.genesis),
		"node, no genesis": NewKeyHistory(nhi.Digest{1}).register(add),
		"founder without key": func() error {
			g := new(keyGenesis)
			l.must(canon.UnmarshalMax(l.genesis, g, maxKeyLeafSize))
			g.Nodes[0].Ed = nil
			raw := canon.MustMarshal(g)
			return NewKeyHistory(sha256.Sum256(append([]byte("creto/genesis/v1\x00"), raw...))).Add(&Leaf{Kind: kindGenesis}, raw)
		}(),
		"genesis elsewhere": NewKeyHistory(l.h.ledger).Add(&Leaf{Kind: kindGenesis, Index: 1}, l.genesis),
	} {
		if err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	if len(l.h.Nodes) != 3 || NewKeyHistory(l.h.ledger).Check(l.h.Trust()) == nil {
		t.Error("what was refused has changed something, or a log without genesis passes")
	}
}

func FuzzKeyLeaf(f *testing.F) {
	f.Add(uint8(0), []byte{0xa0})
	f.Add(uint8(1), []byte{})
	f.Add(uint8(2), canon.MustMarshal(&keyMember{Op: 2, Node: nhi.ID{1}}))
	f.Fuzz(func(t *testing.T, kind uint8, payload []byte) {
		kinds := KeyLeafKinds()
		h := NewKeyHistory(nhi.Digest{})
		h.Cluster = "c"
		_ = h.Add(&Leaf{Kind: kinds[int(kind)%len(kinds)]}, payload)
	})
}
