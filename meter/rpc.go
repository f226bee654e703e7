package meter

import (
	"context"
	"errors"
	"math"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

const (
	defaultPageSize = 100
	maxPageSize     = 1000
)

// Reads opens the state that a query is answered from. Whether the caller may see the tenant was decided before.
type Reads interface {
	// View calls fn with the state of a tenant: linearizable unless the request asks for a stale read. info says which, and
	// as of when; v ends with the call. Errors of fn are returned as they are.
	View(ctx context.Context, tenant nhi.ID, c cretov1.Consistency, fn func(v ledger.View, info *cretov1.ReadInfo) error) error
}

// RegisterService registers MeterService, which answers from reads. It offers no writes: those are signed events.
func (m *Meter) RegisterService(r grpc.ServiceRegistrar, reads Reads) {
	cretov1.RegisterMeterServiceServer(r, &service{meter: m, reads: reads})
}

type service struct {
	cretov1.UnsafeMeterServiceServer
	meter *Meter
	reads Reads
}

var _ cretov1.MeterServiceServer = (*service)(nil)

// toStatus is the one table from the errors of queries to gRPC codes.
func toStatus(err error) error {
	var bad *kind.InvalidError
	switch {
	case errors.As(err, &bad):
		return status.Error(codes.InvalidArgument, bad.Error())
	case errors.Is(err, ErrNoAccount):
		return status.Error(codes.NotFound, ErrNoAccount.Error())
	case errors.Is(err, ErrNoLink):
		return status.Error(codes.NotFound, ErrNoLink.Error())
	case errors.Is(err, ErrNoLease):
		return status.Error(codes.NotFound, ErrNoLease.Error())
	case errors.Is(err, ErrTooWide):
		return status.Error(codes.OutOfRange, ErrTooWide.Error())
	case errors.Is(err, ErrNoZone):
		return status.Error(codes.FailedPrecondition, ErrNoZone.Error())
	}
	return err
}

// GetQuota returns every counter that a spend at the account would touch.
func (s *service) GetQuota(ctx context.Context, req *cretov1.GetQuotaRequest) (*cretov1.GetQuotaResponse, error) {
	tenant, err := parseID("tenant", req.GetTenant(), false)
	if err != nil {
		return nil, err
	}
	account, err := parseID("account", req.GetAccount(), false)
	if err != nil {
		return nil, err
	}
	link, err := parseLink(req.GetLinkId())
	if err != nil {
		return nil, err
	}
	if req.GetMeter() != "" {
		if err := kind.CheckMeter(req.GetMeter()); err != nil {
			return nil, toStatus(err)
		}
	}
	res := &cretov1.GetQuotaResponse{}
	err = s.reads.View(ctx, tenant, req.GetConsistency(), func(v ledger.View, info *cretov1.ReadInfo) error {
		counters, err := s.meter.QueryQuota(v, account, req.GetMeter(), link, info.GetTimeNs())
		if err != nil {
			return err
		}
		res.Read = info
		for i := range counters {
			res.Counters = append(res.Counters, counters[i].proto())
		}
		return nil
	})
	if err != nil {
		return nil, toStatus(err)
	}
	return res, nil
}

func (c *Counter) proto() *cretov1.Counter {
	out := &cretov1.Counter{
		Account: optionalID(c.Account), Meter: c.Meter, Period: c.Quota.Period.String(), Mode: c.Quota.Mode.String(), Limit: c.Quota.Limit,
		Charged: c.Charged, Open: c.Open, Excess: c.Excess, Over: c.Over, Remaining: c.Remaining, PeriodStartNs: c.Start,
	}
	if c.Link != (nhi.LinkID{}) {
		out.LinkId = c.Link[:]
	}
	if c.End != math.MaxInt64 {
		out.ResetsAtNs = c.End // 0 = never
	}
	return out
}

// QueryUsage returns exact sums and counts.
func (s *service) QueryUsage(ctx context.Context, req *cretov1.QueryUsageRequest) (*cretov1.QueryUsageResponse, error) {
	tenant, err := parseID("tenant", req.GetTenant(), false)
	if err != nil {
		return nil, err
	}
	q := UsageQuery{Meter: req.GetMeter(), From: req.GetFromTimeNs(), To: req.GetToTimeNs()}
	if q.Account, err = parseID("account", req.GetAccount(), true); err != nil {
		return nil, err
	}
	if q.Agent, err = parseID("agent", req.GetAgent(), true); err != nil {
		return nil, err
	}
	if q.Link, err = parseLink(req.GetLinkId()); err != nil {
		return nil, err
	}
	if req.GetWindow() != "" {
		var ok bool
		if q.Window, ok = kind.ParsePeriod(req.GetWindow()); !ok {
			return nil, status.Error(codes.InvalidArgument, "window is neither hour nor day")
		}
	}
	for _, g := range req.GetGroupBy() {
		switch g {
		case "account":
			q.ByAccount = true
		case "agent":
			q.ByAgent = true
		case "link":
			q.ByLink = true
		case "meter": // sums of different meters are never added up, so this says nothing new
		default:
			return nil, status.Error(codes.InvalidArgument, "group_by is none of account, agent, meter, link")
		}
	}
	res := &cretov1.QueryUsageResponse{}
	err = s.reads.View(ctx, tenant, req.GetConsistency(), func(v ledger.View, info *cretov1.ReadInfo) error {
		u, err := s.meter.QueryUsage(v, q, info.GetTimeNs())
		if err != nil {
			return err
		}
		res.Read, res.Exact = info, u.Exact
		for i := range u.Rows {
			res.Rows = append(res.Rows, u.Rows[i].proto())
		}
		return nil
	})
	if err != nil {
		return nil, toStatus(err)
	}
	return res, nil
}

func (r *UsageRow) proto() *cretov1.UsageRow {
	out := &cretov1.UsageRow{
		FromTimeNs: r.From, ToTimeNs: r.To, Account: optionalID(r.Account), Agent: optionalID(r.Agent), Meter: r.Meter, Sum: r.Sum, Count: r.Count,
	}
	if r.Link != (nhi.LinkID{}) {
		out.LinkId = r.Link[:]
	}
	return out
}

// ListAccounts pages through the account tree. The cursor is the id of the last account of the page before.
func (s *service) ListAccounts(ctx context.Context, req *cretov1.ListAccountsRequest) (*cretov1.ListAccountsResponse, error) {
	tenant, err := parseID("tenant", req.GetTenant(), false)
	if err != nil {
		return nil, err
	}
	var after nhi.ID
	if req.GetCursor() != "" {
		if after, err = nhi.ParseID(req.GetCursor()); err != nil {
			return nil, status.Error(codes.InvalidArgument, "cursor is not one that a page ended with")
		}
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultPageSize
	}
	size = min(size, maxPageSize)
	res := &cretov1.ListAccountsResponse{}
	err = s.reads.View(ctx, tenant, cretov1.Consistency_CONSISTENCY_UNSPECIFIED, func(v ledger.View, info *cretov1.ReadInfo) error {
		accounts, more := ListAccounts(v, after, size)
		res.Read = info
		for _, a := range accounts {
			res.Accounts = append(res.Accounts, &cretov1.Account{
				Id: a.ID[:], Parent: optionalID(a.Parent), Type: a.Type, Depth: uint32(a.Depth), CreatedIndex: a.Created,
			})
		}
		if more {
			res.NextCursor = accounts[len(accounts)-1].ID.String()
		}
		return nil
	})
	if err != nil {
		return nil, toStatus(err)
	}
	return res, nil
}

// GetLease returns a lease.
func (s *service) GetLease(ctx context.Context, req *cretov1.GetLeaseRequest) (*cretov1.GetLeaseResponse, error) {
	tenant, err := parseID("tenant", req.GetTenant(), false)
	if err != nil {
		return nil, err
	}
	res := &cretov1.GetLeaseResponse{}
	err = s.reads.View(ctx, tenant, cretov1.Consistency_CONSISTENCY_UNSPECIFIED, func(v ledger.View, info *cretov1.ReadInfo) error {
		l, ok := LookupLease(v, req.GetLeaseId())
		if !ok {
			return ErrNoLease
		}
		res = &cretov1.GetLeaseResponse{
			LeaseId: l.ID, Account: l.Account[:], Meter: l.Meter, Holder: l.Holder[:], Granted: l.Granted, Settled: l.Settled,
			OverClaim: l.Over, ExpiresNs: l.Expires, State: l.State.String(), Read: info,
		}
		return nil
	})
	if err != nil {
		return nil, toStatus(err)
	}
	return res, nil
}

func parseID(field string, b []byte, optional bool) (nhi.ID, error) {
	if len(b) == 0 && optional {
		return nhi.ID{}, nil
	}
	if len(b) != len(nhi.ID{}) {
		return nhi.ID{}, status.Errorf(codes.InvalidArgument, "%s has %d bytes, want %d", field, len(b), len(nhi.ID{}))
	}
	return nhi.ID(b), nil
}

func parseLink(b []byte) (nhi.LinkID, error) {
	if len(b) == 0 {
		return nhi.LinkID{}, nil
	}
	if len(b) != len(nhi.LinkID{}) {
		return nhi.LinkID{}, status.Errorf(codes.InvalidArgument, "link_id has %d bytes, want %d", len(b), len(nhi.LinkID{}))
	}
	return nhi.LinkID(b), nil
}

func optionalID(id nhi.ID) []byte {
	if id.IsZero() {
		return nil
	}
	return id[:]
}
