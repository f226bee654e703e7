package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/creto-systems/creto/sandbox/backend"
	"github.com/creto-systems/creto/sandbox/kind"
)

// cleanup is how long runc may take to remove a container.
const cleanup = 10 * time.Second

// Probe finds the version of runc and runs a program in a container.
func (b *Backend) Probe(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: runc needs root here", backend.ErrUnavailable)
	}
	path, err := exec.LookPath(b.cfg.Program)
	if err != nil {
		return fmt.Errorf("%w: %w (Debian: apt-get install runc)", backend.ErrUnavailable, err)
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return fmt.Errorf("%w: run %s: %w", backend.ErrUnavailable, path, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	b.cfg.Program = path
	b.version = strings.TrimPrefix(strings.TrimSpace(line), "runc version ")
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
	group, err := backend.NewCgroup(s.Name, s.Memory, s.Pids)
	if err != nil {
		return nil, err
	}
	after := context.WithoutCancel(ctx)
	defer func() { err = errors.Join(err, group.Close(after)) }()
	dir, err := os.MkdirTemp(b.cfg.Dir, "creto-runc-")
	if err != nil {
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cfg, err := b.config(s, group.Path())
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600); err != nil {
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	state, log, pidFile := filepath.Join(dir, "state"), filepath.Join(dir, "log"), filepath.Join(dir, "pid")
	runc := func(ctx context.Context, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, b.cfg.Program, append([]string{"--root", state, "--log", log, "--log-format", "json"}, args...)...)
		cmd.Env = backend.Environment()
		cmd.Dir = "/"
		return cmd
	}
	// The limits of the run are Exec's, so the command itself has no context.
	x := backend.Exec{
		Cmd: runc(after, "run", "--bundle", dir, "--pid-file", pidFile, s.Name), Cgroup: group, Wall: s.Wall,
		// Where runc is killed it leaves the container's first process behind.
		Inner: func() int {
			b, err := os.ReadFile(pidFile)
			if err != nil {
				return 0
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
			if err != nil {
				return 0
			}
			return pid
		},
	}
	r, err := x.Run(ctx)
	failed := logged(log)
	if r == nil || r.Status == kind.Killed || failed != "" {
		// runc removes a container that has ended; this one it may not have got to.
		deleteCtx, cancel := context.WithTimeout(after, cleanup)
		_ = runc(deleteCtx, "delete", "--force", s.Name).Run()
		cancel()
	}
	if err != nil {
		return nil, err
	}
	if r.Status == kind.Finished && failed != "" {
		return nil, fmt.Errorf("set up sandbox: %s", failed)
	}
	return r, nil
}

// logged returns the first error in runc's log: it says "exit status 1" for its own failures as for the command's.
func logged(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(b) {
		var l struct{ Level, Msg string }
		if json.Unmarshal(line, &l) == nil && (l.Level == "error" || l.Level == "fatal") {
			if len(l.Msg) > 200 {
				l.Msg = l.Msg[:200]
			}
			return l.Msg
		}
	}
	return ""
}
