// Package oci isolates runs in containers that runc makes from a bundle: isolation class container.
//
// The two calls you need are New and Backend.Run (package sandbox/backend); Probe says whether this machine can.
//
// A run has its own pid, network, mount, IPC, UTS and cgroup namespaces; no network, not even loopback; the template
// read-only as its root, an empty /tmp, a /dev of a few harmless devices; a user id of its own, no capability, no new
// privileges, a filter of system calls; and always a control group, from which it is measured.
//
// It shares the host's kernel: a hole there is a way out. It needs Linux, root, writable control groups and runc.
package oci
