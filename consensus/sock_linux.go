package consensus

import (
	"net"
	"syscall"
	"time"
)

// tcpUserTimeout is TCP_USER_TIMEOUT: how long sent data may stay unacknowledged before the connection is dropped.
const tcpUserTimeout = 18

// tune makes a dead peer noticed in seconds: by keepalive when idle, by the user timeout when data is under way.
func tune(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	keepalive(t)
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	// Without the option the connection works; the deadlines of single requests still hold.
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(10*time.Second/time.Millisecond))
	})
}
