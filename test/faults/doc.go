// Package faults puts faults into the code itself: mutate.sh breaks one rule after the other in a copy of the repository and
// shows that the test which is there to notice does. DESIGN.md lists the mutations. `make soak` runs it.
package faults
