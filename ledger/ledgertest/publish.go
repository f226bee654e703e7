package ledgertest

import (
	"fmt"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
)

// Anchor returns the checkpoint of the newest seal: signed by the log key, cosigned by the fixture's node.
func (f *Fixture) Anchor() ledger.Anchor {
	f.T.Helper()
	s := f.Read()
	defer f.close(s)
	head, err := s.Head(ledger.SpineSlot)
	if err != nil {
		f.T.Fatalf("read spine: %v", err)
	}
	return ledger.Anchor{Size: head.Size, Note: f.Checkpoint(verify.SpineOrigin(Cluster), head.Size, head.Root, true)}
}

// TenantCheckpoint returns the checkpoint of a tenant's log at its newest sealed size, signed by the log key only.
func (f *Fixture) TenantCheckpoint(t ledger.Tenant) []byte {
	f.T.Helper()
	s := f.Read()
	defer f.close(s)
	_, head, err := s.SealedHead(t.Slot, s.Epoch())
	if err != nil {
		f.T.Fatalf("read head: %v", err)
	}
	return f.Checkpoint(verify.TenantOrigin(Cluster, t.ID), head.Size, head.Root, false)
}

// Checkpoint signs a checkpoint by the log key, under its origin, and lets the fixture's node cosign it if asked.
func (f *Fixture) Checkpoint(origin string, size uint64, root nhi.Digest, cosigned bool) []byte {
	f.T.Helper()
	check := func(err error) {
		if err != nil {
			f.T.Helper()
			f.T.Fatalf("sign checkpoint: %v", err)
		}
	}
	log, err := verify.NewEd25519NoteSigner(origin, verify.KeyEd25519, f.LogKey)
	check(err)
	c := verify.Checkpoint{Origin: origin, Size: size, Root: root}
	note, err := verify.SignCheckpoint(c, log)
	check(err)
	if cosigned {
		ed, err := verify.NewEd25519NoteSigner(verify.NodeKeyName(Cluster, f.Node.ID, "ed"), verify.KeyCosignature, f.NodeEd)
		check(err)
		pq, err := verify.NewMLDSA44NoteSigner(verify.NodeKeyName(Cluster, f.Node.ID, "pq"), f.NodePQ)
		check(err)
		for _, s := range []verify.NoteSigner{ed, pq} {
			sig, err := verify.Cosign(c, s, f.Now/1e9+1)
			check(err)
			note.Signatures = append(note.Signatures, sig)
		}
	}
	return note.Marshal()
}

// VKey returns the log key's verifier key under an origin.
func (f *Fixture) VKey(origin string) string {
	f.T.Helper()
	s, err := verify.NewEd25519NoteSigner(origin, verify.KeyEd25519, f.LogKey)
	if err != nil {
		f.T.Fatalf("name log key: %v", err)
	}
	return s.VKey().String()
}

// Trust returns a trust file for the fixture's ledger: the log key, and the node's two keys as the quorum.
func (f *Fixture) Trust() *verify.Trust {
	f.T.Helper()
	name := verify.NodeKeyName(Cluster, f.Node.ID, "")
	name = name[:len(name)-1]
	ed, err := verify.NewEd25519NoteSigner(name+"/ed", verify.KeyCosignature, f.NodeEd)
	if err != nil {
		f.T.Fatalf("name cosigning key: %v", err)
	}
	pq, err := verify.NewMLDSA44NoteSigner(name+"/pq", f.NodePQ)
	if err != nil {
		f.T.Fatalf("name cosigning key: %v", err)
	}
	text := fmt.Sprintf("ledger_id %x\n\nlog %s\nwitness %s/ed %s\nwitness %s/pq %s\ngroup %s all %s/ed %s/pq\nquorum %s\n",
		f.LedgerID, f.Genesis.LogKey, name, ed.VKey(), name, pq.VKey(), name, name, name, name)
	t, err := verify.ParseTrust([]byte(text))
	if err != nil {
		f.T.Fatalf("parse trust file: %v", err)
	}
	return t
}
