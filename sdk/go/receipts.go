package creto

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/creto-systems/creto/ledger/verify"
)

// maxReceipt bounds one stored receipt, in bytes.
const maxReceipt = 64 << 10

// frameOverhead is the length before a record and the checksum after it.
const frameOverhead = 8

// ReceiptStore keeps signed receipts in a file until they are checked: the promises of a cluster are worth something only as
// long as somebody remembers them. Records are only appended: length (4 bytes, big-endian), receipt, CRC-32 (IEEE) of both. A
// crash leaves whole records and at most one torn one at the end, which Open cuts off. Beside the file, PATH.checked says up
// to which byte CheckReceipts has found everything in order. It is safe for concurrent use by one process.
type ReceiptStore struct {
	path string

	mu      sync.Mutex
	f       *os.File
	w       *bufio.Writer
	size    int64 // of whole records, including those in w
	count   int
	checked int64
	broken  error // a failed write or sync; nothing is promised after it
}

// OpenReceipts opens the receipts in a file, which is made if it is not there.
func OpenReceipts(path string) (*ReceiptStore, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open receipts: %w", err)
	}
	s := &ReceiptStore{path: path, f: f}
	if err := s.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("open receipts %s: %w", path, err), f.Close())
	}
	s.w = bufio.NewWriterSize(f, 64<<10)
	return s, nil
}

// recover counts whole records, cuts a torn one off and reads the mark.
func (s *ReceiptStore) recover() error {
	info, err := s.f.Stat()
	if err != nil {
		return err
	}
	r := &frameReader{r: bufio.NewReader(s.f)}
	for {
		_, err := r.next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break // a torn record at the end is what a crash leaves
		}
		if err != nil {
			return err
		}
		s.count++
	}
	s.size = r.read
	if info.Size() != s.size {
		if err := s.f.Truncate(s.size); err != nil {
			return err
		}
	}
	if _, err := s.f.Seek(s.size, io.SeekStart); err != nil {
		return err
	}
	text, err := os.ReadFile(s.mark())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n < 0 {
		return fmt.Errorf("%s does not hold a position", s.mark())
	}
	s.checked = min(n, s.size)
	return nil
}

func (s *ReceiptStore) mark() string { return s.path + ".checked" }

// Append adds one encoded verify.SignedReceipt. It is durable once Sync has returned.
func (s *ReceiptStore) Append(receipt []byte) error {
	if len(receipt) == 0 || len(receipt) > maxReceipt {
		return fmt.Errorf("keep receipt: %d bytes", len(receipt))
	}
	if _, err := verify.DecodeSignedReceipt(receipt); err != nil {
		return fmt.Errorf("keep receipt: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return s.broken
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 0, len(receipt)+frameOverhead), uint32(len(receipt)))
	b = append(b, receipt...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	if _, err := s.w.Write(b); err != nil {
		s.broken = fmt.Errorf("keep receipt: %w", err)
		return s.broken
	}
	s.size += int64(len(b))
	s.count++
	return nil
}

// Sync makes everything appended durable. After an error the store takes nothing more: what a disk did with it is unknown.
func (s *ReceiptStore) Sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.syncLocked()
}

func (s *ReceiptStore) syncLocked() error {
	if s.broken != nil {
		return s.broken
	}
	err := s.w.Flush()
	if err == nil {
		err = s.f.Sync()
	}
	if err != nil {
		s.broken = fmt.Errorf("sync receipts: %w", err)
	}
	return s.broken
}

// Len returns how many receipts are kept.
func (s *ReceiptStore) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// Close syncs and closes the file.
func (s *ReceiptStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f == nil {
		return nil
	}
	err := errors.Join(s.syncLocked(), s.f.Close())
	s.f = nil
	if s.broken == nil {
		s.broken = os.ErrClosed
	}
	return err
}

// unchecked calls fn for each receipt that has not been checked, oldest first, with the position after it.
func (s *ReceiptStore) unchecked(fn func(raw []byte, end int64) error) error {
	s.mu.Lock()
	if err := s.syncLocked(); err != nil {
		s.mu.Unlock()
		return err
	}
	from, to := s.checked, s.size
	s.mu.Unlock()
	f, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("read receipts: %w", err)
	}
	defer f.Close()
	r := &frameReader{r: bufio.NewReader(io.NewSectionReader(f, from, to-from))}
	for {
		raw, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read receipts: %w", err)
		}
		if err := fn(raw, from+r.read); err != nil {
			return err
		}
	}
}

// setChecked remembers that all before a position is in order. A crash before the rename repeats the check.
func (s *ReceiptStore) setChecked(to int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	tmp := s.mark() + ".new"
	if err := os.WriteFile(tmp, []byte(strconv.FormatInt(to, 10)+"\n"), 0o600); err != nil {
		return fmt.Errorf("mark receipts as checked: %w", err)
	}
	if err := os.Rename(tmp, s.mark()); err != nil {
		return fmt.Errorf("mark receipts as checked: %w", err)
	}
	s.checked = to
	return nil
}

// frameReader reads records. io.ErrUnexpectedEOF is a record that the end of the file, or a bad checksum at it, cut short.
type frameReader struct {
	r    *bufio.Reader
	read int64 // bytes of whole records
}

func (r *frameReader) next() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxReceipt {
		return nil, r.torn()
	}
	rest := make([]byte, int(n)+4)
	if _, err := io.ReadFull(r.r, rest); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	sum := crc32.Update(crc32.ChecksumIEEE(head[:]), crc32.IEEETable, rest[:n])
	if binary.BigEndian.Uint32(rest[n:]) != sum {
		return nil, r.torn()
	}
	r.read += int64(n) + frameOverhead
	return rest[:n], nil
}

// torn tells a record that a crash cut short from one that was damaged later: behind the latter there is more.
func (r *frameReader) torn() error {
	if _, err := r.r.Peek(1); errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return fmt.Errorf("record at byte %d is damaged", r.read)
}
