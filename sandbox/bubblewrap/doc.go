// Package bubblewrap isolates runs in namespaces that the program bwrap sets up: isolation class process.
//
// The two calls you need are New and Backend.Run (package sandbox/backend); Probe says whether this machine can.
//
// A run has its own user, pid, network, mount, IPC, UTS and cgroup namespaces; no network but loopback; the template
// read-only as its root, an empty /tmp, a minimal /dev; none of the node's environment, no capability, no new privileges, a
// filter of system calls; a control group where the node may make one, and resource limits in any case. As root, every place
// of the node has a user id of its own on the host.
//
// It shares the host's kernel: a hole there is a way out. It needs Linux, bwrap 0.8 or newer, prlimit and /bin/sh.
package bubblewrap
