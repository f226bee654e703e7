package verify

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/creto-systems/creto/nhi"
	"github.com/google/go-cmp/cmp"
)

const testLedger = "0505050505050505050505050505050505050505050505050505050505050505"

// trustLines returns a trust file of three nodes as lines.
func trustLines(t testing.TB) []string {
	t.Helper()
	lines := []string{
		"# the ledger of a test", "", "ledger_id " + testLedger,
		"log\t" + logSigner(t, testOrigin).VKey().String() + " https://log.example/spine",
	}
	for i := range byte(3) {
		name := fmt.Sprintf("node/%c", 'a'+i)
		ed, pq := edSigner(t, name+"/ed", 10+i).VKey(), pqSigner(t, name+"/pq", 20+i).VKey()
		lines = append(lines, "witness "+ed.Name+" "+ed.String(), "  witness "+pq.Name+"  "+pq.String()+" ",
			"group "+name+" all "+ed.Name+" "+pq.Name, "receipt_key "+nhi.ID{i + 1}.String()+" "+nhi.KeyID{i + 1}.String())
	}
	return append(lines, "group nodes 2 node/a node/b node/c", "valid node/a/ed 100 -", "quorum nodes")
}

func parseLines(lines []string) (*Trust, error) {
	return ParseTrust([]byte(strings.Join(lines, "\n") + "\n"))
}

func TestTrustRoundTrip(t *testing.T) {
	trust, err := parseLines(trustLines(t))
	if err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(trust.LedgerID[:]) != testLedger || len(trust.Logs) != 1 || len(trust.Witnesses) != 6 || len(trust.Groups) != 4 ||
		len(trust.Receipts) != 3 || len(trust.Valid) != 1 || trust.Quorum != "nodes" {
		t.Errorf("got %+v", trust)
	}
	again, err := ParseTrust(trust.Format())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(trust, again); d != "" {
		t.Errorf("after Format (-want +got):\n%s", d)
	}
	if string(again.Format()) != string(trust.Format()) {
		t.Error("Format is not stable")
	}
}

func TestTrustFingerprint(t *testing.T) {
	lines := trustLines(t)
	trust, err := parseLines(lines)
	if err != nil {
		t.Fatal(err)
	}
	fp := trust.Fingerprint()
	if n := len(strings.Fields(fp)); n != 12 {
		t.Errorf("got %d words, want 12: %q", n, fp)
	}
	lines[0] = "# another comment"
	lines[3] = strings.TrimSuffix(lines[3], " https://log.example/spine")
	same, err := parseLines(lines)
	if err != nil {
		t.Fatal(err)
	}
	if same.Fingerprint() != fp {
		t.Error("comments or URLs changed the fingerprint")
	}
	lines[len(lines)-3] = "group nodes 1 node/a node/b node/c"
	weaker, err := parseLines(lines)
	if err != nil {
		t.Fatal(err)
	}
	if weaker.Fingerprint() == fp {
		t.Error("another quorum has the same fingerprint")
	}
	if got := len(strings.Fields(words)); got != 2048 {
		t.Errorf("got %d words, want 2048", got)
	}
}

func TestTrustRefuses(t *testing.T) {
	good := trustLines(t)
	log, ed, pq := logSigner(t, testOrigin).VKey(), edSigner(t, "node/a/ed", 10).VKey(), pqSigner(t, "node/a/pq", 20).VKey()
	other := edSigner(t, "x", 99).VKey()
	otherLog := VKey{"other/spine", KeyEd25519, other.Key}
	smallOrder := VKey{"weak/spine", KeyEd25519, string(append([]byte{1}, make([]byte, 31)...))}
	add := func(line string) []string { return append([]string{line}, good...) }
	drop := func(prefix string) []string {
		var out []string
		for _, l := range good {
			if !strings.HasPrefix(l, prefix) {
				out = append(out, l)
			}
		}
		return out
	}
	end := func(line string) []string { return append(append([]string(nil), good...), line) }
	for name, lines := range map[string][]string{
		"nothing":               {},
		"no ledger_id":          drop("ledger_id"),
		"no log":                drop("log"),
		"no quorum":             drop("quorum"),
		"two ledger_ids":        add("ledger_id " + testLedger),
		"upper-case ledger_id":  append([]string{"ledger_id " + strings.Repeat("AB", 32)}, drop("ledger_id")...),
		"short ledger_id":       append([]string{"ledger_id 05"}, drop("ledger_id")...),
		"two quorums":           end("quorum none"),
		"unknown keyword":       end("policy x"),
		"log twice":             end("log " + log.String()),
		"log of type 04":        end("log " + other.String()),
		"log key under a name":  end("log " + VKey{"y/spine", KeyEd25519, log.Key}.String()),
		"small-order log key":   end("log " + smallOrder.String()),
		"witness of type 01":    add("witness z " + otherLog.String()),
		"witness name twice":    end("witness node/a/ed " + other.String()),
		"witness key twice":     end("witness z " + VKey{"z", KeyCosignature, ed.Key}.String()),
		"pq witness key twice":  end("witness z " + VKey{"z", KeyMLDSA44, pq.Key}.String()),
		"witness named none":    end("witness none " + other.String()),
		"witness without key":   end("witness z"),
		"group of nobody":       end("group z all"),
		"group of a stranger":   end("group z all stranger"),
		"group of none":         end("group z all none"),
		"group of itself":       end("group z all z"),
		"member of two groups":  end("group z all node/a"),
		"member twice":          append([]string{"witness x " + other.String(), "group z 1 x x"}, good...),
		"threshold 0":           append([]string{"witness x " + other.String(), "group z 0 x"}, good...),
		"threshold 2 of 1":      append([]string{"witness x " + other.String(), "group z 2 x"}, good...),
		"threshold 01":          append([]string{"witness x " + other.String(), "group z 01 x"}, good...),
		"quorum of a stranger":  append(drop("quorum"), "quorum stranger"),
		"quorum before group":   append([]string{"quorum nodes"}, drop("quorum")...),
		"receipt_key twice":     end("receipt_key " + nhi.ID{9}.String() + " " + nhi.KeyID{1}.String()),
		"receipt_key, bad node": end("receipt_key X " + nhi.KeyID{9}.String()),
		"interval of nobody":    end("valid stranger 1 2"),
		"empty interval":        end("valid node/b/ed 2 2"),
		"interval twice":        end("valid node/a/ed 1 2"),
		"interval, bad time":    end("valid node/b/ed 01 2"),
		"CR":                    end("quorum none\r"),
		"NUL":                   end("# \x00"),
	} {
		if trust, err := parseLines(lines); !errors.Is(err, ErrTrust) {
			t.Errorf("%s: got %+v, %v, want ErrTrust", name, trust, err)
		}
	}
	if _, err := ParseTrust([]byte(strings.Join(good, "\n"))); !errors.Is(err, ErrTrust) {
		t.Errorf("no newline at the end: got %v, want ErrTrust", err)
	}
	if _, err := ParseTrust(make([]byte, MaxTrustSize+1)); !errors.Is(err, ErrTrust) {
		t.Errorf("too long: got %v, want ErrTrust", err)
	}
}

// TestQuorum: with n nodes and threshold k any k-1 fail and any k pass, and a node counts only with both keys.
func TestQuorum(t *testing.T) {
	trust, err := parseLines(trustLines(t))
	if err != nil {
		t.Fatal(err)
	}
	c := Checkpoint{Origin: testOrigin, Size: 5, Root: nhi.Digest(seed(7))}
	var signers []NoteSigner
	for i := range byte(3) {
		name := fmt.Sprintf("node/%c", 'a'+i)
		signers = append(signers, edSigner(t, name+"/ed", 10+i), pqSigner(t, name+"/pq", 20+i))
	}
	all := signedNote(t, c, 1000, signers...)
	for mask := range 1 << 6 {
		n := &Note{Text: all.Text, Signatures: all.Signatures[:1:1]}
		whole := 0
		for node := range 3 {
			both := mask >> (2 * node) & 3
			if both&1 != 0 {
				n.Signatures = append(n.Signatures, all.Signatures[1+2*node])
			}
			if both&2 != 0 {
				n.Signatures = append(n.Signatures, all.Signatures[2+2*node])
			}
			if both == 3 {
				whole++
			}
		}
		e, err := trust.Endorse(n)
		if (err == nil) != (whole >= 2) || err != nil && !errors.Is(err, ErrNoQuorum) {
			t.Errorf("cosignatures %06b: got %v, want reached: %t", mask, err, whole >= 2)
		}
		if err == nil && (e.Checkpoint != c || len(e.Cosigners) != len(n.Signatures)-1 || e.Oldest() != 1000) {
			t.Errorf("cosignatures %06b: got %+v", mask, e)
		}
	}
}

func TestEndorseIntervals(t *testing.T) {
	log := logSigner(t, testOrigin).VKey()
	lines := trustLines(t)
	quorum := lines[len(lines)-1]
	lines = append(lines[:len(lines)-1], "valid "+log.String()+" - 5000", quorum)
	trust, err := parseLines(lines)
	if err != nil {
		t.Fatal(err)
	}
	c := Checkpoint{Origin: testOrigin, Size: 5, Root: nhi.Digest(seed(7))}
	signers := []NoteSigner{edSigner(t, "node/a/ed", 10), pqSigner(t, "node/a/pq", 20), edSigner(t, "node/b/ed", 11), pqSigner(t, "node/b/pq", 21)}
	for _, x := range []struct {
		time int64
		want error
	}{
		{99, ErrNoQuorum}, // node a's key is valid from 100
		{100, nil},
		{4999, nil},
		{5000, ErrOutOfPeriod}, // the log key was retired
	} {
		if _, err := trust.Endorse(signedNote(t, c, x.time, signers...)); !errors.Is(err, x.want) {
			t.Errorf("time %d: got %v, want %v", x.time, err, x.want)
		}
	}
}

func TestEndorseIgnoresGreaseAndOrder(t *testing.T) {
	trust, err := parseLines(trustLines(t))
	if err != nil {
		t.Fatal(err)
	}
	c := Checkpoint{Origin: testOrigin, Size: 5, Root: nhi.Digest(seed(7))}
	signers := []NoteSigner{edSigner(t, "node/a/ed", 10), pqSigner(t, "node/a/pq", 20), edSigner(t, "node/b/ed", 11), pqSigner(t, "node/b/pq", 21)}
	n := signedNote(t, c, 1000, signers...)
	grease := NoteSignature{Name: testOrigin, KeyID: 1, Blob: []byte("anything")}
	for shift := range n.Signatures {
		sigs := append(append([]NoteSignature{grease}, n.Signatures[shift:]...), n.Signatures[:shift]...)
		m, err := ParseNote((&Note{Text: n.Text, Signatures: append(sigs, grease)}).Marshal())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trust.Endorse(m); err != nil {
			t.Errorf("rotated by %d: %v", shift, err)
		}
	}
	// A known key whose signature does not hold refuses the note, even if the quorum would be reached without it.
	bad := signedNote(t, c, 1000, append(signers, edSigner(t, "node/c/ed", 12))...)
	bad.Signatures[5].Blob[20] ^= 1
	if _, err := trust.Endorse(bad); !errors.Is(err, ErrSignature) {
		t.Errorf("got %v, want ErrSignature", err)
	}
}
