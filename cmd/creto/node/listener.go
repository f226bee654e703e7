package node

import (
	"container/list"
	"net"
	"sync"
)

// limitListener bounds the open connections of a listener. At the bound, new ones wait in the kernel; a listener that yields
// closes the oldest connection that is not kept instead, so that whoever holds connections without saying who it is cannot
// keep out those who do.
type limitListener struct {
	net.Listener
	yields bool
	slots  chan struct{}
	done   chan struct{}
	once   sync.Once

	mu    sync.Mutex
	conns *list.List // guarded by mu; of *limitConn, oldest first, without those that are kept
}

func newLimitListener(l net.Listener, n int, yields bool) *limitListener {
	return &limitListener{Listener: l, yields: yields, slots: make(chan struct{}, n), done: make(chan struct{}), conns: list.New()}
}

func (l *limitListener) Accept() (net.Conn, error) {
	if !l.yields {
		if !l.slot(nil) {
			return nil, net.ErrClosed
		}
	}
	c, err := l.Listener.Accept()
	if err != nil {
		if !l.yields {
			<-l.slots
		}
		return nil, err
	}
	if l.yields && !l.slot(l.oldest) {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	lc := &limitConn{Conn: c, of: l}
	l.mu.Lock()
	lc.place = l.conns.PushBack(lc)
	l.mu.Unlock()
	return lc, nil
}

// slot waits for a free slot. full, if not nil, returns a connection to close where there is none.
func (l *limitListener) slot(full func() *limitConn) bool {
	for full != nil {
		select {
		case l.slots <- struct{}{}:
			return true
		default:
		}
		c := full()
		if c == nil {
			break
		}
		_ = c.Close() // frees its slot
	}
	select {
	case l.slots <- struct{}{}:
		return true
	case <-l.done:
		return false
	}
}

// oldest returns the oldest connection that is not kept, or nil.
func (l *limitListener) oldest() *limitConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.conns.Front(); e != nil {
		return e.Value.(*limitConn)
	}
	return nil
}

func (l *limitListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

type limitConn struct {
	net.Conn
	of    *limitListener
	once  sync.Once
	place *list.Element // guarded by of.mu; nil when kept or closed
}

// keep says that this connection does not yield to others.
func (c *limitConn) keep() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.place != nil {
		c.of.conns.Remove(c.place)
		c.place = nil
	}
}

func (c *limitConn) Close() error {
	defer c.once.Do(func() {
		c.keep()
		<-c.of.slots
	})
	return c.Conn.Close()
}
