package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

// output writes data to a file that must not exist, or to stdout where none is named and that is no terminal.
func (a *app) output(path string, data []byte, text bool) error {
	if path == "" || path == "-" {
		if !text && terminal(a.out) {
			return usageError(errors.New("this is a binary file, and stdout is a terminal"), "name a file with --out")
		}
		_, err := a.out.Write(data)
		return err
	}
	if err := createFile(path, data); err != nil {
		return localError(fmt.Errorf("write file: %w", err))
	}
	a.say("written to %s", path)
	return nil
}

func (a *app) ledgerCmd() *cobra.Command {
	return noun("ledger", "Checkpoints, proofs and exports",
		"What these commands fetch is checked by `creto verify`, offline, against a trust file; nothing of it is to be believed as it is.",
		a.ledgerCheckpointCmd(), a.ledgerProofCmd(), a.ledgerExportCmd(), a.ledgerConsistencyCmd(), a.ledgerTrustCmd())
}

type headsView struct {
	Epoch              count     `json:"epoch"`
	PublishedEpoch     count     `json:"published_epoch"`
	SpineSize          count     `json:"spine_size"`
	PublishedSpineSize count     `json:"published_spine_size"`
	TreeSize           count     `json:"tree_size,omitempty"`
	PublishedTreeSize  count     `json:"published_tree_size,omitempty"`
	StateHash          string    `json:"state_hash,omitempty"`
	SpineCheckpoint    string    `json:"spine_checkpoint,omitempty"`
	TenantCheckpoint   string    `json:"tenant_checkpoint,omitempty"`
	Read               *readView `json:"read,omitempty" table:"-"`
}

func (h headsView) quietID() string { return h.PublishedSpineSize.String() }

func (a *app) ledgerCheckpointCmd() *cobra.Command {
	var tenant, heights bool
	var out string
	c := &cobra.Command{
		Use: "checkpoint", Short: "Fetch the newest published checkpoint",
		Long: `Fetch the newest published checkpoint, a C2SP note: of the spine, or of the tenant's log with --log. With --heights, show how
far the log has come: sequenced, and under a published checkpoint.`,
		Example: "  creto ledger checkpoint --out spine.checkpoint && creto verify spine.checkpoint\n  creto ledger checkpoint --heights -o json",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var id []byte
			if !a.settings.tenant.IsZero() {
				id = a.settings.tenant[:]
			} else if tenant {
				_, err := a.tenant()
				return err
			}
			return a.call(c.Context(), func(ctx context.Context, cl *creto.Client) error {
				r, err := cretov1.NewLedgerServiceClient(cl).GetHeads(ctx, &cretov1.GetHeadsRequest{Tenant: id})
				if err != nil {
					return err
				}
				if heights {
					return a.object(headsView{
						Epoch: count(r.GetEpoch()), PublishedEpoch: count(r.GetPublishedEpoch()), SpineSize: count(r.GetSpineSize()),
						PublishedSpineSize: count(r.GetPublishedSpineSize()), TreeSize: count(r.GetTreeSize()), PublishedTreeSize: count(r.GetPublishedTreeSize()),
						StateHash: hexOf(r.GetStateHash()), SpineCheckpoint: string(r.GetSpineCheckpoint()), TenantCheckpoint: string(r.GetTenantCheckpoint()),
						Read: readOf(r.GetRead()),
					})
				}
				note := r.GetSpineCheckpoint()
				if tenant {
					note = r.GetTenantCheckpoint()
				}
				if len(note) == 0 {
					return &failure{code: exitUnavailable, err: errors.New("nothing is published yet"), hints: []string{"try again in a second"}}
				}
				return a.output(out, note, true)
			})
		},
	}
	c.Flags().BoolVar(&tenant, "log", false, "of the tenant's log instead of the spine")
	c.Flags().BoolVar(&heights, "heights", false, "show how far the log has come")
	c.Flags().StringVar(&out, "out", "", "file to write to (default: stdout)")
	return c
}

func (a *app) ledgerProofCmd() *cobra.Command {
	var out string
	var wait bool
	c := &cobra.Command{
		Use: "proof INDEX", Short: "Fetch the proof file of one leaf",
		Long: `Fetch the self-contained proof file of one leaf: the event, its signature, its key and chain, and its way to a checkpoint that
the nodes have cosigned. It waits until the leaf is published.`,
		Example: "  creto ledger proof 42 --out leaf42.creto-proof && creto verify leaf42.creto-proof",
		Args:    exactly("INDEX"),
		RunE: func(c *cobra.Command, args []string) error {
			i, err := parseIndex("leaf", args[0])
			if err != nil {
				return err
			}
			return a.tenantCall(c.Context(), func(ctx context.Context, cl *creto.Client, tenant []byte) error {
				r, err := cretov1.NewLedgerServiceClient(cl).GetProof(ctx, &cretov1.GetProofRequest{Tenant: tenant, Index: i, Wait: wait})
				if err != nil {
					return err
				}
				return a.output(out, r.GetFile(), false)
			})
		},
	}
	c.Flags().StringVar(&out, "out", "", "file to write to (default: stdout)")
	c.Flags().BoolVar(&wait, "wait", true, "wait until the leaf is published")
	return c
}

type exportView struct {
	File   string `json:"file"`
	Bytes  count  `json:"bytes"`
	Leaves count  `json:"leaves"`
	First  count  `json:"first_leaf"`
}

func (e exportView) quietID() string { return e.File }

func (a *app) ledgerExportCmd() *cobra.Command {
	var o struct {
		from, to, out    string
		payloads, system bool
	}
	c := &cobra.Command{
		Use: "export", Short: "Fetch every leaf of a period, with the proof that it is every one",
		Long: `Fetch a completeness file: all leaves of the tenant's log whose commit time lies in [--from, --to), the heads before and after
them, and the proof that leads to a published checkpoint. Without bounds, all of the log so far.

With --system, of the system log, which operators may read: from the genesis on it names every node key that was ever in force, and
creto verify holds the trust file against it.`,
		Example: `  creto ledger export --from 2026-11-01 --to 2026-12-01 --payloads --out november.creto-complete
  creto verify november.creto-complete --report november.html
  creto ledger export --system --payloads --out system.creto-complete`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			from, to, err := timeRange(o.from, o.to)
			if err != nil {
				return err
			}
			if o.out == "" {
				return usageError(errors.New("no file"), "name it with --out")
			}
			var t nhi.ID // the system log's
			if !o.system {
				if t, err = a.tenant(); err != nil {
					return err
				}
			}
			return a.hold(c.Context(), func(ctx context.Context, cl *creto.Client) error {
				return a.export(ctx, cl, &cretov1.ExportRequest{Tenant: t[:], FromTimeNs: from, ToTimeNs: to, WithPayloads: o.payloads}, o.out)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&o.from, "from", "", "from this commit time on: RFC 3339, a date, or how long ago")
	f.StringVar(&o.to, "to", "", "before this commit time")
	f.BoolVar(&o.payloads, "payloads", false, "also the signed events")
	f.BoolVar(&o.system, "system", false, "of the system log")
	f.StringVar(&o.out, "out", "", "file to write to; must not exist")
	return c
}

func (a *app) export(ctx context.Context, cl *creto.Client, req *cretov1.ExportRequest, out string) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := a.progress("exporting", "leaves")
	in, err := cl.Export(ctx, req, p.set)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(out, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return localError(fmt.Errorf("write export: %w", err))
	}
	defer func() {
		p.done()
		err = errors.Join(err, f.Close())
		if err != nil { // half an export is none
			err = errors.Join(err, os.Remove(out))
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	n, err := io.Copy(w, in)
	if err != nil {
		return err
	}
	if err := errors.Join(w.Flush(), f.Sync()); err != nil {
		return localError(fmt.Errorf("write export: %w", err))
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return localError(err)
	}
	h, err := verify.ReadCompletenessHeader(bufio.NewReader(f))
	if err != nil {
		return fmt.Errorf("read export: %w", err)
	}
	return a.object(exportView{File: out, Bytes: count(n), Leaves: count(h.B - h.A), First: count(h.A)})
}

type consistencyView struct {
	Log      string   `json:"log"`
	FromSize count    `json:"from_size"`
	ToSize   count    `json:"to_size"`
	FromRoot string   `json:"from_root"`
	ToRoot   string   `json:"to_root"`
	Hashes   []string `json:"hashes"`
}

func (c consistencyView) quietID() string { return c.ToRoot }

func (a *app) ledgerConsistencyCmd() *cobra.Command {
	var log bool
	var out string
	c := &cobra.Command{
		Use: "consistency FROM TO", Short: "Check that one size of a log is a prefix of another",
		Long: `Check that the spine (or, with --log, the tenant's log) at size FROM is a prefix of it at size TO. FROM and TO are sizes, or
checkpoint files: their origin, size and root are then what the proof must lead from and to. Files are also checked against the
trust file, if there is one.

Two checkpoints of one log that contradict one another are a split view: exit code 12. With --out, two checkpoint files and the proof
become one file, which anybody can check with creto verify, also if it is the evidence of a split view.`,
		Example: "  creto ledger consistency old.checkpoint new.checkpoint --out extends.creto-proof\n  creto ledger consistency 10 120 --log",
		Args:    exactly("FROM", "TO"),
		RunE: func(c *cobra.Command, args []string) error {
			from, err := a.readHead(args[0])
			if err != nil {
				return err
			}
			to, err := a.readHead(args[1])
			if err != nil {
				return err
			}
			if out != "" && (from.note == nil || to.note == nil) {
				return usageError(errors.New("a consistency file holds two checkpoints"), "give the files of two checkpoints with --out")
			}
			return a.consistency(c.Context(), from, to, log, out)
		},
	}
	c.Flags().BoolVar(&log, "log", false, "of the tenant's log instead of the spine")
	c.Flags().StringVar(&out, "out", "", "file for the two checkpoints and the proof; must not exist")
	return c
}

// head is a size, and if it came from a checkpoint its origin and root.
type head struct {
	size   uint64
	origin string
	root   *nhi.Digest
	note   []byte
}

func (a *app) readHead(arg string) (*head, error) {
	if n, err := strconv.ParseUint(arg, 10, 53); err == nil {
		if n == 0 {
			return nil, usageError(errors.New("the empty log is a prefix of every log: there is nothing to check"))
		}
		return &head{size: n}, nil
	}
	b, err := readBounded(arg, verify.MaxNoteSize)
	if err != nil {
		return nil, localError(fmt.Errorf("read checkpoint: %w", err), "a size, or the file of a checkpoint")
	}
	malformed := func(err error) error {
		return &failure{code: exitMalformed, err: fmt.Errorf("read checkpoint %s: %w", arg, err)}
	}
	n, err := verify.ParseNote(b)
	if err != nil {
		return nil, malformed(err)
	}
	cp, err := verify.ParseCheckpoint(n.Text)
	if err != nil {
		return nil, malformed(err)
	}
	if a.settings.trust != "" {
		t, err := a.readTrust([]string{arg})
		if err != nil {
			return nil, err
		}
		if _, err := verify.VerifyCheckpoint(b, t, verify.Options{}); err != nil {
			return nil, fmt.Errorf("checkpoint %s: %w", arg, err)
		}
	}
	return &head{cp.Size, cp.Origin, &cp.Root, b}, nil
}

func (a *app) consistency(ctx context.Context, from, to *head, log bool, out string) error {
	if from.size > to.size {
		return usageError(fmt.Errorf("size %d is not before size %d", from.size, to.size))
	}
	split := func(err error) error {
		return &failure{code: exitConsistency, err: err, hints: []string{"keep both checkpoints: if both are signed, they are evidence of a split view; stop relying on this cluster"}}
	}
	if from.origin != to.origin && from.origin != "" && to.origin != "" {
		return usageError(fmt.Errorf("the checkpoints are of two logs: %s and %s", from.origin, to.origin))
	}
	twoRoots := from.size == to.size && from.root != nil && to.root != nil && *from.root != *to.root
	if twoRoots && out == "" {
		return split(fmt.Errorf("two roots at size %d of %s", from.size, from.origin)) // no cluster can explain that
	}
	var tenant []byte
	name := "spine"
	if log {
		t, err := a.tenant()
		if err != nil {
			return err
		}
		tenant, name = t[:], t.String()
	}
	return a.call(ctx, func(ctx context.Context, cl *creto.Client) error {
		r, err := cretov1.NewLedgerServiceClient(cl).GetConsistency(ctx, &cretov1.GetConsistencyRequest{Tenant: tenant, FromSize: from.size, ToSize: to.size})
		if err != nil {
			return err
		}
		path := make([]nhi.Digest, len(r.GetHashes()))
		for i, b := range r.GetHashes() {
			if len(b) != len(nhi.Digest{}) {
				return errors.New("read answer: a hash of the wrong length")
			}
			path[i] = nhi.Digest(b)
		}
		if out != "" {
			if err := a.writeConsistency(ctx, cl, from, to, path, out); err != nil {
				return err
			}
		}
		if twoRoots {
			return split(fmt.Errorf("two roots at size %d of %s", from.size, from.origin))
		}
		v := consistencyView{Log: name, FromSize: count(from.size), ToSize: count(to.size), FromRoot: hexOf(r.GetFromRoot()), ToRoot: hexOf(r.GetToRoot()), Hashes: mapped(r.GetHashes(), hexOf)}
		roots := [2]nhi.Digest{}
		for i, b := range [][]byte{r.GetFromRoot(), r.GetToRoot()} {
			if len(b) != len(nhi.Digest{}) {
				return errors.New("read answer: a root of the wrong length")
			}
			roots[i] = nhi.Digest(b)
		}
		for i, h := range []*head{from, to} {
			if h.root == nil {
				continue
			}
			if roots[i] != *h.root {
				return split(fmt.Errorf("the cluster's root at size %d is not that of the checkpoint", h.size))
			}
		}
		if err := verify.VerifyConsistency(from.size, to.size, path, roots[0], roots[1]); err != nil {
			return split(fmt.Errorf("size %d is not shown to be a prefix of size %d: %w", from.size, to.size, err))
		}
		if err := a.object(v); err != nil {
			return err
		}
		a.say("size %d is a prefix of size %d", from.size, to.size)
		return nil
	})
}

// writeConsistency writes the file with which anybody can check the two checkpoints against one another.
func (a *app) writeConsistency(ctx context.Context, cl *creto.Client, from, to *head, path []nhi.Digest, out string) error {
	t, err := cretov1.NewLedgerServiceClient(cl).GetTrust(ctx, &cretov1.GetTrustRequest{})
	if err != nil {
		return err
	}
	trust, err := verify.ParseTrust([]byte(t.GetTrust()))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	file, err := (&verify.ConsistencyFile{LedgerID: trust.LedgerID, From: from.note, To: to.note, Path: path}).Encode()
	if err != nil {
		return localError(err)
	}
	if err := createFile(out, file); err != nil {
		return localError(fmt.Errorf("write consistency file: %w", err))
	}
	return nil
}

type trustView struct {
	Fingerprint string `json:"fingerprint"`
	LedgerID    string `json:"ledger_id"`
	File        string `json:"file,omitempty"`
	Trust       string `json:"trust" table:"-"`
}

func (t trustView) quietID() string { return t.Fingerprint }

func (a *app) ledgerTrustCmd() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "trust", Short: "Fetch the trust file, to be compared by its twelve words",
		Long: `Fetch this ledger's trust file: the keys and the quorum that proofs are checked against. Everything rests on it, so compare its
twelve words with the operator's, or an auditor's, over another channel before you use it.

With --trust FILE and no cluster, show the twelve words of that file.`,
		Example: "  creto ledger trust --out trust.txt\n  creto ledger trust --trust trust.txt",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flag("trust").Changed {
				t, err := a.readTrust(nil)
				if err != nil {
					return err
				}
				return a.object(trustView{t.Fingerprint(), hexHash(t.LedgerID), filepath.Clean(a.settings.trust), string(t.Format())})
			}
			return a.call(c.Context(), func(ctx context.Context, cl *creto.Client) error {
				r, err := cretov1.NewLedgerServiceClient(cl).GetTrust(ctx, &cretov1.GetTrustRequest{})
				if err != nil {
					return err
				}
				t, err := verify.ParseTrust([]byte(r.GetTrust()))
				if err != nil {
					return fmt.Errorf("read answer: %w", err)
				}
				// The words are computed here: a server could say others.
				v := trustView{t.Fingerprint(), hexHash(t.LedgerID), out, r.GetTrust()}
				if out != "" {
					if err := createFile(out, []byte(r.GetTrust())); err != nil {
						return localError(fmt.Errorf("write trust file: %w", err))
					}
				}
				if err := a.object(v); err != nil {
					return err
				}
				a.say("compare the twelve words over another channel before you rely on this file")
				return nil
			})
		},
	}
	c.Flags().StringVar(&out, "out", "", "file to write to; must not exist")
	return c
}
