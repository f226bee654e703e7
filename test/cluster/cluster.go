package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/creto-systems/creto/cmd/creto/node"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/keyfile"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

// Options say what cluster to start.
type Options struct {
	Bin     string // the creto binary; required
	Dir     string // where its files go; required
	Nodes   int    // default 3
	Proxies bool   // connections between nodes can be cut (Linux)
	// Raft are the timers; default: those of a network that is one machine's loopback.
	Raft node.RaftConfig
	// Logf is told what happens; optional.
	Logf func(format string, args ...any)
}

// Cluster is a running cluster. Its methods are called from one goroutine, unless they say otherwise.
type Cluster struct {
	opt   Options
	Init  *node.InitResult
	Nodes []*Node
	Admin *Party          // the founding administrator
	adm   *creto.Client   // with the admin's SVID, to any node
	net   *network        // nil without proxies
	conns []*creto.Client // to be closed
}

// Node is one node, which may or may not be running.
type Node struct {
	ID      nhi.ID
	Dir     string
	GRPC    string // host:port its clients dial
	Read    string
	Metrics string
	Peer    string
	Log     string // file with its output
	Gone    bool   // lost for good
	proc    *process
	admin   *creto.Client // with the admin's SVID, to this node alone
}

// Cluster names the cluster in every origin.
const name = "test.creto"

// Start makes a cluster and returns when every node knows a leader that takes writes.
func Start(ctx context.Context, opt Options) (_ *Cluster, err error) {
	if opt.Nodes == 0 {
		opt.Nodes = 3
	}
	if opt.Logf == nil {
		opt.Logf = func(string, ...any) {}
	}
	if opt.Raft == (node.RaftConfig{}) {
		opt.Raft = node.RaftConfig{Heartbeat: 500 * time.Millisecond, Election: 500 * time.Millisecond, LeaderLease: 250 * time.Millisecond}
	}
	c := &Cluster{opt: opt}
	defer func() {
		if err != nil {
			c.Close()
			err = fmt.Errorf("start cluster: %w", err)
		}
	}()
	if opt.Proxies {
		c.net = newNetwork(c.pids)
	}
	init := node.InitConfig{
		Dir: filepath.Join(opt.Dir, "cluster"), Cluster: name, Test: true, Plain: true, CAOnNodes: true, Raft: opt.Raft,
	}
	var listen []node.ListenConfig
	for i := range opt.Nodes {
		l, n, err := c.addresses(i)
		if err != nil {
			return nil, err
		}
		listen, init.Nodes = append(listen, l), append(init.Nodes, n)
	}
	if c.Init, err = node.Init(init); err != nil {
		return nil, err
	}
	for i, dir := range c.Init.NodeDirs {
		if err := c.configure(dir, listen[i], init.Nodes[i]); err != nil {
			return nil, err
		}
		if err := c.addNode(c.Init.NodeIDs[i], dir, listen[i]); err != nil {
			return nil, err
		}
	}
	if err := c.administrator(); err != nil {
		return nil, err
	}
	for i := range c.Nodes {
		if err := c.StartNode(i); err != nil {
			return nil, err
		}
	}
	return c, c.WaitReady(ctx)
}

// addresses takes free ports for a node: where it listens, and how others reach it.
func (c *Cluster) addresses(i int) (l node.ListenConfig, n node.InitNode, err error) {
	for _, a := range []*string{&l.Peer, &l.GRPC, &l.Read, &l.Metrics} {
		if *a, err = freePort(); err != nil {
			return l, n, err
		}
	}
	n = node.InitNode{Peer: l.Peer, GRPC: l.GRPC, Read: l.Read, Metrics: l.Metrics}
	if c.net != nil {
		if n.Peer, err = c.net.listen(i, l.Peer); err != nil {
			return l, n, err
		}
		n.GRPC, err = c.net.listen(i, l.GRPC)
	}
	return l, n, err
}

// freePort returns an address that nobody listens on. Somebody else may take it before the node does: rare, and loud.
func freePort() (string, error) {
	for range 200 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		return l.Addr().String(), l.Close()
	}
	return "", fmt.Errorf("find free port: none of 200 between %d and %d", firstPort, lastPort)
}

// Ports of nodes that are stopped and started again lie below those that systems give to outgoing connections (32768 and up
// on Linux, 49152 elsewhere): another program's connection cannot take one meanwhile.
const (
	firstPort = 12000
	lastPort  = 19999
)

// configure tells a node where to listen, where that is not what others dial.
func (c *Cluster) configure(dir string, l node.ListenConfig, n node.InitNode) error {
	path := filepath.Join(dir, node.ConfigFile)
	cfg, err := node.LoadConfig(path)
	if err != nil {
		return err
	}
	l.Admin = "off"
	cfg.DataDir, cfg.Listen = "", l
	cfg.Advertise.Peer, cfg.Advertise.GRPC = n.Peer, n.GRPC
	text, err := cfg.YAML()
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

func (c *Cluster) addNode(id nhi.ID, dir string, l node.ListenConfig) error {
	n := &Node{
		ID: id, Dir: dir, GRPC: l.GRPC, Read: l.Read, Metrics: l.Metrics, Peer: l.Peer,
		Log: filepath.Join(c.opt.Dir, fmt.Sprintf("node%d.log", len(c.Nodes)+1)),
	}
	var err error
	if n.admin, err = c.dial("", true, l.GRPC); err != nil {
		return err
	}
	c.Nodes = append(c.Nodes, n)
	return nil
}

// dial makes a client of some nodes, with a read token or as the admin.
func (c *Cluster) dial(token string, admin bool, addrs ...string) (*creto.Client, error) {
	o := creto.Options{Addrs: addrs, CA: c.Init.AdminSVID.Bundle, Token: token, AttemptTimeout: 2 * time.Second}
	if admin {
		o.Cert, o.Key = c.Init.AdminSVID.Cert, c.Init.AdminSVID.Key
	}
	if len(addrs) == 1 {
		o.Attempts = 1
	}
	client, err := creto.Dial(context.Background(), o)
	if err == nil {
		c.conns = append(c.conns, client)
	}
	return client, err
}

func (c *Cluster) administrator() error {
	k, _, err := keyfile.Read(c.Init.AdminKey, nil)
	if err != nil {
		return err
	}
	key, err := k.Private()
	if err != nil {
		return err
	}
	if c.adm, err = c.dial("", true, c.Addrs()...); err != nil {
		return err
	}
	c.Admin = &Party{ID: k.ID, Key: key}
	c.Admin.Agent, err = creto.NewAgent(creto.AgentConfig{Client: c.adm, Signer: key, ID: k.ID, LedgerID: c.Init.LedgerID})
	return err
}

// Addrs are the gRPC addresses of all nodes that are not lost.
func (c *Cluster) Addrs() []string {
	var out []string
	for _, n := range c.Nodes {
		if !n.Gone {
			out = append(out, n.GRPC)
		}
	}
	return out
}

func (c *Cluster) pids() map[int]int {
	out := make(map[int]int)
	for i, n := range c.Nodes {
		if n.proc != nil {
			out[n.proc.cmd.Process.Pid] = i
		}
	}
	return out
}

// StartNode starts the process of a node.
func (c *Cluster) StartNode(i int) error {
	n := c.Nodes[i]
	p, err := start(n.Log, c.opt.Bin, "server", "--dir", n.Dir)
	if err != nil {
		return err
	}
	n.proc = p
	c.opt.Logf("node %d started, pid %d", i, p.cmd.Process.Pid)
	return nil
}

// Kill ends the process of a node as a power cut would, without a word.
func (c *Cluster) Kill(i int) error { return c.end(i, syscall.SIGKILL) }

// Pause stops a node's process in its tracks; Continue lets it go on.
func (c *Cluster) Pause(i int) error { return c.Nodes[i].proc.signal(syscall.SIGSTOP) }

// Continue is the opposite of Pause.
func (c *Cluster) Continue(i int) error { return c.Nodes[i].proc.signal(syscall.SIGCONT) }

func (c *Cluster) end(i int, s syscall.Signal) error {
	c.opt.Logf("node %d gets %v", i, s)
	return c.Nodes[i].proc.signal(s)
}

// Running says whether a node's process runs.
func (c *Cluster) Running(i int) bool {
	p := c.Nodes[i].proc
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Exit returns the exit code of a node whose process has ended or is about to.
func (c *Cluster) Exit(i int) (code int, err error) { return c.Nodes[i].proc.exit() }

// Cut drops what one node sends to another, or lets it through again.
func (c *Cluster) Cut(from, to int, cut bool) { c.net.setCut(from, to, cut) }

// Isolate cuts a node off from all others, both ways, or brings it back.
func (c *Cluster) Isolate(i int, off bool) {
	c.opt.Logf("node %d isolated: %t", i, off)
	for j := range c.Nodes {
		if j != i {
			c.Cut(i, j, off)
			c.Cut(j, i, off)
		}
	}
}

// Status asks one node.
func (c *Cluster) Status(ctx context.Context, i int) (*cretov1.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return cretov1.NewClusterServiceClient(c.Nodes[i].admin).Status(ctx, &cretov1.StatusRequest{})
}

// Leader returns the node that a majority of the running ones calls leader, and is it by its own account.
func (c *Cluster) Leader(ctx context.Context) (int, error) {
	leader := -1
	err := Eventually(ctx, 20*time.Second, "a leader", func(ctx context.Context) error {
		for i := range c.Nodes {
			if !c.Running(i) {
				continue
			}
			s, err := c.Status(ctx, i)
			if err == nil && s.GetRole() == "leader" && c.followed(ctx, s.GetNodeId()) {
				leader = i
				return nil
			}
		}
		return errors.New("nobody leads")
	})
	return leader, err
}

func (c *Cluster) followed(ctx context.Context, id string) bool {
	n := 0
	for i := range c.Nodes {
		if c.Running(i) {
			if s, err := c.Status(ctx, i); err == nil && s.GetLeaderId() == id {
				n++
			}
		}
	}
	return n > c.opt.Nodes/2
}

// WaitReady waits until every running node says that it is ready.
func (c *Cluster) WaitReady(ctx context.Context) error {
	for i := range c.Nodes {
		if c.Running(i) {
			if err := c.WaitNode(ctx, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// WaitNode waits until a node says that it is ready.
func (c *Cluster) WaitNode(ctx context.Context, i int) error {
	n := c.Nodes[i]
	return Eventually(ctx, 30*time.Second, fmt.Sprintf("node %d ready", i), func(ctx context.Context) error {
		if !c.Running(i) {
			return fmt.Errorf("process has ended: %s", tail(n.Log))
		}
		b, err := Get(ctx, "http://"+n.Metrics+"/readyz", "")
		if err != nil {
			return fmt.Errorf("%w %s", err, b)
		}
		return nil
	})
}

// Get fetches a URL, with a bearer token if there is one.
func Get(ctx context.Context, url, token string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s: %s", url, resp.Status)
	}
	return b, err
}

// Settle waits until all running nodes have applied the same commands, nothing is left to seal, and everything is published.
// Nobody may be writing.
func (c *Cluster) Settle(ctx context.Context) error {
	// The leader seals at most every 250 ms while there is news: after more than twice that without a change there is none.
	const quiet = 600 * time.Millisecond
	var hash []byte
	since := time.Now()
	return Eventually(ctx, 60*time.Second, "nodes to agree", func(ctx context.Context) error {
		for i := range c.Nodes {
			if !c.Running(i) {
				continue
			}
			s, err := c.Status(ctx, i)
			switch {
			case err != nil:
				return fmt.Errorf("node %d: %w", i, err)
			case !bytes.Equal(s.GetStateHash(), hash):
				hash, since = s.GetStateHash(), time.Now()
				return fmt.Errorf("node %d is at epoch %d, and not where another is, or was", i, s.GetEpoch())
			case s.GetPublishedEpoch() != s.GetEpoch():
				return fmt.Errorf("node %d has published epoch %d of %d", i, s.GetPublishedEpoch(), s.GetEpoch())
			}
		}
		if time.Since(since) < quiet {
			return errors.New("something was applied a moment ago")
		}
		return nil
	})
}

// Stop ends all running nodes in order and reports those that did not exit with 0.
func (c *Cluster) Stop() error {
	var errs []error
	for i := range c.Nodes {
		if c.Running(i) {
			if err := c.Nodes[i].proc.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				errs = append(errs, err)
			}
		}
	}
	for i, n := range c.Nodes {
		if n.proc == nil || n.Gone {
			continue
		}
		if code, err := n.proc.exit(); code > 0 {
			errs = append(errs, fmt.Errorf("node %d exits with %d (%v): %s", i, code, err, tail(n.Log)))
		}
	}
	return errors.Join(errs...)
}

// Close ends everything that is still running.
func (c *Cluster) Close() {
	for _, n := range c.Nodes {
		if n.proc != nil {
			_ = n.proc.signal(syscall.SIGKILL)
		}
	}
	for _, x := range c.conns {
		_ = x.Close()
	}
	if c.net != nil {
		c.net.close()
	}
}

// Checkpoint is one checkpoint that a node has shown.
type Checkpoint struct {
	Node   int
	Tenant nhi.ID // zero: the spine
	verify.Checkpoint
}

// Checkpoints fetches the checkpoint of the spine, and of a tenant if it has a token, from every running node.
func (c *Cluster) Checkpoints(ctx context.Context, t *Tenant) ([]Checkpoint, error) {
	var out []Checkpoint
	for i, n := range c.Nodes {
		if !c.Running(i) {
			continue
		}
		fetch := func(path, token string, tenant nhi.ID) error {
			b, err := Get(ctx, "http://"+n.Read+path+"/checkpoint", token)
			if err != nil {
				return fmt.Errorf("node %d: %w", i, err)
			}
			text, err := verify.ParseNote(b)
			if err != nil {
				return fmt.Errorf("node %d: %w", i, err)
			}
			cp, err := verify.ParseCheckpoint(text.Text)
			if err != nil {
				return fmt.Errorf("node %d: %w", i, err)
			}
			out = append(out, Checkpoint{Node: i, Tenant: tenant, Checkpoint: cp})
			return nil
		}
		if err := fetch("/spine", "", nhi.ID{}); err != nil {
			return nil, err
		}
		if t != nil {
			if err := fetch("/t/"+t.ID.String(), t.Token, t.ID); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// Eventually calls fn until it returns nil, for at most limit.
func Eventually(ctx context.Context, limit time.Duration, what string, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := fn(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w (%w)", what, err, ctx.Err())
		case <-tick.C:
		}
	}
}

// tail returns the end of a log file, for messages.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// PID returns the process id of a node.
func (c *Cluster) PID(i int) int { return c.Nodes[i].proc.cmd.Process.Pid }
