package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/edge"
	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	"github.com/creto-systems/creto/sandbox/kind"
)

const (
	defaultPageSize = 100
	maxAwait        = 55 * time.Second
	maxReportBytes  = 256 << 10
	maxPageBytes    = 2 << 20 // a page ends early: commands and statements are long
	helloTimeout    = 10 * time.Second
)

// Reads opens the state that a query is answered from. Whether the caller may see the tenant was decided before.
type Reads interface {
	// Snapshot calls fn with the state that holds a tenant: linearizable unless c asks for a stale read. info says which, and
	// as of when; s ends with the call. Errors of fn are returned as they are, store errors that fn panics with as well.
	Snapshot(ctx context.Context, tenant nhi.ID, c cretov1.Consistency, fn func(s *ledger.Snapshot, t ledger.Tenant, info *cretov1.ReadInfo) error) error
}

// Changes says when it is worth to look again.
type Changes interface {
	// Changed returns a channel that is closed, or sends, once this node has applied something to the tenant's log after the
	// call. It may do so without need, and for nothing once ctx ends.
	Changed(ctx context.Context, tenant nhi.ID) <-chan struct{}
}

// Submitter commits signed envelopes: an *edge.Edge. Results are in the order of the payloads.
type Submitter interface {
	Submit(ctx context.Context, tenant nhi.ID, subs []edge.Submission) ([]edge.Result, error)
}

// ServiceConfig is what the service needs of the server around it.
type ServiceConfig struct {
	Reads     Reads
	Changes   Changes
	Submitter Submitter
	// Peer returns the id of the sandbox node whose SVID the connection presented.
	Peer   func(ctx context.Context) (nhi.ID, bool)
	Logger *slog.Logger
}

// RegisterService registers SandboxService. Claims are signed events and go through EventService.
func (s *Sandbox) RegisterService(r grpc.ServiceRegistrar, cfg ServiceConfig) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cretov1.RegisterSandboxServiceServer(r, &service{cfg: cfg})
}

type service struct {
	cretov1.UnsafeSandboxServiceServer
	cfg ServiceConfig
}

var _ cretov1.SandboxServiceServer = (*service)(nil)

// ErrNoClaim says that there is no claim with this index.
var ErrNoClaim = errors.New("claim does not exist")

func toStatus(err error) error {
	if errors.Is(err, ErrNoClaim) {
		return status.Error(codes.NotFound, ErrNoClaim.Error())
	}
	return err
}

// Connect serves a sandbox node: it is sent the claims that the ledger allocates to it, and hands in signed reports, each of
// which is acknowledged once it is committed.
func (s *service) Connect(stream grpc.BidiStreamingServer[cretov1.NodeMessage, cretov1.ServerMessage]) error {
	ctx := stream.Context()
	id, ok := s.cfg.Peer(ctx)
	if !ok {
		return status.Error(codes.Unauthenticated, "the connection presents no sandbox node's SVID")
	}
	messages := make(chan *cretov1.NodeMessage)
	ended := make(chan error, 1)
	// Recv returns when the stream ends, at the latest when this method has returned.
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case messages <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	c := &connection{s: s, stream: stream, node: id, sent: make(map[uint64]bool)}
	hello := time.NewTimer(helloTimeout)
	defer hello.Stop()
	select {
	case m := <-messages:
		if err := c.hello(m.GetHello()); err != nil {
			return err
		}
	case err := <-ended:
		return streamEnd(err)
	case <-hello.C:
		return status.Error(codes.DeadlineExceeded, "no hello")
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	for {
		changed := s.cfg.Changes.Changed(ctx, c.tenant)
		if err := c.allocate(ctx); err != nil {
			return err
		}
		select {
		case m := <-messages:
			if err := c.report(ctx, m.GetReport()); err != nil {
				return err
			}
		case err := <-ended:
			return streamEnd(err)
		case <-changed:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// streamEnd is what a method returns when its client has ended the stream.
func streamEnd(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	return nil // io.EOF: the client is done
}

// connection is one stream. It belongs to the goroutine that serves it.
type connection struct {
	s      *service
	stream grpc.BidiStreamingServer[cretov1.NodeMessage, cretov1.ServerMessage]
	node   nhi.ID
	tenant nhi.ID
	sent   map[uint64]bool // claims that were sent on this stream and still run
}

func (c *connection) hello(h *cretov1.NodeHello) error {
	if h == nil {
		return status.Error(codes.InvalidArgument, "the stream does not begin with a hello")
	}
	tenant, err := parseID("tenant", h.GetTenant())
	if err != nil {
		return err
	}
	if c.node != nhi.ID(fill16(h.GetNodeId())) {
		return status.Error(codes.PermissionDenied, "the hello names another node than the SVID")
	}
	c.tenant = tenant
	return nil
}

// fill16 makes 16 bytes of anything; what is not 16 bytes becomes no id that a node has.
func fill16(b []byte) (out [16]byte) {
	if len(b) == len(out) {
		copy(out[:], b)
	}
	return out
}

// allocate sends the claims that the node has and was not sent on this stream. It reads what this server has applied: the
// node knows by itself what it has begun or reported, so an old answer does no harm, and nothing here waits for the leader.
func (c *connection) allocate(ctx context.Context) error {
	var out []*cretov1.Allocation
	err := c.s.cfg.Reads.Snapshot(ctx, c.tenant, cretov1.Consistency_CONSISTENCY_STALE, func(snap *ledger.Snapshot, t ledger.Tenant, _ *cretov1.ReadInfo) error {
		v, err := snap.View(t)
		if err != nil {
			return err
		}
		running := make(map[uint64]bool)
		for _, i := range Running(v, c.node) {
			running[i.Claim] = true
			if c.sent[i.Claim] {
				continue
			}
			command, err := commandOf(snap, t, i.Claim)
			if err != nil {
				return err
			}
			out = append(out, &cretov1.Allocation{
				Claim: i.Claim, Tenant: t.ID[:], Agent: i.Agent[:], LinkId: linkBytes(i.Link), Account: i.Account[:], Template: i.Template,
				Command: command, Isolation: i.Class.String(), PolicyEpoch: i.PolicyEpoch, DeadlineNs: i.Deadline, MemoryBytes: i.Memory,
				WallNs: max(1, i.Budget()), RootfsDigest: i.Rootfs[:],
			})
		}
		c.sent = running
		return nil
	})
	if err != nil {
		return err
	}
	for _, a := range out {
		if err := c.stream.Send(&cretov1.ServerMessage{Message: &cretov1.ServerMessage_Allocation{Allocation: a}}); err != nil {
			return err
		}
	}
	return nil
}

// commandOf reads the command from the claim's payload.
func commandOf(snap *ledger.Snapshot, t ledger.Tenant, claim uint64) ([]string, error) {
	b, err := bodyOf(snap, t, claim, kind.DecodeClaimBody)
	if err != nil {
		return nil, err
	}
	return b.Command, nil
}

func bodyOf[T any](snap *ledger.Snapshot, t ledger.Tenant, index uint64, decode func([]byte) (*T, error)) (*T, error) {
	stored, err := snap.Event(t.Slot, index)
	if err != nil {
		return nil, err
	}
	ev, err := nhi.DecodeEvent(stored.Payload)
	if err != nil {
		return nil, fmt.Errorf("read leaf %d: %w", index, err)
	}
	b, err := decode(ev.Body)
	if err != nil {
		return nil, fmt.Errorf("read leaf %d: %w", index, err)
	}
	return b, nil
}

// report commits what a node hands in and acknowledges it. An error ends the stream without an acknowledgement: the node
// sends it again. Sequence 0 is what a node does not keep: the registration of what it offers.
func (c *connection) report(ctx context.Context, r *cretov1.NodeReport) error {
	if r == nil {
		return status.Error(codes.InvalidArgument, "a message that is no report")
	}
	refused, err := c.submit(ctx, r.GetSubmitRequest())
	if err != nil {
		return err
	}
	if refused != "" {
		c.s.cfg.Logger.WarnContext(ctx, "report refused", "node", c.node.String(), "sequence", r.GetSequence(), "reason", refused)
	}
	return c.stream.Send(&cretov1.ServerMessage{Message: &cretov1.ServerMessage_Ack{Ack: &cretov1.ReportAck{
		Sequence: r.GetSequence(), Error: refused,
	}}})
}

// submit returns why the ledger will never take the events, "" if it has, or the error after which to try again.
func (c *connection) submit(ctx context.Context, raw []byte) (refused string, err error) {
	if len(raw) > maxReportBytes {
		return fmt.Sprintf("a report of more than %d bytes", maxReportBytes), nil
	}
	var req cretov1.SubmitRequest
	if err := proto.Unmarshal(raw, &req); err != nil {
		return "not a SubmitRequest", nil
	}
	if string(req.GetTenant()) != string(c.tenant[:]) {
		return "of another tenant than the stream's", nil
	}
	subs, reason := c.submissions(req.GetEnvelopes())
	if reason != "" {
		return reason, nil
	}
	results, err := c.s.cfg.Submitter.Submit(ctx, c.tenant, subs)
	if err != nil {
		var invalid *edge.InvalidError
		if errors.As(err, &invalid) {
			return invalid.Error(), nil
		}
		return "", err
	}
	for _, r := range results {
		switch r.State {
		case ledger.Sequenced, ledger.Duplicate:
			if !r.Outcome.Accepted() && refused == "" {
				refused = r.Outcome.String()
				if d, err := kind.DecodeRefusal(r.Detail); err == nil {
					refused += ": " + d.Hint
				}
			}
		case ledger.Stale:
			return "", status.Error(codes.Unavailable, "authority changed while the report was decided")
		default:
			if refused == "" {
				refused = r.State.String() + " " + r.Reason
			}
		}
	}
	return refused, nil
}

// submissions reads envelopes whose events are the node's own reports.
func (c *connection) submissions(envelopes []*cretov1.Envelope) (subs []edge.Submission, refused string) {
	if len(envelopes) == 0 || len(envelopes) > edge.MaxEnvelopes {
		return nil, "no envelope, or too many"
	}
	for _, e := range envelopes {
		if len(e.GetKeyId()) != len(nhi.KeyID{}) {
			return nil, "key_id has not 32 bytes"
		}
		sub := edge.Submission{Envelope: &nhi.Envelope{
			Payloads: e.GetPayloads(), KeyID: nhi.KeyID(e.GetKeyId()), Signature: e.GetSignature(), Batch: e.GetBatch(),
		}}
		if err := sub.Envelope.Check(); err != nil {
			return nil, err.Error()
		}
		for _, p := range e.GetPayloads() {
			ev, err := nhi.DecodeEvent(p)
			if err != nil {
				return nil, err.Error()
			}
			switch ev.Kind {
			case kind.Node, kind.Report, kind.Usage:
			default:
				return nil, "a node's stream takes no events of kind " + ev.Kind
			}
			if ev.Agent != c.node {
				return nil, "an event that is not the node's own"
			}
		}
		for _, items := range e.GetAddenda() {
			var list []nhi.Addendum
			for _, a := range items.GetItems() {
				if len(a.GetSalt()) != 16 {
					return nil, "the salt of an addendum has not 16 bytes"
				}
				list = append(list, nhi.Addendum{Salt: [16]byte(a.GetSalt()), Data: a.GetData()})
			}
			sub.Addenda = append(sub.Addenda, list)
		}
		if n := len(sub.Addenda); n != 0 && n != len(e.GetPayloads()) {
			return nil, "addenda are not by payload"
		}
		subs = append(subs, sub)
	}
	return subs, ""
}

// GetSandbox returns one claim with what came of it.
func (s *service) GetSandbox(ctx context.Context, req *cretov1.GetSandboxRequest) (*cretov1.GetSandboxResponse, error) {
	tenant, err := parseID("tenant", req.GetTenant())
	if err != nil {
		return nil, err
	}
	res, _, err := s.get(ctx, tenant, req.GetClaim(), cretov1.Consistency_CONSISTENCY_LINEARIZABLE)
	return res, err
}

func (s *service) get(ctx context.Context, tenant nhi.ID, claim uint64, c cretov1.Consistency) (res *cretov1.GetSandboxResponse, done bool, err error) {
	err = s.cfg.Reads.Snapshot(ctx, tenant, c, func(snap *ledger.Snapshot, t ledger.Tenant, read *cretov1.ReadInfo) error {
		v, err := snap.View(t)
		if err != nil {
			return err
		}
		i, ok := Get(v, claim)
		if !ok {
			return ErrNoClaim
		}
		p, err := protoSandbox(snap, t, i)
		if err != nil {
			return err
		}
		res, done = &cretov1.GetSandboxResponse{Sandbox: p, Read: read}, i.State.Done()
		return nil
	})
	return res, done, toStatus(err)
}

// AwaitSandbox returns once the claim is done, or when the time is over, whatever its state is then.
func (s *service) AwaitSandbox(ctx context.Context, req *cretov1.GetSandboxRequest) (*cretov1.GetSandboxResponse, error) {
	tenant, err := parseID("tenant", req.GetTenant())
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(min(time.Duration(req.GetTimeoutMs())*time.Millisecond, maxAwait))
	defer timer.Stop()
	// Only the first look has to reflect every acknowledged write; what is done stays so, and this server will see it.
	c := cretov1.Consistency_CONSISTENCY_LINEARIZABLE
	for {
		changed := s.cfg.Changes.Changed(ctx, tenant)
		res, done, err := s.get(ctx, tenant, req.GetClaim(), c)
		if err != nil || done {
			return res, err
		}
		c = cretov1.Consistency_CONSISTENCY_STALE
		select {
		case <-changed:
		case <-timer.C:
			return res, nil
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// ListSandboxes lists claims, newest first.
func (s *service) ListSandboxes(ctx context.Context, req *cretov1.ListSandboxesRequest) (*cretov1.ListSandboxesResponse, error) {
	tenant, err := parseID("tenant", req.GetTenant())
	if err != nil {
		return nil, err
	}
	var state State
	if req.GetState() != "" {
		var ok bool
		if state, ok = ParseState(req.GetState()); !ok {
			return nil, status.Error(codes.InvalidArgument, "state is none of claimed, running, finished, killed, failed, expired")
		}
	}
	from := uint64(0)
	if req.GetCursor() != "" {
		if from, err = strconv.ParseUint(req.GetCursor(), 10, 64); err != nil || from == 0 {
			return nil, status.Error(codes.InvalidArgument, "cursor is not one that this service gave")
		}
	}
	limit := int(req.GetPageSize())
	if limit == 0 {
		limit = defaultPageSize
	}
	res := &cretov1.ListSandboxesResponse{}
	err = s.cfg.Reads.Snapshot(ctx, tenant, cretov1.Consistency_CONSISTENCY_LINEARIZABLE, func(snap *ledger.Snapshot, t ledger.Tenant, read *cretov1.ReadInfo) error {
		v, err := snap.View(t)
		if err != nil {
			return err
		}
		page, next, more := List(v, state, from, min(limit, MaxPage))
		res.Read = read
		size := 0
		for _, i := range page {
			p, err := protoSandbox(snap, t, i)
			if err != nil {
				return err
			}
			if n := proto.Size(p); size > 0 && size+n > maxPageBytes {
				next, more = i.Claim, true
				break
			} else {
				size += n
			}
			res.Sandboxes = append(res.Sandboxes, p)
		}
		if more {
			res.NextCursor = strconv.FormatUint(next, 10)
		}
		return nil
	})
	if err != nil {
		return nil, toStatus(err)
	}
	return res, nil
}

func protoSandbox(snap *ledger.Snapshot, t ledger.Tenant, i *Info) (*cretov1.Sandbox, error) {
	command, err := commandOf(snap, t, i.Claim)
	if err != nil {
		return nil, err
	}
	p := &cretov1.Sandbox{
		Claim: i.Claim, Agent: i.Agent[:], LinkId: linkBytes(i.Link), Account: i.Account[:], State: i.State.String(), Template: i.Template,
		Command: command, Isolation: i.Class.String(), ReportIndex: i.Report, MeasuredFrom: i.From, Leases: i.Leases, Reason: i.Reason,
	}
	if !i.Node.IsZero() {
		p.Node, p.RootfsDigest = i.Node[:], i.Rootfs[:]
	}
	for _, q := range i.Quantities {
		p.Usage = append(p.Usage, &cretov1.Quantity{Meter: q.Meter, N: q.N})
	}
	if i.Report != 0 {
		b, err := bodyOf(snap, t, i.Report, kind.DecodeReportBody)
		if err != nil {
			return nil, err
		}
		p.ExitCode, p.OutputDigest, p.Statement = int32(i.ExitCode), i.Output[:], b.Statement
	}
	return p, nil
}

func linkBytes(l nhi.LinkID) []byte {
	if l.IsZero() {
		return nil
	}
	return l[:]
}

func parseID(field string, b []byte) (nhi.ID, error) {
	if len(b) != len(nhi.ID{}) || nhi.ID(b).IsZero() {
		return nhi.ID{}, status.Errorf(codes.InvalidArgument, "%s is not an id of 16 bytes", field)
	}
	return nhi.ID(b), nil
}
