package node

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/edge"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// The names of the two heights.
const (
	heightSequenced = "sequenced"
	heightPublished = "published"
)

// tailPage is how many leaves a tail reads at once.
const tailPage = 200

type eventService struct {
	cretov1.UnsafeEventServiceServer
	s *Server
}

// Submit commits envelopes, here or through the leader.
func (e *eventService) Submit(ctx context.Context, req *cretov1.SubmitRequest) (*cretov1.SubmitResponse, error) {
	return e.s.submit(ctx, req, e.s.edge.Submit)
}

func (s *Server) submit(ctx context.Context, req *cretov1.SubmitRequest, commit func(context.Context, nhi.ID, []edge.Submission) ([]edge.Result, error)) (*cretov1.SubmitResponse, error) {
	start := time.Now()
	subs, err := submissions(req.GetEnvelopes())
	if err != nil {
		return nil, err
	}
	tenant := nhi.ID(req.GetTenant())
	rs, err := commit(ctx, tenant, subs)
	if err != nil {
		return nil, err
	}
	s.metrics.commit.Observe(time.Since(start).Seconds())
	for _, r := range rs {
		s.metrics.events.WithLabelValues(r.State.String(), r.Outcome.String()).Inc()
	}
	resp := answer(rs)
	if req.GetWait() != cretov1.Height_HEIGHT_PUBLISHED {
		return resp, nil
	}
	last, found := uint64(0), false
	for _, r := range rs {
		if r.State == ledger.Sequenced || r.State == ledger.Duplicate {
			last, found = max(last, r.Index), true
		}
	}
	if found {
		if err := s.waitPublished(ctx, tenant, last); err != nil {
			// It is committed: an error would make the caller doubt that.
			s.log.Debug("answered before publication", "err", err)
			return resp, nil
		}
		resp.Height = heightPublished
	}
	return resp, nil
}

// GetEvent returns one leaf with what belongs to it.
func (e *eventService) GetEvent(ctx context.Context, req *cretov1.GetEventRequest) (*cretov1.GetEventResponse, error) {
	resp := new(cretov1.GetEventResponse)
	err := e.s.tenantRead(ctx, req.GetTenant(), req.GetConsistency(), func(snap *ledger.Snapshot, t ledger.Tenant, info *cretov1.ReadInfo) error {
		stored, err := snap.Event(t.Slot, req.GetIndex())
		if err != nil {
			return err
		}
		resp.Read = info
		resp.Event, err = e.s.eventView(snap, t, stored, viewOptions{payload: true, evidence: true, addenda: req.GetWithAddenda()})
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

type viewOptions struct{ payload, evidence, addenda bool }

// eventView writes a leaf and what belongs to it.
func (s *Server) eventView(snap *ledger.Snapshot, t ledger.Tenant, e *ledger.StoredEvent, o viewOptions) (*cretov1.EventView, error) {
	hash := verify.LeafHash(e.Raw)
	v := &cretov1.EventView{Index: e.Index, Leaf: e.Raw, LeafHash: hash[:], Height: heightSequenced}
	if h := s.publisher.Published(); h.Epoch > 0 && h.Epoch <= snap.Epoch() {
		if _, head, err := snap.SealedHead(t.Slot, h.Epoch); err == nil && e.Index < head.Size {
			v.Height = heightPublished
		}
	}
	if e.Signature != nil {
		view, err := snap.View(t)
		if err != nil {
			return nil, err
		}
		v.Suspect = registry.Suspect(ledger.RegistryView(view), e.Signature.Key, e.Leaf.Time, view.NextIndex())
	}
	if o.payload {
		v.Payload, v.Detail = e.Payload, e.Detail
	}
	if o.evidence && e.Signature != nil {
		v.KeyId, v.Signature = e.Signature.Key[:], e.Signature.Signature
		if e.Signature.Batch {
			p, err := snap.BatchProof(t, e.Signature, e.Position)
			if err != nil {
				return nil, err
			}
			if v.BatchProof, err = canon.Marshal(p); err != nil {
				return nil, fmt.Errorf("encode batch proof: %w", err)
			}
		}
	}
	switch {
	case len(e.Leaf.Addenda) == 0:
	case e.Erased != nil:
		v.AddendaState = fmt.Sprintf("erased at index %d", e.Erased.Index)
	default:
		v.AddendaState = "present"
	}
	if !o.addenda || e.Erased != nil || e.Addenda == 0 {
		return v, nil
	}
	sealed, err := snap.Addenda(t.Slot, e.Index)
	if err != nil {
		return nil, err
	}
	for _, a := range sealed {
		plain, err := ledger.OpenAddendum(s.identity.kek, snap.LedgerID(), t.ID, a)
		if err != nil {
			return nil, err
		}
		v.Addenda = append(v.Addenda, &cretov1.Addendum{Salt: plain.Salt[:], Data: plain.Data})
	}
	return v, nil
}

// query reads a filter.
func query(f *cretov1.EventFilter) (ledger.Query, error) {
	q := ledger.Query{
		Kind: f.GetKind(), FromTime: f.GetFromTimeNs(), ToTime: f.GetToTimeNs(), FromIndex: f.GetFromIndex(), ToIndex: f.GetToIndex(),
	}
	var bad error
	field := func(name string, dst, src []byte) {
		if len(src) != 0 && len(src) != len(dst) {
			bad = refuse(KindInvalid, "filter.%s has %d bytes, want %d", name, len(src), len(dst))
		}
		copy(dst, src)
	}
	field("agent", q.Agent[:], f.GetAgent())
	field("human", q.Human[:], f.GetHuman())
	field("link", q.Link[:], f.GetLink())
	field("account", q.Account[:], f.GetAccount())
	field("key_id", q.Key[:], f.GetKeyId())
	if f.GetOutcome() != "" {
		c, ok := verify.ParseOutcomeCode(f.GetOutcome())
		if !ok {
			return q, refuse(KindInvalid, "filter.outcome %q is unknown", f.GetOutcome())
		}
		q.Outcome = &c
	}
	if q.FromTime < 0 || q.ToTime < 0 {
		return q, refuse(KindInvalid, "filter times are not negative")
	}
	return q, bad
}

// rootFilter is the filter's root link: leaves whose chain begins with it. The root's issuer is the human (or service) that
// postings know, so it narrows the walk; the chain is looked at leaf by leaf.
type rootFilter struct {
	root  nhi.LinkID
	known map[nhi.LinkID]bool
}

func newRootFilter(raw []byte) (*rootFilter, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	if len(raw) != len(nhi.LinkID{}) {
		return nil, refuse(KindInvalid, "filter.root has %d bytes, want 32", len(raw))
	}
	return &rootFilter{root: nhi.LinkID(raw), known: make(map[nhi.LinkID]bool)}, nil
}

// ListEvents returns one page of leaves.
func (e *eventService) ListEvents(ctx context.Context, req *cretov1.ListEventsRequest) (*cretov1.ListEventsResponse, error) {
	q, err := query(req.GetFilter())
	if err != nil {
		return nil, err
	}
	root, err := newRootFilter(req.GetFilter().GetRoot())
	if err != nil {
		return nil, err
	}
	q.NewestFirst, q.Limit, q.Cursor = req.GetNewestFirst(), int(req.GetPageSize()), req.GetCursor()
	resp := new(cretov1.ListEventsResponse)
	err = e.s.tenantRead(ctx, req.GetTenant(), req.GetConsistency(), func(snap *ledger.Snapshot, t ledger.Tenant, info *cretov1.ReadInfo) error {
		if err := root.narrow(snap, t, &q); err != nil {
			return err
		}
		page, err := snap.List(t.Slot, q)
		if err != nil {
			return err
		}
		resp.Read, resp.NextCursor = info, page.Next
		for _, stored := range page.Events {
			ok, err := root.matches(snap, t, stored)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			v, err := e.s.eventView(snap, t, stored, viewOptions{payload: req.GetWithPayload(), evidence: req.GetWithPayload()})
			if err != nil {
				return err
			}
			resp.Events = append(resp.Events, v)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// TailEvents streams matching leaves as they are applied here. It begins at the filter's from_index, or with what comes.
func (e *eventService) TailEvents(req *cretov1.TailEventsRequest, stream grpc.ServerStreamingServer[cretov1.EventView]) error {
	q, err := query(req.GetFilter())
	if err != nil {
		return err
	}
	root, err := newRootFilter(req.GetFilter().GetRoot())
	if err != nil {
		return err
	}
	q.Limit = tailPage
	if q.FromIndex == 0 && q.FromTime == 0 {
		err := e.s.tenantRead(stream.Context(), req.GetTenant(), cretov1.Consistency_CONSISTENCY_LINEARIZABLE, func(_ *ledger.Snapshot, _ ledger.Tenant, info *cretov1.ReadInfo) error {
			q.FromIndex = info.GetTreeSize()
			return nil
		})
		if err != nil {
			return err
		}
	}
	end := q.ToIndex
	for {
		applied := e.s.ledger.Applied()
		var views []*cretov1.EventView
		more := false
		err := e.s.tenantRead(stream.Context(), req.GetTenant(), cretov1.Consistency_CONSISTENCY_STALE, func(snap *ledger.Snapshot, t ledger.Tenant, info *cretov1.ReadInfo) error {
			if err := root.narrow(snap, t, &q); err != nil {
				return err
			}
			page, err := snap.List(t.Slot, q)
			if err != nil {
				return err
			}
			for _, stored := range page.Events {
				ok, err := root.matches(snap, t, stored)
				if err != nil {
					return err
				}
				if !ok {
					continue
				}
				v, err := e.s.eventView(snap, t, stored, viewOptions{payload: req.GetWithPayload(), evidence: req.GetWithPayload()})
				if err != nil {
					return err
				}
				v.Read = info
				views = append(views, v)
			}
			if page.Next != "" {
				more, q.FromIndex = true, page.From
			} else {
				q.FromIndex = max(q.FromIndex, info.GetTreeSize())
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, v := range views {
			if err := stream.Send(v); err != nil {
				return err
			}
		}
		if end != 0 && q.FromIndex >= end {
			return nil
		}
		if more {
			continue
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-applied:
		}
	}
}
