package verify

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/creto-systems/creto/nhi"
)

// Names of the steps, as reports, failures and documentation use them.
const (
	StepFile         = "file"         // the file can be read
	StepTrust        = "ledger"       // it is about the ledger of the trust file
	StepAsked        = "asked"        // it is about what the caller asked for
	StepPayload      = "payload"      // the event is the one whose digest stands in the leaf
	StepSignature    = "signature"    // the event's signature holds and is the one whose digest stands in the leaf
	StepContent      = "content"      // what the event carries holds by itself
	StepIdentity     = "identity"     // the event's fields are the leaf's
	StepChain        = "chain"        // the links lead from the agent to a root
	StepTenantTree   = "tenant tree"  // leaf → root of the tenant's log
	StepHeadsTree    = "heads tree"   // head leaf → root of the heads tree
	StepRegistration = "registration" // the key's own leaf
	StepSpine        = "spine"        // spine leaf → root of the spine
	StepCheckpoint   = "checkpoint"   // log signature, cosignatures and quorum
	StepAge          = "age"          // the head is as fresh as the caller demands
	StepLeaves       = "leaves"       // the leaves of a completeness file rebuild the root
	StepEpochs       = "epochs"       // the two heads enclose the period
	StepConsistency  = "consistency"  // the earlier tree is a prefix of the later one
	StepKeys         = "keys"         // the trust file's node keys are those that the system log names
	StepIntegrity    = "integrity"    // the file's own checksum
	StepReceipt      = "receipt"      // the node's signature over the receipt
)

// spineProof is a spine leaf with the checkpoint that it is proven under.
type spineProof struct {
	leaf    *SpineLeaf
	raw     []byte
	proof   *TLogProof
	note    *Note
	cp      Checkpoint
	cluster string
}

// parseSpineProof parses the bytes; nothing is verified.
func parseSpineProof(raw, text []byte) (*spineProof, error) {
	leaf, err := DecodeSpineLeaf(raw)
	if err != nil {
		return nil, err
	}
	p, err := ParseTLogProof(text)
	if err != nil {
		return nil, err
	}
	if p.Extra != nil {
		return nil, fmt.Errorf("%w: extra data, which nothing authenticates", ErrTLogProof)
	}
	note, err := ParseNote(p.Checkpoint)
	if err != nil {
		return nil, err
	}
	cp, err := ParseCheckpoint(note.Text)
	if err != nil {
		return nil, err
	}
	cluster, ok := ClusterOf(cp.Origin)
	if !ok {
		return nil, fmt.Errorf("%w: origin %q is not that of a spine", ErrNote, clip(cp.Origin))
	}
	return &spineProof{leaf: leaf, raw: raw, proof: p, note: note, cp: cp, cluster: cluster}, nil
}

// checkHead checks that the head leaf is slot n of the heads tree that the spine leaf commits to, and that it is the head
// of the tenant's log.
func (r *run) checkHead(head *HeadLeaf, raw []byte, path []nhi.Digest, s *spineProof, tenant nhi.ID) error {
	want := TenantOrigin(s.cluster, tenant)
	switch {
	case head.Cell != s.leaf.Cell:
		return r.fail(StepHeadsTree, ClassTampering, ExitInclusion, fmt.Errorf("head of cell %d under a spine leaf of cell %d", head.Cell, s.leaf.Cell))
	case head.Origin != want:
		return r.fail(StepHeadsTree, ClassTampering, ExitInclusion, fmt.Errorf("head of %q, not of %q", clip(head.Origin), want))
	case (head.Slot == 0) != tenant.IsZero():
		return r.fail(StepHeadsTree, ClassTampering, ExitInclusion, errors.New("slot 0 is the system log and no other"))
	}
	if err := VerifyInclusion(uint64(head.Slot), s.leaf.HeadsSize, LeafHash(raw), path, s.leaf.HeadsRoot); err != nil {
		return r.fail(StepHeadsTree, ClassTampering, ExitInclusion, err)
	}
	r.ok(StepHeadsTree, "%s has %s and this root in epoch %d: the one head of slot %d", head.Origin, counted(head.Size, "leaf", "leaves"), s.leaf.Epoch, head.Slot)
	return nil
}

// checkSpine checks that the spine leaf is in the tree of the checkpoint, at the place of its epoch.
func (r *run) checkSpine(s *spineProof) error {
	if s.leaf.Flags&FlagTest != 0 {
		r.rep.Test = true
	}
	if s.leaf.Epoch != s.proof.Index+1 {
		return r.fail(StepSpine, ClassTampering, ExitInclusion, fmt.Errorf("leaf %d of the spine says that it is epoch %d", s.proof.Index, s.leaf.Epoch))
	}
	if err := VerifyInclusion(s.proof.Index, s.cp.Size, LeafHash(s.raw), s.proof.Path, s.cp.Root); err != nil {
		return r.fail(StepSpine, ClassTampering, ExitInclusion, err)
	}
	r.ok(StepSpine, "epoch %d is leaf %d of the spine at size %d", s.leaf.Epoch, s.proof.Index, s.cp.Size)
	return nil
}

// checkNote checks the signatures and the quorum of a checkpoint note. at is the consensus time of what it proves, or 0.
func (r *run) checkNote(n *Note, at int64) (*Endorsement, error) {
	e, err := r.trust.Endorse(n)
	switch {
	case err == nil:
	case errors.Is(err, ErrUnknownLog), errors.Is(err, ErrNoQuorum), errors.Is(err, ErrOutOfPeriod):
		// In a damaged file a key's name may be what was damaged.
		class := ClassTrust
		if r.damaged {
			class = ClassDamaged
		}
		return nil, r.fail(StepCheckpoint, class, ExitUntrusted, err)
	case errors.Is(err, ErrSignature):
		return nil, r.fail(StepCheckpoint, ClassTampering, ExitUntrusted, err)
	default:
		return nil, r.fail(StepCheckpoint, ClassMalformed, ExitMalformed, err)
	}
	if at > 0 && !r.trust.validAt(e.Log.String(), at/int64(time.Second)) {
		return nil, r.fail(StepCheckpoint, ClassTrust, ExitUntrusted, fmt.Errorf("%w: log %s", ErrOutOfPeriod, e.Log.Name))
	}
	r.addNoteKey("log", e.Log.Name, e.Log, 0)
	for _, c := range e.Cosigners {
		r.addNoteKey("cosigner", c.Name, c.Key, c.Time)
	}
	if r.trust.Quorum == QuorumNone {
		r.ok(StepCheckpoint, "%s at size %d, signed by the log key; the trust file asks for no cosignature", e.Checkpoint.Origin, e.Checkpoint.Size)
	} else {
		r.ok(StepCheckpoint, "%s at size %d, signed by the log key and %d known cosigners: quorum %q is reached",
			e.Checkpoint.Origin, e.Checkpoint.Size, len(e.Cosigners), e.Quorum)
	}
	return e, nil
}

func (r *run) addNoteKey(role, name string, key VKey, at int64) {
	id := key.ID()
	use := KeyUse{Role: role, Name: name, ID: hex.EncodeToString([]byte{byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)})}
	if at > 0 {
		use.Time = time.Unix(at, 0).UTC().Format(time.RFC3339)
	}
	r.rep.Keys = append(r.rep.Keys, use)
}

// checkAge holds the head's time against Options.MaxAge.
func (r *run) checkAge(ns int64) error {
	if r.opt.MaxAge <= 0 || r.opt.Now.IsZero() {
		return nil
	}
	if age := r.opt.Now.Sub(time.Unix(0, ns)); age > r.opt.MaxAge {
		return r.fail(StepAge, ClassTrust, ExitUntrusted, fmt.Errorf("the head is %s old, more than %s", age.Round(time.Second), r.opt.MaxAge))
	}
	r.ok(StepAge, "the head is no older than %s", r.opt.MaxAge)
	return nil
}

// checkNoteAge is checkAge for a note without a spine leaf, whose time its oldest counted cosignature says. Without one nobody
// knows how old it is.
func (r *run) checkNoteAge(e *Endorsement) error {
	at := e.Oldest()
	if at > 0 {
		r.rep.AsOf = formatTime(at * 1e9)
		return r.checkAge(at * 1e9)
	}
	if r.opt.MaxAge > 0 && !r.opt.Now.IsZero() {
		return r.fail(StepAge, ClassTrust, ExitUntrusted, errors.New("no cosignature that counts says how old the head is"))
	}
	return nil
}

// checkLedger checks that the file is about the ledger of the trust file.
func (r *run) checkLedger(id nhi.Digest) error {
	if id != r.trust.LedgerID {
		return r.fail(StepTrust, ClassTrust, ExitUntrusted, fmt.Errorf("the file is about ledger %x…, the trust file about %x…", id[:4], r.trust.LedgerID[:4]))
	}
	r.ok(StepTrust, "ledger %x", id)
	return nil
}

// vouched says whose word it is, for statements.
func (r *run) vouched() string {
	if r.trust.Quorum == QuorumNone {
		return "by the log key alone"
	}
	return fmt.Sprintf("by the node quorum (%q of the trust file)", r.trust.Quorum)
}
