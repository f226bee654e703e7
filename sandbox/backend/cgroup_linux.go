package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/creto-systems/creto/sandbox/kind"
)

// CgroupRoot is where control groups are mounted.
const CgroupRoot = "/sys/fs/cgroup"

// cgroupParent is the group below which every run has its own.
const cgroupParent = "creto"

// Cgroup is the control group of one run: it bounds memory and processes and measures CPU time and the peak of memory. It
// belongs to one goroutine.
type Cgroup struct {
	name string
	from string // kind.FromCgroup1 or kind.FromCgroup2
	// group folders by controller; with version 2 there is one, under "".
	dirs   map[string]string
	root   string
	memory uint64 // limit
}

// v1Controllers are those that a run's group needs with version 1.
var v1Controllers = []string{"cpuacct", "memory", "pids"}

// NewCgroup makes the control group of a run. The error says why there is none: usually the folders are not writable.
func NewCgroup(name string, memory uint64, pids int) (*Cgroup, error) {
	return newCgroup(CgroupRoot, name, memory, pids)
}

func newCgroup(root, name string, memory uint64, pids int) (*Cgroup, error) {
	if !validName(name) {
		return nil, fmt.Errorf("control group: bad name %q", name)
	}
	g := &Cgroup{name: name, root: root, memory: memory, dirs: make(map[string]string)}
	var err error
	if _, serr := os.Stat(filepath.Join(root, "cgroup.controllers")); serr == nil {
		g.from = kind.FromCgroup2
		err = g.make2(memory, pids)
	} else {
		g.from = kind.FromCgroup1
		err = g.make1(memory, pids)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make control group: %w", err), g.rmdir())
	}
	return g, nil
}

func (g *Cgroup) make1(memory uint64, pids int) error {
	for _, c := range v1Controllers {
		dir := filepath.Join(g.root, c, cgroupParent, g.name)
		if _, err := os.Stat(filepath.Join(g.root, c)); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		g.dirs[c] = dir
	}
	if err := g.write("memory", "memory.limit_in_bytes", strconv.FormatUint(memory, 10)); err != nil {
		return err
	}
	// Without swap accounting in the kernel the file is not there, and neither is swap counted.
	if err := g.write("memory", "memory.memsw.limit_in_bytes", strconv.FormatUint(memory, 10)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return g.write("pids", "pids.max", strconv.Itoa(pids))
}

func (g *Cgroup) make2(memory uint64, pids int) error {
	parent := filepath.Join(g.root, cgroupParent)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	for _, dir := range []string{g.root, parent} {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+cpu +memory +pids"), 0); err != nil {
			return err
		}
	}
	g.dirs[""] = filepath.Join(parent, g.name)
	if err := os.MkdirAll(g.dirs[""], 0o755); err != nil {
		return err
	}
	if err := g.write("", "memory.max", strconv.FormatUint(memory, 10)); err != nil {
		return err
	}
	if err := g.write("", "memory.swap.max", "0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return g.write("", "pids.max", strconv.Itoa(pids))
}

func (g *Cgroup) write(controller, file, value string) error {
	return os.WriteFile(filepath.Join(g.dirs[controller], file), []byte(value), 0)
}

// Path is the group as OCI runtimes name it, with one more level below, which they make and remove: its parent keeps the
// counters.
func (g *Cgroup) Path() string { return "/" + cgroupParent + "/" + g.name + "/run" }

// Add moves a process into the group; what it starts from then on is in it too.
func (g *Cgroup) Add(pid int) error {
	for _, dir := range g.dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("join control group: %w", err)
		}
	}
	return nil
}

// Sample is what a group has counted.
type Sample struct {
	CPU        time.Duration
	MemoryPeak uint64
	MemoryFull bool // the memory limit was hit
	From       string
}

// Sample reads the counters, those of processes that have ended included.
func (g *Cgroup) Sample() (Sample, error) {
	s := Sample{From: g.from}
	if g.from == kind.FromCgroup2 {
		cpu, err := g.field("", "cpu.stat", "usage_usec")
		if err != nil {
			return s, err
		}
		if s.MemoryPeak, err = g.number("", "memory.peak"); err != nil {
			return s, err
		}
		kills, err := g.field("", "memory.events", "oom_kill")
		s.CPU, s.MemoryFull = time.Duration(cpu)*time.Microsecond, kills > 0
		return s, err
	}
	cpu, err := g.number("cpuacct", "cpuacct.usage")
	if err != nil {
		return s, err
	}
	if s.MemoryPeak, err = g.number("memory", "memory.max_usage_in_bytes"); err != nil {
		return s, err
	}
	// With version 1 an OOM kill is counted in the victim's group alone, which an OCI runtime has removed by now. That the
	// peak came to the limit tells it too: together with a death by SIGKILL.
	kills, err := g.field("memory", "memory.oom_control", "oom_kill")
	s.CPU, s.MemoryFull = time.Duration(cpu), kills > 0 || s.MemoryPeak+(64<<10) >= g.memory
	return s, err
}

func (g *Cgroup) number(controller, file string) (uint64, error) {
	b, err := os.ReadFile(filepath.Join(g.dirs[controller], file))
	if err != nil {
		return 0, fmt.Errorf("read control group: %w", err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read control group: %s: %w", file, err)
	}
	return n, nil
}

func (g *Cgroup) field(controller, file, name string) (uint64, error) {
	b, err := os.ReadFile(filepath.Join(g.dirs[controller], file))
	if err != nil {
		return 0, fmt.Errorf("read control group: %w", err)
	}
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) == 2 && f[0] == name {
			n, err := strconv.ParseUint(f[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read control group: %s: %w", file, err)
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("read control group: %s has no %s", file, name)
}

// Kill kills every process in the group and the groups below it.
func (g *Cgroup) Kill() {
	for _, dir := range g.dirs {
		if os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) == nil {
			return
		}
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil
			}
			b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			if err != nil {
				return nil
			}
			for _, f := range strings.Fields(string(b)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
			return nil
		})
		return
	}
}

// Close kills what is left in the group and removes it. Processes that were killed take a moment to go; ctx bounds the wait.
func (g *Cgroup) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	for {
		err := g.rmdir()
		if err == nil {
			return nil
		}
		g.Kill()
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove control group: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// rmdir removes the group's folders; an OCI runtime may have made more of them, one for each controller.
func (g *Cgroup) rmdir() error {
	dirs := make([]string, 0, len(g.dirs)+8)
	for _, d := range g.dirs {
		dirs = append(dirs, d)
	}
	if g.from == kind.FromCgroup1 {
		more, _ := filepath.Glob(filepath.Join(g.root, "*", cgroupParent, g.name))
		dirs = append(dirs, more...)
	}
	var errs []error
	for _, d := range dirs {
		for _, d := range []string{filepath.Join(d, "run"), d} {
			if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Sweep kills and removes the control groups of runs whose names begin with prefix: those that a node which was killed has
// left behind.
func Sweep(ctx context.Context, prefix string) error { return sweep(ctx, CgroupRoot, prefix) }

func sweep(ctx context.Context, root, prefix string) error {
	if strings.Trim(prefix, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("sweep control groups: bad prefix %q", prefix)
	}
	var errs []error
	one, err1 := filepath.Glob(filepath.Join(root, v1Controllers[0], cgroupParent, prefix+"*"))
	two, err2 := filepath.Glob(filepath.Join(root, cgroupParent, prefix+"*"))
	errs = append(errs, err1, err2)
	for _, dir := range one {
		g := &Cgroup{name: filepath.Base(dir), root: root, from: kind.FromCgroup1, dirs: map[string]string{v1Controllers[0]: dir}}
		errs = append(errs, g.Close(ctx))
	}
	for _, dir := range two {
		g := &Cgroup{name: filepath.Base(dir), root: root, from: kind.FromCgroup2, dirs: map[string]string{"": dir}}
		errs = append(errs, g.Close(ctx))
	}
	return errors.Join(errs...)
}
