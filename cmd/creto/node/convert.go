package node

import (
	"bytes"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/edge"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// submissions reads the envelopes of a request.
func submissions(envelopes []*cretov1.Envelope) ([]edge.Submission, error) {
	out := make([]edge.Submission, len(envelopes))
	for i, e := range envelopes {
		if len(e.GetKeyId()) != len(nhi.KeyID{}) {
			return nil, refuse(KindInvalid, "envelope %d: key_id has %d bytes, want 32", i, len(e.GetKeyId()))
		}
		out[i].Envelope = &nhi.Envelope{Payloads: e.GetPayloads(), KeyID: nhi.KeyID(e.GetKeyId()), Signature: e.GetSignature(), Batch: e.GetBatch()}
		if len(e.GetAddenda()) == 0 {
			continue
		}
		out[i].Addenda = make([][]nhi.Addendum, len(e.GetAddenda()))
		for k, items := range e.GetAddenda() {
			for _, a := range items.GetItems() {
				if len(a.GetSalt()) != 16 {
					return nil, refuse(KindInvalid, "envelope %d, event %d: salt has %d bytes, want 16", i, k, len(a.GetSalt()))
				}
				out[i].Addenda[k] = append(out[i].Addenda[k], nhi.Addendum{Salt: [16]byte(a.GetSalt()), Data: a.GetData()})
			}
		}
	}
	return out, nil
}

// envelopes is the inverse of submissions.
func envelopes(subs []edge.Submission) []*cretov1.Envelope {
	out := make([]*cretov1.Envelope, len(subs))
	for i, s := range subs {
		e := s.Envelope
		out[i] = &cretov1.Envelope{Payloads: e.Payloads, KeyId: e.KeyID[:], Signature: e.Signature, Batch: e.Batch}
		for _, items := range s.Addenda {
			p := new(cretov1.Addenda)
			for _, a := range items {
				p.Items = append(p.Items, &cretov1.Addendum{Salt: a.Salt[:], Data: a.Data})
			}
			out[i].Addenda = append(out[i].Addenda, p)
		}
	}
	return out
}

var states = map[ledger.EventState]cretov1.Result_State{
	ledger.Sequenced: cretov1.Result_STATE_SEQUENCED,
	ledger.Duplicate: cretov1.Result_STATE_DUPLICATE,
	ledger.Conflict:  cretov1.Result_STATE_CONFLICT,
	ledger.Invalid:   cretov1.Result_STATE_INVALID,
	ledger.Stale:     cretov1.Result_STATE_STALE,
}

// answer writes what became of events, each signature of their receipts once.
func answer(in []edge.Result) *cretov1.SubmitResponse {
	resp := &cretov1.SubmitResponse{Results: results(in), Height: heightSequenced}
	for i, r := range in {
		n := len(resp.ReceiptSignatures)
		switch {
		case r.ReceiptSignature == nil:
			continue
		case n == 0 || !bytes.Equal(resp.ReceiptSignatures[n-1], r.ReceiptSignature):
			resp.ReceiptSignatures = append(resp.ReceiptSignatures, r.ReceiptSignature)
			n++
		}
		resp.Results[i].ReceiptSignature = uint32(n)
	}
	return resp
}

// whole is the result of one event by itself, with its receipt whole.
func whole(r edge.Result) *cretov1.Result {
	p := results([]edge.Result{r})[0]
	if r.ReceiptSignature != nil {
		if joined, err := verify.JoinReceipt(r.Receipt, r.ReceiptSignature); err == nil {
			p.Receipt = joined
		}
	}
	return p
}

// results writes what became of events, without the signatures of their receipts.
func results(in []edge.Result) []*cretov1.Result {
	out := make([]*cretov1.Result, len(in))
	for i, r := range in {
		p := &cretov1.Result{
			State: states[r.State], Index: r.Index, TimeNs: r.Time, Outcome: r.Outcome.String(), OutcomeCode: uint32(r.Outcome),
			Detail: r.Detail, Receipt: r.Receipt, Reason: r.Reason,
		}
		switch r.State {
		case ledger.Sequenced, ledger.Duplicate:
			p.LeafHash = r.LeafHash[:]
			p.TimeQuality = qualityText(r.Quality)
		case ledger.Conflict:
			p.LeafHash = r.LeafHash[:]
			p.TimeQuality = qualityText(r.Quality)
			p.Outcome, p.OutcomeCode = verify.OutcomeConflict.String(), uint32(verify.OutcomeConflict)
			if p.Reason == "" {
				p.Reason = fmt.Sprintf("the id was used by leaf %d with another intent: its payload digest is %x", r.Index, r.First)
			}
		case ledger.Invalid:
			p.Outcome, p.OutcomeCode = verify.OutcomeInvalid.String(), uint32(verify.OutcomeInvalid)
			if p.Reason == "" && r.Err != nil {
				p.Reason = r.Err.Error()
			}
		}
		out[i] = p
	}
	return out
}

// fromAnswer reads what the leader answered.
func fromAnswer(resp *cretov1.SubmitResponse) []edge.Result {
	out := make([]edge.Result, len(resp.GetResults()))
	for i, p := range resp.GetResults() {
		r := edge.Result{Receipt: p.GetReceipt(), Reason: p.GetReason()}
		if n := int(p.GetReceiptSignature()); n > 0 && n <= len(resp.GetReceiptSignatures()) {
			r.ReceiptSignature = resp.GetReceiptSignatures()[n-1]
		}
		for state, s := range states {
			if s == p.GetState() {
				r.State = state
			}
		}
		r.Index, r.Time, r.Detail, r.Outcome = p.GetIndex(), p.GetTimeNs(), p.GetDetail(), verify.OutcomeCode(p.GetOutcomeCode())
		r.Quality = parseQuality(p.GetTimeQuality())
		copy(r.LeafHash[:], p.GetLeafHash())
		out[i] = r
	}
	return out
}

// qualityText is the quality of a stamp as the API says it: its name, then the flags that users must know.
func qualityText(q verify.Quality) string {
	s := strings.ToUpper(q.Code.String())
	if q.Flags&verify.FlagTest != 0 {
		s += " TEST"
	}
	return s
}

func parseQuality(s string) (q verify.Quality) {
	name, test := strings.CutSuffix(s, " TEST")
	if test {
		q.Flags |= verify.FlagTest
	}
	for c := verify.QualityGood; c <= verify.QualityStale; c++ {
		if strings.EqualFold(c.String(), name) {
			q.Code = c
		}
	}
	return q
}

// fromLeader turns the error of a call to the leader into one of this node's. What the leader said about the call is handed
// on as it is; that it could not be reached is this cluster's own matter.
func fromLeader(err error) error {
	st := status.Convert(err)
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			return st.Err()
		}
	}
	switch st.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.PermissionDenied, codes.Internal, codes.Unknown:
		return fmt.Errorf("%w: %w", edge.ErrUnavailable, err)
	}
	return st.Err()
}
