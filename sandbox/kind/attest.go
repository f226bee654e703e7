package kind

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/creto-systems/creto/nhi"
)

// ErrMismatch means that a statement and what it is held against say different things.
var ErrMismatch = errors.New("statement does not match")

// SignStatement returns the DSSE envelope (JSON) of the statement about a run, under the composite key of its node. It fills
// in r.CommandDigest.
func SignStatement(ctx context.Context, s nhi.Signer, r *Run) ([]byte, error) {
	r.CommandDigest = CommandDigest(r.Command)
	payload, err := encodeStatement(r)
	if err != nil {
		return nil, err
	}
	if _, err := decodeStatement(payload); err != nil {
		return nil, fmt.Errorf("encode statement: %w", err)
	}
	signer, err := dsse.NewEnvelopeSigner(attestor{s})
	if err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	env, err := signer.SignPayload(ctx, PayloadType, payload)
	if err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	out, err := json.Marshal(env)
	if err != nil {
		return nil, fmt.Errorf("encode envelope: %w", err)
	}
	if len(out) > MaxStatement {
		return nil, invalid("statement", fmt.Sprintf("is longer than %d bytes", MaxStatement))
	}
	return out, nil
}

// OpenStatement verifies the envelope of a statement under the node's key and returns what it says. It needs no network.
func OpenStatement(ctx context.Context, pk *nhi.PublicKey, envelope []byte) (*Run, error) {
	env, err := parseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	verifier, err := dsse.NewEnvelopeVerifier(inspector{pk})
	if err != nil {
		return nil, fmt.Errorf("verify statement: %w", err)
	}
	// The library skips signatures by other keys; this envelope has one signature, and it must name this key.
	if env.Signatures[0].KeyID != pk.ID().String() {
		return nil, fmt.Errorf("verify statement: %w", nhi.ErrKeyMismatch)
	}
	_, payload, err := verifier.VerifyAndDecode(ctx, env)
	if err != nil {
		return nil, fmt.Errorf("verify statement: %w", nhi.ErrBadSignature)
	}
	return decodeStatement(payload)
}

// parseEnvelope parses the one JSON form that SignStatement writes.
func parseEnvelope(b []byte) (*dsse.Envelope, error) {
	if len(b) > MaxStatement {
		return nil, invalid("statement", fmt.Sprintf("is longer than %d bytes", MaxStatement))
	}
	var env dsse.Envelope
	if err := json.Unmarshal(b, &env); err != nil {
		return nil, invalid("statement", "is not a DSSE envelope")
	}
	again, err := json.Marshal(&env)
	if err != nil || !bytes.Equal(again, b) {
		return nil, invalid("statement", "is not a DSSE envelope in the form it is written in")
	}
	if env.PayloadType != PayloadType || len(env.Signatures) != 1 {
		return nil, invalid("statement", "is not one signed in-toto statement")
	}
	return &env, nil
}

// CheckReport holds a report against its statement without verifying the signature, which needs the node's key.
func CheckReport(b *ReportBody) (*Run, error) {
	env, err := parseEnvelope(b.Statement)
	if err != nil {
		return nil, err
	}
	payload, err := env.DecodeB64Payload()
	if err != nil {
		return nil, invalid("statement", "is not a DSSE envelope")
	}
	r, err := decodeStatement(payload)
	if err != nil {
		return nil, err
	}
	return r, b.matches(r)
}

// VerifyReport verifies a report's statement under the node's key and holds each against the other. It needs no network.
func VerifyReport(ctx context.Context, pk *nhi.PublicKey, b *ReportBody) (*Run, error) {
	if err := b.Check(); err != nil {
		return nil, err
	}
	r, err := OpenStatement(ctx, pk, b.Statement)
	if err != nil {
		return nil, err
	}
	return r, b.matches(r)
}

func (b *ReportBody) matches(r *Run) error {
	switch {
	case r.Claim != b.Claim:
		return mismatch("claim")
	case r.Rootfs != b.Rootfs:
		return mismatch("rootfs")
	case r.ExitCode != b.ExitCode:
		return mismatch("exit_code")
	case r.Output != b.Output:
		return mismatch("output")
	case r.PolicyEpoch != b.PolicyEpoch:
		return mismatch("policy_epoch")
	case r.Sequence != b.Sequence:
		return mismatch("sequence")
	case r.Status != b.Status:
		return mismatch("status")
	case r.Reason != b.Reason:
		return mismatch("reason")
	}
	return nil
}

// Answers holds a verified statement against the claim it is about: the signed event, its leaf index and the node that the
// ledger allocated.
func (r *Run) Answers(claim *nhi.Event, index uint64, node nhi.ID) error {
	if claim.Kind != Claim {
		return mismatch("kind")
	}
	b, err := DecodeClaimBody(claim.Body)
	if err != nil {
		return err
	}
	return r.Meets(&Given{
		Ledger: claim.LedgerID, Tenant: claim.Tenant, Claim: index, Agent: claim.Agent, Link: claim.Link, Account: claim.Account, Node: node,
		Template: b.Template, Command: CommandDigest(b.Command), Class: b.Class, Memory: b.Limits.Memory,
	})
}

// Given is what a node was given to run, and by whom.
type Given struct {
	Ledger   nhi.Digest
	Tenant   nhi.ID
	Claim    uint64 // leaf index
	Agent    nhi.ID
	Link     nhi.LinkID
	Account  nhi.ID
	Node     nhi.ID
	Template string
	Command  nhi.Digest // CommandDigest
	Class    Class      // the least that will do
	Memory   uint64     // bytes
}

// Meets holds a verified statement against what its node was given.
func (r *Run) Meets(g *Given) error {
	switch {
	case r.Ledger != g.Ledger:
		return mismatch("ledger")
	case r.Tenant != g.Tenant:
		return mismatch("tenant")
	case r.Claim != g.Claim:
		return mismatch("claim")
	case r.Agent != g.Agent:
		return mismatch("agent")
	case r.Link != g.Link:
		return mismatch("link")
	case r.Account != g.Account:
		return mismatch("account")
	case r.Node != g.Node:
		return mismatch("node")
	case r.Template != g.Template:
		return mismatch("template")
	case r.CommandDigest != g.Command:
		return mismatch("command")
	case r.Isolation < g.Class:
		return mismatch("isolation")
	case r.MemoryLimit != g.Memory:
		return mismatch("limits")
	}
	return nil
}

func mismatch(field string) error { return fmt.Errorf("%w in %s", ErrMismatch, field) }

// attestor signs DSSE pre-authentication encodings with a composite key.
type attestor struct{ s nhi.Signer }

func (a attestor) Sign(_ context.Context, data []byte) ([]byte, error) {
	return a.s.Sign(nhi.CtxAttest, data)
}

func (a attestor) KeyID() (string, error) { return a.s.Public().ID().String(), nil }

// inspector verifies what an attestor signs.
type inspector struct{ pk *nhi.PublicKey }

func (v inspector) Verify(_ context.Context, data, sig []byte) error {
	return v.pk.Verify(nhi.CtxAttest, data, sig)
}

func (v inspector) KeyID() (string, error)   { return v.pk.ID().String(), nil }
func (v inspector) Public() crypto.PublicKey { return v.pk }
