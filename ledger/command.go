package ledger

import (
	"errors"
	"fmt"
	"math"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// CommandVersion is the version of the command encoding. A binary that meets another one stops.
const CommandVersion = 1

// Bounds of a command. Who proposes keeps to them; a command that exceeds one stops every node, because nobody knows what it
// meant.
const (
	MaxCommandSize     = 320 << 10 // bytes, of which about 256 KiB are events
	MaxCommandEvents   = 2048
	MaxVerdictNames    = 64  // chains, and policies, named by one verdict
	MaxVerdictNameSize = 128 // bytes of one of them
	maxWrappedKey      = 256
)

// CommandType is the type of a command.
type CommandType uint8

// The types of commands.
const (
	CommandEvents   CommandType = 1 // events of one tenant
	CommandSeal     CommandType = 2 // commit all heads to the spine
	CommandTick     CommandType = 3 // consensus time passes
	CommandGenesis  CommandType = 4 // the ledger begins
	CommandActivate CommandType = 5 // the active feature level rises
)

// Command is the data of one Raft entry: canonical CBOR {1 v, 2 type, 3 proposed time, …}. Which of the other fields count
// depends on Type.
type Command struct {
	Type CommandType
	Time int64 // the leader's proposed time, Unix nanoseconds; it becomes a Stamp by the stamp rule

	Tenant    nhi.ID          // events: 4; zero = the system log
	Envelopes [][]byte        // events: 5, each the encoded nhi.Envelope as the client signed it
	Verdicts  []Verdict       // events: 6; none, or one for every event in order (zero = not asked)
	Addenda   []SealedAddenda // events: 7; ascending by Event

	Epoch   uint64 // seal: 4
	Genesis []byte // genesis: 4
	Active  uint32 // version: 4
}

// SealedAddenda are the sealed addenda of one event of a command.
type SealedAddenda struct {
	Event  int // position of the event in the command, counted over all envelopes
	Sealed []SealedAddendum
}

// SealedAddendum is one addendum as the edge sealed it: what replicas, logs and backups hold.
type SealedAddendum struct {
	Digest     nhi.Digest // its salted digest, one of the event's Addenda
	WrappedKey []byte     // the record key under the cluster's key-encryption key
	Ciphertext []byte     // nonce ‖ AES-256-GCM
}

// ErrCommand is what every command that cannot be read matches with errors.Is.
var ErrCommand = errors.New("command cannot be read")

// Encode returns the canonical encoding, which DecodeCommand reads.
func (c *Command) Encode() ([]byte, error) {
	n := 4096
	for _, e := range c.Envelopes {
		n += len(e) + 8
	}
	for _, a := range c.Addenda {
		for _, s := range a.Sealed {
			n += len(s.Ciphertext) + len(s.WrappedKey) + 64
		}
	}
	n += len(c.Verdicts) * 96
	b := make([]byte, 0, n)
	pairs := 3
	switch c.Type {
	case CommandEvents:
		pairs += 2
		if len(c.Verdicts) > 0 {
			pairs++
		}
		if len(c.Addenda) > 0 {
			pairs++
		}
	case CommandSeal, CommandGenesis, CommandActivate:
		pairs++
	}
	b = canon.AppendMap(b, pairs)
	b = append(b, 1)
	b = canon.AppendUint(b, CommandVersion)
	b = append(b, 2)
	b = canon.AppendUint(b, uint64(c.Type))
	b = append(b, 3)
	b = canon.AppendInt(b, c.Time)
	switch c.Type {
	case CommandEvents:
		b = c.appendEvents(b)
	case CommandSeal:
		b = append(b, 4)
		b = canon.AppendUint(b, c.Epoch)
	case CommandTick:
	case CommandGenesis:
		b = append(b, 4)
		b = canon.AppendBytes(b, c.Genesis)
	case CommandActivate:
		b = append(b, 4)
		b = canon.AppendUint(b, uint64(c.Active))
	default:
		return nil, fmt.Errorf("encode command: type %d is unknown", c.Type)
	}
	// A command that nobody can read stops every node: it must not come into being.
	if _, err := DecodeCommand(b); err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	return b, nil
}

func (c *Command) appendEvents(b []byte) []byte {
	b = append(b, 4)
	b = canon.AppendBytes(b, c.Tenant[:])
	b = append(b, 5)
	b = canon.AppendArray(b, len(c.Envelopes))
	for _, e := range c.Envelopes {
		b = canon.AppendBytes(b, e)
	}
	if len(c.Verdicts) > 0 {
		b = append(b, 6)
		b = canon.AppendArray(b, len(c.Verdicts))
		for i := range c.Verdicts {
			b = c.Verdicts[i].appendTo(b)
		}
	}
	if len(c.Addenda) > 0 {
		b = append(b, 7)
		b = canon.AppendArray(b, len(c.Addenda))
		for _, a := range c.Addenda {
			b = canon.AppendMap(b, 2)
			b = append(b, 1)
			b = canon.AppendUint(b, uint64(a.Event))
			b = append(b, 2)
			b = canon.AppendArray(b, len(a.Sealed))
			for i := range a.Sealed {
				s := &a.Sealed[i]
				b = canon.AppendMap(b, 3)
				b = append(b, 1)
				b = canon.AppendBytes(b, s.Digest[:])
				b = append(b, 2)
				b = canon.AppendBytes(b, s.WrappedKey)
				b = append(b, 3)
				b = canon.AppendBytes(b, s.Ciphertext)
			}
		}
	}
	return b
}

// appendTo writes the verdict; one that was not asked for is the empty map.
func (v *Verdict) appendTo(b []byte) []byte {
	if v.Outcome == VerdictNone {
		return canon.AppendMap(b, 0)
	}
	pairs := 3
	if len(v.Chains) > 0 {
		pairs++
	}
	if len(v.Policies) > 0 {
		pairs++
	}
	b = canon.AppendMap(b, pairs)
	b = append(b, 1)
	b = canon.AppendUint(b, uint64(v.Outcome))
	b = append(b, 2)
	b = canon.AppendMap(b, 3)
	b = append(b, 1)
	b = canon.AppendUint(b, v.Epochs.Policy)
	b = append(b, 2)
	b = canon.AppendUint(b, v.Epochs.Entities)
	b = append(b, 3)
	b = canon.AppendUint(b, v.Epochs.Revocation)
	b = append(b, 3)
	b = canon.AppendBytes(b, v.Digest[:])
	for i, names := range [][]string{v.Chains, v.Policies} {
		if len(names) == 0 {
			continue
		}
		b = append(b, byte(4+i))
		b = canon.AppendArray(b, len(names))
		for _, n := range names {
			b = canon.AppendText(b, n)
		}
	}
	return b
}

// commandReader walks over an encoded command; the first failure sticks.
type commandReader struct {
	canon.Reader
	err error
}

func (r *commandReader) fail(err error) {
	if r.err == nil && err != nil {
		r.err = err
	}
}

func (r *commandReader) uint(limit uint64) uint64 {
	if r.err != nil {
		return 0
	}
	n, err := r.Uint()
	if err == nil && n > limit {
		err = fmt.Errorf("integer %d is above %d", n, limit)
	}
	r.fail(err)
	return n
}

func (r *commandReader) int() int64 {
	if r.err != nil {
		return 0
	}
	n, err := r.Int()
	r.fail(err)
	return n
}

func (r *commandReader) bytes(limit int) []byte {
	if r.err != nil {
		return nil
	}
	b, err := r.Bytes()
	if err == nil && len(b) > limit {
		err = fmt.Errorf("%d bytes are more than %d", len(b), limit)
	}
	r.fail(err)
	return b
}

func (r *commandReader) text(limit int) string {
	if r.err != nil {
		return ""
	}
	b, err := r.Text()
	if err == nil && len(b) > limit {
		err = fmt.Errorf("text of %d bytes is longer than %d", len(b), limit)
	}
	r.fail(err)
	return string(b)
}

func (r *commandReader) fixed(dst []byte) {
	if r.err == nil {
		r.fail(r.Fixed(dst))
	}
}

// array reads an array of lo to hi elements.
func (r *commandReader) array(lo, hi int) int {
	if r.err != nil {
		return 0
	}
	n, err := r.Array()
	if err == nil && (n < lo || n > hi) {
		err = fmt.Errorf("%d elements are not between %d and %d", n, lo, hi)
	}
	r.fail(err)
	if r.err != nil {
		return 0
	}
	return n
}

func (r *commandReader) pairs() int {
	if r.err != nil {
		return 0
	}
	n, err := r.Map()
	r.fail(err)
	if r.err != nil {
		return 0
	}
	return n
}

// key reads the key of the next pair.
func (r *commandReader) key(want byte) {
	if r.err == nil && !r.Peek(want) {
		r.fail(fmt.Errorf("key %d is not there", want))
	}
}

// DecodeCommand decodes the data of a Raft entry. Envelopes and ciphertexts alias b. The error matches ErrCommand.
func DecodeCommand(b []byte) (*Command, error) {
	if len(b) > MaxCommandSize {
		return nil, fmt.Errorf("%w: %d bytes are more than %d", ErrCommand, len(b), MaxCommandSize)
	}
	r := &commandReader{Reader: canon.NewReader(b)}
	c := &Command{}
	pairs := r.pairs()
	r.key(1)
	if v := r.uint(math.MaxUint64); r.err == nil && v != CommandVersion {
		return nil, fmt.Errorf("%w: version %d is not %d", ErrCommand, v, CommandVersion)
	}
	r.key(2)
	c.Type = CommandType(r.uint(math.MaxUint8))
	r.key(3)
	c.Time = r.int()
	left := pairs - 3
	switch c.Type {
	case CommandEvents:
		left = c.decodeEvents(r, left)
	case CommandSeal:
		r.key(4)
		c.Epoch = r.uint(verify.MaxTreeSize)
		left--
	case CommandTick:
	case CommandGenesis:
		r.key(4)
		c.Genesis = r.bytes(MaxGenesisSize)
		left--
	case CommandActivate:
		r.key(4)
		c.Active = uint32(r.uint(math.MaxUint32))
		left--
	default:
		r.fail(fmt.Errorf("type %d is unknown", c.Type))
	}
	if r.err == nil && left != 0 {
		r.fail(errors.New("the number of fields is not that of the type"))
	}
	if r.err == nil {
		r.fail(r.End())
	}
	if r.err != nil {
		return nil, fmt.Errorf("%w: at byte %d: %w", ErrCommand, r.Offset(), r.err)
	}
	return c, nil
}

func (c *Command) decodeEvents(r *commandReader, left int) int {
	r.key(4)
	r.fixed(c.Tenant[:])
	r.key(5)
	n := r.array(1, MaxCommandEvents)
	c.Envelopes = make([][]byte, 0, n)
	for i := 0; i < n && r.err == nil; i++ {
		c.Envelopes = append(c.Envelopes, r.bytes(MaxCommandSize))
	}
	left -= 2
	if r.err == nil && r.Peek(6) {
		n := r.array(1, MaxCommandEvents)
		c.Verdicts = make([]Verdict, n)
		for i := 0; i < n && r.err == nil; i++ {
			c.Verdicts[i].decode(r)
		}
		left--
	}
	if r.err == nil && r.Peek(7) {
		n := r.array(1, MaxCommandEvents)
		c.Addenda = make([]SealedAddenda, n)
		for i := 0; i < n && r.err == nil; i++ {
			c.Addenda[i].decode(r)
			if i > 0 && r.err == nil && c.Addenda[i].Event <= c.Addenda[i-1].Event {
				r.fail(errors.New("addenda are not in the order of their events"))
			}
		}
		left--
	}
	return left
}

func (a *SealedAddenda) decode(r *commandReader) {
	if r.pairs() != 2 {
		r.fail(errors.New("sealed addenda have two fields"))
	}
	r.key(1)
	a.Event = int(r.uint(MaxCommandEvents - 1))
	r.key(2)
	n := r.array(1, verify.MaxAddenda)
	a.Sealed = make([]SealedAddendum, n)
	for i := 0; i < n && r.err == nil; i++ {
		s := &a.Sealed[i]
		if r.pairs() != 3 {
			r.fail(errors.New("a sealed addendum has three fields"))
		}
		r.key(1)
		r.fixed(s.Digest[:])
		r.key(2)
		s.WrappedKey = r.bytes(maxWrappedKey)
		r.key(3)
		s.Ciphertext = r.bytes(MaxCommandSize)
	}
}

func (v *Verdict) decode(r *commandReader) {
	pairs := r.pairs()
	if pairs == 0 || r.err != nil {
		return
	}
	r.key(1)
	v.Outcome = VerdictOutcome(r.uint(uint64(VerdictNeedsOversight)))
	if v.Outcome == VerdictNone {
		r.fail(errors.New("a verdict that was not asked for is the empty map"))
	}
	r.key(2)
	if r.pairs() != 3 {
		r.fail(errors.New("epochs have three fields"))
	}
	r.key(1)
	v.Epochs.Policy = r.uint(math.MaxUint64)
	r.key(2)
	v.Epochs.Entities = r.uint(math.MaxUint64)
	r.key(3)
	v.Epochs.Revocation = r.uint(math.MaxUint64)
	r.key(3)
	r.fixed(v.Digest[:])
	left := pairs - 3
	for k, names := range []*[]string{&v.Chains, &v.Policies} {
		if r.err != nil || left == 0 || !r.Peek(byte(4+k)) {
			continue
		}
		left--
		n := r.array(1, MaxVerdictNames)
		for i := 0; i < n && r.err == nil; i++ {
			*names = append(*names, r.text(MaxVerdictNameSize))
			if i > 0 && (*names)[i] <= (*names)[i-1] {
				r.fail(errors.New("names are not sorted"))
			}
		}
	}
	if r.err == nil && left != 0 {
		r.fail(errors.New("a verdict has an unknown field"))
	}
}
