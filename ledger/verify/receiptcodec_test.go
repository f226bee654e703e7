package verify_test

import (
	"bytes"
	"testing"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// TestSignedReceiptByHand: the encoder that is written out gives what the general one gives.
func TestSignedReceiptByHand(t *testing.T) {
	for _, path := range []int{0, 1, 11, 24, 64} {
		s := &verify.SignedReceipt{
			V: 1, Body: bytes.Repeat([]byte{7}, 130), Node: nhi.ID{1, 2}, Key: nhi.KeyID{3}, N: uint64(path * 300), K: uint64(path),
			Path: make([]nhi.Digest, path), Signature: bytes.Repeat([]byte{9}, 3373),
		}
		got, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		want, err := canon.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("path of %d: got %x, want %x", path, got, want)
		}
		bare := *s
		bare.Signature = nil
		unsigned, err := bare.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if joined, err := verify.JoinReceipt(unsigned, s.Signature); err != nil || !bytes.Equal(joined, got) {
			t.Errorf("path of %d: joined %x, %v, want %x", path, joined, err, got)
		}
		if _, err := verify.JoinReceipt(got, s.Signature); err == nil {
			t.Errorf("path of %d: a second signature was joined", path)
		}
		if _, err := verify.JoinReceipt(unsigned, nil); err == nil {
			t.Errorf("path of %d: no signature was joined", path)
		}
		if again, err := verify.DecodeSignedReceipt(got); err != nil || len(again.Path) != path {
			t.Errorf("path of %d: decoded %+v, %v", path, again, err)
		}
	}
	if _, err := (&verify.SignedReceipt{Path: make([]nhi.Digest, 65)}).Encode(); err == nil {
		t.Error("a path of 65 hashes was encoded")
	}
}
