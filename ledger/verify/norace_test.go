//go:build !race

package verify_test

// flipStride is the distance of the bytes that the flip tests flip.
const flipStride = 1
