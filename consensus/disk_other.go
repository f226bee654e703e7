//go:build !linux

package consensus

import (
	"errors"
	"os"
)

// diskSpace is not known here: proposals are taken until the disk has no room.
func diskSpace(string) (free, total uint64, err error) { return 0, 0, errors.ErrUnsupported }

// makeBallast makes a file that occupies size bytes.
func makeBallast(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(writeZeros(f, size), f.Close())
}
