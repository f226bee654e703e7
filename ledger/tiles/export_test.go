package tiles

import "fmt"

// ValidPath says whether a path below a log's prefix names something.
func ValidPath(p string) bool {
	_, ok := parsePath(p)
	return ok
}

// Respell writes the path of what p names.
func Respell(p string) (string, bool) {
	r, ok := parsePath(p)
	if !ok || r.checkpoint {
		return "checkpoint", ok
	}
	n := fmt.Sprintf("%03d", r.index%1000)
	for i := r.index / 1000; i > 0; i /= 1000 {
		n = fmt.Sprintf("x%03d/%s", i%1000, n)
	}
	if r.width != tileWidth {
		n += fmt.Sprintf(".p/%d", r.width)
	}
	if r.entries {
		return "tile/entries/" + n, true
	}
	return fmt.Sprintf("tile/%d/%s", r.level, n), true
}
