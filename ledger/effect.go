package ledger

import "github.com/creto-systems/creto/nhi"

// effect is what a decision of the ledger's own handlers brings about besides rows of its own slot: nothing of it is open to
// other domains.
type effect struct {
	tenant   *Tenant    // a tenant that begins to exist
	token    nhi.Digest // SHA-256 of its first read token
	tokenRow []byte
}
