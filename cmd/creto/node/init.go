package node

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/keyfile"
	"github.com/creto-systems/creto/nhi/spiffe"
)

// InitNode are the addresses of one of the first voters.
type InitNode struct {
	Peer    string // host:port of its Raft listener, as the others dial it; required
	GRPC    string // host:port of its gRPC listener; required
	Read    string // optional
	Metrics string // optional
}

// InitConfig says what cluster to make. Empty fields mean their defaults.
type InitConfig struct {
	Dir         string // where the directories go: node1 …, admin, ca; must be empty
	Cluster     string // name, the first part of every origin; default "creto"
	TrustDomain string // of SPIFFE ids; default the cluster's name followed by ".internal"
	Cell        uint64 // default 1
	Test        bool   // the ledger's clock can be moved, and every stamp says so
	Nodes       []InitNode
	Plain       bool          // read and metrics listeners speak plain HTTP (loopback only)
	CAOnNodes   bool          // nodes refer to the CA in Dir: for clusters on one machine
	Passphrase  string        // protects the admin's key; empty = the key lies in the open
	TTL         time.Duration // of SVIDs; default 30 days
	Raft        RaftConfig

	Random io.Reader // default crypto/rand
	Now    time.Time // default now
}

// InitResult says what Init has made.
type InitResult struct {
	LedgerID  nhi.Digest
	Genesis   *ledger.Genesis
	NodeDirs  []string
	NodeIDs   []nhi.ID
	Admin     nhi.ID
	AdminKey  string       // keyfile of the admin
	AdminSVID spiffe.Files // certificate, key and trust bundle
	CADir     string
}

// Init makes a new cluster: genesis, certificate authority, log key, and one directory for each of the first voters, to be
// taken to its machine. Nothing of it is on a network yet. The CA's key is in Dir/ca and nowhere else; it never enters the
// log. An interrupted Init leaves a directory that is not empty and is to be deleted.
func Init(c InitConfig) (*InitResult, error) {
	c.ensureDefaults()
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("init: %w", err)
	}
	r, err := c.make()
	if err != nil {
		return nil, fmt.Errorf("init: %w", err)
	}
	return r, nil
}

func (c *InitConfig) ensureDefaults() {
	if c.Cluster == "" {
		c.Cluster = "creto"
	}
	if c.TrustDomain == "" {
		c.TrustDomain = strings.ReplaceAll(c.Cluster, "/", ".") + ".internal"
	}
	if c.Cell == 0 {
		c.Cell = 1
	}
	if c.TTL == 0 {
		c.TTL = spiffe.MaxTTL
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Now.IsZero() {
		c.Now = time.Now()
	}
}

func (c *InitConfig) validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("directory is missing"))
	}
	if n := len(c.Nodes); n < 1 || n > 9 || n%2 == 0 {
		errs = append(errs, fmt.Errorf("%d nodes: an odd number up to 9 tolerates the most failures", n))
	}
	seen := make(map[string]bool)
	for i, n := range c.Nodes {
		for _, a := range []string{n.Peer, n.GRPC} {
			if _, _, err := net.SplitHostPort(a); err != nil {
				errs = append(errs, fmt.Errorf("address %q of node %d is not host:port", a, i+1))
			} else if seen[a] {
				errs = append(errs, fmt.Errorf("address %q is used twice", a))
			}
			seen[a] = true
		}
	}
	return errors.Join(errs...)
}

func (c *InitConfig) make() (*InitResult, error) {
	if err := emptyDir(c.Dir); err != nil {
		return nil, err
	}
	r := &InitResult{CADir: filepath.Join(c.Dir, caDir), AdminKey: filepath.Join(c.Dir, "admin", "admin.key")}
	ca, err := spiffe.NewCA(c.Random, c.TrustDomain, c.Now)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(r.CADir, 0o700); err != nil {
		return nil, fmt.Errorf("create directory: %w", err)
	}
	if err := ca.Save(r.CADir); err != nil {
		return nil, err
	}
	logSeed, kek := make([]byte, ed25519.SeedSize), make([]byte, 32)
	for _, b := range [][]byte{logSeed, kek} {
		if _, err := io.ReadFull(c.Random, b); err != nil {
			return nil, fmt.Errorf("draw key: %w", err)
		}
	}
	logPublic := ed25519.NewKeyFromSeed(logSeed).Public().(ed25519.PublicKey)
	logKey, err := verify.NewVKey(verify.SpineOrigin(c.Cluster), verify.KeyEd25519, logPublic)
	if err != nil {
		return nil, err
	}
	g := &ledger.Genesis{
		V: 1, Cluster: c.Cluster, Cell: c.Cell, TrustDomain: c.TrustDomain, Test: c.Test, Threshold: 1, LogKey: logKey.String(),
		Created: c.Now.UnixNano(),
	}
	if _, err := io.ReadFull(c.Random, g.Nonce[:]); err != nil {
		return nil, fmt.Errorf("draw nonce: %w", err)
	}
	admin, err := newNodeKeys(c.Random)
	if err != nil {
		return nil, err
	}
	g.Admins = []ledger.GenesisAdmin{{ID: admin.id, Suite: admin.key.Public().Suite(), Public: admin.key.Public().Bytes()}}
	nodes := make([]*nodeKeys, len(c.Nodes))
	for i := range c.Nodes {
		if nodes[i], err = newNodeKeys(c.Random); err != nil {
			return nil, err
		}
		k := nodes[i]
		g.Nodes = append(g.Nodes, ledger.GenesisNode{
			ID: k.id, Suite: k.key.Public().Suite(), Public: k.key.Public().Bytes(), Ed: k.edPublic(), PQ: k.pq.Public(),
			Address: c.Nodes[i].Peer,
		})
		r.NodeIDs = append(r.NodeIDs, k.id)
	}
	raw, err := g.Encode()
	if err != nil {
		return nil, err
	}
	r.LedgerID, r.Genesis, r.Admin = ledger.LedgerID(raw), g, admin.id
	bundle, err := ca.Bundle()
	if err != nil {
		return nil, err
	}
	if err := c.writeAdmin(r, ca, bundle, admin); err != nil {
		return nil, err
	}
	for i, k := range nodes {
		dir := filepath.Join(c.Dir, fmt.Sprintf("node%d", i+1))
		r.NodeDirs = append(r.NodeDirs, dir)
		if err := c.writeNode(dir, i, r, ca, bundle, k, raw, logSeed, kek); err != nil {
			return nil, fmt.Errorf("node %d: %w", i+1, err)
		}
	}
	return r, nil
}

func (c *InitConfig) writeAdmin(r *InitResult, ca *spiffe.CA, bundle *spiffe.Bundle, admin *nodeKeys) error {
	dir := filepath.Dir(r.AdminKey)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	k := keyfile.Key{Role: "admin", ID: admin.id, Suite: admin.key.Public().Suite(), Seed: admin.key.Seed()}
	write := func() error { return keyfile.WritePlain(r.AdminKey, k) }
	if c.Passphrase != "" {
		write = func() error { return keyfile.Write(r.AdminKey, c.Passphrase, k) }
	}
	if err := write(); err != nil {
		return err
	}
	r.AdminSVID = svidFiles(dir)
	svid, err := ca.NewSVID(spiffe.Order{Principal: systemPrincipal(c.TrustDomain, spiffe.RoleAdmin, admin.id), TTL: c.TTL}, c.Now)
	if err != nil {
		return err
	}
	return saveSVID(r.AdminSVID, svid, bundle)
}

func (c *InitConfig) writeNode(dir string, i int, r *InitResult, ca *spiffe.CA, bundle *spiffe.Bundle, k *nodeKeys, genesis, logSeed, kek []byte) error {
	n := c.Nodes[i]
	cfg := Config{
		Listen:    ListenConfig{Peer: n.Peer, GRPC: n.GRPC, Read: n.Read, Metrics: n.Metrics},
		PlainRead: c.Plain, PlainMetrics: c.Plain, Raft: c.Raft,
	}
	if c.Test {
		// A laptop's disk may be nearly full for good.
		cfg.Disk = DiskConfig{MinFreePercent: 1, BallastBytes: -1}
	}
	if c.CAOnNodes {
		abs, err := filepath.Abs(r.CADir)
		if err != nil {
			return fmt.Errorf("find directory of the CA: %w", err)
		}
		cfg.CADir = abs
	}
	for j, p := range c.Nodes {
		if j != i {
			cfg.Peers = append(cfg.Peers, PeerConfig{ID: r.NodeIDs[j], Peer: p.Peer, GRPC: p.GRPC})
		}
	}
	order := spiffe.Order{Principal: systemPrincipal(c.TrustDomain, spiffe.RoleNode, k.id), TTL: c.TTL}
	order.DNSNames, order.IPs = hostsOf(n.Peer, n.GRPC, n.Read)
	svid, err := ca.NewSVID(order, c.Now)
	if err != nil {
		return err
	}
	return writeNodeDir(dir, &cfg, firstBootstrap, k, genesis, logSeed, kek, svid, bundle)
}

// writeNodeDir makes the directory of a voter. The configuration comes last: with it, the directory is complete.
func writeNodeDir(dir string, cfg *Config, start string, k *nodeKeys, genesis, logSeed, kek []byte, svid *spiffe.SVID, bundle *spiffe.Bundle) error {
	if err := emptyDir(dir, pendingFile); err != nil {
		return err
	}
	for _, d := range []string{keysDir, svidDir, localDir} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return fmt.Errorf("create directory: %w", err)
		}
	}
	if err := createFile(filepath.Join(dir, genesisFile), genesis, 0o600); err != nil {
		return err
	}
	key := keyfile.Key{Role: "node", ID: k.id, Suite: k.key.Public().Suite(), Seed: k.key.Seed()}
	if err := keyfile.WritePlain(filepath.Join(dir, nodeKeyFile), key); err != nil {
		return err
	}
	for _, s := range []struct {
		name string
		data []byte
	}{{edSeedFile, k.ed.Seed()}, {pqSeedFile, k.pq.Seed()}, {logSeedFile, logSeed}, {kekFile, kek}} {
		if err := writeSecret(filepath.Join(dir, s.name), s.data); err != nil {
			return err
		}
	}
	if err := saveSVID(svidFiles(filepath.Join(dir, svidDir)), svid, bundle); err != nil {
		return err
	}
	if err := createFile(filepath.Join(dir, firstStartFile), []byte(start), 0o600); err != nil {
		return err
	}
	text, err := cfg.YAML()
	if err != nil {
		return err
	}
	return createFile(filepath.Join(dir, ConfigFile), text, 0o600)
}

func saveSVID(f spiffe.Files, svid *spiffe.SVID, bundle *spiffe.Bundle) error {
	if err := svid.Save(f); err != nil {
		return err
	}
	return replaceFile(f.Bundle, bundle.PEM(), 0o644)
}

// RenewSVID issues a new SVID, with a new key, for the principal of the SVID in a directory (a node's "svid", or "admin"),
// from the CA in another. A running node takes it up within a minute.
func RenewSVID(ca, dir string, ttl time.Duration, now time.Time) (expires time.Time, err error) {
	c, err := spiffe.LoadCA(ca, rand.Reader)
	if err != nil {
		return time.Time{}, fmt.Errorf("renew SVID: %w", err)
	}
	f := svidFiles(dir)
	old, err := spiffe.LoadSVID(f)
	if err != nil {
		return time.Time{}, fmt.Errorf("renew SVID: %w", err)
	}
	svid, err := c.NewSVID(orderLike(old, ttl), now)
	if err != nil {
		return time.Time{}, fmt.Errorf("renew SVID: %w", err)
	}
	if err := svid.Save(f); err != nil {
		return time.Time{}, fmt.Errorf("renew SVID: %w", err)
	}
	return svid.Certificate().NotAfter, nil
}

// IssueSVID issues an SVID from the CA in one directory, with a new key, into another one, which must be empty. Who may have it
// is the caller's to decide.
func IssueSVID(ca, dir string, p spiffe.Principal, ttl time.Duration, now time.Time) (files spiffe.Files, expires time.Time, err error) {
	fail := func(err error) (spiffe.Files, time.Time, error) {
		return spiffe.Files{}, time.Time{}, fmt.Errorf("issue SVID: %w", err)
	}
	c, err := spiffe.LoadCA(ca, rand.Reader)
	if err != nil {
		return fail(err)
	}
	bundle, err := c.Bundle()
	if err != nil {
		return fail(err)
	}
	svid, err := c.NewSVID(spiffe.Order{Principal: p, TTL: ttl}, now)
	if err != nil {
		return fail(err)
	}
	if err := emptyDir(dir); err != nil {
		return fail(err)
	}
	files = svidFiles(dir)
	if err := saveSVID(files, svid, bundle); err != nil {
		return fail(err)
	}
	return files, svid.Certificate().NotAfter, nil
}

// orderLike orders the SVID that follows another one.
func orderLike(old *spiffe.SVID, ttl time.Duration) spiffe.Order {
	if ttl == 0 {
		ttl = spiffe.MaxTTL
	}
	c := old.Certificate()
	return spiffe.Order{Principal: old.Principal(), TTL: ttl, DNSNames: c.DNSNames, IPs: c.IPAddresses}
}

func systemPrincipal(trustDomain string, role spiffe.Role, id nhi.ID) spiffe.Principal {
	return spiffe.Principal{TrustDomain: trustDomain, System: true, Role: role, ID: id}
}

// hostsOf returns the names and IP addresses of host:port addresses, each once.
func hostsOf(addresses ...string) (names []string, ips []net.IP) {
	seen := make(map[string]bool)
	for _, a := range addresses {
		host, _, err := net.SplitHostPort(a)
		if err != nil || host == "" || seen[host] {
			continue
		}
		seen[host] = true
		if ip := net.ParseIP(host); ip != nil {
			if !ip.IsUnspecified() {
				ips = append(ips, ip)
			}
		} else {
			names = append(names, host)
		}
	}
	return names, ips
}

// nodeKeys are the private keys of a new node (or admin, who uses only the first).
type nodeKeys struct {
	id  nhi.ID
	key *nhi.PrivateKey
	ed  ed25519.PrivateKey
	pq  *nhi.MLDSA44PrivateKey
}

func newNodeKeys(random io.Reader) (*nodeKeys, error) {
	k := new(nodeKeys)
	var err error
	if k.id, err = nhi.NewID(random); err != nil {
		return nil, err
	}
	if k.key, err = nhi.GenerateKey(random); err != nil {
		return nil, err
	}
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, fmt.Errorf("draw key: %w", err)
	}
	k.ed = ed25519.NewKeyFromSeed(seed)
	if k.pq, err = nhi.GenerateMLDSA44(random); err != nil {
		return nil, err
	}
	return k, nil
}

func (k *nodeKeys) edPublic() []byte { return k.ed.Public().(ed25519.PublicKey) }
