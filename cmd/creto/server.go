package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/creto-systems/creto/cmd/creto/node"
)

// nodeSetting is one field of a node's configuration that environment and flags can override.
type nodeSetting struct {
	name  string // in node.yaml, dots for nesting
	env   string
	flag  string
	usage string
	get   func(*node.Config) string
	set   func(*node.Config, string) error
}

// nodeSettings is the one list: flags of `creto server`, its environment, and `creto config print`.
var nodeSettings = []nodeSetting{
	textSetting("data_dir", "DATA_DIR", "data-dir", "the node's directory", func(c *node.Config) *string { return &c.DataDir }),
	textSetting("listen.peer", "LISTEN_PEER", "listen-peer", "address for Raft between nodes", func(c *node.Config) *string { return &c.Listen.Peer }),
	textSetting("listen.grpc", "LISTEN_GRPC", "listen-grpc", "address for the API", func(c *node.Config) *string { return &c.Listen.GRPC }),
	textSetting("listen.read", "LISTEN_READ", "listen-read", "address for tiles and checkpoints", func(c *node.Config) *string { return &c.Listen.Read }),
	textSetting("listen.admin", "LISTEN_ADMIN", "listen-admin", `"unix:PATH" or "off"`, func(c *node.Config) *string { return &c.Listen.Admin }),
	textSetting("listen.metrics", "LISTEN_METRICS", "listen-metrics", "address for /metrics, /livez, /readyz", func(c *node.Config) *string { return &c.Listen.Metrics }),
	textSetting("advertise.peer", "ADVERTISE_PEER", "advertise-peer", "Raft address that the others dial", func(c *node.Config) *string { return &c.Advertise.Peer }),
	textSetting("advertise.grpc", "ADVERTISE_GRPC", "advertise-grpc", "API address that clients dial", func(c *node.Config) *string { return &c.Advertise.GRPC }),
	textSetting("advertise.read", "ADVERTISE_READ", "advertise-read", "URL prefix of the tiles", func(c *node.Config) *string { return &c.Advertise.Read }),
	textSetting("ca_dir", "CA_DIR", "ca-dir", "directory of the certificate authority, where this node has it", func(c *node.Config) *string { return &c.CADir }),
	boolSetting("plain_read", "PLAIN_READ", "plain-read", "plain HTTP for tiles, on loopback only", func(c *node.Config) *bool { return &c.PlainRead }),
	boolSetting("plain_metrics", "PLAIN_METRICS", "plain-metrics", "plain HTTP for metrics, on loopback only", func(c *node.Config) *bool { return &c.PlainMetrics }),
	textSetting("log.level", "LOG_LEVEL", "log-level", "debug, info, warn or error", func(c *node.Config) *string { return &c.Log.Level }),
	textSetting("log.format", "LOG_FORMAT", "log-format", "text or json", func(c *node.Config) *string { return &c.Log.Format }),
	durationSetting("raft.heartbeat", "RAFT_HEARTBEAT", "raft-heartbeat", "Raft's heartbeat timeout", func(c *node.Config) *time.Duration { return &c.Raft.Heartbeat }),
	durationSetting("raft.election", "RAFT_ELECTION", "raft-election", "Raft's election timeout", func(c *node.Config) *time.Duration { return &c.Raft.Election }),
	durationSetting("raft.leader_lease", "RAFT_LEADER_LEASE", "raft-leader-lease", "Raft's leader lease", func(c *node.Config) *time.Duration { return &c.Raft.LeaderLease }),
	intSetting("limits.connections", "LIMITS_CONNECTIONS", "limits-connections", "connections of a listener", func(c *node.Config) *int { return &c.Limits.Connections }),
	intSetting("limits.streams", "LIMITS_STREAMS", "limits-streams", "concurrent calls of a connection", func(c *node.Config) *int { return &c.Limits.Streams }),
}

func textSetting(name, env, flag, usage string, p func(*node.Config) *string) nodeSetting {
	return nodeSetting{name, "CRETO_" + env, flag, usage,
		func(c *node.Config) string { return *p(c) },
		func(c *node.Config, v string) error { *p(c) = v; return nil }}
}

func boolSetting(name, env, flag, usage string, p func(*node.Config) *bool) nodeSetting {
	return nodeSetting{name, "CRETO_" + env, flag, usage + " (true or false)",
		func(c *node.Config) string { return strconv.FormatBool(*p(c)) },
		func(c *node.Config, v string) (err error) { *p(c), err = strconv.ParseBool(v); return err }}
}

func durationSetting(name, env, flag, usage string, p func(*node.Config) *time.Duration) nodeSetting {
	return nodeSetting{name, "CRETO_" + env, flag, usage,
		func(c *node.Config) string { return p(c).String() },
		func(c *node.Config, v string) (err error) { *p(c), err = time.ParseDuration(v); return err }}
}

func intSetting(name, env, flag, usage string, p func(*node.Config) *int) nodeSetting {
	return nodeSetting{name, "CRETO_" + env, flag, usage,
		func(c *node.Config) string { return strconv.Itoa(*p(c)) },
		func(c *node.Config, v string) (err error) { *p(c), err = strconv.Atoi(v); return err }}
}

func nodeFlags(c *cobra.Command) {
	for _, s := range nodeSettings {
		c.Flags().String(s.flag, "", s.usage+" ["+s.env+"]")
	}
}

// nodeConfig reads a node's configuration: its file, then the environment, then flags. sources says where each value came
// from. Defaults are filled in, and everything that is wrong is reported.
func (a *app) nodeConfig(c *cobra.Command, path string) (cfg *node.Config, sources map[string]string, err error) {
	base, err := node.LoadConfig(path)
	if err != nil {
		return nil, nil, localError(err, "`creto init` makes a node's directory with its configuration")
	}
	sources = make(map[string]string)
	unset := new(node.Config)
	for _, s := range nodeSettings {
		if s.get(base) != s.get(unset) {
			sources[s.name] = path
		}
		value, source := a.getenv(s.env), s.env
		if f := c.Flags().Lookup(s.flag); f != nil && f.Changed {
			value, source = f.Value.String(), "--"+s.flag
		}
		if value == "" {
			continue
		}
		if err := s.set(base, value); err != nil {
			return nil, nil, usageError(fmt.Errorf("%s: %q is not a value of %s", source, value, s.name))
		}
		sources[s.name] = source
	}
	before := make(map[string]string)
	for _, s := range nodeSettings {
		before[s.name] = s.get(base)
	}
	base.EnsureDefaults()
	for _, s := range nodeSettings {
		if s.get(base) != before[s.name] || sources[s.name] == "" {
			sources[s.name] = "default"
		}
	}
	if err := base.Validate(); err != nil {
		return base, sources, localError(err)
	}
	return base, sources, nil
}

func (a *app) serverCmd() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "server", Short: "Run one node",
		Long: `Run one node of a cluster from the directory that creto init, or creto cluster join, has made.

It reads node.yaml there (or --config FILE), then the environment, then flags. SIGTERM and the first interrupt end it in order.
Exit codes 70 and up are a storage or state machine that failed, or a node that was removed: a supervisor must not restart
after 72.`,
		Example:     "  creto server --dir /var/lib/creto\n  creto server --config /etc/creto/node.yaml --log-format json",
		Args:        noArgs,
		Annotations: map[string]string{localOnly: "1", ownConfig: "1"},
		RunE: func(c *cobra.Command, _ []string) error {
			path := a.settings.configFile
			if path == "" {
				if dir == "" {
					return usageError(errors.New("no directory"), "name the node's directory with --dir, or its configuration with --config")
				}
				path = filepath.Join(dir, node.ConfigFile)
			}
			cfg, _, err := a.nodeConfig(c, path)
			if err != nil {
				return err
			}
			return a.serve(c.Context(), cfg)
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "the node's directory")
	nodeFlags(c)
	return c
}

func (a *app) serve(ctx context.Context, cfg *node.Config) error {
	s, err := node.New(*cfg, node.Options{Logger: cfg.NewLogger(a.err), Version: buildVersion().Version, Exit: os.Exit})
	if err != nil {
		return localError(err)
	}
	log := s.Logger()
	log.Info("listening", "grpc", s.GRPCAddr(), "peer", s.PeerAddr(), "read", s.ReadURL(), "metrics", s.MetricsAddr())
	go func() {
		select {
		case <-s.Ready():
			log.Info("ready")
		case <-ctx.Done():
		}
	}()
	err = s.Run(ctx)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = nil
	}
	if err = errors.Join(err, s.Close()); err == nil {
		return nil
	}
	if e, ok := errors.AsType[*node.ExitError](err); ok {
		return &failure{code: e.Code, err: err}
	}
	return localError(err)
}
