package ledger_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/ledgertest"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
)

// busy runs a bit of everything on a ledger: two tenants, batches, refusals, conflicts, timers, erasure, seals.
func busy(t testing.TB) *world {
	w := newWorld(t)
	w.counter.decide = withTimer
	other := ledgertest.ID("other tenant")
	authority := w.CreateTenant(other, "other authority", "other token")
	w.RegisterIn(other, authority, "other human", registry.Human)
	for round := range 6 {
		var batch []ledgertest.Signed
		for i := range 60 {
			batch = append(batch, w.usage(uint64(i)))
		}
		w.Accepted(w.SubmitBatch(batch...)...)
		w.Accepted(w.Submit(w.usage(1), w.Under(w.link, w.agent, "plain", account, countBody{N: 2}))...)
		w.Want(verify.OutcomeUnauthorized, w.Submit(w.Event(w.agent, "plain", countBody{N: 1}))...)
		if round%2 == 0 {
			w.Seal()
		}
		w.RegisterIn(other, authority, fmt.Sprintf("agent %d", round), registry.Agent)
		w.Advance(time.Second)
		w.Tick()
	}
	w.Seal()
	return w
}

// withTimer lets "plain" set a timer that makes a leaf a second later.
func withTimer(v ledger.View, ev *ledger.Event, at ledger.Stamp) (ledger.Decision, bool) {
	if ev.Kind != "plain" {
		return ledger.Decision{}, false
	}
	return ledger.Decision{
		Timers: []ledger.Timer{{Due: at.Time + int64(time.Second), Name: "counter.x", Ref: binary.BigEndian.AppendUint64(nil, v.NextIndex())}},
	}, true
}

func replay(t testing.TB, kinds []ledger.Kind, entries []ledger.Entry, fs vfs.FS, split func() int) *ledger.Log {
	t.Helper()
	l, err := ledger.Open(ledger.Config{Dir: "state", FS: fs, Kinds: kinds})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for len(entries) > 0 {
		n := min(split(), len(entries))
		if _, err := l.Apply(entries[:n]); err != nil {
			t.Fatal(err)
		}
		entries = entries[n:]
	}
	return l
}

func stateHash(t testing.TB, l *ledger.Log) nhi.Digest {
	t.Helper()
	s, err := l.Read()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return s.StateHash()
}

func TestReplayGivesTheSameStateHoweverCommandsAreBatched(t *testing.T) {
	w := busy(t)
	want, err := w.Log.Rows()
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for name, split := range map[string]func() int{
		"one by one": func() int { return 1 }, "all at once": func() int { return 1 << 20 }, "random": func() int { return 1 + rng.IntN(9) },
	} {
		l := replay(t, usageKinds(&counter{decide: withTimer}), w.Entries, vfs.NewMem(), split)
		if got, want := stateHash(t, l), stateHash(t, w.Log); got != want {
			t.Errorf("%s: state hash: got %x, want %x", name, got, want)
		}
		got, err := l.Rows()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range slices.Sorted(maps.Keys(want)) {
			if got[k] != want[k] {
				t.Fatalf("%s: row %x: got %x, want %x", name, k, got[k], want[k])
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: got %d rows, want %d", name, len(got), len(want))
		}
	}
}

// TestReplayDetects shows that the comparison above is able to fail: each of these handlers breaks a rule of Apply, and the
// state hash of a replay shows it.
func TestReplayDetects(t *testing.T) {
	clock := int64(0)
	for name, decide := range map[string]func(v ledger.View, ev *ledger.Event, at ledger.Stamp) (ledger.Decision, bool){
		"a clock": func(ledger.View, *ledger.Event, ledger.Stamp) (ledger.Decision, bool) {
			clock++ // stands for time.Now: another value at every call
			return ledger.Decision{Writes: []ledger.Write{{Table: tableCounter, Key: []byte{1}, Value: binary.BigEndian.AppendUint64(nil, uint64(clock))}}}, true
		},
		"map iteration": func(ledger.View, *ledger.Event, ledger.Stamp) (ledger.Decision, bool) {
			m := make(map[byte]bool)
			for i := range byte(64) {
				m[i] = true
			}
			var d ledger.Decision
			for k := range m {
				d.Writes = append(d.Writes, ledger.Write{Table: tableCounter, Key: []byte{k}, Value: []byte{1}})
			}
			return d, true
		},
		"memory of its own": func() func(ledger.View, *ledger.Event, ledger.Stamp) (ledger.Decision, bool) {
			calls := uint64(0)
			return func(ledger.View, *ledger.Event, ledger.Stamp) (ledger.Decision, bool) {
				calls++
				return ledger.Decision{Detail: canon.MustMarshal(calls)}, true
			}
		}(),
	} {
		w := newWorld(t)
		w.counter.decide = decide
		w.Submit(w.usage(1), w.usage(2))
		l := replay(t, usageKinds(w.counter), w.Entries, vfs.NewMem(), func() int { return 1 })
		if stateHash(t, l) == stateHash(t, w.Log) {
			t.Errorf("%s in a handler: the replay has the same state hash", name)
		}
	}
}

func TestCrashLosesOnlyWhatTheRaftLogReplays(t *testing.T) {
	w := busy(t)
	rng := rand.New(rand.NewPCG(3, 4))
	kinds := usageKinds(&counter{decide: withTimer})
	for trial := range 12 {
		fs := vfs.NewCrashableMem()
		l, err := ledger.Open(ledger.Config{Dir: "state", FS: fs, Kinds: kinds, MemTableSize: 64 << 10})
		if err != nil {
			t.Fatal(err)
		}
		synced := uint64(0)
		crashAt := rng.IntN(len(w.Entries))
		for i, e := range w.Entries[:crashAt] {
			if _, err := l.Apply([]ledger.Entry{e}); err != nil {
				t.Fatal(err)
			}
			if i%17 == trial {
				if err := l.Sync(); err != nil {
					t.Fatal(err)
				}
				if synced = l.SyncedIndex(); synced != e.Index {
					t.Fatalf("synced index: got %d, want %d", synced, e.Index)
				}
			}
		}
		after := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l, err = ledger.Open(ledger.Config{Dir: "state", FS: after, Kinds: kinds})
		if err != nil {
			t.Fatalf("trial %d: open after crash: %v", trial, err)
		}
		if l.AppliedIndex() < synced {
			t.Fatalf("trial %d: applied index after crash: got %d, want at least %d", trial, l.AppliedIndex(), synced)
		}
		if _, err := l.Apply(w.Entries); err != nil { // those at or below the applied index are skipped
			t.Fatal(err)
		}
		if got, want := stateHash(t, l), stateHash(t, w.Log); got != want {
			t.Errorf("trial %d: state hash: got %x, want %x", trial, got, want)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReopenedLogGoesOn(t *testing.T) {
	w := busy(t)
	half := len(w.Entries) / 2
	fs := vfs.NewMem()
	kinds := usageKinds(&counter{decide: withTimer})
	l := replay(t, kinds, w.Entries[:half], fs, func() int { return 3 })
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = replay(t, kinds, w.Entries[half:], fs, func() int { return 3 })
	if got, want := stateHash(t, l), stateHash(t, w.Log); got != want {
		t.Errorf("state hash: got %x, want %x", got, want)
	}
	got, err := l.Rows()
	if err != nil {
		t.Fatal(err)
	}
	want, err := w.Log.Rows()
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Error("rows differ")
	}
}

// TestFewTenantsInMemory shows that the cache of growing edges is only a cache.
func TestFewTenantsInMemory(t *testing.T) {
	w := busy(t)
	l, err := ledger.Open(ledger.Config{Dir: "state", FS: vfs.NewMem(), Kinds: usageKinds(&counter{decide: withTimer}), MaxTenants: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, e := range w.Entries {
		if _, err := l.Apply([]ledger.Entry{e}); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := stateHash(t, l), stateHash(t, w.Log); got != want {
		t.Errorf("state hash: got %x, want %x", got, want)
	}
}

func TestTimers(t *testing.T) {
	w := newWorld(t)
	type fired struct {
		ref  uint64
		time int64
	}
	var got []fired
	w.counter.decide = func(v ledger.View, ev *ledger.Event, at ledger.Stamp) (ledger.Decision, bool) {
		var b countBody
		if err := canon.Unmarshal(ev.Body, &b); err != nil {
			return ledger.Decision{Outcome: verify.OutcomeInvalid}, true
		}
		d := ledger.Decision{}
		for i := range b.N {
			d.Timers = append(d.Timers, ledger.Timer{
				Due: ledgertest.Start.Add(time.Duration(i+1) * time.Minute).UnixNano(), Name: "counter.x", Ref: []byte{byte(i >> 8), byte(i)},
				Cancel: b.Lease != 0,
			})
		}
		return d, true
	}
	w.counter.expire = func(v ledger.View, tm ledger.Timer, at ledger.Stamp) ledger.Decision {
		i := uint64(tm.Ref[0])<<8 | uint64(tm.Ref[1])
		got = append(got, fired{i, at.Time})
		return ledger.Decision{Leaves: []ledger.SystemLeaf{{Kind: "system.counter.expired", Body: []byte{0xa0}, Account: account, Ref: tm.Ref}}}
	}
	w.Accepted(w.Submit(w.usage(600))...)
	w.Accepted(w.Submit(w.Under(w.link, w.agent, "usage", account, countBody{N: 2, Lease: 1}))...) // cancels the first two
	w.Now = ledgertest.Start.Add(4*time.Minute + time.Second).UnixNano()
	if n := w.Tick(); n != 2 || got[0].ref != 2 || got[1].ref != 3 {
		t.Fatalf("after four minutes: got %d expired, %+v", n, got)
	}
	s := w.Read()
	if due, ok, err := s.NextTimer(); err != nil || !ok || due != ledgertest.Start.Add(5*time.Minute).UnixNano() {
		t.Errorf("next timer: got %d, %t, %v", due, ok, err)
	}
	s.Close()
	e := w.Stored(w.size() - 1)
	if e.Leaf.Kind != "system.counter.expired" || e.Leaf.Cause.Kind != verify.CauseTick || string(e.Leaf.Cause.Ref) != "\x00\x03" ||
		e.Leaf.Assurance != verify.AssuranceSystem || e.Signature != nil {
		t.Errorf("leaf: got %+v", e.Leaf)
	}
	w.Now = ledgertest.Start.Add(700 * time.Minute).UnixNano()
	r := w.Apply(&ledger.Command{Type: ledger.CommandTick}).(ledger.TickResult)
	if r.Expired != ledger.MaxTickExpires || !r.More {
		t.Errorf("first tick: got %+v, want %d and more", r, ledger.MaxTickExpires)
	}
	if n := w.Tick(); n != 600-4-ledger.MaxTickExpires {
		t.Errorf("second tick: got %d, want %d", n, 600-4-ledger.MaxTickExpires)
	}
	if !slices.IsSortedFunc(got, func(a, b fired) int { return int(a.time - b.time) }) {
		t.Error("expiries are not in the order of their stamps")
	}
	if n, err := w.Log.CountRows(ledger.TableTimers); err != nil || n != 0 {
		t.Errorf("timers left: got %d, %v", n, err)
	}
}

func TestAnExpiryCancelsAnother(t *testing.T) {
	w := newWorld(t)
	due := w.Now + int64(time.Second)
	w.counter.decide = func(ledger.View, *ledger.Event, ledger.Stamp) (ledger.Decision, bool) {
		return ledger.Decision{Timers: []ledger.Timer{{Due: due, Name: "counter.a"}, {Due: due, Name: "counter.b"}}}, true
	}
	var names []string
	w.counter.expire = func(_ ledger.View, tm ledger.Timer, _ ledger.Stamp) ledger.Decision {
		names = append(names, tm.Name)
		return ledger.Decision{Timers: []ledger.Timer{{Due: due, Name: "counter.b", Cancel: true}}}
	}
	w.Accepted(w.Submit(w.usage(1))...)
	w.Advance(time.Minute)
	if n := w.Tick(); n != 1 || len(names) != 1 || names[0] != "counter.a" {
		t.Errorf("got %d expired: %q, want counter.a alone", n, names)
	}
}

func TestScanMergesWhatTheCommandHasWritten(t *testing.T) {
	w := newWorld(t)
	row := func(k string, v byte) ledger.Write {
		return ledger.Write{Table: tableCounter, Key: []byte(k), Value: []byte{v}}
	}
	step := 0
	scan := func(v ledger.View, prefix string, from []byte, reverse bool) (out string) {
		v.Scan(tableCounter, []byte(prefix), from, reverse, func(k, val []byte) bool {
			out += fmt.Sprintf("%s=%d ", k, val[0])
			return true
		})
		return out
	}
	w.counter.decide = func(v ledger.View, ev *ledger.Event, at ledger.Stamp) (ledger.Decision, bool) {
		step++
		switch step {
		case 1: // in the store after this command
			return ledger.Decision{Writes: []ledger.Write{row("a1", 1), row("a3", 3), row("a5", 5), row("b1", 9)}}, true
		case 2:
			return ledger.Decision{Writes: []ledger.Write{row("a2", 2), row("a3", 33), {Table: tableCounter, Key: []byte("a5"), Delete: true}, row("a9", 9)}}, true
		}
		for _, c := range []struct {
			prefix  string
			from    []byte
			reverse bool
			want    string
		}{
			{"a", nil, false, "a1=1 a2=2 a3=33 a9=9 "},
			{"a", nil, true, "a9=9 a3=33 a2=2 a1=1 "},
			{"a", []byte("a2"), false, "a2=2 a3=33 a9=9 "},
			{"a", []byte("a3"), true, "a3=33 a2=2 a1=1 "},
			{"a", []byte("a4"), true, "a3=33 a2=2 a1=1 "},
			{"", nil, false, "a1=1 a2=2 a3=33 a9=9 b1=9 "},
			{"c", nil, true, ""},
		} {
			if got := scan(v, c.prefix, c.from, c.reverse); got != c.want {
				t.Errorf("scan %q from %q, reverse %t: got %q, want %q", c.prefix, c.from, c.reverse, got, c.want)
			}
		}
		// A scan within a scan.
		nested := ""
		v.Scan(tableCounter, []byte("a"), nil, false, func(k, _ []byte) bool {
			nested += string(k) + ":" + scan(v, "b", nil, false)
			return len(nested) < 20
		})
		if nested != "a1:b1=9 a2:b1=9 a3:b1=9 " {
			t.Errorf("nested scan: got %q", nested)
		}
		return ledger.Decision{}, true
	}
	w.Accepted(w.Submit(w.usage(1))...)
	w.Accepted(w.Submit(w.usage(1), w.usage(1))...)
	w.WithView(w.Tenant, func(v ledger.View) {
		if got := scan(v, "a", []byte("a3"), true); got != "a3=33 a2=2 a1=1 " {
			t.Errorf("scan of a snapshot: got %q", got)
		}
	})
	if step != 3 {
		t.Errorf("steps: got %d, want 3", step)
	}
}
