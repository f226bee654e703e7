package verify

import (
	"crypto/sha256"
	_ "embed"
	"strings"
)

// words are the 2,048 English words of BIP-39, one a line: every word is known by its first four letters, which is what
// makes them fit to be read out over a telephone.
//
//go:embed words.txt
var words string

// Fingerprint returns twelve words that stand for the trust file: eleven bits each, from the front of the SHA-256 of
// Format without URLs. Two people who compare them have the same ledger, keys and quorum.
func (t *Trust) Fingerprint() string {
	list := strings.Fields(words)
	sum := sha256.Sum256(t.format(false, true))
	out := make([]string, 12)
	for i := range out {
		n := 0
		for bit := i * 11; bit < (i+1)*11; bit++ {
			n = n<<1 | int(sum[bit/8]>>(7-bit%8)&1)
		}
		out[i] = list[n]
	}
	return strings.Join(out, " ")
}
