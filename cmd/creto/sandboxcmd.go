package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	"github.com/creto-systems/creto/sandbox/kind"
	creto "github.com/creto-systems/creto/sdk/go"
)

type sandboxView struct {
	Claim       count            `json:"claim"`
	State       string           `json:"state"`
	ExitCode    int32            `json:"exit_code"`
	Reason      string           `json:"reason,omitempty"` // why it did not finish, by its node
	Template    string           `json:"template"`
	Command     commandLine      `json:"command"`
	Isolation   string           `json:"isolation"`
	Agent       string           `json:"agent" table:"-"`
	Link        string           `json:"link_id,omitempty" table:"-"`
	Account     string           `json:"account,omitempty" table:"-"`
	Node        string           `json:"node,omitempty"`
	Output      string           `json:"output_digest,omitempty" table:"-"`
	Rootfs      string           `json:"rootfs_digest,omitempty" table:"-"`
	Usage       map[string]count `json:"usage,omitempty"`
	Measured    string           `json:"measured_from,omitempty" table:"-"`
	ReportIndex count            `json:"report_index,omitempty"`
	Leases      []count          `json:"leases,omitempty" table:"-"`
	Statement   string           `json:"statement,omitempty" table:"-"`
	Read        *readView        `json:"read,omitempty" table:"-"`
}

// commandLine is a program with its arguments; tables show it as a shell would take it.
type commandLine []string

func (c commandLine) String() string { return strings.Join(mapped(c, shellQuote), " ") }

func (s sandboxView) quietID() string { return s.Claim.String() }

func sandboxOf(p *cretov1.Sandbox) sandboxView {
	v := sandboxView{
		Claim: count(p.GetClaim()), State: p.GetState(), ExitCode: p.GetExitCode(), Template: p.GetTemplate(), Command: p.GetCommand(),
		Isolation: p.GetIsolation(), Agent: idOf(p.GetAgent()), Link: hashOf(p.GetLinkId()), Account: idOf(p.GetAccount()), Node: idOf(p.GetNode()),
		Output: hashOf(p.GetOutputDigest()), Rootfs: hashOf(p.GetRootfsDigest()), Measured: p.GetMeasuredFrom(), ReportIndex: count(p.GetReportIndex()),
		Statement: string(p.GetStatement()), Reason: p.GetReason(),
	}
	for _, l := range p.GetLeases() {
		v.Leases = append(v.Leases, count(l))
	}
	for _, q := range p.GetUsage() {
		if v.Usage == nil {
			v.Usage = make(map[string]count)
		}
		v.Usage[q.GetMeter()] = count(q.GetN())
	}
	return v
}

func (a *app) sandboxCmd() *cobra.Command {
	return noun("sandbox", "Run commands in attested sandboxes", "", a.sandboxRunCmd(), a.sandboxListCmd(), a.completeFirst(a.sandboxShowCmd(), completeSandboxes))
}

// parseSize parses 64MiB, 1GiB, 100MB or a plain number of bytes.
func parseSize(s string) (uint64, error) {
	units := []struct {
		suffix string
		n      uint64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"", 1}}
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		if err == nil {
			return n * u.n, nil
		}
	}
	if n, err := strconv.ParseUint(s, 10, 63); err == nil {
		return n, nil
	}
	return 0, usageError(fmt.Errorf("%q is no size", s), "64MiB, 1GiB, or a number of bytes")
}

func (a *app) sandboxRunCmd() *cobra.Command {
	var o struct {
		template, class, memory string
		wall, ttl               time.Duration
		detach                  bool
	}
	c := &cobra.Command{
		Use: "run --template NAME -- PROGRAM [ARG…]", Short: "Run a command in a sandbox, and wait for its attested report",
		Long: `Claim a run of a command in a sandbox made from a template, and wait until the node has reported: exit code, digest of the output,
what it used, and the node's signed statement about all of it. The run is charged to --account.

The command's own exit code is data (exit_code); creto ends with 0 if the command ran to its end, whatever it returned.`,
		Example: "  creto sandbox run --template demo --as agent.key --link LINK --account ACCOUNT -- /hello world",
		Args:    atLeast("PROGRAM"),
		RunE: func(c *cobra.Command, args []string) error {
			if o.template == "" {
				return usageError(errors.New("no template"), "name it with --template")
			}
			class, err := kind.ParseClass(o.class)
			if err != nil {
				return usageError(fmt.Errorf("--class: %w", err))
			}
			memory, err := parseSize(o.memory)
			if err != nil {
				return err
			}
			ttl := o.ttl
			if ttl == 0 {
				ttl = o.wall + time.Minute
			}
			if longest := time.Duration(kind.MaxTTL); ttl < o.wall || ttl > longest {
				return usageError(fmt.Errorf("--ttl %s is not between --wall, which is %s, and %s", ttl, o.wall, longest))
			}
			body, err := (&kind.ClaimBody{
				Template: o.template, Command: args, Class: class, Limits: kind.Limits{Wall: int64(o.wall), Memory: memory}, TTL: int64(ttl),
			}).Encode()
			if err != nil {
				return usageError(err)
			}
			k, signer, err := a.signer(c.Context(), byActor)
			if err != nil {
				return err
			}
			return a.hold(c.Context(), func(ctx context.Context, cl *creto.Client) error {
				claim, cancel := context.WithTimeout(ctx, a.settings.timeout)
				defer cancel()
				w, err := a.actAs(claim, cl, k, signer)
				if err != nil {
					return err
				}
				r, err := w.Do(claim, kind.Claim, body)
				if err != nil {
					return a.explainAuthority(claim, w, err)
				}
				if o.detach {
					return a.object(submittedOf(r))
				}
				tenant := w.Tenant()
				return a.awaitSandbox(ctx, cl, tenant[:], r.Index)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&o.template, "template", "", "root file system to run it in, as a sandbox node names it")
	f.StringVar(&o.class, "class", "process", "the least isolation: process, container, userspace-kernel, vm")
	f.DurationVar(&o.wall, "wall", 30*time.Second, "how long it may run")
	f.StringVar(&o.memory, "memory", "256MiB", "how much memory it may use")
	f.DurationVar(&o.ttl, "ttl", 0, "until when it must be reported, waiting included (default: --wall and a minute)")
	f.BoolVar(&o.detach, "detach", false, "do not wait for the report")
	return c
}

func (a *app) awaitSandbox(ctx context.Context, cl *creto.Client, tenant []byte, claim uint64) error {
	rpc := cretov1.NewSandboxServiceClient(cl)
	for {
		r, err := rpc.AwaitSandbox(ctx, &cretov1.GetSandboxRequest{Tenant: tenant, Claim: claim, TimeoutMs: 50_000})
		if err != nil {
			return err
		}
		v := sandboxOf(r.GetSandbox())
		v.Read = readOf(r.GetRead())
		switch v.State {
		case "finished":
			return a.object(v)
		case "claimed", "running", "waiting", "":
			continue
		}
		return errors.Join(a.object(v), runError(v))
	}
}

// runError is the end of a run that did not come to its own.
func runError(v sandboxView) error {
	f := &failure{code: exitRefused}
	switch v.State {
	case "failed":
		f.err = fmt.Errorf("the run of claim %d has failed", v.Claim)
	case "expired":
		f.err = fmt.Errorf("the run of claim %d has expired without a report", v.Claim)
		f.hints = []string{"is a sandbox node with this template there, and has it room? --ttl says how long a run may wait for one"}
	default:
		f.err = fmt.Errorf("the run of claim %d was %s", v.Claim, v.State)
	}
	if v.Reason != "" {
		f.err = fmt.Errorf("%w: %s", f.err, v.Reason)
	}
	return f
}

func (a *app) sandboxShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show CLAIM", Short: "Show a run and its attested report",
		Long: `Show a run and its attested report. The node's statement is verified under the key that the ledger has for the node, and held against
the signed claim.`,
		Example: "  creto sandbox show 120\n  creto sandbox show 120 -o json | jq -r .statement > statement.json",
		Args:    exactly("CLAIM"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseIndex("claim", args[0])
			if err != nil {
				return err
			}
			return a.tenantCall(c.Context(), func(ctx context.Context, cl *creto.Client, tenant []byte) error {
				r, err := cretov1.NewSandboxServiceClient(cl).GetSandbox(ctx, &cretov1.GetSandboxRequest{Tenant: tenant, Claim: id})
				if err != nil {
					return err
				}
				v := sandboxOf(r.GetSandbox())
				v.Read = readOf(r.GetRead())
				if err := a.object(v); err != nil || len(r.GetSandbox().GetStatement()) == 0 {
					return err
				}
				_, key, err := checkRun(ctx, cl, tenant, r.GetSandbox())
				if err != nil {
					return err
				}
				a.say("the node's statement holds: signed with key %s…, about this claim's agent, chain, template and command", key.String()[:16])
				return nil
			})
		},
	}
}

func (a *app) sandboxListCmd() *cobra.Command {
	var state string
	var limit uint32
	c := &cobra.Command{
		Use: "list", Short: "List runs, newest first", Args: noArgs,
		Example: "  creto sandbox list --state finished",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.tenantCall(c.Context(), func(ctx context.Context, cl *creto.Client, tenant []byte) error {
				rpc := cretov1.NewSandboxServiceClient(cl)
				return pages(a, limit, func(size uint32, cursor string) ([]sandboxView, string, error) {
					r, err := rpc.ListSandboxes(ctx, &cretov1.ListSandboxesRequest{Tenant: tenant, State: state, PageSize: size, Cursor: cursor})
					if err != nil {
						return nil, "", err
					}
					return mapped(r.GetSandboxes(), sandboxOf), r.GetNextCursor(), nil
				})
			})
		},
	}
	c.Flags().StringVar(&state, "state", "", "only this state: claimed, running, finished, killed, failed, expired")
	c.Flags().Uint32Var(&limit, "limit", 100, "at most this many; 0 = all")
	return c
}
