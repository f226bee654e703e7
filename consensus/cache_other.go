//go:build !linux

package consensus

// dropCache does nothing: a scrub may read what the kernel remembers instead of what the disk holds.
func dropCache(string) {}
