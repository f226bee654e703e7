//go:build !linux

package consensus

import "net"

// tune makes a dead peer noticed by keepalive.
func tune(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		keepalive(t)
	}
}
