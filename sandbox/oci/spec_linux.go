package oci

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/creto-systems/creto/sandbox/backend"
)

// The parts of the OCI runtime specification (1.0.2, config.json) that a run needs.
type (
	config struct {
		Version  string  `json:"ociVersion"`
		Process  process `json:"process"`
		Root     root    `json:"root"`
		Hostname string  `json:"hostname"`
		Mounts   []mount `json:"mounts"`
		Linux    linux   `json:"linux"`
	}
	process struct {
		User         user                `json:"user"`
		Args         []string            `json:"args"`
		Env          []string            `json:"env"`
		Cwd          string              `json:"cwd"`
		Capabilities map[string][]string `json:"capabilities"`
		Rlimits      []rlimit            `json:"rlimits"`
		NoNewPrivs   bool                `json:"noNewPrivileges"`
	}
	user struct {
		UID int `json:"uid"`
		GID int `json:"gid"`
	}
	rlimit struct {
		Type string `json:"type"`
		Hard uint64 `json:"hard"`
		Soft uint64 `json:"soft"`
	}
	root struct {
		Path     string `json:"path"`
		Readonly bool   `json:"readonly"`
	}
	mount struct {
		Destination string   `json:"destination"`
		Type        string   `json:"type"`
		Source      string   `json:"source"`
		Options     []string `json:"options"`
	}
	linux struct {
		CgroupsPath   string      `json:"cgroupsPath"`
		Resources     resources   `json:"resources"`
		Namespaces    []namespace `json:"namespaces"`
		MaskedPaths   []string    `json:"maskedPaths"`
		ReadonlyPaths []string    `json:"readonlyPaths"`
		Seccomp       seccomp     `json:"seccomp"`
	}
	resources struct {
		Devices []device `json:"devices"`
	}
	device struct {
		Allow  bool   `json:"allow"`
		Access string `json:"access"`
	}
	namespace struct {
		Type string `json:"type"`
	}
	seccomp struct {
		DefaultAction string        `json:"defaultAction"`
		Architectures []string      `json:"architectures"`
		Syscalls      []seccompRule `json:"syscalls"`
	}
	seccompRule struct {
		Names    []string     `json:"names"`
		Action   string       `json:"action"`
		ErrnoRet uint         `json:"errnoRet"`
		Args     []seccompArg `json:"args,omitempty"`
	}
	seccompArg struct {
		Index    uint   `json:"index"`
		Value    uint64 `json:"value"`
		ValueTwo uint64 `json:"valueTwo"`
		Op       string `json:"op"`
	}
)

func (b *Backend) config(s backend.Spec, cgroup string) (*config, error) {
	filter, err := filter()
	if err != nil {
		return nil, err
	}
	id := b.cfg.UIDBase + s.Slot
	return &config{
		Version: "1.0.2",
		Process: process{
			User: user{id, id}, Args: s.Command, Env: backend.Environment(), Cwd: "/", NoNewPrivs: true,
			Capabilities: map[string][]string{"bounding": {}, "effective": {}, "inheritable": {}, "permitted": {}, "ambient": {}},
			Rlimits:      []rlimit{{"RLIMIT_CORE", 0, 0}, {"RLIMIT_NOFILE", 1024, 1024}},
		},
		Root: root{s.Rootfs, true}, Hostname: "sandbox",
		Mounts: []mount{
			{"/proc", "proc", "proc", []string{"nosuid", "noexec", "nodev"}},
			{"/dev", "tmpfs", "tmpfs", []string{"nosuid", "noexec", "strictatime", "mode=755", "size=64k"}},
			{"/tmp", "tmpfs", "tmpfs", []string{"nosuid", "nodev", "mode=1777", fmt.Sprintf("size=%d", s.Memory)}},
		},
		Linux: linux{
			CgroupsPath: cgroup, Resources: resources{[]device{{false, "rwm"}}},
			Namespaces: []namespace{{"pid"}, {"network"}, {"ipc"}, {"uts"}, {"mount"}, {"cgroup"}},
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
				"/proc/sched_debug", "/proc/scsi", "/sys/firmware",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			Seccomp:       *filter,
		},
	}, nil
}

// filter is the same filter of system calls as that of every backend, in runc's terms.
func filter() (*seccomp, error) {
	arch, ok := map[string]string{"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("no filter of system calls for %s", runtime.GOARCH)
	}
	const refuse = "SCMP_ACT_ERRNO"
	f := &seccomp{DefaultAction: "SCMP_ACT_ALLOW", Architectures: []string{arch}, Syscalls: []seccompRule{
		{Names: backend.DeniedSyscalls(), Action: refuse, ErrnoRet: uint(unix.EPERM)},
		{Names: []string{"clone3"}, Action: refuse, ErrnoRet: uint(unix.ENOSYS)},
	}}
	for _, flag := range backend.NamespaceFlags() {
		f.Syscalls = append(f.Syscalls, seccompRule{
			Names: []string{"clone"}, Action: refuse, ErrnoRet: uint(unix.EPERM),
			Args: []seccompArg{{Value: flag, ValueTwo: flag, Op: "SCMP_CMP_MASKED_EQ"}},
		})
	}
	return f, nil
}
