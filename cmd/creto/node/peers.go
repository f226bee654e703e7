package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/spiffe"
)

// addressHeader is the metadata key under which nodes tell one another their gRPC address. It is believed only under the
// SVID of the node it is about.
const addressHeader = "creto-node-grpc"

// maxPeers bounds the address book.
const maxPeers = 64

// book knows which node is reached where. What nodes say about themselves is kept in a file, so that a restarted node finds
// those that have joined since its configuration was written.
type book struct {
	path string

	mu   sync.Mutex
	grpc map[nhi.ID]string // guarded by mu
	peer map[nhi.ID]string // guarded by mu; overrides of Raft addresses
}

func openBook(path string, peers []PeerConfig) (*book, error) {
	b := &book{path: path, grpc: make(map[nhi.ID]string), peer: make(map[nhi.ID]string)}
	raw, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("load addresses: %w", err)
	default:
		// It is a cache: one that cannot be read is learned again.
		var known map[nhi.ID]string
		if json.Unmarshal(raw, &known) == nil && len(known) <= maxPeers {
			for id, a := range known {
				b.grpc[id] = a
			}
		}
	}
	for _, p := range peers {
		if p.GRPC != "" {
			b.grpc[p.ID] = p.GRPC
		}
		if p.Peer != "" {
			b.peer[p.ID] = p.Peer
		}
	}
	return b, nil
}

// address returns the gRPC address of a node, empty if it is not known.
func (b *book) address(id nhi.ID) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.grpc[id]
}

// resolve returns the Raft address of a node that the configuration overrides, otherwise the given one.
func (b *book) resolve(id, address string) string {
	n, err := nhi.ParseID(id)
	if err != nil {
		return address
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.peer[n]; a != "" {
		return a
	}
	return address
}

// learn keeps what a node has said about itself.
func (b *book) learn(id nhi.ID, address string) error {
	if _, _, err := net.SplitHostPort(address); err != nil || len(address) > 255 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.grpc[id] == address || b.grpc[id] == "" && len(b.grpc) >= maxPeers {
		return nil
	}
	b.grpc[id] = address
	raw, err := json.Marshal(b.grpc)
	if err != nil {
		return fmt.Errorf("keep addresses: %w", err)
	}
	return replaceFile(b.path, raw, 0o600)
}

// known returns all gRPC addresses.
func (b *book) known() map[nhi.ID]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[nhi.ID]string, len(b.grpc))
	for id, a := range b.grpc {
		out[id] = a
	}
	return out
}

// conns are the gRPC connections to other nodes, one each, made when first used.
type conns struct {
	source      *spiffe.Source
	trustDomain string
	own         string // this node's gRPC address, told with every call
	book        *book

	mu     sync.Mutex
	byID   map[nhi.ID]conn // guarded by mu
	closed bool            // guarded by mu
}

type conn struct {
	*grpc.ClientConn
	address string
}

var errNoAddress = errors.New("node's gRPC address is not known")

// to returns the connection to a node. A node whose address has changed gets a new one.
func (c *conns) to(id nhi.ID) (*grpc.ClientConn, error) {
	address := c.book.address(id)
	if address == "" {
		return nil, fmt.Errorf("%w: %s", errNoAddress, id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.New("connections are closed")
	}
	old, ok := c.byID[id]
	if ok && old.address == address {
		return old.ClientConn, nil
	}
	want := systemPrincipal(c.trustDomain, spiffe.RoleNode, id)
	tls := spiffe.ClientTLS(c.source, func(p spiffe.Principal) error {
		if p != want {
			return fmt.Errorf("%w: %s instead of node %s", spiffe.ErrNotAuthorized, p, id)
		}
		return nil
	})
	own := c.own
	cc, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(tls)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(metadata.AppendToOutgoingContext(ctx, addressHeader, own), method, req, reply, cc, opts...)
		}))
	if err != nil {
		return nil, fmt.Errorf("connect to node %s: %w", id, err)
	}
	if ok {
		_ = old.Close() // calls under way on the old address fail and are repeated
	}
	c.byID[id] = conn{cc, address}
	return cc, nil
}

func (c *conns) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var errs []error
	for _, cc := range c.byID {
		errs = append(errs, cc.Close())
	}
	clear(c.byID)
	return errors.Join(errs...)
}
