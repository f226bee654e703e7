package node

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/sandbox/backend"
	"github.com/creto-systems/creto/sandbox/kind"
)

// Job is one allocated claim, as the node keeps it.
type Job struct {
	Claim       uint64     `cbor:"1,keyasint"`
	Agent       nhi.ID     `cbor:"2,keyasint"`
	Link        nhi.LinkID `cbor:"3,keyasint"`
	Account     nhi.ID     `cbor:"4,keyasint"`
	Template    string     `cbor:"5,keyasint"`
	Command     []string   `cbor:"6,keyasint"`
	Class       kind.Class `cbor:"7,keyasint"`
	PolicyEpoch uint64     `cbor:"8,keyasint"`
	Memory      uint64     `cbor:"9,keyasint"`
	Wall        int64      `cbor:"10,keyasint"` // ns
	Rootfs      nhi.Digest `cbor:"11,keyasint"` // of the template when the claim was allocated
}

// check holds the job against the rules of the claim it comes from: what a server sends is checked like anything else.
func (j *Job) check() error {
	b := kind.ClaimBody{
		Template: j.Template, Command: j.Command, Class: j.Class,
		// A run that waited long has less time than the least a claim may ask for.
		Limits: kind.Limits{Wall: max(j.Wall, kind.MinWall), Memory: j.Memory}, TTL: kind.MaxTTL,
	}
	return b.Check()
}

func decodeJob(raw []byte) (*Job, error) {
	j := new(Job)
	if err := canon.Unmarshal(raw, j); err != nil {
		return nil, fmt.Errorf("decode job: %w", err)
	}
	return j, j.check()
}

// reasonTemplate says that what was allocated is not there any more.
const reasonTemplate = "template changed since the claim was allocated"

// outcome is what came of a job.
type outcome struct {
	status  kind.Status
	reason  string
	backend backend.Backend
	rootfs  nhi.Digest
	result  *backend.Result // nil if nothing ran
}

// errTooMany ends a stream: a server sends a claim once on each, so one that is not taken must be sent again on the next.
var errTooMany = errors.New("more claims than this node can keep")

// start runs a job in a goroutine of runs as soon as there is a place, unless the node has it already.
func (a *Agent) start(ctx context.Context, runs *errgroup.Group, j *Job, fail func(error)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.taken == nil || a.taken[j.Claim] {
		return nil
	}
	// A server that behaves allocates no more than the capacity; claims that expired there may still run here.
	if len(a.taken) >= maxTaken {
		return errTooMany
	}
	a.taken[j.Claim] = true
	runs.Go(func() error {
		if err := a.run(ctx, j); err != nil {
			fail(err)
		}
		a.mu.Lock()
		delete(a.taken, j.Claim)
		a.mu.Unlock()
		return nil
	})
	return nil
}

// run runs a job to its report. A crash before Begin leaves nothing, and the claim is offered again; one after it leaves a
// begun claim, which the next start reports as failed; one after the report leaves the report, which is sent.
func (a *Agent) run(ctx context.Context, j *Job) error {
	var slot int
	select {
	case slot = <-a.slots:
		defer func() { a.slots <- slot }()
	case <-ctx.Done():
		return nil
	}
	raw, err := canon.Marshal(j)
	if err != nil {
		return fmt.Errorf("keep claim %d: %w", j.Claim, err)
	}
	for {
		fresh, err := a.spool.Begin(j.Claim, raw)
		if err == nil && !fresh || ctx.Err() != nil {
			return nil
		}
		if err == nil {
			break
		}
		if !errors.Is(err, ErrSpoolFull) {
			return fmt.Errorf("%w: %w", errSpool, err)
		}
		a.log.WarnContext(ctx, "spool is full: claim waits", "claim", j.Claim)
		select {
		case <-a.room:
			signal(a.room) // for whoever else waits
		case <-ctx.Done():
			return nil
		}
	}
	o := a.execute(ctx, j, slot)
	// What happened is kept although the agent stops.
	if err := a.report(context.WithoutCancel(ctx), j, o); err != nil {
		return fmt.Errorf("%w: %w", errSpool, err)
	}
	return nil
}

func (a *Agent) execute(ctx context.Context, j *Job, slot int) *outcome {
	o := &outcome{status: kind.Failed, backend: a.backends[j.Class]}
	t, ok := a.rootfs[j.Template]
	switch {
	case o.backend == nil:
		o.reason = "node has no backend of class " + j.Class.String()
		return o
	case !ok:
		o.reason = "node has no template of this name"
		return o
	case t.digest != j.Rootfs:
		// It was allocated to an earlier life of this node. A run in anything else would not be what was asked for.
		o.reason = reasonTemplate
		return o
	}
	log := a.log.With("claim", j.Claim, "backend", o.backend.Name())
	log.InfoContext(ctx, "run begins")
	r, err := o.backend.Run(ctx, backend.Spec{
		Name: a.runPrefix() + strconv.FormatUint(j.Claim, 10), Rootfs: t.dir, Command: j.Command,
		Wall: time.Duration(j.Wall), Memory: j.Memory, Slot: slot,
	})
	if err != nil {
		log.WarnContext(ctx, "run did not start, or left something behind", "err", err)
	}
	if r == nil {
		o.reason = ascii(err.Error())
		return o
	}
	o.rootfs, o.result, o.status, o.reason = t.digest, r, r.Status, r.Reason
	log.InfoContext(ctx, "run ended", "status", r.Status.String(), "reason", r.Reason, "exit_code", r.ExitCode, "wall", r.Wall.String())
	return o
}

// report signs what came of a job and puts it into the spool.
func (a *Agent) report(ctx context.Context, j *Job, o *outcome) error {
	err := a.spool.Report(j.Claim, func(sequence uint64) (*Report, error) { return a.sign(ctx, j, o, sequence) })
	if err == nil {
		signal(a.news)
	}
	return err
}

func (a *Agent) sign(ctx context.Context, j *Job, o *outcome, sequence uint64) (*Report, error) {
	run := &kind.Run{
		Ledger: a.cfg.Ledger, Tenant: a.cfg.Tenant, Claim: j.Claim, Agent: j.Agent, Link: j.Link, Account: j.Account,
		PolicyEpoch: j.PolicyEpoch, Node: a.cfg.Node, Sequence: sequence, Template: j.Template, Rootfs: o.rootfs, Command: j.Command,
		Isolation: j.Class, Backend: "none", Status: o.status, Reason: o.reason, ExitCode: kind.NoExitCode,
		WallLimit: j.Wall, MemoryLimit: j.Memory,
	}
	if o.backend != nil {
		run.Backend, run.BackendVersion = o.backend.Name(), ascii(o.backend.Version())
	}
	var output []byte
	if r := o.result; r != nil {
		run.ExitCode, run.Output, run.OutputBytes, output = r.ExitCode, r.OutputDigest, r.OutputBytes, r.Output
		run.Started, run.Finished, run.MeasuredFrom = r.Started, r.Finished, r.MeasuredFrom
	}
	statement, err := kind.SignStatement(ctx, a.cfg.Key, run)
	if err != nil {
		return nil, err
	}
	body, err := (&kind.ReportBody{
		Claim: j.Claim, StatementDigest: sha256.Sum256(statement), Rootfs: run.Rootfs, ExitCode: run.ExitCode, Output: run.Output,
		PolicyEpoch: j.PolicyEpoch, Sequence: sequence, Statement: statement, Status: run.Status, Reason: run.Reason,
	}).Encode()
	if err != nil {
		return nil, err
	}
	// What the command wrote may be anything, so it is an addendum, which can be erased.
	rep := &Report{Addenda: [][]nhi.Addendum{{}}}
	var digests []nhi.Digest
	if len(output) > 0 {
		addendum := nhi.Addendum{Data: output}
		if _, err := io.ReadFull(a.cfg.Random, addendum.Salt[:]); err != nil {
			return nil, fmt.Errorf("draw salt: %w", err)
		}
		rep.Addenda[0], digests = []nhi.Addendum{addendum}, []nhi.Digest{nhi.AddendumDigest(addendum)}
	}
	first, err := a.event(kind.Report, j.Account, a.reportID(kind.Report, j.Claim, sequence), body, digests)
	if err != nil {
		return nil, err
	}
	payloads := [][]byte{first}
	if o.result != nil {
		usage := usageBody(j.Claim, sequence, o.result)
		if over := usage.Clip(kind.Limits{Wall: j.Wall, Memory: j.Memory}); len(over) > 0 {
			// The ledger would refuse more, and then nothing of the run would be counted.
			a.log.WarnContext(ctx, "more was measured than the run's limits allow: the most they do is reported", "claim", j.Claim, "meters", over)
		}
		body, err := usage.Encode()
		if err != nil {
			return nil, err
		}
		second, err := a.event(kind.Usage, j.Account, a.reportID(kind.Usage, j.Claim, sequence), body, nil)
		if err != nil {
			return nil, err
		}
		payloads, rep.Addenda = append(payloads, second), append(rep.Addenda, nil)
	}
	// One signature, and one command: the report and its usage are in the log together.
	env, err := nhi.SignBatch(a.cfg.Key, a.cfg.Ledger, a.cfg.Tenant, payloads)
	if err != nil {
		return nil, err
	}
	rep.Envelope, err = env.Encode()
	return rep, err
}

func usageBody(claim, sequence uint64, r *backend.Result) *kind.UsageBody {
	b := &kind.UsageBody{
		Claim: claim, Sequence: sequence, From: r.MeasuredFrom,
		Quantities: map[string]uint64{kind.MeterCPU: uint64(max(0, r.CPU)), kind.MeterWall: uint64(max(0, r.Wall))},
	}
	if r.MemoryPeak > 0 {
		b.Quantities[kind.MeterMemory] = r.MemoryPeak
	}
	return b
}

// event encodes one event of the node, which acts for itself.
func (a *Agent) event(name string, account nhi.ID, id [16]byte, body []byte, addenda []nhi.Digest) ([]byte, error) {
	e := &nhi.Event{
		V: 1, LedgerID: a.cfg.Ledger, Tenant: a.cfg.Tenant, ID: id, Kind: name, Agent: a.cfg.Node,
		Seq: nhi.Seq{Instance: a.instance, N: a.seq.Add(1)}, Account: account, ClientTime: a.cfg.Now().UnixNano(), Body: body, Addenda: addenda,
	}
	if _, err := io.ReadFull(a.cfg.Random, e.Nonce[:]); err != nil {
		return nil, fmt.Errorf("draw nonce: %w", err)
	}
	return e.Encode()
}

// reportID is the same for the same report, whoever makes it: SHA-256("creto/sandbox/report/v1\0" ‖ node ‖ claim ‖ sequence
// ‖ kind)[:16].
func (a *Agent) reportID(name string, claim, sequence uint64) [16]byte {
	b := append([]byte("creto/sandbox/report/v1\x00"), a.cfg.Node[:]...)
	b = binary.BigEndian.AppendUint64(b, claim)
	b = binary.BigEndian.AppendUint64(b, sequence)
	d := sha256.Sum256(append(b, name...))
	return [16]byte(d[:16])
}
