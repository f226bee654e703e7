package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/creto-systems/creto/cmd/creto/node"
	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi/keyfile"
	"github.com/creto-systems/creto/nhi/spiffe"
	"github.com/creto-systems/creto/sandbox/backend"
	"github.com/creto-systems/creto/sandbox/bubblewrap"
	sandboxnode "github.com/creto-systems/creto/sandbox/node"
	"github.com/creto-systems/creto/sandbox/oci"
	creto "github.com/creto-systems/creto/sdk/go"
)

// sandboxOptions are the flags of `creto sandbox-node`.
type sandboxOptions struct {
	dir       string
	templates []string
	backends  []string
	capacity  int
	ttl       time.Duration
	log       node.LogConfig
}

func (a *app) sandboxNodeCmd() *cobra.Command {
	var o sandboxOptions
	c := &cobra.Command{
		Use: "sandbox-node", Short: "Run commands of one tenant's claims in sandboxes, and attest them",
		Long: `Serve the claims of one tenant (--tenant) from the directory that creto cluster join --role sandbox has made: each command runs in
a sandbox of its own, and the node reports, signed, what came of it and what it used. A lost connection loses no report: they wait
in the directory's spool and are sent again.

--template NAME=DIR offers a root file system; what changes in DIR later does not matter. Isolation comes from bubblewrap or runc,
whichever works on this machine; --backend picks and orders them. SIGTERM ends it in order.`,
		Example: `  creto sandbox-node --dir /var/lib/creto-sandbox --tenant TENANT --template demo=/srv/demo-rootfs
  # from nothing, beside creto dev, with what creto env has set:
  creto cluster token --role sandbox -q > join-token
  creto cluster join --role sandbox --addr "${CRETO_ADDR%%,*}" --join-token-file join-token --dir sandbox-node
  creto sandbox-node --dir sandbox-node --template demo=/srv/demo-rootfs`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.sandboxNode(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.dir, "dir", "", "the node's directory")
	f.StringArrayVar(&o.templates, "template", nil, "NAME=DIR, a root file system to offer; repeat it")
	f.StringArrayVar(&o.backends, "backend", []string{bubblewrap.Name, oci.Name}, "what isolates runs, tried in this order; repeat it")
	f.IntVar(&o.capacity, "capacity", 0, "runs at one time (default 4)")
	f.DurationVar(&o.ttl, "ttl", 0, "how long the ledger counts on the node without hearing of it")
	f.StringVar(&o.log.Level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.log.Format, "log-format", "text", "text or json")
	return c
}

func (o *sandboxOptions) parse() (templates []sandboxnode.Template, backends []backend.Backend, err error) {
	if o.dir == "" {
		return nil, nil, usageError(errors.New("no directory"), "name it with --dir; `creto cluster join --role sandbox` makes it")
	}
	if len(o.templates) == 0 {
		return nil, nil, usageError(errors.New("no templates"), "offer one with --template NAME=DIR")
	}
	for _, t := range o.templates {
		name, dir, ok := strings.Cut(t, "=")
		if !ok || name == "" || dir == "" {
			return nil, nil, usageError(fmt.Errorf("--template %q is not NAME=DIR", t))
		}
		templates = append(templates, sandboxnode.Template{Name: name, Dir: dir})
	}
	for _, name := range o.backends {
		switch name {
		case bubblewrap.Name:
			backends = append(backends, bubblewrap.New(bubblewrap.Config{}))
		case oci.Name:
			backends = append(backends, oci.New(oci.Config{}))
		default:
			return nil, nil, usageError(fmt.Errorf("--backend %q is not %s or %s", name, bubblewrap.Name, oci.Name))
		}
	}
	return templates, backends, nil
}

func (a *app) sandboxNode(ctx context.Context, o sandboxOptions) error {
	templates, backends, err := o.parse()
	if err != nil {
		return err
	}
	tenant, err := a.tenant()
	if err != nil {
		return err
	}
	log := (&node.Config{Log: o.log}).NewLogger(a.err)
	path := func(name string) string { return filepath.Join(o.dir, filepath.FromSlash(name)) }
	genesis, err := readBounded(path("genesis.cbor"), 1<<20)
	if err != nil {
		return localError(fmt.Errorf("read the node's directory: %w", err), "`creto cluster join --role sandbox` makes it")
	}
	k, _, err := keyfile.Read(path("keys/node.key"), nil)
	if err != nil {
		return localError(fmt.Errorf("read the node's key: %w", err))
	}
	key, err := k.Private()
	if err != nil {
		return localError(fmt.Errorf("read the node's key: %w", err))
	}
	files := svidFiles(path("svid"))
	source, err := openNodeSource(files)
	if err != nil {
		return localError(err)
	}
	addrs := a.settings.addrs
	if len(addrs) == 0 {
		if addrs, err = readAddresses(path("local/addresses.json")); err != nil {
			return localError(err, "name the cluster's nodes with --addr")
		}
	}
	c, err := creto.Dial(ctx, creto.Options{Addrs: addrs, Source: source})
	if err != nil {
		return localError(err)
	}
	defer c.Close()
	agent, err := sandboxnode.New(sandboxnode.Config{
		Conn: c, Ledger: ledger.LedgerID(genesis), Tenant: tenant, Node: k.ID, Key: key, Dir: path("local"), Templates: templates,
		Backends: backends, Capacity: o.capacity, TTL: o.ttl, Random: rand.Reader, Now: time.Now, Logger: log,
	})
	if err != nil {
		return localError(err)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := node.KeepSVID(gctx, source, files, func() []string { return addrs }, func(err error) {
			if err != nil {
				log.Warn("certificate not renewed", "err", err, "expires", source.SVID().Certificate().NotAfter)
			} else {
				log.Info("certificate renewed", "expires", source.SVID().Certificate().NotAfter)
			}
		})
		if gctx.Err() != nil {
			return nil
		}
		return err
	})
	stop := errors.New("ended")
	g.Go(func() error {
		if err := agent.Run(gctx); err != nil {
			return err
		}
		return stop
	})
	err = g.Wait()
	switch {
	case err == nil, errors.Is(err, stop), errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return nil
	case errors.Is(err, sandboxnode.ErrNoBackend):
		return localError(err, "install bubblewrap (bwrap) or runc; on Debian: apt-get install bubblewrap")
	}
	return localError(err)
}

// svidFiles are the SVID files of a directory that creto cluster join has made.
func svidFiles(dir string) spiffe.Files {
	return spiffe.Files{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), Bundle: filepath.Join(dir, "bundle.pem")}
}

// openNodeSource opens an SVID and bundle, whose trust domain the bundle's certificate says.
func openNodeSource(files spiffe.Files) (*spiffe.Source, error) {
	b, err := os.ReadFile(files.Bundle)
	if err != nil {
		return nil, fmt.Errorf("read trust bundle: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("read trust bundle %s: not PEM", files.Bundle)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || len(cert.URIs) != 1 {
		return nil, fmt.Errorf("read trust bundle %s: not the certificate of a trust domain", files.Bundle)
	}
	return spiffe.OpenSource(time.Now, cert.URIs[0].Host, files)
}

// readAddresses returns the gRPC addresses that a node's directory knows, in a stable order.
func readAddresses(path string) ([]string, error) {
	b, err := readBounded(path, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	var m map[string]string
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read addresses %s: %w", path, err)
	}
	var out []string
	for _, id := range slices.Sorted(maps.Keys(m)) {
		if m[id] != "" {
			out = append(out, m[id])
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("read addresses %s: none", path)
	}
	return out, nil
}
