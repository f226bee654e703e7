package consensus

import (
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

func keepalive(t *net.TCPConn) {
	_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3})
}

// MemNetwork connects nodes of one process without sockets, for tests. A node's address on it is its id.
type MemNetwork struct {
	// mu guards what follows.
	mu    sync.Mutex
	nodes map[string]*raft.InmemTransport
	cut   map[string]bool
}

// NewMemNetwork returns a network on which every node reaches every other.
func NewMemNetwork() *MemNetwork {
	return &MemNetwork{nodes: make(map[string]*raft.InmemTransport), cut: make(map[string]bool)}
}

// join adds or replaces a node.
func (m *MemNetwork) join(id string) *raft.InmemTransport {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, t := raft.NewInmemTransport(raft.ServerAddress(id))
	m.nodes[id] = t
	m.wire()
	return t
}

// Isolate cuts a node off from all others, or brings it back.
func (m *MemNetwork) Isolate(id string, off bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut[id] = off
	m.wire()
}

// wire makes the transports' routes agree with cut.
func (m *MemNetwork) wire() {
	for a, ta := range m.nodes {
		for b, tb := range m.nodes {
			if a == b {
				continue
			}
			if m.cut[a] || m.cut[b] {
				ta.Disconnect(raft.ServerAddress(b))
			} else {
				ta.Connect(raft.ServerAddress(b), tb)
			}
		}
	}
}
