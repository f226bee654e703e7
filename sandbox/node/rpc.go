package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	"github.com/creto-systems/creto/sandbox/kind"
)

// window is how many reports are sent ahead of their acknowledgement.
const window = 8

// connect serves one stream to its end. acked says whether the server has acknowledged anything on it.
func (a *Agent) connect(ctx context.Context, start func(*Job) error) (acked bool, err error) {
	g, ctx := errgroup.WithContext(ctx)
	stream, err := cretov1.NewSandboxServiceClient(a.cfg.Conn).Connect(ctx)
	if err != nil {
		return false, err
	}
	acks := make(chan uint64, window+4)
	var reg registrations
	g.Go(func() error { return a.send(ctx, stream, &reg, acks) })
	g.Go(func() error {
		for {
			m, err := stream.Recv()
			if err != nil {
				return err
			}
			if err := a.receive(ctx, m, start, &reg, acks); err != nil {
				return err
			}
			acked = acked || m.GetAck() != nil
		}
	})
	err = g.Wait()
	return acked, err
}

// registrations counts those of one stream, which are acknowledged in their order, by the sequence number 0 all of them.
type registrations struct {
	sent, acked atomic.Int64
	goodbye     atomic.Int64 // number of the one that says the node leaves; 0 = not sent
}

// send is the only sender of a stream: the hello, what the node offers, again before that ends, and reports in the order of
// their numbers.
func (a *Agent) send(ctx context.Context, stream cretov1.SandboxService_ConnectClient, reg *registrations, acks <-chan uint64) error {
	offer := a.offer(a.backends)
	hello := &cretov1.NodeHello{
		NodeId: a.cfg.Node[:], Tenant: a.cfg.Tenant[:], Acknowledged: a.spool.Acknowledged(), Capacity: uint32(offer.Capacity),
	}
	for _, c := range offer.Classes {
		hello.Classes = append(hello.Classes, c.String())
	}
	for _, t := range offer.Templates {
		hello.Templates = append(hello.Templates, t.Name)
	}
	if err := stream.Send(&cretov1.NodeMessage{Message: &cretov1.NodeMessage_Hello{Hello: hello}}); err != nil {
		return end(err)
	}
	leaving := a.leaving
	select {
	case <-leaving:
	default:
		if err := a.register(stream, reg, offer); err != nil {
			return err
		}
	}
	renew := time.NewTicker(a.cfg.TTL / 3)
	defer renew.Stop()
	var sent uint64 // the last one
	inFlight := 0
	for {
		for inFlight < window {
			r := a.spool.Next(sent)
			if r == nil {
				break
			}
			raw, err := request(a.cfg.Tenant, r)
			if err != nil {
				return err
			}
			if err := stream.Send(reportMessage(r.Sequence, raw)); err != nil {
				return end(err)
			}
			sent, inFlight = r.Sequence, inFlight+1
		}
		select {
		case <-a.news:
		case <-acks:
			inFlight--
		case <-renew.C:
			if err := a.register(stream, reg, offer); err != nil {
				return err
			}
		case <-leaving:
			leaving = nil
			offer.Capacity = 0
			reg.goodbye.Store(reg.sent.Load() + 1)
			if err := a.register(stream, reg, offer); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// end is what a failed Send means: what the stream ended with is what Recv says.
func end(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// register tells the ledger what the node offers. Nothing of it is kept: what a node offers is true while it says so.
func (a *Agent) register(stream cretov1.SandboxService_ConnectClient, reg *registrations, offer *kind.NodeBody) error {
	body, err := offer.Encode()
	if err != nil {
		return err
	}
	var id [16]byte
	if _, err := io.ReadFull(a.cfg.Random, id[:]); err != nil {
		return fmt.Errorf("draw id: %w", err)
	}
	payload, err := a.event(kind.Node, nhi.ID{}, id, body, nil)
	if err != nil {
		return err
	}
	env, err := nhi.SignEvent(a.cfg.Key, payload)
	if err != nil {
		return err
	}
	raw, err := marshal(a.cfg.Tenant, env, nil)
	if err != nil {
		return err
	}
	reg.sent.Add(1)
	return end(stream.Send(reportMessage(0, raw)))
}

func reportMessage(sequence uint64, request []byte) *cretov1.NodeMessage {
	return &cretov1.NodeMessage{Message: &cretov1.NodeMessage_Report{Report: &cretov1.NodeReport{Sequence: sequence, SubmitRequest: request}}}
}

// request is a report as the server takes it: the signed bytes as they are in the spool.
func request(tenant nhi.ID, r *Report) ([]byte, error) {
	env, err := nhi.DecodeEnvelope(r.Envelope)
	if err != nil {
		return nil, fmt.Errorf("%w: report %d: %w", errSpool, r.Sequence, err)
	}
	return marshal(tenant, env, r.Addenda)
}

func marshal(tenant nhi.ID, env *nhi.Envelope, addenda [][]nhi.Addendum) ([]byte, error) {
	p := &cretov1.Envelope{Payloads: env.Payloads, KeyId: env.KeyID[:], Signature: env.Signature, Batch: env.Batch}
	for _, list := range addenda {
		items := new(cretov1.Addenda)
		for _, a := range list {
			items.Items = append(items.Items, &cretov1.Addendum{Salt: a.Salt[:], Data: a.Data})
		}
		p.Addenda = append(p.Addenda, items)
	}
	raw, err := proto.Marshal(&cretov1.SubmitRequest{Tenant: tenant[:], Envelopes: []*cretov1.Envelope{p}})
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	return raw, nil
}

// receive acts on one message of the server.
func (a *Agent) receive(ctx context.Context, m *cretov1.ServerMessage, start func(*Job) error, reg *registrations, acks chan<- uint64) error {
	if alloc := m.GetAllocation(); alloc != nil {
		j, err := jobOf(alloc, a.cfg.Tenant)
		if err != nil {
			a.log.ErrorContext(ctx, "allocation that is none", "claim", alloc.GetClaim(), "err", err)
			return nil
		}
		return start(j)
	}
	ack := m.GetAck()
	if ack == nil {
		return nil // of a later version
	}
	if ack.GetSequence() == 0 {
		if ack.GetError() != "" {
			a.log.ErrorContext(ctx, "registration refused", "reason", ack.GetError())
		}
		if n, bye := reg.acked.Add(1), reg.goodbye.Load(); bye != 0 && n >= bye {
			signal(a.left)
		}
		return nil
	}
	if ack.GetError() != "" {
		// Final: sending it again would change nothing. The claim stays open until its deadline.
		a.log.ErrorContext(ctx, "report refused", "sequence", ack.GetSequence(), "reason", ack.GetError())
	}
	if err := a.spool.Ack(ack.GetSequence()); err != nil {
		return fmt.Errorf("%w: %w", errSpool, err)
	}
	signal(a.room)
	select {
	case acks <- ack.GetSequence():
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// jobOf reads an allocation.
func jobOf(alloc *cretov1.Allocation, tenant nhi.ID) (*Job, error) {
	j := &Job{
		Claim: alloc.GetClaim(), Template: alloc.GetTemplate(), Command: alloc.GetCommand(), PolicyEpoch: alloc.GetPolicyEpoch(),
		Memory: alloc.GetMemoryBytes(), Wall: alloc.GetWallNs(),
	}
	if string(alloc.GetTenant()) != string(tenant[:]) {
		return nil, errors.New("it is of another tenant")
	}
	var err error
	if j.Class, err = kind.ParseClass(alloc.GetIsolation()); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		name string
		from []byte
		to   []byte
	}{{"agent", alloc.GetAgent(), j.Agent[:]}, {"account", alloc.GetAccount(), j.Account[:]}, {"link_id", alloc.GetLinkId(), j.Link[:]}, {"rootfs_digest", alloc.GetRootfsDigest(), j.Rootfs[:]}} {
		if len(f.from) != 0 && len(f.from) != len(f.to) {
			return nil, fmt.Errorf("%s has %d bytes, want %d", f.name, len(f.from), len(f.to))
		}
		copy(f.to, f.from)
	}
	if j.Agent.IsZero() {
		return nil, errors.New("it names no agent")
	}
	if j.Wall <= 0 {
		return nil, errors.New("it leaves no time")
	}
	return j, j.check()
}
