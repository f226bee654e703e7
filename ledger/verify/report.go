package verify

import (
	"fmt"
	"time"

	"github.com/creto-systems/creto/nhi"
)

// FileKind is the kind of a file that VerifyAny knows.
type FileKind string

// The kinds of files.
const (
	KindEvent        FileKind = "event"        // one leaf, its event and its way to the spine
	KindReceipt      FileKind = "receipt"      // a node's signed promise
	KindCompleteness FileKind = "completeness" // every leaf of a tenant in a period
	KindConsistency  FileKind = "consistency"  // two checkpoints of one log, the later of which extends the earlier
	KindCheckpoint   FileKind = "checkpoint"   // a checkpoint note
	KindTLogProof    FileKind = "tlog-proof"   // a c2sp.org/tlog-proof@v1, checked against a leaf given beside it
	KindUnknown      FileKind = "unknown"
)

// Exit codes of `creto verify`; 0 means that everything in the report held.
const (
	ExitSignature    = 10 // payload, signature or identity of the event does not match the leaf
	ExitInclusion    = 11 // an inclusion proof, or the count of a completeness file, does not hold
	ExitConsistency  = 12 // two heads of one log contradict one another
	ExitUntrusted    = 13 // unknown key, too few cosignatures, another ledger
	ExitMalformed    = 14 // the file cannot be read, or was changed after it was written
	asOfUnknown      = "unknown"
	reportTimeLayout = time.RFC3339Nano
)

// FailureClass says what a failure means for the person who sees it.
type FailureClass string

// The classes of failures.
const (
	ClassDamaged   FailureClass = "damaged"             // the file is not what was written; fetch it again
	ClassMalformed FailureClass = "malformed"           // not a file of a kind and version that this program knows
	ClassTrust     FailureClass = "trust-out-of-date"   // the trust file does not know the keys, or they were too few
	ClassTampering FailureClass = "tampering"           // an intact file whose proof does not hold: evidence
	ClassMismatch  FailureClass = "not-what-was-asked"  // a good proof of something else
	ClassStopped   FailureClass = "stopped-by-receiver" // the caller's visit function returned an error
)

// Failure is the error of every verification: the first step that did not hold.
type Failure struct {
	Step     string       `json:"step"`
	Class    FailureClass `json:"class"`
	ExitCode int          `json:"exit_code"`
	Detail   string       `json:"detail"`
	Advice   string       `json:"hint"`
	Err      error        `json:"-"`
}

// Error names the step, the class and the cause.
func (f *Failure) Error() string {
	return fmt.Sprintf("verify: step %q: %s (%s)", f.Step, f.Detail, f.Class)
}

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// Hint says what to do next.
func (f *Failure) Hint() string { return f.Advice }

// hints has a sentence for each class.
var hints = map[FailureClass]string{
	ClassDamaged: "the file was changed after it was written (in transfer, on disk or by hand): fetch it again and verify the fresh copy; " +
		"if that fails too, keep both and ask the operator",
	ClassMalformed: "this is no file of a kind and version that this program reads: check that it is complete and try the newest release",
	ClassTrust: "get the newest trust file over a channel you trust and compare its twelve words with the operator's by telephone; " +
		"if it still fails, the checkpoint was not endorsed by the parties you rely on",
	ClassTampering: "the file is intact and its proof does not hold: keep the file, your trust file and this report as evidence, " +
		"fetch the proof again through another node, and tell the auditor and the operator's witnesses",
	ClassMismatch: "the proof is about another tenant, entry or period than you asked for: check what you asked",
	ClassStopped:  "the program that reads the leaves stopped; nothing was proved",
}

// Step is one thing that was checked.
type Step struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Skipped bool   `json:"skipped,omitempty"` // nothing to check; Detail says why
	Detail  string `json:"detail"`
}

// KeyUse is one public key on which the result rests.
type KeyUse struct {
	Role string `json:"role"`           // "agent", "log", "cosigner", "node"
	Name string `json:"name"`           // empty for an agent whose event is not in the file
	ID   string `json:"id"`             // hex: key ID of a composite key, four-byte note key ID otherwise
	Time string `json:"time,omitempty"` // when it signed, if the signature says so
}

// Report says what was proved, as of when, under whose keys, and what was not. Its JSON form is a contract; integers that
// can exceed 2^53 are strings.
type Report struct {
	Kind      FileKind `json:"kind"`
	OK        bool     `json:"ok"`
	Steps     []Step   `json:"steps"`
	Statement []string `json:"statement"`  // what holds, in sentences; empty unless OK
	NotProved []string `json:"not_proved"` // what nobody should read into it
	AsOf      string   `json:"as_of"`      // RFC 3339: consensus time of the head on which the proof rests
	Epoch     uint64   `json:"epoch,string"`
	Test      bool     `json:"test,omitempty"` // a test ledger, whose clock can be moved
	Subject   *Subject `json:"subject,omitempty"`
	Period    *Period  `json:"period,omitempty"`
	Keys      []KeyUse `json:"keys"`
	Failure   *Failure `json:"failure,omitempty"`
}

// Subject is the leaf that a report is about.
type Subject struct {
	LedgerID  string            `json:"ledger_id"`
	Tenant    string            `json:"tenant"`
	Cell      uint64            `json:"cell,string"`
	Slot      uint32            `json:"slot"`
	Index     uint64            `json:"index,string"`
	Time      string            `json:"time"`
	Kind      string            `json:"kind,omitempty"`
	Agent     string            `json:"agent,omitempty"`
	Account   string            `json:"account,omitempty"`
	Chain     []string          `json:"chain,omitempty"` // root first, where the file holds the links
	Outcome   string            `json:"outcome"`
	Assurance string            `json:"assurance,omitempty"`
	Quality   string            `json:"time_quality,omitempty"`
	Payload   string            `json:"payload"` // "present", "absent" or "none"
	LeafHash  string            `json:"leaf_hash"`
	Amounts   map[string]string `json:"quantities,omitempty"`
}

// Period is what a completeness file adds up to.
type Period struct {
	From      string            `json:"from"`
	To        string            `json:"to"`
	FirstLeaf uint64            `json:"first_leaf,string"` // a: leaves [a, b) were read
	EndLeaf   uint64            `json:"end_leaf,string"`
	Leaves    uint64            `json:"leaves,string"` // within the period
	Outcomes  map[string]uint64 `json:"outcomes"`
	Kinds     map[string]uint64 `json:"kinds"`
	Totals    map[string]string `json:"totals"`            // meter → sum of accepted leaves, reversals subtracted
	Payloads  uint64            `json:"payloads,string"`   // events that were in the file and matched their leaves
	Partial   bool              `json:"partial,omitempty"` // more than 1,024 meters or kinds: totals leave some out
	FirstTime string            `json:"first_time,omitempty"`
	LastTime  string            `json:"last_time,omitempty"`
}

// Options are what a verification needs to know beside file and trust.
type Options struct {
	Now    time.Time     // the verifier's time, for MaxAge; zero when there is none
	MaxAge time.Duration // refuse a proof whose head is older at Now; 0 = any age
	Expect Expect
	Leaf   []byte                                             // the entry that a bare tlog-proof is about
	Visit  func(leaf *Leaf, raw []byte, payload []byte) error // see VerifyCompleteness
	// Content looks into the event of an event proof, whose signature by the key holds, for what this package does not know:
	// statements of others that it carries. It returns what it has checked, in a sentence, or "" for an event without such.
	Content func(e *nhi.Event, key *nhi.PublicKey) (checked string, err error)
}

// Expect names what the caller asked for; a proof of something else is a failure of class ClassMismatch.
type Expect struct {
	Tenant *nhi.ID
	Index  *uint64
	Cell   *uint64
	From   *time.Time // of a completeness file
	To     *time.Time
}

// run collects the steps of one verification.
type run struct {
	rep     *Report
	trust   *Trust
	opt     Options
	damaged bool // the file's own checksum does not match
}

func newRun(kind FileKind, t *Trust, o Options) *run {
	return &run{rep: &Report{Kind: kind, AsOf: asOfUnknown, Steps: []Step{}, Statement: []string{}, NotProved: []string{}, Keys: []KeyUse{}}, trust: t, opt: o}
}

func (r *run) ok(step, format string, args ...any) {
	r.rep.Steps = append(r.rep.Steps, Step{Name: step, OK: true, Detail: fmt.Sprintf(format, args...)})
}

func (r *run) skip(step, format string, args ...any) {
	r.rep.Steps = append(r.rep.Steps, Step{Name: step, OK: true, Skipped: true, Detail: fmt.Sprintf(format, args...)})
}

// fail ends the verification. A file that fails its own checksum is damaged, whatever step shows it.
func (r *run) fail(step string, class FailureClass, code int, err error) error {
	if r.damaged && (class == ClassTampering || class == ClassTrust) {
		class = ClassDamaged
	}
	f := &Failure{Step: step, Class: class, ExitCode: code, Detail: err.Error(), Advice: hints[class], Err: err}
	r.rep.Steps = append(r.rep.Steps, Step{Name: step, Detail: f.Detail})
	r.rep.Failure = f
	return f
}

func (r *run) proves(format string, args ...any) {
	r.rep.Statement = append(r.rep.Statement, fmt.Sprintf(format, args...))
}

func (r *run) doesNotProve(sentences ...string) {
	r.rep.NotProved = append(r.rep.NotProved, sentences...)
}

// finish ends a verification in which every step held.
func (r *run) finish() *Report {
	r.rep.OK = true
	return r.rep
}

// failed drops the statements of a run that ended in an error: nothing was proved.
func (r *run) failed(err error) (*Report, error) {
	r.rep.OK = false
	r.rep.Statement = []string{}
	return r.rep, err
}

// logOf names a log for people: that of a tenant, or, without one, the system log.
func logOf(tenant nhi.ID) string {
	if tenant.IsZero() {
		return "the system log"
	}
	return "tenant " + tenant.String()
}

// counted is a number of things: "1 leaf", "2 leaves".
func counted(n uint64, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

func formatTime(ns int64) string { return time.Unix(0, ns).UTC().Format(reportTimeLayout) }
