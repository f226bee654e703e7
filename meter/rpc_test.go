package meter

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// fakeReads answers from a world.
type fakeReads struct{ w *world }

func (f fakeReads) View(_ context.Context, tenant nhi.ID, c cretov1.Consistency, fn func(ledger.View, *cretov1.ReadInfo) error) error {
	if tenant != tenantID {
		return status.Error(codes.NotFound, "not found")
	}
	stale := c == cretov1.Consistency_CONSISTENCY_STALE
	return fn(f.w.v, &cretov1.ReadInfo{Linearizable: !stale, TreeSize: f.w.v.next, TimeNs: f.w.now})
}

func TestService(t *testing.T) {
	w, day1, day2 := used(t)
	w.quota(kind.QuotaBody{Account: acctOrg, Meter: "tok", Period: kind.Total, Limit: 1000, Mode: kind.Block})
	w.quota(kind.QuotaBody{Account: acctTeam, Meter: "tok", Period: kind.Day, Limit: 100, Mode: kind.Overage})
	g := w.grant(acctTeam, 10)
	s := &service{meter: w.m, reads: fakeReads{w}}
	ctx := t.Context()

	quota, err := s.GetQuota(ctx, &cretov1.GetQuotaRequest{Tenant: tenantID[:], Account: acctTeam[:]})
	if err != nil || len(quota.Counters) != 2 || !quota.Read.Linearizable {
		t.Fatalf("got %v (%v), want two counters", quota, err)
	}
	if c := quota.Counters[0]; c.Period != "day" || c.Mode != "overage" || c.ResetsAtNs != day2+24*int64(time.Hour) || c.PeriodStartNs != day2 {
		t.Errorf("got %v for the team's day", c)
	}
	if c := quota.Counters[1]; c.Period != "total" || c.Open != 10 || c.Remaining != 990 || c.ResetsAtNs != 0 {
		t.Errorf("got %v for the organisation", c)
	}
	w.ok(w.settle(g.Lease, 50, 0, 1))
	if quota, err = s.GetQuota(ctx, &cretov1.GetQuotaRequest{Tenant: tenantID[:], Account: acctOrg[:]}); err != nil || len(quota.Counters) != 1 {
		t.Fatalf("got %v (%v), want one counter", quota, err)
	}
	if c := quota.Counters[0]; c.Charged != 10 || c.Open != 0 || c.Excess != 10 || c.Over != 30 || c.Remaining != 980 {
		t.Errorf("got %v for the organisation, want 10 charged, 10 excess, 30 over", c)
	}
	usage, err := s.QueryUsage(ctx, &cretov1.QueryUsageRequest{
		Tenant: tenantID[:], FromTimeNs: day1, ToTimeNs: day2, Window: "day", GroupBy: []string{"account", "agent", "meter", "link"}, Consistency: cretov1.Consistency_CONSISTENCY_STALE,
	})
	if err != nil || len(usage.Rows) != 3 || !usage.Exact || usage.Read.Linearizable {
		t.Errorf("got %v (%v), want three rows, exact and stale", usage, err)
	}
	lease, err := s.GetLease(ctx, &cretov1.GetLeaseRequest{Tenant: tenantID[:], LeaseId: g.Lease})
	if err != nil || lease.State != "open" || lease.Granted != 10 || lease.ExpiresNs != g.Expires {
		t.Errorf("got lease %v (%v)", lease, err)
	}
	var ids []nhi.ID
	for cursor := ""; ; {
		page, err := s.ListAccounts(ctx, &cretov1.ListAccountsRequest{Tenant: tenantID[:], PageSize: 2, Cursor: cursor})
		if err != nil || len(page.Accounts) > 2 {
			t.Fatalf("got page %v (%v)", page, err)
		}
		for _, a := range page.Accounts {
			ids = append(ids, nhi.ID(a.Id))
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	if diff := cmp.Diff([]nhi.ID{tenantID, acctOrg, acctTeam, acctOther}, ids); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}

	missing := nhi.ID{9}
	call := func(f func() error) codes.Code { return status.Code(f()) }
	getQuota := func(req *cretov1.GetQuotaRequest) func() error {
		return func() error { _, err := s.GetQuota(ctx, req); return err }
	}
	query := func(req *cretov1.QueryUsageRequest) func() error {
		return func() error { _, err := s.QueryUsage(ctx, req); return err }
	}
	for _, c := range []struct {
		name string
		call func() error
		want codes.Code
	}{
		{"foreign tenant", getQuota(&cretov1.GetQuotaRequest{Tenant: missing[:], Account: acctTeam[:]}), codes.NotFound},
		{"no account", getQuota(&cretov1.GetQuotaRequest{Tenant: tenantID[:], Account: missing[:]}), codes.NotFound},
		{"no link", getQuota(&cretov1.GetQuotaRequest{Tenant: tenantID[:], Account: acctTeam[:], LinkId: make([]byte, 31)}), codes.InvalidArgument},
		{"unknown link", getQuota(&cretov1.GetQuotaRequest{Tenant: tenantID[:], Account: acctTeam[:], LinkId: append(make([]byte, 31), 1)}), codes.NotFound},
		{"short account", getQuota(&cretov1.GetQuotaRequest{Tenant: tenantID[:], Account: []byte{1}}), codes.InvalidArgument},
		{"bad meter", getQuota(&cretov1.GetQuotaRequest{Tenant: tenantID[:], Account: acctTeam[:], Meter: "A"}), codes.InvalidArgument},
		{"bad window", query(&cretov1.QueryUsageRequest{Tenant: tenantID[:], ToTimeNs: 1, Window: "minute"}), codes.InvalidArgument},
		{"window of a month", query(&cretov1.QueryUsageRequest{Tenant: tenantID[:], ToTimeNs: 1, Window: "month"}), codes.InvalidArgument},
		{"bad group", query(&cretov1.QueryUsageRequest{Tenant: tenantID[:], ToTimeNs: 1, GroupBy: []string{"colour"}}), codes.InvalidArgument},
		{"empty window", query(&cretov1.QueryUsageRequest{Tenant: tenantID[:]}), codes.InvalidArgument},
		{"no lease", func() error {
			_, err := s.GetLease(ctx, &cretov1.GetLeaseRequest{Tenant: tenantID[:], LeaseId: 1 << 40})
			return err
		}, codes.NotFound},
		{"bad cursor", func() error {
			_, err := s.ListAccounts(ctx, &cretov1.ListAccountsRequest{Tenant: tenantID[:], Cursor: "x"})
			return err
		}, codes.InvalidArgument},
	} {
		if got := call(c.call); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
