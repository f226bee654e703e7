package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/creto-systems/creto/cmd/creto/node"
)

type initView struct {
	LedgerID  string   `json:"ledger_id"`
	Cluster   string   `json:"cluster"`
	Nodes     []string `json:"nodes"`
	NodeIDs   []string `json:"node_ids"`
	Admin     string   `json:"admin"`
	AdminKey  string   `json:"admin_key_file"`
	AdminCert string   `json:"admin_cert"`
	AdminTLS  string   `json:"admin_cert_key"`
	CA        string   `json:"ca"`
	CADir     string   `json:"ca_dir"`
	Test      bool     `json:"test"`
}

func (i initView) quietID() string { return i.LedgerID }

func (a *app) initCmd() *cobra.Command {
	var o struct {
		c         node.InitConfig
		nodes     []string
		plainKeys bool
	}
	c := &cobra.Command{
		Use: "init", Short: "Make a new cluster: genesis, certificate authority, log key, a directory for each node",
		Long: `Make a new cluster in --dir: the genesis of its ledger, its certificate authority, its log key, the founding admin, and one
directory for each of its first nodes, to be taken to their machines. Nothing is on a network yet.

Guard ca/ and admin/: the CA's key is in no other place and never enters the log. An interrupted init leaves a directory to be
deleted. The admin's key lies under a passphrase (asked for, or --passphrase-file).`,
		Example: `  creto init --dir cluster --cluster acme \
      --node 10.0.0.1:7400,10.0.0.1:7401,10.0.0.1:7402 --node 10.0.0.2:7400,10.0.0.2:7401 --node 10.0.0.3:7400,10.0.0.3:7401`,
		Args:        noArgs,
		Annotations: map[string]string{localOnly: "1"},
	}
	f := c.Flags()
	f.StringVar(&o.c.Dir, "dir", "", "directory to make; must be empty")
	f.StringVar(&o.c.Cluster, "cluster", "creto", "name of the cluster, the first part of every origin")
	f.StringVar(&o.c.TrustDomain, "trust-domain", "", "SPIFFE trust domain (default: the cluster's name and .internal)")
	f.Uint64Var(&o.c.Cell, "cell", 1, "number of the cell")
	f.StringArrayVar(&o.nodes, "node", nil, "PEER,GRPC[,READ[,METRICS]] addresses of a node, host:port each; once for each node")
	f.BoolVar(&o.c.Test, "test", false, "a test ledger, whose clock can be moved")
	f.BoolVar(&o.c.Plain, "plain-http", false, "plain HTTP for tiles and metrics (loopback only)")
	f.BoolVar(&o.c.CAOnNodes, "ca-on-nodes", false, "let nodes use the CA in --dir: for clusters on one machine")
	f.BoolVar(&o.plainKeys, "plain", false, "leave the admin's key without a passphrase")
	f.DurationVar(&o.c.TTL, "ttl", 30*24*time.Hour, "life of the first certificates")
	c.RunE = func(*cobra.Command, []string) error {
		if o.c.Dir == "" {
			return usageError(errors.New("no directory"), "name it with --dir")
		}
		if len(o.nodes) == 0 {
			return usageError(errors.New("no nodes"), "give --node PEER,GRPC once for each node; one node tolerates no failure, three tolerate one")
		}
		for _, text := range o.nodes {
			p := strings.Split(text, ",")
			if len(p) < 2 || len(p) > 4 {
				return usageError(fmt.Errorf("--node %q is not PEER,GRPC[,READ[,METRICS]]", text))
			}
			p = append(p, "", "")
			o.c.Nodes = append(o.c.Nodes, node.InitNode{Peer: p[0], GRPC: p[1], Read: p[2], Metrics: p[3]})
		}
		if !o.plainKeys {
			pass, err := a.passphrase(c.Context(), "new passphrase for the admin's key", true)
			if err != nil {
				return err
			}
			if pass == "" {
				return localError(errors.New("the passphrase is empty"), "--plain leaves the key without one")
			}
			o.c.Passphrase = pass
		}
		r, err := node.Init(o.c)
		if err != nil {
			return localError(err)
		}
		v := initView{
			LedgerID: hexOf(r.LedgerID[:]), Cluster: r.Genesis.Cluster, Nodes: r.NodeDirs, Admin: r.Admin.String(), AdminKey: r.AdminKey,
			AdminCert: r.AdminSVID.Cert, AdminTLS: r.AdminSVID.Key, CA: r.AdminSVID.Bundle, CADir: r.CADir, Test: r.Genesis.Test,
		}
		for _, id := range r.NodeIDs {
			v.NodeIDs = append(v.NodeIDs, id.String())
		}
		if err := a.object(v); err != nil {
			return err
		}
		a.say("next: take each node's directory to its machine and start it there: creto server --dir %s", r.NodeDirs[0])
		return nil
	}
	return c
}
