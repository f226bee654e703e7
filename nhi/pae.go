package nhi

import (
	"crypto/sha256"
	"crypto/sha512"
	"hash"
	"strconv"
)

// PayloadType is the DSSE payload type of an encoded Event.
const PayloadType = "application/vnd.creto.event.v1+cbor"

// PAE returns the DSSE v1 pre-authentication encoding, which is what a lone
// signature covers:
// "DSSEv1" SP len(type) SP type SP len(payload) SP payload.
func PAE(payloadType string, payload []byte) []byte {
	b := make([]byte, 0, len(payloadType)+len(payload)+48)
	b = appendPAEHead(b, payloadType, len(payload))
	return append(b, payload...)
}

// appendPAEHead appends all of the PAE that comes before the payload.
func appendPAEHead(b []byte, payloadType string, size int) []byte {
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(payloadType)), 10)
	b = append(b, ' ')
	b = append(b, payloadType...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(size), 10)
	return append(b, ' ')
}

// PayloadDigest is the RFC 6962 leaf hash of the payload's PAE:
// SHA-256(0x00 ‖ PAE(PayloadType, payload)). The event's random nonce keeps it
// from giving away a payload that could be guessed.
func PayloadDigest(payload []byte) Digest {
	var d Digest
	var buf [1024]byte
	b := append(buf[:0], 0)
	b = appendPAEHead(b, PayloadType, len(payload))
	if len(payload) <= len(buf)-len(b) {
		return sha256.Sum256(append(b, payload...))
	}
	h := sha256.New()
	writeAll(h, b, payload)
	h.Sum(d[:0])
	return d
}

// paeSHA512 is the message digest that a composite signature over the PAE signs.
func paeSHA512(payload []byte) (d [sha512.Size]byte) {
	var buf [96]byte
	h := sha512.New()
	writeAll(h, appendPAEHead(buf[:0], PayloadType, len(payload)), payload)
	h.Sum(d[:0])
	return d
}

// writeAll writes to a hash, whose Write never fails.
func writeAll(h hash.Hash, parts ...[]byte) {
	for _, p := range parts {
		h.Write(p)
	}
}
