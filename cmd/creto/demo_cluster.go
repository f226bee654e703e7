package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/creto-systems/creto/cmd/creto/node"
	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

// Ports of the demonstration lie below those that systems give to outgoing connections, which could otherwise take the port
// of a node while it is down.
const (
	firstDemoPort = 20_000
	lastDemoPort  = 31_999
	demoPatience  = 30 * time.Second // for a server to become ready, or to stop
)

// demoCluster is three server processes on loopback.
type demoCluster struct {
	dir     string
	program string
	made    *node.InitResult
	grpc    []string // by node
	metrics []string
	nodes   []*demoProcess // nil while a node is down
	admin   *creto.Client  // as the admin, to all nodes
	each    []*creto.Client
	killed  int // the node that was killed
}

// startCluster makes a cluster as `creto init` does and starts its servers.
func (d *demo) startCluster(ctx context.Context) (string, error) {
	ports, err := freePorts(12)
	if err != nil {
		return "", err
	}
	c := &demoCluster{dir: d.dir, program: d.program, nodes: make([]*demoProcess, 3)}
	init := node.InitConfig{Dir: filepath.Join(d.dir, "cluster"), Cluster: "demo", Plain: true, CAOnNodes: true}
	for i := range c.nodes {
		a := ports[4*i:]
		init.Nodes = append(init.Nodes, node.InitNode{Peer: a[0], GRPC: a[1], Read: a[2], Metrics: a[3]})
		c.grpc, c.metrics = append(c.grpc, a[1]), append(c.metrics, a[3])
	}
	if c.made, err = node.Init(init); err != nil {
		return "", err
	}
	d.cluster = c
	if err := c.connect(ctx); err != nil {
		return "", err
	}
	for i := range c.nodes {
		if err := c.start(i); err != nil {
			return "", err
		}
	}
	for i := range c.nodes {
		if err := c.awaitReady(ctx, i); err != nil {
			return "", err
		}
	}
	leader, err := c.leader(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("three servers on loopback, processes %d, %d and %d; ledger %s; node %d leads",
		c.nodes[0].pid(), c.nodes[1].pid(), c.nodes[2].pid(), hex.EncodeToString(c.made.LedgerID[:4]), leader+1), nil
}

func (c *demoCluster) connect(ctx context.Context) error {
	dial := func(addrs ...string) (*creto.Client, error) {
		return creto.Dial(ctx, creto.Options{Addrs: addrs, CA: c.made.AdminSVID.Bundle, Cert: c.made.AdminSVID.Cert, Key: c.made.AdminSVID.Key})
	}
	var err error
	if c.admin, err = dial(c.grpc...); err != nil {
		return err
	}
	for _, a := range c.grpc {
		one, err := dial(a)
		if err != nil {
			return err
		}
		c.each = append(c.each, one)
	}
	return nil
}

// start starts the server of node i.
func (c *demoCluster) start(i int) error {
	p, err := startProcess(c.program, filepath.Join(c.dir, "logs", fmt.Sprintf("node%d.log", i+1)), serverArgs(c.made.NodeDirs[i])...)
	if err != nil {
		return fmt.Errorf("start node %d: %w", i+1, err)
	}
	c.nodes[i] = p
	return nil
}

// awaitReady waits until node i says that it takes writes.
func (c *demoCluster) awaitReady(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	return c.nodes[i].until(ctx, fmt.Sprintf("node %d is ready", i+1), func(ctx context.Context) (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.metrics[i]+"/readyz", http.NoBody)
		if err != nil {
			return false, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false, nil // it does not listen yet
		}
		return resp.StatusCode == http.StatusOK, resp.Body.Close()
	})
}

// status asks node i about the cluster.
func (c *demoCluster) status(ctx context.Context, i int) (*cretov1.StatusResponse, error) {
	return cretov1.NewClusterServiceClient(c.each[i]).Status(ctx, &cretov1.StatusRequest{})
}

// leader returns the node that leads.
func (c *demoCluster) leader(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	for {
		for i := range c.nodes {
			if c.nodes[i] == nil {
				continue
			}
			s, err := c.status(ctx, i)
			if err != nil {
				if ctx.Err() != nil {
					return 0, fmt.Errorf("find the leader: %w", err)
				}
				continue
			}
			id := s.GetLeaderId()
			if n := slices.IndexFunc(c.made.NodeIDs, func(n nhi.ID) bool { return n.String() == id }); n >= 0 && c.nodes[n] != nil {
				return n, nil
			}
		}
		if err := demoPause(ctx, 50*time.Millisecond); err != nil {
			return 0, fmt.Errorf("find the leader: %w", err)
		}
	}
}

// kill ends node i as a power cut would.
func (c *demoCluster) kill(i int) error {
	p := c.nodes[i]
	c.nodes[i], c.killed = nil, i
	return p.kill()
}

// killAll ends what still runs; used when the demonstration ends early.
func (c *demoCluster) killAll() {
	for i, p := range c.nodes {
		if p != nil {
			_ = c.kill(i) // there is nobody left to tell
		}
	}
	for _, client := range append(slices.Clone(c.each), c.admin) {
		if client != nil {
			_ = client.Close() // the connections end with the process in any case
		}
	}
}

// stopCluster ends the servers in an orderly way. From here on nobody can be asked.
func (d *demo) stopCluster(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	if d.run.agent != nil {
		if err := d.run.agent.stop(ctx); err != nil {
			return "", fmt.Errorf("stop the sandbox node: %w", err)
		}
	}
	for i, p := range d.cluster.nodes {
		if err := p.stop(ctx); err != nil {
			return "", fmt.Errorf("stop node %d: %w", i+1, err)
		}
		d.cluster.nodes[i] = nil
	}
	return "all servers have stopped; from here on only files are read", nil
}

// bringBack starts the killed node again and waits until all three nodes have the same state.
func (d *demo) bringBack(ctx context.Context) (string, error) {
	c := d.cluster
	if err := c.start(c.killed); err != nil {
		return "", err
	}
	if err := c.awaitReady(ctx, c.killed); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	for {
		var all []*cretov1.StatusResponse
		for i := range c.nodes {
			s, err := c.status(ctx, i)
			if err != nil {
				return "", err
			}
			all = append(all, s)
		}
		same := func(a, b *cretov1.StatusResponse) bool {
			return a.GetAppliedIndex() == b.GetAppliedIndex() && a.GetEpoch() == b.GetEpoch() && string(a.GetStateHash()) == string(b.GetStateHash())
		}
		if len(all[0].GetStateHash()) > 0 && same(all[0], all[1]) && same(all[1], all[2]) {
			return fmt.Sprintf("node %d is back from its own disk: all three have applied entry %s and have state hash %s",
				c.killed+1, thousands(all[0].GetAppliedIndex()), hex.EncodeToString(all[0].GetStateHash()[:8])), nil
		}
		if err := demoPause(ctx, 50*time.Millisecond); err != nil {
			return "", fmt.Errorf("wait for equal states: %w", err)
		}
	}
}

// serverArgs are the arguments that start a node from its directory.
func serverArgs(dir string) []string { return []string{"server", "--dir", dir} }

// demoProcess is a process of this program.
type demoProcess struct {
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{}
	err  error // of the process; after done
}

// startProcess starts the program with its output in a log file. It gets none of the caller's settings.
func startProcess(program, log string, args ...string) (*demoProcess, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	p := &demoProcess{cmd: exec.Command(program, args...), log: f, done: make(chan struct{})} //nolint:gosec // our own program
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = plainEnv(), f, f
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	go func() {
		p.err = errors.Join(p.cmd.Wait(), f.Close())
		close(p.done)
	}()
	return p, nil
}

// plainEnv is the environment without the caller's settings of creto, which are about another cluster.
func plainEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(s string) bool { return len(s) > 6 && s[:6] == "CRETO_" })
}

func (p *demoProcess) pid() int { return p.cmd.Process.Pid }

// until waits for a condition, or for the process to end, which is an error.
func (p *demoProcess) until(ctx context.Context, what string, ok func(context.Context) (bool, error)) error {
	for {
		done, err := ok(ctx)
		if err != nil {
			return fmt.Errorf("wait until %s: %w", what, err)
		}
		if done {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("wait until %s: the process has ended (%v), see %s", what, p.err, p.log.Name())
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w, see %s", what, ctx.Err(), p.log.Name())
		case <-time.After(25 * time.Millisecond):
		}
	}
}

func (p *demoProcess) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

// stop asks the process to end and says how it ended.
func (p *demoProcess) stop(ctx context.Context) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return errors.Join(ctx.Err(), p.kill())
	}
}

// freePorts returns loopback addresses that nobody listens on now.
func freePorts(n int) ([]string, error) {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close() // nothing was sent over it
		}
	}()
	var out []string
	for tries := 0; len(out) < n; tries++ {
		if tries > 50*n {
			return nil, fmt.Errorf("find free ports: got %d of %d between %d and %d", len(out), n, firstDemoPort, lastDemoPort)
		}
		port := firstDemoPort + rand.IntN(lastDemoPort-firstDemoPort+1) //nolint:gosec // a port, not a secret
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		held = append(held, l)
		out = append(out, l.Addr().String())
	}
	return out, nil
}

// demoPause waits, or returns the context's error.
func demoPause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
