// Command bench measures the figures that the design must reach, on three `creto server` processes on this machine, and prints
// them with percentiles, the targets, and what machine it was: `make bench`.
//
// Events are signed before the clock starts. The client runs on the same machine and its work is part of the figure, so it is
// kept small: requests are encoded beforehand as well, and answers are only looked at as far as their states go. -o FILE writes
// the figures as JSON. The exit code says whether every target that is expected by now was reached; the design's others are shown
// beside their figures.
package main
