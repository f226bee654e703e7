package node

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// audited is what an auditor has fetched: a proof and the trust file of the same time.
type audited struct {
	proof []byte
	trust *verify.Trust
}

// audit fetches the proof of the tenant's first leaf, and a trust file that it holds against: just after a promotion, the last
// checkpoint may still have the signatures of the quorum before only.
func (c *cluster) audit(cc *grpc.ClientConn) (a audited) {
	c.t.Helper()
	eventually(c.t, "a proof that holds against the trust file of now", func() bool {
		p, err := cretov1.NewLedgerServiceClient(cc).GetProof(c.t.Context(), &cretov1.GetProofRequest{Tenant: c.Tenant[:], Wait: true})
		if err != nil {
			c.t.Fatal(err)
		}
		r, err := cretov1.NewLedgerServiceClient(cc).GetTrust(c.t.Context(), &cretov1.GetTrustRequest{})
		if err != nil {
			c.t.Fatal(err)
		}
		t, err := verify.ParseTrust([]byte(r.GetTrust()))
		if err != nil {
			c.t.Fatalf("parse the trust file: %v\n%s", err, r.GetTrust())
		}
		a = audited{p.GetFile(), t}
		_, err = verify.VerifyAny(bytes.NewReader(a.proof), a.trust, verify.Options{})
		return err == nil
	})
	return a
}

// export fetches the completeness file of the system log.
func (c *cluster) exportSystem(cc *grpc.ClientConn, payloads bool) []byte {
	c.t.Helper()
	var zero nhi.ID
	s, err := cretov1.NewLedgerServiceClient(cc).Export(c.t.Context(), &cretov1.ExportRequest{Tenant: zero[:], WithPayloads: payloads})
	if err != nil {
		c.t.Fatal(err)
	}
	var file bytes.Buffer
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return file.Bytes()
		}
		if err != nil {
			c.t.Fatal(err)
		}
		file.Write(m.GetData())
	}
}

// auditAgain holds what was proved before a node was replaced against the trust file of after, what is proved now against that of
// before, and the trust files against the system log.
func (c *cluster) auditAgain(cc *grpc.ClientConn, before audited, removed, added nhi.ID) {
	t := c.t
	t.Helper()
	after := c.audit(cc)
	for name, a := range map[string]struct {
		proof []byte
		trust *verify.Trust
	}{
		"the old proof, the new trust file": {before.proof, after.trust}, "the old proof, the old trust file": {before.proof, before.trust},
		"the new proof, the new trust file": {after.proof, after.trust},
	} {
		if _, err := verify.VerifyAny(bytes.NewReader(a.proof), a.trust, verify.Options{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	bounded := make(map[string]verify.TrustInterval)
	for _, v := range after.trust.Valid {
		bounded[v.Name] = v
	}
	for _, alg := range []string{"-ed", "-pq"} {
		if v := bounded[removed.String()+alg]; v.To == 0 || v.From != 0 {
			t.Errorf("interval of the removed founder: got %+v, want an end and no beginning", v)
		}
		if v := bounded[added.String()+alg]; v.From == 0 {
			t.Errorf("interval of the added node: got %+v, want a beginning", v)
		}
	}

	// The system log, from its genesis on, says which trust file is right.
	file := c.exportSystem(cc, true)
	hasKeys := func(r *verify.Report) bool {
		for _, s := range r.Steps {
			if s.Name == verify.StepKeys && s.OK && !s.Skipped {
				return true
			}
		}
		return false
	}
	if r, err := verify.VerifyAny(bytes.NewReader(file), after.trust, verify.Options{}); err != nil || !hasKeys(r) {
		t.Errorf("the system log against the trust file of now: %v, steps %+v", err, r.Steps)
	}
	var f *verify.Failure
	if _, err := verify.VerifyAny(bytes.NewReader(file), before.trust, verify.Options{}); !errors.As(err, &f) || f.Class != verify.ClassTrust {
		t.Errorf("the system log against the trust file of before: got %v, want it out of date", err)
	}
	stretched := *after.trust
	stretched.Valid = nil
	if _, err := verify.VerifyAny(bytes.NewReader(file), &stretched, verify.Options{}); !errors.As(err, &f) || f.Step != verify.StepKeys || !strings.Contains(err.Error(), "outside of the time") {
		t.Errorf("a trust file that believes a removed node for ever: got %v, want a failure at step keys", err)
	}
	if r, err := verify.VerifyAny(bytes.NewReader(c.exportSystem(cc, false)), after.trust, verify.Options{}); err != nil || hasKeys(r) {
		t.Errorf("the system log without events: got %v, want it to hold and say nothing about keys", err)
	}
}
