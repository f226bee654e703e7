// Package spiffe gives the processes around a cluster X.509 identities and
// the TLS configurations that check them: SPIFFE IDs for nhi identities, a
// built-in certificate authority, short-lived SVIDs and their rotation.
//
// The two calls you need are [ServerTLS] and [ClientTLS] over a [Source].
// [CA.IssueSVID] makes SVIDs, [Rotator.Run] renews one before it expires,
// [Source.PeerPrincipal] says who is at the other end of a connection.
//
// What always holds:
//   - A SPIFFE ID has one spelling. Parse accepts what Format writes and
//     nothing else, so two texts never name one identity.
//   - An SVID carries exactly one URI, which is its SPIFFE ID.
//   - TLS 1.3 only, no session resumption: each connection is verified anew,
//     against the trust bundle of that moment.
//   - Without a bundle, or with an SVID that has expired, nothing connects.
//   - Who may connect is a function the caller passes; there is no default
//     that lets anybody in.
//   - The clock is a function the caller passes.
//
// An SVID says which process speaks. It carries no delegation and signs no
// event: authority comes from composite keys and chains (package nhi).
package spiffe
