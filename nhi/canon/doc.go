// Package canon reads and writes Creto's one canonical encoding: CBOR in core
// deterministic form (RFC 8949, 4.2.1), restricted further to integers, byte
// strings, UTF-8 text, arrays, maps, false, true and null.
//
// The two calls most code needs are [Marshal] and [Unmarshal]. Code on a hot
// path checks bytes with [Check] and reads them with a [Reader], which neither
// reflects nor allocates, and writes with the Append functions.
//
// Invariants:
//
//   - For every b that Unmarshal accepts into v, Marshal(v) is b again, so a
//     value has exactly one encoding and its hash identifies it.
//   - Whatever Marshal returns, Check accepts.
//   - Decoding costs time and memory in proportion to the bytes that are there,
//     never to a length that a header claims, and recursion ends at [MaxDepth].
//   - No input makes a function of this package panic; every refusal is an
//     [*Error] with a [Code].
//
// It does not offer tags, floats, indefinite lengths, undefined or other simple
// values: objects that are signed or hashed have no use for them, and each is a
// second spelling of something.
package canon
