package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/edge"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/keyfile"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/nhi/spiffe"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// joinTokenPrefix begins every join token, so that one is recognised where it does not belong.
const joinTokenPrefix = "creto-join-"

// NewJoinToken draws a join token. Its digest goes to the system log by an admin's admin.join_token.add; the token itself
// to the machine that joins, once.
func NewJoinToken(random io.Reader) (token string, digest nhi.Digest, err error) {
	b := make([]byte, 32)
	if _, err := io.ReadFull(random, b); err != nil {
		return "", nhi.Digest{}, fmt.Errorf("draw join token: %w", err)
	}
	token = joinTokenPrefix + hex.EncodeToString(b)
	return token, sha256.Sum256([]byte(token)), nil
}

// svidRoles are the roles that SVIDs of joined nodes name. A sandbox node's is not a voter's: whoever breaks out of a sandbox
// holds an SVID that neither replicates the log, nor reads one, nor serves a join.
var svidRoles = map[registry.Role]spiffe.Role{registry.RoleVoter: spiffe.RoleNode, registry.RoleSandbox: spiffe.RoleSandbox}

var joinRoles = map[string]registry.Role{"voter": registry.RoleVoter, "sandbox": registry.RoleSandbox}

// errJoin is the one refusal of a token that does not admit: unknown, used, expired, or of another role.
func errJoin() error {
	return &Error{Kind: KindDenied, Message: "the join token does not admit this node", Hint: "tokens admit one node, in one role, once: ask an admin for a new one"}
}

// Join admits a node that knows a token. The token is used up on the log, and the node registered there, before it gets
// anything. As long as the token would live, the same request is answered again: an answer can be lost.
func (c *clusterService) Join(ctx context.Context, req *cretov1.JoinRequest) (*cretov1.JoinResponse, error) {
	s := c.s
	if s.ca == nil {
		return nil, &Error{Kind: KindUnavailable, Message: "this node does not have the cluster's CA", Hint: "join through the node whose ca_dir holds it"}
	}
	token := nhi.Digest(sha256.Sum256([]byte(req.GetToken())))
	role, id := joinRoles[req.GetRole()], nhi.ID(req.GetNodeId())
	// Whoever has no token learns so before any work is done and anything is written.
	known, err := s.joinToken(ctx, token, role)
	if err != nil {
		return nil, err
	}
	key, err := spiffe.ParseCSR(req.GetCsr())
	if err != nil {
		return nil, &Error{Kind: KindInvalid, Message: "certificate request is malformed", Cause: err}
	}
	asked, err := requestDigest(key, id, req.GetPublicKey(), req.GetCosignEd25519(), req.GetCosignMldsa44())
	if err != nil {
		return nil, err
	}
	if !s.admits(known, id, asked) {
		return nil, errJoin()
	}
	order := spiffe.Order{PublicKey: key, Principal: systemPrincipal(s.identity.genesis.TrustDomain, svidRoles[role], id)}
	order.DNSNames, order.IPs = hostsOf(req.GetRaftAddr(), req.GetGrpcAddr())
	order.TTL = spiffe.MaxTTL
	// The certificate is made first, because it can fail, and given last.
	cert, err := s.ca.IssueSVID(order, time.Now())
	if err != nil {
		return nil, &Error{Kind: KindInvalid, Message: "no certificate can be issued for this request", Cause: err}
	}
	add := &ledger.NodeAddBody{
		ID: id, Role: role, Suite: nhi.SuiteMLDSA65Ed25519, Public: req.GetPublicKey(), Possession: req.GetPossession(),
		Ed: req.GetCosignEd25519(), PQ: req.GetCosignMldsa44(), Token: token,
	}
	if _, err := add.Encode(); err != nil {
		return nil, &Error{Kind: KindInvalid, Message: err.Error(), Cause: err}
	}
	if err := registry.CheckPossession(add.Suite, add.Public, s.identity.ledger, nhi.ID{}, id, registry.Node, add.Possession); err != nil {
		return nil, &Error{Kind: KindInvalid, Message: "the node's key is malformed, or its possession is not proved", Cause: err}
	}
	err = s.enrol(ctx, known, asked, add)
	if e, ok := errors.AsType[*Error](err); ok && e.Kind == KindConflict {
		// The same request, whose caller has gone, may still be under way.
		if known, err = s.joinToken(ctx, token, role); err != nil {
			return nil, err
		}
		if known.Redeemer.IsZero() || !s.admits(known, id, asked) {
			return nil, e
		}
		err = s.enrol(ctx, known, asked, add)
	}
	if err != nil {
		return nil, err
	}
	resp := &cretov1.JoinResponse{
		SvidChain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), Bundle: s.source.Bundle().PEM(),
		Genesis: s.identity.raw, Peers: s.peerAddresses(),
	}
	if role == registry.RoleVoter {
		resp.LogKey = s.identity.keys.Log.Seed()
		if resp.Kek, err = readSecret(s.cfg.path(kekFile), 32); err != nil {
			return nil, err
		}
	}
	if req.GetGrpcAddr() != "" && role == registry.RoleVoter {
		if err := s.book.learn(id, req.GetGrpcAddr()); err != nil {
			s.log.Warn("address was not kept", "err", err)
		}
	}
	return resp, nil
}

// joinToken finds a token that lives and is for this role.
func (s *Server) joinToken(ctx context.Context, token nhi.Digest, role registry.Role) (known ledger.JoinToken, err error) {
	if err := s.barrier(ctx); err != nil {
		return known, err
	}
	snap, err := s.ledger.Read()
	if err != nil {
		return known, err
	}
	known, err = snap.JoinToken(token)
	if cerr := snap.Close(); cerr != nil {
		return known, cerr
	}
	if errors.Is(err, ledger.ErrNotFound) || err == nil && (known.Role != role || s.now() >= known.Expires) {
		return known, errJoin()
	}
	return known, err
}

// admits says whether a token may be used by this request: it is fresh, or this very request has used it up. Only the node that
// has redeemed a token can register with it.
func (s *Server) admits(known ledger.JoinToken, id nhi.ID, asked nhi.Digest) bool {
	switch {
	case known.Redeemer.IsZero():
		return true
	case known.Request != asked:
		return false
	case known.Used:
		return s.isMember(id, known.Role)
	}
	return known.Redeemer == s.identity.id
}

// enrol commits what is not yet on the log of a join: that the token is used up, and the node.
func (s *Server) enrol(ctx context.Context, known ledger.JoinToken, asked nhi.Digest, add *ledger.NodeAddBody) error {
	if known.Redeemer.IsZero() {
		if err := s.act(ctx, ledger.KindJoinTokenRedeem, &ledger.JoinRedeemBody{Token: add.Token, Node: add.ID, Request: asked}); err != nil {
			return err
		}
	}
	if known.Used {
		return nil
	}
	return s.act(ctx, ledger.KindNodeAdd, add)
}

// peerAddresses are the nodes that a joining one can reach.
func (s *Server) peerAddresses() []*cretov1.PeerAddress {
	out := []*cretov1.PeerAddress{{NodeId: s.identity.id.String(), RaftAddr: s.PeerAddr(), GrpcAddr: s.GRPCAddr()}}
	known := s.book.known()
	for _, m := range s.raft.State().Servers {
		id, err := nhi.ParseID(m.ID)
		if err != nil || id == s.identity.id {
			continue
		}
		out = append(out, &cretov1.PeerAddress{NodeId: m.ID, RaftAddr: m.Addr, GrpcAddr: known[id]})
	}
	return out
}

// act commits an administrative act that this node signs, and refuses what the log refuses.
func (s *Server) act(ctx context.Context, kind string, body interface{ Encode() ([]byte, error) }) error {
	raw, err := body.Encode()
	if err != nil {
		return err
	}
	e, err := newEvent(rand.Reader, s.identity.ledger, nhi.ID{}, kind, s.identity.id, s.now(), raw)
	if err != nil {
		return err
	}
	rs, err := s.commit(ctx, nhi.ID{}, s.identity.key, e)
	if err != nil {
		return err
	}
	if r := rs[0]; r.State != ledger.Sequenced || !r.Outcome.Accepted() {
		return &Error{Kind: KindConflict, Message: fmt.Sprintf("%s was refused: %s", kind, r.Outcome), Cause: r.Err}
	}
	return nil
}

// newEvent makes an event that a process signs on its own account.
func newEvent(random io.Reader, ledgerID nhi.Digest, tenant nhi.ID, kind string, agent nhi.ID, now int64, body []byte) (*nhi.Event, error) {
	e := &nhi.Event{V: 1, LedgerID: ledgerID, Tenant: tenant, Kind: kind, Agent: agent, ClientTime: now, Body: body}
	for _, b := range [][]byte{e.ID[:], e.Nonce[:], e.Seq.Instance[:]} {
		if _, err := io.ReadFull(random, b); err != nil {
			return nil, fmt.Errorf("draw event id: %w", err)
		}
	}
	return e, nil
}

// commit signs an event and commits it, here or through the leader.
func (s *Server) commit(ctx context.Context, tenant nhi.ID, signer nhi.Signer, e *nhi.Event) ([]edge.Result, error) {
	payload, err := e.Encode()
	if err != nil {
		return nil, err
	}
	env, err := nhi.SignEvent(signer, payload)
	if err != nil {
		return nil, err
	}
	return s.edge.Submit(ctx, tenant, []edge.Submission{{Envelope: env}})
}

// JoinConfig says how a node joins a cluster.
type JoinConfig struct {
	Addr   string // gRPC address of the node that has the cluster's CA
	Token  string // a join token
	Bundle []byte // the cluster's trust bundle, PEM: whom to believe
	Role   string // "voter" or "sandbox"; default voter
	Dir    string // the new node's directory; must be empty
	// Node is the configuration that is written to Dir: listeners and advertised addresses. A voter needs both listeners.
	Node Config

	Random io.Reader // default crypto/rand
	Now    time.Time // default now
}

// JoinResult says what JoinCluster has made.
type JoinResult struct {
	NodeID   nhi.ID
	LedgerID nhi.Digest
	Role     string
	Dir      string
}

// JoinCluster registers a new node by a join token and writes its directory. A voter's directory is ready for New; the node
// takes part once an admin has added it (ChangeMember) as non-voter and promoted it. The directory of a sandbox node has
// genesis.cbor, keys/node.key, svid and local/addresses.json (node id → gRPC address).
//
// A join whose answer is lost returns a *PendingJoinError. Its keys stay in the directory: to join again, with the same token
// and directory, is to ask the same again, and what has been written is written anew.
func JoinCluster(ctx context.Context, c JoinConfig) (*JoinResult, error) {
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Now.IsZero() {
		c.Now = time.Now()
	}
	if c.Role == "" {
		c.Role = "voter"
	}
	r, err := c.join(ctx)
	if err != nil {
		return nil, fmt.Errorf("join cluster: %w", err)
	}
	return r, nil
}

func (c *JoinConfig) join(ctx context.Context) (*JoinResult, error) {
	role, ok := joinRoles[c.Role]
	if !ok {
		return nil, fmt.Errorf("role %q is not voter or sandbox", c.Role)
	}
	if !strings.HasPrefix(c.Token, joinTokenPrefix) {
		return nil, fmt.Errorf("token does not begin with %q", joinTokenPrefix)
	}
	bundle, err := parseBundle(c.Bundle)
	if err != nil {
		return nil, err
	}
	k, err := joinKeys(c.Random, c.Dir, sha256.Sum256([]byte(c.Token)))
	if err != nil {
		return nil, err
	}
	source, err := spiffe.NewSource(time.Now, nil, bundle)
	if err != nil {
		return nil, err
	}
	// Only a voter is told the token: a sandbox node that poses as one would redeem it itself.
	creds := credentials.NewTLS(spiffe.AnonymousClientTLS(source, spiffe.AllowRoles(bundle.TrustDomain(), spiffe.RoleNode)))
	cc, err := grpc.NewClient("passthrough:///"+c.Addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		return nil, err
	}
	defer cc.Close()
	trust, err := cretov1.NewLedgerServiceClient(cc).GetTrust(ctx, &cretov1.GetTrustRequest{})
	if err != nil {
		return nil, err
	}
	t, err := verify.ParseTrust([]byte(trust.GetTrust()))
	if err != nil {
		return nil, err
	}
	req, err := c.request(role, k, t.LedgerID)
	if err != nil {
		return nil, err
	}
	resp, err := cretov1.NewClusterServiceClient(cc).Join(ctx, req)
	switch status.Code(err) {
	case codes.OK:
	case codes.PermissionDenied, codes.InvalidArgument, codes.Unauthenticated, codes.Unimplemented:
		return nil, err
	default:
		return nil, &PendingJoinError{Dir: c.Dir, Err: err}
	}
	if err := c.take(role, k, resp, t.LedgerID, source, bundle); err != nil {
		return nil, &PendingJoinError{Dir: c.Dir, Err: err}
	}
	return &JoinResult{NodeID: k.id, LedgerID: t.LedgerID, Role: c.Role, Dir: c.Dir}, nil
}

func (c *JoinConfig) request(role registry.Role, k *pendingKeys, id nhi.Digest) (*cretov1.JoinRequest, error) {
	pop, err := registry.NewPossession(k.key, id, nhi.ID{}, k.id, registry.Node)
	if err != nil {
		return nil, err
	}
	csr, err := k.csr(c.Random)
	if err != nil {
		return nil, err
	}
	req := &cretov1.JoinRequest{
		Token: c.Token, Role: c.Role, NodeId: k.id[:], Csr: csr, PublicKey: k.key.Public().Bytes(), Possession: pop,
		RaftAddr: first(c.Node.Advertise.Peer, c.Node.Listen.Peer), GrpcAddr: first(c.Node.Advertise.GRPC, c.Node.Listen.GRPC),
	}
	if role == registry.RoleVoter {
		req.CosignEd25519, req.CosignMldsa44 = k.edPublic(), k.pq.Public()
	}
	return req, nil
}

// take writes what an answer brings, and then gives up the means to ask again.
func (c *JoinConfig) take(role registry.Role, k *pendingKeys, resp *cretov1.JoinResponse, id nhi.Digest, source *spiffe.Source, bundle *spiffe.Bundle) error {
	if ledger.LedgerID(resp.GetGenesis()) != id {
		return errors.New("the answer's genesis is not that of the ledger the node was to join")
	}
	svid, roots, err := answeredSVID(bundle.TrustDomain(), k.tls, resp.GetSvidChain(), resp.GetBundle())
	if err != nil {
		return err
	}
	// New roots come only with an SVID that those given vouch for.
	if err := source.Set(svid, bundle); err != nil {
		return err
	}
	if err := c.write(role, k.nodeKeys, resp, svid, roots); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(c.Dir, pendingFile)); err != nil {
		return fmt.Errorf("give up keys of the join: %w", err)
	}
	return nil
}

func (c *JoinConfig) write(role registry.Role, k *nodeKeys, resp *cretov1.JoinResponse, svid *spiffe.SVID, bundle *spiffe.Bundle) error {
	known := make(map[nhi.ID]string)
	cfg := c.Node
	for _, p := range resp.GetPeers() {
		id, err := nhi.ParseID(p.GetNodeId())
		if err != nil {
			return err
		}
		known[id] = p.GetGrpcAddr()
		cfg.Peers = append(cfg.Peers, PeerConfig{ID: id, GRPC: p.GetGrpcAddr()})
	}
	if role == registry.RoleVoter {
		return writeNodeDir(c.Dir, &cfg, firstJoin, k, resp.GetGenesis(), resp.GetLogKey(), resp.GetKek(), svid, bundle)
	}
	for _, d := range []string{keysDir, svidDir, localDir} {
		if err := os.Mkdir(filepath.Join(c.Dir, d), 0o700); err != nil {
			return fmt.Errorf("create directory: %w", err)
		}
	}
	if err := createFile(filepath.Join(c.Dir, genesisFile), resp.GetGenesis(), 0o600); err != nil {
		return err
	}
	key := keyfile.Key{Role: "node", ID: k.id, Suite: k.key.Public().Suite(), Seed: k.key.Seed()}
	if err := keyfile.WritePlain(filepath.Join(c.Dir, nodeKeyFile), key); err != nil {
		return err
	}
	raw, err := json.Marshal(known)
	if err != nil {
		return fmt.Errorf("encode addresses: %w", err)
	}
	if err := createFile(filepath.Join(c.Dir, bookFile), raw, 0o600); err != nil {
		return err
	}
	return saveSVID(svidFiles(filepath.Join(c.Dir, svidDir)), svid, bundle)
}

// parseBundle parses a trust bundle, whose trust domain its first root names.
func parseBundle(text []byte) (*spiffe.Bundle, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("trust bundle is not PEM")
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse trust bundle: %w", err)
	}
	if len(root.URIs) != 1 {
		return nil, errors.New("trust bundle's root names no trust domain")
	}
	return spiffe.ParseBundle(root.URIs[0].Host, text)
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
