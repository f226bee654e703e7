package verify

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/creto-systems/creto/nhi"
	flog "github.com/transparency-dev/formats/log"
	fnote "github.com/transparency-dev/formats/note"
	fproof "github.com/transparency-dev/formats/proof"
	fwitness "github.com/transparency-dev/formats/witness"
	"golang.org/x/mod/sumdb/note"
)

const testOrigin = "ledger.test/spine"

func seed(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func logSigner(t testing.TB, origin string) NoteSigner {
	t.Helper()
	s, err := NewEd25519NoteSigner(origin, KeyEd25519, ed25519.NewKeyFromSeed(seed(1)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func edSigner(t testing.TB, name string, b byte) NoteSigner {
	t.Helper()
	s, err := NewEd25519NoteSigner(name, KeyCosignature, ed25519.NewKeyFromSeed(seed(b)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pqSigner(t testing.TB, name string, b byte) NoteSigner {
	t.Helper()
	k, err := nhi.NewMLDSA44(seed(b))
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewMLDSA44NoteSigner(name, k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func signedNote(t testing.TB, c Checkpoint, time int64, cosigners ...NoteSigner) *Note {
	t.Helper()
	n, err := SignCheckpoint(c, logSigner(t, c.Origin))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range cosigners {
		sig, err := Cosign(c, s, time)
		if err != nil {
			t.Fatal(err)
		}
		n.Signatures = append(n.Signatures, sig)
	}
	return n
}

func TestConformanceNotes(t *testing.T) {
	var file struct {
		Notes []struct {
			Name, VKey, Note string
		}
		Bodies []struct {
			Desc, Text string
			OK         bool
		} `json:"checkpoint_bodies"`
	}
	loadJSON(t, "c2sp-examples.json", &file)
	if len(file.Notes) == 0 || len(file.Bodies) == 0 {
		t.Fatal("no examples")
	}
	for _, c := range file.Notes {
		v, err := ParseVKey(c.VKey)
		if err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		n, err := ParseNote([]byte(c.Note))
		if err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		if got := string(n.Marshal()); got != c.Note {
			t.Errorf("%s: got %q, want the same bytes", c.Name, got)
		}
		if _, err := v.Verify(n.Text, n.Signatures[0]); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		if _, err := v.Verify(n.Text+"x\n", n.Signatures[0]); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: got %v for another text, want ErrSignature", c.Name, err)
		}
	}
	for _, c := range file.Bodies {
		cp, err := ParseCheckpoint(c.Text)
		if (err == nil) != c.OK {
			t.Errorf("%s: got %v, want ok: %t", c.Desc, err, c.OK)
		}
		if err == nil && cp.Text() != c.Text {
			t.Errorf("%s: got %q back, want %q", c.Desc, cp.Text(), c.Text)
		}
	}
}

func TestCheckpointRefuses(t *testing.T) {
	root := base64.StdEncoding.EncodeToString(seed(9))
	for name, text := range map[string]string{
		"extension line":  "a\n1\n" + root + "\nx\n",
		"size over 2^53":  "a\n9007199254740992\n" + root + "\n",
		"size over 2^64":  "a\n18446744073709551616\n" + root + "\n",
		"origin of 256":   strings.Repeat("a", 256) + "\n1\n" + root + "\n",
		"origin, space":   "a b\n1\n" + root + "\n",
		"origin, NBSP":    "a\u00a0b\n1\n" + root + "\n",
		"origin, plus":    "a+b\n1\n" + root + "\n",
		"root of 33":      "a\n1\n" + base64.StdEncoding.EncodeToString(append(seed(9), 0)) + "\n",
		"URL base64":      "a\n1\n" + base64.URLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 32)) + "\n",
		"no padding":      "a\n1\n" + strings.TrimRight(root, "=") + "\n",
		"two lines":       "a\n1\n",
		"nothing":         "",
		"negative":        "a\n-1\n" + root + "\n",
		"space in size":   "a\n 1\n" + root + "\n",
		"trailing spaces": "a\n1\n" + root + " \n",
	} {
		if c, err := ParseCheckpoint(text); !errors.Is(err, ErrNote) {
			t.Errorf("%s: got %+v, %v, want ErrNote", name, c, err)
		}
	}
}

func TestNoteRefuses(t *testing.T) {
	good := string(signedNote(t, Checkpoint{Origin: testOrigin, Size: 1}, 0).Marshal())
	line := good[strings.LastIndex(good[:len(good)-1], "\n")+1:]
	for name, text := range map[string]string{
		"empty":               "",
		"no signature":        "text\n\n",
		"no blank line":       "text\n" + line,
		"no final newline":    good[:len(good)-1],
		"CRLF":                strings.ReplaceAll(good, "\n", "\r\n"),
		"tab":                 "a\tb\n\n" + line,
		"not UTF-8":           "a\xff\n\n" + line,
		"hyphen for em dash":  "text\n\n" + strings.Replace(line, "—", "-", 1),
		"two spaces":          "text\n\n" + strings.Replace(line, "— ", "—  ", 1),
		"no name":             "text\n\n— " + line[strings.LastIndex(line, " ")+1:],
		"name with plus":      "text\n\n" + strings.Replace(line, "spine", "sp+ine", 1),
		"name with NBSP":      "text\n\n" + strings.Replace(line, "spine", "sp\u00a0ine", 1),
		"short blob":          "text\n\n— x AAAAAA==\n",
		"trailing bits":       "text\n\n— x AAAAAAB=\n",
		"no padding":          "text\n\n— x AAAAAAA\n",
		"101 signatures":      "text\n\n" + strings.Repeat(line, 101),
		"10,000 signatures":   "text\n\n" + strings.Repeat(line, 10000),
		"more than a MiB":     strings.Repeat("x", MaxNoteSize) + "\n\n" + line,
		"junk after the last": good + "x\n",
	} {
		if n, err := ParseNote([]byte(text)); !errors.Is(err, ErrNote) {
			t.Errorf("%s: got %v, %v, want ErrNote", name, n, err)
		}
	}
	n, err := ParseNote([]byte("a\n\nb\n\n" + line))
	if err != nil || n.Text != "a\n\nb\n" {
		t.Errorf("blank line in the text: got %+v, %v, want a split at the last one", n, err)
	}
	if _, err := ParseNote([]byte("text\n\n" + strings.Repeat(line, 100))); err != nil {
		t.Errorf("100 signatures: %v", err)
	}
}

func TestVKeyRefuses(t *testing.T) {
	good := logSigner(t, testOrigin).VKey()
	if v, err := ParseVKey(good.String()); err != nil || v != good {
		t.Fatalf("got %+v, %v, want %+v", v, err, good)
	}
	text := good.String()
	for name, bad := range map[string]string{
		"another key ID":   strings.Replace(text, "+", "+00000000", 1)[:len(testOrigin)+9] + text[len(testOrigin)+9:],
		"upper-case ID":    testOrigin + strings.ToUpper(text[len(testOrigin):len(testOrigin)+9]) + text[len(testOrigin)+9:],
		"another name":     "x" + text,
		"no name":          text[len(testOrigin):],
		"a byte less":      VKey{good.Name, good.Type, good.Key[1:]}.String(),
		"ECDSA":            VKey{good.Name, 2, good.Key}.String(),
		"type 05":          VKey{good.Name, 5, good.Key}.String(),
		"type ff":          VKey{good.Name, 0xff, good.Key}.String(),
		"06 with Ed25519":  VKey{good.Name, KeyMLDSA44, good.Key}.String(),
		"space at the end": text + " ",
		"nothing":          "",
	} {
		if v, err := ParseVKey(bad); !errors.Is(err, ErrNote) {
			t.Errorf("%s: got %+v, %v, want ErrNote", name, v, err)
		}
	}
}

// TestSignaturesAcceptedElsewhere has x/mod and transparency-dev/formats verify what we sign, with every key type.
func TestSignaturesAcceptedElsewhere(t *testing.T) {
	c := Checkpoint{Origin: testOrigin, Size: 1234, Root: nhi.Digest(seed(7))}
	ed, pq := edSigner(t, "ledger.test/node/a/ed", 2), pqSigner(t, "ledger.test/node/a/pq", 3)
	n := signedNote(t, c, 1767225600, ed, pq)
	raw := n.Marshal()
	again, err := ParseNote(raw)
	if err != nil || !bytes.Equal(again.Marshal(), raw) {
		t.Fatalf("got %v, want the same bytes", err)
	}
	logV, err := note.NewVerifier(logSigner(t, testOrigin).VKey().String())
	if err != nil {
		t.Fatal(err)
	}
	edV, err := fnote.NewVerifierForCosignatureV1(ed.VKey().String())
	if err != nil {
		t.Fatal(err)
	}
	pqV, err := fnote.NewMLDSAVerifier(pq.VKey().String())
	if err != nil {
		t.Fatal(err)
	}
	cp, _, opened, err := flog.ParseCheckpoint(raw, testOrigin, logV, edV, pqV)
	if err != nil {
		t.Fatal(err)
	}
	if cp.Size != c.Size || !bytes.Equal(cp.Hash, c.Root[:]) || len(opened.Sigs) != 3 || len(opened.UnverifiedSigs) != 0 {
		t.Errorf("got %+v with %d signatures, want %+v with 3", cp, len(opened.Sigs), c)
	}
	if at, err := fnote.CoSigV1Timestamp(opened.Sigs[1]); err != nil || at.Unix() != 1767225600 {
		t.Errorf("got time %v, %v", at, err)
	}
	for i, s := range []NoteSigner{ed, pq} {
		at, err := s.VKey().Verify(n.Text, n.Signatures[i+1])
		if err != nil || at != 1767225600 {
			t.Errorf("%s: got %d, %v", s.VKey().Name, at, err)
		}
	}
}

// TestSignaturesMadeElsewhere verifies what the other libraries sign.
func TestSignaturesMadeElsewhere(t *testing.T) {
	c := Checkpoint{Origin: testOrigin, Size: 5, Root: nhi.Digest(seed(7))}
	skey, vkey, err := note.GenerateKey(nil, testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	logS, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	edS, err := fnote.NewSignerForCosignatureV1(skey)
	if err != nil {
		t.Fatal(err)
	}
	pqSkey, pqVkey, err := fnote.GenerateMLDSAKey("w.example/pq")
	if err != nil {
		t.Fatal(err)
	}
	pqS, err := fnote.NewMLDSASigner(pqSkey)
	if err != nil {
		t.Fatal(err)
	}
	edVkey, err := fnote.VKeyToCosignatureV1(vkey)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := note.Sign(&note.Note{Text: c.Text()}, logS, edS, pqS)
	if err != nil {
		t.Fatal(err)
	}
	n, err := ParseNote(raw)
	if err != nil || !bytes.Equal(n.Marshal(), raw) {
		t.Fatalf("got %v, want the same bytes", err)
	}
	for i, text := range []string{vkey, edVkey, pqVkey} {
		v, err := ParseVKey(text)
		if err != nil {
			t.Fatal(err)
		}
		if at, err := v.Verify(n.Text, n.Signatures[i]); err != nil || (at == 0) != (v.Type == KeyEd25519) {
			t.Errorf("type %#02x: got time %d, %v", byte(v.Type), at, err)
		}
	}
}

func TestCosignRefuses(t *testing.T) {
	c := Checkpoint{Origin: testOrigin, Size: 5, Root: nhi.Digest(seed(7))}
	ed, pq := edSigner(t, "n/ed", 2), pqSigner(t, "n/pq", 3)
	if _, err := Cosign(c, ed, 0); err == nil {
		t.Error("time 0: signed")
	}
	if _, err := Cosign(c, logSigner(t, testOrigin), 1); err == nil {
		t.Error("a log key cosigned")
	}
	if _, err := SignCheckpoint(c, logSigner(t, "another/spine")); err == nil {
		t.Error("a log signed another origin")
	}
	if _, err := SignCheckpoint(Checkpoint{Origin: testOrigin}, logSigner(t, testOrigin)); err == nil {
		t.Error("signed size 0 with another root than the empty one")
	}
	for _, s := range []NoteSigner{ed, pq} {
		v := s.VKey()
		sig, err := Cosign(c, s, 77)
		if err != nil {
			t.Fatal(err)
		}
		for name, edit := range map[string]func(*NoteSignature, *string){
			"another time":   func(s *NoteSignature, _ *string) { s.Blob[7]++ },
			"time 0":         func(s *NoteSignature, _ *string) { s.Blob[7] = 0 },
			"year 10000":     func(s *NoteSignature, _ *string) { s.Blob[0] = 1 },
			"a byte less":    func(s *NoteSignature, _ *string) { s.Blob = s.Blob[:len(s.Blob)-1] },
			"a byte more":    func(s *NoteSignature, _ *string) { s.Blob = append(s.Blob, 0) },
			"another size":   func(_ *NoteSignature, text *string) { *text = Checkpoint{c.Origin, 6, c.Root}.Text() },
			"another origin": func(_ *NoteSignature, text *string) { *text = Checkpoint{"x", 5, c.Root}.Text() },
			"another root":   func(_ *NoteSignature, text *string) { *text = Checkpoint{c.Origin, 5, nhi.Digest{}}.Text() },
			"another name":   func(s *NoteSignature, _ *string) { s.Name = "x" },
		} {
			text, bad := c.Text(), NoteSignature{sig.Name, sig.KeyID, bytes.Clone(sig.Blob)}
			edit(&bad, &text)
			if _, err := v.Verify(text, bad); !errors.Is(err, ErrSignature) {
				t.Errorf("type %#02x, %s: got %v, want ErrSignature", byte(v.Type), name, err)
			}
		}
	}
}

func TestTLogProofRoundTrip(t *testing.T) {
	c := Checkpoint{Origin: testOrigin, Size: 5, Root: nhi.Digest(seed(7))}
	for _, p := range []*TLogProof{
		{Index: 0, Checkpoint: signedNote(t, c, 0).Marshal()},
		{Index: MaxTreeSize - 1, Path: make([]nhi.Digest, MaxProofHashes), Checkpoint: signedNote(t, c, 0).Marshal()},
		{Extra: []byte{}, Index: 3, Path: []nhi.Digest{{1}}, Checkpoint: signedNote(t, c, 0).Marshal()},
		{Extra: []byte("hello"), Index: 3, Path: []nhi.Digest{{1}}, Checkpoint: signedNote(t, c, 0).Marshal()},
	} {
		raw := p.Marshal()
		got, err := ParseTLogProof(raw)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Marshal(), raw) || (got.Extra == nil) != (p.Extra == nil) {
			t.Errorf("got %q, want %q", got.Marshal(), raw)
		}
		var other fproof.TLogProof
		if err := other.Unmarshal(raw); err != nil || other.Index != p.Index || len(other.Hashes) != len(p.Path) {
			t.Errorf("formats reads %+v, %v", other, err)
		}
		if !bytes.Equal(other.Marshal(), raw) {
			t.Errorf("formats writes %q, want %q", other.Marshal(), raw)
		}
	}
}

func TestTLogProofRefuses(t *testing.T) {
	cp := string(signedNote(t, Checkpoint{Origin: testOrigin, Size: 5}, 0).Marshal())
	hash := base64.StdEncoding.EncodeToString(seed(1))
	for name, text := range map[string]string{
		"header":              "c2sp.org/tlog-proof@v2\nindex 0\n\n" + cp,
		"no index":            "c2sp.org/tlog-proof@v1\n\n" + cp,
		"index 03":            "c2sp.org/tlog-proof@v1\nindex 03\n\n" + cp,
		"index +3":            "c2sp.org/tlog-proof@v1\nindex +3\n\n" + cp,
		"index 2^53":          "c2sp.org/tlog-proof@v1\nindex 9007199254740992\n\n" + cp,
		"CRLF":                strings.ReplaceAll("c2sp.org/tlog-proof@v1\nindex 0\n\n", "\n", "\r\n") + cp,
		"short hash":          "c2sp.org/tlog-proof@v1\nindex 0\nAAAA\n\n" + cp,
		"empty hash line":     "c2sp.org/tlog-proof@v1\nindex 0\n\n" + hash + "\n\n" + cp[:0] + "x",
		"64 hashes":           "c2sp.org/tlog-proof@v1\nindex 0\n" + strings.Repeat(hash+"\n", 64) + "\n" + cp,
		"a line of 1 MB":      "c2sp.org/tlog-proof@v1\nextra " + strings.Repeat("A", 1<<20) + "\nindex 0\n\n" + cp,
		"extra after index":   "c2sp.org/tlog-proof@v1\nindex 0\nextra AAAA\n\n" + cp,
		"no checkpoint":       "c2sp.org/tlog-proof@v1\nindex 0\n\n",
		"checkpoint unsigned": "c2sp.org/tlog-proof@v1\nindex 0\n\na\n1\n" + hash + "\n",
		"nothing":             "",
	} {
		if p, err := ParseTLogProof([]byte(text)); !errors.Is(err, ErrTLogProof) {
			t.Errorf("%s: got %+v, %v, want ErrTLogProof", name, p, err)
		}
	}
}

// TestPolicyReadElsewhere has formats read the plain part of a trust file. It wants URLs and Ed25519 witnesses.
func TestPolicyReadElsewhere(t *testing.T) {
	log := logSigner(t, testOrigin)
	a, b, c := edSigner(t, "a/ed", 2), edSigner(t, "b/ed", 3), edSigner(t, "c/ed", 4)
	text := "ledger_id " + hex.EncodeToString(seed(5)) + "\nlog " + log.VKey().String() + "\n"
	for _, s := range []NoteSigner{a, b, c} {
		text += "witness " + s.VKey().Name + " " + s.VKey().String() + " https://w.example/\n"
	}
	text += "group g 2 a/ed b/ed c/ed\nquorum g\n"
	trust, err := ParseTrust([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	group, err := fwitness.ParsePolicy(trust.Policy())
	if err != nil {
		t.Fatal(err)
	}
	cp := Checkpoint{Origin: testOrigin, Size: 5, Root: nhi.Digest(seed(7))}
	for _, signers := range [][]NoteSigner{{}, {a}, {a, b}, {c, b}, {a, b, c}} {
		n := signedNote(t, cp, 9, signers...)
		_, err := trust.Endorse(n)
		if got, want := err == nil, len(signers) >= 2; got != want || group.Satisfied(n.Marshal()) != want {
			t.Errorf("%d cosigners: got %v, formats says %t, want %t", len(signers), err, group.Satisfied(n.Marshal()), want)
		}
	}
}
