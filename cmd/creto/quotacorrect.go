package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/creto-systems/creto/meter/kind"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

type correctedView struct {
	Index   count `json:"index"`
	Charged count `json:"charged"`
	Open    count `json:"open"`
	Excess  count `json:"excess"`
	Over    count `json:"over"`
}

func (c correctedView) quietID() string { return c.Index.String() }

func (a *app) quotaCorrectCmd() *cobra.Command {
	var o struct{ period, start, excess, over, reason string }
	c := &cobra.Command{
		Use: "correct ACCOUNT METER", Short: "Take excess back that does not stand",
		Long: `Take back what an account's counter has beyond its quota: --excess makes room again, --over only comes off the bill. Both as
"creto quota get" shows them. The reason stands in the log. Signed by the tenant's authority (--as), or by who set the quota.`,
		Example: "  creto quota correct ACCOUNT tokens --period total --over 9_000 --reason 'stolen key, see case 12'",
		Args:    exactly("ACCOUNT", "METER"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseID("account", args[0])
			if err != nil {
				return err
			}
			b := kind.CorrectBody{Account: id, Meter: args[1], Reason: o.reason}
			var ok bool
			if b.Period, ok = kind.ParsePeriod(o.period); !ok {
				return usageError(fmt.Errorf("--period %q is not hour, day, week, month or total", o.period))
			}
			for _, n := range []struct {
				flag, text string
				to         *uint64
			}{{"--excess", o.excess, &b.Excess}, {"--over", o.over, &b.Over}} {
				if n.text == "" {
					continue
				}
				// Up to 2^64−1, which says at least that much.
				if *n.to, err = strconv.ParseUint(strings.ReplaceAll(n.text, "_", ""), 10, 64); err != nil {
					return usageError(fmt.Errorf("%s %q is not a whole number below 2^64", n.flag, n.text))
				}
			}
			if o.start != "" {
				t, err := time.Parse(time.RFC3339Nano, o.start)
				if err != nil {
					return usageError(fmt.Errorf("--start %q is not a time in RFC 3339", o.start))
				}
				b.Start = t.UnixNano()
			}
			if err := b.Check(); err != nil {
				return usageError(err)
			}
			return a.act(c.Context(), byAuthority, func(ctx context.Context, w *actor) error {
				if o.start == "" {
					if b.Start, err = periodStart(ctx, w, &b); err != nil {
						return err
					}
				}
				body, err := b.Encode()
				if err != nil {
					return usageError(err)
				}
				r, err := w.Do(ctx, kind.Correct, body, creto.WithAccount(id))
				if err != nil {
					return err
				}
				k, err := kind.DecodeCorrected(r.Detail)
				if err != nil {
					return fmt.Errorf("read answer: %w", err)
				}
				return a.object(correctedView{count(r.Index), count(k.Charged), count(k.Open), count(k.Excess), count(k.Over)})
			})
		},
	}
	f := c.Flags()
	f.StringVar(&o.period, "period", "month", "hour, day, week, month or total")
	f.StringVar(&o.start, "start", "", "when the period began, as shown by quota get (default: the current one)")
	f.StringVar(&o.excess, "excess", "", "this much of what takes room")
	f.StringVar(&o.over, "over", "", "this much of what takes none")
	f.StringVar(&o.reason, "reason", "", "why, for whoever reads the log")
	return c
}

// periodStart asks when the current period of a counter began.
func periodStart(ctx context.Context, w *actor, b *kind.CorrectBody) (int64, error) {
	tenant := w.Tenant()
	r, err := cretov1.NewMeterServiceClient(w.client).GetQuota(ctx, &cretov1.GetQuotaRequest{Tenant: tenant[:], Account: b.Account[:], Meter: b.Meter})
	if err != nil {
		return 0, err
	}
	for _, k := range r.GetCounters() {
		if bytes.Equal(k.GetAccount(), b.Account[:]) && k.GetPeriod() == b.Period.String() {
			return k.GetPeriodStartNs(), nil
		}
	}
	return 0, &failure{
		code: exitNotFound, err: fmt.Errorf("account %s has no quota of %s for a period of a %s", b.Account, b.Meter, b.Period),
		hints: []string{"see: creto quota get " + b.Account.String()},
	}
}
