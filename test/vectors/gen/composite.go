package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"filippo.io/mldsa"
)

const (
	prefix  = "CompositeAlgorithmSignatures2025"
	label65 = "COMPSIG-MLDSA65-Ed25519-SHA512"
	label44 = "COMPSIG-MLDSA44-Ed25519-SHA512"

	ctxEvent    = "creto/event/v1"
	ctxBatch    = "creto/batch/v1"
	ctxApproval = "creto/approval/v1"
	ctxDlg      = "creto/dlg/v1"

	mldsa65Size = 3309
)

type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

// key is a composite private key as the formulas describe it.
type key struct {
	seed []byte
	m    *mldsa.PrivateKey
	e    ed25519.PrivateKey
}

func newKey(name string) (key, error) {
	seed := sha512.Sum512([]byte("creto test key " + name))
	m, err := mldsa.NewPrivateKey(mldsa.MLDSA65(), seed[:32])
	if err != nil {
		return key{}, fmt.Errorf("derive key %s: %w", name, err)
	}
	return key{seed[:], m, ed25519.NewKeyFromSeed(seed[32:])}, nil
}

func (k key) public() []byte { return slices.Concat(k.m.PublicKey().Bytes(), k.e[32:]) }

func (k key) id() [32]byte {
	return sha256.Sum256(slices.Concat([]byte("creto/key/v1\x00mldsa65-ed25519\x00"), k.public()))
}

func component(algorithm string, pk []byte) hexBytes {
	d := sha256.Sum256(slices.Concat([]byte("creto/component/v1\x00"+algorithm+"\x00"), pk))
	return d[:]
}

func mPrime(label, ctx string, msg []byte) []byte {
	d := sha512.Sum512(msg)
	return slices.Concat([]byte(prefix+label), []byte{byte(len(ctx))}, []byte(ctx), d[:])
}

func (k key) signHalves(mLabel, mldsaCtx, ctx string, msg []byte) (m, e []byte, err error) {
	mp := mPrime(mLabel, ctx, msg)
	m, err = k.m.SignDeterministic(mp, &mldsa.Options{Context: mldsaCtx})
	return m, ed25519.Sign(k.e, mp), err
}

func (k key) sign(ctx string, msg []byte) ([]byte, error) {
	m, e, err := k.signHalves(label65, label65, ctx, msg)
	return slices.Concat(m, e), err
}

// signatureCase is one signature with the verdict expected.
type signatureCase struct {
	Name  string   `json:"name"`
	API   string   `json:"api"` // "composite", "ed25519" or "key"
	Key   string   `json:"key,omitempty"`
	PK    hexBytes `json:"pk,omitempty"` // instead of key
	Ctx   string   `json:"ctx,omitempty"`
	Msg   hexBytes `json:"msg"`
	Sig   hexBytes `json:"sig"`
	Valid bool     `json:"valid"`
}

type keyRecord struct {
	Seed       hexBytes    `json:"seed"`
	PK         hexBytes    `json:"pk"`
	KeyID      hexBytes    `json:"key_id"`
	Components [2]hexBytes `json:"component_ids"`
}

func record(k key) keyRecord {
	id := k.id()
	return keyRecord{k.seed, k.public(), id[:], [2]hexBytes{
		component("mldsa65", k.m.PublicKey().Bytes()), component("ed25519", k.e[32:]),
	}}
}

type signatureFile struct {
	About string               `json:"about"`
	Keys  map[string]keyRecord `json:"keys"`
	Cases []signatureCase      `json:"cases"`
}

func generate() (map[string][]byte, error) {
	a, err := newKey("a")
	if err != nil {
		return nil, err
	}
	b, err := newKey("b")
	if err != nil {
		return nil, err
	}
	positive, err := positiveCases(a, b)
	if err != nil {
		return nil, err
	}
	negative, err := negativeCases(a, b)
	if err != nil {
		return nil, err
	}
	envelopes, err := envelopeCases(a)
	if err != nil {
		return nil, err
	}
	keys := map[string]keyRecord{"a": record(a), "b": record(b)}
	files := make(map[string][]byte)
	for name, v := range map[string]any{
		"composite.json": signatureFile{
			"Composite keys and signatures (docs/formats.md, suite mldsa65-ed25519); signing is deterministic, so sig is what a signer must produce.",
			keys, positive},
		"composite-negative.json": signatureFile{
			"Signatures and keys that must be refused. api: composite = verify under key and ctx; ed25519 = the plain Ed25519 entry point; key = parsing the public key.",
			keys, negative},
		"composite-envelope.json": envelopes,
	} {
		j, err := json.MarshalIndent(v, "", " ")
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", name, err)
		}
		files[name] = append(j, '\n')
	}
	return files, nil
}

func positiveCases(a, b key) ([]signatureCase, error) {
	var cases []signatureCase
	for _, c := range []struct {
		key, ctx, msg string
		k             key
	}{
		{"a", ctxEvent, "", a},
		{"a", ctxEvent, "message", a},
		{"a", ctxApproval, "message", a},
		{"b", ctxDlg, "a longer message, " + string(make([]byte, 300)), b},
	} {
		sig, err := c.k.sign(c.ctx, []byte(c.msg))
		if err != nil {
			return nil, err
		}
		cases = append(cases, signatureCase{
			Name: fmt.Sprintf("key %s, %s, %d bytes", c.key, c.ctx, len(c.msg)), API: "composite",
			Key: c.key, Ctx: c.ctx, Msg: hexBytes(c.msg), Sig: sig, Valid: true,
		})
	}
	return cases, nil
}

func negativeCases(a, b key) ([]signatureCase, error) {
	msg := []byte("message")
	sig, err := a.sign(ctxEvent, msg)
	if err != nil {
		return nil, err
	}
	bSig, err := b.sign(ctxEvent, msg)
	if err != nil {
		return nil, err
	}
	approval, err := a.sign(ctxApproval, msg)
	if err != nil {
		return nil, err
	}
	m, e := sig[:mldsa65Size], sig[mldsa65Size:]
	labelled, labelledE, err := a.signHalves(label44, label44, ctxEvent, msg)
	if err != nil {
		return nil, err
	}
	unlabelled, _, err := a.signHalves(label65, "", ctxEvent, msg)
	if err != nil {
		return nil, err
	}
	m44Key, err := mldsa.NewPrivateKey(mldsa.MLDSA44(), a.seed[:32])
	if err != nil {
		return nil, err
	}
	m44, err := m44Key.SignDeterministic(mPrime(label44, ctxEvent, msg), &mldsa.Options{Context: label44})
	if err != nil {
		return nil, err
	}
	flip := func(b []byte, i int) []byte { c := slices.Clone(b); c[i] ^= 1; return c }
	cases := []signatureCase{
		{Name: "only the Ed25519 half", Sig: e},
		{Name: "only the ML-DSA half", Sig: m},
		{Name: "ML-DSA half and zeros", Sig: slices.Concat(m, make([]byte, 64))},
		{Name: "zeros and Ed25519 half", Sig: slices.Concat(make([]byte, mldsa65Size), e)},
		{Name: "halves swapped", Sig: slices.Concat(e, m)},
		{Name: "ML-DSA half of another key", Sig: slices.Concat(bSig[:mldsa65Size], e)},
		{Name: "Ed25519 half of another key", Sig: slices.Concat(m, bSig[mldsa65Size:])},
		{Name: "signature of another key", Sig: bSig},
		{Name: "made under another context", Sig: approval},
		{Name: "halves made under two contexts", Sig: slices.Concat(m, approval[mldsa65Size:])},
		{Name: "made with another label", Sig: slices.Concat(labelled, labelledE)},
		{Name: "ML-DSA half without its context", Sig: slices.Concat(unlabelled, e)},
		{Name: "truncated", Sig: sig[:len(sig)-1]},
		{Name: "trailing byte", Sig: slices.Concat(sig, []byte{0})},
		{Name: "empty", Sig: hexBytes{}},
		{Name: "ML-DSA-44 half in place of 65", Sig: slices.Concat(m44, e)},
		{Name: "ML-DSA-44 half, padded to the size of 65", Sig: slices.Concat(m44, make([]byte, mldsa65Size-len(m44)), e)},
		{Name: "first bit flipped", Sig: flip(sig, 0)},
		{Name: "last hint byte flipped", Sig: flip(sig, mldsa65Size-1)},
		{Name: "first bit of R flipped", Sig: flip(sig, mldsa65Size)},
		{Name: "S + L", Sig: addOrder(sig)},
	}
	for i := range cases {
		cases[i].API, cases[i].Key, cases[i].Ctx, cases[i].Msg = "composite", "a", ctxEvent, msg
	}
	cases = append(cases,
		signatureCase{Name: "other message", API: "composite", Key: "a", Ctx: ctxEvent, Msg: hexBytes("massage"), Sig: sig},
		signatureCase{Name: "offered under another context", API: "composite", Key: "a", Ctx: ctxDlg, Msg: msg, Sig: sig},
		signatureCase{Name: "prefix reuse: Ed25519 half as a signature over M'", API: "ed25519",
			PK: hexBytes(a.e[32:]), Msg: mPrime(label65, ctxEvent, msg), Sig: e},
		signatureCase{Name: "prefix reuse: the prefix alone", API: "ed25519",
			PK: hexBytes(a.e[32:]), Msg: hexBytes(prefix), Sig: ed25519.Sign(a.e, []byte(prefix))},
	)
	return append(cases, badKeys(a)...), nil
}

// badKeys are public keys that must not parse.
func badKeys(a key) []signatureCase {
	pk := a.public()
	withEd := func(ed string) hexBytes {
		b, err := hex.DecodeString(ed)
		if err != nil || len(b) != 32 {
			panic("bad constant " + ed)
		}
		return slices.Concat(pk[:len(pk)-32], b)
	}
	zero := slices.Clone(pk)
	clear(zero[32 : len(zero)-32])
	cases := []signatureCase{
		{Name: "key truncated", PK: pk[:len(pk)-1]},
		{Name: "key with a trailing byte", PK: slices.Concat(pk, []byte{0})},
		{Name: "key without Ed25519 half", PK: pk[:len(pk)-32]},
		{Name: "t1 = 0", PK: zero},
		{Name: "Ed25519 half is the identity", PK: withEd("0100000000000000000000000000000000000000000000000000000000000000")},
		{Name: "Ed25519 half of order 2", PK: withEd("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")},
		{Name: "Ed25519 half of order 8", PK: withEd("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")},
		{Name: "Ed25519 half of mixed order", PK: withEd("cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d")},
		{Name: "Ed25519 half not canonical", PK: withEd("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff")},
		{Name: "Ed25519 half not on the curve", PK: withEd("0200000000000000000000000000000000000000000000000000000000000000")},
	}
	for i := range cases {
		cases[i].API = "key"
	}
	return cases
}

// addOrder adds the group order L to S of the Ed25519 half.
func addOrder(sig []byte) []byte {
	order, err := hex.DecodeString("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	if err != nil {
		panic(err)
	}
	out := slices.Clone(sig)
	s := out[len(out)-32:]
	carry := 0
	for i := range s {
		carry += int(s[i]) + int(order[i])
		s[i] = byte(carry)
		carry >>= 8
	}
	return out
}
