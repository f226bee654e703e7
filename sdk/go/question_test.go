package creto

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/spiffe"
	"github.com/creto-systems/creto/oversight/kind"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// liar is a node that shows one approval request, as a test says.
type liar struct {
	cretov1.UnimplementedOversightServiceServer
	cretov1.UnimplementedEventServiceServer
	cretov1.UnimplementedIdentityServiceServer
	answer *answer
}

// answer is everything that a voter asks a node for.
type answer struct {
	approval *cretov1.Approval
	event    *cretov1.EventView
	key      *cretov1.GetKeyResponse
}

func (l *liar) GetApproval(context.Context, *cretov1.GetApprovalRequest) (*cretov1.GetApprovalResponse, error) {
	return &cretov1.GetApprovalResponse{Approval: l.answer.approval}, nil
}

func (l *liar) GetEvent(context.Context, *cretov1.GetEventRequest) (*cretov1.GetEventResponse, error) {
	return &cretov1.GetEventResponse{Event: l.answer.event}, nil
}

func (l *liar) GetKey(context.Context, *cretov1.GetKeyRequest) (*cretov1.GetKeyResponse, error) {
	return l.answer.key, nil
}

func (a *answer) clone() *answer {
	return &answer{
		approval: proto.CloneOf(a.approval), event: proto.CloneOf(a.event), key: proto.CloneOf(a.key),
	}
}

// asked is an honest answer about a request at leaf 7, and the statement that votes on it sign.
type asked struct {
	ledger nhi.Digest
	tenant nhi.ID
	agent  *nhi.PrivateKey
	event  *nhi.Event
	body   *kind.RequestBody
	time   int64
}

const askedAt = 7

func newAsked(t testing.TB) *asked {
	t.Helper()
	key, err := nhi.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &asked{ledger: nhi.Digest{3}, tenant: nhi.ID{2}, agent: key, time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano()}
	action, err := kind.NewAction(nhi.ID{9}, "pay", "invoice:7", "", map[string]any{"amount": 130_000, "to": "x"})
	if err != nil {
		t.Fatal(err)
	}
	a.body = &kind.RequestBody{
		Action: *action, Rendered: action.Digest(),
		Reserve: []kind.Reservation{{Meter: "cents", Amount: 130_000}, {Meter: "mails", Amount: 1, Account: nhi.ID{5}}},
	}
	a.event = &nhi.Event{
		V: 1, LedgerID: a.ledger, Tenant: a.tenant, Kind: kind.Request, Agent: nhi.ID{9}, Link: nhi.LinkID{8}, Account: nhi.ID{4},
		ID: [16]byte{1}, Nonce: [16]byte{2}, ClientTime: a.time,
	}
	return a
}

func (a *asked) chains() []kind.Chain {
	return []kind.Chain{
		{Name: "finance", Hold: int64(time.Minute), Steps: []kind.Step{
			{Eligible: []nhi.ID{}, Approve: 1, Deny: 1, Timeout: int64(time.Hour)}, // nobody who may vote: skipped
			{Eligible: []nhi.ID{{11}, {12}}, Approve: 1, Deny: 2, Timeout: int64(time.Hour)},
			{Eligible: []nhi.ID{{13}}, Approve: 2, Deny: 1, Timeout: int64(2 * time.Hour)},
		}},
		{Name: "legal", Steps: []kind.Step{{Eligible: []nhi.ID{{14}}, Approve: 1, Deny: 1, Timeout: int64(24 * time.Hour)}}},
	}
}

// answer is what an honest node says: the first chain is at its last step, and one human has voted.
func (a *asked) answer(t testing.TB) *answer {
	t.Helper()
	body, err := a.body.Encode()
	if err != nil {
		t.Fatal(err)
	}
	a.event.Body = body
	payload, err := a.event.Encode()
	if err != nil {
		t.Fatal(err)
	}
	env, err := nhi.SignEvent(a.agent, payload)
	if err != nil {
		t.Fatal(err)
	}
	digest := nhi.PayloadDigest(payload)
	leaf := verify.Leaf{
		V: 1, Slot: 1, Index: askedAt, Time: a.time, Kind: kind.Request, Agent: a.event.Agent, Link: a.event.Link, ID: a.event.ID, Payload: digest,
		Signature: sha256.Sum256(env.Signature), Account: a.event.Account,
	}
	raw, err := leaf.Encode()
	if err != nil {
		t.Fatal(err)
	}
	chains := a.chains()
	statement := kind.RequestStatement{
		V: 1, Ledger: a.ledger, Tenant: a.tenant, Request: askedAt, Payload: digest, Action: a.body.Action.Digest(), Rendered: a.body.Rendered,
		Policy: nhi.Digest{6}, Chains: chains, End: a.time + int64(48*time.Hour), Policies: []string{"large", "new-payee"}, Created: a.time,
	}
	action, request := a.body.Action.Digest(), statement.Digest()
	id := a.agent.Public().ID()
	p := &cretov1.Approval{
		RequestId: askedAt, ShortCode: kind.ShortCode(request), Agent: a.event.Agent[:], LinkId: a.event.Link[:], State: "pending",
		Operation: a.body.Action.Operation, Resource: a.body.Action.Resource, Parameters: a.body.Action.Parameters, ActionDigest: action[:],
		RequestDigest: request[:], Chains: []string{"finance", "legal"}, Policies: statement.Policies, ApproveNeeded: 3, DenyNeeded: 1,
		CreatedNs: a.time, DeadlineNs: a.time + int64(3*time.Hour), NotAfterNs: statement.End, Account: a.event.Account[:], Step: 2,
		PayloadDigest: digest[:], PolicyDigest: statement.Policy[:], RenderedDigest: a.body.Rendered[:],
		Votes: []*cretov1.Vote{{Approver: chains[0].Steps[1].Eligible[0][:], Decision: "approve", Index: 9, Counted: true}},
	}
	for _, who := range []nhi.ID{{12}, {13}, {14}} {
		p.Eligible = append(p.Eligible, bytes.Clone(who[:]))
	}
	for _, r := range a.body.Reserve {
		at := r.Account
		if at.IsZero() {
			at = a.event.Account
		}
		p.Reserve = append(p.Reserve, &cretov1.Reservation{Meter: r.Meter, N: r.Amount, Account: bytes.Clone(at[:])})
	}
	for i, c := range chains {
		m := &cretov1.ChainStatus{Chain: &cretov1.Chain{Name: c.Name, HoldNs: c.Hold}}
		for _, s := range c.Steps {
			step := &cretov1.Step{Approve: s.Approve, Deny: s.Deny, TimeoutNs: s.Timeout}
			for _, who := range s.Eligible {
				step.Eligible = append(step.Eligible, bytes.Clone(who[:]))
			}
			m.Chain.Steps = append(m.Chain.Steps, step)
		}
		m.Step = []uint32{2, 0}[i]
		m.DeadlineNs = a.time + []int64{int64(3 * time.Hour), int64(24 * time.Hour)}[i]
		p.ChainStatus = append(p.ChainStatus, m)
	}
	return &answer{
		approval: p,
		event:    &cretov1.EventView{Index: askedAt, Leaf: raw, Payload: payload, KeyId: id[:], Signature: env.Signature},
		key: &cretov1.GetKeyResponse{
			KeyId: id[:], Owner: a.event.Agent[:], Suite: a.agent.Public().Suite().String(), PublicKey: a.agent.Public().Bytes(),
		},
	}
}

// voter returns a human who is connected to a node that lies as told.
func (a *asked) voter(t testing.TB) (*Agent, *liar) {
	t.Helper()
	ca := newCA(t)
	l := &liar{}
	addr := startNode(t, ca, spiffe.RoleNode, func(s *grpc.Server) {
		cretov1.RegisterOversightServiceServer(s, l)
		cretov1.RegisterEventServiceServer(s, l)
		cretov1.RegisterIdentityServiceServer(s, l)
	})
	key, err := nhi.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	human, err := NewAgent(AgentConfig{
		Client: dial(t, ca, Options{Addrs: []string{addr}, Attempts: 1}), Signer: key, ID: nhi.ID{12}, Tenant: a.tenant, LedgerID: a.ledger,
	})
	if err != nil {
		t.Fatal(err)
	}
	return human, l
}

// A node that shows anything about the question otherwise than the agent signed it, one field at a time, gets no vote.
func TestCheckApprovalRefusesLies(t *testing.T) {
	a := newAsked(t)
	human, l := a.voter(t)
	honest := a.answer(t)
	l.answer = honest
	q, err := human.CheckApproval(t.Context(), askedAt)
	if err != nil {
		t.Fatalf("honest node: %v", err)
	}
	if v := q.Vote(kind.Approve); v.Request != askedAt || !bytes.Equal(v.RequestDigest[:], honest.approval.RequestDigest) || v.ActionDigest != a.body.Action.Digest() {
		t.Errorf("vote on an honest answer: got %+v, want one on request %d and its digests", v, askedAt)
	}

	other, err := nhi.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherID := other.Public().ID()
	cheap := newAsked(t)
	cheap.body.Reserve[0].Amount = 5
	cheap.agent = a.agent
	for _, tc := range []struct {
		name, field string
		lie         func(a *answer)
	}{
		{"another request", "request id", func(a *answer) { a.approval.RequestId++ }},
		{"another agent", "agent", func(a *answer) { a.approval.Agent[0]++ }},
		{"another link", "link", func(a *answer) { a.approval.LinkId[0]++ }},
		{"no link", "link", func(a *answer) { a.approval.LinkId = nil }},
		{"another account", "account", func(a *answer) { a.approval.Account[0]++ }},
		{"no account", "account", func(a *answer) { a.approval.Account = nil }},
		{"another operation", "operation", func(a *answer) { a.approval.Operation = "look" }},
		{"another resource", "resource", func(a *answer) { a.approval.Resource = "invoice:8" }},
		{"other parameters", "parameters", func(a *answer) { a.approval.Parameters = []byte(`{"amount":5,"to":"x"}`) }},
		{"another action digest", "action digest", func(a *answer) { a.approval.ActionDigest[0]++ }},
		{"reserves less", "reserve", func(a *answer) { a.approval.Reserve[0].N = 5 }},
		{"reserves of another meter", "reserve", func(a *answer) { a.approval.Reserve[0].Meter = "tokens" }},
		{"reserves of another account", "reserve", func(a *answer) { a.approval.Reserve[1].Account[0]++ }},
		{"reserves nothing", "reserve", func(a *answer) { a.approval.Reserve = nil }},
		{"another payload digest", "payload digest", func(a *answer) { a.approval.PayloadDigest[0]++ }},
		{"something else rendered", "rendered digest", func(a *answer) { a.approval.RenderedDigest[0]++ }},
		{"no policy digest", "policy digest", func(a *answer) { a.approval.PolicyDigest = nil }},
		{"another policy", "request digest", func(a *answer) { a.approval.PolicyDigest[0]++ }},
		{"another reason", "request digest", func(a *answer) { a.approval.Policies = []string{"small"} }},
		{"another time", "created", func(a *answer) { a.approval.CreatedNs++ }},
		{"another end", "request digest", func(a *answer) { a.approval.NotAfterNs++ }},
		{"another request digest", "request digest", func(a *answer) { a.approval.RequestDigest[0]++ }},
		{"another short code", "short code", func(a *answer) { a.approval.ShortCode = "aaaa-aaaa" }},
		{"another deadline", "deadline", func(a *answer) { a.approval.DeadlineNs-- }},
		{"another deadline of a chain", "deadline", func(a *answer) { a.approval.ChainStatus[1].DeadlineNs++ }},
		{"another step", "deadline", func(a *answer) { a.approval.ChainStatus[0].Step = 1 }},
		{"a step that is none", "chains", func(a *answer) { a.approval.ChainStatus[0].Step = 3 }},
		{"another overall step", "step", func(a *answer) { a.approval.Step = 1 }},
		{"fewer approvals needed", "approvals needed", func(a *answer) { a.approval.ApproveNeeded-- }},
		{"more denials needed", "denials needed", func(a *answer) { a.approval.DenyNeeded++ }},
		{"a smaller quorum", "request digest", func(a *answer) { a.approval.ChainStatus[0].Chain.Steps[2].Approve, a.approval.ApproveNeeded = 1, 2 }},
		{"another name of a chain", "chains", func(a *answer) { a.approval.Chains[0] = "nobody" }},
		{"no chains", "chains", func(a *answer) { a.approval.ChainStatus = nil }},
		{"another human", "eligible humans", func(a *answer) { a.approval.Eligible[2][0]++ }},
		{"a human left out", "eligible humans", func(a *answer) { a.approval.Eligible = a.approval.Eligible[1:] }},
		{"another human of a chain", "eligible humans", func(a *answer) { a.approval.ChainStatus[1].Chain.Steps[0].Eligible[0][0]++ }},

		{"an event that was changed", "leaf", func(a *answer) { a.event.Payload = cheap.answer(t).event.Payload }},
		{"an event that was changed, and its leaf", "signature", func(a *answer) {
			sig := a.event.Signature
			a.event = cheap.answer(t).event
			leaf, err := verify.DecodeLeaf(a.event.Leaf)
			if err != nil {
				t.Fatal(err)
			}
			leaf.Signature = sha256.Sum256(sig)
			if a.event.Leaf, err = leaf.Encode(); err != nil {
				t.Fatal(err)
			}
			a.event.Signature = sig
		}},
		{"a leaf that was changed", "leaf", func(a *answer) { a.event.Leaf = a.event.Leaf[1:] }},
		{"another signature", "signature", func(a *answer) { a.event.Signature[0]++ }},
		{"the key of somebody else", "key", func(a *answer) { a.key.Owner[0]++ }},
		{"another key under the id", "key", func(a *answer) { a.key.PublicKey = other.Public().Bytes() }},
		{"another id of the key", "key", func(a *answer) { a.key.KeyId = otherID[:] }},
		{"a key of no suite", "key", func(a *answer) { a.key.Suite = "none" }},
		{"a signature under another key of the agent", "signature", func(a *answer) {
			a.key.KeyId, a.key.PublicKey, a.event.KeyId = otherID[:], other.Public().Bytes(), otherID[:]
		}},
		{"another event of the agent", "reserve", func(a *answer) { a.event = cheap.answer(t).event }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l.answer = honest.clone()
			tc.lie(l.answer)
			q, err := human.CheckApproval(t.Context(), askedAt)
			e, ok := errors.AsType[*MismatchError](err)
			if !ok || e.Field != tc.field {
				t.Fatalf("got %+v, %v, want a mismatch of the %s", q, err, tc.field)
			}
		})
	}
}

// A node that lies consistently, digests and all, gets a vote on what it showed, which is no vote on the request in the log.
func TestVoteIsAboutWhatWasShown(t *testing.T) {
	a := newAsked(t)
	human, l := a.voter(t)
	honest := a.answer(t)
	lies := honest.clone()
	lies.approval.Policies = []string{"small"}
	policies := kind.RequestStatement{
		V: 1, Ledger: a.ledger, Tenant: a.tenant, Request: askedAt, Payload: nhi.Digest(lies.approval.PayloadDigest), Action: a.body.Action.Digest(),
		Rendered: a.body.Rendered, Policy: nhi.Digest{6}, Chains: a.chains(), End: lies.approval.NotAfterNs, Policies: lies.approval.Policies, Created: a.time,
	}
	digest := policies.Digest()
	lies.approval.RequestDigest, lies.approval.ShortCode = digest[:], kind.ShortCode(digest)
	l.answer = lies
	q, err := human.CheckApproval(t.Context(), askedAt)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(q.RequestDigest[:], honest.approval.RequestDigest) {
		t.Error("a vote on what was shown names the digest of what was not")
	}
}

// A request that was signed in a batch is held against the batch's signature.
func TestCheckApprovalOfBatch(t *testing.T) {
	a := newAsked(t)
	human, l := a.voter(t)
	an := a.answer(t)
	second := *a.event
	second.ID, second.Nonce = [16]byte{7}, [16]byte{8}
	payload, err := second.Encode()
	if err != nil {
		t.Fatal(err)
	}
	env, err := nhi.SignBatch(a.agent, a.ledger, a.tenant, [][]byte{an.event.Payload, payload})
	if err != nil {
		t.Fatal(err)
	}
	proof, err := env.Proof(0)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := verify.DecodeLeaf(an.event.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	leaf.Signature = env.SignatureDigest()
	if an.event.Leaf, err = leaf.Encode(); err != nil {
		t.Fatal(err)
	}
	an.event.Signature, an.event.BatchProof = env.Signature, canon.MustMarshal(proof)
	l.answer = an
	if _, err := human.CheckApproval(t.Context(), askedAt); err != nil {
		t.Fatalf("honest node: %v", err)
	}
	lies := an.clone()
	if proof, err = env.Proof(1); err != nil {
		t.Fatal(err)
	}
	lies.event.BatchProof = canon.MustMarshal(proof)
	l.answer = lies
	_, err = human.CheckApproval(t.Context(), askedAt)
	if e, ok := errors.AsType[*MismatchError](err); !ok || e.Field != "signature" {
		t.Errorf("proof of another event: got %v, want a mismatch of the signature", err)
	}
	if slices.Equal(lies.event.BatchProof, an.event.BatchProof) {
		t.Error("both proofs are the same")
	}
}
