//go:build !unix

package consensus

import (
	"fmt"
	"os"
	"path/filepath"
)

// lockDir opens the lock file; on this system the metadata file of the log is what keeps a second process out.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock log directory: %w", err)
	}
	return f, nil
}
