package creto

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/ledger/verify/verifytest"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/spiffe"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// promised is a test ledger with n leaves of one tenant, and the receipts for them.
type promised struct {
	*verifytest.Ledger
	tenant   *verifytest.Tenant
	trust    *verify.Trust
	receipts []verify.Receipt
}

func newPromised(t testing.TB, n int) *promised {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := verifytest.New(t.Name(), 3)
	must(err)
	agent, err := l.NewAgent()
	must(err)
	p := &promised{Ledger: l, tenant: l.AddTenant()}
	for range n {
		payload, err := l.Event(p.tenant, agent, "usage", []byte{0xa0})
		must(err)
		env, err := nhi.SignEvent(agent.Key, payload)
		must(err)
		must(l.Append(p.tenant, agent, env, nil, nil))
	}
	must(l.Seal())
	p.trust, err = verify.ParseTrust(l.Trust())
	must(err)
	for _, e := range p.tenant.Leaves {
		leaf, err := verify.DecodeLeaf(e.Leaf)
		must(err)
		p.receipts = append(p.receipts, verify.Receipt{
			V: 1, LedgerID: l.ID, Tenant: p.tenant.ID, Slot: p.tenant.Slot, Index: leaf.Index, LeafHash: verify.LeafHash(e.Leaf), Time: leaf.Time,
			Outcome: leaf.Outcome.Code,
		})
	}
	return p
}

// keep signs the receipts as a node and keeps them.
func (p *promised) keep(t testing.TB, s *ReceiptStore, signer nhi.Signer) {
	t.Helper()
	signed, err := verify.SignReceipts(signer, p.ID, p.Nodes[0].ID, p.receipts)
	if err != nil {
		t.Fatal(err)
	}
	for i := range signed {
		b, err := signed[i].Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Append(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
}

// fakeLedger serves proofs of a test ledger.
type fakeLedger struct {
	cretov1.UnimplementedLedgerServiceServer
	cretov1.UnimplementedIdentityServiceServer
	p         *promised
	published uint64
}

func (f *fakeLedger) GetHeads(context.Context, *cretov1.GetHeadsRequest) (*cretov1.GetHeadsResponse, error) {
	return &cretov1.GetHeadsResponse{TreeSize: uint64(len(f.p.tenant.Leaves)), PublishedTreeSize: f.published}, nil
}

func (f *fakeLedger) GetKey(_ context.Context, r *cretov1.GetKeyRequest) (*cretov1.GetKeyResponse, error) {
	for _, n := range f.p.Nodes {
		if pk := n.Receipt.Public(); pk.ID() == nhi.KeyID(r.GetKeyId()) {
			return &cretov1.GetKeyResponse{Suite: pk.Suite().String(), PublicKey: pk.Bytes()}, nil
		}
	}
	return nil, status.Error(codes.NotFound, "not found")
}

func (f *fakeLedger) GetProof(_ context.Context, r *cretov1.GetProofRequest) (*cretov1.GetProofResponse, error) {
	p, err := f.p.EventProof(f.p.tenant, int(r.GetIndex()))
	if err != nil {
		return nil, err
	}
	b, err := p.Encode()
	return &cretov1.GetProofResponse{File: b}, err
}

func (f *fakeLedger) Export(r *cretov1.ExportRequest, s grpc.ServerStreamingServer[cretov1.ExportChunk]) error {
	b, err := f.p.Completeness(f.p.tenant, r.GetFromTimeNs(), r.GetToTimeNs(), 0, 1)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(b, 1000) {
		if err := s.Send(&cretov1.ExportChunk{Data: part}); err != nil {
			return err
		}
	}
	return nil
}

func serve(t testing.TB, f *fakeLedger) *Client {
	t.Helper()
	ca := newCA(t)
	addr := startNode(t, ca, spiffe.RoleNode, func(s *grpc.Server) {
		cretov1.RegisterLedgerServiceServer(s, f)
		cretov1.RegisterIdentityServiceServer(s, f)
	})
	return dial(t, ca, Options{Addrs: []string{addr}})
}

func openStore(t testing.TB, path string) *ReceiptStore {
	t.Helper()
	s, err := OpenReceipts(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Few receipts are held against single proofs, many against one export.
func TestCheckReceipts(t *testing.T) {
	for name, n := range map[string]int{"proofs": 3, "export": 40} {
		t.Run(name, func(t *testing.T) {
			p := newPromised(t, n)
			path := filepath.Join(t.TempDir(), "receipts")
			s := openStore(t, path)
			p.keep(t, s, p.Nodes[0].Receipt)
			f := &fakeLedger{p: p, published: uint64(n - 1)}
			c := serve(t, f)
			got, err := c.CheckReceipts(t.Context(), s, p.trust)
			if err != nil || got != (Checked{n - 1, 1}) {
				t.Fatalf("with one leaf unpublished: got %+v, %v", got, err)
			}
			f.published++
			if got, err = c.CheckReceipts(t.Context(), s, p.trust); err != nil || got != (Checked{n, 0}) {
				t.Fatalf("with all published: got %+v, %v", got, err)
			}
			if got, err = c.CheckReceipts(t.Context(), openStore(t, path), p.trust); err != nil || got != (Checked{}) {
				t.Errorf("again: got %+v, %v, want nothing left", got, err)
			}
		})
	}
}

func TestBrokenPromiseIsEvidence(t *testing.T) {
	for name, n := range map[string]int{"proofs": 3, "export": 40} {
		t.Run(name, func(t *testing.T) {
			p := newPromised(t, n)
			p.receipts[1].LeafHash[0] ^= 1
			s := openStore(t, filepath.Join(t.TempDir(), "receipts"))
			p.keep(t, s, p.Nodes[0].Receipt)
			_, err := serve(t, &fakeLedger{p: p, published: uint64(n)}).CheckReceipts(t.Context(), s, p.trust)
			e, ok := errors.AsType[*EvidenceError](err)
			if !ok || len(e.Proof) == 0 || len(e.Receipt) == 0 || e.Hint() == "" {
				t.Fatalf("got %v, want evidence with receipt and proof", err)
			}
			if _, err := verify.VerifyEventProof(e.Proof, p.trust, verify.Options{}); err != nil {
				t.Errorf("the proof in the evidence does not verify: %v", err)
			}
			if got := s.Len(); got != n {
				t.Errorf("receipts after evidence: got %d, want %d", got, n)
			}
		})
	}
}

func TestReceiptOfAStrangerIsNoEvidence(t *testing.T) {
	p := newPromised(t, 1)
	key, err := nhi.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := openStore(t, filepath.Join(t.TempDir(), "receipts"))
	p.receipts[0].LeafHash[0] ^= 1
	p.keep(t, s, key)
	_, err = serve(t, &fakeLedger{p: p, published: 1}).CheckReceipts(t.Context(), s, p.trust)
	if _, ok := errors.AsType[*EvidenceError](err); ok || err == nil {
		t.Errorf("got %v, want an error that is no evidence", err)
	}
}

func TestReceiptsSurviveATornTail(t *testing.T) {
	p := newPromised(t, 3)
	path := filepath.Join(t.TempDir(), "receipts")
	s := openStore(t, path)
	p.keep(t, s, p.Nodes[0].Receipt)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := &frameReader{r: bufio.NewReader(bytes.NewReader(whole))}
	for range 2 {
		if _, err := r.next(); err != nil {
			t.Fatal(err)
		}
	}
	two := int(r.read)
	for _, cut := range []int{len(whole) - 1, len(whole) - 5, two + 1, two + 4, two + 5} {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, path)
		if s.Len() != 2 {
			t.Errorf("cut at %d: got %d receipts, want 2", cut, s.Len())
		}
		p.receipts = p.receipts[:1]
		p.keep(t, s, p.Nodes[0].Receipt)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s := openStore(t, path); s.Len() != 3 {
			t.Errorf("cut at %d and one appended: got %d receipts, want 3", cut, s.Len())
		}
	}
	// Damage in the middle is no torn tail: what follows cannot be trusted to be all.
	whole[two/4] ^= 1
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReceipts(path); err == nil {
		t.Error("a damaged record in the middle was passed over")
	}
}

func FuzzOpenReceipts(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 1, 7, 0, 0, 0, 0})
	f.Add([]byte{255, 255, 255, 255})
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, "receipts")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := OpenReceipts(path)
		if err != nil {
			return
		}
		n := s.Len()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = OpenReceipts(path); err != nil || s.Len() != n {
			t.Fatalf("opened again: %v, want %d receipts", err, n)
		}
		s.Close()
	})
}
