package canon

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"

	"github.com/fxamacker/cbor/v2"
)

// MaxBytes is the most that Unmarshal reads; UnmarshalMax takes another bound.
const MaxBytes = 1 << 20

// Both modes are immutable and safe for concurrent use.
var (
	encMode = must(cbor.EncOptions{
		Sort:          cbor.SortCoreDeterministic,
		IndefLength:   cbor.IndefLengthForbidden,
		TagsMd:        cbor.TagsForbidden,
		NilContainers: cbor.NilContainerAsEmpty,
	}.EncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxNestedLevels:   MaxDepth,
		UTF8:              cbor.UTF8RejectInvalid,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		NaN:               cbor.NaNDecodeForbidden,
		Inf:               cbor.InfDecodeForbidden,
	}.DecMode())
)

func must[T any](mode T, err error) T {
	if err != nil {
		panic(err) // constant options: a build that has this wrong cannot start
	}
	return mode
}

// Marshal returns the canonical encoding of v. A nil slice or map is an empty
// one; a nil pointer is null. It refuses floats, times and whatever else Check
// would refuse to read.
func Marshal(v any) ([]byte, error) {
	b, err := encMode.Marshal(v)
	if err != nil {
		return nil, &Error{Code: Unsupported, Offset: -1, Err: err}
	}
	if err := Check(b); err != nil {
		return nil, fmt.Errorf("marshal %T: %w", v, err)
	}
	return b, nil
}

// MustMarshal is Marshal for values whose types always have an encoding:
// integers, bool, valid text, bytes and structs, slices and maps of them. It
// panics otherwise.
func MustMarshal(v any) []byte {
	b, err := Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// Unmarshal decodes b, at most MaxBytes of it, into the value v points to. It
// accepts exactly what Marshal would write for the result: beyond the canonical
// form, a missing field, a null for a number, a byte string of another length
// than its array and an omitted-when-empty field that is there but empty are
// refused. *v must be the zero value of its type; its contents after an error
// are undefined.
func Unmarshal(b []byte, v any) error { return UnmarshalMax(b, v, MaxBytes) }

// UnmarshalMax is Unmarshal for at most maxBytes.
func UnmarshalMax(b []byte, v any, maxBytes int) error {
	if len(b) > maxBytes {
		return &Error{Code: TooLarge, Offset: maxBytes}
	}
	// Check comes first: the decoder then meets only lengths that are really
	// there and nesting that is really bounded.
	if err := Check(b); err != nil {
		return err
	}
	if p := reflect.ValueOf(v); p.Kind() != reflect.Pointer || p.IsNil() {
		return &Error{Code: Unsupported, Offset: -1, Err: fmt.Errorf("cannot decode into %T", v)}
	}
	if err := decMode.Unmarshal(b, v); err != nil {
		return decodeError(err)
	}
	again, err := encMode.Marshal(v)
	if err != nil {
		return &Error{Code: Unsupported, Offset: -1, Err: err}
	}
	if !bytes.Equal(again, b) {
		at := 0
		for at < len(b) && at < len(again) && b[at] == again[at] {
			at++
		}
		return &Error{Code: NotCanonical, Offset: at}
	}
	return nil
}

func decodeError(err error) error {
	e := &Error{Code: Malformed, Offset: -1, Err: err}
	if _, ok := errors.AsType[*cbor.UnknownFieldError](err); ok {
		e.Code = UnknownField
	} else if _, ok := errors.AsType[*cbor.UnmarshalTypeError](err); ok {
		e.Code = WrongType
	} else if _, ok := errors.AsType[*cbor.DupMapKeyError](err); ok {
		e.Code = DuplicateKey
	} else if _, ok := errors.AsType[*cbor.MaxArrayElementsError](err); ok {
		e.Code = TooMany
	} else if _, ok := errors.AsType[*cbor.MaxMapPairsError](err); ok {
		e.Code = TooMany
	}
	return e
}
