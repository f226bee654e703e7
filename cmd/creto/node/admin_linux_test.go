package node

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The admin socket opens to its owner only: it has all rights and asks for no certificate.
func TestAdminSocketIsItsOwners(t *testing.T) {
	// Everybody may enter the directories above, so that it is the socket's own mode that decides.
	dir, err := os.MkdirTemp("", "creto-admin-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "admin.sock")
	l, err := listenAdmin(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: got %v, %v, want mode 0600", info.Mode(), err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("its owner: %v", err)
	} else {
		_ = c.Close()
	}
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("only root can try as somebody else")
		}
		t.Skip("only root can try as somebody else")
	}
	refused := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Setfsuid(65534); err != nil {
			refused <- err
			return
		}
		c, err := net.Dial("unix", path)
		if err == nil {
			_ = c.Close()
		}
		refused <- err
	}()
	if err := <-refused; !errors.Is(err, syscall.EACCES) {
		t.Errorf("another user: got %v, want permission denied", err)
	}
}
