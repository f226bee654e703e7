package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

// eventView is one leaf. JSON names are a contract.
type eventView struct {
	Index      count            `json:"index"`
	Time       instant          `json:"time"`
	Quality    string           `json:"time_quality" table:"-"`
	Kind       string           `json:"kind"`
	Outcome    string           `json:"outcome"`
	Suspect    bool             `json:"suspect,omitempty" table:"-"` // signed within a known window of compromise
	Agent      string           `json:"agent,omitempty"`
	Link       string           `json:"link_id,omitempty" table:"-"`
	Account    string           `json:"account,omitempty" table:"-"`
	Quantities map[string]count `json:"quantities,omitempty"`
	ID         string           `json:"id,omitempty" table:"-"`
	Seq        count            `json:"seq,omitempty" table:"-"`
	Lease      count            `json:"lease,omitempty" table:"-"`
	Reverses   *count           `json:"reverses,omitempty" table:"-"`
	Cause      *causeView       `json:"cause,omitempty" table:"-"`
	LeafHash   string           `json:"leaf_hash" table:"-"`
	Assurance  string           `json:"assurance,omitempty" table:"-"`
	Height     string           `json:"height"`
}

type causeView struct {
	Kind  uint8  `json:"kind"`
	Index count  `json:"index"`
	Ref   string `json:"ref,omitempty"`
}

func (e eventView) quietID() string { return e.Index.String() }

// eventDetail is one leaf with what belongs to it.
type eventDetail struct {
	eventView
	Suspect  bool      `json:"suspect,omitempty"`
	Link     string    `json:"link_id,omitempty"`
	Account  string    `json:"account,omitempty"`
	LeafHash string    `json:"leaf_hash"`
	KeyID    string    `json:"key_id,omitempty"`
	Body     any       `json:"body,omitempty"`
	Flagged  string    `json:"flagged,omitempty"` // with accepted_flagged: what an ask would have got
	Detail   any       `json:"detail,omitempty"`
	Addenda  []string  `json:"addenda,omitempty"`
	State    string    `json:"addenda_state,omitempty"`
	Leaf     string    `json:"leaf" table:"-"`
	Payload  string    `json:"payload,omitempty" table:"-"`
	Read     *readView `json:"read,omitempty" table:"-"`
}

func eventOf(p *cretov1.EventView) (eventView, error) {
	l, err := verify.DecodeLeaf(p.GetLeaf())
	if err != nil {
		return eventView{}, fmt.Errorf("read leaf %d: %w", p.GetIndex(), err)
	}
	if l.Index != p.GetIndex() || hexOf(p.GetLeafHash()) != hexHash(verify.LeafHash(p.GetLeaf())) {
		return eventView{}, fmt.Errorf("read leaf %d: index or hash is not the leaf's", p.GetIndex())
	}
	v := eventView{
		Index: count(l.Index), Time: instantNs(l.Time), Quality: qualityText(l.Quality), Kind: l.Kind, Outcome: l.Outcome.Code.String(),
		Agent: idOf(l.Agent[:]), Link: hashOf(l.Link[:]), Account: idOf(l.Account[:]), ID: hashOf(l.ID[:]), Seq: count(l.Seq.N),
		LeafHash: hexOf(p.GetLeafHash()), Assurance: l.Assurance.String(), Height: p.GetHeight(), Suspect: p.GetSuspect(),
	}
	for _, q := range l.Quantities {
		if v.Quantities == nil {
			v.Quantities = make(map[string]count)
		}
		v.Quantities[q.Meter] = count(q.N)
	}
	if l.Lease != nil {
		v.Lease = count(l.Lease.ID)
	}
	if l.Reverses != nil {
		r := count(*l.Reverses)
		v.Reverses = &r
	}
	if l.Cause != nil {
		v.Cause = &causeView{uint8(l.Cause.Kind), count(l.Cause.Index), hexOf(l.Cause.Ref)}
	}
	return v, nil
}

func hexHash(d nhi.Digest) string { return hexOf(d[:]) }

func qualityText(q verify.Quality) string {
	s := strings.ToUpper(q.Code.String())
	if q.Flags&verify.FlagTest != 0 {
		s += " TEST"
	}
	return s
}

func detailOf(p *cretov1.EventView) (*eventDetail, error) {
	e, err := eventOf(p)
	if err != nil {
		return nil, err
	}
	d := &eventDetail{
		eventView: e, Suspect: e.Suspect, Link: e.Link, Account: e.Account, LeafHash: e.LeafHash, KeyID: hashOf(p.GetKeyId()), State: p.GetAddendaState(),
		Leaf: base64.StdEncoding.EncodeToString(p.GetLeaf()), Payload: base64.StdEncoding.EncodeToString(p.GetPayload()),
	}
	if len(p.GetPayload()) > 0 {
		if ev, err := nhi.DecodeEvent(p.GetPayload()); err == nil {
			d.Body, _ = plainCBOR(ev.Body)
		} else {
			d.Body, _ = plainCBOR(p.GetPayload()) // a system leaf's payload is a body
		}
	}
	if len(p.GetDetail()) > 0 {
		code, _ := verify.ParseOutcomeCode(e.Outcome)
		flag, detail, err := creto.OpenDetail(code, p.GetDetail())
		if err != nil {
			detail = p.GetDetail() // as it is: what cannot be read can still be seen
		}
		d.Flagged = flagText(flag)
		if len(detail) > 0 {
			d.Detail, _ = plainCBOR(detail)
		}
	}
	for _, a := range p.GetAddenda() {
		d.Addenda = append(d.Addenda, printable(a.GetData()))
	}
	return d, nil
}

// printable is text as it is, and anything else in base64.
func printable(b []byte) string {
	for _, r := range string(b) {
		if r == 0xfffd || unicode.IsControl(r) && r != '\n' && r != '\t' {
			return "base64:" + base64.StdEncoding.EncodeToString(b)
		}
	}
	return string(b)
}

func (a *app) eventCmd() *cobra.Command {
	return noun("event", "Submit, find and follow signed events",
		"Every write is a signed event, and every event that was decided is a leaf of its tenant's log.",
		a.eventSubmitCmd(), a.eventGetCmd(), a.eventListCmd(), a.eventTailCmd())
}

// filterFlags are the flags of what finds events.
type filterFlags struct {
	kind, agent, human, link, root, account, outcome, key, from, to string
	fromIndex, toIndex                                              uint64
}

func (o *filterFlags) add(c *cobra.Command, ranges bool) {
	f := c.Flags()
	f.StringVar(&o.kind, "kind", "", "only this kind")
	f.StringVar(&o.agent, "agent", "", "only what this identity signed")
	f.StringVar(&o.human, "human", "", "only what was done for this human")
	f.StringVar(&o.link, "under", "", "only what was done under this link itself")
	f.StringVar(&o.root, "root", "", "only what was done under chains with this root link")
	f.StringVar(&o.account, "of-account", "", "only what was charged to this account")
	f.StringVar(&o.outcome, "outcome", "", "only this outcome: accepted, denied, quota_exhausted, …")
	f.StringVar(&o.key, "key-id", "", "only what was signed with this key")
	f.Uint64Var(&o.fromIndex, "from-index", 0, "from this leaf on")
	if ranges {
		f.Uint64Var(&o.toIndex, "to-index", 0, "before this leaf (default: open)")
		f.StringVar(&o.from, "from", "", "from this commit time on: RFC 3339, a date, or how long ago (90m)")
		f.StringVar(&o.to, "to", "", "before this commit time")
	}
}

func (o *filterFlags) filter() (*cretov1.EventFilter, error) {
	f := &cretov1.EventFilter{Kind: o.kind, Outcome: o.outcome, FromIndex: o.fromIndex, ToIndex: o.toIndex}
	for _, e := range []struct {
		name, text string
		to         *[]byte
	}{{"--agent", o.agent, &f.Agent}, {"--human", o.human, &f.Human}, {"--of-account", o.account, &f.Account}} {
		if e.text == "" {
			continue
		}
		id, err := parseID(e.name, e.text)
		if err != nil {
			return nil, err
		}
		*e.to = id[:]
	}
	for _, e := range []struct {
		text string
		to   *[]byte
	}{{o.link, &f.Link}, {o.root, &f.Root}, {o.key, &f.KeyId}} {
		if e.text == "" {
			continue
		}
		l, err := parseLink(e.text)
		if err != nil {
			return nil, err
		}
		*e.to = l[:]
	}
	if o.outcome != "" {
		if _, ok := verify.ParseOutcomeCode(o.outcome); !ok {
			return nil, usageError(fmt.Errorf("--outcome %q is unknown", o.outcome), "docs/exit-codes.md lists them")
		}
	}
	var err error
	f.FromTimeNs, f.ToTimeNs, err = timeRange(o.from, o.to)
	return f, err
}

func (a *app) eventListCmd() *cobra.Command {
	var o filterFlags
	var limit uint32
	var oldest bool
	c := &cobra.Command{
		Use: "list", Short: "Find events by their fields, newest first",
		Example: `  creto event list --limit 20
  creto event list --kind usage --human HUMAN --from 24h -o jsonl
  creto event list --outcome quota_exhausted -q`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := o.filter()
			if err != nil {
				return err
			}
			return a.tenantCall(c.Context(), func(ctx context.Context, cl *creto.Client, tenant []byte) error {
				rpc := cretov1.NewEventServiceClient(cl)
				suspect := 0
				defer func() {
					if suspect > 0 && a.settings.output == "table" {
						a.say("%d of these were signed within a known window of compromise: -o json says which", suspect)
					}
				}()
				return pages(a, limit, func(size uint32, cursor string) ([]eventView, string, error) {
					r, err := rpc.ListEvents(ctx, &cretov1.ListEventsRequest{
						Tenant: tenant, Filter: f, PageSize: size, Cursor: cursor, NewestFirst: !oldest,
					})
					if err != nil {
						return nil, "", err
					}
					rows := make([]eventView, 0, len(r.GetEvents()))
					for _, p := range r.GetEvents() {
						e, err := eventOf(p)
						if err != nil {
							return nil, "", err
						}
						if e.Suspect {
							suspect++
						}
						rows = append(rows, e)
					}
					return rows, r.GetNextCursor(), nil
				})
			})
		},
	}
	o.add(c, true)
	c.Flags().Uint32Var(&limit, "limit", 100, "at most this many; 0 = all")
	c.Flags().BoolVar(&oldest, "oldest-first", false, "oldest first")
	return c
}

func (a *app) eventGetCmd() *cobra.Command {
	var addenda bool
	c := &cobra.Command{
		Use: "get INDEX", Short: "Show one leaf, with its event",
		Example: "  creto event get 42\n  creto event get 42 --addenda -o json",
		Args:    exactly("INDEX"),
		RunE: func(c *cobra.Command, args []string) error {
			i, err := parseIndex("leaf", args[0])
			if err != nil {
				return err
			}
			return a.tenantCall(c.Context(), func(ctx context.Context, cl *creto.Client, tenant []byte) error {
				r, err := cretov1.NewEventServiceClient(cl).GetEvent(ctx, &cretov1.GetEventRequest{Tenant: tenant, Index: i, WithAddenda: addenda})
				if err != nil {
					return err
				}
				d, err := detailOf(r.GetEvent())
				if err != nil {
					return err
				}
				d.Read = readOf(r.GetRead())
				return a.object(d)
			})
		},
	}
	c.Flags().BoolVar(&addenda, "addenda", false, "also show the personal or bulky data beside it")
	return c
}

func (a *app) eventTailCmd() *cobra.Command {
	var o filterFlags
	var follow bool
	c := &cobra.Command{
		Use: "tail", Short: "Follow the log",
		Long: `Print matching leaves as they are sequenced, from now on or from --from-index. It goes on through the loss of a node, without
a gap and without repetition. Without -f it prints the last ten leaves, or those from --from-index on, and ends.`,
		Example: "  creto event tail -f\n  creto event tail -f --kind approval.request -o jsonl",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := o.filter()
			if err != nil {
				return err
			}
			t, err := a.tenant()
			if err != nil {
				return err
			}
			return a.hold(c.Context(), func(ctx context.Context, cl *creto.Client) error {
				return a.tail(ctx, cl, t[:], f, follow, c.Flag("from-index").Changed)
			})
		},
	}
	o.add(c, false)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "wait for what comes next")
	return c
}

func (a *app) tail(ctx context.Context, cl *creto.Client, tenant []byte, f *cretov1.EventFilter, follow, fromGiven bool) error {
	heads, err := cretov1.NewLedgerServiceClient(cl).GetHeads(ctx, &cretov1.GetHeadsRequest{Tenant: tenant})
	if err != nil {
		return err
	}
	end := heads.GetTreeSize()
	switch {
	case !fromGiven && follow:
		f.FromIndex = end
	case !fromGiven:
		f.FromIndex = end - min(end, 10)
	}
	s := newStream[eventView](a)
	s.live = true
	if !follow {
		f.ToIndex = end
		s.live = false
		return a.tailOnce(ctx, cl, tenant, f, s)
	}
	var alone time.Time // since when no node has answered; zero = one did
	said := false
	for {
		from := f.FromIndex
		err := a.follow(ctx, cl, tenant, f, s)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, io.EOF) && !creto.Unavailable(err) {
			return err
		}
		switch {
		case alone.IsZero() || f.FromIndex != from:
			alone, said = time.Now(), false
		case !said && time.Since(alone) > quietOutage:
			said = true
			a.say("no node answers since %s, trying again until one does; Ctrl-C ends it", instant(alone.Truncate(time.Second)))
		}
		select { // a node went away: another one goes on from the next index
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// quietOutage is how long nodes may be away before anybody is told: a change of leaders takes less.
const quietOutage = 2 * time.Second

// follow prints leaves until the stream breaks, which is its error; f then begins behind the last of them.
func (a *app) follow(ctx context.Context, cl *creto.Client, tenant []byte, f *cretov1.EventFilter, s *stream[eventView]) error {
	if f.FromIndex == 0 { // which would stand for what comes next: every leaf has a time
		f.FromTimeNs = max(f.FromTimeNs, 1)
	}
	st, err := cretov1.NewEventServiceClient(cl).TailEvents(ctx, &cretov1.TailEventsRequest{Tenant: tenant, Filter: f})
	if err != nil {
		return err
	}
	for {
		p, err := st.Recv()
		if err != nil {
			return err
		}
		e, err := eventOf(p)
		if err != nil {
			return err
		}
		if err := s.add(e); err != nil {
			return err
		}
		f.FromIndex = p.GetIndex() + 1
	}
}

func (a *app) tailOnce(ctx context.Context, cl *creto.Client, tenant []byte, f *cretov1.EventFilter, s *stream[eventView]) error {
	cursor := ""
	for {
		r, err := cretov1.NewEventServiceClient(cl).ListEvents(ctx, &cretov1.ListEventsRequest{Tenant: tenant, Filter: f, PageSize: 500, Cursor: cursor})
		if err != nil {
			return err
		}
		for _, p := range r.GetEvents() {
			e, err := eventOf(p)
			if err != nil {
				return err
			}
			if err := s.add(e); err != nil {
				return err
			}
		}
		if cursor = r.GetNextCursor(); cursor == "" {
			return s.close()
		}
	}
}
