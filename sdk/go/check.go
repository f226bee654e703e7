package creto

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

const (
	maxCheck  = 4096 // receipts held against proofs at a time
	maxSingle = 16   // more receipts of one tenant than this are checked by one export of their period
)

// EvidenceError means that a node promised one thing and the published log says another. Keep both files: together they are
// evidence against the node that signed the receipt.
type EvidenceError struct {
	Receipt []byte // encoded verify.SignedReceipt
	Proof   []byte // event proof file of the same tenant and index; nil if the export did not hold the leaf at all
	Leaf    []byte // what the log holds; nil if nothing
	Err     error
}

// Error says what differs.
func (e *EvidenceError) Error() string {
	return fmt.Sprintf("receipt contradicts the published log: %v", e.Err)
}

// Unwrap returns the difference.
func (e *EvidenceError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *EvidenceError) Hint() string {
	return "keep the receipt and the proof, stop relying on this cluster, and show both to an auditor"
}

// Checked says how far a check has come.
type Checked struct {
	Checked int `json:"checked"` // receipts found in the published log as promised
	Pending int `json:"pending"` // receipts whose leaves are not published yet
}

// CheckReceipts holds every receipt that was not checked before against the published log, under a trust file: the node's
// signature, then the leaf at the promised index. It returns a *EvidenceError at the first contradiction, a
// *verify.Failure if the cluster's proof does not hold, and otherwise remembers how far it came.
func (c *Client) CheckReceipts(ctx context.Context, s *ReceiptStore, t *verify.Trust) (Checked, error) {
	var done Checked
	k := &checker{client: c, trust: t, keys: make(map[nhi.KeyID]*nhi.PublicKey)}
	for {
		batch, err := k.load(s)
		if err != nil || len(batch) == 0 {
			return done, err
		}
		pending, err := k.check(ctx, batch)
		if err != nil {
			return done, err
		}
		done.Checked += len(batch) - pending
		done.Pending += pending
		if pending > 0 {
			return done, nil
		}
		if err := s.setChecked(batch[len(batch)-1].end); err != nil {
			return done, err
		}
	}
}

type kept struct {
	signed  *verify.SignedReceipt
	receipt *verify.Receipt
	raw     []byte
	end     int64
	order   int
}

type checker struct {
	client *Client
	trust  *verify.Trust
	keys   map[nhi.KeyID]*nhi.PublicKey
}

var errEnough = errors.New("enough")

func (k *checker) load(s *ReceiptStore) ([]*kept, error) {
	var out []*kept
	err := s.unchecked(func(raw []byte, end int64) error {
		if len(out) == maxCheck {
			return errEnough
		}
		signed, err := verify.DecodeSignedReceipt(raw)
		if err != nil {
			return fmt.Errorf("read receipt: %w", err)
		}
		out = append(out, &kept{signed: signed, raw: raw, end: end, order: len(out)})
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return out, err
}

// check returns how many leaves are not published yet.
func (k *checker) check(ctx context.Context, batch []*kept) (pending int, err error) {
	byTenant := make(map[nhi.ID][]*kept)
	for _, r := range batch {
		if err := k.signature(ctx, r); err != nil {
			return 0, err
		}
		byTenant[r.receipt.Tenant] = append(byTenant[r.receipt.Tenant], r)
	}
	tenants := make([]nhi.ID, 0, len(byTenant))
	for t := range byTenant {
		tenants = append(tenants, t)
	}
	slices.SortFunc(tenants, func(a, b nhi.ID) int { return slices.Compare(a[:], b[:]) })
	for _, t := range tenants {
		list := byTenant[t]
		heads, err := cretov1.NewLedgerServiceClient(k.client).GetHeads(ctx, &cretov1.GetHeadsRequest{Tenant: t[:]})
		if err != nil {
			return 0, fmt.Errorf("ask for the published size: %w", err)
		}
		ready := list[:0:0]
		for _, r := range list {
			if r.receipt.Index < heads.GetPublishedTreeSize() {
				ready = append(ready, r)
			}
		}
		pending += len(list) - len(ready)
		if len(ready) > maxSingle {
			err = k.export(ctx, t, ready)
		} else {
			err = k.single(ctx, t, ready)
		}
		if err != nil {
			return 0, err
		}
	}
	return pending, nil
}

// signature verifies the node's signature under a key that the trust file names, and opens the receipt.
func (k *checker) signature(ctx context.Context, r *kept) error {
	known := slices.ContainsFunc(k.trust.Receipts, func(t verify.TrustReceiptKey) bool {
		return t.Node == r.signed.Node && t.Key == r.signed.Key
	})
	if !known {
		return fmt.Errorf("check receipt: the trust file does not name key %s of node %s", r.signed.Key, r.signed.Node)
	}
	pk, ok := k.keys[r.signed.Key]
	if !ok {
		var system nhi.ID
		resp, err := cretov1.NewIdentityServiceClient(k.client).GetKey(ctx, &cretov1.GetKeyRequest{Tenant: system[:], KeyId: r.signed.Key[:]})
		if err != nil {
			return fmt.Errorf("ask for key %s of node %s: %w", r.signed.Key, r.signed.Node, err)
		}
		suite, err := nhi.ParseSuite(resp.GetSuite())
		if err != nil {
			return fmt.Errorf("read key of node %s: %w", r.signed.Node, err)
		}
		if pk, err = nhi.ParsePublicKey(suite, resp.GetPublicKey()); err != nil {
			return fmt.Errorf("read key of node %s: %w", r.signed.Node, err)
		}
		if pk.ID() != r.signed.Key { // the trust file vouches for the id, and the id for the key
			return fmt.Errorf("read key of node %s: it is not the key of that id", r.signed.Node)
		}
		k.keys[r.signed.Key] = pk
	}
	receipt, err := r.signed.Verify(pk)
	if err != nil {
		return fmt.Errorf("check receipt: %w", err)
	}
	if receipt.LedgerID != k.trust.LedgerID {
		return fmt.Errorf("check receipt: it is of ledger %x, the trust file of %x", receipt.LedgerID, k.trust.LedgerID)
	}
	r.receipt = receipt
	return nil
}

func (k *checker) single(ctx context.Context, tenant nhi.ID, list []*kept) error {
	for _, r := range list {
		resp, err := cretov1.NewLedgerServiceClient(k.client).GetProof(ctx, &cretov1.GetProofRequest{Tenant: tenant[:], Index: r.receipt.Index, Wait: true})
		if err != nil {
			return fmt.Errorf("ask for proof of leaf %d: %w", r.receipt.Index, err)
		}
		index := r.receipt.Index
		if _, err := verify.VerifyEventProof(resp.GetFile(), k.trust, verify.Options{Expect: verify.Expect{Tenant: &tenant, Index: &index}}); err != nil {
			return fmt.Errorf("check proof of leaf %d: %w", index, err)
		}
		p, err := verify.DecodeEventProof(resp.GetFile())
		if err != nil {
			return fmt.Errorf("check proof of leaf %d: %w", index, err)
		}
		if err := r.receipt.CheckLeaf(p.Leaf); err != nil {
			return &EvidenceError{Receipt: r.raw, Proof: resp.GetFile(), Leaf: p.Leaf, Err: err}
		}
	}
	return nil
}

// export reads the whole period of the receipts once, in constant memory, and finds each of them in it.
func (k *checker) export(ctx context.Context, tenant nhi.ID, list []*kept) error {
	slices.SortFunc(list, func(a, b *kept) int { return cmp.Compare(a.receipt.Index, b.receipt.Index) })
	from, to := list[0].receipt.Time, list[0].receipt.Time
	for _, r := range list {
		from, to = min(from, r.receipt.Time), max(to, r.receipt.Time)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	file, err := k.client.Export(ctx, &cretov1.ExportRequest{Tenant: tenant[:], FromTimeNs: from, ToTimeNs: to + 1}, nil)
	if err != nil {
		return err
	}
	next := 0
	var evidence *EvidenceError
	visit := func(leaf *verify.Leaf, raw, _ []byte) error {
		for next < len(list) && list[next].receipt.Index <= leaf.Index && evidence == nil {
			r := list[next]
			if r.receipt.Index < leaf.Index {
				evidence = &EvidenceError{Receipt: r.raw, Err: fmt.Errorf("leaf %d is not in the period it was promised for", r.receipt.Index)}
			} else if err := r.receipt.CheckLeaf(raw); err != nil {
				evidence = &EvidenceError{Receipt: r.raw, Leaf: slices.Clone(raw), Err: err}
			}
			next++
		}
		return nil
	}
	// Only a file that verifies to its end is evidence of anything.
	if _, err := verify.VerifyCompleteness(file, k.trust, verify.Options{Expect: verify.Expect{Tenant: &tenant}, Visit: visit}); err != nil {
		return fmt.Errorf("check export: %w", err)
	}
	if evidence == nil && next < len(list) {
		r := list[next]
		evidence = &EvidenceError{Receipt: r.raw, Err: fmt.Errorf("leaf %d is not in the period it was promised for", r.receipt.Index)}
	}
	if evidence == nil {
		return nil
	}
	if evidence.Leaf != nil {
		if rec, err := verify.DecodeSignedReceipt(evidence.Receipt); err == nil {
			if body, err := verify.DecodeReceipt(rec.Body); err == nil {
				resp, err := cretov1.NewLedgerServiceClient(k.client).GetProof(ctx, &cretov1.GetProofRequest{Tenant: tenant[:], Index: body.Index, Wait: true})
				if err == nil {
					evidence.Proof = resp.GetFile()
				}
			}
		}
	}
	return evidence
}

// Export returns a reader of a completeness file as the cluster streams it. progress, if not nil, is told of leaves written
// and altogether. Cancel the context if the file is not read to its end.
func (c *Client) Export(ctx context.Context, r *cretov1.ExportRequest, progress func(done, total uint64)) (io.Reader, error) {
	stream, err := cretov1.NewLedgerServiceClient(c).Export(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	return &chunkReader{next: func() ([]byte, error) {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		if err != nil {
			return nil, fmt.Errorf("export: %w", err)
		}
		if progress != nil {
			progress(chunk.GetDone(), chunk.GetTotal())
		}
		return chunk.GetData(), nil
	}}, nil
}

type chunkReader struct {
	next func() ([]byte, error)
	rest []byte
	err  error
}

func (r *chunkReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.rest, r.err = r.next()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// NotFound reports whether err means that there is no such thing, or none that the caller may see.
func NotFound(err error) bool { return status.Code(err) == codes.NotFound }
