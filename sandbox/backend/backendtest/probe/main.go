//go:build linux

// Command probe tries, from inside a sandbox, one thing for the suite of package backendtest: its first argument says which.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	what, args := "", os.Args[1:]
	if len(args) > 0 {
		what, args = args[0], args[1:]
	}
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	number := func(i int) int {
		n, err := strconv.Atoi(arg(i))
		if err != nil {
			answer(err)
		}
		return n
	}
	switch what {
	case "print":
		block := strings.Repeat("x", 4096)
		for n := number(0); n > 0; n -= len(block) {
			os.Stdout.WriteString(block[:min(n, len(block))])
		}
	case "streams":
		os.Stdout.WriteString("out")
		os.Stderr.WriteString("err")
	case "exit":
		os.Exit(number(0))
	case "abort":
		if err := unix.Kill(os.Getpid(), unix.SIGKILL); err != nil {
			answer(err)
		}
		time.Sleep(100 * time.Millisecond)
		fmt.Println("alive")
	case "spin":
		for {
			time.Sleep(time.Millisecond)
		}
	case "orphans":
		orphans(arg(0))
	case "view":
		name, _ := os.Hostname()
		_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"env": os.Environ(), "uid": os.Getuid(), "hostname": name})
	case "read":
		b, err := os.ReadFile(arg(0))
		if err != nil {
			if _, derr := os.ReadDir(arg(0)); derr == nil {
				err = nil
			}
		}
		answer(err, len(b), "bytes")
	case "write":
		answer(os.WriteFile(arg(0), []byte("x"), 0o600))
	case "open":
		f, err := os.OpenFile(arg(0), os.O_RDWR, 0)
		if err == nil {
			_ = f.Close()
		}
		answer(err)
	case "processes":
		for _, name := range names("/proc") {
			if _, err := strconv.Atoi(name); err == nil {
				fmt.Println(name)
			}
		}
	case "signal":
		answer(unix.Kill(number(0), 0))
	case "connect":
		dial("tcp", arg(0))
	case "unix":
		dial("unix", arg(0))
	case "links":
		links, err := net.Interfaces()
		if err != nil {
			answer(err)
		}
		for _, l := range links {
			fmt.Println(l.Name)
		}
	case "status":
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			answer(err)
		}
		os.Stdout.WriteString(strings.NewReplacer("\t", "", " ", "").Replace(string(b)))
	case "syscall":
		answer(try(arg(0)))
	case "memory", "hold":
		hold(number(0))
	case "fork":
		fork(number(0))
	case "sleep":
		time.Sleep(time.Minute)
	case "fill":
		fill(arg(0), number(1))
	case "burn":
		d, err := time.ParseDuration(arg(0))
		if err != nil {
			answer(err)
		}
		burn(d)
	default:
		answer(fmt.Errorf("no probe %q", what))
	}
}

// answer prints what came of an attempt and ends the program.
func answer(err error, more ...any) {
	switch {
	case err != nil:
		fmt.Println("error:", err)
	case len(more) > 0:
		fmt.Println(more...)
	default:
		fmt.Println("ok")
	}
	os.Exit(0)
}

func names(dir string) (out []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func dial(network, address string) {
	c, err := net.DialTimeout(network, address, time.Second)
	if err == nil {
		_ = c.Close()
	}
	answer(err)
}

// orphans leaves children that ignore signals and hold the output open.
func orphans(depth string) {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	if depth != "leaf" {
		for range 3 {
			cmd := exec.Command("/proc/self/exe", "orphans", "leaf")
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := cmd.Start(); err != nil {
				answer(err)
			}
		}
	}
	for {
		time.Sleep(time.Second)
	}
}

func hold(n int) {
	b := make([]byte, n)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	fmt.Println(len(b))
}

// fork starts children until it cannot, and says how many there were.
func fork(most int) {
	started := 0
	for range most {
		attr := &syscall.ProcAttr{Files: []uintptr{0, 1, 2}}
		if _, err := syscall.ForkExec("/proc/self/exe", []string{"probe", "sleep"}, attr); err != nil {
			break
		}
		started++
	}
	fmt.Println(started)
}

func fill(path string, n int) {
	f, err := os.Create(path)
	if err != nil {
		answer(err)
	}
	block := make([]byte, 1<<20)
	for ; n > 0; n -= len(block) {
		if _, err := f.Write(block); err != nil {
			answer(err)
		}
	}
	answer(nil)
}

func burn(d time.Duration) {
	var u unix.Rusage
	for x := 1; ; x++ {
		if x%100_000 == 0 {
			if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
				answer(err)
			}
			if time.Duration(u.Utime.Nano()+u.Stime.Nano()) >= d {
				return
			}
		}
	}
}

// try makes one system call that a sandbox has no business with.
func try(name string) error {
	errno := func(_, _ uintptr, e syscall.Errno) error {
		if e != 0 {
			return e
		}
		return nil
	}
	switch name {
	case "mount":
		return unix.Mount("none", "/tmp", "tmpfs", 0, "")
	case "unshare-user":
		return unix.Unshare(unix.CLONE_NEWUSER)
	case "unshare-net":
		return unix.Unshare(unix.CLONE_NEWNET)
	case "clone-user":
		// A null stack with CLONE_VM unset is a plain fork into a new user namespace.
		pid, _, e := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if pid == 0 && e == 0 {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
		if e != 0 {
			return e
		}
		return nil
	case "setns":
		f, err := os.Open("/proc/self/ns/net")
		if err != nil {
			return err
		}
		return unix.Setns(int(f.Fd()), 0)
	case "ptrace":
		return errno(unix.Syscall(unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0))
	case "keyctl":
		return errno(unix.Syscall(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, ^uintptr(2), 1))
	case "bpf":
		var attr [64]byte
		return errno(unix.Syscall(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr)))
	case "io_uring":
		var params [120]byte
		return errno(unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0))
	case "chroot":
		return unix.Chroot("/tmp")
	case "mknod":
		return unix.Mknod("/tmp/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
	case "sethostname":
		return unix.Sethostname([]byte("escaped"))
	case "userfaultfd":
		return errno(unix.Syscall(unix.SYS_USERFAULTFD, 0, 0, 0))
	}
	return fmt.Errorf("no system call %q", name)
}
