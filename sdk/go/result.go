package creto

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	approval "github.com/creto-systems/creto/oversight/kind"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// State says what became of a submitted event.
type State string

// The states. Sequenced and Duplicate have a leaf.
const (
	StateSequenced State = "sequenced" // it has a leaf now
	StateDuplicate State = "duplicate" // it had one before; the answer is that one's
	StateConflict  State = "conflict"  // its id was used with another intent
	StateInvalid   State = "invalid"   // it can never have a leaf
	StateStale     State = "stale"     // authority changed while it was decided; nothing happened
)

// Result is what became of one event.
type Result struct {
	State    State
	Height   string // "sequenced" or "published", for the whole answer
	Index    uint64 // of the leaf, with StateSequenced and StateDuplicate
	LeafHash nhi.Digest
	Time     time.Time // commit time, consensus time
	Quality  string    // of the time
	Outcome  verify.OutcomeCode
	Detail   []byte // canonical CBOR, by kind
	Flag     *Flag  // with verify.OutcomeAcceptedFlagged, else nil
	Receipt  []byte // encoded verify.SignedReceipt; may be empty
	Reason   string // why it was not accepted, in words
}

// Flag says what an event would have got had it asked for something. It took effect because it states what has happened
// already: usage, a settlement, a report.
type Flag struct {
	Outcome verify.OutcomeCode
	Refusal []byte // the registry's, canonical CBOR: registry.Refusal
}

// OpenDetail returns the detail that the kind's handler gave, and the flag around it if the outcome is
// verify.OutcomeAcceptedFlagged. The digest in the
// leaf is that of the detail as it was passed in.
func OpenDetail(o verify.OutcomeCode, detail []byte) (*Flag, []byte, error) {
	if o != verify.OutcomeAcceptedFlagged {
		return nil, detail, nil
	}
	var d struct {
		Outcome verify.OutcomeCode `cbor:"1,keyasint"`
		Refusal []byte             `cbor:"2,keyasint"`
		Detail  []byte             `cbor:"3,keyasint,omitempty"`
	}
	if err := canon.Unmarshal(detail, &d); err != nil {
		return nil, nil, fmt.Errorf("read the flag of a fact: %w", err)
	}
	return &Flag{Outcome: d.Outcome, Refusal: d.Refusal}, d.Detail, nil
}

// Err returns nil if the event took effect, and otherwise a *RefusedError.
func (r *Result) Err() error {
	if (r.State == StateSequenced || r.State == StateDuplicate) && r.Outcome.Accepted() {
		return nil
	}
	return &RefusedError{Result: r}
}

// RefusedError is the ledger's final word on an event that did not take effect (or, with StateStale, the word so far).
type RefusedError struct {
	Kind   string // of the event, where known
	Result *Result
}

// Error says what was refused and why.
func (e *RefusedError) Error() string {
	what := string(e.Result.State)
	if e.Result.State == StateSequenced || e.Result.State == StateDuplicate {
		what = e.Result.Outcome.String()
	}
	s := "refused: " + what
	if e.Kind != "" {
		s = e.Kind + " " + s
	}
	if e.Result.Reason != "" && e.Result.Reason != what {
		s += ": " + e.Result.Reason
	}
	return s
}

// Hint says what can be done.
func (e *RefusedError) Hint() string {
	switch {
	case e.Result.State == StateConflict:
		return "an id names one intent for ever: use a new id for a new intent"
	case e.Result.State == StateStale:
		return "send the same bytes again"
	case e.Result.State == StateInvalid:
		return "correct the event; the same bytes will be refused again"
	}
	switch e.Result.Outcome {
	case verify.OutcomeNeedsApproval:
		if e.Kind == approval.Claim {
			return "wait for the decision with `creto approval await`; if the policy has changed since it was asked for, ask again"
		}
		return "no approval can be used for an event of this kind: a soft policy (`creto policy show`) or the chain's own oversight holds it back, and has to be changed"
	case verify.OutcomeQuotaExhausted:
		return "wait for the period to end, or have the limit raised with `creto quota set`"
	case verify.OutcomeDenied:
		return "see what the policy permits with `creto policy show`"
	case verify.OutcomeExpired, verify.OutcomeRevoked:
		return "see what became of the chain with `creto delegation show`"
	}
	return ""
}

// Outcome returns the outcome of a refusal, and false if err is no refusal that has a leaf.
func Outcome(err error) (verify.OutcomeCode, bool) {
	e, ok := errors.AsType[*RefusedError](err)
	if !ok || (e.Result.State != StateSequenced && e.Result.State != StateDuplicate) {
		return 0, false
	}
	return e.Result.Outcome, true
}

// Unavailable reports whether err means that the cluster cannot answer now and the same bytes may succeed later.
func Unavailable(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted:
		return true
	}
	return false
}

var states = map[cretov1.Result_State]State{
	cretov1.Result_STATE_SEQUENCED: StateSequenced,
	cretov1.Result_STATE_DUPLICATE: StateDuplicate,
	cretov1.Result_STATE_CONFLICT:  StateConflict,
	cretov1.Result_STATE_INVALID:   StateInvalid,
	cretov1.Result_STATE_STALE:     StateStale,
}

// results checks the shape of an answer: one result for each payload of the request.
func results(r *cretov1.SubmitRequest, resp *cretov1.SubmitResponse) ([]*Result, error) {
	want := 0
	for _, e := range r.GetEnvelopes() {
		want += len(e.GetPayloads())
	}
	if got := len(resp.GetResults()); got != want {
		return nil, fmt.Errorf("read answer: %d results for %d events", got, want)
	}
	out := make([]*Result, want)
	for i, p := range resp.GetResults() {
		res, err := ResultOf(p, resp.GetHeight())
		if err == nil {
			res.Receipt, err = ReceiptOf(resp, i)
		}
		if err != nil {
			return nil, fmt.Errorf("read answer: result %d: %w", i, err)
		}
		out[i] = res
	}
	return out, nil
}

// ReceiptOf returns the whole receipt of result i of an answer, which holds the signature of all receipts of a command once;
// nil if there is none.
func ReceiptOf(resp *cretov1.SubmitResponse, i int) ([]byte, error) {
	p := resp.GetResults()[i]
	n := int(p.GetReceiptSignature())
	switch {
	case n == 0:
		return bytes.Clone(p.GetReceipt()), nil
	case n > len(resp.GetReceiptSignatures()):
		return nil, fmt.Errorf("receipt is under signature %d of %d", n, len(resp.GetReceiptSignatures()))
	}
	return verify.JoinReceipt(p.GetReceipt(), resp.GetReceiptSignatures()[n-1])
}

// ResultOf returns the result that a message of the API holds. Its receipt is whole only if it was alone in its answer; see
// ReceiptOf.
func ResultOf(p *cretov1.Result, height string) (*Result, error) {
	s, ok := states[p.GetState()]
	if !ok {
		return nil, fmt.Errorf("unknown state %d", p.GetState())
	}
	if p.GetOutcomeCode() > 255 {
		return nil, fmt.Errorf("unknown outcome %d", p.GetOutcomeCode())
	}
	r := &Result{
		State: s, Height: height, Index: p.GetIndex(), Time: time.Unix(0, p.GetTimeNs()).UTC(), Quality: p.GetTimeQuality(),
		Outcome: verify.OutcomeCode(p.GetOutcomeCode()), Receipt: bytes.Clone(p.GetReceipt()), Reason: p.GetReason(),
	}
	var err error
	if r.Flag, r.Detail, err = OpenDetail(r.Outcome, bytes.Clone(p.GetDetail())); err != nil {
		return nil, err
	}
	if h := p.GetLeafHash(); len(h) == len(r.LeafHash) {
		r.LeafHash = nhi.Digest(h)
	} else if s == StateSequenced || s == StateDuplicate {
		return nil, fmt.Errorf("leaf hash has %d bytes", len(h))
	}
	return r, nil
}
