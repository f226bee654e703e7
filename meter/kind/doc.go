// Package kind holds what the meter's events say: the names of their kinds, the bodies that clients sign, and the details
// that answer them, all canonical CBOR with integer keys.
//
// The calls most programs need are Encode of a …Body, and DecodeGrant, DecodeClosed and DecodeRefusal for the answers.
// The meter decides about exactly these types. Encode refuses what the matching decoder refuses, and the meter with it as
// outcome invalid.
//
// The package is pure and links no store, so that clients can use it. It decides nothing.
package kind
