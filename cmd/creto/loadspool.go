package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	meter "github.com/creto-systems/creto/meter/kind"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

// loadCall is one signed call in the spool.
type loadCall struct {
	offset int64
	size   int
	events int
	first  int // position of its first event among all
}

// loadSpool keeps signed calls in a file, so that signing beforehand costs disk and not memory.
type loadSpool struct {
	f     *os.File
	calls []loadCall
	size  int64
	count int
}

func newLoadSpool() (*loadSpool, error) {
	f, err := os.CreateTemp("", "creto-load-*")
	if err != nil {
		return nil, localError(fmt.Errorf("make spool: %w", err))
	}
	return &loadSpool{f: f}, nil
}

func (s *loadSpool) add(b []byte, events int) error {
	if _, err := s.f.WriteAt(b, s.size); err != nil {
		return localError(fmt.Errorf("write spool: %w", err))
	}
	s.calls = append(s.calls, loadCall{s.size, len(b), events, s.count})
	s.size += int64(len(b))
	s.count += events
	return nil
}

func (s *loadSpool) read(i int) ([]byte, error) {
	c := s.calls[i]
	b := make([]byte, c.size)
	if _, err := s.f.ReadAt(b, c.offset); err != nil {
		return nil, localError(fmt.Errorf("read spool: %w", err))
	}
	return b, nil
}

func (s *loadSpool) close() {
	s.f.Close()
	os.Remove(s.f.Name())
}

// signLoad signs all events, on every processor, and writes the calls in order.
func (a *app) signLoad(ctx context.Context, crew *loadCrew, amounts []loadAmount, o loadOptions) (*loadSpool, time.Duration, error) {
	spool, err := newLoadSpool()
	if err != nil {
		return nil, 0, err
	}
	begun := time.Now()
	p := a.progress("signing", "events")
	defer p.done()
	perCall := o.batch * o.perCall
	calls := (len(amounts) + perCall - 1) / perCall
	window := 4 * runtime.GOMAXPROCS(0)
	for base := 0; base < calls; base += window {
		n := min(window, calls-base)
		raw, sizes := make([][]byte, n), make([]int, n)
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(runtime.GOMAXPROCS(0))
		for i := range n {
			g.Go(func() error {
				if err := gctx.Err(); err != nil {
					return err
				}
				at := (base + i) * perCall
				list := amounts[at:min(at+perCall, len(amounts))]
				agent := crew.agents[(base+i)%len(crew.agents)]
				b, err := signCall(agent, list, o)
				raw[i], sizes[i] = b, len(list)
				return err
			})
		}
		err := g.Wait()
		for i := range n {
			if err == nil {
				err = spool.add(raw[i], sizes[i])
			}
		}
		if err != nil {
			spool.close()
			return nil, 0, err
		}
		p.set(uint64(spool.count), uint64(len(amounts)))
	}
	return spool, max(time.Since(begun), time.Microsecond), nil
}

// signCall signs the events of one call and returns the encoded request.
func signCall(agent *creto.Agent, list []loadAmount, o loadOptions) ([]byte, error) {
	tenant := agent.Tenant()
	req := &cretov1.SubmitRequest{Tenant: tenant[:]}
	for len(list) > 0 {
		n := min(o.batch, len(list))
		if o.single {
			body, err := list[0].body().Encode()
			if err != nil {
				return nil, err
			}
			s, err := agent.Sign(meter.Usage, body)
			if err != nil {
				return nil, err
			}
			req.Envelopes = append(req.Envelopes, s.Message())
			list = list[1:]
			continue
		}
		b := agent.NewBatch()
		for _, am := range list[:n] {
			if err := b.AddUsage(am.body()); errors.Is(err, creto.ErrBatchFull) {
				break // 128 KiB: the rest goes under the next signature
			} else if err != nil {
				return nil, err
			}
		}
		list = list[b.Len():]
		s, err := b.Sign()
		if err != nil {
			return nil, err
		}
		req.Envelopes = append(req.Envelopes, s.Message())
	}
	return proto.Marshal(req)
}

// signedCall is an encoded request, which is sent as it is.
type signedCall []byte

// signedCodec passes signed calls through: encoding them again would only measure this program.
type signedCodec struct{}

func (signedCodec) Name() string { return "proto" }

func (signedCodec) Marshal(v any) ([]byte, error) {
	if b, ok := v.(signedCall); ok {
		return b, nil
	}
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("encode %T: not a message", v)
	}
	return proto.Marshal(m)
}

func (signedCodec) Unmarshal(b []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("decode %T: not a message", v)
	}
	return proto.Unmarshal(b, m)
}
