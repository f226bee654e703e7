package kind

import "fmt"

// The kinds of events that the sandbox decides.
const (
	Claim  = "sandbox.claim"       // an agent asks for a run: ClaimBody
	Node   = "sandbox.node"        // a node says what it can run: NodeBody
	Report = "attestation.sandbox" // a node says what came of a claim: ReportBody
	Usage  = "sandbox.usage"       // a node says what a run used: UsageBody
)

// The kinds of system leaves that the sandbox brings about.
const (
	Allocated = "system.sandbox.allocated" // a waiting claim got a node: Claimed
	Expired   = "system.sandbox.expired"   // a claim ended without a report: Expiry
	NodeLost  = "system.sandbox.node_lost" // a node did not renew its registration: NodeLoss
)

// The meters of a run.
const (
	MeterCPU    = "sandbox_cpu_ns"            // CPU time of all its processes
	MeterMemory = "sandbox_memory_peak_bytes" // the most memory it had at one time
	MeterWall   = "sandbox_wall_ns"           // time from its start to its end
)

// Where the numbers of a run were measured.
const (
	FromCgroup1 = "cgroup1" // counters of control groups, version 1
	FromCgroup2 = "cgroup2" // counters of control groups, version 2
	FromWait4   = "wait4"   // resource usage of the waited-for processes: memory is the largest single process
)

// Class is how strongly a sandbox isolates. Classes are ordered by strength; zero is none.
type Class uint8

// The classes.
const (
	Process         Class = 1 // namespaces around a process of the host's kernel, set up without privilege
	Container       Class = 2 // an OCI container on the host's kernel
	UserspaceKernel Class = 3 // a kernel of its own in user space
	VM              Class = 4 // a virtual machine
	Confidential    Class = 5 // a virtual machine whose memory the host cannot read
)

var classNames = [...]string{Process: "process", Container: "container", UserspaceKernel: "userspace-kernel", VM: "vm", Confidential: "confidential"}

// Valid reports whether c is one of the classes.
func (c Class) Valid() bool { return c >= Process && c <= Confidential }

// String returns the name of the class.
func (c Class) String() string {
	if c.Valid() {
		return classNames[c]
	}
	return fmt.Sprintf("class_%d", uint8(c))
}

// ParseClass returns the class of that name.
func ParseClass(name string) (Class, error) {
	for c := Process; c <= Confidential; c++ {
		if classNames[c] == name {
			return c, nil
		}
	}
	return 0, invalid("class", fmt.Sprintf("%q is not one of process, container, userspace-kernel, vm, confidential", clip(name)))
}

// Status is how a run ended.
type Status uint8

// The statuses of a report.
const (
	Finished Status = 1 // the command ended by itself; the exit code is its own
	Killed   Status = 2 // the sandbox was ended at one of its limits; Reason says which
	Failed   Status = 3 // the command did not run, or nobody knows how it ended; Reason says why
)

var statusNames = [...]string{Finished: "finished", Killed: "killed", Failed: "failed"}

// Valid reports whether s is one of the statuses.
func (s Status) Valid() bool { return s >= Finished && s <= Failed }

// String returns the name of the status.
func (s Status) String() string {
	if s.Valid() {
		return statusNames[s]
	}
	return fmt.Sprintf("status_%d", uint8(s))
}

func parseStatus(name string) (Status, bool) {
	for s := Finished; s <= Failed; s++ {
		if statusNames[s] == name {
			return s, true
		}
	}
	return 0, false
}

// InvalidError says which field of a body or statement breaks its rules.
type InvalidError struct {
	Field  string
	Reason string
}

// Error names the field.
func (e *InvalidError) Error() string { return e.Field + " " + e.Reason }

func invalid(field, reason string) error { return &InvalidError{Field: field, Reason: reason} }

func clip(s string) string {
	if len(s) > 64 {
		return s[:64]
	}
	return s
}
