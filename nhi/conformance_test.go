package nhi

import (
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	_ "unsafe" // for go:linkname

	"filippo.io/mldsa"
	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"

	"github.com/creto-systems/creto/test/shared"
)

// hexBytes reads hex of either case from JSON.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	*h = b
	return err
}

func readConformance(t *testing.T, name string, v any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(shared.Dir(t, "conformance"), name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
}

type lampsFile struct {
	M, Ctx []byte
	Tests  []struct {
		TCID         string
		PK, SK       []byte
		S            []byte
		SWithContext []byte
	}
}

// TestIdentity01CompositeVectors holds the composite construction against the
// vectors of the draft: all verify, and no single flipped bit does.
func TestIdentity01CompositeVectors(t *testing.T) {
	var f lampsFile
	readConformance(t, "lamps_composite_mldsa_ed25519.json", &f)
	verified := 0
	for _, v := range f.Tests {
		switch v.TCID {
		case "id-MLDSA65-Ed25519-SHA512":
			verified += checkLAMPS65(t, f.M, string(f.Ctx), v.PK, v.SK, v.S, v.SWithContext)
		case "id-MLDSA44-Ed25519-SHA512":
			// No suite of ours, but the same construction: composed here from
			// the parts, it shows that label, prefix and hash are right.
			for ctx, sig := range map[string][]byte{"": v.S, string(f.Ctx): v.SWithContext} {
				if !verifyComposite44(t, v.PK, ctx, f.M, sig) {
					t.Errorf("%s with context %q: refused, want accepted", v.TCID, ctx)
				}
				verified++
			}
		default:
			t.Errorf("unexpected vector %q", v.TCID)
		}
	}
	if verified != 4 {
		t.Errorf("got %d vectors verified, want 4", verified)
	}
}

func checkLAMPS65(t *testing.T, msg []byte, ctx string, pkBytes, seed, sig, sigCtx []byte) int {
	pk, err := ParsePublicKey(SuiteMLDSA65Ed25519, pkBytes)
	if err != nil {
		t.Fatal(err)
	}
	sk, err := NewPrivateKey(seed)
	if err != nil {
		t.Fatal(err)
	}
	if sk.Public().ID() != pk.ID() {
		t.Error("seed gives another public key than the vector's")
	}
	digest := sha512.Sum512(msg)
	for c, s := range map[string][]byte{"": sig, ctx: sigCtx} {
		if err := pk.verify(c, digest, s); err != nil {
			t.Errorf("context %q: got %v, want accepted", c, err)
		}
		again, err := sk.sign(c, msg)
		if err != nil {
			t.Fatal(err)
		}
		if err := pk.verify(c, digest, again); err != nil {
			t.Errorf("context %q, signed here: got %v, want accepted", c, err)
		}
	}
	// Every bit of the Ed25519 half and of the context; of the ML-DSA half
	// every byte, with the bit walking, so that the test stays short.
	flip := func(b []byte, bit int) []byte {
		c := slices.Clone(b)
		c[bit/8] ^= 1 << (bit % 8)
		return c
	}
	for i := range mldsa65SignatureSize {
		if pk.verify(ctx, digest, flip(sigCtx, 8*i+i%8)) != ErrBadSignature {
			t.Fatalf("bit %d of byte %d flipped: accepted", i%8, i)
		}
	}
	for bit := 8 * mldsa65SignatureSize; bit < 8*SignatureSize; bit++ {
		if pk.verify(ctx, digest, flip(sigCtx, bit)) != ErrBadSignature {
			t.Fatalf("signature bit %d flipped: accepted", bit)
		}
	}
	for bit := range 8 * len(ctx) {
		if pk.verify(string(flip([]byte(ctx), bit)), digest, sigCtx) != ErrBadSignature {
			t.Fatalf("context bit %d flipped: accepted", bit)
		}
	}
	return 2
}

func verifyComposite44(t *testing.T, pk []byte, ctx string, msg, sig []byte) bool {
	const label = "COMPSIG-MLDSA44-Ed25519-SHA512"
	digest := sha512.Sum512(msg)
	m := slices.Concat([]byte(compositePrefix), []byte(label), []byte{byte(len(ctx))}, []byte(ctx), digest[:])
	k, err := mldsa.NewPublicKey(mldsa.MLDSA44(), pk[:mldsa44PublicKeySize])
	if err != nil {
		t.Fatal(err)
	}
	return mldsa.Verify(k, m, sig[:mldsa44SignatureSize], &mldsa.Options{Context: label}) == nil &&
		ed25519.Verify(pk[mldsa44PublicKeySize:], m, sig[mldsa44SignatureSize:])
}

func TestWycheproofMLDSA65(t *testing.T) {
	var f struct {
		TestGroups []struct {
			PublicKey hexBytes
			Tests     []struct {
				TcID     int
				Comment  string
				Msg, Sig hexBytes
				Ctx      hexBytes
				Result   string
				Flags    []string
			}
		}
	}
	readConformance(t, "wycheproof_mldsa_65_verify_subset.json", &f)
	n := 0
	for _, g := range f.TestGroups {
		pk, err := parseMLDSA65(g.PublicKey)
		ref, refErr := mldsa.NewPublicKey(mldsa.MLDSA65(), g.PublicKey)
		for _, c := range g.Tests {
			n++
			if slices.Contains(c.Flags, "ZeroPublicKey") && len(g.PublicKey) == mldsa65PublicKeySize {
				if !errors.Is(err, ErrWeakKey) {
					t.Errorf("%d: zero public key: got %v, want %v", c.TcID, err, ErrWeakKey)
				}
				continue
			}
			got := err == nil && pk.verify(c.Msg, c.Ctx, c.Sig)
			if want := c.Result == "valid"; got != want {
				t.Errorf("%d (%s): got %v, want %v", c.TcID, c.Comment, got, want)
			}
			refGot := refErr == nil && len(c.Ctx) <= 255 &&
				mldsa.Verify(ref, c.Msg, c.Sig, &mldsa.Options{Context: string(c.Ctx)}) == nil
			if got != refGot {
				t.Errorf("%d (%s): got %v, filippo.io/mldsa says %v", c.TcID, c.Comment, got, refGot)
			}
		}
	}
	if n == 0 {
		t.Error("no vectors")
	}
}

func TestWycheproofEd25519(t *testing.T) {
	var f struct {
		TestGroups []struct {
			PublicKey struct{ PK hexBytes }
			Tests     []struct {
				TcID     int
				Comment  string
				Msg, Sig hexBytes
				Result   string
			}
		}
	}
	readConformance(t, "wycheproof_ed25519.json", &f)
	n := 0
	for _, g := range f.TestGroups {
		if err := CheckEd25519Key(g.PublicKey.PK); err != nil {
			t.Errorf("key %x: got %v, want accepted", g.PublicKey.PK, err)
		}
		for _, c := range g.Tests {
			n++
			err := VerifyEd25519(g.PublicKey.PK, c.Msg, c.Sig)
			if got, want := err == nil, c.Result == "valid"; got != want {
				t.Errorf("%d (%s): got %v, want %s", c.TcID, c.Comment, err, c.Result)
			}
		}
	}
	if n != 151 {
		t.Errorf("got %d vectors, want 151", n)
	}
}

// The ACVP sigVer vectors are for ML-DSA.Verify_internal (FIPS 204, 6.3), which
// circl keeps to itself; nothing but this test needs it.
//
//go:linkname verifyInternal65 github.com/cloudflare/circl/sign/mldsa/mldsa65.unsafeVerifyInternal
func verifyInternal65(pk *mldsa65.PublicKey, msg, sig []byte) bool

//go:linkname verifyInternal44 github.com/cloudflare/circl/sign/mldsa/mldsa44.unsafeVerifyInternal
func verifyInternal44(pk *mldsa44.PublicKey, msg, sig []byte) bool

func TestACVPSigVer(t *testing.T) {
	var f struct {
		TestGroups []struct {
			ParameterSet string
			PK           hexBytes
			Tests        []struct {
				TcID               int
				Message, Signature hexBytes
				Expected           struct{ TestPassed bool }
			}
		}
	}
	readConformance(t, "acvp_mldsa_sigVer_subset.json", &f)
	passed, failed := 0, 0
	for _, g := range f.TestGroups {
		for _, c := range g.Tests {
			var got bool
			switch g.ParameterSet {
			case "ML-DSA-44":
				pk, err := parseMLDSA44(g.PK)
				if err != nil {
					t.Fatal(err)
				}
				got = verifyInternal44(&pk.k, c.Message, c.Signature)
			case "ML-DSA-65":
				pk, err := parseMLDSA65(g.PK)
				if err != nil {
					t.Fatal(err)
				}
				got = verifyInternal65(&pk.k, c.Message, c.Signature)
			default:
				t.Fatalf("unexpected parameter set %q", g.ParameterSet)
			}
			if got != c.Expected.TestPassed {
				t.Errorf("%s %d: got %v, want %v", g.ParameterSet, c.TcID, got, c.Expected.TestPassed)
			}
			if got {
				passed++
			} else {
				failed++
			}
		}
	}
	if passed == 0 || failed == 0 {
		t.Errorf("got %d accepted and %d refused, want some of both", passed, failed)
	}
}

type speccheckFile struct {
	Observed struct{ Results map[string]string } `json:"x-observed-2026-11-23"`
	Cases    []struct {
		Message   hexBytes
		PubKey    hexBytes `json:"pub_key"`
		Signature hexBytes
	}
}

// TestIdentity07Ed25519EdgeCases: the keys on which libraries disagree cannot be
// registered, alone or inside a composite; what is left is decided by the
// standard library's rule everywhere.
func TestIdentity07Ed25519EdgeCases(t *testing.T) {
	var f speccheckFile
	readConformance(t, "ed25519_speccheck_cases.json", &f)
	std := f.Observed.Results["go1.26 crypto/ed25519"]
	if len(f.Cases) != 12 || len(std) != 12 {
		t.Fatalf("got %d cases and %d results, want 12", len(f.Cases), len(std))
	}
	composite := testKey(t, 1).Public().Bytes()
	for i, c := range f.Cases {
		err := CheckEd25519Key(c.PubKey)
		refused := err != nil
		if want := i != 6 && i != 7; refused != want {
			t.Errorf("case %d: key check: got %v, want refused %v", i, err, want)
		}
		copy(composite[mldsa65PublicKeySize:], c.PubKey)
		if _, cerr := ParsePublicKey(SuiteMLDSA65Ed25519, composite); (cerr != nil) != refused {
			t.Errorf("case %d: inside a composite: got %v, alone %v", i, cerr, err)
		}
		got := VerifyEd25519(c.PubKey, c.Message, c.Signature) == nil
		if want := std[i] == 'V'; got != want {
			t.Errorf("case %d: got accepted %v, the standard library says %v", i, got, want)
		}
	}
	for i := 6; i <= 7; i++ { // S ≥ L
		if err := VerifyEd25519(f.Cases[i].PubKey, f.Cases[i].Message, f.Cases[i].Signature); !errors.Is(err, ErrBadSignature) {
			t.Errorf("case %d: got %v, want %v", i, err, ErrBadSignature)
		}
	}
}

// TestCrossCheckMLDSA: circl and filippo.io/mldsa derive the same keys and
// accept each other's signatures.
func TestCrossCheckMLDSA(t *testing.T) {
	for i := range 8 {
		sk := testKey(t, byte(i))
		msg := []byte(strings.Repeat("m", 37*i))
		ref, err := mldsa.NewPrivateKey(mldsa.MLDSA65(), sk.Seed()[:mldsaSeedSize])
		if err != nil {
			t.Fatal(err)
		}
		if got, want := sk.Public().Bytes()[:mldsa65PublicKeySize], ref.PublicKey().Bytes(); string(got) != string(want) {
			t.Fatal("circl and filippo.io/mldsa derive different keys from one seed")
		}
		opts := &mldsa.Options{Context: compositeLabel}
		theirs, err := ref.SignDeterministic(msg, opts)
		if err != nil {
			t.Fatal(err)
		}
		ours := make([]byte, mldsa65SignatureSize)
		if err := sk.mldsa.sign(ours, msg, []byte(compositeLabel)); err != nil {
			t.Fatal(err)
		}
		if string(ours) != string(theirs) {
			t.Error("deterministic signatures differ")
		}
		if err := mldsa.Verify(ref.PublicKey(), msg, ours, opts); err != nil {
			t.Errorf("filippo.io/mldsa refuses circl's signature: %v", err)
		}
		if !sk.Public().mldsa.verify(msg, []byte(compositeLabel), theirs) {
			t.Error("circl refuses filippo.io/mldsa's signature")
		}
	}
	sk, err := NewMLDSA44(testKey(t, 9).Seed()[:MLDSA44SeedSize])
	if err != nil {
		t.Fatal(err)
	}
	ref, err := mldsa.NewPrivateKey(mldsa.MLDSA44(), sk.Seed())
	if err != nil {
		t.Fatal(err)
	}
	sig, err := sk.Sign([]byte("checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	if err := mldsa.Verify(ref.PublicKey(), []byte("checkpoint"), sig, nil); err != nil {
		t.Errorf("filippo.io/mldsa refuses an ML-DSA-44 signature: %v", err)
	}
}
