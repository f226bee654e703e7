package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/creto-systems/creto/cmd/creto/node"
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

type memberView struct {
	Node        string  `json:"node_id"`
	Addr        string  `json:"raft_addr"`
	Voter       bool    `json:"voter"`
	Leader      bool    `json:"leader"`
	LastContact float64 `json:"last_contact_seconds"`
}

func (m memberView) quietID() string { return m.Node }

// String is a member in a table. Only the asked node knows when it last heard of the leader.
func (m memberView) String() string {
	role := "voter"
	switch {
	case m.Leader:
		role = "voter, leads"
	case !m.Voter:
		role = "no vote yet"
	}
	s := fmt.Sprintf("%s  %s  %s", m.Node, m.Addr, role)
	if m.LastContact >= 0 {
		s += fmt.Sprintf(", heard the leader %v ago", time.Duration(m.LastContact*float64(time.Second)).Round(time.Millisecond))
	}
	return s
}

type statusView struct {
	Cluster        string       `json:"cluster"`
	LedgerID       string       `json:"ledger_id"`
	Node           string       `json:"node_id"`
	Role           string       `json:"role"`
	Leader         string       `json:"leader_id"`
	Term           count        `json:"term"`
	CommitIndex    count        `json:"commit_index"`
	AppliedIndex   count        `json:"applied_index"`
	Epoch          count        `json:"epoch"`
	PublishedEpoch count        `json:"published_epoch"`
	StateHash      string       `json:"state_hash"`
	Time           instant      `json:"time"`
	TimeQuality    string       `json:"time_quality"`
	Tolerates      uint32       `json:"failure_tolerance"`
	Version        string       `json:"version"`
	ActiveLevel    uint32       `json:"active_level"`
	Tenants        uint32       `json:"tenants"`
	CertExpires    instant      `json:"certificate_expires"`
	Test           bool         `json:"test"`
	Members        []memberView `json:"members"`
	Read           *readView    `json:"read,omitempty" table:"-"`
}

func (s statusView) quietID() string { return s.Leader }

func (a *app) clusterCmd() *cobra.Command {
	return noun("cluster", "Nodes, membership and leadership",
		`For operators: an admin's SVID (--cert, --key) opens these calls, and changes of membership are also signed with the admin's
key (--as, CRETO_ADMIN). Every change is in the system log before it takes effect.

A new node: creto cluster token, creto cluster join on its machine, creto cluster add, creto server there, creto cluster promote.`,
		a.clusterStatusCmd(), a.clusterTokenCmd(), a.clusterJoinCmd(),
		a.clusterMemberCmd("add NODE ADDR", ledger.MemberAdd, "Take a registered node in, without a vote",
			"  creto cluster add NODE 10.0.0.4:7400"),
		a.clusterMemberCmd("promote NODE", ledger.MemberPromote, "Give a node a vote", "  creto cluster promote NODE"),
		a.clusterMemberCmd("remove NODE", ledger.MemberRemove, "Take a node out, and revoke its identity", "  creto cluster remove NODE"),
		a.clusterTransferCmd(), a.clusterRenewCmd())
}

// leaderCall is call with a connection to the leader: what changes the cluster itself is not forwarded, and not repeated.
func (a *app) leaderCall(ctx context.Context, fn func(ctx context.Context, c *creto.Client) error) error {
	addrs := a.settings.addrs
	defer func() { a.settings.addrs = addrs }()
	for _, addr := range addrs {
		a.settings.addrs = []string{addr}
		var leads bool
		err := a.call(ctx, func(ctx context.Context, c *creto.Client) error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			r, err := cretov1.NewClusterServiceClient(c).Status(ctx, &cretov1.StatusRequest{})
			leads = err == nil && r.GetLeaderId() != "" && r.GetLeaderId() == r.GetNodeId()
			return err
		})
		if err != nil && !creto.Unavailable(err) {
			return err
		}
		if leads {
			return a.call(ctx, fn)
		}
	}
	a.settings.addrs = addrs
	return a.call(ctx, fn)
}

func (a *app) clusterStatusCmd() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the cluster as one node sees it", Args: noArgs,
		Example: "  creto cluster status\n  creto cluster status --addr 10.0.0.2:7401 -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.call(c.Context(), func(ctx context.Context, cl *creto.Client) error {
				r, err := cretov1.NewClusterServiceClient(cl).Status(ctx, &cretov1.StatusRequest{})
				if err != nil {
					return err
				}
				v := statusView{
					Cluster: r.GetCluster(), LedgerID: hexOf(r.GetLedgerId()), Node: r.GetNodeId(), Role: r.GetRole(), Leader: r.GetLeaderId(),
					Term: count(r.GetTerm()), CommitIndex: count(r.GetCommitIndex()), AppliedIndex: count(r.GetAppliedIndex()), Epoch: count(r.GetEpoch()),
					PublishedEpoch: count(r.GetPublishedEpoch()), StateHash: hexOf(r.GetStateHash()), Time: instantNs(r.GetTimeNs()),
					TimeQuality: r.GetTimeQuality(), Tolerates: r.GetFailureTolerance(), Version: r.GetVersion(), ActiveLevel: r.GetActiveLevel(),
					Tenants: r.GetTenants(), CertExpires: instantNs(r.GetCertificateExpiresNs()), Test: r.GetTest(), Read: readOf(r.GetRead()),
				}
				for _, m := range r.GetMembers() {
					v.Members = append(v.Members, memberView{m.GetNodeId(), m.GetRaftAddr(), m.GetVoter(), m.GetLeader(), m.GetLastContactSeconds()})
				}
				return a.object(v)
			})
		},
	}
}

type joinToken struct {
	Token   string  `json:"token"`
	Role    string  `json:"role"`
	Expires instant `json:"expires"`
	Index   count   `json:"index"`
}

func (j joinToken) quietID() string { return j.Token }

func parseRole(name string) (registry.Role, error) {
	switch name {
	case "voter":
		return registry.RoleVoter, nil
	case "sandbox":
		return registry.RoleSandbox, nil
	}
	return 0, usageError(fmt.Errorf("--role %q is not voter or sandbox", name))
}

func (a *app) clusterTokenCmd() *cobra.Command {
	var name string
	var ttl time.Duration
	c := &cobra.Command{
		Use: "token", Short: "Make a join token for one node",
		Long: `Make a token that admits one node, once. It is printed here and kept nowhere: the system log has its SHA-256.

Signed by an admin (--as, CRETO_ADMIN).`,
		Example: "  creto cluster token --role voter --ttl 1h -q > token\n  creto cluster token --role sandbox",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			role, err := parseRole(name)
			if err != nil {
				return err
			}
			token, digest, err := node.NewJoinToken(rand.Reader)
			if err != nil {
				return err
			}
			return a.act(c.Context(), byAdmin, func(ctx context.Context, w *actor) error {
				st, err := cretov1.NewClusterServiceClient(w.client).Status(ctx, &cretov1.StatusRequest{})
				if err != nil {
					return err
				}
				expires := time.Unix(0, st.GetTimeNs()).Add(ttl) // consensus time decides
				if now := time.Now(); now.After(time.Unix(0, st.GetTimeNs())) && !st.GetTest() {
					expires = now.Add(ttl)
				}
				body, err := (&ledger.JoinTokenBody{Token: digest, Role: role, Expires: expires.UnixNano()}).Encode()
				if err != nil {
					return usageError(err)
				}
				r, err := w.Do(ctx, ledger.KindJoinTokenAdd, body)
				if err != nil {
					return err
				}
				return a.object(joinToken{token, name, instantNs(expires.UnixNano()), count(r.Index)})
			})
		},
	}
	c.Flags().StringVar(&name, "role", "voter", "voter or sandbox")
	c.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long it is valid")
	return c
}

type joinView struct {
	Node     string `json:"node_id"`
	Role     string `json:"role"`
	Dir      string `json:"dir"`
	LedgerID string `json:"ledger_id"`
}

func (j joinView) quietID() string { return j.Node }

func (a *app) clusterJoinCmd() *cobra.Command {
	var o struct {
		role, dir, joinToken string
		cfg                  node.Config
	}
	c := &cobra.Command{
		Use: "join", Short: "Make this machine a node, with a join token",
		Long: `Redeem a join token at the node that has the cluster's certificate authority (--addr), and write the directory of a new node.

The token is read from --join-token-file ("-" is stdin). --ca says whom to believe: take the trust bundle there yourself.
If the answer is lost, run the same command again: it asks with the same keys, which --dir keeps until the node is complete.`,
		Example: `  creto cluster join --addr 10.0.0.1:7401 --ca ca.pem --join-token-file token --dir /var/lib/creto \
      --listen-peer 10.0.0.4:7400 --listen-grpc 10.0.0.4:7401
  creto cluster join --role sandbox --addr 10.0.0.1:7401 --ca ca.pem --join-token-file token --dir /var/lib/creto-sandbox`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s := &a.settings
			switch {
			case o.dir == "":
				return usageError(errors.New("no directory"), "name it with --dir; it must be empty")
			case o.joinToken == "":
				return usageError(errors.New("no join token"), "name its file with --join-token-file; `creto cluster token` makes one")
			case len(s.addrs) == 0:
				return usageError(errors.New("no address"), "name the node that has the CA with --addr HOST:PORT")
			case s.ca == "":
				return usageError(errors.New("no trust bundle"), "name the file with --ca")
			}
			token, err := a.readText(o.joinToken, 4096)
			if err != nil {
				return localError(fmt.Errorf("read join token: %w", err))
			}
			bundle, err := readBounded(s.ca, maxConfig)
			if err != nil {
				return localError(fmt.Errorf("read trust bundle: %w", err))
			}
			ctx, cancel := context.WithTimeout(c.Context(), s.timeout)
			defer cancel()
			r, err := node.JoinCluster(ctx, node.JoinConfig{
				Addr: s.addrs[0], Token: strings.TrimSpace(string(token)), Bundle: bundle, Role: o.role, Dir: o.dir, Node: o.cfg,
			})
			if _, ok := errors.AsType[*node.PendingJoinError](err); ok {
				f := explain(err)
				f.hints = append(f.hints, "run the same command again while the token lives: the node's keys are kept in "+o.dir)
				return f
			}
			if err != nil {
				return err
			}
			if err := a.object(joinView{r.NodeID.String(), r.Role, r.Dir, hexOf(r.LedgerID[:])}); err != nil {
				return err
			}
			if r.Role == "voter" {
				a.say("next: an admin runs `creto cluster add %s %s`, then start `creto server --dir %s`, then `creto cluster promote %s`",
					r.NodeID, o.cfg.Listen.Peer, r.Dir, r.NodeID)
			} else {
				a.say("next: creto sandbox-node --dir %s --tenant TENANT --template NAME=DIR", r.Dir)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&o.role, "role", "voter", "voter or sandbox")
	f.StringVar(&o.dir, "dir", "", "the new node's directory; must be empty")
	f.StringVar(&o.joinToken, "join-token-file", "", `file with the join token; "-" is stdin`)
	f.StringVar(&o.cfg.Listen.Peer, "listen-peer", "", "address for Raft between nodes (voters)")
	f.StringVar(&o.cfg.Listen.GRPC, "listen-grpc", "", "address for the API (voters)")
	f.StringVar(&o.cfg.Listen.Read, "listen-read", "", "address for tiles and checkpoints")
	f.StringVar(&o.cfg.Listen.Metrics, "listen-metrics", "", "address for metrics")
	f.StringVar(&o.cfg.Advertise.Peer, "advertise-peer", "", "Raft address that the others dial")
	f.StringVar(&o.cfg.Advertise.GRPC, "advertise-grpc", "", "API address that clients dial")
	f.BoolVar(&o.cfg.PlainRead, "plain-read", false, "plain HTTP for tiles, on loopback only")
	f.BoolVar(&o.cfg.PlainMetrics, "plain-metrics", false, "plain HTTP for metrics, on loopback only")
	return c
}

type memberChange struct {
	Node      string `json:"node_id"`
	Index     count  `json:"index"`
	RaftIndex count  `json:"raft_index"`
}

func (m memberChange) quietID() string { return m.Node }

func (a *app) clusterMemberCmd(use string, op ledger.MemberOp, short, example string) *cobra.Command {
	var keep bool
	names := strings.Fields(use)[1:]
	c := &cobra.Command{
		Use: use, Short: short, Example: example, Args: exactly(names...),
		Long: short + ".\n\nThe change is committed to the system log, signed by an admin (--as, CRETO_ADMIN), before Raft makes it.",
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseID("node", args[0])
			if err != nil {
				return err
			}
			b := &ledger.MemberBody{Op: op, Node: id}
			if op == ledger.MemberAdd {
				b.Address = args[1]
			}
			body, err := b.Encode()
			if err != nil {
				return usageError(err)
			}
			k, signer, err := a.signer(c.Context(), byAdmin)
			if err != nil {
				return err
			}
			return a.leaderCall(c.Context(), func(ctx context.Context, cl *creto.Client) error {
				w, err := a.actAs(ctx, cl, k, signer)
				if err != nil {
					return err
				}
				s, err := w.Sign(ledger.KindMember, body)
				if err != nil {
					return err
				}
				r, err := cretov1.NewClusterServiceClient(w.client).ChangeMember(ctx, &cretov1.ChangeMemberRequest{Envelope: s.Message()})
				if err != nil {
					return err
				}
				res, err := creto.ResultOf(r.GetResult(), "")
				if err != nil {
					return fmt.Errorf("read answer: %w", err)
				}
				if err := res.Err(); err != nil {
					return err
				}
				if op == ledger.MemberRemove && !keep {
					if err := revokeNode(ctx, w, id); err != nil {
						return fmt.Errorf("node %s is out, but its identity stands: %w", id, err)
					}
				}
				return a.object(memberChange{id.String(), count(res.Index), count(r.GetRaftIndex())})
			})
		},
	}
	if op == ledger.MemberRemove {
		c.Flags().BoolVar(&keep, "keep-identity", false, "let the node come back later")
	}
	return c
}

func revokeNode(ctx context.Context, w *actor, id nhi.ID) error {
	body, err := (&ledger.NodeRemoveBody{ID: id}).Encode()
	if err != nil {
		return err
	}
	_, err = w.Do(ctx, ledger.KindNodeRemove, body)
	return err
}

type leaderView struct {
	Leader string `json:"leader_id"`
}

func (l leaderView) quietID() string { return l.Leader }

func (a *app) clusterTransferCmd() *cobra.Command {
	return &cobra.Command{
		Use: "transfer", Short: "Ask the leader to hand over", Args: noArgs,
		Long:    "Ask the leader to hand over to the voter that is furthest ahead: before its machine is stopped, for example.",
		Example: "  creto cluster transfer",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.leaderCall(c.Context(), func(ctx context.Context, cl *creto.Client) error {
				r, err := cretov1.NewClusterServiceClient(cl).TransferLeadership(ctx, &cretov1.TransferLeadershipRequest{})
				if err != nil {
					return err
				}
				return a.object(leaderView{r.GetLeaderId()})
			})
		},
	}
}

type renewView struct {
	Dir     string  `json:"dir"`
	Expires instant `json:"expires"`
}

func (r renewView) quietID() string { return r.Dir }

func (a *app) clusterRenewCmd() *cobra.Command {
	var ca string
	var ttl time.Duration
	c := &cobra.Command{
		Use: "renew DIR", Short: "Issue a new certificate for the SVID in a directory",
		Long: `Issue a new certificate, with a new key, for the SVID in a directory: a node's (its svid folder is found), or an admin's.

It talks to nobody: it needs the directory of the certificate authority (--ca-dir). A running node takes the new certificate up
within a minute.`,
		Example:     "  creto cluster renew cluster/node1 --ca-dir cluster/ca\n  creto cluster renew cluster/admin --ca-dir cluster/ca --ttl 168h",
		Args:        exactly("DIR"),
		Annotations: map[string]string{localOnly: "1"},
		RunE: func(_ *cobra.Command, args []string) error {
			if ca == "" {
				return usageError(errors.New("no certificate authority"), "name its directory with --ca-dir")
			}
			dir := args[0]
			if svid := filepath.Join(dir, "svid"); isDir(svid) {
				dir = svid
			}
			expires, err := node.RenewSVID(ca, dir, ttl, time.Now())
			if err != nil {
				return localError(err)
			}
			return a.object(renewView{dir, instantNs(expires.UnixNano())})
		},
	}
	c.Flags().StringVar(&ca, "ca-dir", "", "directory of the certificate authority")
	c.Flags().DurationVar(&ttl, "ttl", 0, "life of the certificate (default 30 days)")
	return c
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
