package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

func (a *app) eventSubmitCmd() *cobra.Command {
	var o struct {
		kind, body, envelope, sign string
		addenda                    []string
		id                         string
		published                  bool
	}
	c := &cobra.Command{
		Use: "submit", Short: "Sign and submit one event, or submit a signed envelope",
		Long: `Sign one event of any kind as the identity of --as and submit it, or submit an envelope that somebody has signed (--envelope).

--body is JSON; an object whose keys are numbers becomes a CBOR map with integer keys, "hex:…" and "id:…" strings become bytes.
Which integer stands for what in a kind's body is said by the source in nhi/registry, meter/kind, oversight/kind and sandbox/kind;
most kinds have a command that makes it (creto usage add, creto quota set, …). --sign writes the signed envelope to a file instead of
submitting it, and the addenda, of which it has only digests, to a second one (FILE.addenda), from which --envelope takes them.

An event of one --id takes effect at most once. Run again with the same --id and the same event, the command gives the first answer;
with another event, or with addenda, which are salted anew, it is refused as a conflict. The ledger notes the first time that an id
comes with other bytes, and each run signs others: scripts that try again sign once with --sign and submit that envelope as often as
it takes.`,
		Example: `  creto event submit --as agent.key --link LINK --account ACCOUNT --kind usage --body '{"1": {"tokens": 3}}'
  creto event submit --as agent.key --link LINK --account ACCOUNT --kind usage --body @usage.json --sign usage.envelope
  creto event submit --envelope usage.envelope`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.envelope != "" {
				return a.submitEnvelope(c.Context(), o.envelope, o.published)
			}
			if o.kind == "" {
				return usageError(errors.New("no kind of event"), "name it with --kind, or submit a signed envelope with --envelope")
			}
			body, err := a.jsonBody(o.body)
			if err != nil {
				return err
			}
			var opts []creto.EventOption
			for _, name := range o.addenda {
				b, err := a.readText(name, nhi.MaxAddendumBytes)
				if err != nil {
					return localError(fmt.Errorf("read addendum: %w", err))
				}
				opts = append(opts, creto.WithAddendum(b))
			}
			if o.id != "" {
				var id [16]byte
				n, err := decodeHex(id[:], o.id)
				if err != nil || n != len(id) {
					return usageError(fmt.Errorf("--id %q is not 32 hexadecimal digits", o.id))
				}
				opts = append(opts, creto.WithID(id))
			}
			if o.published {
				opts = append(opts, creto.UntilPublished())
			}
			if o.sign == "" {
				return a.act(c.Context(), byActor, func(ctx context.Context, w *actor) error { return a.submitOne(ctx, w, o.kind, body, opts) })
			}
			return a.act(c.Context(), byActor, func(_ context.Context, w *actor) error {
				s, err := w.Sign(o.kind, body, opts...)
				if err != nil {
					return err
				}
				raw, err := s.Envelope.Encode()
				if err != nil {
					return err
				}
				if err := writeAddenda(o.sign, s.Addenda); err != nil {
					return err
				}
				if err := createFile(o.sign, raw); err != nil {
					return localError(fmt.Errorf("write envelope: %w", err))
				}
				a.say("signed envelope written to %s", o.sign)
				if len(s.Addenda) > 0 {
					a.say("its addenda written to %s: they go with it", o.sign+addendaSuffix)
				}
				return nil
			})
		},
	}
	f := c.Flags()
	f.StringVar(&o.kind, "kind", "", "kind of the event")
	f.StringVar(&o.body, "body", "{}", "JSON, or @FILE, or @- for stdin")
	f.StringArrayVar(&o.addenda, "addendum", nil, "file with personal or bulky data, kept erasable beside the log; repeat it")
	f.StringVar(&o.id, "id", "", "idempotency key, 32 hexadecimal digits (default: drawn)")
	f.StringVar(&o.sign, "sign", "", "write the signed envelope to this file and submit nothing")
	f.StringVar(&o.envelope, "envelope", "", "submit the signed envelope in this file")
	f.BoolVar(&o.published, "published", false, "wait until the leaf is under a published checkpoint")
	return c
}

// addendaSuffix ends the name of the file in which an envelope's addenda wait.
const addendaSuffix = ".addenda"

// savedAddendum is one line of such a file.
type savedAddendum struct {
	Salt []byte `json:"salt"`
	Data []byte `json:"data"`
}

// writeAddenda writes the addenda of a lone event beside its envelope; none are no file.
func writeAddenda(envelope string, all [][]nhi.Addendum) error {
	if len(all) == 0 {
		return nil
	}
	var saved []savedAddendum
	for _, d := range all[0] {
		saved = append(saved, savedAddendum{d.Salt[:], d.Data})
	}
	text, err := json.MarshalIndent(saved, "", "  ")
	if err == nil {
		err = createFile(envelope+addendaSuffix, append(text, '\n'))
	}
	if err != nil {
		return localError(fmt.Errorf("write addenda: %w", err))
	}
	return nil
}

// readAddenda reads what writeAddenda has written; without a file there are none. Whether they are those of the event, the node
// decides by their digests.
func readAddenda(envelope string) ([][]nhi.Addendum, error) {
	if envelope == "-" {
		return nil, nil
	}
	text, err := readBounded(envelope+addendaSuffix, 2*nhi.MaxAddenda*nhi.MaxAddendumBytes)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read addenda: %w", err)
	}
	var saved []savedAddendum
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&saved); err != nil {
		return nil, fmt.Errorf("read addenda: %w", err)
	}
	list := make([]nhi.Addendum, len(saved))
	for i, s := range saved {
		if len(s.Salt) != len(list[i].Salt) {
			return nil, fmt.Errorf("read addenda: salt of %d bytes", len(s.Salt))
		}
		list[i] = nhi.Addendum{Salt: [16]byte(s.Salt), Data: s.Data}
	}
	return [][]nhi.Addendum{list}, nil
}

// submitOne signs and submits one event. If its id was used before for the same, the answer is the first one's.
func (a *app) submitOne(ctx context.Context, w *actor, kind string, body []byte, opts []creto.EventOption) error {
	s, err := w.Sign(kind, body, opts...)
	if err != nil {
		return err
	}
	out, err := w.Send(ctx, s)
	if err != nil {
		return err
	}
	r := out[0]
	if r.State == creto.StateConflict {
		if first, ok := firstAnswer(ctx, w, s.Envelope.Payloads[0], r.Index); ok {
			a.say("the id was used before, for the same: this is what became of it")
			r = first
		}
	}
	if r.Err() != nil {
		return &creto.RefusedError{Kind: kind, Result: r}
	}
	return a.object(submittedOf(r))
}

func (a *app) submitEnvelope(ctx context.Context, path string, published bool) error {
	raw, err := a.readText(path, nhi.MaxEnvelopeBytes)
	if err != nil {
		return localError(fmt.Errorf("read envelope: %w", err))
	}
	env, err := nhi.DecodeEnvelope(raw)
	if err != nil {
		return localError(fmt.Errorf("read envelope: %w", err))
	}
	addenda, err := readAddenda(path)
	if err != nil {
		return localError(err)
	}
	ev, err := nhi.DecodeEvent(env.Payloads[0])
	if err != nil {
		return localError(fmt.Errorf("read envelope: %w", err))
	}
	req := &cretov1.SubmitRequest{Tenant: ev.Tenant[:], Envelopes: []*cretov1.Envelope{(&creto.Signed{Envelope: env, Addenda: addenda}).Message()}}
	if published {
		req.Wait = cretov1.Height_HEIGHT_PUBLISHED
	}
	return a.call(ctx, func(ctx context.Context, c *creto.Client) error {
		out, err := c.Submit(ctx, req)
		if err != nil {
			return err
		}
		if len(out) == 1 {
			if err := out[0].Err(); err != nil {
				return err
			}
			return a.object(submittedOf(out[0]))
		}
		if err := list(a, mapped(out, submittedOf)); err != nil {
			return err
		}
		for _, r := range out {
			if err := r.Err(); err != nil {
				return err
			}
		}
		return nil
	})
}
