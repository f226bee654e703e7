package backend

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/creto-systems/creto/sandbox/kind"
)

// probeCode makes a program that does nothing but end with exit code ProbeExit: exit_group(42).
var probeCode = map[string]struct {
	machine uint16
	code    []byte
}{
	"amd64": {62, []byte{0xbf, 42, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05}},
	"arm64": {183, []byte{0x40, 0x05, 0x80, 0xd2, 0xc8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4}},
}

// What a probe runs: the program in the root file system that ProbeRootfs makes, and the exit code that shows it ran.
const (
	ProbeProgram = "/probe"
	ProbeExit    = 42
)

// ProbeRootfs makes a root file system with one program of about 130 bytes that needs nothing else, so that a backend can
// show that it starts something. remove deletes it.
func ProbeRootfs() (dir string, remove func() error, err error) {
	p, ok := probeCode[runtime.GOARCH]
	if !ok {
		return "", nil, fmt.Errorf("%w: no probe for %s", ErrUnavailable, runtime.GOARCH)
	}
	dir, err = os.MkdirTemp("", "creto-probe-")
	if err != nil {
		return "", nil, fmt.Errorf("make probe: %w", err)
	}
	remove = func() error { return os.RemoveAll(dir) }
	err = os.Chmod(dir, 0o755)
	for _, m := range mountPoints {
		err = errors.Join(err, os.Mkdir(filepath.Join(dir, m), 0o755))
	}
	file := filepath.Join(dir, ProbeProgram)
	if err = errors.Join(err, os.WriteFile(file, elf(p.machine, p.code), 0o755), os.Chmod(file, 0o755)); err != nil {
		return "", nil, errors.Join(fmt.Errorf("make probe: %w", err), remove())
	}
	return dir, remove, nil
}

// RunProbe runs the probe in b.
func RunProbe(ctx context.Context, b Backend) (err error) {
	dir, remove, err := ProbeRootfs()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	r, err := b.Run(ctx, Spec{
		Name: fmt.Sprintf("probe-%d", os.Getpid()), Rootfs: dir, Command: []string{ProbeProgram}, Wall: 20 * time.Second, Memory: 64 << 20,
	})
	if err != nil {
		return fmt.Errorf("run probe: %w", err)
	}
	if r.Status != kind.Finished || r.ExitCode != ProbeExit {
		return fmt.Errorf("run probe: %s with exit code %d, want %d: %s %s", r.Status, r.ExitCode, ProbeExit, r.Reason, strings.TrimSpace(string(r.Output)))
	}
	return nil
}

// elf wraps code into a 64-bit little-endian ELF file with one segment.
func elf(machine uint16, code []byte) []byte {
	const (
		headers = 64 + 56
		base    = 0x400000
	)
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01")
	b.Write(make([]byte, 9))
	size := uint64(headers + len(code))
	for _, v := range []any{
		// ELF header: executable, machine, version, entry, program headers, no section headers.
		uint16(2), machine, uint32(1), uint64(base + headers), uint64(64), uint64(0), uint32(0), uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0),
		// Program header: load, read and execute.
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), size, size, uint64(0x1000),
	} {
		// Fixed-size integers into memory: neither can fail.
		_ = binary.Write(&b, binary.LittleEndian, v)
	}
	b.Write(code)
	return b.Bytes()
}
