package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/nhi/spiffe"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// joiner asks to join as JoinCluster does, and takes nothing up: its answers are lost.
type joiner struct {
	t    *testing.T
	c    *cluster
	cc   *grpc.ClientConn
	join *JoinConfig
}

func (c *cluster) joiner(t *testing.T, join *JoinConfig) *joiner {
	t.Helper()
	bundle, err := parseBundle(join.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	source, err := spiffe.NewSource(time.Now, nil, bundle)
	if err != nil {
		t.Fatal(err)
	}
	creds := credentials.NewTLS(spiffe.AnonymousClientTLS(source, spiffe.AllowRoles(bundle.TrustDomain(), spiffe.RoleNode)))
	cc, err := grpc.NewClient("passthrough:///"+join.Addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return &joiner{t, c, cc, join}
}

func (j *joiner) keys() *pendingKeys {
	j.t.Helper()
	k, err := joinKeys(rand.Reader, j.join.Dir, sha256.Sum256([]byte(j.join.Token)))
	if err != nil {
		j.t.Fatal(err)
	}
	return k
}

func (j *joiner) ask(k *pendingKeys) (*cretov1.JoinResponse, error) {
	j.t.Helper()
	j.join.Random = rand.Reader
	req, err := j.join.request(joinRoles[j.join.Role], k, j.c.LedgerID)
	if err != nil {
		j.t.Fatal(err)
	}
	return cretov1.NewClusterServiceClient(j.cc).Join(j.t.Context(), req)
}

// A lost answer costs no second token: who asks again with the same keys is answered again, and nobody else is.
func TestJoinAnswerLost(t *testing.T) {
	c := startDev(t, DevConfig{Nodes: 1})
	admin := c.dial(0, "", true)
	bundle, err := os.ReadFile(c.AdminSVID.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	begin := func(role string) *joiner {
		t.Helper()
		return c.joiner(t, &JoinConfig{
			Addr: c.Servers()[0].GRPCAddr(), Bundle: bundle, Role: role, Dir: filepath.Join(t.TempDir(), "new"),
			Token: c.joinToken(admin, joinRoles[role]), Node: Config{Listen: ListenConfig{Peer: "127.0.0.1:7", GRPC: "127.0.0.1:8"}},
		})
	}
	for _, role := range []string{"voter", "sandbox"} {
		t.Run(role, func(t *testing.T) {
			j := begin(role)
			k := j.keys()
			if _, err := j.ask(k); err != nil {
				t.Fatalf("join whose answer is lost: %v", err)
			}
			// As a crash in the middle of writing leaves it.
			for _, name := range []string{genesisFile, "keys/node.key"} {
				path := filepath.Join(j.join.Dir, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("half"), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			for name, change := range map[string]func(k, other *pendingKeys){
				"another TLS key":         func(k, other *pendingKeys) { k.tls = other.tls },
				"another key of the node": func(k, other *pendingKeys) { k.key = other.key },
				"another id":              func(k, other *pendingKeys) { k.id = other.id },
				"all other":               func(k, other *pendingKeys) { *k = *other },
			} {
				other, err := newJoinKeys(rand.Reader, filepath.Join(t.TempDir(), "k"), nhi.Digest{})
				if err != nil {
					t.Fatal(err)
				}
				n := *k.nodeKeys
				mine := &pendingKeys{&n, k.tls}
				change(mine, other)
				if _, err := j.ask(mine); status.Code(err) != codes.PermissionDenied {
					t.Errorf("the same token with %s: got %v, want denied", name, err)
				}
			}
			wrong := *j.join
			wrong.Dir = t.TempDir()
			if _, err := JoinCluster(t.Context(), wrong); status.Code(err) != codes.PermissionDenied {
				t.Errorf("the same token from another directory: got %v, want denied", err)
			}
			got, err := JoinCluster(t.Context(), *j.join)
			if err != nil || got.NodeID != k.id {
				t.Fatalf("join again: got %+v, %v, want node %s", got, err, k.id)
			}
			if _, err := os.Stat(filepath.Join(j.join.Dir, pendingFile)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("keys of the join: got %v, want them gone", err)
			}
			if raw, err := os.ReadFile(filepath.Join(j.join.Dir, genesisFile)); err != nil || ledger.LedgerID(raw) != c.LedgerID {
				t.Errorf("genesis: got %d bytes, %v, want the cluster's", len(raw), err)
			}
			if _, err := JoinCluster(t.Context(), *j.join); !errors.Is(err, fs.ErrExist) {
				t.Errorf("join into a complete directory: got %v, want refused", err)
			}
			if role == "voter" {
				log, err := os.ReadFile(filepath.Join(j.join.Dir, logSeedFile))
				if err != nil || !bytes.Equal(log, c.Servers()[0].identity.keys.Log.Seed()) {
					t.Errorf("log key: got %d bytes, %v, want the cluster's", len(log), err)
				}
			}
			c.submit(admin, c.AdminKey, c.event(nhi.ID{}, c.Admin, ledger.KindNodeRemove, &ledger.NodeRemoveBody{ID: k.id}))
			if _, err := j.ask(k); status.Code(err) != codes.PermissionDenied {
				t.Errorf("join of a removed node again: got %v, want denied", err)
			}
		})
	}

	// The node that served the join may have ended between its two acts.
	j := begin("sandbox")
	k := j.keys()
	digest, err := requestDigest(&k.tls.PublicKey, k.id, k.key.Public().Bytes(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Servers()[0].act(t.Context(), ledger.KindJoinTokenRedeem, &ledger.JoinRedeemBody{
		Token: sha256.Sum256([]byte(j.join.Token)), Node: k.id, Request: digest,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := JoinCluster(t.Context(), *j.join); err != nil {
		t.Errorf("join with a token that is redeemed for this node: %v", err)
	}

	j = begin("sandbox")
	k = j.keys()
	if _, err := j.ask(k); err != nil {
		t.Fatal(err)
	}
	c.Clock.Advance(2 * time.Hour)
	if _, err := j.ask(k); status.Code(err) != codes.PermissionDenied {
		t.Errorf("ask again after the token's life: got %v, want denied", err)
	}
}

// The keys of a join are kept before it asks, and found again by the same token only.
func TestJoinKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	a, b := nhi.Digest{1}, nhi.Digest{2}
	keys := func(token nhi.Digest) *pendingKeys {
		t.Helper()
		k, err := joinKeys(rand.Reader, dir, token)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := keys(a)
	again := keys(a)
	if again.id != first.id || !again.tls.Equal(first.tls) || !bytes.Equal(again.key.Seed(), first.key.Seed()) ||
		!bytes.Equal(again.pq.Seed(), first.pq.Seed()) || !again.ed.Equal(first.ed) {
		t.Error("the same token: got other keys")
	}
	if info, err := os.Stat(filepath.Join(dir, pendingFile)); err != nil || info.Mode().Perm() != 0o600 && os.PathSeparator == '/' {
		t.Errorf("file: got %v, %v, want mode 0600", info, err)
	}
	if keys(b).id == first.id {
		t.Error("another token: got the keys of the first")
	}
	path := filepath.Join(dir, pendingFile)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw[:len(raw)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	k := keys(b)
	if err := os.Mkdir(filepath.Join(dir, stateDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := joinKeys(rand.Reader, dir, b); !errors.Is(err, fs.ErrExist) {
		t.Errorf("directory of a node that has run: got %v, want refused", err)
	}
	if err := os.Remove(filepath.Join(dir, stateDir)); err != nil {
		t.Fatal(err)
	}
	if keys(b).id != k.id {
		t.Error("a refused join has touched the keys")
	}
}

// A join that is not answered says where its keys are.
func TestJoinUnanswered(t *testing.T) {
	c := startDev(t, DevConfig{Nodes: 1})
	bundle, err := os.ReadFile(c.AdminSVID.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	admin := c.dial(0, "", true)
	join := JoinConfig{Addr: cutAfter(t, c.Servers()[0].GRPCAddr()), Bundle: bundle, Role: "sandbox", Dir: filepath.Join(t.TempDir(), "new"), Token: c.joinToken(admin, registry.RoleSandbox)}
	_, err = JoinCluster(t.Context(), join)
	pending, ok := errors.AsType[*PendingJoinError](err)
	if !ok || pending.Dir != join.Dir || !strings.HasPrefix(err.Error(), "join cluster: ") {
		t.Fatalf("got %v, want a *PendingJoinError", err)
	}
	join.Addr = c.Servers()[0].GRPCAddr()
	if _, err := JoinCluster(t.Context(), join); err != nil {
		t.Errorf("join again: %v", err)
	}
}

// cutAfter listens in front of an address and ends a connection once a whole request to join has gone by and something comes
// back.
func cutAfter(t *testing.T, address string) string {
	t.Helper()
	const request = 6500 // more than a handshake and a question about trust, less than these and a request to join
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lis.Close() })
	go func() {
		for {
			near, err := lis.Accept()
			if err != nil {
				return
			}
			far, err := new(net.Dialer).DialContext(context.WithoutCancel(t.Context()), "tcp", address)
			if err != nil {
				near.Close()
				return
			}
			var sent atomic.Int64
			pass := func(to, from net.Conn, stop func(n int) bool) {
				defer near.Close()
				defer far.Close()
				b := make([]byte, 32<<10)
				for {
					n, err := from.Read(b)
					if err != nil || stop(n) {
						return
					}
					if _, err := to.Write(b[:n]); err != nil {
						return
					}
				}
			}
			go pass(far, near, func(n int) bool { sent.Add(int64(n)); return false })
			go pass(near, far, func(int) bool { return sent.Load() > request })
		}
	}()
	return lis.Addr().String()
}
