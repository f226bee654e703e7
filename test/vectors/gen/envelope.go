package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// envelopeFile holds encoded events, what is hashed and signed over them, and
// the proof of one event of a batch.
type envelopeFile struct {
	About    string      `json:"about"`
	Key      string      `json:"key"` // of composite.json
	Payloads []hexBytes  `json:"payloads"`
	Digests  []hexBytes  `json:"payload_digests"`
	PAE      hexBytes    `json:"pae_of_payload_0"`
	Alone    hexBytes    `json:"envelope_of_payload_0"`
	Batch    batchVector `json:"batch"`
	Addendum struct {
		Salt   hexBytes `json:"salt"`
		Data   hexBytes `json:"data"`
		Digest hexBytes `json:"digest"`
	} `json:"addendum"`
}

type batchVector struct {
	Root      hexBytes   `json:"root"`
	Statement hexBytes   `json:"statement"`
	Envelope  hexBytes   `json:"envelope"`
	K         int        `json:"proof_of"`
	Path      []hexBytes `json:"path"`
	Proof     hexBytes   `json:"proof"`
}

// The CBOR here is put together by hand, header by header.

func head(major byte, n uint64) []byte {
	m := major << 5
	switch {
	case n < 24:
		return []byte{m | byte(n)}
	case n < 1<<8:
		return []byte{m | 24, byte(n)}
	case n < 1<<16:
		return binary.BigEndian.AppendUint16([]byte{m | 25}, uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32([]byte{m | 26}, uint32(n))
	}
	return binary.BigEndian.AppendUint64([]byte{m | 27}, n)
}

func uintItem(n uint64) []byte { return head(0, n) }
func bstr(b []byte) []byte     { return append(head(2, uint64(len(b))), b...) }
func tstr(s string) []byte     { return append(head(3, uint64(len(s))), s...) }
func arr(items ...[]byte) []byte {
	return append(head(4, uint64(len(items))), bytes.Join(items, nil)...)
}

// obj is a map with the keys 1, 2, 3, …
func obj(values ...[]byte) []byte {
	b := head(5, uint64(len(values)))
	for i, v := range values {
		b = append(append(b, head(0, uint64(i+1))...), v...)
	}
	return b
}

func fill(n int, with byte) []byte { return bytes.Repeat([]byte{with}, n) }

func event(n uint64, addendum []byte) []byte {
	body := append(head(5, 2), bytes.Join([][]byte{
		tstr("tokens_in"), uintItem(1000 + n), tstr("tokens_out"), uintItem(n),
	}, nil)...)
	fields := [][]byte{
		uintItem(1), bstr(fill(32, 0x01)), bstr(fill(16, 0x02)),
		bstr(append(fill(15, 0x03), byte(n))), tstr("usage"), bstr(fill(16, 0x04)), bstr(fill(32, 0x05)),
		obj(bstr(fill(8, 0x06)), uintItem(n)), bstr(fill(16, 0x07)),
		uintItem(1790000000000000000 + n), bstr(append(fill(15, 0x08), byte(n))), body,
	}
	if addendum != nil {
		fields = append(fields, arr(bstr(addendum)))
	}
	return obj(fields...)
}

func pae(payload []byte) []byte {
	const payloadType = "application/vnd.creto.event.v1+cbor"
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

func leaf(b []byte) []byte {
	d := sha256.Sum256(append([]byte{0}, b...))
	return d[:]
}

func node(l, r []byte) []byte {
	d := sha256.Sum256(bytes.Join([][]byte{{1}, l, r}, nil))
	return d[:]
}

func envelopeCases(k key) (*envelopeFile, error) {
	f := &envelopeFile{
		About: "Five events signed alone (the first) and as a batch, with the proof that the fifth is in the batch. Its path is one node: five leaves are a full tree of four and one beside it.",
		Key:   "a",
	}
	salt, data := fill(16, 0x09), []byte("Ada Example")
	digest := sha256.Sum256(bytes.Join([][]byte{[]byte("creto/addendum/v1\x00"), salt, data}, nil))
	f.Addendum.Salt, f.Addendum.Data, f.Addendum.Digest = salt, data, digest[:]
	var encoded [][]byte
	for n := range uint64(5) {
		var addendum []byte
		if n == 1 {
			addendum = digest[:]
		}
		p := event(n, addendum)
		f.Payloads = append(f.Payloads, p)
		f.Digests = append(f.Digests, leaf(pae(p)))
		encoded = append(encoded, bstr(p))
	}
	f.PAE = pae(f.Payloads[0])
	id := k.id()
	sig, err := k.sign(ctxEvent, f.PAE)
	if err != nil {
		return nil, err
	}
	f.Alone = obj(arr(encoded[0]), bstr(id[:]), bstr(sig), []byte{0xf4})

	d := f.Digests
	four := node(node(d[0], d[1]), node(d[2], d[3]))
	root := node(four, d[4])
	statement := [][]byte{
		uintItem(1), bstr(fill(32, 0x01)), bstr(fill(16, 0x02)), bstr(id[:]), uintItem(5), bstr(root),
	}
	f.Batch = batchVector{
		Root: root, Statement: obj(statement...), K: 4, Path: []hexBytes{four},
		Proof: obj(append(statement, uintItem(4), arr(bstr(four)))...),
	}
	if sig, err = k.sign(ctxBatch, f.Batch.Statement); err != nil {
		return nil, err
	}
	f.Batch.Envelope = obj(arr(encoded...), bstr(id[:]), bstr(sig), []byte{0xf5})
	return f, nil
}
