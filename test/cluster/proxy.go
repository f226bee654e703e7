package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// network forwards connections between nodes and can cut them. Each listener of each node has one address of the network in
// front of it; which node a connection comes from is found by the process that owns its other end.
type network struct {
	pids func() map[int]int // pid → node

	mu     sync.Mutex
	cut    map[[2]int]bool // guarded by mu; from → to: bytes of from no longer reach to
	conns  map[*link]bool  // guarded by mu
	lis    []net.Listener
	closed bool // guarded by mu
	wg     sync.WaitGroup
}

type link struct {
	from, to int // nodes; from is −1 for anybody who is no node
	a, b     net.Conn
}

func newNetwork(pids func() map[int]int) *network {
	return &network{pids: pids, cut: make(map[[2]int]bool), conns: make(map[*link]bool)}
}

// listen returns an address that leads to target, a listener of node to.
func (n *network) listen(to int, target string) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("open proxy: %w", err)
	}
	n.lis = append(n.lis, l)
	// Both goroutines below end when close closes listeners and connections; it waits for them.
	n.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n.wg.Go(func() { n.forward(c, to, target) })
		}
	})
	return l.Addr().String(), nil
}

func (n *network) forward(c net.Conn, to int, target string) {
	from := n.owner(c.RemoteAddr())
	t, err := net.Dial("tcp", target)
	if err != nil {
		c.Close()
		return
	}
	k := &link{from: from, to: to, a: c, b: t}
	if !n.add(k) {
		c.Close()
		t.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { n.pump(k, c, t, from, to) })
	both.Go(func() { n.pump(k, t, c, to, from) })
	both.Wait()
	n.mu.Lock()
	delete(n.conns, k)
	n.mu.Unlock()
}

func (n *network) add(k *link) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.cut[[2]int{k.from, k.to}] && n.cut[[2]int{k.to, k.from}] {
		return false
	}
	n.conns[k] = true
	return true
}

// pump copies bytes that x sends to y, and drops them while that direction is cut: what has been dropped makes the connection
// useless, so it is closed when the cut is healed.
func (n *network) pump(k *link, src, dst net.Conn, x, y int) {
	buf := make([]byte, 64<<10)
	dropped := false
	for {
		m, err := src.Read(buf)
		if m > 0 {
			n.mu.Lock()
			cut := n.cut[[2]int{x, y}]
			n.mu.Unlock()
			switch {
			case cut:
				dropped = true
			case dropped:
				err = io.ErrUnexpectedEOF
			default:
				if _, werr := dst.Write(buf[:m]); werr != nil {
					err = werr
				}
			}
		}
		if err != nil {
			k.a.Close()
			k.b.Close()
			return
		}
	}
}

// Cut drops whatever one node sends to another from now on, without closing anything: the network is silent, not broken.
func (n *network) setCut(from, to int, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.cut[[2]int{from, to}]
	n.cut[[2]int{from, to}] = cut
	if was && !cut {
		// Streams that lost bytes cannot go on.
		for k := range n.conns {
			if k.from == from && k.to == to || k.from == to && k.to == from {
				k.a.Close()
				k.b.Close()
			}
		}
	}
}

func (n *network) close() {
	n.mu.Lock()
	n.closed = true
	for k := range n.conns {
		k.a.Close()
		k.b.Close()
	}
	n.mu.Unlock()
	for _, l := range n.lis {
		l.Close()
	}
	n.wg.Wait()
}

// owner returns the node whose process holds the socket with a local address, −1 if none does.
func (n *network) owner(a net.Addr) int {
	inode, err := socketInode(a.(*net.TCPAddr))
	if err != nil {
		return -1
	}
	for pid, node := range n.pids() {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if t, err := os.Readlink(fd); err == nil && t == "socket:["+inode+"]" {
				return node
			}
		}
	}
	return -1
}

var errNoSocket = errors.New("socket is not in /proc/net/tcp")

// socketInode finds the inode of a connected IPv4 socket by its local port.
func socketInode(a *net.TCPAddr) (string, error) {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return "", err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		fields := strings.Fields(s.Text())
		if len(fields) < 10 || fields[3] != "01" { // established
			continue
		}
		_, port, ok := strings.Cut(fields[1], ":")
		if !ok {
			continue
		}
		if p, err := strconv.ParseUint(port, 16, 16); err == nil && int(p) == a.Port {
			return fields[9], nil
		}
	}
	return "", errNoSocket
}
