// Command ledger writes the vectors for leaves, heads, checkpoints, trust files and proof files to test/vectors/ledger.json:
//
//	go run ./test/vectors/ledger
//
// All keys derive from fixed seeds and every signature is deterministic: a run changes nothing unless a format changed, and a
// test here fails if it would. docs/formats.md says what the fields mean.
package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/ledger/verify/verifytest"
	"github.com/creto-systems/creto/nhi"
)

// fileName is the name of the written file.
const fileName = "ledger.json"

func main() {
	b, err := generate()
	if err == nil {
		err = os.WriteFile(filepath.Join("test", "vectors", fileName), b, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ledger vectors:", err)
		os.Exit(1)
	}
}

// vectors is the JSON file. Bytes are lower-case hex, integers that can exceed 2^53 are strings.
type vectors struct {
	About       string       `json:"about"`
	Leaves      []leafVector `json:"leaves"`
	BadLeaves   []badVector  `json:"bad_leaves"`
	Heads       []hashVector `json:"head_leaves"`
	Spine       []hashVector `json:"spine_leaves"`
	Checkpoint  string       `json:"checkpoint"` // a note, verbatim
	Trust       string       `json:"trust"`      // a trust file, verbatim
	Fingerprint string       `json:"fingerprint"`
	Files       []fileVector `json:"files"` // verify against Trust
}

type leafVector struct {
	Name  string            `json:"name"`
	Bytes string            `json:"bytes"`
	Hash  string            `json:"hash"`
	Index uint64            `json:"index,string"`
	Time  int64             `json:"time,string"`
	Kind  string            `json:"kind"`
	Code  string            `json:"outcome"`
	Sums  map[string]string `json:"quantities,omitempty"`
}

type badVector struct {
	Name  string `json:"name"`
	Bytes string `json:"bytes"`
}

type hashVector struct {
	Bytes string `json:"bytes"`
	Hash  string `json:"hash"`
}

type fileVector struct {
	Name     string `json:"name"`
	Kind     string `json:"kind"`
	Bytes    string `json:"bytes"`
	ExitCode int    `json:"exit_code"` // 0: verifies
	Step     string `json:"step,omitempty"`
	Class    string `json:"class,omitempty"`
}

// world is the ledger of the vectors: one node, one tenant, two epochs.
type world struct {
	*verifytest.Ledger
	tenant *verifytest.Tenant
	agent  *verifytest.Agent
}

func newWorld() (*world, error) {
	l, err := verifytest.New("vectors", 1)
	if err != nil {
		return nil, err
	}
	w := &world{Ledger: l, tenant: l.AddTenant()}
	if w.agent, err = l.NewAgent(); err != nil {
		return nil, err
	}
	if err := l.AppendSystem(l.Tenants[0], "system.genesis"); err != nil {
		return nil, err
	}
	tokens := []verify.Quantity{{Meter: "input_tokens", N: 1200}, {Meter: "output_tokens", N: 80}}
	if err := w.append(1, tokens, nil); err != nil { // 0
		return nil, err
	}
	if err := w.append(3, tokens, nil); err != nil { // 1–3
		return nil, err
	}
	if err := l.AppendSystem(w.tenant, "system.lease.expired"); err != nil { // 4
		return nil, err
	}
	if err := l.Seal(); err != nil {
		return nil, err
	}
	if err := w.append(1, tokens, func(l *verify.Leaf) { l.Outcome.Code = verify.OutcomeQuotaExhausted }); err != nil { // 5
		return nil, err
	}
	if err := w.append(1, tokens, func(l *verify.Leaf) { l.Reverses = new(uint64) }); err != nil { // 6
		return nil, err
	}
	return w, l.Seal()
}

// append signs n usage events, alone if n is 1, and sequences them.
func (w *world) append(n int, q []verify.Quantity, edit func(*verify.Leaf)) error {
	payloads := make([][]byte, n)
	for i := range payloads {
		p, err := w.Event(w.tenant, w.agent, "usage", []byte{0xa0})
		if err != nil {
			return err
		}
		payloads[i] = p
	}
	var env *nhi.Envelope
	var err error
	if n == 1 {
		env, err = nhi.SignEvent(w.agent.Key, payloads[0])
	} else {
		env, err = nhi.SignBatch(w.agent.Key, w.ID, w.tenant.ID, payloads)
	}
	if err != nil {
		return err
	}
	return w.Append(w.tenant, w.agent, env, q, edit)
}

func generate() ([]byte, error) {
	w, err := newWorld()
	if err != nil {
		return nil, err
	}
	v := &vectors{About: "leaves, heads, checkpoints, trust and proof files; see docs/formats.md", Trust: string(w.Trust())}
	for _, step := range []func(*world) error{v.leaves, v.heads, v.files} {
		if err := step(w); err != nil {
			return nil, err
		}
	}
	out, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return nil, err
	}
	return append(out, '\n'), nil
}

func (v *vectors) leaves(w *world) error {
	rev := uint64(3)
	full := &verify.Leaf{
		V: 1, Cell: 2, Slot: 300, Index: 70000, Time: verifytest.Start, Kind: "quota.settle",
		Quality: verify.Quality{Code: verify.QualityStale, Flags: verify.FlagCeil, Cert: []byte{1, 2, 3}},
		Agent:   nhi.ID{1}, Link: nhi.LinkID{2}, Seq: nhi.Seq{Instance: [8]byte{3}, N: 4}, ID: [16]byte{5}, Payload: nhi.Digest{6},
		Signature: nhi.Digest{7}, Outcome: verify.Outcome{Code: verify.OutcomeConflict, Detail: nhi.Digest{8}},
		Quantities: []verify.Quantity{{Meter: "a", N: 1<<64 - 1}, {Meter: "b", N: 0}, {Meter: "bb", N: 24}},
		Epochs:     verify.Epochs{Policy: 9, Entities: 10, Revocation: 11}, Addenda: []nhi.Digest{{12}, {13}},
		Cause: &verify.Cause{Kind: verify.CauseEvent, Index: 14, Ref: []byte{15}}, Account: nhi.ID{16}, Reverses: &rev,
		Lease: &verify.LeaseRef{ID: 17, From: 18, To: 19}, Decision: nhi.Digest{20}, Assurance: verify.AssuranceGateway,
	}
	least := &verify.Leaf{V: 1, Kind: "x"}
	for _, c := range []struct {
		name string
		leaf *verify.Leaf
	}{{"every field", full}, {"no optional field", least}} {
		b, err := c.leaf.Encode()
		if err != nil {
			return err
		}
		v.addLeaf(c.name, b, c.leaf)
	}
	for i, e := range w.tenant.Leaves {
		l, err := verify.DecodeLeaf(e.Leaf)
		if err != nil {
			return err
		}
		v.addLeaf(fmt.Sprintf("tenant leaf %d", i), e.Leaf, l)
	}
	b, err := least.Encode()
	if err != nil {
		return err
	}
	h := hex.EncodeToString(b)
	v.BadLeaves = []badVector{
		{"trailing byte", h + "00"},
		{"truncated", h[:len(h)-2]},
		{"integer not in shortest form", "a8011801" + h[6:]},
		{"indefinite map", "bf" + h[2:] + "ff"},
		{"present although zero", "a9" + h[2:] + "1700"},
		{"unknown key 24", "a9" + h[2:] + "181801"},
		{"no outcome", "a7" + h[2:len(h)-8]},
	}
	return nil
}

func (v *vectors) addLeaf(name string, b []byte, l *verify.Leaf) {
	hash := verify.LeafHash(b)
	x := leafVector{Name: name, Bytes: hex.EncodeToString(b), Hash: hex.EncodeToString(hash[:]), Index: l.Index, Time: l.Time, Kind: l.Kind, Code: l.Outcome.Code.String()}
	for _, q := range l.Quantities {
		if x.Sums == nil {
			x.Sums = map[string]string{}
		}
		x.Sums[q.Meter] = fmt.Sprint(q.N)
	}
	v.Leaves = append(v.Leaves, x)
}

func (v *vectors) heads(w *world) error {
	add := func(to *[]hashVector, b []byte) {
		hash := verify.LeafHash(b)
		*to = append(*to, hashVector{hex.EncodeToString(b), hex.EncodeToString(hash[:])})
	}
	for _, e := range w.Epochs {
		add(&v.Spine, e.Spine)
		for _, h := range e.Heads {
			add(&v.Heads, h)
		}
	}
	note, err := w.Checkpoint(1)
	if err != nil {
		return err
	}
	v.Checkpoint = string(note.Marshal())
	trust, err := verify.ParseTrust(w.Trust())
	if err != nil {
		return err
	}
	v.Fingerprint = trust.Fingerprint()
	return nil
}

func (v *vectors) files(w *world) error {
	add := func(name string, kind verify.FileKind, b []byte, code int, step string, class verify.FailureClass) {
		v.Files = append(v.Files, fileVector{name, string(kind), hex.EncodeToString(b), code, step, string(class)})
	}
	event := func(index int, edit func(*verify.EventProof)) ([]byte, error) {
		p, err := w.EventProof(w.tenant, index)
		if err != nil {
			return nil, err
		}
		if edit != nil {
			edit(p)
		}
		return p.Encode()
	}
	for _, c := range []struct {
		name  string
		index int
		edit  func(*verify.EventProof)
		code  int
		step  string
		class verify.FailureClass
	}{
		{name: "event signed alone", index: 0},
		{name: "event of a batch", index: 2},
		{name: "event of a batch, erased", index: 2, edit: func(p *verify.EventProof) { p.Payload = nil }},
		{name: "system leaf", index: 4},
		{"another index", 4, func(p *verify.EventProof) { p.Index++ }, verify.ExitInclusion, verify.StepAsked, verify.ClassTampering},
		{"path too short", 4, func(p *verify.EventProof) { p.Path = p.Path[1:] }, verify.ExitInclusion, verify.StepTenantTree, verify.ClassTampering},
		{"another ledger", 4, func(p *verify.EventProof) { p.LedgerID[0] ^= 1 }, verify.ExitUntrusted, verify.StepTrust, verify.ClassTrust},
	} {
		b, err := event(c.index, c.edit)
		if err != nil {
			return err
		}
		add(c.name, verify.KindEvent, b, c.code, c.step, c.class)
	}
	b, err := event(4, nil)
	if err != nil {
		return err
	}
	b[len(b)-1] ^= 1
	add("checksum damaged", verify.KindEvent, b, verify.ExitMalformed, verify.StepIntegrity, verify.ClassDamaged)
	t1, t2 := w.Epochs[0].Leaf.Time, w.Epochs[1].Leaf.Time
	if b, err = w.Completeness(w.tenant, verifytest.Start, t2, 0, 2); err != nil {
		return err
	}
	add("complete from the first leaf", verify.KindCompleteness, b, 0, "", "")
	if b, err = w.Completeness(w.tenant, t1, t2, 1, 2); err != nil {
		return err
	}
	add("complete between two epochs", verify.KindCompleteness, b, 0, "", "")
	if b, err = receipt(w); err != nil {
		return err
	}
	add("receipt", verify.KindReceipt, b, 0, "", "")
	c, err := w.Consistency(1, 2)
	if err != nil {
		return err
	}
	if b, err = c.Encode(); err != nil {
		return err
	}
	add("second epoch extends the first", verify.KindConsistency, b, 0, "", "")
	c.Path[0][0] ^= 1
	if b, err = c.Encode(); err != nil {
		return err
	}
	add("second epoch does not extend the first", verify.KindConsistency, b, verify.ExitConsistency, verify.StepConsistency, verify.ClassTampering)
	return nil
}

func receipt(w *world) ([]byte, error) {
	var receipts []verify.Receipt
	for i, e := range w.tenant.Leaves[1:4] {
		l, err := verify.DecodeLeaf(e.Leaf)
		if err != nil {
			return nil, err
		}
		receipts = append(receipts, verify.Receipt{
			V: 1, LedgerID: w.ID, Tenant: w.tenant.ID, Slot: w.tenant.Slot, Index: uint64(1 + i), LeafHash: verify.LeafHash(e.Leaf), Time: l.Time, Outcome: l.Outcome.Code,
		})
	}
	node := w.Nodes[0]
	signed, err := verify.SignReceipts(node.Receipt, w.ID, node.ID, receipts)
	if err != nil {
		return nil, err
	}
	pk := node.Receipt.Public()
	return (&verify.ReceiptFile{
		Receipt: signed[1], Key: verify.KeyRecord{Suite: uint8(pk.Suite()), Public: pk.Bytes()}, Leaf: w.tenant.Leaves[2].Leaf,
	}).Encode()
}
