package backend

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/creto-systems/creto/sandbox/kind"
)

// Exec is a process that runs a command in a sandbox.
type Exec struct {
	// Cmd is the process that sets up the sandbox. Stdin, Stdout, Stderr and SysProcAttr.Pdeathsig are Run's.
	Cmd *exec.Cmd
	// Cgroup measures the run; nil = there is none, and the resource usage of waited-for processes is taken.
	Cgroup *Cgroup
	// Started is called once the process exists, before it may go on; optional.
	Started func(pid int) error
	// Inner returns, once the process has ended, the process that it left behind for its parent to wait for, 0 = none;
	// optional. Its resource usage is added.
	Inner func() int
	// Kill ends the sandbox beyond killing the process itself; optional.
	Kill func()
	Wall time.Duration
}

// Run runs the process to its end or its limit. An error means that it was not started. The result's exit code is the
// process's own, 128 + signal where a signal ended it.
func (e *Exec) Run(ctx context.Context) (*Result, error) {
	// A parent-death signal is sent when the thread ends that started the process: keep it until the process has ended.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	out := NewOutput()
	cmd := e.Cmd
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr.Setpgid = true
	if e.Inner != nil {
		// Orphans below this process become its own children, so that it sees their end and what they used. Whoever leaves
		// one behind has it waited for below.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return nil, fmt.Errorf("start sandbox: become its reaper: %w", err)
		}
	}
	// Something that escaped the kill may hold the pipe of the output open.
	cmd.WaitDelay = grace

	r := &Result{Started: time.Now(), MeasuredFrom: kind.FromWait4, ExitCode: kind.NoExitCode}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start sandbox: %w", err)
	}
	kill := func() {
		if e.Kill != nil {
			e.Kill()
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if e.Cgroup != nil {
			e.Cgroup.Kill()
		}
	}
	if e.Started != nil {
		if err := e.Started(cmd.Process.Pid); err != nil {
			kill()
			return nil, errors.Join(fmt.Errorf("start sandbox: %w", err), ignoreExit(cmd.Wait()))
		}
	}
	reason := e.watch(ctx, cmd, kill)
	var usage syscall.Rusage
	inner := time.Duration(0)
	if e.Inner != nil {
		if pid := e.Inner(); pid > 0 && reap(pid, &usage) {
			inner = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
		}
	}
	r.Finished = time.Now()
	r.Wall = r.Finished.Sub(r.Started)
	r.Output, r.OutputDigest, r.OutputBytes = out.Result()

	state := cmd.ProcessState
	r.CPU = state.UserTime() + state.SystemTime() + inner
	if u, ok := state.SysUsage().(*syscall.Rusage); ok {
		r.MemoryPeak = uint64(max(u.Maxrss, usage.Maxrss)) << 10
	}
	full := false
	if e.Cgroup != nil {
		if s, err := e.Cgroup.Sample(); err == nil {
			r.CPU, r.MemoryPeak, r.MeasuredFrom, full = s.CPU, s.MemoryPeak, s.From, s.MemoryFull
		}
	}
	code := int64(state.ExitCode())
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		code = 128 + int64(ws.Signal())
	}
	switch {
	case reason != "":
		r.Status, r.Reason = kind.Killed, reason
	case full && code == 128+int64(syscall.SIGKILL):
		r.Status, r.Reason = kind.Killed, ReasonMemory
	default:
		r.Status, r.ExitCode = kind.Finished, code
	}
	return r, nil
}

// watch waits for the process and says why it had to kill it.
func (e *Exec) watch(ctx context.Context, cmd *exec.Cmd, kill func()) (reason string) {
	done := make(chan struct{})
	killed := make(chan string, 1)
	go func() {
		timer := time.NewTimer(e.Wall)
		defer timer.Stop()
		why := ""
		select {
		case <-done:
		case <-timer.C:
			why = ReasonWall
		case <-ctx.Done():
			why = ReasonCancel
		}
		if why != "" {
			kill()
		}
		killed <- why
	}()
	// The error says how the process ended, which its state says too.
	_ = cmd.Wait()
	close(done)
	reason = <-killed
	// Both may have happened at once: a process that ended by itself was not killed.
	if state := cmd.ProcessState; reason != "" && state != nil && state.Exited() {
		if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.ExitStatus() < 128 {
			return ""
		}
	}
	return reason
}

// reap waits for a child that nobody else waits for. It is killed already, or about to end: its parent has ended.
func reap(pid int, u *syscall.Rusage) bool {
	for deadline := time.Now().Add(grace); ; time.Sleep(time.Millisecond) {
		switch got, err := syscall.Wait4(pid, nil, syscall.WNOHANG, u); {
		case got == pid:
			return true
		case err != nil && !errors.Is(err, syscall.EINTR), time.Now().After(deadline):
			return false
		}
	}
}

func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

// Gate starts a program stopped: Command is what to start, and Open lets it go on. Between the two the process can be put
// into a control group before it has children.
type Gate struct {
	r, w *os.File
}

// NewGate returns a closed gate.
func NewGate() (*Gate, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make gate: %w", err)
	}
	return &Gate{r, w}, nil
}

// Command returns a command that waits at the gate and then becomes args[0].
func (g *Gate) Command(args ...string) *exec.Cmd {
	cmd := exec.Command("/bin/sh", append([]string{"-c", `read -r go <&3 && exec "$@" 3<&-`, "sh"}, args...)...)
	cmd.ExtraFiles = []*os.File{g.r}
	return cmd
}

// Open lets the process go on.
func (g *Gate) Open() error {
	if _, err := g.w.WriteString("go\n"); err != nil {
		return fmt.Errorf("open gate: %w", err)
	}
	return nil
}

// Close releases the gate; a process still waiting ends.
func (g *Gate) Close() error { return errors.Join(g.r.Close(), g.w.Close()) }
