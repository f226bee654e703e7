package backend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/sandbox/kind"
)

// Bounds of one run.
const (
	MaxOutput   = 64 << 10 // bytes of output that are kept
	DefaultPids = kind.MaxProcesses

	// grace is how long the remains of a run are waited for after its main process has ended or was killed.
	grace = 5 * time.Second
)

// Reasons in reports of runs that were ended at a limit.
const (
	ReasonWall   = "wall limit"
	ReasonMemory = "memory limit"
	ReasonCancel = "node is stopping"
)

// Errors of backends.
var (
	ErrUnavailable = errors.New("backend cannot isolate on this machine")
	ErrNoProgram   = errors.New("program is not in the template")
)

// Spec is one run.
type Spec struct {
	Name    string   // of the run, unique on this machine: [a-z0-9-]{1,64}
	Rootfs  string   // staged copy of the template
	Command []string // program and arguments, as in the claim
	Wall    time.Duration
	Memory  uint64 // bytes
	Pids    int    // processes and threads at one time; 0 = DefaultPids
	Slot    int    // which of the node's places the run takes, from 0: runs at the same time have different ones
}

// Result is how a run went. The command was started.
type Result struct {
	Status   kind.Status // Finished or Killed
	Reason   string      // why it was killed
	ExitCode int64       // kind.NoExitCode unless finished

	Output       []byte // the first MaxOutput bytes of stdout and stderr, as they came
	OutputDigest nhi.Digest
	OutputBytes  uint64 // all of them

	Started, Finished time.Time
	Wall              time.Duration
	CPU               time.Duration // of all processes
	MemoryPeak        uint64        // bytes; 0 = not measured
	MeasuredFrom      string        // kind.FromCgroup1, kind.FromCgroup2 or kind.FromWait4
}

// Backend isolates runs. Implementations are safe for concurrent use.
type Backend interface {
	// Name and Version say what isolates; Version is known after Probe.
	Name() string
	Version() string
	// Class is how strongly.
	Class() kind.Class
	// Probe runs something in a sandbox. Its error says why that does not work here and matches ErrUnavailable.
	Probe(ctx context.Context) error
	// Run runs one command to its end. Where ctx ends first, the run is killed and that is its result. An error means that
	// the command was not started.
	Run(ctx context.Context, s Spec) (*Result, error)
}

// Environment is what every command is started with: nothing of the node's own.
func Environment() []string {
	return []string{"HOME=/tmp", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=/tmp"}
}

// CheckProgram reports whether the program of a command is a file in the root file system. Symbolic links that lead out of it
// are not followed; absolute ones are read as the sandbox will read them.
func CheckProgram(rootfs string, command []string) error {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return fmt.Errorf("open root file system: %w", err)
	}
	defer root.Close()
	path := strings.TrimPrefix(command[0], "/")
	for range 16 {
		if path == "" {
			path = "."
		}
		info, err := root.Lstat(path)
		if err != nil {
			// A folder on the way may be an absolute link, which os.Root does not follow; the sandbox will.
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%w: %q", ErrNoProgram, command[0])
			}
			return nil
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			if !info.Mode().IsRegular() {
				return fmt.Errorf("%w: %q is not a file", ErrNoProgram, command[0])
			}
			return nil
		}
		target, err := root.Readlink(path)
		if err != nil || !strings.HasPrefix(target, "/") {
			return nil
		}
		path = strings.TrimPrefix(target, "/")
	}
	return fmt.Errorf("%w: %q is a loop of links", ErrNoProgram, command[0])
}
