package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/edge"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/keyfile"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/nhi/spiffe"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// DefaultDevPort is the first port of a development cluster: node i of 0, 1, 2 has its Raft, gRPC, read and metrics
// listeners on DefaultDevPort + 10·i + 0, 1, 2 and 3.
const DefaultDevPort = 7400

// Raft's timers of a development cluster: its network is one machine's loopback.
var devRaft = RaftConfig{Heartbeat: 700 * time.Millisecond, Election: 700 * time.Millisecond, LeaderLease: 700 * time.Millisecond}

// DevConfig says how to start a development cluster.
type DevConfig struct {
	Dir   string // kept; empty = a temporary one, deleted by Close
	Port  int    // first port; 0 = free ones (see DefaultDevPort)
	Nodes int    // default 3

	Logger  *slog.Logger // default: nothing is logged
	Clock   *TestClock   // shared by the nodes; default: a new one
	Version string
	Raft    RaftConfig // default: short timers
}

// Dev is a development cluster: nodes in one process on loopback, with a test genesis and a tenant. Whatever happens to one
// node, the others go on.
type Dev struct {
	Dir       string
	Clock     *TestClock
	LedgerID  nhi.Digest
	Admin     nhi.ID
	AdminKey  *nhi.PrivateKey
	AdminSVID spiffe.Files
	CADir     string

	Tenant       nhi.ID
	Authority    nhi.ID
	AuthorityKey *nhi.PrivateKey
	ReadToken    string
	TrustFile    string

	cfg       DevConfig
	temporary bool
	dirs      []string

	mu    sync.Mutex
	nodes []*devNode // guarded by mu
}

// devNode is one node that runs, or has run.
type devNode struct {
	server *Server
	stop   context.CancelFunc
	done   chan struct{} // closed when Run has returned and the node is closed
	err    error         // valid after done
}

// StartDev starts a development cluster, makes it if the directory is empty, and returns when writes work. The nodes run
// until ctx ends or Close is called.
func StartDev(ctx context.Context, cfg DevConfig) (_ *Dev, err error) {
	if cfg.Nodes == 0 {
		cfg.Nodes = 3
	}
	if cfg.Clock == nil {
		cfg.Clock = new(TestClock)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Raft == (RaftConfig{}) {
		cfg.Raft = devRaft
	}
	d := &Dev{cfg: cfg, Clock: cfg.Clock, Dir: cfg.Dir}
	defer func() {
		if err != nil {
			err = fmt.Errorf("start development cluster: %w", errors.Join(err, d.Close()))
		}
	}()
	if d.Dir == "" {
		if d.Dir, err = os.MkdirTemp("", "creto-dev-"); err != nil {
			return nil, err
		}
		d.temporary = true
	}
	if d.Dir, err = filepath.Abs(d.Dir); err != nil {
		return nil, err
	}
	if err := d.start(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Dev) start(ctx context.Context) error {
	listeners, err := d.listen()
	if err != nil {
		return err
	}
	if err := d.prepare(listeners); err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	for i := range d.dirs {
		if err := d.startNode(ctx, i, listeners); err != nil {
			return errors.Join(err, closeAll(listeners[i:]))
		}
	}
	for _, n := range d.running() {
		select {
		case <-n.server.Ready():
		case <-n.done:
			return fmt.Errorf("node %s: %w", n.server.ID(), n.err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := d.makeTenant(ctx); err != nil {
		return err
	}
	return d.writeTrust()
}

// listen opens the listeners of all nodes, before their addresses go into the genesis.
func (d *Dev) listen() ([]Listeners, error) {
	all := make([]Listeners, d.cfg.Nodes)
	for i := range all {
		for k, l := range []*net.Listener{&all[i].Peer, &all[i].GRPC, &all[i].Read, &all[i].Metrics} {
			port := 0
			if d.cfg.Port != 0 {
				port = d.cfg.Port + 10*i + k
			}
			var err error
			if *l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
				return nil, errors.Join(&PortError{Port: port, Err: err}, closeAll(all))
			}
		}
	}
	return all, nil
}

// PortError says that a port of a development cluster cannot be had.
type PortError struct {
	Port int
	Err  error
}

func (e *PortError) Error() string { return fmt.Sprintf("port %d of 127.0.0.1: %v", e.Port, e.Err) }

// Unwrap returns the cause.
func (e *PortError) Unwrap() error { return e.Err }

// Hint says what to do about it.
func (e *PortError) Hint() string {
	return "another development cluster may be running: stop it, or choose other ports (--port 0 takes free ones)"
}

func closeAll(all []Listeners) error {
	var errs []error
	for _, l := range all {
		for _, x := range []net.Listener{l.Peer, l.GRPC, l.Read, l.Metrics} {
			if x != nil {
				if err := x.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
					errs = append(errs, err)
				}
			}
		}
	}
	return errors.Join(errs...)
}

// prepare makes the directories of a new cluster, or reads those of one that was stopped.
func (d *Dev) prepare(listeners []Listeners) error {
	entries, err := os.ReadDir(d.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(entries) == 0 {
		c := InitConfig{Dir: d.Dir, Cluster: "dev.creto", TrustDomain: "dev.creto.internal", Test: true, Plain: true, CAOnNodes: true, Raft: d.cfg.Raft, Now: time.Now()}
		for _, l := range listeners {
			c.Nodes = append(c.Nodes, InitNode{
				Peer: l.Peer.Addr().String(), GRPC: l.GRPC.Addr().String(), Read: l.Read.Addr().String(), Metrics: l.Metrics.Addr().String(),
			})
		}
		if _, err := Init(c); err != nil {
			return err
		}
	}
	for i := range d.cfg.Nodes {
		d.dirs = append(d.dirs, filepath.Join(d.Dir, fmt.Sprintf("node%d", i+1)))
	}
	raw, err := os.ReadFile(filepath.Join(d.dirs[0], genesisFile))
	if err != nil {
		return fmt.Errorf("%s is not the directory of a development cluster: %w", d.Dir, err)
	}
	g, err := ledger.DecodeGenesis(raw)
	if err != nil {
		return err
	}
	if !g.Test || len(g.Nodes) != d.cfg.Nodes {
		return fmt.Errorf("%s is not the directory of a development cluster of %d nodes", d.Dir, d.cfg.Nodes)
	}
	d.LedgerID = ledger.LedgerID(raw)
	d.CADir = filepath.Join(d.Dir, caDir)
	d.AdminSVID = svidFiles(filepath.Join(d.Dir, "admin"))
	k, _, err := keyfile.Read(d.adminKeyFile(), nil)
	if err != nil {
		return err
	}
	d.Admin = k.ID
	d.AdminKey, err = k.Private()
	return err
}

func (d *Dev) adminKeyFile() string          { return filepath.Join(d.Dir, "admin", "admin.key") }
func (d *Dev) tenantFile(name string) string { return filepath.Join(d.Dir, "tenant", name) }

// startNode starts node i. The nodes' addresses of this run override those in their files.
func (d *Dev) startNode(ctx context.Context, i int, listeners []Listeners) error {
	cfg, err := LoadConfig(filepath.Join(d.dirs[i], ConfigFile))
	if err != nil {
		return err
	}
	if listeners != nil {
		ids, err := d.nodeIDs()
		if err != nil {
			return err
		}
		cfg.Peers = nil
		for j, l := range listeners {
			if j != i {
				cfg.Peers = append(cfg.Peers, PeerConfig{ID: ids[j], Peer: l.Peer.Addr().String(), GRPC: l.GRPC.Addr().String()})
			}
		}
	} else {
		// One node begins again where it was.
		cfg.Peers = nil
		for j, n := range d.running() {
			if j == i {
				l := n.server.addresses
				cfg.Listen.Peer, cfg.Listen.GRPC, cfg.Listen.Read, cfg.Listen.Metrics = l.Peer, l.GRPC, l.Read, l.Metrics
			} else {
				cfg.Peers = append(cfg.Peers, PeerConfig{ID: n.server.ID(), Peer: n.server.addresses.Peer, GRPC: n.server.addresses.GRPC})
			}
		}
	}
	cfg.Raft = d.cfg.Raft
	opt := Options{Clock: d.Clock, Logger: d.cfg.Logger, Version: d.cfg.Version}
	if listeners != nil {
		opt.Listeners = listeners[i]
	}
	s, err := New(*cfg, opt)
	if err != nil {
		return err
	}
	d.run(ctx, i, s)
	return nil
}

// run runs a server as node i until ctx ends or the node is stopped.
func (d *Dev) run(ctx context.Context, i int, s *Server) {
	ctx, stop := context.WithCancel(ctx)
	n := &devNode{server: s, stop: stop, done: make(chan struct{})}
	d.mu.Lock()
	if i < len(d.nodes) {
		d.nodes[i] = n
	} else {
		d.nodes = append(d.nodes, n)
	}
	d.mu.Unlock()
	// The goroutine ends with ctx; StopNode and Close wait for it.
	go func() {
		defer close(n.done)
		err := s.Run(ctx)
		n.err = errors.Join(err, s.Close())
	}()
}

func (d *Dev) nodeIDs() ([]nhi.ID, error) {
	var ids []nhi.ID
	for _, dir := range d.dirs {
		k, _, err := keyfile.Read(filepath.Join(dir, nodeKeyFile), nil)
		if err != nil {
			return nil, err
		}
		ids = append(ids, k.ID)
	}
	return ids, nil
}

func (d *Dev) running() []*devNode {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.nodes)
}

// Servers are the nodes, running or stopped.
func (d *Dev) Servers() []*Server {
	var out []*Server
	for _, n := range d.running() {
		out = append(out, n.server)
	}
	return out
}

// Leader returns the position of the node that leads, -1 if none does.
func (d *Dev) Leader() int {
	for i, n := range d.running() {
		select {
		case <-n.done:
		default:
			if n.server.Leading() {
				return i
			}
		}
	}
	return -1
}

// StopNode stops one node in order and returns what its Run and Close returned.
func (d *Dev) StopNode(i int) error {
	n := d.running()[i]
	n.stop()
	<-n.done
	return n.err
}

// StartNode starts a stopped node again, on its addresses, and returns when it is ready.
func (d *Dev) StartNode(ctx context.Context, i int) error {
	if err := d.startNode(ctx, i, nil); err != nil {
		return err
	}
	n := d.running()[i]
	select {
	case <-n.server.Ready():
		return nil
	case <-n.done:
		return n.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Wait returns when some node has stopped, with its error.
func (d *Dev) Wait() error {
	done := make(chan error, len(d.running()))
	for _, n := range d.running() {
		go func() {
			<-n.done
			done <- n.err
		}()
	}
	return <-done
}

// Close stops all nodes at once and, where the directory is temporary, deletes it.
func (d *Dev) Close() error {
	var g errgroup.Group
	for _, n := range d.running() {
		n.stop()
		g.Go(func() error {
			<-n.done
			return n.err
		})
	}
	err := g.Wait()
	if d.temporary {
		err = errors.Join(err, os.RemoveAll(d.Dir))
	}
	return err
}

// makeTenant makes the tenant "demo": ids, authority key and read token are on disk before they are on the log, so that an
// interrupted start goes on where it was.
func (d *Dev) makeTenant(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(d.Dir, "tenant"), 0o700); err != nil {
		return err
	}
	if err := d.tenantKeys(); err != nil {
		return err
	}
	s := d.running()[0].server
	have, registered, err := d.lookTenant(ctx, s)
	if err != nil || registered {
		return err
	}
	pk := d.AuthorityKey.Public()
	pop, err := registry.NewPossession(d.AuthorityKey, d.LedgerID, d.Tenant, d.Authority, registry.Authority)
	if err != nil {
		return err
	}
	create := &ledger.TenantCreateBody{
		Tenant: d.Tenant, Authority: d.Authority, Suite: pk.Suite(), Public: pk.Bytes(), Possession: pop, Zone: "UTC",
		ReadToken: sha256.Sum256([]byte(d.ReadToken)),
	}
	if !have {
		if err := d.submit(ctx, s, nhi.ID{}, d.AdminKey, d.Admin, ledger.KindTenantCreate, create); err != nil {
			return err
		}
	}
	reg, err := registry.NewRegistration(d.AuthorityKey, d.LedgerID, d.Tenant, d.Authority, registry.Authority)
	if err != nil {
		return err
	}
	return d.submit(ctx, s, d.Tenant, d.AuthorityKey, d.Authority, registry.KindRegister, reg)
}

// lookTenant says how far an earlier start has come: nothing is asked of the log twice.
func (d *Dev) lookTenant(ctx context.Context, s *Server) (have, registered bool, err error) {
	for {
		err = s.tenantRead(ctx, d.Tenant[:], cretov1.Consistency_CONSISTENCY_LINEARIZABLE, func(_ *ledger.Snapshot, _ ledger.Tenant, info *cretov1.ReadInfo) error {
			have, registered = true, info.GetTreeSize() > 0
			return nil
		})
		if err == nil {
			return have, registered, nil
		}
		switch classify(err).Kind {
		case KindNotFound:
			return false, false, nil
		case KindUnavailable:
			if err := pause(ctx); err != nil {
				return false, false, err
			}
		default:
			return false, false, err
		}
	}
}

// pause waits before something is tried again.
func pause(ctx context.Context) error {
	timer := time.NewTimer(edge.RetryAfter)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (d *Dev) tenantKeys() error {
	path := d.tenantFile("authority.key")
	k, _, err := keyfile.Read(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		token := make([]byte, 24)
		if _, err := rand.Read(token); err != nil {
			return err
		}
		if err := replaceFile(d.tenantFile("read-token"), []byte("creto-read-"+hex.EncodeToString(token)+"\n"), 0o600); err != nil {
			return err
		}
		key, err := nhi.GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		k = keyfile.Key{Role: "authority", Suite: key.Public().Suite(), Seed: key.Seed()}
		if k.ID, err = nhi.NewID(rand.Reader); err != nil {
			return err
		}
		if k.Tenant, err = nhi.NewID(rand.Reader); err != nil {
			return err
		}
		if err := keyfile.WritePlain(path, k); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	d.Tenant, d.Authority = k.Tenant, k.ID
	if d.AuthorityKey, err = k.Private(); err != nil {
		return err
	}
	token, err := os.ReadFile(d.tenantFile("read-token"))
	d.ReadToken = strings.TrimSpace(string(token))
	return err
}

// submit commits one event, again while leadership moves; what exists already is fine.
func (d *Dev) submit(ctx context.Context, s *Server, tenant nhi.ID, key nhi.Signer, agent nhi.ID, kind string, body interface{ Encode() ([]byte, error) }) error {
	raw, err := body.Encode()
	if err != nil {
		return err
	}
	e, err := newEvent(rand.Reader, d.LedgerID, tenant, kind, agent, d.Clock.Now().UnixNano(), raw)
	if err != nil {
		return err
	}
	for {
		rs, err := s.commit(ctx, tenant, key, e)
		switch {
		case errors.Is(err, edge.ErrUnavailable), errors.Is(err, edge.ErrPushback):
			if err := pause(ctx); err != nil {
				return err
			}
			continue
		case err != nil:
			return fmt.Errorf("%s: %w", kind, err)
		}
		r := rs[0]
		if (r.State == ledger.Sequenced || r.State == ledger.Duplicate) && (r.Outcome.Accepted() || r.Outcome == verify.OutcomeExists) {
			return nil
		}
		return fmt.Errorf("%s was refused: %s, %s (%s)", kind, r.State, r.Outcome, r.Reason)
	}
}

func (d *Dev) writeTrust() error {
	t, err := d.running()[0].server.Trust()
	if err != nil {
		return err
	}
	d.TrustFile = filepath.Join(d.Dir, "trust.txt")
	return replaceFile(d.TrustFile, t.Format(), 0o644)
}

// Ready describes the cluster.
func (d *Dev) Ready() (*ReadyFile, error) {
	nodes := d.running()
	id := nodes[0].server.identity
	spine, err := verify.ParseVKey(id.genesis.LogKey)
	if err != nil {
		return nil, err
	}
	origin := verify.TenantOrigin(id.genesis.Cluster, d.Tenant)
	vkey, err := verify.NewVKey(origin, verify.KeyEd25519, id.keys.Log.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	r := &ReadyFile{
		Tenant: d.Tenant.String(), ReadToken: d.ReadToken, AdminCert: d.AdminSVID.Cert, AdminKey: d.AdminSVID.Key, CA: d.AdminSVID.Bundle,
		Trust: d.TrustFile, Origin: origin, VKey: vkey.String(), SpineOrigin: spine.Name, SpineVKey: spine.String(), DataDir: d.Dir,
		PID: os.Getpid(), LedgerID: hex.EncodeToString(d.LedgerID[:]), Admin: d.Admin.String(), AdminSigner: d.adminKeyFile(),
		Authority: d.Authority.String(), AuthorityKey: d.tenantFile("authority.key"), Test: id.genesis.Test,
	}
	for _, n := range nodes {
		r.GRPC = append(r.GRPC, n.server.GRPCAddr())
		r.Nodes = append(r.Nodes, n.server.ID().String())
		r.Metrics = append(r.Metrics, "http://"+n.server.MetricsAddr())
		r.Sockets = append(r.Sockets, n.server.AdminSocket())
	}
	url := nodes[0].server.ReadURL()
	r.TenantURL, r.SpineURL = url+"/t/"+r.Tenant, url+"/spine"
	return r, nil
}
