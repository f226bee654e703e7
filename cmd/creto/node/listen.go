package node

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// openListener takes an address, saying what to do when it is taken.
func openListener(name, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", name, err)
	}
	return l, nil
}

func (s *Server) listen() error {
	open := func(l *net.Listener, name, address string) error {
		if *l != nil || address == "" {
			return nil
		}
		var err error
		*l, err = openListener(name, address)
		return err
	}
	if err := errors.Join(
		open(&s.listeners.Peer, "peer", s.cfg.Listen.Peer),
		open(&s.listeners.GRPC, "grpc", s.cfg.Listen.GRPC),
		open(&s.listeners.Read, "read", s.cfg.Listen.Read),
		open(&s.listeners.Metrics, "metrics", s.cfg.Listen.Metrics),
	); err != nil {
		return err
	}
	address := func(l net.Listener) string {
		if l == nil {
			return ""
		}
		return l.Addr().String()
	}
	s.addresses = ListenConfig{
		Peer: address(s.listeners.Peer), GRPC: address(s.listeners.GRPC), Read: address(s.listeners.Read), Metrics: address(s.listeners.Metrics),
	}
	if s.cfg.Listen.Admin == "off" {
		return nil
	}
	var err error
	s.admin, err = listenAdmin(s.cfg.path(s.cfg.Listen.Admin[len("unix:"):]))
	return err
}

// ErrInUse is returned where another process runs in a node's directory.
var ErrInUse = errors.New("another process listens there")

// maxSocketPath is the longest path that every system takes for a socket.
const maxSocketPath = 100

// listenAdmin opens the admin socket, readable and writable by its owner only. A stale one of a dead process is replaced:
// the directory is this node's alone, which consensus's lock on it ensures.
func listenAdmin(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		// Deep directories are common in tests and containers; the path relative to here may do.
		wd, err := os.Getwd()
		if err == nil {
			if rel, err := filepath.Rel(wd, path); err == nil && len(rel) < len(path) {
				path = rel
			}
		}
	}
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("listen for admin: path %s is longer than %d bytes: set listen.admin to a shorter one", path, maxSocketPath)
	}
	if c, err := net.Dial("unix", path); err == nil {
		return nil, errors.Join(fmt.Errorf("listen for admin on %s: %w", path, ErrInUse), c.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen for admin: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for admin: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for admin: %w", err), l.Close())
	}
	return l, nil
}
