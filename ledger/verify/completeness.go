package verify

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// completenessMagic begins a completeness file; frames follow it.
const completenessMagic = "creto-completeness/v1\n"

// The frames of a completeness file: one byte of type, four bytes of big-endian length, content.
const (
	frameHeader  = 1   // an encoded CompletenessHeader; first, once
	frameLeaf    = 2   // an encoded leaf; in order, without gaps
	framePayload = 3   // the event of the leaf before it, or a system leaf's body; optional
	frameEnd     = 255 // 8 bytes of leaf count and SHA-256 of everything before this frame; last, once
)

const (
	maxHeaderFrame = 512 << 10
	endFrameSize   = 8 + sha256.Size
	maxTallies     = 1024 // distinct meters, kinds or outcomes a report counts
)

// CompletenessHeader says which leaves follow and proves both heads that enclose them, under one checkpoint. Start is
// absent if A is 0: the file then begins at the log's first leaf.
type CompletenessHeader struct {
	V        uint64       `cbor:"1,keyasint"` // 1
	LedgerID nhi.Digest   `cbor:"2,keyasint"`
	Tenant   nhi.ID       `cbor:"3,keyasint"`
	Cell     uint64       `cbor:"4,keyasint"`
	Slot     uint32       `cbor:"5,keyasint"`
	From     int64        `cbor:"6,keyasint"`            // Unix nanoseconds, included
	To       int64        `cbor:"7,keyasint"`            // not included
	A        uint64       `cbor:"8,keyasint"`            // size of the log in the start epoch; leaves [A, B) follow
	B        uint64       `cbor:"9,keyasint"`            // size in the end epoch
	Range    []nhi.Digest `cbor:"10,keyasint,omitempty"` // compact range of size A, largest subtree first
	Start    *HeadProof   `cbor:"11,keyasint,omitempty"` // an epoch whose time is not after From
	End      HeadProof    `cbor:"12,keyasint"`           // an epoch whose time is not before To
}

// HeadProof proves the head of a tenant's log in one epoch. Both proofs of a completeness file end in the same checkpoint.
type HeadProof struct {
	Head       []byte       `cbor:"1,keyasint"`           // an encoded HeadLeaf
	HeadPath   []nhi.Digest `cbor:"2,keyasint,omitempty"` // head leaf → SpineLeaf.HeadsRoot
	Spine      []byte       `cbor:"3,keyasint"`           // an encoded SpineLeaf
	SpineProof []byte       `cbor:"4,keyasint"`           // tlog-proof@v1 of the spine leaf
}

// CompletenessWriter writes a completeness file. It buffers nothing: give it a buffered writer.
type CompletenessWriter struct {
	w    io.Writer
	sum  hash.Hash
	next uint64 // index of the next leaf
	end  uint64
	a    uint64
	err  error
}

// NewCompletenessWriter writes the header. Exactly the leaves [h.A, h.B) must follow, then Close.
func NewCompletenessWriter(w io.Writer, h *CompletenessHeader) (*CompletenessWriter, error) {
	b, err := canon.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("write completeness file: %w", err)
	}
	if len(b) > maxHeaderFrame {
		return nil, fmt.Errorf("write completeness file: a header of %d bytes is too long", len(b))
	}
	if h.A > h.B || h.B > MaxTreeSize {
		return nil, fmt.Errorf("write completeness file: no leaves [%d, %d)", h.A, h.B)
	}
	c := &CompletenessWriter{w: w, sum: sha256.New(), next: h.A, end: h.B, a: h.A}
	c.write([]byte(completenessMagic))
	c.frame(frameHeader, b)
	return c, c.err
}

// Leaf writes the next leaf and, unless it is nil, the event, or system leaf's body, whose digest the leaf holds.
func (c *CompletenessWriter) Leaf(leaf, payload []byte) error {
	if c.err == nil && c.next == c.end {
		c.err = fmt.Errorf("write completeness file: more than %d leaves", c.end-c.a)
	}
	c.next++
	c.frame(frameLeaf, leaf)
	if payload != nil {
		c.frame(framePayload, payload)
	}
	return c.err
}

// Close writes the end frame. It does not close the underlying writer.
func (c *CompletenessWriter) Close() error {
	if c.err == nil && c.next != c.end {
		c.err = fmt.Errorf("write completeness file: %d of %d leaves written", c.next-c.a, c.end-c.a)
	}
	end := binary.BigEndian.AppendUint64(make([]byte, 0, endFrameSize), c.end-c.a)
	c.frame(frameEnd, c.sum.Sum(end))
	return c.err
}

func (c *CompletenessWriter) frame(typ byte, content []byte) {
	head := binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(content)))
	c.write(head)
	c.write(content)
}

func (c *CompletenessWriter) write(b []byte) {
	if c.err != nil {
		return
	}
	c.sum.Write(b)
	if _, err := c.w.Write(b); err != nil {
		c.err = fmt.Errorf("write completeness file: %w", err)
	}
}

// frameReader reads frames and sums what it reads.
type frameReader struct {
	r   io.Reader
	sum hash.Hash
	buf []byte
}

// next reads one frame. The content is valid until the next call. The sum covers everything before an end frame.
func (f *frameReader) next() (typ byte, content []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("read frame: %w", noEOF(err))
	}
	n := int(binary.BigEndian.Uint32(head[1:]))
	limit := 0
	switch head[0] {
	case frameHeader:
		limit = maxHeaderFrame
	case frameLeaf:
		limit = MaxLeafSize
	case framePayload:
		limit = nhi.MaxPayloadBytes
	case frameEnd:
		limit = endFrameSize
	default:
		return 0, nil, fmt.Errorf("read frame: unknown type %d", head[0])
	}
	if n > limit {
		return 0, nil, fmt.Errorf("read frame: %d bytes in a frame of type %d", n, head[0])
	}
	if cap(f.buf) < n {
		f.buf = make([]byte, n)
	}
	content = f.buf[:n]
	if _, err := io.ReadFull(f.r, content); err != nil {
		return 0, nil, fmt.Errorf("read frame: %w", noEOF(err))
	}
	if head[0] != frameEnd {
		f.sum.Write(head[:])
		f.sum.Write(content)
	}
	return head[0], content, nil
}

// noEOF turns the end of a file in the middle of something into what it is.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// VerifyCompleteness verifies a completeness file while reading it once, in constant memory. If visit is not nil it is
// called for every leaf whose commit time lies in the file's period, in order, with the leaf's bytes and the event if the
// file has it (nil otherwise); all three are valid only during the call, and what they say is proved only once
// VerifyCompleteness has returned without error. The report is never nil; the error is a *Failure.
func VerifyCompleteness(file io.Reader, t *Trust, o Options) (*Report, error) {
	r := newRun(KindCompleteness, t, o)
	c := &completeness{run: r, frames: frameReader{r: file, sum: sha256.New()}, tally: newTally()}
	if err := c.verify(); err != nil {
		return r.failed(err)
	}
	return r.finish(), nil
}

// completeness is one verification of a completeness file.
type completeness struct {
	*run
	frames frameReader
	head   CompletenessHeader
	start  *headParts // nil if A is 0
	end    *headParts
	tree   *Tree
	last   int64 // commit time of the leaf before
	ended  bool  // the end frame was read
	tally  *tally
	keys   *KeyHistory // of a system log from its first leaf on
	keyErr error       // the first of keys
}

type headParts struct {
	head  *HeadLeaf
	spine *spineProof
	proof *HeadProof
}

func (c *completeness) verify() error {
	if err := c.readHeader(); err != nil {
		return c.fail(StepFile, ClassMalformed, ExitMalformed, err)
	}
	// A step that fails before the end reads on, to tell a damaged file from one that lies.
	err := c.checkHeads()
	if err == nil {
		err = c.readLeaves()
	}
	if err == nil {
		err = c.checkKeys()
	}
	if f, ok := errors.AsType[*Failure](err); ok {
		if f.Class == ClassTampering || f.Class == ClassTrust {
			if c.drain(); c.damaged {
				f.Class, f.Advice = ClassDamaged, hints[ClassDamaged]
			}
		}
		return err
	}
	c.conclude()
	return nil
}

// ReadCompletenessHeader reads the front of a completeness file, to say what it is about. It verifies nothing.
func ReadCompletenessHeader(file io.Reader) (*CompletenessHeader, error) {
	f := frameReader{r: file, sum: sha256.New()}
	h := new(CompletenessHeader)
	if err := f.header(h); err != nil {
		return nil, fmt.Errorf("read completeness file: %w", err)
	}
	return h, nil
}

func (f *frameReader) header(h *CompletenessHeader) error {
	magic := make([]byte, len(completenessMagic))
	if _, err := io.ReadFull(f.r, magic); err != nil || string(magic) != completenessMagic {
		return errors.New("not a completeness file")
	}
	f.sum.Write(magic)
	typ, b, err := f.next()
	if err != nil {
		return err
	}
	if typ != frameHeader {
		return fmt.Errorf("the first frame is of type %d", typ)
	}
	if err := canon.UnmarshalMax(b, h, maxHeaderFrame); err != nil {
		return fmt.Errorf("decode header: %w", err)
	}
	return nil
}

func (c *completeness) readHeader() error {
	h := &c.head
	if err := c.frames.header(h); err != nil {
		return err
	}
	var err error
	switch {
	case h.V != 1:
		return fmt.Errorf("version %d is unknown", h.V)
	case h.From < 0 || h.To < h.From:
		return errors.New("the period ends before it begins")
	case h.A > h.B || h.B > MaxTreeSize:
		return fmt.Errorf("no leaves [%d, %d)", h.A, h.B)
	case (h.A == 0) != (h.Start == nil):
		return errors.New("a start head comes with a first leaf other than 0")
	}
	if h.Start != nil {
		if c.start, err = parseHead(h.Start); err != nil {
			return err
		}
	}
	if c.end, err = parseHead(&h.End); err != nil {
		return err
	}
	if c.start != nil && string(c.start.spine.proof.Checkpoint) != string(c.end.spine.proof.Checkpoint) {
		return errors.New("the two heads are proven under different checkpoints")
	}
	c.ok(StepFile, "a completeness file, leaves [%d, %d)", h.A, h.B)
	return nil
}

func parseHead(p *HeadProof) (*headParts, error) {
	head, err := DecodeHeadLeaf(p.Head)
	if err != nil {
		return nil, err
	}
	spine, err := parseSpineProof(p.Spine, p.SpineProof)
	if err != nil {
		return nil, err
	}
	return &headParts{head: head, spine: spine, proof: p}, nil
}

// checkHeads checks everything that the header says.
func (c *completeness) checkHeads() error {
	h, x := &c.head, c.opt.Expect
	if err := c.checkLedger(h.LedgerID); err != nil {
		return err
	}
	switch {
	case x.Tenant != nil && *x.Tenant != h.Tenant:
		return c.fail(StepAsked, ClassMismatch, ExitInclusion, fmt.Errorf("the file is about %s, not %s", logOf(h.Tenant), logOf(*x.Tenant)))
	case x.Cell != nil && *x.Cell != h.Cell:
		return c.fail(StepAsked, ClassMismatch, ExitInclusion, fmt.Errorf("the file is about cell %d, not %d", h.Cell, *x.Cell))
	case x.From != nil && x.From.UnixNano() != h.From, x.To != nil && x.To.UnixNano() != h.To:
		return c.fail(StepAsked, ClassMismatch, ExitInclusion, fmt.Errorf("the file is about %s to %s", formatTime(h.From), formatTime(h.To)))
	}
	c.ok(StepAsked, "%s, from %s until before %s", logOf(h.Tenant), formatTime(h.From), formatTime(h.To))
	if c.start != nil {
		if err := c.checkOneHead(c.start, h.A); err != nil {
			return err
		}
	}
	if err := c.checkOneHead(c.end, h.B); err != nil {
		return err
	}
	if err := c.checkEpochs(); err != nil {
		return err
	}
	if _, err := c.checkNote(c.end.spine.note, c.end.spine.leaf.Time); err != nil {
		return err
	}
	if err := c.checkAge(c.end.spine.leaf.Time); err != nil {
		return err
	}
	return c.resumeTree()
}

func (c *completeness) checkOneHead(p *headParts, size uint64) error {
	h := &c.head
	if p.head.Size != size || p.head.Slot != h.Slot || p.head.Cell != h.Cell {
		return c.fail(StepHeadsTree, ClassTampering, ExitInclusion, fmt.Errorf("the head of epoch %d is of another log or size than the file says", p.spine.leaf.Epoch))
	}
	if err := c.checkHead(p.head, p.proof.Head, p.proof.HeadPath, p.spine, h.Tenant); err != nil {
		return err
	}
	return c.checkSpine(p.spine)
}

// checkEpochs checks that the two epochs enclose the period. Commit times strictly increase along the log and a seal has
// one of its own, so every leaf before the start epoch's head is older than that epoch, and every leaf after the end
// epoch's head is younger.
func (c *completeness) checkEpochs() error {
	h, end := &c.head, c.end.spine
	bad := func(format string, args ...any) error {
		return c.fail(StepEpochs, ClassTampering, ExitConsistency, fmt.Errorf(format, args...))
	}
	if end.leaf.Time < h.To {
		return bad("the end epoch %d is of %s, before the period ends", end.leaf.Epoch, formatTime(end.leaf.Time))
	}
	if c.start == nil {
		c.ok(StepEpochs, "from the log's first leaf through epoch %d (%s)", end.leaf.Epoch, formatTime(end.leaf.Time))
		return nil
	}
	start := c.start.spine
	switch {
	case start.leaf.Time > h.From:
		return bad("the start epoch %d is of %s, after the period begins", start.leaf.Epoch, formatTime(start.leaf.Time))
	case start.leaf.Epoch > end.leaf.Epoch || start.proof.Index > end.proof.Index || start.leaf.Time > end.leaf.Time:
		return bad("the start epoch %d lies after the end epoch %d", start.leaf.Epoch, end.leaf.Epoch)
	}
	c.ok(StepEpochs, "from epoch %d (%s) through epoch %d (%s)", start.leaf.Epoch, formatTime(start.leaf.Time), end.leaf.Epoch, formatTime(end.leaf.Time))
	return nil
}

// resumeTree takes the compact range of the start head.
func (c *completeness) resumeTree() error {
	h := &c.head
	tree, err := ResumeTree(h.A, h.Range)
	if err != nil {
		return c.fail(StepLeaves, ClassTampering, ExitConsistency, err)
	}
	root, err := tree.Root()
	if err != nil {
		return c.fail(StepLeaves, ClassTampering, ExitConsistency, err)
	}
	if c.start != nil && root != c.start.head.Root {
		return c.fail(StepLeaves, ClassTampering, ExitConsistency, errors.New("the compact range does not give the root of the start head"))
	}
	c.tree = tree
	if h.Slot == systemSlot && h.A == 0 {
		c.keys = NewKeyHistory(h.LedgerID)
	}
	return nil
}

// checkKeys holds the trust file against what the whole system log says about keys.
func (c *completeness) checkKeys() error {
	switch {
	case c.keys == nil:
		return nil
	case errors.Is(c.keyErr, errNoPayload):
		c.skip(StepKeys, "the file has no events, which say whose keys are in force")
		return nil
	case c.keyErr != nil:
		return c.fail(StepKeys, ClassMalformed, ExitMalformed, c.keyErr)
	}
	if err := c.keys.Check(c.trust); err != nil {
		return c.fail(StepKeys, ClassTrust, ExitUntrusted, fmt.Errorf("as of epoch %d: %w", c.end.spine.leaf.Epoch, err))
	}
	c.ok(StepKeys, "the trust file's log and node keys are those of the genesis and of the %d voters after it", len(c.keys.Nodes))
	c.proves("keys: from the genesis, whose hash is the ledger id, to epoch %d the log names the keys that the trust file takes", c.end.spine.leaf.Epoch)
	return nil
}

// readLeaves reads leaves [A, B) and the end frame, and compares the rebuilt root.
func (c *completeness) readLeaves() error {
	leaf := new(Leaf)
	raw := make([]byte, 0, MaxLeafSize)
	pending := false // leaf and raw are read, their payload may follow
	for {
		typ, b, err := c.frames.next()
		if err != nil {
			return c.fail(StepFile, ClassDamaged, ExitMalformed, err)
		}
		switch {
		case typ == framePayload && pending:
			if nhi.PayloadDigest(b) != leaf.Payload {
				return c.fail(StepPayload, ClassTampering, ExitSignature, fmt.Errorf("the event of leaf %d is not the one whose digest stands in it", leaf.Index))
			}
			c.tally.payloads++
			if err := c.visit(leaf, raw, b); err != nil {
				return err
			}
			pending = false
		case typ == frameLeaf, typ == frameEnd:
			if pending {
				if err := c.visit(leaf, raw, nil); err != nil {
					return err
				}
				pending = false
			}
			if typ == frameEnd {
				return c.readEnd(b)
			}
			raw = append(raw[:0], b...)
			if err := c.addLeaf(leaf, raw); err != nil {
				return err
			}
			pending = true
		default:
			return c.fail(StepFile, ClassMalformed, ExitMalformed, fmt.Errorf("a frame of type %d in the wrong place", typ))
		}
	}
}

func (c *completeness) addLeaf(leaf *Leaf, raw []byte) error {
	index := c.tree.Size()
	bad := func(err error) error {
		return c.fail(StepLeaves, ClassTampering, ExitInclusion, fmt.Errorf("leaf %d: %w", index, err))
	}
	if index >= c.head.B {
		return bad(fmt.Errorf("the end head has only %d leaves", c.head.B))
	}
	if err := leaf.Decode(raw); err != nil {
		return bad(err)
	}
	switch {
	case leaf.Index != index:
		return bad(fmt.Errorf("it says that it is leaf %d", leaf.Index))
	case leaf.Slot != c.head.Slot || leaf.Cell != c.head.Cell:
		return bad(errors.New("it is of another log"))
	case leaf.Time <= c.last && index > c.head.A, c.start != nil && leaf.Time < c.start.spine.leaf.Time:
		return bad(errors.New("its commit time does not increase"))
	case leaf.Time > c.end.spine.leaf.Time:
		return bad(errors.New("its commit time lies after the end epoch's"))
	}
	c.last = leaf.Time
	if err := c.tree.Append(LeafHash(raw)); err != nil {
		return bad(err)
	}
	return nil
}

func (c *completeness) visit(leaf *Leaf, raw, payload []byte) error {
	if leaf.Quality.Flags&FlagTest != 0 {
		c.rep.Test = true
	}
	if c.keys != nil && c.keyErr == nil {
		c.keyErr = c.keys.Add(leaf, payload)
	}
	if leaf.Time < c.head.From || leaf.Time >= c.head.To {
		return nil
	}
	c.tally.add(leaf)
	if c.opt.Visit == nil {
		return nil
	}
	if err := c.opt.Visit(leaf, raw, payload); err != nil {
		return c.fail("visit", ClassStopped, 1, err)
	}
	return nil
}

func (c *completeness) readEnd(b []byte) error {
	c.checkEnd(b)
	if size := c.tree.Size(); size != c.head.B {
		return c.fail(StepLeaves, ClassTampering, ExitInclusion, fmt.Errorf("leaves [%d, %d) are missing", size, c.head.B))
	}
	root, err := c.tree.Root()
	if err != nil {
		return c.fail(StepLeaves, ClassTampering, ExitConsistency, err)
	}
	if root != c.end.head.Root {
		return c.fail(StepLeaves, ClassTampering, ExitConsistency, fmt.Errorf("the leaves do not give the root of the end head at size %d", c.head.B))
	}
	c.ok(StepLeaves, "%s without a gap rebuild the root at size %d", counted(c.head.B-c.head.A, "leaf", "leaves"), c.head.B)
	if c.damaged {
		return c.fail(StepIntegrity, ClassDamaged, ExitMalformed, errors.New("the file's checksum does not match its content"))
	}
	c.ok(StepIntegrity, "the file is as it was written")
	return nil
}

// checkEnd holds the end frame against what was read, and demands the end of the file.
func (c *completeness) checkEnd(b []byte) {
	c.ended = true
	var one [1]byte
	_, err := io.ReadFull(c.frames.r, one[:])
	want := c.frames.sum.Sum(binary.BigEndian.AppendUint64(make([]byte, 0, endFrameSize), c.head.B-c.head.A))
	if !errors.Is(err, io.EOF) || string(b) != string(want) {
		c.damaged = true
	}
}

// drain reads to the end only to learn whether the file is as it was written.
func (c *completeness) drain() {
	for !c.ended {
		typ, b, err := c.frames.next()
		if err != nil {
			c.damaged = true
			return
		}
		if typ == frameEnd {
			c.checkEnd(b)
		}
	}
}

func (c *completeness) conclude() {
	h, end := &c.head, c.end.spine.leaf
	c.rep.AsOf, c.rep.Epoch = formatTime(end.Time), end.Epoch
	c.rep.Period = c.tally.period(h)
	these := fmt.Sprintf("these %d leaves are", c.tally.leaves)
	if c.tally.leaves == 1 {
		these = "this one leaf is"
	}
	c.proves("complete: %s all that %s has with a commit time from %s until before %s",
		these, logOf(h.Tenant), formatTime(h.From), formatTime(h.To))
	c.proves("vouched for %s: that the two heads are the only ones of this log in their epochs, and that verdicts, outcomes, quantities and times are as the leaves say", c.vouched())
	c.doesNotProve(
		"that every event reached the ledger: gaps in an agent's own sequence numbers show what did not",
		"that what the events report is true",
		"the signatures over the events: event proofs show them one by one",
		"anything after "+c.rep.AsOf+": a later leaf may reverse or void one of these",
	)
	if c.rep.Test {
		c.doesNotProve("real time: this is a test ledger whose clock can be moved")
	}
}

// tally adds up the leaves of the period.
type tally struct {
	leaves, payloads uint64
	outcomes, kinds  map[string]uint64
	totals           map[string]*big.Int
	first, last      int64
	partial          bool
}

func newTally() *tally {
	return &tally{outcomes: map[string]uint64{}, kinds: map[string]uint64{}, totals: map[string]*big.Int{}}
}

func (t *tally) add(l *Leaf) {
	if t.leaves == 0 {
		t.first = l.Time
	}
	t.leaves, t.last = t.leaves+1, l.Time
	t.count(t.outcomes, l.Outcome.Code.String())
	t.count(t.kinds, l.Kind)
	if !l.Outcome.Code.Accepted() {
		return
	}
	var n big.Int
	for _, q := range l.Quantities {
		sum := t.totals[q.Meter]
		if sum == nil {
			if len(t.totals) == maxTallies {
				t.partial = true
				continue
			}
			sum = new(big.Int)
			t.totals[q.Meter] = sum
		}
		n.SetUint64(q.N)
		if l.Reverses != nil {
			sum.Sub(sum, &n)
		} else {
			sum.Add(sum, &n)
		}
	}
}

func (t *tally) count(m map[string]uint64, key string) {
	if _, ok := m[key]; !ok && len(m) == maxTallies {
		t.partial = true
		return
	}
	m[key]++
}

func (t *tally) period(h *CompletenessHeader) *Period {
	p := &Period{
		From: formatTime(h.From), To: formatTime(h.To), FirstLeaf: h.A, EndLeaf: h.B, Leaves: t.leaves, Outcomes: t.outcomes,
		Kinds: t.kinds, Totals: make(map[string]string, len(t.totals)), Payloads: t.payloads, Partial: t.partial,
	}
	for m, sum := range t.totals {
		p.Totals[m] = sum.String()
	}
	if t.leaves > 0 {
		p.FirstTime, p.LastTime = formatTime(t.first), formatTime(t.last)
	}
	return p
}
