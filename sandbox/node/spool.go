package node

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// Bounds of the spool.
const (
	// MaxSpoolBytes is what unacknowledged reports may take on disk.
	MaxSpoolBytes = 64 << 20
	// reportRoom is kept free for the report of every claim that is begun.
	reportRoom = 256 << 10
	// maxRecord bounds one record.
	maxRecord = 512 << 10
	// compactAt is the size from which a spool that is mostly done with is written anew.
	compactAt = 4 << 20
	// maxDone is how many claims that are done with are remembered, against a server that is behind and offers one again.
	maxDone = 4096
)

// Errors of the spool.
var (
	ErrSpoolCorrupt = errors.New("spool is damaged")
	ErrSpoolForeign = errors.New("spool belongs to another node, tenant or ledger")
	ErrSpoolFull    = errors.New("spool is full")
	ErrSpoolLocked  = errors.New("spool is in use by another process")
)

// What a record says. The file is a sequence of {length u32 BE, length XOR mark u32 BE, CRC-32C u32 BE, canonical CBOR record,
// zeros up to a multiple of 4}, and its first record is the owner. Its mark is headMark, that of all others headMark XOR the
// owner's salt: a command, which may have its output in a report, cannot know what a record looks like.
const (
	recordOwner  = 1 // Data: owner
	recordBegun  = 2 // Claim, Data: Job
	recordReport = 3 // Claim, Sequence, Data: Report
	recordAcked  = 4 // Claim, Sequence
	recordDone   = 5 // Claim: was acknowledged, in a spool that was written anew
)

type record struct {
	Type     uint64 `cbor:"1,keyasint"`
	Claim    uint64 `cbor:"2,keyasint"`
	Sequence uint64 `cbor:"3,keyasint"`
	Data     []byte `cbor:"4,keyasint"`
}

// Owner is whose spool it is.
type Owner struct {
	Version uint64     `cbor:"1,keyasint"`
	Ledger  nhi.Digest `cbor:"2,keyasint"`
	Tenant  nhi.ID     `cbor:"3,keyasint"`
	Node    nhi.ID     `cbor:"4,keyasint"`
	// Sequence is the highest number that was given before the spool was written anew.
	Sequence uint64 `cbor:"5,keyasint"`
	// Salt is drawn when the spool is made, and again whenever it is written anew.
	Salt uint32 `cbor:"6,keyasint"`
}

const spoolVersion = 1

// Report is what is handed in about one claim, signed.
type Report struct {
	Sequence uint64 `cbor:"1,keyasint"`
	Claim    uint64 `cbor:"2,keyasint"`
	Envelope []byte `cbor:"3,keyasint"` // nhi.Envelope, encoded
	// Addenda are those of the envelope's payloads, by payload.
	Addenda [][]nhi.Addendum `cbor:"4,keyasint"`
}

// Spool is the journal of a node: which claims were begun, and the reports that no server has acknowledged. It is safe for
// concurrent use.
type Spool struct {
	path  string
	owner Owner
	mark  uint32 // of every record but the owner
	lock  io.Closer

	mu      sync.Mutex
	f       *os.File
	size    int64
	failed  error // the disk has refused something: nothing is written any more
	next    uint64
	begun   map[uint64][]byte // claims without a report: their jobs
	reports []*Report         // not acknowledged, ascending by sequence
	bytes   int64             // of reports
	done    []uint64          // claims, oldest first
	isDone  map[uint64]bool
}

// OpenSpool opens or creates the spool in dir. What a crash has left of an unfinished record is cut off; damage anywhere
// else is ErrSpoolCorrupt.
func OpenSpool(dir string, owner Owner) (_ *Spool, err error) {
	owner.Version = spoolVersion
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	lock, err := lockFile(filepath.Join(dir, "spool.lock"))
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s := &Spool{
		path: filepath.Join(dir, "spool"), owner: owner, lock: lock, next: 1,
		begun: make(map[uint64][]byte), isDone: make(map[uint64]bool),
	}
	if err := s.open(); err != nil {
		if s.f != nil {
			err = errors.Join(err, s.f.Close())
		}
		return nil, errors.Join(fmt.Errorf("open spool: %w", err), lock.Close())
	}
	return s, nil
}

func (s *Spool) open() error {
	// A spool that was being written anew when the node died is the old one still.
	if err := os.Remove(s.path + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s.rewrite()
	}
	if err != nil {
		return err
	}
	good, err := s.replay(b)
	if err != nil {
		return err
	}
	if s.f, err = os.OpenFile(s.path, os.O_RDWR, 0o600); err != nil {
		return err
	}
	s.size = int64(good)
	if good == len(b) {
		return nil
	}
	return errors.Join(s.f.Truncate(s.size), s.f.Sync())
}

// replay reads the records and returns where the last good one ends. Records are written and synced one at a time, so only
// the last one can be cut off; anything else that does not hold is damage. The owner cannot be: a spool is written whole under
// another name, synced and then put in its place.
func (s *Spool) replay(b []byte) (good int, err error) {
	at := 0
	for at < len(b) {
		mark := s.mark
		if at == 0 {
			mark = headMark
		}
		r, n := parseRecord(b[at:], mark)
		if r == nil {
			if at == 0 || !torn(b[at:], mark) {
				return 0, fmt.Errorf("%w: record at byte %d", ErrSpoolCorrupt, at)
			}
			return at, nil
		}
		if err := s.take(r, at == 0); err != nil {
			return 0, err
		}
		at += n
	}
	if at == 0 {
		return 0, fmt.Errorf("%w: it is empty", ErrSpoolCorrupt)
	}
	return at, nil
}

// torn reports whether a record that does not hold is what a crash leaves of the last write: words of its header may not be
// there, and it goes to the end of the file at least. Where no word is left that tells its size, it is the last one if no
// record begins behind it.
func torn(b []byte, mark uint32) bool {
	if len(b) < recordHeader || len(bytes.TrimRight(b, "\x00")) < 8 {
		return true // no more than the beginning of a header came to be
	}
	n, marked := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	switch {
	case n == 0 && marked == 0:
		if len(b) > recordSize(maxRecord) {
			return false
		}
		for at := recordHeader; at < len(b); at += 4 {
			if r, _ := parseRecord(b[at:], mark); r != nil {
				return false
			}
		}
		return true
	case n == 0:
		n = marked ^ mark
	case marked == 0:
		marked = n ^ mark
	}
	return n^marked == mark && n <= maxRecord && recordSize(int(n)) >= len(b)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	recordHeader = 12
	headMark     = 0x63727431 // tells a length that was damaged from one that goes beyond the end; see record
)

// recordSize is the size of a record with n bytes of content. Records begin at multiples of 4, so that no word of a header
// lies in two sectors.
func recordSize(n int) int { return recordHeader + (n+3)&^3 }

// parseRecord reads the record at the beginning of b; nil if there is none that holds.
func parseRecord(b []byte, mark uint32) (*record, int) {
	if len(b) < recordHeader {
		return nil, 0
	}
	n := binary.BigEndian.Uint32(b)
	if n == 0 || n > maxRecord || n^binary.BigEndian.Uint32(b[4:]) != mark || recordSize(int(n)) > len(b) {
		return nil, 0
	}
	body := b[recordHeader : recordHeader+int(n)]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[8:]) {
		return nil, 0
	}
	for _, c := range b[recordHeader+int(n) : recordSize(int(n))] {
		if c != 0 {
			return nil, 0
		}
	}
	var r record
	if canon.UnmarshalMax(body, &r, maxRecord) != nil {
		return nil, 0
	}
	return &r, recordSize(int(n))
}

func appendRecord(dst []byte, r *record, mark uint32) ([]byte, error) {
	body, err := canon.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("write spool: %w", err)
	}
	if len(body) > maxRecord {
		return nil, fmt.Errorf("write spool: %w: record of %d bytes", ErrSpoolFull, len(body))
	}
	n := uint32(len(body))
	dst = binary.BigEndian.AppendUint32(dst, n)
	dst = binary.BigEndian.AppendUint32(dst, n^mark)
	dst = binary.BigEndian.AppendUint32(dst, crc32.Checksum(body, castagnoli))
	dst = append(dst, body...)
	return append(dst, make([]byte, recordSize(len(body))-recordHeader-len(body))...), nil
}

// take brings the state up to a record.
func (s *Spool) take(r *record, first bool) error {
	corrupt := func(what string) error { return fmt.Errorf("%w: %s", ErrSpoolCorrupt, what) }
	if first != (r.Type == recordOwner) {
		return corrupt("its first record is not its owner, or another one is")
	}
	switch r.Type {
	case recordOwner:
		var o Owner
		if canon.Unmarshal(r.Data, &o) != nil {
			return corrupt("owner")
		}
		if o.Version != spoolVersion {
			return fmt.Errorf("%w: version %d", ErrSpoolForeign, o.Version)
		}
		if o.Ledger != s.owner.Ledger || o.Tenant != s.owner.Tenant || o.Node != s.owner.Node {
			return ErrSpoolForeign
		}
		s.next, s.mark = o.Sequence+1, headMark^o.Salt
	case recordBegun:
		if s.known(r.Claim) {
			return corrupt("a claim was begun twice")
		}
		s.begun[r.Claim] = r.Data
	case recordReport:
		rep := new(Report)
		if canon.UnmarshalMax(r.Data, rep, maxRecord) != nil || rep.Claim != r.Claim || rep.Sequence != r.Sequence || r.Sequence < s.next {
			return corrupt("report")
		}
		s.next = r.Sequence + 1
		delete(s.begun, r.Claim)
		s.reports = append(s.reports, rep)
		s.bytes += int64(len(r.Data))
	case recordAcked:
		i, ok := s.find(r.Sequence)
		if !ok {
			return corrupt("acknowledgement of no report")
		}
		s.forget(i)
	case recordDone:
		s.remember(r.Claim)
	default:
		return corrupt(fmt.Sprintf("record of type %d", r.Type))
	}
	return nil
}

func (s *Spool) find(sequence uint64) (int, bool) {
	return slices.BinarySearchFunc(s.reports, sequence, func(r *Report, q uint64) int {
		switch {
		case r.Sequence < q:
			return -1
		case r.Sequence > q:
			return 1
		}
		return 0
	})
}

func (s *Spool) forget(i int) {
	r := s.reports[i]
	s.reports = slices.Delete(s.reports, i, i+1)
	s.bytes -= int64(len(canon.MustMarshal(r)))
	s.remember(r.Claim)
}

func (s *Spool) remember(claim uint64) {
	if s.isDone[claim] {
		return
	}
	s.isDone[claim] = true
	s.done = append(s.done, claim)
	if len(s.done) > maxDone {
		delete(s.isDone, s.done[0])
		s.done = s.done[1:]
	}
}

func (s *Spool) known(claim uint64) bool {
	if _, ok := s.begun[claim]; ok || s.isDone[claim] {
		return true
	}
	return slices.ContainsFunc(s.reports, func(r *Report) bool { return r.Claim == claim })
}

// write appends a record and syncs it. After an error nothing is written any more: what is on disk is not known.
func (s *Spool) write(r *record) error {
	if s.failed != nil {
		return s.failed
	}
	b, err := appendRecord(nil, r, s.mark)
	if err != nil {
		return err
	}
	if _, err = s.f.WriteAt(b, s.size); err == nil {
		err = s.f.Sync()
	}
	if err != nil {
		s.failed = fmt.Errorf("write spool: %w", err)
		return s.failed
	}
	s.size += int64(len(b))
	return nil
}

// Begin notes that a claim is about to run. fresh is false if it was begun, reported or done with before: then it must not
// run. The error is ErrSpoolFull while there is no room for its report.
func (s *Spool) Begin(claim uint64, job []byte) (fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known(claim) {
		return false, nil
	}
	if s.bytes+int64(len(s.begun)+1)*reportRoom > MaxSpoolBytes {
		return false, ErrSpoolFull
	}
	if err := s.write(&record{Type: recordBegun, Claim: claim, Data: job}); err != nil {
		return false, err
	}
	s.begun[claim] = job
	return true, nil
}

// Begun returns the jobs of claims that were begun and have no report, ascending by claim.
func (s *Spool) Begun() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	claims := make([]uint64, 0, len(s.begun))
	for c := range s.begun {
		claims = append(claims, c)
	}
	slices.Sort(claims)
	out := make([][]byte, len(claims))
	for i, c := range claims {
		out[i] = s.begun[c]
	}
	return out
}

// Report gives a begun claim the next sequence number and keeps the report that sign makes with it.
func (s *Spool) Report(claim uint64, sign func(sequence uint64) (*Report, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.begun[claim]; !ok {
		return fmt.Errorf("report claim %d: it was not begun", claim)
	}
	r, err := sign(s.next)
	if err != nil {
		return err
	}
	r.Sequence, r.Claim = s.next, claim
	data, err := canon.Marshal(r)
	if err != nil {
		return fmt.Errorf("write spool: %w", err)
	}
	if err := s.write(&record{Type: recordReport, Claim: claim, Sequence: r.Sequence, Data: data}); err != nil {
		return err
	}
	s.next++
	delete(s.begun, claim)
	s.reports = append(s.reports, r)
	s.bytes += int64(len(data))
	return nil
}

// Next returns the first report after a sequence number that is not acknowledged; nil if there is none. The report must not
// be changed.
func (s *Spool) Next(after uint64) *Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := s.find(after)
	if found {
		i++
	}
	if i < len(s.reports) {
		return s.reports[i]
	}
	return nil
}

// Ack forgets a report that a server has committed or finally refused. One that is not there is none of its business.
func (s *Spool) Ack(sequence uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.find(sequence)
	if !ok {
		return nil
	}
	if err := s.write(&record{Type: recordAcked, Claim: s.reports[i].Claim, Sequence: sequence}); err != nil {
		return err
	}
	s.forget(i)
	if s.size > compactAt && s.size > 4*s.bytes {
		return s.compact()
	}
	return nil
}

// Acknowledged is the sequence number up to which everything is acknowledged.
func (s *Spool) Acknowledged() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.reports) > 0 {
		return s.reports[0].Sequence - 1
	}
	return s.next - 1
}

// Waiting is how many reports are not acknowledged.
func (s *Spool) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.reports)
}

func (s *Spool) compact() error {
	old := s.f
	if err := s.rewrite(); err != nil {
		s.failed = err
		return err
	}
	return old.Close()
}

// rewrite writes what still matters into a new file and puts it into the place of the old one. A crash at any point leaves
// one of the two.
func (s *Spool) rewrite() error {
	var salt [4]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return fmt.Errorf("write spool: %w", err)
	}
	o := s.owner
	o.Salt = binary.BigEndian.Uint32(salt[:])
	o.Sequence = s.next - 1
	if len(s.reports) > 0 {
		o.Sequence = s.reports[0].Sequence - 1
	}
	records := []*record{{Type: recordOwner, Data: canon.MustMarshal(o)}}
	for _, c := range s.done {
		records = append(records, &record{Type: recordDone, Claim: c})
	}
	for _, r := range s.reports {
		records = append(records, &record{Type: recordReport, Claim: r.Claim, Sequence: r.Sequence, Data: canon.MustMarshal(r)})
	}
	claims := make([]uint64, 0, len(s.begun))
	for c := range s.begun {
		claims = append(claims, c)
	}
	slices.Sort(claims)
	for _, c := range claims {
		records = append(records, &record{Type: recordBegun, Claim: c, Data: s.begun[c]})
	}
	var b []byte
	var err error
	mark := uint32(headMark)
	for _, r := range records {
		if b, err = appendRecord(b, r, mark); err != nil {
			return err
		}
		mark = headMark ^ o.Salt
	}
	f, err := os.OpenFile(s.path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write spool: %w", err)
	}
	if _, err = io.Copy(f, bytes.NewReader(b)); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(s.path+".new", s.path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(s.path))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write spool: %w", err), f.Close())
	}
	s.f, s.size, s.mark = f, int64(len(b)), mark
	return nil
}

// Close closes the spool and lets others open it.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = fs.ErrClosed
	}
	return errors.Join(s.f.Close(), s.lock.Close())
}
