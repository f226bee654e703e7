package tiles

import (
	"strings"

	"github.com/creto-systems/creto/ledger/verify"
)

const (
	tileWidth = 256
	maxLevel  = 63
)

// resource is what a path below a log's prefix names.
type resource struct {
	checkpoint bool
	entries    bool   // an entry bundle; otherwise a tile of hashes
	level      int    // of a tile of hashes
	index      uint64 // of the tile within its level
	width      int    // entries or hashes: 1 to 255 in a partial tile, 256 in a full one
}

// parsePath parses "checkpoint", "tile/<L>/<N>[.p/<W>]" and "tile/entries/<N>[.p/<W>]" (c2sp.org/tlog-tiles). A resource has
// exactly one path; any other spelling of it is refused.
func parsePath(path string) (resource, bool) {
	if path == "checkpoint" {
		return resource{checkpoint: true}, true
	}
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok {
		return resource{}, false
	}
	level, rest, ok := strings.Cut(rest, "/")
	if !ok {
		return resource{}, false
	}
	r := resource{width: tileWidth}
	if level == "entries" {
		r.entries = true
	} else {
		n, ok := decimal(level, maxLevel)
		if !ok {
			return resource{}, false
		}
		r.level = int(n)
	}
	number, width, partial := strings.Cut(rest, ".p/")
	if partial {
		w, ok := decimal(width, tileWidth-1)
		if !ok || w == 0 {
			return resource{}, false
		}
		r.width = int(w)
	}
	r.index, ok = parseIndex(number)
	return r, ok
}

// decimal parses a decimal of at most limit without leading zeros.
func decimal(s string, limit uint64) (uint64, bool) {
	if len(s) == 0 || len(s) > 3 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	n := uint64(0)
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + uint64(s[i]-'0')
	}
	return n, n <= limit
}

// parseIndex parses a tile number: groups of three digits, all but the last prefixed by x, no leading group of zeros.
func parseIndex(s string) (uint64, bool) {
	groups := strings.Split(s, "/")
	if len(groups) > 6 {
		return 0, false
	}
	n := uint64(0)
	for i, g := range groups {
		if i < len(groups)-1 {
			var ok bool
			if g, ok = strings.CutPrefix(g, "x"); !ok {
				return 0, false
			}
		}
		if len(g) != 3 {
			return 0, false
		}
		for k := range 3 {
			if g[k] < '0' || g[k] > '9' {
				return 0, false
			}
			n = n*10 + uint64(g[k]-'0')
		}
		if i == 0 && len(groups) > 1 && g == "000" {
			return 0, false
		}
	}
	return n, n <= verify.MaxTreeSize/tileWidth
}
