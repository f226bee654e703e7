package backend

import (
	"crypto/sha256"
	"hash"
	"sync"

	"github.com/creto-systems/creto/nhi"
)

// Output keeps the beginning of what is written to it, counts and hashes all of it. It is safe for concurrent use.
type Output struct {
	mu   sync.Mutex
	kept []byte
	sum  hash.Hash
	n    uint64
}

// NewOutput returns an empty Output.
func NewOutput() *Output { return &Output{sum: sha256.New()} }

// Write never fails.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sum.Write(p)
	o.n += uint64(len(p))
	if room := MaxOutput - len(o.kept); room > 0 {
		o.kept = append(o.kept, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

// Result returns a copy of what was kept, and the digest and size of all.
func (o *Output) Result() (kept []byte, digest nhi.Digest, n uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]byte(nil), o.kept...), nhi.Digest(o.sum.Sum(nil)), o.n
}
