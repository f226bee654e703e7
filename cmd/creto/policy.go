package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/authz"
	"github.com/creto-systems/creto/oversight"
	"github.com/creto-systems/creto/oversight/kind"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

// chainFile is an oversight chain as a file says it.
type chainFile struct {
	Name  string        `yaml:"name" json:"name"`
	Steps []stepFile    `yaml:"steps" json:"steps"`
	Hold  time.Duration `yaml:"hold,omitempty" json:"-"`
}

type stepFile struct {
	Eligible []nhi.ID      `yaml:"eligible"`
	Approve  uint32        `yaml:"approve"`
	Deny     uint32        `yaml:"deny"`
	Timeout  time.Duration `yaml:"timeout"`
}

// parseChains parses a file of oversight chains strictly.
func parseChains(b []byte) ([]kind.Chain, error) {
	var files []chainFile
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&files); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var out []kind.Chain
	for _, f := range files {
		c := kind.Chain{Name: f.Name, Hold: int64(f.Hold)}
		for _, s := range f.Steps {
			if s.Deny == 0 {
				s.Deny = 1
			}
			c.Steps = append(c.Steps, kind.Step{Eligible: s.Eligible, Approve: s.Approve, Deny: s.Deny, Timeout: int64(s.Timeout)})
		}
		out = append(out, c)
	}
	return out, nil
}

type policyFiles struct{ hard, soft, chains string }

func (p *policyFiles) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&p.hard, "hard", "", "file with the hard set, Cedar: permits and plain forbids (default: what a new tenant has)")
	f.StringVar(&p.soft, "soft", "", `file with the soft set, Cedar: forbids with @oversight("chain")`)
	f.StringVar(&p.chains, "chains", "", "file with the oversight chains, YAML")
}

const policyHelp = `The hard set permits and forbids; what no policy permits is forbidden. The soft set holds forbids with @oversight("chain"):
what matches one of them waits until that chain has approved. Its text says which actions it is about, and they can be none of the
ledger's own events (usage, sandbox.claim, quota.*, policy.publish), for which no approval can be used. Every policy has an @id. Chains are YAML:

  - name: payments
    hold: 0s                   # between the approval and the earliest claim
    steps:
      - eligible: [ID, ID]     # humans who are asked
        approve: 1             # how many must approve
        deny: 1                # how many denials deny
        timeout: 1h            # after it, the next step's humans are asked as well`

// read reads and checks the files.
func (p *policyFiles) read(a *app) (*kind.PublishBody, error) {
	b := &kind.PublishBody{Hard: authz.DefaultHard}
	for _, f := range []struct {
		path string
		to   *string
	}{{p.hard, &b.Hard}, {p.soft, &b.Soft}} {
		if f.path == "" {
			continue
		}
		text, err := a.readText(f.path, kind.MaxPolicyBytes)
		if err != nil {
			return nil, localError(fmt.Errorf("read policy: %w", err))
		}
		*f.to = string(text)
	}
	if p.chains != "" {
		text, err := a.readText(p.chains, kind.MaxChainsBytes)
		if err != nil {
			return nil, localError(fmt.Errorf("read chains: %w", err))
		}
		chains, err := parseChains(text)
		if err != nil {
			return nil, localError(fmt.Errorf("read chains %s: %w", p.chains, err))
		}
		if b.Chains, err = kind.EncodeChains(chains); err != nil {
			return nil, localError(fmt.Errorf("check chains: %w", err))
		}
	}
	if err := oversight.CheckPolicy(b); err != nil {
		f := &failure{code: exitLocal, err: errors.New("the policy is not in order")}
		if list, ok := errors.AsType[authz.PolicyErrors](err); ok {
			for _, e := range list {
				f.hints = append(f.hints, e.Error())
			}
		} else {
			f.err = fmt.Errorf("check policy: %w", err)
		}
		return nil, f
	}
	return b, nil
}

type policyPublished struct {
	Epoch  count  `json:"epoch"`
	Digest string `json:"digest"`
	Index  count  `json:"index"`
}

func (p policyPublished) quietID() string { return p.Epoch.String() }

type policyView struct {
	Epoch  count            `json:"epoch"`
	Digest string           `json:"digest"`
	Index  count            `json:"published_index"`
	Hard   string           `json:"hard"`
	Soft   string           `json:"soft"`
	Chains []oversightChain `json:"chains"`
	Read   *readView        `json:"read,omitempty" table:"-"`
}

func (p policyView) quietID() string { return p.Epoch.String() }

type chainStep struct {
	Eligible []string `json:"eligible"`
	Approve  uint32   `json:"approve"`
	Deny     uint32   `json:"deny"`
	Timeout  string   `json:"timeout"`
}

type oversightChain struct {
	Name  string      `json:"name"`
	Steps []chainStep `json:"steps"`
	Hold  string      `json:"hold"`
}

func (a *app) policyCmd() *cobra.Command {
	var pub, chk policyFiles
	publish := &cobra.Command{
		Use: "publish", Short: "Replace the tenant's policy",
		Long:    "Replace the tenant's policy as a whole, from the next event on.\n\n" + policyHelp + "\n\nSigned by the tenant's authority (--as), or by a human whom the policy in force lets publish.",
		Example: "  creto policy publish --hard hard.cedar --soft soft.cedar --chains chains.yaml",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := pub.read(a)
			if err != nil {
				return err
			}
			body, err := b.Encode()
			if err != nil {
				return usageError(err)
			}
			return a.act(c.Context(), byAuthority, func(ctx context.Context, w *actor) error {
				r, err := w.Do(ctx, kind.Publish, body)
				if err != nil {
					return err
				}
				p, err := kind.DecodePublished(r.Detail)
				if err != nil {
					return fmt.Errorf("read answer: %w", err)
				}
				return a.object(policyPublished{count(p.Epoch), hexHash(p.Digest), count(r.Index)})
			})
		},
	}
	pub.add(publish)
	check := &cobra.Command{
		Use: "check", Short: "Check policy files, reporting everything that is wrong",
		Long:        "Check policy files as publishing them would, reporting everything that is wrong. Nothing is sent.\n\n" + policyHelp,
		Example:     "  creto policy check --hard hard.cedar --soft soft.cedar --chains chains.yaml",
		Args:        noArgs,
		Annotations: map[string]string{localOnly: "1"},
		RunE: func(*cobra.Command, []string) error {
			if _, err := chk.read(a); err != nil {
				return err
			}
			a.say("the policy is in order")
			return nil
		},
	}
	chk.add(check)
	show := &cobra.Command{
		Use: "show", Short: "Show the policy in force", Args: noArgs, Example: "  creto policy show\n  creto policy show -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.tenantCall(c.Context(), func(ctx context.Context, cl *creto.Client, tenant []byte) error {
				r, err := cretov1.NewOversightServiceClient(cl).GetPolicy(ctx, &cretov1.GetPolicyRequest{Tenant: tenant})
				if err != nil {
					return err
				}
				v := policyView{Epoch: count(r.GetEpoch()), Digest: hexOf(r.GetDigest()), Index: count(r.GetPublishedIndex()), Hard: r.GetHard(), Soft: r.GetSoft(), Chains: []oversightChain{}, Read: readOf(r.GetRead())}
				for _, p := range r.GetChains() {
					c := oversightChain{Name: p.GetName(), Hold: time.Duration(p.GetHoldNs()).String()}
					for _, s := range p.GetSteps() {
						c.Steps = append(c.Steps, chainStep{mapped(s.GetEligible(), idOf), s.GetApprove(), s.GetDeny(), time.Duration(s.GetTimeoutNs()).String()})
					}
					v.Chains = append(v.Chains, c)
				}
				return a.object(v)
			})
		},
	}
	return noun("policy", "What agents may do, and what waits for people", "", publish, show, check)
}
