//go:build race

package verify_test

// flipStride thins out the tests that flip every byte, which the race detector makes ten times slower.
const flipStride = 7
