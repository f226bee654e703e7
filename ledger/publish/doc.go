// Package publish carries the ledger's heads from sequenced to published: it proposes seals, signs what this node has
// applied itself, exchanges cosignatures with the other nodes and knows the newest checkpoint that the node quorum vouches
// for.
//
// The two calls most programs need are New, which opens the local store, and Run, which seals, signs and exchanges until
// its context ends. Checkpoint and WaitPublished read the published height.
//
// Invariants:
//   - Only a committed seal is signed, and only after this node has applied it and recomputed its root.
//   - Before a signature leaves, the mark (epoch, size, root) is on disk, synced: a node never signs a smaller tree, nor
//     another root for a size it has signed, whatever happens between (architecture, ledger).
//   - A cosignature of another node counts only when both its signatures (types 04 and 06) hold over the root this node has
//     computed itself. Two valid signatures of one node over two roots of one size are kept as evidence.
//   - Publishing never holds up a commit. At most MaxUnpublished seals await their quorum.
//
// It does not decide what is in the log, and it never talks to witnesses.
package publish
