package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/creto-systems/creto/nhi"
)

var testOwner = Owner{Ledger: nhi.Digest{1}, Tenant: nhi.ID{2}, Node: nhi.ID{3}}

func openSpool(t testing.TB, dir string) *Spool {
	t.Helper()
	s, err := OpenSpool(dir, testOwner)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeSpool(t testing.TB, s *Spool) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func begin(t testing.TB, s *Spool, claim uint64) {
	t.Helper()
	if fresh, err := s.Begin(claim, fmt.Appendf(nil, "job %d", claim)); err != nil || !fresh {
		t.Fatalf("begin %d: got %t, %v", claim, fresh, err)
	}
}

func report(t testing.TB, s *Spool, claim uint64) {
	t.Helper()
	err := s.Report(claim, func(q uint64) (*Report, error) {
		return &Report{Envelope: fmt.Appendf(nil, "report %d of %d", q, claim), Addenda: [][]nhi.Addendum{{{Data: []byte("output")}}, {}}}, nil
	})
	if err != nil {
		t.Fatalf("report %d: %v", claim, err)
	}
}

// content is everything that a spool would act on.
func content(s *Spool) string {
	var b bytes.Buffer
	for r := s.Next(0); r != nil; r = s.Next(r.Sequence) {
		fmt.Fprintf(&b, "report %d claim %d %s %d\n", r.Sequence, r.Claim, r.Envelope, len(r.Addenda))
	}
	for _, j := range s.Begun() {
		fmt.Fprintf(&b, "begun %s\n", j)
	}
	fmt.Fprintf(&b, "acknowledged %d done %v\n", s.Acknowledged(), s.done)
	return b.String()
}

func TestSpoolKeepsEverythingOverARestart(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, dir)
	for claim := uint64(10); claim < 16; claim++ {
		begin(t, s, claim)
	}
	report(t, s, 12)
	report(t, s, 10)
	report(t, s, 15)
	if err := s.Ack(2); err != nil {
		t.Fatal(err)
	}
	want := "report 1 claim 12 report 1 of 12 2\nreport 3 claim 15 report 3 of 15 2\nbegun job 11\nbegun job 13\nbegun job 14\nacknowledged 0 done [10]\n"
	if d := cmp.Diff(want, content(s)); d != "" {
		t.Fatal(d)
	}
	closeSpool(t, s)
	s = openSpool(t, dir)
	if d := cmp.Diff(want, content(s)); d != "" {
		t.Fatal(d)
	}
	// A claim is begun once, whatever became of it.
	for claim, what := range map[uint64]string{10: "done with", 11: "begun", 12: "reported"} {
		if fresh, err := s.Begin(claim, nil); fresh || err != nil {
			t.Errorf("a claim that is %s: got %t, %v, want it not to run again", what, fresh, err)
		}
	}
	if err := s.Report(12, nil); err == nil {
		t.Error("reported a claim twice")
	}
	// Written anew it says the same.
	if err := s.compact(); err != nil {
		t.Fatal(err)
	}
	closeSpool(t, s)
	s = openSpool(t, dir)
	if d := cmp.Diff(want, content(s)); d != "" {
		t.Fatal(d)
	}
	report(t, s, 11)
	if r := s.Next(3); r == nil || r.Sequence != 4 || r.Claim != 11 {
		t.Errorf("got %+v, want sequence 4", r)
	}
	closeSpool(t, s)
}

// Wherever a crash cuts the file off, what was synced before is there and the rest is as if it had not been tried.
func TestSpoolSurvivesEveryTornTail(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, dir)
	begin(t, s, 10)
	report(t, s, 10)
	before, size := content(s), s.size
	begin(t, s, 11)
	after := content(s)
	closeSpool(t, s)
	whole, err := os.ReadFile(filepath.Join(dir, "spool"))
	if err != nil {
		t.Fatal(err)
	}
	for cut := int(size); cut <= len(whole); cut++ {
		for name, torn := range map[string][]byte{
			"cut":     whole[:cut],
			"zeros":   append(bytes.Clone(whole[:cut]), make([]byte, len(whole)-cut)...),
			"no head": append(append(bytes.Clone(whole[:size]), make([]byte, min(cut-int(size), recordHeader))...), whole[min(int(size)+recordHeader, cut):]...),
		} {
			if name == "no head" && cut < int(size)+recordHeader {
				continue
			}
			want := before
			if bytes.Equal(torn, whole) {
				want = after
			}
			at := t.TempDir()
			if err := os.WriteFile(filepath.Join(at, "spool"), torn, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := OpenSpool(at, testOwner)
			if err != nil {
				t.Fatalf("%s at %d: %v", name, cut, err)
			}
			if got := content(s); got != want {
				t.Fatalf("%s at %d: got\n%s\nwant\n%s", name, cut, got, want)
			}
			if want == before {
				begin(t, s, 11)
			}
			closeSpool(t, s)
			s = openSpool(t, at)
			if got := content(s); got != after {
				t.Fatalf("%s at %d, then written: got\n%s\nwant\n%s", name, cut, got, after)
			}
			closeSpool(t, s)
		}
	}
}

func TestSpoolRefusesDamage(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, dir)
	begin(t, s, 10)
	report(t, s, 10)
	mid := s.size
	begin(t, s, 11)
	closeSpool(t, s)
	path := filepath.Join(dir, "spool")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < int(mid); i++ {
		bad := bytes.Clone(whole)
		bad[i] ^= 0x40
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := OpenSpool(dir, testOwner)
		if err == nil {
			got := content(s)
			closeSpool(t, s)
			t.Fatalf("opened a spool with byte %d flipped:\n%s", i, got)
		}
	}
}

// Words of any header are lost while records lie behind it: that is not what a crash leaves, and what lies behind is kept.
func TestSpoolRefusesLostHeaders(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, dir)
	starts := []int{0}
	for claim := uint64(10); claim < 14; claim++ {
		starts = append(starts, int(s.size))
		begin(t, s, claim)
		starts = append(starts, int(s.size))
		report(t, s, claim)
	}
	last := int(s.size)
	begin(t, s, 14)
	closeSpool(t, s)
	path := filepath.Join(dir, "spool")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range starts {
		for words := 1; words < 8; words++ { // bit i: word i of the header
			bad := bytes.Clone(whole)
			for i := range 3 {
				if words>>i&1 == 1 {
					clear(bad[at+4*i : at+4*i+4])
				}
			}
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := OpenSpool(dir, testOwner)
			if err == nil {
				got := content(s)
				closeSpool(t, s)
				t.Fatalf("opened a spool without words %03b of the header at %d:\n%s", words, at, got)
			}
			if !errors.Is(err, ErrSpoolCorrupt) {
				t.Fatalf("got %v, want ErrSpoolCorrupt", err)
			}
		}
	}
	// Of the last record the same is what a crash leaves.
	for words := 1; words < 8; words++ {
		torn := bytes.Clone(whole)
		for i := range 3 {
			if words>>i&1 == 1 {
				clear(torn[last+4*i : last+4*i+4])
			}
		}
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		s := openSpool(t, dir)
		if s.Waiting() != 4 || len(s.Begun()) != 0 {
			t.Errorf("words %03b: got %d reports and %d begun claims, want 4 and none", words, s.Waiting(), len(s.Begun()))
		}
		closeSpool(t, s)
	}
	// An empty file is no spool: one is put in place whole.
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSpool(dir, testOwner); !errors.Is(err, ErrSpoolCorrupt) {
		t.Errorf("got %v for an empty file, want ErrSpoolCorrupt", err)
	}
}

// A command's output may look like records; it must not matter where a crash cuts.
func TestOutputCannotForgeRecords(t *testing.T) {
	forged, err := appendRecord(nil, &record{Type: recordBegun, Claim: 99}, headMark)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := openSpool(t, dir)
	begin(t, s, 10)
	before, size := content(s), s.size
	if err := s.Report(10, func(uint64) (*Report, error) {
		return &Report{Addenda: [][]nhi.Addendum{{{Data: bytes.Repeat(forged, 10)}}}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	closeSpool(t, s)
	path := filepath.Join(dir, "spool")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := int(size); cut < len(whole); cut += 7 {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s := openSpool(t, dir)
		if got := content(s); got != before {
			t.Fatalf("cut at %d: got\n%s\nwant\n%s", cut, got, before)
		}
		closeSpool(t, s)
	}
}

func TestSpoolOwner(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, dir)
	if _, err := OpenSpool(dir, testOwner); !errors.Is(err, ErrSpoolLocked) {
		t.Errorf("got %v for a second one at once, want ErrSpoolLocked", err)
	}
	closeSpool(t, s)
	for _, o := range []Owner{{Ledger: nhi.Digest{9}, Tenant: testOwner.Tenant, Node: testOwner.Node}, {Ledger: testOwner.Ledger, Tenant: nhi.ID{9}, Node: testOwner.Node}, {Ledger: testOwner.Ledger, Tenant: testOwner.Tenant}} {
		if _, err := OpenSpool(dir, o); !errors.Is(err, ErrSpoolForeign) {
			t.Errorf("got %v for another owner, want ErrSpoolForeign", err)
		}
	}
}

func TestSpoolIsBounded(t *testing.T) {
	s := openSpool(t, t.TempDir())
	defer closeSpool(t, s)
	var err error
	n := 0
	for ; err == nil; n++ {
		_, err = s.Begin(uint64(n+1), nil)
	}
	if !errors.Is(err, ErrSpoolFull) || (n-1)*reportRoom > MaxSpoolBytes {
		t.Errorf("got %v after %d claims", err, n-1)
	}
	// What was begun can be reported, and then, once it is acknowledged, there is room again.
	report(t, s, 1)
	if err := s.Ack(1); err != nil {
		t.Fatal(err)
	}
	begin(t, s, 100_000)
}

func TestSpoolRemembersABoundedNumberOfClaims(t *testing.T) {
	s := openSpool(t, t.TempDir())
	defer closeSpool(t, s)
	for c := range uint64(maxDone + 10) {
		s.remember(c)
		s.remember(c)
	}
	if len(s.done) != maxDone || len(s.isDone) != maxDone || s.isDone[9] || !s.isDone[10] {
		t.Errorf("got %d and %d claims, want the last %d", len(s.done), len(s.isDone), maxDone)
	}
}

func FuzzSpool(f *testing.F) {
	s := openSpool(f, f.TempDir())
	begin(f, s, 10)
	report(f, s, 10)
	begin(f, s, 11)
	b, err := os.ReadFile(s.path)
	if err != nil {
		f.Fatal(err)
	}
	closeSpool(f, s)
	f.Add(b)
	f.Add(b[:len(b)-3])
	f.Add(binary.BigEndian.AppendUint32(nil, 1<<31))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &Spool{owner: testOwner, next: 1, begun: make(map[uint64][]byte), isDone: make(map[uint64]bool)}
		good, err := s.replay(b)
		if err == nil && good > len(b) {
			t.Fatalf("got %d good bytes of %d", good, len(b))
		}
	})
}
