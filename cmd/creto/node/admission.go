package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/spiffe"
)

// Bounds of what callers hold before anybody knows whether their requests are good.
const (
	nodesInFlight    = 128 << 20        // bytes of voters' requests, apart from clients': forwarding goes on when clients are many
	maxReading       = 8                // requests of one connection whose bytes are being taken
	maxWaiting       = 4096             // requests of all connections that wait to be read, each with at most one window of bytes
	streamWindow     = 64 << 10         // bytes a client may send ahead of being read
	connWindow       = 1 << 20          // the same of a connection, per round trip
	maxAnonymous     = 16               // calls under way on one connection, of callers with neither SVID nor token
	maxNodeStreams   = 8                // streams under way of one sandbox node, on all its connections
	readWait         = 10 * time.Second // until a request's turn to be read comes
	bodyTimeout      = 30 * time.Second // until a request has come whole
	idleConnection   = 5 * time.Minute  // without calls, after which a connection ends
	recheckInterval  = time.Second      // how long a stream goes on without its caller being looked at again, if nothing is applied
	principalRecheck = time.Minute      // how long the verification of a connection's SVID counts, at most
)

// admission bounds what requests hold of the node's memory: how many bytes are being read or served, and how many requests
// wait for that. A request is read only once its largest possible size has been set aside; until then HTTP/2 holds it back
// with the client. Whoever cannot be admitted in time is told to try again.
type admission struct {
	clients, nodes *semaphore.Weighted
	waiting        chan struct{}

	mu      sync.Mutex
	streams map[nhi.ID]int // guarded by mu; of sandbox nodes
}

func newAdmission(bytes int64) *admission {
	return &admission{
		clients: semaphore.NewWeighted(max(bytes, maxMessage)), nodes: semaphore.NewWeighted(nodesInFlight),
		waiting: make(chan struct{}, maxWaiting), streams: make(map[nhi.ID]int),
	}
}

var (
	errCrowded   = &Error{Kind: KindExhausted, Message: "this node holds as many requests as it can", Hint: "send again after the delay, or to another node"}
	errManyCalls = &Error{Kind: KindExhausted, Message: "too many calls at once", Hint: "send again when others have ended"}
	errSlowBody  = &Error{Kind: KindUnavailable, Message: "the request did not come whole in time", Hint: "send it again"}
)

// admitted is what one call holds. It belongs to the goroutine that serves the call.
type admitted struct {
	pool *semaphore.Weighted
	held int64
}

// done gives everything back.
func (a *admitted) done() {
	if a.held > 0 {
		a.pool.Release(a.held)
		a.held = 0
	}
}

// read reads one request of a call: it waits for its turn, on its connection and on the node, and gives up on a body that
// does not come. What the request takes up stays with the call.
func (a *admission) read(ctx context.Context, c *connState, call *admitted, stream grpc.ServerStream, m any) error {
	select {
	case a.waiting <- struct{}{}:
	default:
		return errCrowded
	}
	wctx, cancel := context.WithTimeout(ctx, readWait)
	err := a.turn(wctx, c, call.pool)
	cancel()
	<-a.waiting
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return errCrowded
	}
	// RecvMsg can be ended only with its call, and the call ends when its handler returns. A body that is late is left to this
	// goroutine, which gives back what was set aside when the stream has ended.
	received := make(chan error, 1)
	late := new(atomic.Bool)
	giveBack := sync.OnceFunc(func() {
		call.pool.Release(maxMessage)
		<-c.reading
	})
	go func() {
		received <- receive(stream, m)
		if late.Load() {
			giveBack()
		}
	}()
	timer := time.NewTimer(bodyTimeout)
	defer timer.Stop()
	select {
	case err := <-received:
		if p, ok := m.(proto.Message); ok && err == nil {
			size := int64(min(proto.Size(p), maxMessage))
			call.held += size
			call.pool.Release(maxMessage - size)
			<-c.reading
			return nil
		}
		giveBack()
		return err
	case <-timer.C:
		late.Store(true)
		select {
		case <-received: // it has come between the two, and may have looked before late was set
			giveBack()
		default:
		}
		return errSlowBody
	}
}

// receive is RecvMsg, of which a panic ends the call and not the process.
func receive(stream grpc.ServerStream, m any) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("read request: panic: %v", r)
		}
	}()
	return stream.RecvMsg(m)
}

// turn waits for a place on the connection and for room on the node.
func (a *admission) turn(ctx context.Context, c *connState, pool *semaphore.Weighted) error {
	select {
	case c.reading <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := pool.Acquire(ctx, maxMessage); err != nil {
		<-c.reading
		return err
	}
	return nil
}

// openStream counts a stream on which a sandbox node sends at its leisure; what ends it is to be called once.
func (a *admission) openStream(id nhi.ID) (end func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.streams[id] >= maxNodeStreams {
		return nil, errManyCalls
	}
	a.streams[id]++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.streams[id]--; a.streams[id] == 0 {
			delete(a.streams, id)
		}
	}, nil
}

// connState is what this node keeps of one connection of the gRPC listener.
type connState struct {
	raw       net.Conn
	reading   chan struct{}
	anonymous atomic.Int32
	verified  atomic.Pointer[verifiedPeer]
}

func newConnState(raw net.Conn) *connState {
	return &connState{raw: raw, reading: make(chan struct{}, maxReading)}
}

// verifiedPeer is whom a connection's SVID named when it was last verified.
type verifiedPeer struct {
	principal spiffe.Principal // zero: no SVID
	bundle    *spiffe.Bundle
	until     time.Time
}

// principal verifies the SVID of a connection against the bundle of this moment, at times again. A connection whose SVID no
// longer holds is closed: the client makes a new one, with the SVID that it has by then.
func (c *connState) principal(source *spiffe.Source, state tlsState) (spiffe.Principal, error) {
	now, bundle := time.Now(), source.Bundle()
	if v := c.verified.Load(); v != nil && v.bundle == bundle && now.Before(v.until) {
		return v.principal, nil
	}
	p, err := source.PeerPrincipal(state)
	if errors.Is(err, spiffe.ErrNoPeer) {
		p, err = spiffe.Principal{}, nil
	}
	if err != nil {
		_ = c.raw.Close()
		return spiffe.Principal{}, &Error{Kind: KindUnauthenticated, Message: "the connection's certificate holds no longer", Hint: "connect again, with a new one", Cause: err}
	}
	until := now.Add(principalRecheck)
	for _, cert := range state.PeerCertificates {
		if cert.NotAfter.Before(until) {
			until = cert.NotAfter
		}
	}
	c.verified.Store(&verifiedPeer{p, bundle, until})
	return p, nil
}

// connInfo is what calls find of their connection.
type connInfo struct {
	credentials.TLSInfo
	state *connState
}

// connOf returns the connection of a call, or nil on the admin socket.
func connOf(ctx context.Context) *connInfo {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(*connInfo); ok {
			return info
		}
	}
	return nil
}

// serverCreds gives every connection its state, and tells the listener which ones show an SVID of the cluster's own.
type serverCreds struct {
	credentials.TransportCredentials
}

func (s serverCreds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := s.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	t, ok := info.(credentials.TLSInfo)
	if !ok {
		return nil, nil, errors.Join(errors.New("connection is not one of TLS"), conn.Close())
	}
	if p, err := spiffe.PeerPrincipal(t.State); err == nil && p.System {
		if l, ok := raw.(*limitConn); ok {
			l.keep()
		}
	}
	return conn, &connInfo{TLSInfo: t, state: newConnState(raw)}, nil
}

func (s serverCreds) Clone() credentials.TransportCredentials {
	return serverCreds{s.TransportCredentials.Clone()}
}

// registrar registers every method as a stream that passes through the wrapper, unary ones as streams of one request and one
// answer, which on the wire are the same: a unary interceptor is called with the request, when everything has been read.
type registrar struct {
	*grpc.Server
	wrapper *wrapper
}

func (r registrar) RegisterService(d *grpc.ServiceDesc, impl any) {
	out := *d
	out.Methods, out.Streams = nil, nil
	add := func(s grpc.StreamDesc) {
		next := s.Handler
		info := &grpc.StreamServerInfo{
			FullMethod: "/" + d.ServiceName + "/" + s.StreamName, IsClientStream: s.ClientStreams, IsServerStream: s.ServerStreams,
		}
		s.Handler = func(srv any, stream grpc.ServerStream) error { return r.wrapper.stream(srv, stream, info, next) }
		out.Streams = append(out.Streams, s)
	}
	for _, m := range d.Methods {
		add(grpc.StreamDesc{StreamName: m.MethodName, Handler: func(srv any, stream grpc.ServerStream) error {
			resp, err := m.Handler(srv, stream.Context(), stream.RecvMsg, nil)
			if err != nil {
				return err
			}
			return stream.SendMsg(resp)
		}})
	}
	for _, s := range d.Streams {
		add(s)
	}
	r.Server.RegisterService(&out, impl)
}
