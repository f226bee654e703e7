package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/creto-systems/creto/cmd/creto/node"
	"github.com/creto-systems/creto/nhi"
)

// settings are what all client commands are told: by the configuration file, the environment and flags, the later one winning.
type settings struct {
	addrs          []string
	ca, cert, key  string
	token          string // never a flag: a token on a command line is in the process list
	tokenFile      string
	tenant         nhi.ID
	trust          string
	as             string
	authority      string
	admin          string
	link           nhi.LinkID
	account        nhi.ID
	passphraseFile string
	output         string
	timeout        time.Duration
	quiet          bool

	configFile string
	readyFile  string
	ready      *node.ReadyFile
	from       map[string]string // setting → where its value came from
	values     map[string]string
}

// setting is one row of the table of settings.
type setting struct {
	name   string // in the configuration file, and with dashes as flag
	env    string
	short  string
	usage  string
	def    string
	noFlag bool // environment and file only
	secret bool // environment only, and never shown
	set    func(*settings, string) error
}

// settingTable is the one list of client settings: flags, environment, configuration file and `creto config print` follow it.
var settingTable = []setting{
	{name: "addr", env: "CRETO_ADDR", usage: "gRPC addresses of the nodes, host:port, separated by commas", set: func(s *settings, v string) error {
		s.addrs = nil
		for a := range strings.SplitSeq(v, ",") {
			if a = strings.TrimSpace(a); a == "" {
				continue
			}
			if _, port, err := net.SplitHostPort(a); err != nil || port == "" {
				return fmt.Errorf("%q is not HOST:PORT", a)
			}
			s.addrs = append(s.addrs, a)
		}
		return nil
	}},
	{name: "ca", env: "CRETO_CA", usage: "file with the cluster's trust bundle, PEM", set: func(s *settings, v string) error { s.ca = v; return nil }},
	{name: "cert", env: "CRETO_CERT", usage: "file with the caller's SVID, PEM (operators)", set: func(s *settings, v string) error { s.cert = v; return nil }},
	{name: "key", env: "CRETO_KEY", usage: "file with the SVID's private key, PEM", set: func(s *settings, v string) error { s.key = v; return nil }},
	{name: "token", env: "CRETO_TOKEN", noFlag: true, secret: true, usage: "the tenant's read token (environment only)", set: func(s *settings, v string) error { s.token = v; return nil }},
	{name: "token_file", env: "CRETO_TOKEN_FILE", usage: "file with the tenant's read token", set: func(s *settings, v string) error { s.tokenFile = v; return nil }},
	{name: "tenant", env: "CRETO_TENANT", usage: "tenant id", set: func(s *settings, v string) (err error) { s.tenant, err = nhi.ParseID(v); return err }},
	{name: "trust", env: "CRETO_TRUST", usage: "trust file that proofs are checked against", set: func(s *settings, v string) error { s.trust = v; return nil }},
	{name: "as", env: "CRETO_AS", usage: "key file of the identity that signs", set: func(s *settings, v string) error { s.as = v; return nil }},
	{name: "authority", env: "CRETO_AUTHORITY", noFlag: true, usage: "key file of the tenant's authority", set: func(s *settings, v string) error { s.authority = v; return nil }},
	{name: "admin", env: "CRETO_ADMIN", noFlag: true, usage: "key file of an admin", set: func(s *settings, v string) error { s.admin = v; return nil }},
	{name: "link", env: "CRETO_LINK", usage: "delegation chain to act under, by its last link's id", set: func(s *settings, v string) (err error) { s.link, err = nhi.ParseLinkID(v); return err }},
	{name: "account", env: "CRETO_ACCOUNT", usage: "account that events are charged to", set: func(s *settings, v string) (err error) { s.account, err = nhi.ParseID(v); return err }},
	{name: "passphrase_file", env: "CRETO_PASSPHRASE_FILE", usage: "file whose first line is the passphrase of key files", set: func(s *settings, v string) error { s.passphraseFile = v; return nil }},
	{name: "output", env: "CRETO_OUTPUT", short: "o", usage: "form of the output: " + strings.Join(formats, ", "), def: "table", set: func(s *settings, v string) error {
		if !slices.Contains(formats, v) {
			return fmt.Errorf("%q is not one of %s", v, strings.Join(formats, ", "))
		}
		s.output = v
		return nil
	}},
	{name: "timeout", env: "CRETO_TIMEOUT", usage: "how long to go on trying", def: "30s", set: func(s *settings, v string) (err error) {
		s.timeout, err = time.ParseDuration(v)
		if err == nil && s.timeout <= 0 {
			err = errors.New("is not positive")
		}
		return err
	}},
}

func (t setting) flag() string { return strings.ReplaceAll(t.name, "_", "-") }

// localOnly marks commands that talk to no server: their help does not list the connection's flags.
const localOnly = "creto.local"

func (s *settings) flags(root *cobra.Command) {
	f := root.PersistentFlags()
	for _, t := range settingTable {
		if t.noFlag {
			continue
		}
		// Values are read in resolve, where environment and file are known too.
		f.StringP(t.flag(), t.short, "", t.usage+" ["+t.env+"]"+defaultOf(t))
	}
	f.BoolVarP(&s.quiet, "quiet", "q", false, "print ids only")
	f.StringVar(&s.configFile, "config", "", "configuration file [CRETO_CONFIG] (default creto/config.yaml in the user's configuration folder)")
	f.StringVar(&s.readyFile, "ready", "", "ready file of a development cluster, which has addresses, token and certificates [CRETO_READY]")
}

func defaultOf(t setting) string {
	if t.def == "" {
		return ""
	}
	return " (default " + t.def + ")"
}

// resolve finds the value of each setting and remembers where it came from.
func (s *settings) resolve(c *cobra.Command, getenv func(string) string) error {
	s.from, s.values = make(map[string]string), make(map[string]string)
	file, path, err := s.readConfig(c, getenv)
	if err != nil {
		return err
	}
	readySource := "--ready"
	if s.readyFile == "" && c.Annotations[localOnly] == "" {
		s.readyFile, readySource = getenv("CRETO_READY"), "CRETO_READY"
	}
	var ready map[string]string
	if s.readyFile != "" && c.Annotations[localOnly] == "" {
		if s.ready, err = readReady(s.readyFile); err != nil {
			return localError(err)
		}
		ready = readySettings(s.ready)
	}
	for _, t := range settingTable {
		value, source := t.def, "default"
		if v, ok := file[t.name]; ok {
			value, source = v, path
		}
		if v, ok := ready[t.name]; ok && readySource == "CRETO_READY" {
			value, source = v, "CRETO_READY ("+s.readyFile+")"
		}
		if v := getenv(t.env); v != "" {
			value, source = v, t.env
		}
		if v, ok := ready[t.name]; ok && readySource == "--ready" {
			value, source = v, "--ready "+s.readyFile
		}
		if f := lookup(c, t.flag()); f != nil && f.Changed {
			value, source = f.Value.String(), "--"+t.flag()
		}
		if value == "" {
			continue
		}
		if err := t.set(s, value); err != nil {
			if err = fmt.Errorf("%s: %w", source, err); strings.HasPrefix(source, "--") {
				return usageError(err)
			}
			return localError(err, "`creto config print` shows where each value comes from")
		}
		s.from[t.name], s.values[t.name] = source, value
	}
	return nil
}

// lookup finds a flag of the root, unless the command has one of its own with that name.
func lookup(c *cobra.Command, name string) *pflag.Flag {
	if c.LocalNonPersistentFlags().Lookup(name) != nil {
		return nil
	}
	return c.Root().PersistentFlags().Lookup(name)
}

const maxConfig = 64 << 10

// readConfig reads the configuration file: the one that was named, or the user's if there is one.
func (s *settings) readConfig(c *cobra.Command, getenv func(string) string) (values map[string]string, path string, err error) {
	named := true
	if path = s.configFile; path == "" {
		path = getenv("CRETO_CONFIG")
	}
	if path == "" {
		named = false
		dir, err := os.UserConfigDir()
		if err != nil {
			return nil, "", nil // no home, no configuration
		}
		path = filepath.Join(dir, "creto", "config.yaml")
	}
	if c.Annotations[ownConfig] != "" {
		return nil, "", nil
	}
	b, err := readBounded(path, maxConfig)
	if errors.Is(err, os.ErrNotExist) && !named {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", localError(fmt.Errorf("read configuration: %w", err))
	}
	values, err = parseClientConfig(b)
	if err != nil {
		return nil, "", localError(fmt.Errorf("read configuration %s: %w", path, err))
	}
	s.configFile = path
	return values, path, nil
}

// ownConfig marks commands whose --config is the file of a node, not of the client.
const ownConfig = "creto.own-config"

// parseClientConfig parses a client's configuration strictly: every key is a setting.
func parseClientConfig(b []byte) (map[string]string, error) {
	var raw map[string]yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&raw); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	values := make(map[string]string, len(raw))
	var unknown []string
	for name, n := range raw {
		known := slices.ContainsFunc(settingTable, func(t setting) bool { return t.name == name && !t.secret })
		switch {
		case !known:
			unknown = append(unknown, name)
		case n.Kind == yaml.SequenceNode && name == "addr":
			var list []string
			if err := n.Decode(&list); err != nil {
				return nil, err
			}
			values[name] = strings.Join(list, ",")
		case n.Kind == yaml.ScalarNode:
			values[name] = n.Value
		default:
			return nil, fmt.Errorf("%s is not a single value", name)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return nil, fmt.Errorf("unknown key %s", strings.Join(unknown, ", "))
	}
	return values, nil
}

func readReady(path string) (*node.ReadyFile, error) {
	b, err := readBounded(path, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, localError(fmt.Errorf("read ready file: %w", err), "a cluster writes it once it is ready, and removes it when it ends: is `creto dev --ready "+shellQuote(path)+"` running?")
	}
	if err != nil {
		return nil, fmt.Errorf("read ready file: %w", err)
	}
	r := new(node.ReadyFile)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("read ready file %s: %w", path, err)
	}
	return r, nil
}

// readySettings returns what a ready file says about the settings.
func readySettings(r *node.ReadyFile) map[string]string {
	m := map[string]string{
		"addr": strings.Join(r.GRPC, ","), "ca": r.CA, "cert": r.AdminCert, "key": r.AdminKey, "token": r.ReadToken,
		"tenant": r.Tenant, "trust": r.Trust, "authority": r.AuthorityKey, "admin": r.AdminSigner,
	}
	for k, v := range m {
		if v == "" {
			delete(m, k)
		}
	}
	return m
}

// readBounded reads a file of at most max bytes.
func readBounded(path string, max int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > max {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, max)
	}
	return b, nil
}
