// Command hello is the program of the demonstration's sandbox: it prints, as JSON, what it can see from inside.
//
// Build it with CGO_ENABLED=0 and put it, alone, into a folder: that folder is a root file system. With the argument exit=N
// it ends with that code, with sleep=D it first waits.
package main

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// view is what the program sees.
type view struct {
	Args      []string `json:"args"`
	Env       []string `json:"env"`
	UID       int      `json:"uid"`
	GID       int      `json:"gid"`
	PID       int      `json:"pid"`
	Hostname  string   `json:"hostname"`
	Mounts    int      `json:"mounts"`
	Processes []string `json:"processes"`       // that /proc shows
	Root      []string `json:"root"`            // names in /
	Network   string   `json:"network"`         // what an attempt to connect says
	Write     string   `json:"write"`           // what an attempt to write into the root says
	Links     []string `json:"links,omitempty"` // network interfaces
	NoNewPriv string   `json:"no_new_privs"`
	Seccomp   string   `json:"seccomp"`
	CapEff    string   `json:"cap_eff"`
}

func main() {
	v := view{Args: os.Args, Env: os.Environ(), UID: os.Getuid(), GID: os.Getgid(), PID: os.Getpid()}
	v.Hostname, _ = os.Hostname()
	if b, err := os.ReadFile("/proc/self/mounts"); err == nil {
		v.Mounts = strings.Count(string(b), "\n")
	}
	for _, e := range names("/proc") {
		if _, err := strconv.Atoi(e); err == nil {
			v.Processes = append(v.Processes, e)
		}
	}
	v.Root = names("/")
	v.Network = connect()
	v.Write = write()
	if links, err := net.Interfaces(); err == nil {
		for _, l := range links {
			v.Links = append(v.Links, l.Name)
		}
	}
	status(&v)
	code := 0
	for _, a := range os.Args[1:] {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "sleep":
			if d, err := time.ParseDuration(value); err == nil {
				time.Sleep(d)
			}
		case "exit":
			code, _ = strconv.Atoi(value)
		}
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	if out.Encode(v) != nil {
		code = 1
	}
	os.Exit(code)
}

func names(dir string) (out []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// connect tries an address of the documentation's network, which nobody answers: without a network the attempt fails at once.
func connect() string {
	c, err := net.DialTimeout("tcp", "192.0.2.1:80", time.Second)
	if err != nil {
		return err.Error()
	}
	_ = c.Close()
	return "connected"
}

func write() string {
	if err := os.WriteFile("/written", []byte("x"), 0o600); err != nil {
		return err.Error()
	}
	return "written"
}

func status(v *view) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "NoNewPrivs":
			v.NoNewPriv = value
		case "Seccomp":
			v.Seccomp = value
		case "CapEff":
			v.CapEff = value
		}
	}
}
