// Package creto is the Go client of a Creto cluster: it signs events, submits them until they are acknowledged, and keeps and
// checks what the cluster promised.
//
// The two calls you need are Dial, which connects to a cluster, and Connect, which makes the Agent that acts under one
// delegation chain:
//
//	client, err := creto.Dial(ctx, creto.Options{Addrs: addrs, CA: "ca.pem", Token: token})
//	agent, err := creto.Connect(ctx, creto.AgentConfig{Client: client, Signer: key, ID: id, Link: link, Tenant: tenant, Account: account})
//	result, err := agent.Usage(ctx, creto.Quantity{Meter: "tokens", N: 1200})
//
// Invariants:
//   - An event is serialised and signed once. Every retry sends the same bytes, so that it cannot take effect twice.
//   - Only what may succeed later is retried: no leader, a node that is gone, push-back, authority that changed meanwhile. What
//     the ledger decided is final and comes back as a *RefusedError.
//   - A receipt is not believed: ReceiptStore keeps it, CheckReceipts holds it against a proof under the trust file, and a
//     difference is a *EvidenceError.
//   - Nothing here reads a clock or draws randomness but through AgentConfig.
//
// It does not hold policies, decide quotas or verify for others: ledger/verify does the checking, and the cluster the deciding.
// It links neither Raft nor a store.
package creto
