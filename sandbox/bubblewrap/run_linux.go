package bubblewrap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/creto-systems/creto/sandbox/backend"
	"github.com/creto-systems/creto/sandbox/kind"
)

// maxStatus bounds what bwrap says about itself.
const maxStatus = 16 << 10

// Probe finds the version of bwrap and runs a program in a sandbox: it shows that the kernel lets this process make the
// namespaces.
func (b *Backend) Probe(ctx context.Context) error {
	path, err := exec.LookPath(b.cfg.Program)
	if err != nil {
		return fmt.Errorf("%w: %w (Debian: apt-get install bubblewrap)", backend.ErrUnavailable, err)
	}
	if _, err := exec.LookPath("prlimit"); err != nil {
		return fmt.Errorf("%w: %w (Debian: apt-get install util-linux)", backend.ErrUnavailable, err)
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return fmt.Errorf("%w: run %s: %w", backend.ErrUnavailable, path, err)
	}
	b.cfg.Program = path
	b.version = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(string(out)), "bubblewrap"))
	if err := backend.RunProbe(ctx, b); err != nil {
		return fmt.Errorf("%w: %w", backend.ErrUnavailable, err)
	}
	return nil
}

// Run runs one command.
func (b *Backend) Run(ctx context.Context, s backend.Spec) (_ *backend.Result, err error) {
	if err := backend.CheckProgram(s.Rootfs, s.Command); err != nil {
		return nil, err
	}
	if s.Pids == 0 {
		s.Pids = backend.DefaultPids
	}
	var group *backend.Cgroup
	if !b.cfg.NoCgroup {
		// Without one the run is bounded by resource limits and measured by wait4, which its report says.
		if group, err = backend.NewCgroup(s.Name, s.Memory, s.Pids); err != nil {
			group = nil
		} else {
			defer func() { err = errors.Join(err, group.Close(context.WithoutCancel(ctx))) }()
		}
	}
	gate, err := backend.NewGate()
	if err != nil {
		return nil, err
	}
	defer gate.Close()
	filter, err := backend.SeccompFile()
	if err != nil {
		return nil, err
	}
	defer filter.Close()
	statusR, statusW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make status pipe: %w", err)
	}
	defer statusR.Close()

	root := os.Geteuid() == 0
	pids := s.Pids + 2 // bwrap itself, outside and inside
	if !root {
		pids += countProcesses(os.Getuid())
	}
	// Descriptors: 3 is the gate's, then these.
	limits := []string{"prlimit", "--nproc=" + strconv.Itoa(pids), "--core=0", "--nofile=1024:1024"}
	if group == nil {
		// Each process by itself, which is weaker than the group's limit for all of them.
		limits = append(limits, "--data="+strconv.FormatUint(s.Memory, 10))
	}
	cmd := gate.Command(append(limits, b.args(s, 4, 5)...)...)
	cmd.ExtraFiles = append(cmd.ExtraFiles, filter, statusW)
	cmd.Dir = "/"
	cmd.Env = backend.Environment()
	if root {
		id := uint32(b.cfg.UIDBase + s.Slot)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	}
	var said status
	x := backend.Exec{Cmd: cmd, Cgroup: group, Wall: s.Wall, Started: func(pid int) error {
		if err := statusW.Close(); err != nil {
			return err
		}
		if group != nil {
			if err := group.Add(pid); err != nil {
				return err
			}
		}
		return gate.Open()
	}, Inner: func() int {
		said = readStatus(statusR)
		return said.pid
	}}
	r, err := x.Run(ctx)
	if err != nil {
		return nil, errors.Join(err, ignoreClosed(statusW.Close()))
	}
	if r.Status == kind.Finished && !said.ended {
		return nil, fmt.Errorf("set up sandbox: %s", firstLine(r.Output))
	}
	return r, nil
}

func (b *Backend) args(s backend.Spec, filterFD, statusFD int) []string {
	a := []string{
		b.cfg.Program, "--unshare-all", "--die-with-parent", "--new-session", "--clearenv",
		"--uid", insideID, "--gid", insideID, "--hostname", "sandbox", "--cap-drop", "ALL",
		"--ro-bind", filepath.Clean(s.Rootfs), "/", "--proc", "/proc", "--dev", "/dev",
		"--size", strconv.FormatUint(s.Memory, 10), "--tmpfs", "/tmp", "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/",
		"--seccomp", strconv.Itoa(filterFD), "--json-status-fd", strconv.Itoa(statusFD),
	}
	for _, e := range backend.Environment() {
		name, value, _ := strings.Cut(e, "=")
		a = append(a, "--setenv", name, value)
	}
	return append(append(a, "--"), s.Command...)
}

// status is what bwrap says about itself: one JSON object when the sandbox's first process exists, and one with the exit code
// when the command has ended, which does not come if the sandbox could not be set up.
type status struct {
	pid   int // of the sandbox's first process, which bwrap does not wait for
	ended bool
}

func readStatus(f *os.File) (s status) {
	if f.SetReadDeadline(time.Now().Add(time.Second)) != nil {
		return s
	}
	for d := json.NewDecoder(io.LimitReader(f, maxStatus)); ; {
		var o struct {
			PID  int  `json:"child-pid"`
			Exit *int `json:"exit-code"`
		}
		if d.Decode(&o) != nil {
			return s
		}
		if o.PID != 0 {
			s.pid = o.PID
		}
		s.ended = s.ended || o.Exit != nil
	}
}

// countProcesses counts the tasks of a user, which the limit on processes counts too.
func countProcesses(uid int) int {
	n := 0
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		info, err := os.Stat(d)
		if err != nil {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == uid {
			tasks, _ := os.ReadDir(filepath.Join(d, "task"))
			n += max(1, len(tasks))
		}
	}
	return n
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

func firstLine(b []byte) string {
	s, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	if len(s) > 200 {
		s = s[:200]
	}
	if s == "" {
		return "bwrap ended without a word"
	}
	return s
}
