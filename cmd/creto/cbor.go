package main

import (
	"encoding/hex"
	"fmt"

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
