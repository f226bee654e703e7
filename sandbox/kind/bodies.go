package kind

import (
	"crypto/sha256"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// Bounds of what a body says.
const (
	MaxArgs         = 64       // of a command
	MaxCommandBytes = 16 << 10 // all arguments together
	MaxTemplateName = 64
	MaxTemplates    = 32 // of one node
	MaxCapacity     = 256
	MaxReason       = 128
	MaxStatement    = 16 << 10 // DSSE envelope of a statement, JSON

	MinWall   = int64(time.Millisecond)
	MaxWall   = int64(24 * time.Hour)
	MaxTTL    = int64(25 * time.Hour) // of a claim
	MinMemory = 4 << 20
	MaxMemory = 1 << 40

	MinNodeTTL = int64(10 * time.Second)
	MaxNodeTTL = int64(24 * time.Hour)

	// MaxProcesses is how many processes and threads a run has at one time, and so how many cores it can use.
	MaxProcesses = 64
	// SlackWall is how much longer than its limit a run may have been measured: its node must see that its time is over, and
	// end it. SlackMemory is what the backend's own processes may add to its memory where they are measured with it.
	SlackWall   = int64(time.Minute)
	SlackMemory = 64 << 20

	// NoExitCode stands in a report of a command that did not end by itself.
	NoExitCode = -1
)

// Limits bound one run.
type Limits struct {
	Wall   int64  `cbor:"1,keyasint"` // ns, MinWall to MaxWall
	Memory uint64 `cbor:"2,keyasint"` // bytes, MinMemory to MaxMemory
}

// ClaimBody is the body of `sandbox.claim`: run a command in a sandbox made from a template. The event's account is where
// the run is charged.
type ClaimBody struct {
	Template string   `cbor:"1,keyasint"`
	Command  []string `cbor:"2,keyasint"` // the program's path in the template, which begins with "/", and its arguments
	Class    Class    `cbor:"3,keyasint"` // the least that is accepted
	Limits   Limits   `cbor:"4,keyasint"`
	TTL      int64    `cbor:"5,keyasint"` // ns of consensus time until the run must be reported, waiting included; at least Limits.Wall
}

// Check holds the body against its rules.
func (b *ClaimBody) Check() error {
	if err := checkTemplate(b.Template); err != nil {
		return err
	}
	if err := checkCommand(b.Command); err != nil {
		return err
	}
	switch {
	case !b.Class.Valid():
		return invalid("class", "is none of the isolation classes")
	case b.Limits.Wall < MinWall || b.Limits.Wall > MaxWall:
		return invalid("limits.wall", fmt.Sprintf("is not between %s and %s", time.Duration(MinWall), time.Duration(MaxWall)))
	case b.Limits.Memory < MinMemory || b.Limits.Memory > MaxMemory:
		return invalid("limits.memory", fmt.Sprintf("is not between %d and %d bytes", MinMemory, int64(MaxMemory)))
	case b.TTL < b.Limits.Wall || b.TTL > MaxTTL:
		return invalid("ttl", fmt.Sprintf("is not between limits.wall and %s", time.Duration(MaxTTL)))
	}
	return nil
}

func checkTemplate(name string) error {
	if len(name) == 0 || len(name) > MaxTemplateName {
		return invalid("template", fmt.Sprintf("is empty or longer than %d bytes", MaxTemplateName))
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (i == 0 || c != '-' && c != '_' && c != '.') {
			return invalid("template", "is not a name of the form [a-z0-9][a-z0-9._-]*")
		}
	}
	return nil
}

func checkCommand(args []string) error {
	if len(args) == 0 || len(args) > MaxArgs {
		return invalid("command", fmt.Sprintf("has not between 1 and %d arguments", MaxArgs))
	}
	if !strings.HasPrefix(args[0], "/") {
		return invalid("command", "does not begin with the absolute path of a program")
	}
	n := 0
	for _, a := range args {
		if strings.IndexByte(a, 0) >= 0 {
			return invalid("command", "has an argument with a zero byte")
		}
		if n += len(a); n > MaxCommandBytes {
			return invalid("command", fmt.Sprintf("is longer than %d bytes", MaxCommandBytes))
		}
	}
	return nil
}

// CommandDigest identifies a command: SHA-256("creto/command/v1\0" ‖ canonical CBOR array of the arguments).
func CommandDigest(args []string) nhi.Digest {
	b := append([]byte("creto/command/v1\x00"), canon.AppendArray(nil, len(args))...)
	for _, a := range args {
		b = canon.AppendText(b, a)
	}
	return sha256.Sum256(b)
}

// Encode returns the canonical body.
func (b *ClaimBody) Encode() ([]byte, error) { return encode("claim", b) }

// DecodeClaimBody parses and checks the body of `sandbox.claim`.
func DecodeClaimBody(body []byte) (*ClaimBody, error) { return decode[ClaimBody]("claim", body) }

// Template is a root file system that a node offers under a name.
type Template struct {
	Name   string     `cbor:"1,keyasint"`
	Rootfs nhi.Digest `cbor:"2,keyasint"` // SHA-256 of its sorted manifest
}

// NodeBody is the body of `sandbox.node`: what a node runs for this tenant, and for how long that holds unless it is said
// again. It replaces what the node said before. Signed by the node.
type NodeBody struct {
	Node      nhi.ID     `cbor:"1,keyasint"`
	Classes   []Class    `cbor:"2,keyasint"` // ascending, each once
	Templates []Template `cbor:"3,keyasint"` // ascending by name, each once
	Capacity  uint64     `cbor:"4,keyasint"` // runs at one time; 0 = the node takes no more claims
	TTL       int64      `cbor:"5,keyasint"` // ns of consensus time, MinNodeTTL to MaxNodeTTL
}

// Check holds the body against its rules.
func (b *NodeBody) Check() error {
	switch {
	case b.Node.IsZero():
		return invalid("node", "is zero")
	case len(b.Classes) == 0 || len(b.Classes) > int(Confidential):
		return invalid("classes", "are none or too many")
	case len(b.Templates) > MaxTemplates:
		return invalid("templates", fmt.Sprintf("are more than %d", MaxTemplates))
	case b.Capacity > MaxCapacity:
		return invalid("capacity", fmt.Sprintf("is more than %d", MaxCapacity))
	case b.TTL < MinNodeTTL || b.TTL > MaxNodeTTL:
		return invalid("ttl", fmt.Sprintf("is not between %s and %s", time.Duration(MinNodeTTL), time.Duration(MaxNodeTTL)))
	}
	for i, c := range b.Classes {
		if !c.Valid() || i > 0 && c <= b.Classes[i-1] {
			return invalid("classes", "are not isolation classes in ascending order")
		}
	}
	for i, t := range b.Templates {
		if err := checkTemplate(t.Name); err != nil {
			return err
		}
		if i > 0 && t.Name <= b.Templates[i-1].Name {
			return invalid("templates", "are not in ascending order")
		}
	}
	return nil
}

// Encode returns the canonical body.
func (b *NodeBody) Encode() ([]byte, error) { return encode("node", b) }

// DecodeNodeBody parses and checks the body of `sandbox.node`.
func DecodeNodeBody(body []byte) (*NodeBody, error) { return decode[NodeBody]("node", body) }

// ReportBody is the body of `attestation.sandbox`: what came of a claim, with the node's statement about it, so that the
// statement is in the log. What a run printed may be the event's one addendum.
type ReportBody struct {
	Claim           uint64     `cbor:"1,keyasint"` // leaf index
	StatementDigest nhi.Digest `cbor:"2,keyasint"` // SHA-256 of Statement
	Rootfs          nhi.Digest `cbor:"3,keyasint"` // SHA-256 of the sorted manifest; zero if nothing ran
	ExitCode        int64      `cbor:"4,keyasint"` // 128 + signal for a command that a signal ended; NoExitCode unless finished
	Output          nhi.Digest `cbor:"5,keyasint"` // SHA-256 of all the command wrote to stdout and stderr
	PolicyEpoch     uint64     `cbor:"6,keyasint"` // of the claim
	Sequence        uint64     `cbor:"7,keyasint"` // the node's report number
	Statement       []byte     `cbor:"8,keyasint"` // DSSE envelope (JSON) of the in-toto statement
	Status          Status     `cbor:"9,keyasint"`
	Reason          string     `cbor:"10,keyasint"` // printable ASCII; empty iff finished
}

// Check holds the body against its rules. The statement is only held against its digest: CheckReport and VerifyReport look
// into it.
func (b *ReportBody) Check() error {
	switch {
	case len(b.Statement) == 0 || len(b.Statement) > MaxStatement:
		return invalid("statement", fmt.Sprintf("is empty or longer than %d bytes", MaxStatement))
	case sha256.Sum256(b.Statement) != b.StatementDigest:
		return invalid("statement_digest", "is not that of the statement")
	case b.Sequence == 0:
		return invalid("sequence", "is not one of the node's report numbers, which begin at 1")
	case !b.Status.Valid():
		return invalid("status", "is none of the statuses")
	case b.Status == Finished && (b.ExitCode < 0 || b.ExitCode > 255):
		return invalid("exit_code", "is not between 0 and 255")
	case b.Status != Finished && b.ExitCode != NoExitCode:
		return invalid("exit_code", "stands in a report of a command that did not end by itself")
	case (b.Reason == "") != (b.Status == Finished):
		return invalid("reason", "is missing, or stands in a report of a command that ended by itself")
	case len(b.Reason) > MaxReason:
		return invalid("reason", fmt.Sprintf("is longer than %d bytes", MaxReason))
	}
	for i := range len(b.Reason) {
		if c := b.Reason[i]; c < ' ' || c > '~' {
			return invalid("reason", "has a character that is not printable ASCII")
		}
	}
	return nil
}

// Encode returns the canonical body.
func (b *ReportBody) Encode() ([]byte, error) { return encode("report", b) }

// DecodeReportBody parses and checks the body of `attestation.sandbox`.
func DecodeReportBody(body []byte) (*ReportBody, error) { return decode[ReportBody]("report", body) }

// UsageBody is the body of `sandbox.usage`: what the run of a claim used, from its start to its end.
type UsageBody struct {
	Claim      uint64            `cbor:"1,keyasint"` // leaf index
	Quantities map[string]uint64 `cbor:"2,keyasint"` // of the meters of a run; memory may be missing, where nothing measures it
	From       string            `cbor:"3,keyasint"` // FromCgroup1, FromCgroup2 or FromWait4
	Sequence   uint64            `cbor:"4,keyasint"` // of the report, with which it counts
}

// MaxQuantity bounds each quantity.
const MaxQuantity = 1<<63 - 1

// Check holds the body against its rules.
func (b *UsageBody) Check() error {
	n := 0
	for _, m := range [...]string{MeterCPU, MeterMemory, MeterWall} {
		q, ok := b.Quantities[m]
		if ok {
			n++
		}
		if q > MaxQuantity {
			return invalid("quantities", m+" does not fit")
		}
	}
	if n != len(b.Quantities) {
		return invalid("quantities", "are of other meters than those of a run")
	}
	for _, m := range [...]string{MeterCPU, MeterWall} {
		if _, ok := b.Quantities[m]; !ok {
			return invalid("quantities", "have no "+m)
		}
	}
	if b.From != FromCgroup1 && b.From != FromCgroup2 && b.From != FromWait4 {
		return invalid("measured_from", "is none of cgroup1, cgroup2, wait4")
	}
	return nil
}

// most returns what a node's word is taken for at the most of a run with these limits: what its sandbox enforces. CPU time
// depends on the wall time that it states.
func (b *UsageBody) most(l Limits, meter string) uint64 {
	wall := uint64(max(0, l.Wall)) + uint64(SlackWall)
	switch meter {
	case MeterWall:
		return wall
	case MeterCPU:
		return MaxProcesses * (min(wall, b.Quantities[MeterWall]) + uint64(time.Second))
	}
	return l.Memory + SlackMemory
}

// Over returns the meter of which a run with these limits cannot have used that much; "" if there is none.
func (b *UsageBody) Over(l Limits) string {
	for _, m := range [...]string{MeterWall, MeterCPU, MeterMemory} {
		if b.Quantities[m] > b.most(l, m) {
			return m
		}
	}
	return ""
}

// Clip brings quantities down to what is taken of a run with these limits, and returns the meters of which there was more:
// where no control group counts, pages of mapped files are measured, too, which no limit holds.
func (b *UsageBody) Clip(l Limits) (clipped []string) {
	for _, m := range [...]string{MeterWall, MeterCPU, MeterMemory} {
		if most := b.most(l, m); b.Quantities[m] > most {
			b.Quantities[m] = most
			clipped = append(clipped, m)
		}
	}
	return clipped
}

// Most is what a run within limits may be expected to use at most: all of its time on one core, and all of its memory.
func (l Limits) Most() []verify.Quantity {
	return []verify.Quantity{{Meter: MeterCPU, N: uint64(max(0, l.Wall))}, {Meter: MeterMemory, N: l.Memory}, {Meter: MeterWall, N: uint64(max(0, l.Wall))}}
}

// Sorted returns the quantities as a leaf holds them, ascending by meter.
func (b *UsageBody) Sorted() []verify.Quantity {
	out := make([]verify.Quantity, 0, len(b.Quantities))
	for m, n := range b.Quantities {
		out = append(out, verify.Quantity{Meter: m, N: n})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Meter < out[j].Meter })
	return out
}

// Encode returns the canonical body.
func (b *UsageBody) Encode() ([]byte, error) { return encode("usage", b) }

// DecodeUsageBody parses and checks the body of `sandbox.usage`.
func DecodeUsageBody(body []byte) (*UsageBody, error) { return decode[UsageBody]("usage", body) }

// checker is a pointer to a body.
type checker[T any] interface {
	*T
	Check() error
}

func encode[T any, P checker[T]](what string, b P) ([]byte, error) {
	if err := b.Check(); err != nil {
		return nil, fmt.Errorf("encode %s: %w", what, err)
	}
	out, err := canon.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", what, err)
	}
	return out, nil
}

func decode[T any, P checker[T]](what string, body []byte) (P, error) {
	b := P(new(T))
	if err := canon.UnmarshalMax(body, b, nhi.MaxPayloadBytes); err != nil {
		return nil, fmt.Errorf("decode %s: %w", what, err)
	}
	if err := b.Check(); err != nil {
		return nil, fmt.Errorf("decode %s: %w", what, err)
	}
	return b, nil
}
