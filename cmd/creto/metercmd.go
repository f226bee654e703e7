package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

type accountView struct {
	ID     string `json:"id"`
	Parent string `json:"parent,omitempty"`
	Type   string `json:"type"`
	Depth  uint32 `json:"depth"`
	Index  count  `json:"index"`
}

func (v accountView) quietID() string { return v.ID }

type accountCreated struct {
	ID     string `json:"id"`
	Parent string `json:"parent"`
	Type   string `json:"type"`
	Index  count  `json:"index"`
}

func (v accountCreated) quietID() string { return v.ID }

func (a *app) accountCmd() *cobra.Command {
	var parent, typ, name string
	create := &cobra.Command{
		Use: "create", Short: "Make an account below another one",
		Long:    "Make an account below another one. The tenant's own id is its root account.\n\nSigned by the tenant's authority (--as), or under a link that allows quota.account on the parent.",
		Example: "  creto account create --type team --name Search\n  creto account create --type project --parent ACCOUNT -q",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b := kind.AccountBody{Type: typ}
			var opts []creto.EventOption
			if parent != "" {
				p, err := parseID("--parent", parent)
				if err != nil {
					return err
				}
				b.Parent = p
				opts = append(opts, creto.WithAccount(p))
			} else {
				opts = append(opts, creto.WithAccount(nhi.ID{}))
			}
			var err error
			if b.ID, err = newID(); err != nil {
				return err
			}
			body, err := b.Encode()
			if err != nil {
				return usageError(err)
			}
			return a.act(c.Context(), byAuthority, func(ctx context.Context, w *actor) error {
				r, err := w.Do(ctx, kind.Account, body, append(opts, nameAddendum(name)...)...)
				if err != nil {
					return err
				}
				return a.object(accountCreated{b.ID.String(), cmp.Or(parent, w.Tenant().String()), typ, count(r.Index)})
			})
		},
	}
	f := create.Flags()
	f.StringVar(&parent, "parent", "", "account above it (default: the tenant's root account)")
	f.StringVar(&typ, "type", "team", "what it stands for: org, team, project, agent, run, …")
	f.StringVar(&name, "name", "", "what it is called; kept erasable, beside the log")
	var limit uint32
	lst := &cobra.Command{
		Use: "list", Short: "List the tenant's accounts", Args: noArgs, Example: "  creto account list\n  creto account list -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.tenantCall(c.Context(), func(ctx context.Context, cl *creto.Client, tenant []byte) error {
				rpc := cretov1.NewMeterServiceClient(cl)
				return pages(a, limit, func(size uint32, cursor string) ([]accountView, string, error) {
					r, err := rpc.ListAccounts(ctx, &cretov1.ListAccountsRequest{Tenant: tenant, PageSize: size, Cursor: cursor})
					if err != nil {
						return nil, "", err
					}
					return mapped(r.GetAccounts(), func(p *cretov1.Account) accountView {
						return accountView{idOf(p.GetId()), idOf(p.GetParent()), p.GetType(), p.GetDepth(), count(p.GetCreatedIndex())}
					}), r.GetNextCursor(), nil
				})
			})
		},
	}
	lst.Flags().Uint32Var(&limit, "limit", 0, "at most this many (default: all)")
	return noun("account", "The tree of accounts that usage is charged to", "", create, lst)
}

type counterView struct {
	Account   string  `json:"account,omitempty"`
	Link      string  `json:"link_id,omitempty" table:"-"`
	Meter     string  `json:"meter"`
	Period    string  `json:"period"`
	Mode      string  `json:"mode"`
	Limit     count   `json:"limit"`
	Charged   count   `json:"charged"`
	Open      count   `json:"open"`
	Excess    count   `json:"excess"`
	Over      count   `json:"over"`
	Remaining count   `json:"remaining"`
	Start     instant `json:"period_start" table:"-"`
	ResetsAt  instant `json:"resets_at"`
}

func (c counterView) quietID() string { return c.Remaining.String() }

func counterOf(p *cretov1.Counter) counterView {
	v := counterView{
		Account: idOf(p.GetAccount()), Link: hashOf(p.GetLinkId()), Meter: p.GetMeter(), Period: p.GetPeriod(), Mode: p.GetMode(),
		Limit: count(p.GetLimit()), Charged: count(p.GetCharged()), Open: count(p.GetOpen()), Excess: count(p.GetExcess()), Over: count(p.GetOver()),
		Remaining: count(p.GetRemaining()), Start: instantNs(p.GetPeriodStartNs()), ResetsAt: instantNs(p.GetResetsAtNs()),
	}
	return v
}

type leaseView struct {
	Lease   count   `json:"lease_id"`
	Meter   string  `json:"meter"`
	Granted count   `json:"granted"`
	Expires instant `json:"expires"`
	Index   count   `json:"index"`
}

func (l leaseView) quietID() string { return l.Lease.String() }

type closedView struct {
	Lease    count `json:"lease_id"`
	Settled  count `json:"settled"`
	Returned count `json:"returned"`
	Over     count `json:"over"`
}

func (c closedView) quietID() string { return c.Lease.String() }

func (a *app) quotaCmd() *cobra.Command {
	return noun("quota", "Limits, and leases on what is left of them",
		`A quota limits a meter at an account, and everything below it, for a period. A lease sets an amount aside for one holder to
spend without asking again.`,
		a.completeFirst(a.quotaSetCmd(), completeAccounts), a.completeFirst(a.quotaGetCmd(), completeAccounts), a.quotaReserveCmd(), a.quotaSettleCmd(), a.quotaCloseCmd(),
		a.completeFirst(a.quotaCorrectCmd(), completeAccounts))
}

func (a *app) quotaSetCmd() *cobra.Command {
	var o struct {
		period, mode, until string
		anchor              uint8
		thresholds          []uint
	}
	c := &cobra.Command{
		Use: "set ACCOUNT METER LIMIT", Short: "Set the limit of a meter at an account",
		Long: `Set the limit of a meter at an account for a period. It counts from its own leaf on; set anew, its counters go on.

Modes: block refuses what does not fit; overage and notify let it pass and count it as excess; observe records what would have
been refused. Signed by the tenant's authority (--as), or under a link that allows quota.set on the account.`,
		Example: "  creto quota set ACCOUNT tokens 1_000_000 --period month --threshold 80 --threshold 100",
		Args:    exactly("ACCOUNT", "METER", "LIMIT"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseID("account", args[0])
			if err != nil {
				return err
			}
			limit, err := parseAmount("limit", args[2])
			if err != nil {
				return err
			}
			b := kind.QuotaBody{Account: id, Meter: args[1], Limit: limit, Anchor: o.anchor}
			var ok bool
			if b.Period, ok = kind.ParsePeriod(o.period); !ok {
				return usageError(fmt.Errorf("--period %q is not hour, day, week, month or total", o.period))
			}
			if b.Mode, ok = kind.ParseMode(o.mode); !ok {
				return usageError(fmt.Errorf("--mode %q is not block, overage, notify or observe", o.mode))
			}
			for _, t := range o.thresholds {
				if t > kind.MaxThreshold {
					return usageError(fmt.Errorf("--threshold %d is more than %d percent", t, kind.MaxThreshold))
				}
				b.Thresholds = append(b.Thresholds, uint16(t))
			}
			slices.Sort(b.Thresholds)
			if o.until != "" {
				t, err := time.Parse(time.RFC3339, o.until)
				if err != nil {
					return usageError(fmt.Errorf("--until %q is not a time in RFC 3339", o.until))
				}
				b.Until = t.UnixNano()
			}
			body, err := b.Encode()
			if err != nil {
				return usageError(err)
			}
			return a.do(c.Context(), byAuthority, kind.Set, body, creto.WithAccount(id))
		},
	}
	f := c.Flags()
	f.StringVar(&o.period, "period", "month", "hour, day, week, month or total")
	f.StringVar(&o.mode, "mode", "block", "block, overage, notify or observe")
	f.Uint8Var(&o.anchor, "anchor", 0, "first day of a month (default 1)")
	f.UintSliceVar(&o.thresholds, "threshold", nil, "percent of the limit at which the log gets a notice; repeat it")
	f.StringVar(&o.until, "until", "", "observe only: from this time on, block")
	return c
}

func (a *app) quotaGetCmd() *cobra.Command {
	var meter string
	var stale bool
	c := &cobra.Command{
		Use: "get [ACCOUNT]", Short: "Show what is left, at every level that a spend would touch",
		Long:    "Show every counter that a spend at this account would touch: its own, those above it, and with --link the budgets of a chain. Without ACCOUNT it is the one of --account, or the tenant's root account.",
		Example: "  creto quota get ACCOUNT\n  creto quota get ACCOUNT --meter tokens --link LINK -o json",
		Args:    optionalFile,
		RunE: func(c *cobra.Command, args []string) error {
			return a.tenantCall(c.Context(), func(ctx context.Context, cl *creto.Client, tenant []byte) error {
				req := &cretov1.GetQuotaRequest{Tenant: tenant, Account: tenant, Meter: meter}
				if !a.settings.account.IsZero() {
					req.Account = a.settings.account[:]
				}
				if len(args) == 1 {
					id, err := parseID("account", args[0])
					if err != nil {
						return err
					}
					req.Account = id[:]
				}
				if !a.settings.link.IsZero() {
					req.LinkId = a.settings.link[:]
				}
				if stale {
					req.Consistency = cretov1.Consistency_CONSISTENCY_STALE
				}
				r, err := cretov1.NewMeterServiceClient(cl).GetQuota(ctx, req)
				if err != nil {
					return err
				}
				a.sayRead(r.GetRead())
				return list(a, mapped(r.GetCounters(), counterOf))
			})
		},
	}
	c.Flags().StringVar(&meter, "meter", "", "only this meter")
	c.Flags().BoolVar(&stale, "stale", false, "answer from what the node has, without asking the leader")
	return c
}

func (a *app) quotaReserveCmd() *cobra.Command {
	var least string
	var ttl time.Duration
	c := &cobra.Command{
		Use: "reserve METER AMOUNT", Short: "Set an amount aside",
		Long:    "Set an amount of a meter aside, at --account and every level above it, whole or not at all (or down to --least). Refused with exit code 4, naming the level that has too little left.",
		Example: "  creto quota reserve tokens 50000 --as agent.key --link LINK --account ACCOUNT --ttl 1m",
		Args:    exactly("METER", "AMOUNT"),
		RunE: func(c *cobra.Command, args []string) error {
			want, err := parseAmount("amount", args[1])
			if err != nil {
				return err
			}
			low := want
			if least != "" {
				if low, err = parseAmount("--least", least); err != nil {
					return err
				}
			}
			return a.act(c.Context(), byActor, func(ctx context.Context, w *actor) error {
				l, err := w.Reserve(ctx, args[0], want, low, ttl)
				if err != nil {
					return err
				}
				return a.object(leaseView{count(l.ID), l.Meter, count(l.Granted), instant(l.Expires), count(l.Index)})
			})
		},
	}
	c.Flags().StringVar(&least, "least", "", "be content with this much (default: all)")
	c.Flags().DurationVar(&ttl, "ttl", 0, "how long it may be spent from (default 15s)")
	return c
}

func (a *app) quotaSettleCmd() *cobra.Command {
	var from, to uint64
	c := &cobra.Command{
		Use: "settle LEASE AMOUNT", Short: "Say what a range of a lease's spends came to",
		Example: "  creto quota settle 120 1500 --from 0 --to 3 --as agent.key --link LINK --account ACCOUNT",
		Args:    exactly("LEASE", "AMOUNT"),
		RunE: func(c *cobra.Command, args []string) error {
			lease, err := parseIndex("lease", args[0])
			if err != nil {
				return err
			}
			n, err := parseAmount("amount", args[1])
			if err != nil {
				return err
			}
			return a.act(c.Context(), byActor, func(ctx context.Context, w *actor) error {
				r, err := w.Settle(ctx, lease, n, from, to)
				if err != nil {
					return err
				}
				return a.object(submittedOf(r))
			})
		},
	}
	c.Flags().Uint64Var(&from, "from", 0, "first of the spends")
	c.Flags().Uint64Var(&to, "to", 1, "one past the last of the spends")
	return c
}

func (a *app) quotaCloseCmd() *cobra.Command {
	return &cobra.Command{
		Use: "close LEASE SPENT", Short: "End a lease; the rest goes back",
		Example: "  creto quota close 120 1500 --as agent.key --link LINK --account ACCOUNT",
		Args:    exactly("LEASE", "SPENT"),
		RunE: func(c *cobra.Command, args []string) error {
			lease, err := parseIndex("lease", args[0])
			if err != nil {
				return err
			}
			n, err := parseAmount("amount", args[1])
			if err != nil {
				return err
			}
			return a.act(c.Context(), byActor, func(ctx context.Context, w *actor) error {
				r, err := w.CloseLease(ctx, lease, n)
				if err != nil {
					return err
				}
				return a.object(closedView{count(r.Lease), count(r.Settled), count(r.Returned), count(r.Over)})
			})
		},
	}
}

type usageRow struct {
	From    instant `json:"from,omitzero"`
	To      instant `json:"to,omitzero"`
	Account string  `json:"account,omitempty"`
	Agent   string  `json:"agent,omitempty"`
	Link    string  `json:"link_id,omitempty"`
	Meter   string  `json:"meter,omitempty"`
	Sum     count   `json:"sum"`
	Count   count   `json:"count"`
}

func (u usageRow) quietID() string { return u.Sum.String() }

func (a *app) usageCmd() *cobra.Command {
	return noun("usage", "Report and query what was used", "", a.usageAddCmd(), a.usageQueryCmd())
}

func (a *app) usageAddCmd() *cobra.Command {
	var o struct {
		dims     []string
		lease    uint64
		from, to uint64
	}
	c := &cobra.Command{
		Use: "add METER=N…", Short: "Report what was used",
		Long:    "Report what was used, charged to --account and every level above it. With --lease the lease pays; without one, a quota that blocks may refuse (exit code 4).",
		Example: "  creto usage add input_tokens=1200 output_tokens=80 --as agent.key --link LINK --account ACCOUNT --dim model=small",
		Args:    atLeast("METER=N"),
		RunE: func(c *cobra.Command, args []string) error {
			q, err := parseQuantities(args)
			if err != nil {
				return err
			}
			b := kind.UsageBody{Quantities: q, Lease: o.lease, From: o.from, To: o.to}
			for _, d := range o.dims {
				name, value, ok := strings.Cut(d, "=")
				if !ok {
					return usageError(fmt.Errorf("--dim %q is not NAME=VALUE", d))
				}
				b.Dims = append(b.Dims, kind.Dim{Name: name, Value: value})
			}
			if o.lease == 0 && (o.from != 0 || o.to != 0) {
				return usageError(errors.New("--from-seq and --to-seq are a lease's"), "name the lease with --lease")
			}
			body, err := b.Encode()
			if err != nil {
				return usageError(err)
			}
			return a.do(c.Context(), byActor, kind.Usage, body)
		},
	}
	f := c.Flags()
	f.StringArrayVar(&o.dims, "dim", nil, "NAME=VALUE, recorded and not interpreted; repeat it")
	f.Uint64Var(&o.lease, "lease", 0, "lease that pays")
	f.Uint64Var(&o.from, "from-seq", 0, "first of the lease's spends")
	f.Uint64Var(&o.to, "to-seq", 0, "one past the last of the lease's spends")
	return c
}

// fullHours takes a time that was given as how long ago back to the hour that it lies in, of which usage has a sum. Any other
// stays what it is.
func fullHours(text string, ns int64) int64 {
	if _, err := time.ParseDuration(text); err != nil {
		return ns
	}
	return ns - ns%int64(time.Hour)
}

// inexact says why sums are not those of the period that was asked for.
func inexact(rows []*cretov1.UsageRow) string {
	if slices.ContainsFunc(rows, func(r *cretov1.UsageRow) bool { return r.GetSum() == math.MaxUint64 }) {
		return "one has reached 2^64-1, and is at least that much"
	}
	s := "usage is kept by the hour, and all of the hours is counted that the period begins and ends in"
	if len(rows) > 0 {
		from, to := rows[0].GetFromTimeNs(), rows[0].GetToTimeNs()
		for _, r := range rows {
			from, to = min(from, r.GetFromTimeNs()), max(to, r.GetToTimeNs())
		}
		s += fmt.Sprintf(": %s to %s", instantNs(from), instantNs(to))
	}
	return s
}

func (a *app) usageQueryCmd() *cobra.Command {
	var o struct {
		meter, agent, from, to, window string
		groupBy                        []string
		stale                          bool
	}
	c := &cobra.Command{
		Use: "query", Short: "Sum what was used",
		Long: `Sums and counts of what was used at --account and below it (default: the whole tenant), under --link if one is given, by
consensus time. They are kept by the hour: a period that begins or ends within an hour is answered with all of that hour, and the
answer then says that it is not exact. How long ago (90m, 24h) is taken back to the full hour.`,
		Example: "  creto usage query --meter tokens --from 2026-11-01 --window day\n  creto usage query --group-by agent --group-by meter -o json",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			from, to, err := timeRange(o.from, o.to)
			if err != nil {
				return err
			}
			if from, to = fullHours(o.from, from), fullHours(o.to, to); to != 0 && to <= from {
				to = from + int64(time.Hour)
			}
			req := &cretov1.QueryUsageRequest{Meter: o.meter, FromTimeNs: from, ToTimeNs: to, Window: o.window, GroupBy: o.groupBy}
			if o.agent != "" {
				id, err := parseID("--agent", o.agent)
				if err != nil {
					return err
				}
				req.Agent = id[:]
			}
			if !a.settings.account.IsZero() {
				req.Account = a.settings.account[:]
			}
			if !a.settings.link.IsZero() {
				req.LinkId = a.settings.link[:]
			}
			if o.stale {
				req.Consistency = cretov1.Consistency_CONSISTENCY_STALE
			}
			return a.tenantCall(c.Context(), func(ctx context.Context, cl *creto.Client, tenant []byte) error {
				req.Tenant = tenant
				if req.ToTimeNs == 0 { // up to now, by consensus time
					h, err := cretov1.NewLedgerServiceClient(cl).GetHeads(ctx, &cretov1.GetHeadsRequest{Tenant: tenant})
					if err != nil {
						return err
					}
					now := time.Unix(0, h.GetRead().GetTimeNs())
					req.ToTimeNs = now.Truncate(time.Hour).Add(time.Hour).UnixNano()
				}
				r, err := cretov1.NewMeterServiceClient(cl).QueryUsage(ctx, req)
				if err != nil {
					return err
				}
				if !r.GetExact() {
					a.say("these sums are not exact: %s", inexact(r.GetRows()))
				}
				a.sayRead(r.GetRead())
				return list(a, mapped(r.GetRows(), func(p *cretov1.UsageRow) usageRow {
					return usageRow{
						instantNs(p.GetFromTimeNs()), instantNs(p.GetToTimeNs()), idOf(p.GetAccount()), idOf(p.GetAgent()), hashOf(p.GetLinkId()),
						p.GetMeter(), count(p.GetSum()), count(p.GetCount()),
					}
				}))
			})
		},
	}
	f := c.Flags()
	f.StringVar(&o.meter, "meter", "", "only this meter")
	f.StringVar(&o.agent, "agent", "", "only what this agent used")
	f.StringVar(&o.from, "from", "", "from this commit time on: RFC 3339, a date, or how long ago")
	f.StringVar(&o.to, "to", "", "before this commit time")
	f.StringVar(&o.window, "window", "", "a row for each hour or day")
	f.StringArrayVar(&o.groupBy, "group-by", nil, "account, agent, meter or link; repeat it")
	f.BoolVar(&o.stale, "stale", false, "answer from what the node has, without asking the leader")
	return c
}
