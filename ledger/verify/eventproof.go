package verify

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// VerifyEventProof verifies an event proof file against a trust file. The report is never nil; the error is a *Failure.
func VerifyEventProof(file []byte, t *Trust, o Options) (*Report, error) {
	r := newRun(KindEvent, t, o)
	if err := r.eventProof(file); err != nil {
		return r.failed(err)
	}
	return r.finish(), nil
}

// parsedEvent is an event proof with its parts decoded.
type parsedEvent struct {
	EventProof
	leaf  *Leaf
	event *nhi.Event // nil without payload
	head  *HeadLeaf
	spine *spineProof
}

func (r *run) eventProof(file []byte) error {
	p, err := r.parseEvent(file)
	if err != nil {
		return err
	}
	if err := r.checkLedger(p.LedgerID); err != nil {
		return err
	}
	if err := r.checkAsked(p); err != nil {
		return err
	}
	r.describe(p)
	for _, step := range []func(*parsedEvent) error{r.checkPayload, r.checkSignature, r.checkContent, r.checkChain, r.checkTenantTree} {
		if err := step(p); err != nil {
			return err
		}
	}
	if err := r.checkHead(p.head, p.Head, p.HeadPath, p.spine, p.Tenant); err != nil {
		return err
	}
	if err := r.checkRegistration(p); err != nil {
		return err
	}
	if err := r.checkSpine(p.spine); err != nil {
		return err
	}
	if _, err := r.checkNote(p.spine.note, p.spine.leaf.Time); err != nil {
		return err
	}
	if err := r.checkAge(p.spine.leaf.Time); err != nil {
		return err
	}
	if r.damaged {
		return r.fail(StepIntegrity, ClassDamaged, ExitMalformed, errors.New("the file's checksum does not match its content"))
	}
	r.ok(StepIntegrity, "the file is as it was written")
	r.rep.AsOf, r.rep.Epoch = formatTime(p.spine.leaf.Time), p.spine.leaf.Epoch
	r.conclude(p)
	return nil
}

func (r *run) parseEvent(file []byte) (*parsedEvent, error) {
	c, intact, err := decodeContainer(file)
	if err != nil {
		return nil, r.fail(StepFile, ClassMalformed, ExitMalformed, err)
	}
	r.damaged = !intact
	malformed := func(err error) error {
		class := ClassMalformed
		if r.damaged {
			class = ClassDamaged
		}
		return r.fail(StepFile, class, ExitMalformed, err)
	}
	if c.Type != string(KindEvent) {
		return nil, malformed(fmt.Errorf("the file is of kind %q", clip(c.Type)))
	}
	p := new(parsedEvent)
	if err := canon.UnmarshalMax(c.Body, &p.EventProof, MaxProofFile); err != nil {
		return nil, malformed(fmt.Errorf("decode event proof: %w", err))
	}
	if p.leaf, err = DecodeLeaf(p.Leaf); err != nil {
		return nil, malformed(err)
	}
	if p.Payload != nil {
		if p.event, err = nhi.DecodeEvent(p.Payload); err != nil {
			return nil, malformed(err)
		}
	}
	if p.head, err = DecodeHeadLeaf(p.Head); err != nil {
		return nil, malformed(err)
	}
	if p.spine, err = parseSpineProof(p.Spine, p.SpineProof); err != nil {
		return nil, malformed(err)
	}
	if (p.Evidence == nil) != (p.Key == nil) {
		return nil, malformed(errors.New("signature and key come together or not at all"))
	}
	if len(p.Links) > MaxChain {
		return nil, malformed(fmt.Errorf("%d links are more than %d", len(p.Links), MaxChain))
	}
	r.ok(StepFile, "an event proof of %d bytes", len(file))
	return p, nil
}

// checkAsked checks that the file's own statements about the leaf are the leaf's, and what the caller expects.
func (r *run) checkAsked(p *parsedEvent) error {
	x := r.opt.Expect
	switch {
	case p.leaf.Index != p.Index:
		return r.fail(StepAsked, ClassTampering, ExitInclusion, fmt.Errorf("the file names index %d, its leaf %d", p.Index, p.leaf.Index))
	case p.leaf.Slot != p.head.Slot || p.leaf.Cell != p.head.Cell:
		return r.fail(StepAsked, ClassTampering, ExitInclusion, fmt.Errorf("the leaf is of cell %d and slot %d, the head of cell %d and slot %d",
			p.leaf.Cell, p.leaf.Slot, p.head.Cell, p.head.Slot))
	case x.Tenant != nil && *x.Tenant != p.Tenant:
		return r.fail(StepAsked, ClassMismatch, ExitInclusion, fmt.Errorf("the proof is about %s, not %s", logOf(p.Tenant), logOf(*x.Tenant)))
	case x.Index != nil && *x.Index != p.Index:
		return r.fail(StepAsked, ClassMismatch, ExitInclusion, fmt.Errorf("the proof is about index %d, not %d", p.Index, *x.Index))
	case x.Cell != nil && *x.Cell != p.leaf.Cell:
		return r.fail(StepAsked, ClassMismatch, ExitInclusion, fmt.Errorf("the proof is about cell %d, not %d", p.leaf.Cell, *x.Cell))
	}
	r.ok(StepAsked, "leaf %d of %s", p.Index, logOf(p.Tenant))
	return nil
}

func (r *run) describe(p *parsedEvent) {
	l := p.leaf
	r.rep.Test = l.Quality.Flags&FlagTest != 0
	s := &Subject{
		LedgerID: fmt.Sprintf("%x", p.LedgerID), Tenant: p.Tenant.String(), Cell: l.Cell, Slot: l.Slot, Index: l.Index,
		Time: formatTime(l.Time), Kind: l.Kind, Outcome: l.Outcome.Code.String(), Assurance: l.Assurance.String(),
		Quality: l.Quality.Code.String(), Payload: "none", LeafHash: fmt.Sprintf("%x", LeafHash(p.Leaf)),
	}
	if !l.Agent.IsZero() {
		s.Agent = l.Agent.String()
	}
	if !l.Account.IsZero() {
		s.Account = l.Account.String()
	}
	if l.Payload != (nhi.Digest{}) {
		s.Payload = "absent"
		if p.Payload != nil {
			s.Payload = "present"
		}
	}
	for _, q := range l.Quantities {
		if s.Amounts == nil {
			s.Amounts = make(map[string]string, len(l.Quantities))
		}
		s.Amounts[q.Meter] = strconv.FormatUint(q.N, 10)
	}
	r.rep.Subject = s
}

// checkPayload checks the event against the leaf's digest, and every field that both have.
func (r *run) checkPayload(p *parsedEvent) error {
	l, e := p.leaf, p.event
	if e == nil {
		if l.Payload == (nhi.Digest{}) {
			r.skip(StepPayload, "a leaf of the ledger itself, without an event")
		} else {
			r.skip(StepPayload, "the event is not in the file: erased, or left out; its digest stands in the leaf")
		}
		r.skip(StepIdentity, "no event to compare with")
		return nil
	}
	if nhi.PayloadDigest(p.Payload) != l.Payload {
		return r.fail(StepPayload, ClassTampering, ExitSignature, errors.New("the event is not the one whose digest stands in the leaf"))
	}
	r.ok(StepPayload, "the event of %d bytes is the one whose digest stands in the leaf", len(p.Payload))
	var differs string
	switch {
	case e.LedgerID != p.LedgerID:
		differs = "ledger_id"
	case e.Tenant != p.Tenant:
		differs = "tenant"
	case e.ID != l.ID:
		differs = "id"
	case e.Kind != l.Kind:
		differs = "kind"
	case e.Agent != l.Agent:
		differs = "agent"
	case e.Link != l.Link:
		differs = "link_id"
	case e.Seq != l.Seq:
		differs = "seq"
	case e.Account != l.Account:
		differs = "account"
	case !slices.Equal(e.Addenda, l.Addenda):
		differs = "addenda"
	}
	if differs != "" {
		return r.fail(StepIdentity, ClassTampering, ExitSignature, fmt.Errorf("event and leaf differ in %s", differs))
	}
	r.ok(StepIdentity, "ledger, tenant, id, kind, agent, chain, sequence, account and addenda are the leaf's")
	return nil
}

// checkSignature checks the signature under the key in the file, and that it is the one the leaf commits to.
func (r *run) checkSignature(p *parsedEvent) error {
	if p.Evidence == nil {
		if p.leaf.Signature == (nhi.Digest{}) {
			r.skip(StepSignature, "a leaf of the ledger itself, without a signature")
		} else {
			r.skip(StepSignature, "the signature is not in the file; its digest stands in the leaf")
		}
		return nil
	}
	bad := func(err error) error { return r.fail(StepSignature, ClassTampering, ExitSignature, err) }
	pk, err := nhi.ParsePublicKey(nhi.Suite(p.Key.Suite), p.Key.Public)
	if err != nil {
		return bad(err)
	}
	if pk.ID() != p.Evidence.KeyID {
		return bad(errors.New("the key in the file is not the one that the signature names"))
	}
	if sha256.Sum256(p.Evidence.Signature) != p.leaf.Signature {
		return bad(errors.New("the signature is not the one whose digest stands in the leaf"))
	}
	id := pk.ID()
	use := KeyUse{Role: "agent", ID: id.String()}
	if p.Payload != nil {
		use.Name = p.leaf.Agent.String()
	}
	r.rep.Keys = append(r.rep.Keys, use)
	b := p.Evidence.Batch
	if b == nil {
		if p.Payload == nil {
			r.skip(StepSignature, "the signed event is not in the file, so its signature cannot be checked; both digests stand in the leaf")
			return nil
		}
		e := nhi.Envelope{Payloads: [][]byte{p.Payload}, KeyID: id, Signature: p.Evidence.Signature}
		if _, err := e.Verify(pk); err != nil {
			return bad(err)
		}
		r.ok(StepSignature, "signed alone by key %s… (%s)", id.String()[:16], pk.Suite())
		return nil
	}
	if b.LedgerID != p.LedgerID || b.Tenant != p.Tenant {
		return bad(errors.New("the batch is of another ledger or tenant"))
	}
	if err := nhi.VerifyBatchPath(b, p.leaf.Payload); err != nil {
		return bad(err)
	}
	if err := b.VerifySignature(pk, p.Evidence.Signature); err != nil {
		return bad(err)
	}
	r.ok(StepSignature, "number %d of a batch of %d, signed by key %s… (%s)", b.K, b.N, id.String()[:16], pk.Suite())
	return nil
}

// checkContent lets the caller look into the event.
func (r *run) checkContent(p *parsedEvent) error {
	if r.opt.Content == nil || p.Payload == nil || p.Evidence == nil {
		return nil
	}
	pk, err := nhi.ParsePublicKey(nhi.Suite(p.Key.Suite), p.Key.Public)
	if err != nil {
		return r.fail(StepContent, ClassTampering, ExitSignature, err)
	}
	e, err := nhi.DecodeEvent(p.Payload)
	if err != nil {
		return r.fail(StepContent, ClassTampering, ExitSignature, err)
	}
	checked, err := r.opt.Content(e, pk)
	if err != nil {
		return r.fail(StepContent, ClassTampering, ExitSignature, err)
	}
	if checked != "" {
		r.ok(StepContent, "%s", checked)
	}
	return nil
}

func (r *run) checkTenantTree(p *parsedEvent) error {
	if err := VerifyInclusion(p.leaf.Index, p.head.Size, LeafHash(p.Leaf), p.Path, p.head.Root); err != nil {
		return r.fail(StepTenantTree, ClassTampering, ExitInclusion, err)
	}
	r.ok(StepTenantTree, "leaf %d is in the tenant's log at size %d", p.leaf.Index, p.head.Size)
	return nil
}

// checkRegistration checks the leaf with which the signing key was registered, if the file has it: an accepted event that
// gave this key to the agent, or to the gateway that signed for it.
func (r *run) checkRegistration(p *parsedEvent) error {
	g := p.Register
	if g == nil {
		r.skip(StepRegistration, "the key's own leaf is not in the file: whose key it was is vouched for by the node quorum")
		return nil
	}
	bad := func(err error) error { return r.fail(StepRegistration, ClassTampering, ExitInclusion, err) }
	leaf, err := DecodeLeaf(g.Leaf)
	if err != nil {
		return bad(err)
	}
	head, tenant := p.head, p.Tenant
	if g.Head != nil {
		if head, err = DecodeHeadLeaf(g.Head); err != nil {
			return bad(err)
		}
		var ok bool
		if tenant, ok = TenantOf(p.spine.cluster, head.Origin); !ok || !tenant.IsZero() {
			return bad(errors.New("keys are registered in the tenant's own log or in the system log"))
		}
		if err := r.checkHead(head, g.Head, g.HeadPath, p.spine, tenant); err != nil {
			return err
		}
	}
	event, err := nhi.DecodeEvent(g.Payload)
	if err != nil {
		return bad(err)
	}
	switch {
	case p.Key == nil:
		return bad(errors.New("a registration without the key it registers"))
	case leaf.Slot != head.Slot || leaf.Cell != head.Cell:
		return bad(errors.New("the registration is of another log than its head"))
	case head == p.head && leaf.Index > p.leaf.Index: // an authority signs its own registration
		return bad(errors.New("the key was registered after it signed"))
	case !leaf.Outcome.Code.Accepted() || nhi.PayloadDigest(g.Payload) != leaf.Payload:
		return bad(errors.New("the registration was refused, or is of another event"))
	case event.Kind != leaf.Kind || event.LedgerID != p.LedgerID || event.Tenant != tenant:
		return bad(errors.New("the registration's event and leaf differ"))
	}
	owner, key, err := registeredKey(event)
	switch {
	case err != nil:
		return bad(err)
	case key.Suite != p.Key.Suite || !bytes.Equal(key.Public, p.Key.Public):
		return bad(errors.New("the registration is of another key"))
	case owner != p.leaf.Agent && p.leaf.Assurance == AssuranceSelf:
		return bad(fmt.Errorf("the key was registered for %s, not for the agent", owner))
	}
	if err := VerifyInclusion(leaf.Index, head.Size, LeafHash(g.Leaf), g.Path, head.Root); err != nil {
		return bad(err)
	}
	r.ok(StepRegistration, "the key was registered for %s by leaf %d of %s", owner, leaf.Index, head.Origin)
	return nil
}

// registeredKey reads who gets which key by an event of kind identity.register or identity.rotate. The rest of the body
// is what Apply checked.
func registeredKey(e *nhi.Event) (owner nhi.ID, key KeyRecord, err error) {
	var suite, public uint64
	switch e.Kind {
	case "identity.register":
		suite, public = 3, 4
	case "identity.rotate":
		suite, public = 2, 3
	default:
		return owner, key, fmt.Errorf("an event of kind %q registers no key", clip(e.Kind))
	}
	r := newReader(e.Body)
	for f := r.fields(8); ; {
		k, ok := f.key()
		if !ok {
			break
		}
		switch k {
		case 1:
			r.fixed(owner[:])
		case suite:
			key.Suite = uint8(r.uint(255))
		case public:
			key.Public = r.bytes(len(e.Body))
		default:
			_, err := r.Item(canon.Limits{})
			r.fail(err)
		}
	}
	if err := r.done(); err != nil {
		return owner, key, fmt.Errorf("decode registration: %w", err)
	}
	return owner, key, nil
}

// conclude writes the words of the report.
func (r *run) conclude(p *parsedEvent) {
	l := p.leaf
	switch {
	case p.Evidence == nil:
	case p.Payload != nil:
		r.proves("signed by: key %s over the event (kind %s, agent %s)", p.Evidence.KeyID, l.Kind, l.Agent)
	case p.Evidence.Batch != nil:
		// Kind and agent stand in the leaf alone: nothing that was signed is at hand to hold them against.
		r.proves("signed by: key %s over an event with the digest that stands in the leaf", p.Evidence.KeyID)
	}
	r.proves("included: leaf %d of %s at commit time %s with outcome %q", l.Index, logOf(p.Tenant), formatTime(l.Time), l.Outcome.Code)
	r.proves("vouched for %s: that this head is the only one of its log in epoch %d, and that keys, chain, verdict, outcome, quantities and time were as the leaf says",
		r.vouched(), p.spine.leaf.Epoch)
	if p.Payload == nil && l.Payload != (nhi.Digest{}) {
		r.doesNotProve("what the event said, its kind and agent included: the event is not in the file, and that the leaf says the same is the node quorum's word")
	}
	if p.Register == nil && p.Evidence != nil {
		r.doesNotProve("whose key it is: that is the node quorum's word, since the key's own leaf is not in the file")
	}
	r.doesNotProve(
		"that what the event reports is true: the ledger proves that it was said, by whom and when",
		"that nothing else happened: a completeness file proves that for a period",
		"anything after "+r.rep.AsOf+": a later leaf may reverse, void or revoke",
	)
	if r.rep.Test {
		r.doesNotProve("real time: this is a test ledger whose clock can be moved")
	}
}
