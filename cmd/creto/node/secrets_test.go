package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/keyfile"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// A secret lies in files of one name, which are 0600, or, without a name, in none.
type secret struct {
	file  string
	value []byte
}

// The CA's key, the log key, the key-encryption key, nodes' keys and tokens lie in the files made for them and nowhere else: not
// in the Raft log, the state, the local store, or the logs of a cluster of one founder and two nodes that joined it.
func TestSecretsStayInTheirFiles(t *testing.T) {
	dir := t.TempDir()
	said, err := os.Create(filepath.Join(dir, "log.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	c := startDev(t, DevConfig{
		Dir: filepath.Join(dir, "cluster"), Nodes: 1,
		Logger: slog.New(slog.NewJSONHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	admin := c.dial(0, "", true)
	var tokens []string
	var joined []*JoinResult
	for i := range 2 {
		token, node := c.grow(admin, filepath.Join(dir, fmt.Sprintf("joined%d", i+1)))
		tokens, joined = append(tokens, token), append(joined, node)
	}
	cc := c.dial(2, c.ReadToken, false)
	service, key := c.register(cc, registry.Service)
	e := c.usage(service, 1)
	addendum := nhi.Addendum{Salt: [16]byte{4}, Data: []byte("what only an addendum says: 7e4c1b90")}
	e.Addenda = []nhi.Digest{nhi.AddendumDigest(addendum)}
	env := c.sign(key, e)
	env.Addenda = []*cretov1.Addenda{{Items: []*cretov1.Addendum{{Salt: addendum.Salt[:], Data: addendum.Data}}}}
	resp, err := cretov1.NewEventServiceClient(cc).Submit(t.Context(), &cretov1.SubmitRequest{
		Tenant: c.Tenant[:], Envelopes: []*cretov1.Envelope{env},
	})
	if err != nil || resp.GetResults()[0].GetOutcome() != "accepted" {
		t.Fatalf("submit: got %v, %v", resp, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	secrets := map[string]secret{"read token": {"read-token", []byte(c.ReadToken)}, "addendum": {"", addendum.Data}}
	var digests [][]byte // of join tokens, which are on the log
	for i, token := range tokens {
		text := strings.TrimPrefix(token, joinTokenPrefix)
		raw, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		secrets[fmt.Sprintf("join token %d", i+1)], secrets[fmt.Sprintf("join token's bytes %d", i+1)] = secret{"", []byte(text)}, secret{"", raw}
		digest := sha256.Sum256([]byte(token))
		digests = append(digests, digest[:])
	}
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	scalar := func(path string) []byte {
		block, _ := pem.Decode(read(path))
		k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		b, err := k.(*ecdsa.PrivateKey).Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	secrets["CA key"] = secret{"ca.key", scalar(filepath.Join(c.CADir, "ca.key"))}
	for _, d := range append([]string{joined[0].Dir, joined[1].Dir}, c.dirs...) {
		name := filepath.Base(d)
		svidKey := svidFiles(filepath.Join(d, svidDir)).Key
		secrets["SVID key of "+name] = secret{filepath.Base(svidKey), scalar(svidKey)}
		for _, f := range []string{edSeedFile, pqSeedFile, logSeedFile, kekFile} {
			secrets[f+" of "+name] = secret{filepath.Base(f), read(filepath.Join(d, f))}
		}
		k, _, err := keyfile.Read(filepath.Join(d, nodeKeyFile), nil)
		if err != nil {
			t.Fatal(err)
		}
		secrets["key of "+name] = secret{filepath.Base(nodeKeyFile), k.Seed}
	}
	secrets["admin key"], secrets["authority key"] = secret{"admin.key", c.AdminKey.Seed()}, secret{"authority.key", c.AuthorityKey.Seed()}

	found := make(map[string]bool)
	var bytesRead, logs int
	err = filepath.WalkDir(filepath.Dir(dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content := read(path)
		bytesRead += len(content)
		// Segments of the Raft log end in megabytes of zeros; a secret may end in some.
		content = content[:min(len(content), len(bytes.TrimRight(content, "\x00"))+64)]
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := bytes.ReplaceAll(content, []byte("\n"), nil) // PEM and the like in one line
		for what, s := range secrets {
			if !slices.ContainsFunc(forms(s.value), func(f []byte) bool { return bytes.Contains(content, f) || bytes.Contains(text, f) }) {
				continue
			}
			switch {
			case filepath.Base(path) != s.file:
				t.Errorf("%s lies in %s", what, path)
			case info.Mode().Perm() != 0o600:
				t.Errorf("%s holds %s and has mode %v", path, what, info.Mode())
			default:
				found[what] = true
			}
		}
		if filepath.Base(filepath.Dir(path)) == "raft" && bytes.Contains(content, digests[0]) && bytes.Contains(content, digests[1]) {
			logs++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// The search finds what is there: each key in its own file, and the tokens' digests in every Raft log.
	for what, s := range secrets {
		if s.file != "" && !found[what] {
			t.Errorf("%s was not found in the file made for it", what)
		}
	}
	if logs != 3 {
		t.Errorf("digests of join tokens: found in %d Raft logs, want 3", logs)
	}
	for _, d := range []string{c.dirs[0], joined[0].Dir, joined[1].Dir} {
		if _, err := os.Stat(filepath.Join(d, stateDir)); err != nil {
			t.Error(err)
		}
	}
	info, err := said.Stat()
	if err != nil || info.Size() == 0 || bytesRead < 1<<20 {
		t.Errorf("only %d bytes were searched, with logs %v, %v", bytesRead, info, err)
	}
}

// grow joins a node, runs it and gives it a vote. The token is the one that it has joined with.
func (c *cluster) grow(admin *grpc.ClientConn, dir string) (token string, joined *JoinResult) {
	c.t.Helper()
	bundle, err := os.ReadFile(c.AdminSVID.Bundle)
	if err != nil {
		c.t.Fatal(err)
	}
	ls, err := (&Dev{cfg: DevConfig{Nodes: 1}}).listen()
	if err != nil {
		c.t.Fatal(err)
	}
	l := ls[0]
	join := JoinConfig{Addr: c.Servers()[0].GRPCAddr(), Bundle: bundle, Dir: dir, Node: Config{
		Listen: ListenConfig{
			Peer: l.Peer.Addr().String(), GRPC: l.GRPC.Addr().String(), Read: l.Read.Addr().String(), Metrics: l.Metrics.Addr().String(), Admin: "off",
		},
		PlainRead: true, PlainMetrics: true, Raft: devRaft,
	}}
	joined = c.join(admin, &join)
	change := func(op ledger.MemberOp, address string) bool {
		resp, err := cretov1.NewClusterServiceClient(admin).ChangeMember(c.t.Context(), &cretov1.ChangeMemberRequest{
			Envelope: c.sign(c.AdminKey, c.event(nhi.ID{}, c.Admin, ledger.KindMember, &ledger.MemberBody{Op: op, Node: joined.NodeID, Address: address})),
		})
		return err == nil && resp.GetResult().GetOutcome() == "accepted"
	}
	eventually(c.t.(*testing.T), "addition", func() bool { return change(ledger.MemberAdd, l.Peer.Addr().String()) })
	cfg, err := LoadConfig(filepath.Join(joined.Dir, ConfigFile))
	if err != nil {
		c.t.Fatal(err)
	}
	s, err := New(*cfg, Options{Clock: c.Clock, Logger: c.cfg.Logger, Listeners: l})
	if err != nil {
		c.t.Fatal(err)
	}
	n := len(c.Servers())
	c.run(context.WithoutCancel(c.t.Context()), n, s)
	select {
	case <-s.Ready():
	case <-c.running()[n].done:
		c.t.Fatalf("joined node: %v", c.running()[n].err)
	}
	eventually(c.t.(*testing.T), "promotion", func() bool { return change(ledger.MemberPromote, "") })
	return join.Token, joined
}

// forms are the ways in which bytes may stand in a file: as they are, in hex, and in base64, alone or within something longer.
func forms(s []byte) [][]byte {
	out := [][]byte{s, []byte(hex.EncodeToString(s)), []byte(strings.ToUpper(hex.EncodeToString(s)))}
	for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 {
			text := e.EncodeToString(append(make([]byte, shift), s...))
			// The first and the last characters depend on what stands beside it.
			first, last := (shift*8+5)/6, (shift+len(s))*8/6
			out = append(out, []byte(text[first:last]))
		}
	}
	return out
}
