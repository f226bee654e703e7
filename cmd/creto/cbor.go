package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// decodeHex decodes exactly len(dst) bytes.
func decodeHex(dst []byte, s string) (int, error) {
	if len(s) != 2*len(dst) {
		return 0, fmt.Errorf("want %d hexadecimal digits, got %d", 2*len(dst), len(s))
	}
	return hex.Decode(dst, []byte(s))
}

// plainCBOR turns canonical CBOR into what JSON can say, in the notation that `creto event submit --body` reads: bytes are
// "hex:…", ids (16 bytes) "id:…", and integer keys numbers in quotes.
func plainCBOR(b []byte) (any, error) {
	if err := canon.Check(b); err != nil {
		return nil, err
	}
	r := canon.NewReader(b)
	return plainItem(b, &r)
}

func plainItem(b []byte, r *canon.Reader) (any, error) {
	switch b[r.Offset()] >> 5 {
	case 0:
		n, err := r.Uint()
		return count(n), err
	case 1:
		return r.Int()
	case 2:
		s, err := r.Bytes()
		if len(s) == len(nhi.ID{}) {
			return "id:" + nhi.ID(s).String(), err
		}
		return "hex:" + hex.EncodeToString(s), err
	case 3:
		s, err := r.Text()
		return string(s), err
	case 4:
		n, err := r.Array()
		if err != nil {
			return nil, err
		}
		list := make([]any, n)
		for i := range list {
			if list[i], err = plainItem(b, r); err != nil {
				return nil, err
			}
		}
		return list, nil
	case 5:
		n, err := r.Map()
		if err != nil {
			return nil, err
		}
		m := make(map[string]any, n)
		for range n {
			k, err := plainItem(b, r)
			if err != nil {
				return nil, err
			}
			key, ok := k.(string)
			if !ok {
				key = fmt.Sprint(k)
			}
			if m[key], err = plainItem(b, r); err != nil {
				return nil, err
			}
		}
		return m, nil
	}
	if b[r.Offset()] == 0xf6 { // null
		_, err := r.Item(canon.Limits{})
		return nil, err
	}
	v, err := r.Bool()
	return v, err
}

// jsonBody turns JSON (or @FILE) into canonical CBOR.
func (a *app) jsonBody(text string) ([]byte, error) {
	raw := []byte(text)
	if name, ok := strings.CutPrefix(text, "@"); ok {
		b, err := a.readText(name, nhi.MaxPayloadBytes)
		if err != nil {
			return nil, localError(fmt.Errorf("read body: %w", err))
		}
		raw = b
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, usageError(fmt.Errorf("body is not JSON: %w", err))
	}
	if _, ok := v.(map[string]any); !ok {
		return nil, usageError(errors.New("body is not a JSON object"))
	}
	out, err := appendJSON(nil, v)
	if err == nil {
		err = canon.Check(out)
	}
	if err != nil {
		return nil, usageError(fmt.Errorf("body: %w", err))
	}
	return out, nil
}

// appendJSON appends a JSON value as canonical CBOR: whole numbers, text, bytes written as "hex:…" or "id:…", true, false,
// arrays, and objects, whose keys are integers if all of them look like integers.
func appendJSON(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case bool:
		return canon.AppendBool(b, v), nil
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return canon.AppendInt(b, n), nil
		}
		n, err := strconv.ParseUint(v.String(), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s is not a whole number of 64 bits", v)
		}
		return canon.AppendUint(b, n), nil
	case string:
		if h, ok := strings.CutPrefix(v, "hex:"); ok {
			raw := make([]byte, len(h)/2)
			if _, err := decodeHex(raw, h); err != nil {
				return nil, fmt.Errorf("%q is not hexadecimal", v)
			}
			return canon.AppendBytes(b, raw), nil
		}
		if s, ok := strings.CutPrefix(v, "id:"); ok {
			id, err := nhi.ParseID(s)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", v, err)
			}
			return canon.AppendBytes(b, id[:]), nil
		}
		return canon.AppendText(b, v), nil
	case []any:
		b = canon.AppendArray(b, len(v))
		var err error
		for _, e := range v {
			if b, err = appendJSON(b, e); err != nil {
				return nil, err
			}
		}
		return b, nil
	case map[string]any:
		return appendObject(b, v)
	}
	return nil, errors.New("null has no place in a body")
}

func appendObject(b []byte, m map[string]any) ([]byte, error) {
	type pair struct{ key, value []byte }
	integers := true
	for k := range m {
		_, err := strconv.ParseInt(k, 10, 64)
		integers = integers && err == nil
	}
	pairs := make([]pair, 0, len(m))
	for k, v := range m {
		var p pair
		if integers {
			n, _ := strconv.ParseInt(k, 10, 64)
			p.key = canon.AppendInt(nil, n)
		} else {
			p.key = canon.AppendText(nil, k)
		}
		var err error
		if p.value, err = appendJSON(nil, v); err != nil {
			return nil, err
		}
		pairs = append(pairs, p)
	}
	slices.SortFunc(pairs, func(x, y pair) int { return bytes.Compare(x.key, y.key) })
	b = canon.AppendMap(b, len(pairs))
	for _, p := range pairs {
		b = append(append(b, p.key...), p.value...)
	}
	return b, nil
}
