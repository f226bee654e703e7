package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// MaxGenesisSize bounds the encoded genesis: about 4.2 KiB a node.
const MaxGenesisSize = 64 << 10

// Bounds of a genesis.
const (
	maxClusterName   = 64
	maxTrustDomain   = 255
	maxFounders      = 16
	maxAddressSize   = 255
	maxLogKeySize    = 512
	genesisIDContext = "creto/genesis/v1\x00"
)

// Genesis is leaf 0 of the system log, from which everything else follows. Canonical CBOR with the integer keys of the tags.
type Genesis struct {
	V           uint64         `cbor:"1,keyasint"` // 1
	Cluster     string         `cbor:"2,keyasint"` // name, the first part of every origin
	Cell        uint64         `cbor:"3,keyasint"`
	TrustDomain string         `cbor:"4,keyasint"` // of SPIFFE ids
	Test        bool           `cbor:"5,keyasint"` // its clock can be moved; every stamp says so
	Admins      []GenesisAdmin `cbor:"6,keyasint"`
	Threshold   uint64         `cbor:"7,keyasint"` // admins who must agree, 1 to len(Admins)
	LogKey      string         `cbor:"8,keyasint"` // the log key as C2SP vkey text, type 01, under the spine's origin
	Nodes       []GenesisNode  `cbor:"9,keyasint"` // the first voters
	Created     int64          `cbor:"10,keyasint"`
	Nonce       [16]byte       `cbor:"11,keyasint"`
}

// GenesisAdmin is a founding administrator.
type GenesisAdmin struct {
	ID     nhi.ID    `cbor:"1,keyasint"`
	Suite  nhi.Suite `cbor:"2,keyasint"`
	Public []byte    `cbor:"3,keyasint"`
}

// GenesisNode is one of the first voters.
type GenesisNode struct {
	ID      nhi.ID    `cbor:"1,keyasint"`
	Suite   nhi.Suite `cbor:"2,keyasint"`
	Public  []byte    `cbor:"3,keyasint"`
	Ed      []byte    `cbor:"4,keyasint"` // cosigning key of type 04, 32 bytes
	PQ      []byte    `cbor:"5,keyasint"` // cosigning key of type 06, 1312 bytes
	Address string    `cbor:"6,keyasint"` // host:port of its Raft listener
}

// LedgerID returns SHA-256("creto/genesis/v1\0" ‖ genesis), which every event names.
func LedgerID(genesis []byte) nhi.Digest {
	h := sha256.New()
	h.Write([]byte(genesisIDContext))
	h.Write(genesis)
	return nhi.Digest(h.Sum(nil))
}

// Encode returns the canonical bytes of a genesis that Check accepts.
func (g *Genesis) Encode() ([]byte, error) {
	if err := g.Check(); err != nil {
		return nil, err
	}
	b, err := canon.Marshal(g)
	if err != nil {
		return nil, fmt.Errorf("encode genesis: %w", err)
	}
	if len(b) > MaxGenesisSize {
		return nil, fmt.Errorf("encode genesis: %d bytes are more than %d", len(b), MaxGenesisSize)
	}
	return b, nil
}

// DecodeGenesis decodes and checks a genesis.
func DecodeGenesis(b []byte) (*Genesis, error) {
	g := new(Genesis)
	if err := canon.UnmarshalMax(b, g, MaxGenesisSize); err != nil {
		return nil, fmt.Errorf("decode genesis: %w", err)
	}
	if err := g.Check(); err != nil {
		return nil, err
	}
	return g, nil
}

// Check holds a genesis against its rules: names, counts, keys that are sound and stand in it once.
func (g *Genesis) Check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("check genesis: %w", fmt.Errorf(format, args...))
	}
	switch {
	case g.V != 1:
		return bad("version %d is not 1", g.V)
	case !isCluster(g.Cluster):
		return bad("cluster %q is not 1 to %d characters of a-z, 0-9, '.', '-' and '/'", g.Cluster, maxClusterName)
	case len(g.TrustDomain) == 0 || len(g.TrustDomain) > maxTrustDomain:
		return bad("trust domain of %d bytes", len(g.TrustDomain))
	case len(g.Admins) == 0 || len(g.Admins) > maxFounders:
		return bad("%d admins are not 1 to %d", len(g.Admins), maxFounders)
	case len(g.Nodes) == 0 || len(g.Nodes) > maxFounders:
		return bad("%d nodes are not 1 to %d", len(g.Nodes), maxFounders)
	case g.Threshold == 0 || g.Threshold > uint64(len(g.Admins)):
		return bad("threshold %d is not 1 to %d", g.Threshold, len(g.Admins))
	case g.Created <= 0 || g.Created > maxStamp:
		return bad("creation time %d", g.Created)
	case len(g.LogKey) > maxLogKeySize:
		return bad("log key of %d bytes", len(g.LogKey))
	}
	key, err := verify.ParseVKey(g.LogKey)
	if err != nil {
		return bad("log key: %w", err)
	}
	if key.Name != verify.SpineOrigin(g.Cluster) || key.Type != verify.KeyEd25519 {
		return bad("log key is not an Ed25519 key named %q", verify.SpineOrigin(g.Cluster))
	}
	seen := make(map[nhi.ID]bool)
	for _, a := range g.Admins {
		if err := checkFounder(seen, a.ID, a.Suite, a.Public); err != nil {
			return bad("admin %s: %w", a.ID, err)
		}
	}
	for _, n := range g.Nodes {
		if err := checkFounder(seen, n.ID, n.Suite, n.Public); err != nil {
			return bad("node %s: %w", n.ID, err)
		}
		if err := nhi.CheckEd25519Key(n.Ed); err != nil {
			return bad("node %s: ed key: %w", n.ID, err)
		}
		if _, err := nhi.ParseMLDSA44(n.PQ); err != nil {
			return bad("node %s: pq key: %w", n.ID, err)
		}
		if len(n.Address) == 0 || len(n.Address) > maxAddressSize {
			return bad("node %s: address of %d bytes", n.ID, len(n.Address))
		}
	}
	return nil
}

func checkFounder(seen map[nhi.ID]bool, id nhi.ID, suite nhi.Suite, public []byte) error {
	if id.IsZero() || seen[id] {
		return errors.New("id is zero or stands there twice")
	}
	seen[id] = true
	_, err := nhi.ParsePublicKey(suite, public)
	return err
}

func isCluster(s string) bool {
	if len(s) == 0 || len(s) > maxClusterName {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '/' {
			return false
		}
	}
	return s[0] != '/' && s[len(s)-1] != '/'
}
