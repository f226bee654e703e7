package main

import (
	"bytes"
	"context"
	"time"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

// firstAnswer returns the answer of the leaf that had the id first, if its event says the same as the one that was sent. The ledger
// compares signed bytes, in which nonce, client time and sequence differ with each signature; who submits by hand means the rest.
// Addenda are salted: events that have any never say the same.
func firstAnswer(ctx context.Context, w *actor, sent []byte, leaf uint64) (*creto.Result, bool) {
	tenant := w.Tenant()
	r, err := cretov1.NewEventServiceClient(w.client).GetEvent(ctx, &cretov1.GetEventRequest{Tenant: tenant[:], Index: leaf})
	if err != nil {
		return nil, false
	}
	p := r.GetEvent()
	l, err := verify.DecodeLeaf(p.GetLeaf())
	if err != nil || l.Index != leaf || l.Payload != nhi.PayloadDigest(p.GetPayload()) || !sameIntent(sent, p.GetPayload()) {
		return nil, false
	}
	out := &creto.Result{
		State: creto.StateDuplicate, Height: p.GetHeight(), Index: l.Index, LeafHash: verify.LeafHash(p.GetLeaf()), Time: time.Unix(0, l.Time).UTC(),
		Quality: qualityText(l.Quality), Outcome: l.Outcome.Code,
	}
	if out.Flag, out.Detail, err = creto.OpenDetail(out.Outcome, p.GetDetail()); err != nil {
		return nil, false
	}
	return out, true
}

// sameIntent compares two events without what is drawn anew for each.
func sameIntent(a, b []byte) bool {
	plain := func(payload []byte) []byte {
		ev, err := nhi.DecodeEvent(payload)
		if err != nil || len(ev.Addenda) > 0 {
			return nil
		}
		ev.Seq, ev.Nonce, ev.ClientTime = nhi.Seq{}, [16]byte{}, 0
		out, err := ev.Encode()
		if err != nil {
			return nil
		}
		return out
	}
	x := plain(a)
	return x != nil && bytes.Equal(x, plain(b))
}
