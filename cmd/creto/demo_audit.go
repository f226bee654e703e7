package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/creto-systems/creto/ledger/verify"
	meter "github.com/creto-systems/creto/meter/kind"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
)

// Names of the files of the audit.
const (
	demoTrustFile = "trust.txt"
	logFile       = "log.creto-complete"
	claimFile     = "claim.creto-proof"
	flippedFile   = "flipped.creto-complete"
	forgedFile    = "forged.creto-complete"
)

// demoAudit is what the audit needs besides its files.
type demoAudit struct {
	proofs []string // names of the proof files
}

// eraseName erases the name of one human and shows what remains.
func (d *demo) eraseName(ctx context.Context) (string, error) {
	h := d.people.controller
	rpc := cretov1.NewEventServiceClient(d.client)
	req := &cretov1.GetEventRequest{Tenant: d.people.tenant[:], Index: h.registered, WithAddenda: true}
	before, err := rpc.GetEvent(ctx, req)
	if err != nil {
		return "", err
	}
	if n := len(before.GetEvent().GetAddenda()); n != 1 {
		return "", fmt.Errorf("registration at index %d has %d readable addenda, want 1", h.registered, n)
	}
	var read struct{ Name string }
	if err := json.Unmarshal(before.GetEvent().GetAddenda()[0].GetData(), &read); err != nil || read.Name != h.name {
		return "", errors.Join(errors.New("the addendum is not the name that was registered"), err)
	}
	r, err := demoDo(ctx, d.people.authority, registry.KindErase, &registry.EraseBody{Index: h.registered})
	if err != nil {
		return "", err
	}
	after, err := rpc.GetEvent(ctx, req)
	if err != nil {
		return "", err
	}
	want := fmt.Sprintf("erased at index %d", r.Index)
	if got := after.GetEvent().GetAddendaState(); got != want || len(after.GetEvent().GetAddenda()) != 0 {
		return "", fmt.Errorf("read after erasure: got state %q and %d addenda, want %q and none", got, len(after.GetEvent().GetAddenda()), want)
	}
	if !bytes.Equal(before.GetEvent().GetLeaf(), after.GetEvent().GetLeaf()) {
		return "", errors.New("the leaf has changed")
	}
	return fmt.Sprintf("the financial controller's name, an addendum of leaf %d, was readable; the read now says %q; the leaf is the same",
		h.registered, want), nil
}

// total is what one chain used.
type total struct{ requests, refused, input, output uint64 }

// expected is what each agent used by the traffic and the answers.
func (d *demo) expected() []total {
	out := make([]total, len(d.people.agents))
	for i, r := range d.rows {
		t := &out[d.rowAgent(i)]
		t.requests++
		if d.traffic.refused[i] {
			t.refused++
			continue
		}
		t.input += r.input
		t.output += r.output
	}
	return out
}

// addUp asks the cluster what each chain used, and holds it against the traffic.
func (d *demo) addUp(ctx context.Context) (string, error) {
	want := d.expected()
	lines := []string{
		"what each chain used, as the cluster says it, linearizable and exact:",
		fmt.Sprintf("%-52s %9s %8s %13s %13s", "chain", "requests", "refused", "input tokens", "output tokens"),
	}
	for n, a := range d.people.agents {
		sums, err := d.usageOf(ctx, a)
		if err != nil {
			return "", err
		}
		refused, err := d.refusalsOf(ctx, a)
		if err != nil {
			return "", err
		}
		got := total{requests: sums[meterRequests] + refused, refused: refused, input: sums[meterInput], output: sums[meterOutput]}
		if got != want[n] {
			return "", fmt.Errorf("the %s used %+v by the cluster, %+v by the traffic", a.part, got, want[n])
		}
		lines = append(lines, fmt.Sprintf("%-52s %9s %8s %13s %13s", a.chain(), thousands(got.requests), thousands(got.refused), thousands(got.input), thousands(got.output)))
	}
	return strings.Join(lines, "\n"), nil
}

// usageOf returns the sums of an agent's chain by meter.
func (d *demo) usageOf(ctx context.Context, a *demoAgent) (map[string]uint64, error) {
	r, err := cretov1.NewMeterServiceClient(d.client).QueryUsage(ctx, &cretov1.QueryUsageRequest{
		Tenant: d.people.tenant[:], Agent: a.id[:], LinkId: a.link[:], GroupBy: []string{"meter"}, ToTimeNs: time.Now().Add(time.Hour).UnixNano(),
	})
	if err != nil {
		return nil, err
	}
	if !r.GetExact() || !r.GetRead().GetLinearizable() {
		return nil, errors.New("the answer is not exact and linearizable")
	}
	sums := make(map[string]uint64)
	for _, row := range r.GetRows() {
		sums[row.GetMeter()] += row.GetSum()
	}
	return sums, nil
}

// refusalsOf counts the usage events of an agent's chain that a quota refused.
func (d *demo) refusalsOf(ctx context.Context, a *demoAgent) (n uint64, err error) {
	req := &cretov1.ListEventsRequest{
		Tenant:   d.people.tenant[:],
		Filter:   &cretov1.EventFilter{Kind: meter.Usage, Link: a.link[:], Outcome: verify.OutcomeQuotaExhausted.String()},
		PageSize: 1000,
	}
	for {
		r, err := cretov1.NewEventServiceClient(d.client).ListEvents(ctx, req)
		if err != nil {
			return 0, err
		}
		n += uint64(len(r.GetEvents()))
		if req.Cursor = r.GetNextCursor(); req.Cursor == "" {
			return n, nil
		}
	}
}

// fetchFiles fetches the completeness file of the whole log, some proofs, and the trust file.
func (d *demo) fetchFiles(ctx context.Context) (string, error) {
	rpc := cretov1.NewLedgerServiceClient(d.client)
	tenant := d.people.tenant[:]
	dir := filepath.Join(d.dir, "audit")
	size, err := d.awaitPublished(ctx, rpc)
	if err != nil {
		return "", err
	}
	trust, err := rpc.GetTrust(ctx, &cretov1.GetTrustRequest{})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, demoTrustFile), []byte(trust.GetTrust()), 0o600); err != nil {
		return "", err
	}
	refusal, usage := -1, -1
	for i, refused := range d.traffic.refused {
		if refused && refusal < 0 {
			refusal = i
		}
		if !refused && usage < 0 && d.rowAgent(i) == 2 {
			usage = i
		}
	}
	for _, p := range []struct {
		name  string
		index uint64
		want  bool
	}{
		{"usage.creto-proof", d.traffic.index[usage], true},
		{"refusal.creto-proof", d.traffic.index[refusal], true},
		{claimFile, d.payment.claimLog, true},
		{"erased-name.creto-proof", d.people.controller.registered, true},
		{"sandbox.creto-proof", d.run.reportLog, d.run.reportLog != 0},
	} {
		if !p.want {
			continue
		}
		r, err := rpc.GetProof(ctx, &cretov1.GetProofRequest{Tenant: tenant, Index: p.index, Wait: true})
		if err != nil {
			return "", fmt.Errorf("fetch %s: %w", p.name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, p.name), r.GetFile(), 0o600); err != nil {
			return "", err
		}
		d.audit.proofs = append(d.audit.proofs, p.name)
	}
	if err := d.export(ctx, rpc, filepath.Join(dir, logFile)); err != nil {
		return "", err
	}
	return fmt.Sprintf("the whole log of %s leaves with its two heads, %d proofs, and the trust file, whose words are\n%s",
		thousands(size), len(d.audit.proofs), trust.GetFingerprint()), nil
}

// awaitPublished waits until everything that has an index is under a checkpoint of the node quorum.
func (d *demo) awaitPublished(ctx context.Context, rpc cretov1.LedgerServiceClient) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	for {
		h, err := rpc.GetHeads(ctx, &cretov1.GetHeadsRequest{Tenant: d.people.tenant[:]})
		if err != nil {
			return 0, err
		}
		if h.GetTreeSize() > 0 && h.GetPublishedTreeSize() == h.GetTreeSize() {
			return h.GetTreeSize(), nil
		}
		if err := demoPause(ctx, 50*time.Millisecond); err != nil {
			return 0, fmt.Errorf("wait until %d leaves are published, %d are: %w", h.GetTreeSize(), h.GetPublishedTreeSize(), err)
		}
	}
}

// export writes the completeness file from the log's beginning to its last published leaf, with events.
func (d *demo) export(ctx context.Context, rpc cretov1.LedgerServiceClient, path string) (err error) {
	stream, err := rpc.Export(ctx, &cretov1.ExportRequest{Tenant: d.people.tenant[:], WithPayloads: true})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriter(f)
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return w.Flush()
		}
		if err != nil {
			return fmt.Errorf("fetch the log: %w", err)
		}
		if _, err := w.Write(chunk.GetData()); err != nil {
			return err
		}
		d.report.progress(int(chunk.GetDone()), int(chunk.GetTotal()))
	}
}

// verifyFile runs `creto verify` on files of the audit and returns its exit code and what it printed.
func (d *demo) verifyFile(ctx context.Context, names ...string) (code int, out string, err error) {
	dir := filepath.Join(d.dir, "audit")
	args := []string{"verify", "--trust", filepath.Join(dir, demoTrustFile)}
	for _, n := range names {
		args = append(args, filepath.Join(dir, n))
	}
	cmd := exec.CommandContext(ctx, d.program, args...) //nolint:gosec // our own program
	cmd.Env = plainEnv()
	both, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return exit.ExitCode(), string(both), nil
	}
	return 0, string(both), err
}

// verifyFiles verifies all files as an auditor would.
func (d *demo) verifyFiles(ctx context.Context) (string, error) {
	code, out, err := d.verifyFile(ctx, append([]string{logFile}, d.audit.proofs...)...)
	if err != nil {
		return "", err
	}
	if code != exitOK {
		return "", fmt.Errorf("creto verify exits with %d:\n%s", code, out)
	}
	lines := []string{fmt.Sprintf("creto verify passes for the log and %d proofs:", len(d.audit.proofs)), "no leaf is missing, each is where it was, under heads that a quorum of nodes has cosigned"}
	return strings.Join(lines, "\n"), nil
}

// recount adds up the tokens of the log's leaves and holds them against the traffic without what was refused. It reads the
// file only.
func (d *demo) recount(context.Context) (string, error) {
	dir := filepath.Join(d.dir, "audit")
	text, err := os.ReadFile(filepath.Join(dir, demoTrustFile))
	if err != nil {
		return "", err
	}
	trust, err := verify.ParseTrust(text)
	if err != nil {
		return "", err
	}
	f, err := os.Open(filepath.Join(dir, logFile))
	if err != nil {
		return "", err
	}
	defer f.Close()
	agents := make(map[nhi.LinkID]int)
	for n, a := range d.people.agents {
		agents[a.link] = n
	}
	rows := make(map[uint64]int, len(d.rows))
	for i, index := range d.traffic.index {
		rows[index] = i
	}
	got := make([]total, len(d.people.agents))
	seen := 0
	_, err = verify.VerifyCompleteness(bufio.NewReaderSize(f, 1<<16), trust, verify.Options{Visit: func(l *verify.Leaf, _, payload []byte) error {
		if l.Kind != meter.Usage {
			return nil
		}
		i, ok := rows[l.Index]
		if !ok {
			return fmt.Errorf("leaf %d is usage that is not in the traffic", l.Index)
		}
		n := agents[l.Link]
		if n != d.rowAgent(i) {
			return fmt.Errorf("leaf %d is under the chain of the %s, want that of the %s", l.Index, d.people.agents[n].part, d.people.agents[d.rowAgent(i)].part)
		}
		if err := checkRow(payload, d.rows[i]); err != nil {
			return fmt.Errorf("leaf %d: %w", l.Index, err)
		}
		seen++
		got[n].requests++
		if !l.Outcome.Code.Accepted() {
			got[n].refused++
			return nil
		}
		for _, q := range l.Quantities {
			switch q.Meter {
			case meterInput:
				got[n].input += q.N
			case meterOutput:
				got[n].output += q.N
			}
		}
		return nil
	}})
	if err != nil {
		return "", err
	}
	if seen != len(d.rows) {
		return "", fmt.Errorf("%d usage leaves for %d requests", seen, len(d.rows))
	}
	var sum total
	for n, want := range d.expected() {
		if got[n] != want {
			return "", fmt.Errorf("the %s: leaves say %+v, the traffic %+v", d.people.agents[n].part, got[n], want)
		}
		sum.refused += want.refused
		sum.input += want.input
		sum.output += want.output
	}
	allIn, allOut := tokensOf(d.rows)
	return fmt.Sprintf("added up from the leaves: %s input and %s output tokens\nthe traffic's %s and %s, less the %s refused requests'",
		thousands(sum.input), thousands(sum.output), thousands(allIn), thousands(allOut), thousands(sum.refused)), nil
}

// checkRow holds the signed event of a usage leaf against its request.
func checkRow(payload []byte, row traceRow) error {
	ev, err := nhi.DecodeEvent(payload)
	if err != nil {
		return err
	}
	b, err := meter.DecodeUsageBody(ev.Body)
	if err != nil {
		return err
	}
	said := make(map[string]uint64)
	for _, q := range b.Quantities {
		said[q.Meter] = q.N
	}
	if said[meterInput] != row.input || said[meterOutput] != row.output {
		return fmt.Errorf("the signed event says %d and %d tokens, the request had %d and %d", said[meterInput], said[meterOutput], row.input, row.output)
	}
	return nil
}

// Frames of a completeness file (docs/formats.md, 8).
const (
	frameLeaf = 2
	frameEnd  = 255
)

// spoil copies the log, makes one leaf's first amount larger by one bit, and finishes the copy by what end makes of it.
func (d *demo) spoil(name string, end func(spoiled []byte, endFrame int)) (meterName string, err error) {
	dir := filepath.Join(d.dir, "audit")
	b, err := os.ReadFile(filepath.Join(dir, logFile))
	if err != nil {
		return "", err
	}
	at := bytes.IndexByte(b, '\n') + 1
	done := false
	for at+5 <= len(b) {
		kind, n := b[at], int(binary.BigEndian.Uint32(b[at+1:]))
		body := at + 5
		if body+n > len(b) {
			break
		}
		if kind == frameLeaf && !done {
			l, err := verify.DecodeLeaf(b[body : body+n])
			if err != nil {
				return "", err
			}
			if l.Kind == meter.Usage && l.Outcome.Code.Accepted() && len(l.Quantities) > 0 && l.Quantities[0].N >= 1000 {
				// The amount stands behind the name of its meter; with its last byte changed it is still a number of the same length.
				q := l.Quantities[0]
				i := bytes.Index(b[body:body+n], []byte(q.Meter))
				if i < 0 {
					return "", fmt.Errorf("leaf %d: meter not found", l.Index)
				}
				width := 1
				for limit := uint64(1 << 8); q.N >= limit && width < 8; limit = 1 << (8 * width) {
					width *= 2
				}
				b[body+i+len(q.Meter)+width] ^= 0x20
				meterName, done = q.Meter, true
			}
		}
		if kind == frameEnd {
			if end != nil {
				end(b, at)
			}
			break
		}
		at = body + n
	}
	if !done {
		return "", errors.New("no usage leaf found to spoil")
	}
	return meterName, os.WriteFile(filepath.Join(dir, name), b, 0o600)
}

// refuses verifies a spoiled copy, which must fail, and says where, how and with which exit code.
func (d *demo) refuses(ctx context.Context, name string, class verify.FailureClass) (string, error) {
	dir := filepath.Join(d.dir, "audit")
	text, err := os.ReadFile(filepath.Join(dir, demoTrustFile))
	if err != nil {
		return "", err
	}
	trust, err := verify.ParseTrust(text)
	if err != nil {
		return "", err
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	_, err = verify.VerifyAny(bufio.NewReader(f), trust, verify.Options{})
	failure, ok := errors.AsType[*verify.Failure](err)
	if !ok {
		return "", fmt.Errorf("a spoiled file verifies: %v", err)
	}
	if failure.Class != class {
		return "", fmt.Errorf("got a failure of class %s, want %s: %w", failure.Class, class, err)
	}
	code, out, err := d.verifyFile(ctx, name)
	if err != nil {
		return "", err
	}
	if code != failure.ExitCode || code < exitSignature || !strings.Contains(out, failure.Step) {
		return "", fmt.Errorf("creto verify exits with %d, want %d, and says:\n%s", code, failure.ExitCode, out)
	}
	return fmt.Sprintf("creto verify fails at step %q with exit code %d: %s", failure.Step, code, failure.Class), nil
}

// flipByte changes one byte of one amount.
func (d *demo) flipByte(ctx context.Context) (string, error) {
	name, err := d.spoil(flippedFile, nil)
	if err != nil {
		return "", err
	}
	how, err := d.refuses(ctx, flippedFile, verify.ClassDamaged)
	if err != nil {
		return "", err
	}
	return "one byte flipped, in an amount of " + name + ": " + how, nil
}

// forge changes the same byte and the file's checksum too, as somebody would who wants it to look undamaged.
func (d *demo) forge(ctx context.Context) (string, error) {
	_, err := d.spoil(forgedFile, func(b []byte, end int) {
		sum := sha256.Sum256(b[:end])
		copy(b[len(b)-len(sum):], sum[:])
	})
	if err != nil {
		return "", err
	}
	how, err := d.refuses(ctx, forgedFile, verify.ClassTampering)
	if err != nil {
		return "", err
	}
	return "the same with the file's checksum made to fit: " + how, nil
}
