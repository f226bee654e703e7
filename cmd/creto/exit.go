package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/creto-systems/creto/consensus"
	"github.com/creto-systems/creto/ledger/verify"
	oversight "github.com/creto-systems/creto/oversight/kind"
	creto "github.com/creto-systems/creto/sdk/go"
)

// Exit codes. Scripts rely on them: a number keeps its meaning.
const (
	exitOK          = 0
	exitLocal       = 1
	exitRefused     = 2
	exitNotFound    = 3
	exitQuota       = 4
	exitApproval    = 5
	exitUnavailable = 6
	exitSignature   = verify.ExitSignature
	exitInclusion   = verify.ExitInclusion
	exitConsistency = verify.ExitConsistency
	exitUntrusted   = verify.ExitUntrusted
	exitMalformed   = verify.ExitMalformed
)

// exitCodes is the one table of exit codes; docs/exit-codes.md is written from it.
var exitCodes = []struct {
	code    int
	name    string
	meaning string
	next    string
}{
	{exitOK, "ok", "It worked.", ""},
	{exitLocal, "local", "The command line, the configuration or a local file is wrong; nothing was sent.", "Correct it; `--help` shows examples."},
	{exitRefused, "refused", "The server or the ledger refused, for a reason that stays.", "Read the reason; the same request will be refused again."},
	{exitNotFound, "not-found", "There is no such thing, or none that the caller may see.", "Check the id, and that token or certificate belong to this tenant."},
	{exitQuota, "quota", "A quota has too little left; the message names the level.", "Wait for the period to end, ask for less, or raise the limit."},
	{exitApproval, "approval", "An approval was denied, has expired, was cancelled or is already used.", "Ask again with a new request."},
	{exitUnavailable, "unavailable", "No leader, no connection, or the cluster pushes back.", "Try again; an event with the same id cannot take effect twice."},
	{exitSignature, "signature", "A signature, the payload or the identity in a proof does not hold.", "Keep the file: if it is undamaged, it is evidence."},
	{exitInclusion, "inclusion", "An inclusion proof, or the count of a completeness file, does not hold.", "Keep the file: if it is undamaged, it is evidence."},
	{exitConsistency, "consistency", "Two heads of one log contradict one another (a split view), or a receipt contradicts the log.", "Keep both files and stop relying on the cluster."},
	{exitUntrusted, "untrusted", "The trust file does not know the keys, or too few of them have signed.", "Get the current trust file over a channel you trust, and compare its twelve words."},
	{exitMalformed, "malformed", "A file cannot be read, or was changed after it was written.", "Fetch it again."},
}

// exitSummary is the table in one line, for help.
func exitSummary() string {
	var parts []string
	for _, e := range exitCodes {
		parts = append(parts, fmt.Sprintf("%d %s", e.code, e.name))
	}
	return strings.Join(parts, ", ") + "."
}

// exitTable is the table as docs/exit-codes.md has it.
func exitTable() string {
	var b strings.Builder
	b.WriteString("# Exit codes of `creto`\n\nWritten from the table in `cmd/creto/exit.go`; a test keeps the two equal.\n\n")
	b.WriteString("| code | name | meaning | what next |\n|---|---|---|---|\n")
	for _, e := range exitCodes {
		fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", e.code, e.name, e.meaning, e.next)
	}
	b.WriteString("\n`creto server` also ends with these, for its supervisor:\n\n| code | meaning | restart |\n|---|---|---|\n")
	fmt.Fprintf(&b, "| %d | The disk of the log or its metadata failed, or did not answer. | yes, on a healthy disk |\n", consensus.ExitStorage)
	fmt.Fprintf(&b, "| %d | The state machine returned an error: the log holds the evidence. | yes |\n", consensus.ExitStateMachine)
	fmt.Fprintf(&b, "| %d | The node is no longer a member of the cluster. | no |\n", consensus.ExitRemoved)
	b.WriteString("\nOutcomes of events (docs/formats.md) end a command like this; for the `approval` commands, expired and closed are 5:\n\n| outcome | code |\n|---|---|\n")
	for c := verify.OutcomeCode(0); !strings.HasPrefix(c.String(), "outcome-"); c++ {
		fmt.Fprintf(&b, "| %s | %d |\n", c, exitOfOutcome(c))
	}
	return b.String()
}

// failure is an error with the code it ends the program with.
type failure struct {
	code   int
	err    error
	hints  []string
	usage  bool // the command line itself is wrong
	silent bool // everything has been said
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func usageError(err error, hints ...string) error {
	return &failure{code: exitLocal, err: err, hints: hints, usage: true}
}

func localError(err error, hints ...string) error {
	return &failure{code: exitLocal, err: err, hints: hints}
}

// text is the message without what only programs read.
func (f *failure) text() string {
	s := f.err.Error()
	var st interface{ GRPCStatus() *status.Status }
	if errors.As(f.err, &st) {
		if e, ok := st.(error); ok {
			s = strings.ReplaceAll(s, e.Error(), st.GRPCStatus().Message())
		}
	}
	return strings.TrimSpace(plainTransport(s))
}

// plainTransport takes gRPC's wrapping off the reason why there is no connection.
func plainTransport(s string) string {
	before, rest, ok := strings.Cut(s, `connection error: desc = "transport: `)
	end := strings.LastIndex(rest, `"`)
	if !ok || end < 0 {
		return s
	}
	cause, _, _ := strings.Cut(strings.TrimPrefix(rest[:end], "Error while dialing: "), ". If you upgraded")
	return before + "no connection: " + strings.ReplaceAll(cause, `\"`, `"`) + rest[end+1:]
}

// exitOfOutcome is the one table from outcomes to exit codes.
func exitOfOutcome(c verify.OutcomeCode) int {
	switch c {
	case verify.OutcomeAccepted, verify.OutcomeAcceptedFlagged:
		return exitOK
	case verify.OutcomeQuotaExhausted:
		return exitQuota
	case verify.OutcomeNotFound:
		return exitNotFound
	}
	return exitRefused
}

// exitOfCode is the one table from gRPC codes to exit codes.
func exitOfCode(c codes.Code) int {
	switch c {
	case codes.OK:
		return exitOK
	case codes.NotFound:
		return exitNotFound
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted:
		return exitUnavailable
	case codes.Canceled:
		return exitLocal
	}
	return exitRefused
}

// explain returns the code and the hints of an error.
func explain(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		hints := f.hints
		// One that wraps another says no more than where it happened.
		for in, ok := f, true; ok && len(hints) == 0; hints = in.hints {
			if in, ok = errors.AsType[*failure](in.err); !ok {
				break
			}
		}
		if h := hintOfFile(err); len(hints) == 0 && h != "" {
			hints = []string{h}
		}
		return &failure{code: f.code, err: err, hints: hints, usage: f.usage, silent: f.silent}
	}
	f := &failure{code: exitLocal, err: err}
	hint := func(h string) {
		if h != "" {
			f.hints = append(f.hints, h)
		}
	}
	if v, ok := errors.AsType[*verify.Failure](err); ok {
		f.code = v.ExitCode
		hint(v.Hint())
		return f
	}
	if e, ok := errors.AsType[*creto.EvidenceError](err); ok {
		f.code = exitConsistency
		hint(e.Hint())
		return f
	}
	if r, ok := errors.AsType[*creto.RefusedError](err); ok {
		explainRefusal(f, r)
		return f
	}
	var st interface{ GRPCStatus() *status.Status }
	if errors.As(err, &st) {
		s := st.GRPCStatus()
		f.code = exitOfCode(s.Code())
		for _, d := range s.Details() {
			if info, ok := d.(*errdetails.ErrorInfo); ok {
				hint(info.GetMetadata()["hint"])
			}
		}
		if len(f.hints) == 0 {
			hint(hintOfCode(s.Code()))
		}
		return f
	}
	switch {
	case errors.Is(err, context.Canceled):
		f.err = errors.New("interrupted")
	case errors.Is(err, context.DeadlineExceeded):
		f.code = exitUnavailable
		hint("raise --timeout, or see whether the cluster has a leader with `creto cluster status`")
	default:
		hint(hintOfFile(err))
	}
	return f
}

// interrupted reports whether a command ended because its context did, and for no other reason.
func interrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled)
}

func hintOfFile(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "check the path"
	case errors.Is(err, fs.ErrExist):
		return "nothing is ever overwritten: choose another path, or remove the file yourself"
	case errors.Is(err, fs.ErrPermission):
		return "check who owns the file, and its mode"
	}
	return ""
}

func hintOfCode(c codes.Code) string {
	switch c {
	case codes.NotFound:
		return "what the caller may not see is answered like what does not exist: check tenant, token and id"
	case codes.Unavailable, codes.DeadlineExceeded:
		return "is a node listening at --addr, and is that its gRPC port (7401 by default)? `creto dev` starts a cluster on this machine"
	case codes.Unauthenticated, codes.PermissionDenied:
		return "give the read token (--token-file, CRETO_TOKEN) or an SVID (--cert, --key)"
	}
	return ""
}

// explainRefusal says what the detail of a refused event says.
func explainRefusal(f *failure, r *creto.RefusedError) {
	f.code = exitRefused
	if r.Result.State == creto.StateStale {
		f.code = exitUnavailable
	}
	if r.Result.State == creto.StateSequenced || r.Result.State == creto.StateDuplicate {
		f.code = exitOfOutcome(r.Result.Outcome)
		if strings.HasPrefix(r.Kind, "approval.") {
			switch r.Result.Outcome {
			case verify.OutcomeExpired, verify.OutcomeClosed:
				f.code = exitApproval
			case verify.OutcomeNotFound:
				if r.Kind == oversight.Request { // what is not found is a policy that wants the action approved
					f.code = exitRefused
				}
			}
		}
	}
	details := describeDetail(r)
	f.hints = append(f.hints, details...)
	if h := r.Hint(); h != "" && len(details) == 0 {
		f.hints = append(f.hints, h)
	}
}
