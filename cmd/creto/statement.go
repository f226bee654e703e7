package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	sandbox "github.com/creto-systems/creto/sandbox/kind"
	creto "github.com/creto-systems/creto/sdk/go"
)

// checkContent holds what events carry against itself, for proofs: a sandbox's report carries its node's in-toto statement.
func checkContent(e *nhi.Event, key *nhi.PublicKey) (string, error) {
	if e.Kind != sandbox.Report {
		return "", nil
	}
	b, err := sandbox.DecodeReportBody(e.Body)
	if err != nil {
		return "", err
	}
	run, err := sandbox.VerifyReport(context.Background(), key, b)
	if err != nil {
		return "", err
	}
	if run.Node != e.Agent || run.Tenant != e.Tenant || run.Ledger != e.LedgerID {
		return "", errors.New("the statement is of another node, tenant or ledger than the report")
	}
	return fmt.Sprintf("the in-toto statement is signed with the same key and says the same: claim %d of agent %s, file system %x…, exit code %d, output %x…",
		run.Claim, run.Agent, run.Rootfs[:4], run.ExitCode, run.Output[:4]), nil
}

// checkRun verifies the statement about a run under the key that the ledger has for its node, and holds it against the signed
// claim. It returns what the statement says, and under which key.
func checkRun(ctx context.Context, cl *creto.Client, tenant []byte, s *cretov1.Sandbox) (*sandbox.Run, nhi.KeyID, error) {
	fail := func(err error) (*sandbox.Run, nhi.KeyID, error) {
		return nil, nhi.KeyID{}, fmt.Errorf("check the statement about claim %d: %w", s.GetClaim(), err)
	}
	events := cretov1.NewEventServiceClient(cl)
	report, err := events.GetEvent(ctx, &cretov1.GetEventRequest{Tenant: tenant, Index: s.GetReportIndex()})
	if err != nil {
		return fail(err)
	}
	pk, owner, err := systemKey(ctx, cl, report.GetEvent().GetKeyId())
	if err != nil {
		return fail(err)
	}
	claim, err := events.GetEvent(ctx, &cretov1.GetEventRequest{Tenant: tenant, Index: s.GetClaim()})
	if err != nil {
		return fail(err)
	}
	asked, err := nhi.DecodeEvent(claim.GetEvent().GetPayload())
	if err != nil {
		return fail(err)
	}
	run, err := sandbox.OpenStatement(ctx, pk, s.GetStatement())
	if err != nil {
		return fail(err)
	}
	if string(owner[:]) != string(s.GetNode()) {
		return fail(errors.New("the key that signed the report is not the node's"))
	}
	return run, pk.ID(), run.Answers(asked, s.GetClaim(), owner)
}

// systemKey fetches a key of the system log, whose id says whether it is the right one.
func systemKey(ctx context.Context, cl *creto.Client, id []byte) (pk *nhi.PublicKey, owner nhi.ID, err error) {
	var system nhi.ID
	r, err := cretov1.NewIdentityServiceClient(cl).GetKey(ctx, &cretov1.GetKeyRequest{Tenant: system[:], KeyId: id})
	if err != nil {
		return nil, owner, err
	}
	suite, err := nhi.ParseSuite(r.GetSuite())
	if err != nil {
		return nil, owner, err
	}
	if pk, err = nhi.ParsePublicKey(suite, r.GetPublicKey()); err != nil {
		return nil, owner, err
	}
	if got := pk.ID(); string(got[:]) != string(id) || len(r.GetOwner()) != len(owner) {
		return nil, owner, errors.New("another key than the one that was asked for")
	}
	return pk, nhi.ID(r.GetOwner()), nil
}
