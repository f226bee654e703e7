// Package cluster runs real clusters for tests and benchmarks: one `creto server` process per node on loopback, started,
// killed, cut off from one another and started again.
//
// The two calls a caller needs are Start, which makes a cluster and waits until it takes writes, and Cluster.Settle followed by
// Cluster.Stop, after which test/invariants looks at what the nodes have left on disk. A Tenant signs and submits; a Load does
// so without pause from several clients, and remembers every promise it was given.
//
// With Options.Proxies every connection between nodes goes through a proxy of this process, which knows which node each
// connection comes from: links can be cut one way or both ways and healed.
//
// The package does not judge: it brings about and remembers.
package cluster
