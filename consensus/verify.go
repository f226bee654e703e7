package consensus

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/verifier"
	"github.com/segmentio/fasthash/fnv1a"
)

// The leader makes some commands checkpoints: their Extensions hold a sum over the entries since the checkpoint before, as the leader
// wrote them. Every replica compares it with what it wrote itself, and with what it reads back, when it stores the
// checkpoint (the verifier of raft-wal) and again whenever the log is scrubbed. The sums find what disks, memory and
// networks do by accident; they are no protection against whoever can write to the disk (the Merkle log is).
//
// A checkpoint is an ordinary command with something in a field that nobody else reads, so that nodes of versions without
// checkpoints apply it as they apply any other.

// checkpointMark in the Extensions of an entry that this node, the leader, is about to propose makes it a checkpoint; it never
// gets into a log. Read ticks have other Extensions.
var checkpointMark = []byte{'c', 1}

// checkpointSize is the length of a checkpoint's Extensions: magic, first index of the range, sum, each 8 bytes little-endian.
const checkpointSize = 24

// A checkpoint is due after that many commands, bytes or seconds, whichever comes first.
const (
	checkpointEntries = 4096
	checkpointBytes   = 16 << 20
	checkpointTime    = 10 * time.Second
)

// verifyInterval is the least time between two ranges that are read back right after they were written. Under load the others are left
// to the scrub: reading back everything costs a quarter of the throughput and finds little, since it comes from memory.
const verifyInterval = time.Second

// scrubRate bounds how fast the log is re-read in the background, in bytes per second; scrubChunk is read at a time.
const (
	scrubRate  = 32 << 20
	scrubChunk = 1 << 20
)

// checkpoints decides on the leader which commands become checkpoints.
type checkpoints struct {
	// mu guards what follows.
	mu             sync.Mutex
	entries, bytes int
	last           time.Time
}

// due counts a command of size bytes and reports whether it is to be a checkpoint.
func (c *checkpoints) due(size, every int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries++
	c.bytes += size
	if c.entries < every && c.bytes < checkpointBytes && time.Since(c.last) < checkpointTime {
		return false
	}
	c.entries, c.bytes, c.last = 0, 0, time.Now()
	return true
}

// checkpointOf returns what an entry's Extensions say if it is a checkpoint.
func checkpointOf(l *raft.Log) (start, sum uint64, ok bool) {
	x := l.Extensions
	if l.Type != raft.LogCommand || len(x) != checkpointSize || binary.LittleEndian.Uint64(x) != verifier.ExtensionMagicPrefix {
		return 0, 0, false
	}
	return binary.LittleEndian.Uint64(x[8:]), binary.LittleEndian.Uint64(x[16:]), true
}

// addEntry is the verifier's sum, continued by one entry.
func addEntry(sum uint64, l *raft.Log) uint64 {
	if l.Index == 1 && l.Type == raft.LogConfiguration {
		return 0 // each node has written it by itself
	}
	sum = fnv1a.AddUint64(sum, l.Index)
	sum = fnv1a.AddUint64(sum, l.Term)
	sum = fnv1a.AddUint64(sum, uint64(l.Type))
	sum = fnv1a.AddBytes64(sum, l.Data)
	return fnv1a.AddBytes64(sum, l.Extensions)
}

// Evidence says what is wrong with a node's log. It is kept as JSON beside the log, and keeps the node from starting.
type Evidence struct {
	Node string `json:"node"`
	// First and End are the range of entries, End excluded.
	First uint64 `json:"first"`
	End   uint64 `json:"end"`
	// Expected is the sum in the checkpoint End, Read that of what the disk holds. Both are 0 when an entry could not be read.
	Expected uint64 `json:"expected"`
	Read     uint64 `json:"read"`
	Reason   string `json:"reason"`
	// Found is when, by the node's clock, in RFC 3339.
	Found string `json:"found"`
}

func (e *Evidence) Error() string {
	return fmt.Sprintf("%v: entries %d to %d: %s", ErrCorrupt, e.First, e.End-1, e.Reason)
}

// Unwrap makes it match [ErrCorrupt].
func (e *Evidence) Unwrap() error { return ErrCorrupt }

// maxDamaged bounds the ranges that are remembered as different from what the leader wrote.
const maxDamaged = 256

// verified keeps and checks checkpoints. It stands between the fail-stop wrapper and the log.
type verified struct {
	storage
	log     *slog.Logger
	metrics *metrics
	// corrupt is told, once or more, that the disk holds something else than what was written.
	corrupt func(*Evidence)

	// lib and marked belong to the goroutine that writes the log.
	lib    *verifier.LogStore
	marked []*raft.Log

	// mu guards what follows.
	mu sync.Mutex
	// generation counts the truncations: what was read across one proves nothing.
	generation uint64
	// damaged are ranges that arrived here otherwise than the leader wrote them: they have been reported, and are no fault
	// of this disk.
	damaged [][2]uint64
	stopped bool
	// interval is verifyInterval but in tests; lastRead is when a range was last read back.
	interval time.Duration
	lastRead time.Time
}

// readBack is the log as the verifier reads it.
type readBack struct {
	raft.LogStore
	v *verified
}

// FirstIndex is asked by the verifier before it reads a range. It says that the log begins later if it is not to be read now: the
// verifier then has compared what was written, and reports a range that is not there.
func (r *readBack) FirstIndex() (uint64, error) {
	r.v.mu.Lock()
	defer r.v.mu.Unlock()
	if time.Since(r.v.lastRead) < r.v.interval {
		return math.MaxUint64, nil
	}
	r.v.lastRead = time.Now()
	return r.LogStore.FirstIndex()
}

func newVerified(inner storage, interval time.Duration, log *slog.Logger, m *metrics, corrupt func(*Evidence)) *verified {
	v := &verified{storage: inner, interval: interval, log: log, metrics: m, corrupt: corrupt}
	v.begin(0)
	return v
}

// begin starts sums anew: the verifier's would go on over entries that are no longer in the log.
func (v *verified) begin(generation uint64) {
	if v.lib != nil {
		_ = v.lib.Close() // ends its goroutine only: it knows no Close of the log
	}
	v.lib = verifier.NewLogStore(&readBack{v.storage, v}, func(l *raft.Log) (bool, error) {
		_, _, ok := checkpointOf(l)
		return ok || slices.Contains(v.marked, l), nil
	}, func(r verifier.VerificationReport) { v.report(generation, r) }, verifierMetrics{v.metrics})
}

// stop ends the verifier's goroutine. Nothing may be stored any more.
func (v *verified) stop() {
	v.mu.Lock()
	v.stopped = true
	v.mu.Unlock()
	_ = v.lib.Close()
}

func (v *verified) StoreLog(l *raft.Log) error { return v.StoreLogs([]*raft.Log{l}) }

// StoreLogs turns marked entries into checkpoints, in place: what the library sends to others is what it has handed over
// here.
func (v *verified) StoreLogs(logs []*raft.Log) error {
	v.marked = v.marked[:0]
	for _, l := range logs {
		if string(l.Extensions) == string(checkpointMark) {
			l.Extensions = nil
			v.marked = append(v.marked, l)
		}
	}
	err := v.lib.StoreLogs(logs)
	clear(v.marked)
	return err
}

func (v *verified) DeleteRange(min, max uint64) error {
	v.mu.Lock()
	v.generation++
	generation := v.generation
	v.mu.Unlock()
	err := v.storage.DeleteRange(min, max)
	v.begin(generation)
	return err
}

// report judges what the verifier found in a range that was just written.
func (v *verified) report(generation uint64, r verifier.VerificationReport) {
	v.mu.Lock()
	passed := v.stopped || v.generation != generation
	v.mu.Unlock()
	var mismatch verifier.ErrChecksumMismatch
	switch {
	case passed || errors.Is(r.Err, verifier.ErrRangeMismatch):
		v.metrics.verifySkipped.Inc()
	case r.Err == nil:
		v.metrics.verifiedEntries.Add(float64(r.Range.End - r.Range.Start))
	case errors.As(r.Err, &mismatch) && r.WrittenSum != 0 && r.WrittenSum != r.ExpectedSum:
		v.metrics.verifyFailed.WithLabelValues("flight").Inc()
		v.mu.Lock()
		if len(v.damaged) < maxDamaged {
			v.damaged = append(v.damaged, [2]uint64{r.Range.Start, r.Range.End})
		}
		v.mu.Unlock()
		v.log.Error("entries arrived otherwise than their leader wrote them", "first", r.Range.Start, "end", r.Range.End,
			"expected", fmt.Sprintf("%016x", r.ExpectedSum), "written", fmt.Sprintf("%016x", r.WrittenSum))
	case errors.As(r.Err, &mismatch):
		v.corrupt(&Evidence{First: r.Range.Start, End: r.Range.End, Expected: r.ExpectedSum, Read: r.ReadSum,
			Reason: "what was written is not what is read"})
	default:
		v.corrupt(&Evidence{First: r.Range.Start, End: r.Range.End, Reason: r.Err.Error()})
	}
}

// isDamaged reports whether a range was reported as damaged before it got here.
func (v *verified) isDamaged(start, end uint64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Contains(v.damaged, [2]uint64{start, end})
}

// check reads the entries from first to last, which nobody truncates meanwhile, and compares them with the checkpoints among
// them. pace is called for each entry and may end the check. An error that is not pace's is an *Evidence.
func (v *verified) check(first, last uint64, pace func(*raft.Log) error) error {
	read := func(i uint64, l *raft.Log) error {
		err := guard(func() error { return v.storage.GetLog(i, l) })
		if err == nil && l.Index != i {
			err = fmt.Errorf("entry %d says it is entry %d", i, l.Index)
		}
		if err != nil {
			return &Evidence{First: i, End: i + 1, Reason: err.Error()}
		}
		return nil
	}
	oldest, err := v.storage.FirstIndex()
	if err != nil {
		return &Evidence{First: first, End: last + 1, Reason: err.Error()}
	}
	first = max(first, oldest, 1)
	begun, sum := first, uint64(0)
	for i := first; i <= last; i++ {
		var l raft.Log
		if err := read(i, &l); err != nil {
			return err
		}
		if start, want, ok := checkpointOf(&l); ok {
			got := sum
			if start != begun && start >= oldest && start < i {
				got = 0
				for j := start; j < i; j++ {
					var earlier raft.Log
					if err := read(j, &earlier); err != nil {
						return err
					}
					got = addEntry(got, &earlier)
				}
			}
			switch {
			case start < oldest || start > i:
				v.metrics.verifySkipped.Inc()
			case got == want:
				v.metrics.verifiedEntries.Add(float64(i - start))
			case !v.isDamaged(start, i):
				return &Evidence{First: start, End: i, Expected: want, Read: got, Reason: "what was written is not what is read"}
			}
			begun, sum = i, 0
		}
		sum = addEntry(sum, &l)
		if err := pace(&l); err != nil {
			return err
		}
	}
	return nil
}

// verifierMetrics maps the verifier's counters to this node's.
type verifierMetrics struct{ m *metrics }

func (v verifierMetrics) IncrementCounter(name string, delta uint64) {
	switch name {
	case "checkpoints_written":
		v.m.checkpoints.Add(float64(delta))
	case "dropped_reports":
		v.m.verifySkipped.Add(float64(delta))
	}
}

func (verifierMetrics) SetGauge(string, uint64) {}

// quarantineFile holds the Evidence, in the log's directory: it goes when the log is removed.
const quarantineFile = "QUARANTINE.json"

// checkQuarantine refuses a log that was found to be corrupt: it must not serve anybody any more, and restarts mend nothing.
func checkQuarantine(dir string) error {
	path := filepath.Join(dir, quarantineFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var e Evidence
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	if err != nil {
		return fmt.Errorf("%w: its evidence %s: %w", ErrQuarantined, path, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrQuarantined, path, &e)
}

// quarantine keeps the evidence.
func (n *Node) quarantine(e *Evidence) error {
	e.Node, e.Found = n.cfg.NodeID, time.Now().UTC().Format(time.RFC3339)
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Join(n.cfg.DataDir, walDir)
	f, err := os.OpenFile(filepath.Join(dir, quarantineFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil // the first evidence stays
	}
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if d, derr := os.Open(dir); derr == nil {
		err = errors.Join(err, d.Sync(), d.Close())
	}
	return err
}

// logCorrupt stops the node because its disk holds something else than what was written. A reader cannot tell which of the
// entries, so none of them may be served.
func (n *Node) logCorrupt(e *Evidence) {
	if n.down.Load() || n.closing.Load() {
		return
	}
	n.metrics.verifyFailed.WithLabelValues("rest").Inc()
	// The disk may hang; the process must end all the same.
	atMost(2*time.Second, func() {
		if err := n.quarantine(e); err != nil {
			n.log.Error("cannot keep the evidence", "error", err.Error())
		}
	})
	n.fatal(ExitStorage, fmt.Errorf("verify log: %w", e))
}

// runScrub re-reads the committed log when the node has started, and then at intervals.
func (n *Node) runScrub(ctx context.Context) {
	for {
		if n.scrub(ctx) != nil {
			return
		}
		timer := time.NewTimer(n.cfg.ScrubInterval)
		select {
		case <-ctx.Done():
		case <-n.dead:
		case <-n.closed:
		case <-timer.C:
			continue
		}
		timer.Stop()
		return
	}
}

// errEnded ends a scrub with the node.
var errEnded = errors.New("node ends")

// scrub re-reads the log up to what is committed, which is never truncated.
func (n *Node) scrub(ctx context.Context) error {
	start := time.Now()
	if n.cfg.files == nil {
		dropCache(filepath.Join(n.cfg.DataDir, walDir))
	}
	last := n.State().CommitIndex
	chunk := 0
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	err := n.verified.check(1, last, func(l *raft.Log) error {
		n.metrics.scrubbed.Set(float64(l.Index))
		if chunk += len(l.Data) + 64; chunk < scrubChunk {
			return nil
		}
		timer.Reset(time.Duration(chunk) * time.Second / scrubRate)
		chunk = 0
		select {
		case <-ctx.Done():
			return errEnded
		case <-n.dead:
			return errEnded
		case <-n.closed:
			return errEnded
		case <-timer.C:
			return nil
		}
	})
	var e *Evidence
	if errors.As(err, &e) {
		n.logCorrupt(e)
		return err
	}
	if err == nil {
		n.metrics.scrubTime.Set(time.Since(start).Seconds())
	}
	return err
}
