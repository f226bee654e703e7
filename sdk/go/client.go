package creto

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/nhi/spiffe"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// Bounds of a client.
const (
	DefaultAttempts       = 12
	DefaultAttemptTimeout = 15 * time.Second // of one attempt of a call that does not wait for anything
	maxMessage            = 8 << 20          // bytes of one answer
	minBackoff            = 50 * time.Millisecond
	maxBackoff            = 2 * time.Second
)

// Options say how to reach a cluster and as whom. Addrs and CA (or Source) are required.
type Options struct {
	// Addrs are gRPC addresses, host:port, of any of the nodes. Calls go to one of them and move on to the next when it does
	// not answer.
	Addrs []string
	// CA is the file with the cluster's trust bundle, PEM. CAPEM is its content, for callers that have it already.
	CA    string
	CAPEM []byte
	// Cert and Key are the files of the caller's SVID: needed for what operators do, not for signed events.
	Cert, Key string
	// Source has SVID and bundle instead of the files above, for programs that renew them while they run.
	Source *spiffe.Source
	// Token is the tenant's read token. A caller with neither token nor SVID can see no tenant.
	Token string
	// Attempts is how often a call is tried; 0 = DefaultAttempts. The context's deadline ends them in any case.
	Attempts int
	// AttemptTimeout bounds one attempt; 0 = DefaultAttemptTimeout.
	AttemptTimeout time.Duration
	// Now is the clock that certificates are checked with; nil = time.Now.
	Now func() time.Time
}

// Client is a connection to a cluster. It is a grpc.ClientConnInterface, so the generated clients work over it, with
// failover and retries: cretov1.NewMeterServiceClient(client). It is safe for concurrent use.
type Client struct {
	conns    []*grpc.ClientConn
	current  atomic.Uint32
	token    string
	attempts int
	timeout  time.Duration

	closing sync.Once
	closed  error
}

var _ grpc.ClientConnInterface = (*Client)(nil)

// once are the methods that must not be repeated when their answer is lost: they are neither reads nor identified by an id.
var once = map[string]bool{
	cretov1.ClusterService_Join_FullMethodName:               true,
	cretov1.ClusterService_ChangeMember_FullMethodName:       true,
	cretov1.ClusterService_TransferLeadership_FullMethodName: true,
	cretov1.ClusterService_SetClock_FullMethodName:           true,
}

// patient are the methods that hold a call for as long as the request says.
var patient = map[string]bool{
	cretov1.OversightService_AwaitApproval_FullMethodName: true,
	cretov1.SandboxService_AwaitSandbox_FullMethodName:    true,
	cretov1.ClusterService_Join_FullMethodName:            true,
	cretov1.ClusterService_ChangeMember_FullMethodName:    true,
	cretov1.LedgerService_GetProof_FullMethodName:         true,
}

// Dial prepares connections to a cluster; the first call makes them. It fails only on options that can never work.
func Dial(_ context.Context, o Options) (*Client, error) {
	if len(o.Addrs) == 0 {
		return nil, errors.New("dial: no address")
	}
	tlsConfig, err := o.credentials()
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	c := &Client{token: o.Token, attempts: o.Attempts, timeout: o.AttemptTimeout}
	if c.attempts <= 0 {
		c.attempts = DefaultAttempts
	}
	if c.timeout <= 0 {
		c.timeout = DefaultAttemptTimeout
	}
	for _, a := range o.Addrs {
		conn, err := grpc.NewClient("passthrough:///"+a,
			grpc.WithTransportCredentials(tlsConfig),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 5 * time.Second}),
		)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("dial %s: %w", a, err), c.Close())
		}
		c.conns = append(c.conns, conn)
	}
	return c, nil
}

func (o *Options) credentials() (credentials.TransportCredentials, error) {
	if o.Source != nil {
		b := o.Source.Bundle()
		if b == nil {
			return nil, spiffe.ErrNoBundle
		}
		return transport(o.Source, b.TrustDomain()), nil
	}
	ca := o.CAPEM
	if len(ca) == 0 {
		if o.CA == "" {
			return nil, errors.New("no trust bundle (CA)")
		}
		var err error
		if ca, err = os.ReadFile(o.CA); err != nil {
			return nil, fmt.Errorf("read trust bundle: %w", err)
		}
	}
	domain, err := trustDomain(ca)
	if err != nil {
		return nil, err
	}
	bundle, err := spiffe.ParseBundle(domain, ca)
	if err != nil {
		return nil, fmt.Errorf("read trust bundle: %w", err)
	}
	var svid *spiffe.SVID
	if o.Cert != "" || o.Key != "" {
		var err error
		if svid, err = spiffe.LoadSVID(spiffe.Files{Cert: o.Cert, Key: o.Key}); err != nil {
			return nil, err
		}
	}
	now := o.Now
	if now == nil {
		now = time.Now
	}
	source, err := spiffe.NewSource(now, svid, bundle)
	if err != nil {
		return nil, err
	}
	return transport(source, domain), nil
}

// transport authenticates servers as nodes of the trust domain, by the bundle of the moment, and presents an SVID if there is
// one.
func transport(source *spiffe.Source, domain string) credentials.TransportCredentials {
	nodes := spiffe.AllowRoles(domain, spiffe.RoleNode)
	if source.SVID() == nil {
		return credentials.NewTLS(spiffe.AnonymousClientTLS(source, nodes))
	}
	return credentials.NewTLS(spiffe.ClientTLS(source, nodes))
}

// trustDomain returns the trust domain that a bundle's first certificate speaks for.
func trustDomain(bundle []byte) (string, error) {
	block, _ := pem.Decode(bundle)
	if block == nil || block.Type != "CERTIFICATE" {
		return "", errors.New("read trust bundle: not a PEM certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("read trust bundle: %w", err)
	}
	if len(cert.URIs) != 1 || cert.URIs[0].Scheme != "spiffe" {
		return "", errors.New("read trust bundle: not the certificate of a SPIFFE trust domain")
	}
	return cert.URIs[0].Host, nil
}

// Close closes the connections.
func (c *Client) Close() error {
	c.closing.Do(func() {
		var errs []error
		for _, conn := range c.conns {
			errs = append(errs, conn.Close())
		}
		c.closed = errors.Join(errs...)
	})
	return c.closed
}

// Target returns the address that calls go to now.
func (c *Client) Target() string {
	_, conn := c.pick()
	return conn.Target()
}

func (c *Client) pick() (uint32, *grpc.ClientConn) {
	i := c.current.Load()
	return i, c.conns[int(i)%len(c.conns)]
}

// moveOn lets later calls go to the next address, unless another call has already moved on from this one.
func (c *Client) moveOn(from uint32) { c.current.CompareAndSwap(from, from+1) }

func (c *Client) outgoing(ctx context.Context) context.Context {
	if c.token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
}

// Invoke makes one call and tries it again while that can help. It implements grpc.ClientConnInterface.
func (c *Client) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	ctx = c.outgoing(ctx)
	attempts := c.attempts
	if once[method] {
		attempts = 1
	}
	for n := 1; ; n++ {
		i, conn := c.pick()
		err := c.attempt(ctx, conn, method, args, reply, opts)
		if err == nil {
			return nil
		}
		delay, again := retryable(ctx, err)
		if !again || n >= attempts {
			return err
		}
		if code := status.Code(err); code != codes.ResourceExhausted {
			c.moveOn(i)
		}
		if wait(ctx, max(delay, backoff(n))) != nil {
			return err
		}
	}
}

func (c *Client) attempt(ctx context.Context, conn *grpc.ClientConn, method string, args, reply any, opts []grpc.CallOption) error {
	if patient[method] {
		return conn.Invoke(ctx, method, args, reply, opts...)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return conn.Invoke(ctx, method, args, reply, opts...)
}

// NewStream opens a stream on the current node, or on the next one that can be reached. A stream that breaks later is the
// caller's to open again. It implements grpc.ClientConnInterface.
func (c *Client) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx = c.outgoing(ctx)
	for n := 1; ; n++ {
		i, conn := c.pick()
		s, err := conn.NewStream(ctx, desc, method, opts...)
		if err == nil {
			return s, nil
		}
		delay, again := retryable(ctx, err)
		if !again || n >= c.attempts {
			return nil, err
		}
		c.moveOn(i)
		if wait(ctx, max(delay, backoff(n))) != nil {
			return nil, err
		}
	}
}

// retryable says whether the same bytes may succeed later, and how long the server asks to wait.
func retryable(ctx context.Context, err error) (delay time.Duration, again bool) {
	if ctx.Err() != nil {
		return 0, false
	}
	st, ok := status.FromError(err)
	if !ok {
		return 0, false
	}
	told := false
	for _, d := range st.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			delay, told = r.GetRetryDelay().AsDuration(), true
		}
	}
	switch st.Code() {
	case codes.Unavailable:
		return delay, true
	case codes.DeadlineExceeded: // of the attempt: ctx itself has not ended
		return delay, true
	case codes.ResourceExhausted: // push-back; without a delay it is a bound that stays
		return delay, told
	}
	return 0, false
}

// backoff grows exponentially and is spread over its upper half, so that clients do not come back all at once.
func backoff(n int) time.Duration {
	d := min(minBackoff<<min(n-1, 10), maxBackoff)
	return d/2 + rand.N(d/2) //nolint:gosec // spread, not a secret
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Submit commits envelopes of one tenant (zero: the system log) and returns one result for each payload, in order. It
// tries again, with the same bytes, until every payload has an answer that will not change; events whose authority changed
// while they were decided are sent again with their envelopes, where those that were already sequenced answer as duplicates.
func (c *Client) Submit(ctx context.Context, r *cretov1.SubmitRequest) ([]*Result, error) {
	rpc := cretov1.NewEventServiceClient(c)
	var out []*Result
	for n := 1; ; n++ {
		resp, err := rpc.Submit(ctx, r)
		if err != nil {
			return nil, err
		}
		if out, err = results(r, resp); err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(out, func(r *Result) bool { return r.State == StateStale }) {
			return out, nil
		}
		if n >= c.attempts {
			return out, nil
		}
		if err := wait(ctx, backoff(n)); err != nil {
			return out, err
		}
	}
}
