package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/creto-systems/creto/cmd/creto/node"
	"github.com/creto-systems/creto/ledger/verify"
	cretov1 "github.com/creto-systems/creto/proto/creto/v1"
	creto "github.com/creto-systems/creto/sdk/go"
)

func (a *app) devCmd() *cobra.Command {
	var o struct {
		dir      string
		port     int
		logLevel string
	}
	c := &cobra.Command{
		Use: "dev", Short: "Run three nodes on this machine, for development",
		Long: `Run a cluster of three nodes in this process, on loopback, with a tenant "demo", and print where everything is and what to
try. It is ready in about a second.

For development only: the ledger is marked as a test ledger, its clock can be moved (creto dev clock), and keys have no
passphrase. Without --dir everything is deleted at the end. --ready FILE is written once writes work; creto env reads it.
An interrupt, or SIGTERM, ends the cluster in order.`,
		Example: `  creto dev
  creto dev --dir ./data --port 0 --ready dev.json
  eval "$(creto env --ready dev.json)"`,
		Args:        noArgs,
		Annotations: map[string]string{localOnly: "1"},
		RunE: func(c *cobra.Command, _ []string) error {
			return a.dev(c.Context(), o.dir, o.port, o.logLevel)
		},
	}
	c.Flags().StringVar(&o.dir, "dir", "", "directory to keep (default: a temporary one)")
	c.Flags().IntVar(&o.port, "port", node.DefaultDevPort, "first of the ports; 0 takes free ones")
	c.Flags().StringVar(&o.logLevel, "log-level", "", "also log, at debug, info, warn or error, to stderr")
	c.AddCommand(a.devClockCmd())
	return c
}

func (a *app) dev(ctx context.Context, dir string, port int, logLevel string) error {
	if port < 0 || port > 65535-30 {
		return usageError(fmt.Errorf("--port %d is no port with 30 others above it", port))
	}
	cfg := node.DevConfig{Dir: dir, Port: port, Version: buildVersion().Version}
	if logLevel != "" {
		cfg.Logger = (&node.Config{Log: node.LogConfig{Level: logLevel}}).NewLogger(a.err)
	}
	begun := time.Now()
	d, err := node.StartDev(ctx, cfg)
	if err != nil {
		if p, ok := errors.AsType[*node.PortError](err); ok {
			return localError(err, p.Hint())
		}
		if errors.Is(err, node.ErrInUse) {
			return localError(err, "another development cluster may be running in this directory: stop it, or name another one with --dir")
		}
		return localError(err)
	}
	stopped := make(chan error, 1)
	err = func() error {
		r, err := d.Ready()
		if err != nil {
			return err
		}
		ready := a.settings.readyFile
		if ready == "" {
			ready = filepath.Join(r.DataDir, "ready.json")
		}
		if err := node.WriteReady(ready, r); err != nil {
			return err
		}
		if a.settings.readyFile != "" {
			defer os.Remove(ready) // what it names is about to end
		}
		if err := a.welcome(r, ready, dir != "", time.Since(begun)); err != nil {
			return err
		}
		go func() { stopped <- d.Wait() }()
		select {
		case <-ctx.Done():
			a.say("stopping")
			return nil
		case err := <-stopped:
			return fmt.Errorf("a node has stopped: %w", err)
		}
	}()
	if err = errors.Join(err, d.Close()); err != nil {
		return localError(err)
	}
	return nil
}

// devReady is a ready file as a command's output.
type devReady struct{ *node.ReadyFile }

func (r devReady) quietID() string { return r.Tenant }

// welcome says where everything is and what to try.
func (a *app) welcome(r *node.ReadyFile, ready string, kept bool, took time.Duration) error {
	if a.settings.quiet || a.settings.output != "table" {
		return a.object(devReady{r})
	}
	words := ""
	if b, err := os.ReadFile(r.Trust); err == nil {
		if t, err := verify.ParseTrust(b); err == nil {
			words = "\n             " + t.Fingerprint()
		}
	}
	data := r.DataDir
	if !kept {
		data += "  (deleted at the end; --dir keeps it)"
	}
	_, err := fmt.Fprintf(a.out, `Three nodes are ready after %.1f s, in this process.
For development only: the clock can be moved, keys have no passphrase.

  grpc       %s
  tenant     %s  (demo)
  tiles      %s
             %s
  metrics    %s/metrics
  trust      %s%s
  log key    %s
  data       %s
  ready file %s

Try, in another shell:

  eval "$(creto env --ready %s)"
  creto cluster status
  creto identity create --type human --out ada.key --plain
  creto event list
  creto ledger proof 0 --out leaf0.creto-proof && creto verify leaf0.creto-proof
  creto load --ready %s --events 2000

Ctrl-C ends it.
`, took.Seconds(), strings.Join(r.GRPC, " "), r.Tenant, r.TenantURL, r.SpineURL, strings.Join(first(r.Metrics), ""), r.Trust, words, r.SpineVKey,
		data, ready, shellQuote(ready), shellQuote(ready))
	return err
}

func first(list []string) []string { return list[:min(1, len(list))] }

type clockView struct {
	Time   instant `json:"time"`
	Frozen bool    `json:"frozen"`
}

func (c clockView) quietID() string { return c.Time.String() }

func (a *app) devClockCmd() *cobra.Command {
	set := func(ctx context.Context, req *cretov1.SetClockRequest) error {
		return a.call(ctx, func(ctx context.Context, c *creto.Client) error {
			r, err := cretov1.NewClusterServiceClient(c).SetClock(ctx, req)
			if err != nil {
				return err
			}
			return a.object(clockView{instantNs(r.GetTimeNs()), r.GetFrozen()})
		})
	}
	freeze := &cobra.Command{
		Use: "freeze", Short: "Stop the clock", Args: noArgs, Example: "  creto dev clock freeze",
		RunE: func(c *cobra.Command, _ []string) error {
			return set(c.Context(), &cretov1.SetClockRequest{Freeze: true})
		},
	}
	thaw := &cobra.Command{
		Use: "thaw", Short: "Let the clock run on", Args: noArgs, Example: "  creto dev clock thaw",
		RunE: func(c *cobra.Command, _ []string) error {
			return set(c.Context(), &cretov1.SetClockRequest{Thaw: true})
		},
	}
	show := &cobra.Command{
		Use: "show", Short: "Show the clock", Args: noArgs, Example: "  creto dev clock show",
		RunE: func(c *cobra.Command, _ []string) error { return set(c.Context(), &cretov1.SetClockRequest{}) },
	}
	advance := &cobra.Command{
		Use: "advance DURATION", Short: "Move the clock forward", Args: exactly("DURATION"),
		Example: "  creto dev clock advance 25h   # leases, deadlines and periods end",
		RunE: func(c *cobra.Command, args []string) error {
			d, err := time.ParseDuration(args[0])
			if err != nil || d <= 0 {
				return usageError(fmt.Errorf("%q is not a positive duration", args[0]), "90s, 15m, 25h")
			}
			return set(c.Context(), &cretov1.SetClockRequest{AdvanceNs: int64(d)})
		},
	}
	return noun("clock", "Move a test ledger's time",
		"Move the time of a test ledger, so that leases, deadlines and periods end. Other ledgers refuse. For operators (an admin's SVID).",
		show, freeze, thaw, advance)
}
