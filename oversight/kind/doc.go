// Package kind holds what oversight's events say: the names of their kinds, the bodies that clients sign, the action that
// an approval is bound to, and the details that answer them, all canonical CBOR with integer keys.
//
// The calls most programs need are NewAction, Action.Digest and Encode of a …Body; DecodeOpened, DecodeClaimed and
// DecodeRefusal read the answers. Oversight decides about exactly these types: Encode refuses what the matching decoder
// refuses, and oversight refuses with it as outcome invalid.
//
// Invariants:
//
//   - An action has one canonical form (JCS, RFC 8785), and its digest is SHA-256 of that form. Parameters hold nothing that
//     a policy could not see: no null, no fraction, no integer beyond 2^53−1.
//   - Everything a person is asked about (action, what was shown, policy, quorum) is under the one digest that the vote
//     signs: RequestStatement.Digest.
//   - No input makes a decoder panic or work longer than its bytes deserve.
//
// The package is pure and links no store, so that clients can use it. It decides nothing.
package kind
