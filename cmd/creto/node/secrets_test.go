package node

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/keyfile"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// keepers are the files that hold secrets, by name. All are 0600.
var keepers = map[string]bool{
	"ca.key": true, "node.key": true, "admin.key": true, "authority.key": true, "key.pem": true, "log.seed": true, "kek": true,
	"cosign-ed25519.seed": true, "cosign-mldsa44.seed": true, "read-token": true,
}

// The CA's key, the log key, the key-encryption key, nodes' keys and tokens lie in the files made for them and nowhere else: not
// in the Raft log, the state, the local store, or what a joining node leaves behind.
func TestSecretsStayInTheirFiles(t *testing.T) {
	dir := t.TempDir()
	c := startDev(t, DevConfig{Dir: filepath.Join(dir, "cluster")})
	admin, cc := c.dial(0, "", true), c.dial(1, c.ReadToken, false)
	bundle, err := os.ReadFile(c.AdminSVID.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	join := JoinConfig{Addr: c.Servers()[0].GRPCAddr(), Bundle: bundle, Dir: filepath.Join(dir, "joined"), Node: Config{
		Listen: ListenConfig{Peer: "127.0.0.1:1", GRPC: "127.0.0.1:2"},
	}}
	joined := c.join(admin, &join)
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

	secrets := map[string][]byte{"join token": []byte(strings.TrimPrefix(join.Token, joinTokenPrefix)), "read token": []byte(c.ReadToken)}
	if raw, err := hex.DecodeString(string(secrets["join token"])); err == nil {
		secrets["join token's bytes"] = raw
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
	secrets["CA key"] = scalar(filepath.Join(c.CADir, "ca.key"))
	for _, d := range append([]string{joined.Dir}, c.dirs...) {
		name := filepath.Base(d)
		secrets["SVID key of "+name] = scalar(svidFiles(filepath.Join(d, svidDir)).Key)
		for _, f := range []string{edSeedFile, pqSeedFile, logSeedFile, kekFile} {
			secrets[f+" of "+name] = read(filepath.Join(d, f))
		}
		k, _, err := keyfile.Read(filepath.Join(d, nodeKeyFile), nil)
		if err != nil {
			t.Fatal(err)
		}
		secrets["key of "+name] = k.Seed
	}
	secrets["addendum"] = addendum.Data
	secrets["admin key"], secrets["authority key"] = c.AdminKey.Seed(), c.AuthorityKey.Seed()

	found := make(map[string]bool)
	var bytesRead int
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content := read(path)
		bytesRead += len(content)
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := bytes.ReplaceAll(content, []byte("\n"), nil) // PEM and the like in one line
		keeper := keepers[filepath.Base(path)]
		if keeper && info.Mode().Perm() != 0o600 {
			t.Errorf("%s holds a secret and has mode %v", path, info.Mode())
		}
		for what, s := range secrets {
			for _, form := range forms(s) {
				if !bytes.Contains(content, form) && !bytes.Contains(text, form) {
					continue
				}
				if keeper {
					found[what] = true
				} else {
					t.Errorf("%s lies in %s", what, path)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// The search finds what is there: each key in its own file.
	for what := range secrets {
		if !found[what] && !strings.HasPrefix(what, "join token") && what != "addendum" {
			t.Errorf("%s was not found in the file made for it", what)
		}
	}
	if _, err := os.Stat(filepath.Join(c.dirs[0], stateDir)); err != nil || bytesRead < 1<<20 {
		t.Errorf("only %d bytes were searched: %v", bytesRead, err)
	}
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
