package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/creto-systems/creto/consensus"
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/edge"
)

// Kind is what sort of refusal a caller gets. There are few, so that callers can act on each.
type Kind string

// The kinds of refusals.
const (
	KindInvalid         Kind = "invalid"
	KindUnauthenticated Kind = "unauthenticated"
	KindDenied          Kind = "denied"
	KindNotFound        Kind = "not_found"
	KindConflict        Kind = "conflict"
	KindExhausted       Kind = "exhausted"   // back off: a bound of this node or tenant is reached
	KindUnavailable     Kind = "unavailable" // try again: no leader, or not applied yet
	KindInternal        Kind = "internal"
)

// grpcCodes is the one table from kinds to gRPC codes.
var grpcCodes = map[Kind]codes.Code{
	KindInvalid:         codes.InvalidArgument,
	KindUnauthenticated: codes.Unauthenticated,
	KindDenied:          codes.PermissionDenied,
	KindNotFound:        codes.NotFound,
	KindConflict:        codes.AlreadyExists,
	KindExhausted:       codes.ResourceExhausted,
	KindUnavailable:     codes.Unavailable,
	KindInternal:        codes.Internal,
}

// errorDomain is the domain of ErrorInfo details.
const errorDomain = "creto"

// Error is a refusal with its kind: what services return and the interceptor turns into a status.
type Error struct {
	Kind    Kind
	Message string // for the caller
	Hint    string // what the caller can do; may be empty
	Cause   error  // for this process's log only
	// After is when to try again, of kinds exhausted and unavailable; 0 = edge.RetryAfter.
	After time.Duration
}

func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Message
	}
	return e.Message + ": " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

func refuse(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Message: fmt.Sprintf(format, args...)}
}

// notFound is the one answer for what does not exist and for what the caller may not see.
func notFound() *Error { return &Error{Kind: KindNotFound, Message: "not found"} }

// classify is the one table from the rooms' errors to kinds.
func classify(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	var invalid *edge.InvalidError
	var refusals *edge.RefusalsError
	switch {
	case errors.As(err, &invalid):
		return &Error{Kind: KindInvalid, Message: invalid.Error(), Cause: err}
	case errors.Is(err, edge.ErrUnauthenticated):
		return &Error{Kind: KindUnauthenticated, Message: edge.ErrUnauthenticated.Error(), Cause: err,
			Hint: "register the key, or check that the envelope is for this tenant and unchanged"}
	case errors.Is(err, edge.ErrUnknownTenant), errors.Is(err, ledger.ErrNotFound):
		return &Error{Kind: KindNotFound, Message: "not found", Cause: err}
	case errors.Is(err, ledger.ErrRange):
		return &Error{Kind: KindInvalid, Message: "index, size or time is outside the log", Cause: err}
	case errors.Is(err, ledger.ErrCursor):
		return &Error{Kind: KindInvalid, Message: ledger.ErrCursor.Error(), Cause: err}
	case errors.As(err, &refusals):
		return &Error{Kind: KindExhausted, Message: refusals.Error(), Cause: err, After: refusals.After,
			Hint: "what this key asks is refused: find out why (creto event list --key-id) before it asks again"}
	case errors.Is(err, consensus.ErrDiskFull) && !errors.Is(err, consensus.ErrAmbiguous):
		return &Error{Kind: KindExhausted, Message: "the leader's disk is nearly full: nothing is recorded until there is room", Cause: err,
			Hint: "make room on the leader's disk (creto cluster status names it), then send again with the same ids"}
	case errors.Is(err, edge.ErrPushback), errors.Is(err, consensus.ErrPushback):
		return &Error{Kind: KindExhausted, Message: "too many events are waiting", Cause: err,
			Hint: "send again after the delay, with the same ids"}
	case errors.Is(err, edge.ErrUnavailable), errors.Is(err, consensus.ErrNotLeader), errors.Is(err, consensus.ErrAmbiguous),
		errors.Is(err, consensus.ErrClosed), errors.Is(err, ledger.ErrNoLedger), errors.Is(err, ledger.ErrClosed):
		return &Error{Kind: KindUnavailable, Message: "no leader can answer now", Cause: err,
			Hint: "send again after the delay, with the same ids: an event cannot take effect twice"}
	}
	return &Error{Kind: KindInternal, Message: "internal error", Cause: err}
}

// withReason gives a status that says no reason the one of its code.
func withReason(st *status.Status) *status.Status {
	if len(st.Details()) > 0 {
		return st
	}
	reason := KindInternal
	switch st.Code() {
	case codes.OK, codes.Canceled, codes.DeadlineExceeded:
		return st
	case codes.OutOfRange:
		reason = KindInvalid
	case codes.FailedPrecondition, codes.Aborted:
		reason = KindConflict
	default:
		for k, c := range grpcCodes {
			if c == st.Code() {
				reason = k
			}
		}
	}
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: string(reason), Domain: errorDomain}}
	if reason == KindExhausted || reason == KindUnavailable {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(edge.RetryAfter)})
	}
	if with, err := st.WithDetails(details...); err == nil {
		return with
	}
	return st
}

// toStatus turns an error of a service into what the caller sees, and logs the cause of what is this node's fault.
func toStatus(ctx context.Context, log *slog.Logger, method string, err error) error {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok && !errors.As(err, new(*Error)) {
		return withReason(s).Err() // from a room or a library, or the leader's answer to a forwarded call
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	e := classify(err)
	if e.Kind == KindInternal {
		log.ErrorContext(ctx, "call failed", "method", method, "err", err)
	}
	st := status.New(grpcCodes[e.Kind], e.Message)
	info := &errdetails.ErrorInfo{Reason: string(e.Kind), Domain: errorDomain}
	if e.Hint != "" {
		info.Metadata = map[string]string{"hint": e.Hint}
	}
	with, derr := st.WithDetails(info)
	if derr == nil {
		st = with
	}
	if e.Kind == KindExhausted || e.Kind == KindUnavailable {
		after := e.After
		if after == 0 {
			after = edge.RetryAfter
		}
		if with, derr := st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)}); derr == nil {
			st = with
		}
	}
	return st.Err()
}
