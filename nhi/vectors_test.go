package nhi

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/creto-systems/creto/nhi/canon"
)

type vectorKey struct {
	Seed, PK     hexBytes
	KeyID        hexBytes   `json:"key_id"`
	ComponentIDs []hexBytes `json:"component_ids"`
}

type vectorFile struct {
	Keys  map[string]vectorKey
	Cases []struct {
		Name, API, Key, Ctx string
		PK, Msg, Sig        hexBytes
		Valid               bool
	}
}

func readVectors(t *testing.T, name string, v any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "test", "vectors", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
}

func TestVectorsComposite(t *testing.T) {
	var f vectorFile
	readVectors(t, "composite.json", &f)
	keys := make(map[string]*PrivateKey)
	for name, v := range f.Keys {
		k, err := NewPrivateKey(v.Seed)
		if err != nil {
			t.Fatal(err)
		}
		id, parts := k.Public().ID(), k.Public().ComponentIDs()
		if !bytes.Equal(k.Public().Bytes(), v.PK) || !bytes.Equal(id[:], v.KeyID) ||
			!bytes.Equal(parts[0][:], v.ComponentIDs[0]) || !bytes.Equal(parts[1][:], v.ComponentIDs[1]) {
			t.Errorf("key %s: got another public key or id", name)
		}
		keys[name] = k
	}
	for _, c := range f.Cases {
		k := keys[c.Key]
		if err := k.Public().Verify(Context(c.Ctx), c.Msg, c.Sig); err != nil || !c.Valid {
			t.Errorf("%s: got %v, want accepted", c.Name, err)
		}
		if sig, err := k.Sign(Context(c.Ctx), c.Msg); err != nil || !bytes.Equal(sig, c.Sig) {
			t.Errorf("%s: signer produces other bytes, %v", c.Name, err)
		}
	}
}

func TestVectorsCompositeNegative(t *testing.T) {
	var f vectorFile
	readVectors(t, "composite-negative.json", &f)
	seen := make(map[string]int)
	for _, c := range f.Cases {
		seen[c.API]++
		var err, want error
		switch c.API {
		case "composite":
			k, kerr := ParsePublicKey(SuiteMLDSA65Ed25519, f.Keys[c.Key].PK)
			if kerr != nil {
				t.Fatal(kerr)
			}
			err, want = k.Verify(Context(c.Ctx), c.Msg, c.Sig), ErrBadSignature
		case "ed25519":
			if !verifyEd25519(c.PK, c.Msg, c.Sig) {
				t.Errorf("%s: does not verify without the guard, so it shows nothing", c.Name)
			}
			err, want = VerifyEd25519(c.PK, c.Msg, c.Sig), ErrComposite
		case "key":
			if _, err = ParsePublicKey(SuiteMLDSA65Ed25519, c.PK); err == nil {
				t.Errorf("%s: key accepted", c.Name)
			}
			continue
		default:
			t.Errorf("%s: unknown api %q", c.Name, c.API)
		}
		if err != want || c.Valid {
			t.Errorf("%s: got %v, want exactly %v", c.Name, err, want)
		}
	}
	if seen["composite"] < 20 || seen["ed25519"] < 2 || seen["key"] < 10 {
		t.Errorf("got cases %v, want more", seen)
	}
}

func TestVectorsEnvelope(t *testing.T) {
	var f struct {
		Payloads []hexBytes
		Digests  []hexBytes `json:"payload_digests"`
		PAE      hexBytes   `json:"pae_of_payload_0"`
		Alone    hexBytes   `json:"envelope_of_payload_0"`
		Batch    struct {
			Statement, Envelope, Proof hexBytes
		}
		Addendum struct{ Salt, Data, Digest hexBytes }
	}
	readVectors(t, "composite-envelope.json", &f)
	var keys vectorFile
	readVectors(t, "composite.json", &keys)
	k := must(NewPrivateKey(keys.Keys["a"].Seed))

	var payloads [][]byte
	for i, p := range f.Payloads {
		e, err := DecodeEvent(p)
		if err != nil {
			t.Fatalf("payload %d: %v", i, err)
		}
		if again, err := e.Encode(); err != nil || !bytes.Equal(again, p) {
			t.Errorf("payload %d: encodes to other bytes, %v", i, err)
		}
		if d := PayloadDigest(p); !bytes.Equal(d[:], f.Digests[i]) {
			t.Errorf("payload %d: got digest %x, want %x", i, d, f.Digests[i])
		}
		payloads = append(payloads, p)
	}
	if got := PAE(PayloadType, payloads[0]); !bytes.Equal(got, f.PAE) {
		t.Errorf("PAE: got %x, want %x", got, f.PAE)
	}
	alone := must(SignEvent(k, payloads[0]))
	if got := must(alone.Encode()); !bytes.Equal(got, f.Alone) {
		t.Error("lone envelope: got other bytes")
	}
	batch := must(SignBatch(k, Digest(bytes.Repeat([]byte{1}, 32)), ID(bytes.Repeat([]byte{2}, 16)), payloads))
	if got := must(batch.Encode()); !bytes.Equal(got, f.Batch.Envelope) {
		t.Error("batch envelope: got other bytes")
	}
	for _, b := range []hexBytes{f.Alone, f.Batch.Envelope} {
		if _, err := must(DecodeEnvelope(b)).Verify(k.Public()); err != nil {
			t.Errorf("envelope: got %v, want accepted", err)
		}
	}
	if got := canon.MustMarshal(must(batch.Proof(4))); !bytes.Equal(got, f.Batch.Proof) {
		t.Errorf("batch proof: got %x, want %x", got, f.Batch.Proof)
	}
	var proof BatchProof
	if err := canon.Unmarshal(f.Batch.Proof, &proof); err != nil {
		t.Fatal(err)
	}
	if _, err := proof.Verify(k.Public(), payloads[4], batch.Signature); err != nil {
		t.Errorf("batch proof: got %v, want accepted", err)
	}
	if err := k.Public().Verify(CtxBatch, f.Batch.Statement, batch.Signature); err != nil {
		t.Errorf("batch statement: got %v, want accepted", err)
	}
	if d := AddendumDigest(Addendum{[16]byte(f.Addendum.Salt), f.Addendum.Data}); !bytes.Equal(d[:], f.Addendum.Digest) {
		t.Errorf("addendum: got %x, want %x", d, f.Addendum.Digest)
	}
}
