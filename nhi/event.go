package nhi

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/creto-systems/creto/nhi/canon"
)

// Limits of an Event.
const (
	MaxPayloadBytes  = 64 << 10 // encoded event
	MaxKindBytes     = 64
	MaxBodyDepth     = 3   // arrays and maps open at once below the body map
	MaxProperties    = 100 // pairs in the body and in each map below it
	MaxAddenda       = 8
	MaxAddendumBytes = 128 << 10 // all addenda of an event together

	eventVersion = 1
)

// Seq is the place of an event among those of one process: an auditor sees a
// gap in N. Instance is drawn when the process starts.
type Seq struct {
	Instance [8]byte `cbor:"1,keyasint"`
	N        uint64  `cbor:"2,keyasint"`
}

// Event is what an agent signs: one thing it used, asks for or reports. Encoded
// it is a canonical CBOR map with these integer keys; the encoded bytes, not the
// struct, are what is signed, stored and hashed.
type Event struct {
	V          uint64          `cbor:"1,keyasint"`  // 1
	LedgerID   Digest          `cbor:"2,keyasint"`  // hash of the ledger's genesis leaf
	Tenant     ID              `cbor:"3,keyasint"`  //
	ID         [16]byte        `cbor:"4,keyasint"`  // idempotency key, drawn by the client
	Kind       string          `cbor:"5,keyasint"`  // [a-z][a-z0-9_.]{0,63}
	Agent      ID              `cbor:"6,keyasint"`  // who signs
	Link       LinkID          `cbor:"7,keyasint"`  // the one chain it acts under; zero = for itself
	Seq        Seq             `cbor:"8,keyasint"`  //
	Account    ID              `cbor:"9,keyasint"`  // zero = none
	ClientTime int64           `cbor:"10,keyasint"` // Unix ns by the client's clock; decides nothing
	Nonce      [16]byte        `cbor:"11,keyasint"` // random, so that the digest hides the payload
	Body       cbor.RawMessage `cbor:"12,keyasint"` // canonical CBOR map; what Apply reads
	Addenda    []Digest        `cbor:"13,keyasint,omitempty"`
}

// InvalidError is the refusal of an object that breaks its format.
type InvalidError struct {
	Object string // "event", "envelope", "batch proof", "addenda"
	Field  string // empty when it is about the whole
	Err    error
}

// Error says which field of which object is wrong.
func (e *InvalidError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("invalid %s: %v", e.Object, e.Err)
	}
	return fmt.Sprintf("invalid %s: %s: %v", e.Object, e.Field, e.Err)
}

// Unwrap returns the reason.
func (e *InvalidError) Unwrap() error { return e.Err }

// Reasons inside an InvalidError; malformed encodings carry a *canon.Error
// instead.
var (
	ErrVersion  = errors.New("unknown version")
	ErrTooLarge = errors.New("larger than allowed")
	ErrTooMany  = errors.New("more than allowed")
	ErrEmpty    = errors.New("empty")
	ErrSyntax   = errors.New("not of the required form")
	ErrForeign  = errors.New("of another tenant or ledger than its batch")
	ErrBadPath  = errors.New("inclusion path does not lead to the root")
	ErrAddendum = errors.New("data is not what the event commits to")
)

func badEvent(field string, err error) error {
	return &InvalidError{Object: "event", Field: field, Err: err}
}

// bodyLimits counts the body map itself as the first level.
var bodyLimits = canon.Limits{Depth: 1 + MaxBodyDepth, Pairs: MaxProperties}

// check holds a decoded event against everything but the encoding of its body.
func (e *Event) check() error {
	if e.V != eventVersion {
		return badEvent("version", ErrVersion)
	}
	if !validKind(e.Kind) {
		return badEvent("kind", ErrSyntax)
	}
	if len(e.Addenda) > MaxAddenda {
		return badEvent("addenda", ErrTooMany)
	}
	return nil
}

func validKind[T string | []byte](s T) bool {
	if len(s) == 0 || len(s) > MaxKindBytes || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := 1; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

func checkBody(b []byte) error {
	if err := canon.CheckLimits(b, bodyLimits); err != nil {
		return badEvent("body", err)
	}
	if b[0]>>5 != 5 {
		return badEvent("body", &canon.Error{Code: canon.WrongType, Offset: 0})
	}
	return nil
}

// Encode returns the canonical encoding of e, which DecodeEvent accepts. It
// refuses an event that DecodeEvent would refuse.
func (e *Event) Encode() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	if err := checkBody(e.Body); err != nil {
		return nil, err
	}
	b := e.append(make([]byte, 0, 256+len(e.Body)+34*len(e.Addenda)))
	if len(b) > MaxPayloadBytes {
		return nil, badEvent("", ErrTooLarge)
	}
	return b, nil
}

func (e *Event) append(b []byte) []byte {
	n := 12
	if len(e.Addenda) > 0 {
		n++
	}
	b = canon.AppendMap(b, n)
	b = canon.AppendUint(append(b, 1), e.V)
	b = canon.AppendBytes(append(b, 2), e.LedgerID[:])
	b = canon.AppendBytes(append(b, 3), e.Tenant[:])
	b = canon.AppendBytes(append(b, 4), e.ID[:])
	b = canon.AppendText(append(b, 5), e.Kind)
	b = canon.AppendBytes(append(b, 6), e.Agent[:])
	b = canon.AppendBytes(append(b, 7), e.Link[:])
	b = canon.AppendMap(append(b, 8), 2)
	b = canon.AppendBytes(append(b, 1), e.Seq.Instance[:])
	b = canon.AppendUint(append(b, 2), e.Seq.N)
	b = canon.AppendBytes(append(b, 9), e.Account[:])
	b = canon.AppendInt(append(b, 10), e.ClientTime)
	b = canon.AppendBytes(append(b, 11), e.Nonce[:])
	b = append(append(b, 12), e.Body...)
	if len(e.Addenda) > 0 {
		b = canon.AppendArray(append(b, 13), len(e.Addenda))
		for i := range e.Addenda {
			b = canon.AppendBytes(b, e.Addenda[i][:])
		}
	}
	return b
}

// DecodeEvent decodes an event and checks it whole: version, limits, kind, the
// canonical form of all of it. Body aliases payload, which must not be changed
// afterwards. Errors are *InvalidError; broken encodings wrap a *canon.Error.
func DecodeEvent(payload []byte) (*Event, error) {
	e := new(Event)
	if err := decodeEvent(e, payload); err != nil {
		return nil, err
	}
	return e, nil
}

func decodeEvent(e *Event, payload []byte) error {
	if len(payload) > MaxPayloadBytes {
		return badEvent("", ErrTooLarge)
	}
	field, err := e.read(payload)
	if err != nil {
		// Reading stops at the first item it does not expect. What is wrong
		// with the encoding as such is the better answer.
		if cerr := canon.Check(payload); cerr != nil {
			return badEvent("", cerr)
		}
		return badEvent(field, err)
	}
	return e.check()
}

// read reads the fields in their one order. It returns the name of the field
// that it could not read.
func (e *Event) read(payload []byte) (field string, err error) {
	r := canon.NewReader(payload)
	pairs, err := r.Map()
	if err != nil {
		return "", err
	}
	if pairs != 12 && pairs != 13 {
		return "", fieldCount(pairs, 12, r.Offset())
	}
	if field, err = e.readIdentity(&r); err != nil {
		return field, err
	}
	if field, err = e.readContent(&r); err != nil {
		return field, err
	}
	if pairs == 13 {
		if err := e.readAddenda(&r); err != nil {
			return "addenda", err
		}
	}
	return "", r.End()
}

func (e *Event) readIdentity(r *canon.Reader) (field string, err error) {
	if err = key(r, 1); err == nil {
		e.V, err = r.Uint()
	}
	if err != nil {
		return "version", err
	}
	if err = fixed(r, 2, e.LedgerID[:]); err != nil {
		return "ledger id", err
	}
	if err = fixed(r, 3, e.Tenant[:]); err != nil {
		return "tenant", err
	}
	if err = fixed(r, 4, e.ID[:]); err != nil {
		return "id", err
	}
	var kind []byte
	if err = key(r, 5); err == nil {
		kind, err = r.Text()
	}
	if err != nil {
		return "kind", err
	}
	if !validKind(kind) { // before it becomes a string
		return "kind", ErrSyntax
	}
	e.Kind = string(kind)
	if err = fixed(r, 6, e.Agent[:]); err != nil {
		return "agent", err
	}
	return "link", fixed(r, 7, e.Link[:])
}

func (e *Event) readContent(r *canon.Reader) (field string, err error) {
	if err = key(r, 8); err == nil {
		err = e.readSeq(r)
	}
	if err != nil {
		return "seq", err
	}
	if err = fixed(r, 9, e.Account[:]); err != nil {
		return "account", err
	}
	if err = key(r, 10); err == nil {
		e.ClientTime, err = r.Int()
	}
	if err != nil {
		return "client time", err
	}
	if err = fixed(r, 11, e.Nonce[:]); err != nil {
		return "nonce", err
	}
	if err = key(r, 12); err != nil {
		return "body", err
	}
	at := r.Offset()
	body, err := r.Item(bodyLimits)
	if err == nil && body[0]>>5 != 5 {
		err = &canon.Error{Code: canon.WrongType, Offset: at}
	}
	e.Body = body
	return "body", err
}

func (e *Event) readSeq(r *canon.Reader) error {
	n, err := r.Map()
	if err != nil {
		return err
	}
	if n != 2 {
		return fieldCount(n, 2, r.Offset())
	}
	if err := fixed(r, 1, e.Seq.Instance[:]); err != nil {
		return err
	}
	if err := key(r, 2); err != nil {
		return err
	}
	e.Seq.N, err = r.Uint()
	return err
}

func (e *Event) readAddenda(r *canon.Reader) error {
	if at := r.Offset(); !r.Peek(13) { // the thirteenth field can be no other
		return &canon.Error{Code: canon.UnknownField, Offset: at}
	}
	n, err := r.Array()
	if err != nil {
		return err
	}
	if n == 0 { // absence is the one spelling of none
		return &canon.Error{Code: canon.NotCanonical, Offset: r.Offset()}
	}
	if n > MaxAddenda {
		return ErrTooMany
	}
	e.Addenda = make([]Digest, n)
	for i := range e.Addenda {
		if err := r.Fixed(e.Addenda[i][:]); err != nil {
			return err
		}
	}
	return nil
}

// key reads the map key k, which must come next.
func key(r *canon.Reader, k byte) error {
	if r.Peek(k) {
		return nil
	}
	at := r.Offset()
	got, err := r.Uint()
	switch {
	case err != nil || got > uint64(k): // text keys, too, sort behind integers
		return &canon.Error{Code: canon.MissingField, Offset: at}
	default:
		return &canon.Error{Code: canon.UnknownField, Offset: at}
	}
}

// fixed reads the map key k and a byte string of exactly len(dst) bytes.
func fixed(r *canon.Reader, k byte, dst []byte) error {
	if err := key(r, k); err != nil {
		return err
	}
	return r.Fixed(dst)
}

func fieldCount(got, want, at int) error {
	code := canon.UnknownField
	if got < want {
		code = canon.MissingField
	}
	return &canon.Error{Code: code, Offset: at}
}
