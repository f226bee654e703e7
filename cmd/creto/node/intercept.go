package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"

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
// then who may call, then whether the request has its declared shape.
type wrapper struct {
	log      *slog.Logger
	guard    *guard
	validate protovalidate.Validator
	stopping <-chan struct{} // closed when the server begins to end: streams end with it
}

func (w *wrapper) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if r := recover(); r != nil {
			resp, err = nil, w.panicked(ctx, info.FullMethod, r)
		}
	}()
	resp, err = w.guard.unary(ctx, req, info, func(ctx context.Context, req any) (any, error) {
		if err := w.check(info.FullMethod, req); err != nil {
			return nil, err
		}
		return next(ctx, req)
	})
	if err != nil {
		return nil, toStatus(ctx, w.log, info.FullMethod, err)
	}
	return resp, nil
}

func (w *wrapper) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	ctx, cancel := context.WithCancelCause(ss.Context())
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
	defer func() {
		if r := recover(); r != nil {
			err = w.panicked(ctx, info.FullMethod, r)
		}
	}()
	err = w.guard.stream(srv, &checkedStream{ServerStream: ss, ctx: ctx, wrapper: w, method: info.FullMethod}, info, next)
	if err != nil && context.Cause(ctx) == errStopping {
		err = errStopping
	}
	return toStatus(ss.Context(), w.log, info.FullMethod, err)
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

// checkedStream checks every message of a stream; the guard has seen it before.
type checkedStream struct {
	grpc.ServerStream
	ctx     context.Context
	wrapper *wrapper
	method  string
}

func (s *checkedStream) Context() context.Context { return s.ctx }

func (s *checkedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.wrapper.check(s.method, m)
}

// limitListener bounds the open connections of a listener: beyond the bound, new ones wait in the kernel.
type limitListener struct {
	net.Listener
	slots chan struct{}
	done  chan struct{}
	once  sync.Once
}

func newLimitListener(l net.Listener, n int) *limitListener {
	return &limitListener{Listener: l, slots: make(chan struct{}, n), done: make(chan struct{})}
}

func (l *limitListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitConn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limitListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

type limitConn struct {
	net.Conn
	release func()
}

func (c *limitConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
