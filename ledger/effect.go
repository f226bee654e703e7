package ledger

// effect is what a decision of the ledger's own handlers brings about besides rows: nothing of it is open to other domains.
type effect struct {
	tenant *Tenant // a tenant that begins to exist
}
