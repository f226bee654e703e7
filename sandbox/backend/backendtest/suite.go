package backendtest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creto-systems/creto/sandbox/backend"
	"github.com/creto-systems/creto/sandbox/kind"
)

// Build compiles a program of this repository, statically, into a root file system of its own and returns the folder, which
// everybody can read, and the program's path in it.
func Build(t testing.TB, pkg string) (rootfs, program string) {
	t.Helper()
	// Not t.TempDir, whose parents only this user may enter.
	dir, err := os.MkdirTemp("", "creto-sandbox-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	src := filepath.Join(dir, "src")
	name := "/" + filepath.Base(pkg)
	if err := errors.Join(os.Chmod(dir, 0o755), os.MkdirAll(filepath.Join(src, "bin"), 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(src, name), pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	rootfs = filepath.Join(dir, "rootfs")
	if _, err := backend.Stage(src, rootfs); err != nil {
		t.Fatal(err)
	}
	return rootfs, name
}

// Ready skips the test where the backend cannot work; in CI that is a failure.
func Ready(t testing.TB, b backend.Backend) {
	t.Helper()
	if err := b.Probe(t.Context()); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s: %v", b.Name(), err)
		}
		t.Skipf("%s: %v", b.Name(), err)
	}
	if b.Version() == "" {
		t.Errorf("%s has no version after a probe", b.Name())
	}
}

type suite struct {
	*testing.T
	b       backend.Backend
	rootfs  string
	program string
	n       *int
}

// Suite holds a backend to what a sandbox is. cgroups says whether runs must be bounded and measured by control groups.
func Suite(t *testing.T, b backend.Backend, cgroups bool) {
	Ready(t, b)
	rootfs, program := Build(t, "github.com/creto-systems/creto/sandbox/backend/backendtest/probe")
	n := 0
	run := func(name string, fn func(s suite)) {
		t.Run(name, func(t *testing.T) { fn(suite{t, b, rootfs, program, &n}) })
	}
	run("Output", suite.output)
	run("ExitCode", suite.exitCode)
	run("NoProgram", suite.noProgram)
	run("WallLimit", suite.wallLimit)
	run("Cancel", suite.cancel)
	run("Inside", suite.inside)
	run("HostFiles", suite.hostFiles)
	run("HostProcesses", suite.hostProcesses)
	run("Network", suite.network)
	run("Privileges", suite.privileges)
	run("MemoryLimit", func(s suite) { s.memoryLimit(cgroups) })
	run("ForkBomb", suite.forkBomb)
	run("TmpIsBounded", suite.tmp)
	run("Measurements", func(s suite) { s.measurements(cgroups) })
	run("NothingStays", suite.nothingStays)
}

func (s suite) spec(args ...string) backend.Spec {
	*s.n++
	return backend.Spec{
		Name: fmt.Sprintf("test-%d-%d", os.Getpid(), *s.n), Rootfs: s.rootfs, Command: append([]string{s.program}, args...),
		Wall: 20 * time.Second, Memory: 128 << 20,
	}
}

func (s suite) run(spec backend.Spec) *backend.Result {
	s.Helper()
	r, err := s.b.Run(s.Context(), spec)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// ask runs one probe and returns what it answers.
func (s suite) ask(args ...string) string {
	s.Helper()
	r := s.run(s.spec(args...))
	if r.Status != kind.Finished || r.ExitCode != 0 {
		s.Fatalf("got %s %q, exit code %d, want the probe to answer: %s", r.Status, r.Reason, r.ExitCode, r.Output)
	}
	return strings.TrimSpace(string(r.Output))
}

func (s suite) output() {
	const n = backend.MaxOutput * 3
	r := s.run(s.spec("print", fmt.Sprint(n)))
	all := []byte(strings.Repeat("x", n))
	if r.OutputBytes != n || r.OutputDigest != sha256.Sum256(all) || string(r.Output) != string(all[:backend.MaxOutput]) {
		s.Errorf("got %d bytes, %d kept, digest %x", r.OutputBytes, len(r.Output), r.OutputDigest)
	}
	// Two streams, one reader: which is read first is not promised.
	if got := s.ask("streams"); got != "outerr" && got != "errout" {
		s.Errorf("got %q, want what went to stdout and stderr", got)
	}
}

func (s suite) exitCode() {
	for _, code := range []string{"0", "1", "3", "255"} {
		r := s.run(s.spec("exit", code))
		if r.Status != kind.Finished || fmt.Sprint(r.ExitCode) != code {
			s.Errorf("got %s %d, want finished %s: %s", r.Status, r.ExitCode, code, r.Output)
		}
	}
	// A command that is the first process of its namespace cannot kill itself.
	if r := s.run(s.spec("abort")); r.Status != kind.Finished || r.ExitCode != 128+9 && string(r.Output) != "alive\n" {
		s.Errorf("got %s %d for a command that a signal ended, want finished 137", r.Status, r.ExitCode)
	}
}

func (s suite) noProgram() {
	for _, path := range []string{"/absent", "/bin", "/../etc/passwd"} {
		spec := s.spec()
		spec.Command = []string{path}
		if r, err := s.b.Run(s.Context(), spec); !errors.Is(err, backend.ErrNoProgram) && err == nil {
			s.Errorf("%s: got %+v, want an error", path, r)
		}
	}
	spec := s.spec()
	spec.Rootfs = filepath.Join(s.rootfs, "absent")
	if _, err := s.b.Run(s.Context(), spec); err == nil {
		s.Error("ran without a root file system")
	}
}

func (s suite) wallLimit() {
	spec := s.spec("spin")
	spec.Wall = 300 * time.Millisecond
	r := s.run(spec)
	if r.Status != kind.Killed || r.Reason != backend.ReasonWall || r.ExitCode != kind.NoExitCode {
		s.Errorf("got %s %q %d, want killed at the wall limit", r.Status, r.Reason, r.ExitCode)
	}
	if r.Wall < spec.Wall || r.Wall > 10*time.Second {
		s.Errorf("got %s, want a little more than %s", r.Wall, spec.Wall)
	}
	// Children that ignore everything go too.
	spec = s.spec("orphans")
	spec.Wall = 300 * time.Millisecond
	if r := s.run(spec); r.Status != kind.Killed {
		s.Errorf("got %s, want killed", r.Status)
	}
}

func (s suite) cancel() {
	ctx, cancel := context.WithTimeout(s.Context(), 300*time.Millisecond)
	defer cancel()
	r, err := s.b.Run(ctx, s.spec("spin"))
	if err != nil {
		s.Fatal(err)
	}
	if r.Status != kind.Killed || r.Reason != backend.ReasonCancel {
		s.Errorf("got %s %q, want killed because the node stops", r.Status, r.Reason)
	}
}

func (s suite) inside() {
	s.Setenv("CRETO_TEST_SECRET", "of-the-host")
	var v struct {
		Env      []string `json:"env"`
		UID      int      `json:"uid"`
		Hostname string   `json:"hostname"`
	}
	if err := json.Unmarshal([]byte(s.ask("view")), &v); err != nil {
		s.Fatal(err)
	}
	for _, e := range v.Env {
		// bwrap sets PWD and runc HOME by themselves.
		if !slices.Contains(backend.Environment(), e) && e != "PWD=/" {
			s.Errorf("got environment %q", e)
		}
	}
	if v.UID == 0 || v.Hostname != "sandbox" {
		s.Errorf("got uid %d, hostname %q, want nobody in particular in \"sandbox\"", v.UID, v.Hostname)
	}
}

func (s suite) hostFiles() {
	for _, path := range []string{"/etc/shadow", "/etc/passwd", "/root", "/home", "/usr", "/proc/1/root/etc/passwd", "/proc/self/cwd/../etc/passwd"} {
		if got := s.ask("read", path); !strings.HasPrefix(got, "error:") {
			s.Errorf("read %s: got %q", path, got)
		}
	}
	for _, path := range []string{"/written", s.program, "/dev/written", "/proc/sysrq-trigger", "/proc/sys/kernel/hostname"} {
		if got := s.ask("write", path); !strings.HasPrefix(got, "error:") {
			s.Errorf("write %s: got %q", path, got)
		}
	}
	if got := s.ask("write", "/tmp/written"); got != "ok" {
		s.Errorf("write /tmp/written: got %q, want ok", got)
	}
	if got := s.ask("read", "/tmp/written"); !strings.HasPrefix(got, "error:") {
		s.Errorf("a run sees what the one before it wrote: %q", got)
	}
	for _, dev := range []string{"/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/kvm", "/dev/fuse", "/dev/net/tun"} {
		if got := s.ask("open", dev); !strings.HasPrefix(got, "error:") {
			s.Errorf("open %s: got %q", dev, got)
		}
	}
}

func (s suite) hostProcesses() {
	// At most the probe and the sandbox's own init.
	if got := s.ask("processes"); len(strings.Fields(got)) > 2 {
		s.Errorf("got processes %s, want only its own", got)
	}
	if got := s.ask("signal", fmt.Sprint(os.Getpid())); !strings.HasPrefix(got, "error:") {
		s.Errorf("signal to a process of the host: got %q", got)
	}
}

func (s suite) network() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.Fatal(err)
	}
	defer l.Close()
	for _, address := range []string{l.Addr().String(), "192.0.2.1:80", "169.254.169.254:80", "[2001:db8::1]:80"} {
		if got := s.ask("connect", address); !strings.HasPrefix(got, "error:") {
			s.Errorf("connect to %s: got %q", address, got)
		}
	}
	if got := s.ask("links"); got != "" && got != "lo" {
		s.Errorf("got network interfaces %q", got)
	}
	// Abstract sockets live in the network namespace.
	a, err := net.Listen("unix", fmt.Sprintf("@creto-test-%d", os.Getpid()))
	if err != nil {
		s.Fatal(err)
	}
	defer a.Close()
	if got := s.ask("unix", a.Addr().String()); !strings.HasPrefix(got, "error:") {
		s.Errorf("connect to an abstract socket of the host: got %q", got)
	}
}

func (s suite) privileges() {
	got := s.ask("status")
	for _, want := range []string{"CapEff:0000000000000000", "CapBnd:0000000000000000", "CapPrm:0000000000000000", "NoNewPrivs:1", "Seccomp:2"} {
		if !strings.Contains(got, want) {
			s.Errorf("status has no %s:\n%s", want, got)
		}
	}
	for _, call := range []string{"mount", "unshare-user", "unshare-net", "clone-user", "setns", "ptrace", "keyctl", "bpf", "io_uring", "chroot", "mknod", "sethostname", "userfaultfd"} {
		if got := s.ask("syscall", call); !strings.HasPrefix(got, "error:") {
			s.Errorf("%s: got %q, want it refused", call, got)
		}
	}
}

func (s suite) memoryLimit(cgroups bool) {
	spec := s.spec("memory", fmt.Sprint(256<<20))
	spec.Memory = 64 << 20
	r := s.run(spec)
	switch {
	case r.Status == kind.Killed && r.Reason == backend.ReasonMemory:
	case !cgroups && r.Status == kind.Finished && r.ExitCode != 0: // the program was refused memory and gave up
	default:
		s.Errorf("got %s %q %d, want killed at the memory limit: %s", r.Status, r.Reason, r.ExitCode, r.Output)
	}
}

func (s suite) forkBomb() {
	spec := s.spec("fork", "1000")
	spec.Pids = 32
	r := s.run(spec)
	if r.Status != kind.Finished || r.ExitCode != 0 {
		s.Fatalf("got %s %q %d: %s", r.Status, r.Reason, r.ExitCode, r.Output)
	}
	var n int
	if _, err := fmt.Sscan(string(r.Output), &n); err != nil {
		s.Fatal(err)
	}
	if n == 0 || n > spec.Pids {
		s.Errorf("got %d children, want some and at most %d", n, spec.Pids)
	}
}

func (s suite) tmp() {
	spec := s.spec("fill", "/tmp/big", fmt.Sprint(256<<20))
	spec.Memory = 64 << 20
	r := s.run(spec)
	if r.Status == kind.Finished && strings.TrimSpace(string(r.Output)) == "ok" {
		s.Error("wrote four times the memory limit into /tmp")
	}
}

func (s suite) measurements(cgroups bool) {
	r := s.run(s.spec("burn", "300ms"))
	if r.CPU < 200*time.Millisecond || r.CPU > 5*time.Second {
		s.Errorf("got %s of CPU for a command that used 300 ms", r.CPU)
	}
	if r.Wall < 200*time.Millisecond || r.Finished.Sub(r.Started) != r.Wall {
		s.Errorf("got %s from %s to %s", r.Wall, r.Started, r.Finished)
	}
	if want := r.MeasuredFrom == kind.FromWait4; want == cgroups {
		s.Errorf("got numbers from %s, control groups: %t", r.MeasuredFrom, cgroups)
	}
	spec := s.spec("hold", fmt.Sprint(48<<20))
	spec.Memory = 256 << 20
	if r := s.run(spec); r.MemoryPeak < 48<<20 || r.MemoryPeak > spec.Memory {
		s.Errorf("got a peak of %d bytes for a command that held %d", r.MemoryPeak, 48<<20)
	}
}

func (s suite) nothingStays() {
	for _, dir := range []string{"/sys/fs/cgroup/*/creto", "/sys/fs/cgroup/creto"} {
		left, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf("test-%d-*", os.Getpid())))
		if err != nil || len(left) > 0 {
			s.Errorf("control groups stay behind: %v %v", left, err)
		}
	}
}
