//go:build !unix

package node

import (
	"fmt"
	"io"
	"runtime"
)

// lockFile refuses: sandboxes need Linux, and a spool that two processes may write is none.
func lockFile(string) (io.Closer, error) {
	return nil, fmt.Errorf("sandbox nodes need Linux, this is %s", runtime.GOOS)
}

func syncDir(string) error { return nil }
