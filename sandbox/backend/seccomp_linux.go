package backend

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// denied are the system calls that no sandboxed program needs and that have been ways out of one: mounting, namespaces,
// kernel modules and keys, tracing, BPF, io_uring.
var denied = []struct {
	name string
	nr   uint32
}{
	{"acct", unix.SYS_ACCT},
	{"add_key", unix.SYS_ADD_KEY},
	{"bpf", unix.SYS_BPF},
	{"delete_module", unix.SYS_DELETE_MODULE},
	{"finit_module", unix.SYS_FINIT_MODULE},
	{"fsconfig", unix.SYS_FSCONFIG},
	{"fsmount", unix.SYS_FSMOUNT},
	{"fsopen", unix.SYS_FSOPEN},
	{"fspick", unix.SYS_FSPICK},
	{"init_module", unix.SYS_INIT_MODULE},
	{"io_uring_enter", unix.SYS_IO_URING_ENTER},
	{"io_uring_register", unix.SYS_IO_URING_REGISTER},
	{"io_uring_setup", unix.SYS_IO_URING_SETUP},
	{"kexec_load", unix.SYS_KEXEC_LOAD},
	{"keyctl", unix.SYS_KEYCTL},
	{"mount", unix.SYS_MOUNT},
	{"mount_setattr", unix.SYS_MOUNT_SETATTR},
	{"move_mount", unix.SYS_MOVE_MOUNT},
	{"name_to_handle_at", unix.SYS_NAME_TO_HANDLE_AT},
	{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT},
	{"open_tree", unix.SYS_OPEN_TREE},
	{"perf_event_open", unix.SYS_PERF_EVENT_OPEN},
	{"pivot_root", unix.SYS_PIVOT_ROOT},
	{"process_vm_readv", unix.SYS_PROCESS_VM_READV},
	{"process_vm_writev", unix.SYS_PROCESS_VM_WRITEV},
	{"ptrace", unix.SYS_PTRACE},
	{"quotactl", unix.SYS_QUOTACTL},
	{"reboot", unix.SYS_REBOOT},
	{"request_key", unix.SYS_REQUEST_KEY},
	{"setns", unix.SYS_SETNS},
	{"swapoff", unix.SYS_SWAPOFF},
	{"swapon", unix.SYS_SWAPON},
	{"umount2", unix.SYS_UMOUNT2},
	{"unshare", unix.SYS_UNSHARE},
	{"userfaultfd", unix.SYS_USERFAULTFD},
}

// DeniedSyscalls returns the names of the system calls that sandboxes refuse with EPERM.
func DeniedSyscalls() []string {
	out := make([]string, len(denied))
	for i, d := range denied {
		out[i] = d.name
	}
	return out
}

// NamespaceFlags returns the flags of clone that make namespaces, which sandboxes refuse with EPERM.
func NamespaceFlags() []uint64 {
	return []uint64{
		unix.CLONE_NEWNS, unix.CLONE_NEWCGROUP, unix.CLONE_NEWUTS, unix.CLONE_NEWIPC, unix.CLONE_NEWUSER, unix.CLONE_NEWPID, unix.CLONE_NEWNET,
	}
}

// Offsets in struct seccomp_data.
const (
	offNr   = 0
	offArch = 4
	offArg0 = 16 // low half, on the little-endian machines that are supported
)

// x32Bit marks calls of the x32 interface, which is a second spelling of every call.
const x32Bit = 0x40000000

// seccompFilter returns the filter as classic BPF: EPERM for the denied calls and for clone with a namespace flag, ENOSYS for
// clone3 (whose flags a filter cannot see; libraries fall back to clone), death for foreign machine interfaces.
func seccompFilter() ([]byte, error) {
	var arch uint32
	switch runtime.GOARCH {
	case "amd64":
		arch = unix.AUDIT_ARCH_X86_64
	case "arm64":
		arch = unix.AUDIT_ARCH_AARCH64
	default:
		return nil, fmt.Errorf("no filter of system calls for %s", runtime.GOARCH)
	}
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jump   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		atOver = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		bits   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		ret    = unix.BPF_RET | unix.BPF_K
	)
	type ins struct {
		Code   uint16
		Jt, Jf uint8
		K      uint32
	}
	var namespaces uint32
	for _, f := range NamespaceFlags() {
		namespaces |= uint32(f)
	}
	refuse := func(errno uint32) ins { return ins{Code: ret, K: unix.SECCOMP_RET_ERRNO | errno} }
	prog := []ins{
		{Code: load, K: offArch},
		{Code: jump, Jt: 1, K: arch},
		{Code: ret, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: load, K: offNr},
	}
	if runtime.GOARCH == "amd64" {
		prog = append(prog, ins{Code: atOver, Jf: 1, K: x32Bit}, ins{Code: ret, K: unix.SECCOMP_RET_KILL_PROCESS})
	}
	for _, d := range denied {
		prog = append(prog, ins{Code: jump, Jf: 1, K: d.nr}, refuse(uint32(unix.EPERM)))
	}
	prog = append(prog,
		ins{Code: jump, Jf: 1, K: unix.SYS_CLONE3}, refuse(uint32(unix.ENOSYS)),
		ins{Code: jump, Jf: 3, K: unix.SYS_CLONE},
		ins{Code: load, K: offArg0},
		ins{Code: bits, Jf: 1, K: namespaces}, refuse(uint32(unix.EPERM)),
		ins{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	)
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, prog); err != nil {
		return nil, fmt.Errorf("encode filter: %w", err)
	}
	return b.Bytes(), nil
}

// SeccompFile returns a file that holds the filter of system calls, at its beginning, for a program that reads it from a
// descriptor.
func SeccompFile() (*os.File, error) {
	filter, err := seccompFilter()
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("seccomp", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make filter: %w", err)
	}
	f := os.NewFile(uintptr(fd), "seccomp")
	if _, err := f.WriteAt(filter, 0); err != nil {
		return nil, fmt.Errorf("make filter: %w", err)
	}
	return f, nil
}
