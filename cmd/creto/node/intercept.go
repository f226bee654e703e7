package node

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// Bounds of messages, in bytes. Only submissions are large.
const (
	maxMessage      = 4<<20 + 64<<10
	maxSmallMessage = 1 << 20
	maxHeaderList   = 16 << 10
)

var largeMethods = map[string]bool{
	cretov1.EventService_Submit_FullMethodName: true,
	cretov1.NodeService_Forward_FullMethodName: true,
}

// wrapper is what every call passes through, outermost first: a panic becomes an internal error, an error becomes a status,
// then who may call, then the room for reading the request, then whether the caller may see the tenant that it names, then
// whether it has its declared shape.
type wrapper struct {
	log      *slog.Logger
	guard    *guard
	admit    *admission
	validate protovalidate.Validator
	stopping <-chan struct{} // closed when the server begins to end: streams end with it
}

// stream serves every call: unary ones are streams of one request and one answer here (registrar).
func (w *wrapper) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	ctx := ss.Context()
	if streams(info) {
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
		done := make(chan struct{})
		defer close(done)
		// The goroutine ends with the call.
		go func() {
			select {
			case <-w.stopping:
				cancel(errStopping)
			case <-done:
			}
		}()
	}
	defer func() {
		if r := recover(); r != nil {
			err = w.panicked(ctx, info.FullMethod, r)
		}
	}()
	err = w.serve(ctx, srv, ss, info, next)
	if err != nil && context.Cause(ctx) == errStopping {
		err = errStopping
	}
	return toStatus(ss.Context(), w.log, info.FullMethod, err)
}

func streams(info *grpc.StreamServerInfo) bool { return info.IsClientStream || info.IsServerStream }

func (w *wrapper) serve(ctx context.Context, srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	c, err := w.guard.caller(ctx)
	if err != nil {
		return err
	}
	if err := w.guard.allow(ctx, c, info.FullMethod); err != nil {
		return err
	}
	conn := connOf(ctx)
	if conn != nil && c.anonymous() {
		defer conn.state.anonymous.Add(-1)
		if conn.state.anonymous.Add(1) > maxAnonymous {
			return errManyCalls
		}
	}
	s := &callStream{ServerStream: ss, ctx: context.WithValue(ctx, callerKey{}, c), wrapper: w, method: info.FullMethod, long: streams(info)}
	switch {
	case conn == nil:
		// The admin socket's owner has this process's rights.
	case methods[info.FullMethod] == accessSandbox:
		end, err := w.admit.openStream(c.principal.ID)
		if err != nil {
			return err
		}
		defer end()
	default:
		s.conn, s.held.pool = conn.state, w.admit.clients
		if methods[info.FullMethod] == accessNode {
			s.held.pool = w.admit.nodes
		}
		defer s.held.done()
	}
	return next(srv, s)
}

// callStream reads requests within bounds, holds every one against the table and the API's definition, and looks at a caller
// again that is sent answers for long.
type callStream struct {
	grpc.ServerStream
	ctx     context.Context
	wrapper *wrapper
	method  string
	long    bool       // may last: the caller is looked at again
	conn    *connState // nil: requests are read without waiting for room
	held    admitted

	request any       // the last one, if long
	applied uint64    // what this node had applied when the caller was last looked at
	checked time.Time // when that was
}

func (s *callStream) Context() context.Context { return s.ctx }

func (s *callStream) RecvMsg(m any) error {
	var err error
	if s.conn == nil {
		err = s.ServerStream.RecvMsg(m)
	} else {
		err = s.wrapper.admit.read(s.ctx, s.conn, &s.held, s.ServerStream, m)
	}
	if err != nil {
		return err
	}
	g := s.wrapper.guard
	applied, now := g.applied(), time.Now()
	if s.request != nil {
		if err := s.again(); err != nil {
			return err
		}
	}
	if err := g.allowRequest(s.ctx, callerOf(s.ctx), s.method, m); err != nil {
		return err
	}
	if s.long {
		s.request, s.applied, s.checked = m, applied, now
	}
	return s.wrapper.check(s.method, m)
}

// SendMsg sends an answer. A caller whose SVID has ended, whose token or identity was taken away, gets no further ones.
func (s *callStream) SendMsg(m any) error {
	if s.request == nil {
		return s.ServerStream.SendMsg(m)
	}
	if applied, now := s.wrapper.guard.applied(), time.Now(); applied != s.applied || now.Sub(s.checked) >= recheckInterval {
		if err := s.again(); err != nil {
			return err
		}
		s.applied, s.checked = applied, now
	}
	return s.ServerStream.SendMsg(m)
}

// again looks at the caller as if the call began now.
func (s *callStream) again() error {
	g := s.wrapper.guard
	c, err := g.caller(s.ctx)
	if err != nil {
		return err
	}
	if err := g.allow(s.ctx, c, s.method); err != nil {
		return err
	}
	return g.allowRequest(s.ctx, c, s.method, s.request)
}

// errStopping ends streams while the node stops.
var errStopping = &Error{Kind: KindUnavailable, Message: "this node is stopping", Hint: "continue on another node"}

func (w *wrapper) panicked(ctx context.Context, method string, r any) error {
	w.log.ErrorContext(ctx, "call panicked", "method", method, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
	return toStatus(ctx, w.log, method, &Error{Kind: KindInternal, Message: "internal error"})
}

// check holds a request against its size and the constraints of the API's definition.
func (w *wrapper) check(method string, req any) error {
	m, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	if !largeMethods[method] && proto.Size(m) > maxSmallMessage {
		return refuse(KindInvalid, "request is larger than %d bytes", maxSmallMessage)
	}
	if err := w.validate.Validate(m); err != nil {
		return &Error{Kind: KindInvalid, Message: err.Error(), Cause: err}
	}
	return nil
}
