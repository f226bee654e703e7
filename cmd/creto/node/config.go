package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/creto-systems/creto/nhi"
)

// ConfigFile is the name of the configuration file in a node's directory.
const ConfigFile = "node.yaml"

// maxConfigSize bounds a configuration file, in bytes.
const maxConfigSize = 1 << 20

// Config is everything a node is told. The comments are its manual; the YAML names are those of node.yaml, and
// configuration that comes from elsewhere (environment, flags) overrides single fields of it. A path that is not absolute
// lies under DataDir.
type Config struct {
	// DataDir is the node's directory (layout: DESIGN.md). One node, one directory. Default: that of the configuration file.
	DataDir string `yaml:"data_dir,omitempty"`
	// Listen says where the node listens.
	Listen ListenConfig `yaml:"listen"`
	// Advertise says how others reach the node. Default: the addresses listened on.
	Advertise AdvertiseConfig `yaml:"advertise,omitempty"`
	// Peers are the other nodes' addresses as this node knows them from outside the log. The log names the members and
	// their Raft addresses; an entry here overrides the Raft address and tells the gRPC address. What nodes tell one another
	// about their gRPC addresses is remembered beside it (docs/ports.md).
	Peers []PeerConfig `yaml:"peers,omitempty"`
	// CADir is the directory of the cluster's certificate authority, on the node that has it: that one can admit nodes and
	// renews its own certificate. Default: "ca" where that exists, otherwise none.
	CADir string `yaml:"ca_dir,omitempty"`
	// PlainRead serves the read listener over plain HTTP. Only on a loopback address.
	PlainRead bool `yaml:"plain_read,omitempty"`
	// PlainMetrics serves the metrics listener over plain HTTP. Only on a loopback address. Default: mutual TLS.
	PlainMetrics bool `yaml:"plain_metrics,omitempty"`
	// Log says what is logged and how.
	Log LogConfig `yaml:"log,omitempty"`
	// Raft are the timers of consensus.
	Raft RaftConfig `yaml:"raft,omitempty"`
	// Limits bound what clients may hold.
	Limits LimitsConfig `yaml:"limits,omitempty"`
	// Disk says how much room is kept on the data directory's file system.
	Disk DiskConfig `yaml:"disk,omitempty"`
}

// ListenConfig names the listeners' addresses, host:port each; port 0 takes a free one. An empty address switches the
// listener off, where that is possible.
type ListenConfig struct {
	Peer    string `yaml:"peer"`              // Raft between nodes; required
	GRPC    string `yaml:"grpc"`              // the API; required
	Read    string `yaml:"read,omitempty"`    // tiles and checkpoints over HTTP
	Admin   string `yaml:"admin,omitempty"`   // "unix:PATH". Default: unix:admin.sock; "off" switches it off
	Metrics string `yaml:"metrics,omitempty"` // /metrics, /livez, /readyz
}

// AdvertiseConfig names the addresses that others dial.
type AdvertiseConfig struct {
	Peer string `yaml:"peer,omitempty"`
	GRPC string `yaml:"grpc,omitempty"`
	Read string `yaml:"read,omitempty"` // URL prefix of the read listener, such as https://logs.example.org
}

// PeerConfig is one other node.
type PeerConfig struct {
	ID   nhi.ID `yaml:"id"`
	Peer string `yaml:"peer,omitempty"`
	GRPC string `yaml:"grpc,omitempty"`
}

// LogConfig says what is logged and how.
type LogConfig struct {
	Level  string `yaml:"level,omitempty"`  // debug, info, warn or error. Default: info
	Format string `yaml:"format,omitempty"` // text or json. Default: text
}

// RaftConfig are the timers of consensus. Multiply all three for slow networks.
type RaftConfig struct {
	Heartbeat   time.Duration `yaml:"heartbeat,omitempty"`    // default 1s
	Election    time.Duration `yaml:"election,omitempty"`     // default 1s
	LeaderLease time.Duration `yaml:"leader_lease,omitempty"` // default 1s; at most Heartbeat
}

// DiskConfig says how much room is kept on the data directory's file system.
type DiskConfig struct {
	// MinFreePercent is the part below which a leader takes no more events, at least 96 MiB and at most 8 GiB; −1: no such bound.
	// Default: 10
	MinFreePercent int `yaml:"min_free_percent,omitempty"`
	// BallastBytes are held in a file that is given up when the disk has no room left; −1: none. Default: 64 MiB
	BallastBytes int64 `yaml:"ballast_bytes,omitempty"`
}

// LimitsConfig bound what clients may hold.
type LimitsConfig struct {
	Connections int `yaml:"connections,omitempty"` // of the gRPC listener, and of the read listener. Default: 4096
	Streams     int `yaml:"streams,omitempty"`     // concurrent calls of one connection. Default: 256
	// RequestBytes bounds the clients' requests that are read or served at one time, all together. Default: 256 MiB
	RequestBytes int `yaml:"request_bytes,omitempty"`
}

// LoadConfig reads a configuration file strictly: an unknown key is an error. Defaults are not filled in.
func LoadConfig(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load configuration: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfigSize+1))
	if err != nil {
		return nil, fmt.Errorf("load configuration %s: %w", path, err)
	}
	c, err := ParseConfig(b)
	if err != nil {
		return nil, fmt.Errorf("load configuration %s: %w", path, err)
	}
	if c.DataDir == "" {
		c.DataDir = filepath.Dir(path)
	}
	return c, nil
}

// ParseConfig parses the text of a configuration file strictly.
func ParseConfig(b []byte) (*Config, error) {
	if len(b) > maxConfigSize {
		return nil, fmt.Errorf("parse configuration: larger than %d bytes", maxConfigSize)
	}
	c := new(Config)
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("parse configuration: %w", err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("parse configuration: more than one document")
	}
	return c, nil
}

// YAML returns the configuration in the form that ParseConfig reads.
func (c *Config) YAML() ([]byte, error) {
	b, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("format configuration: %w", err)
	}
	return b, nil
}

// EnsureDefaults fills in what is not set.
func (c *Config) EnsureDefaults() {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&c.Listen.Admin, "unix:"+adminSocket)
	def(&c.Log.Level, "info")
	def(&c.Log.Format, "text")
	if c.CADir == "" {
		if _, err := os.Stat(c.path(caDir)); err == nil {
			c.CADir = caDir
		}
	}
	dur := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	dur(&c.Raft.Heartbeat, time.Second)
	dur(&c.Raft.Election, c.Raft.Heartbeat)
	dur(&c.Raft.LeaderLease, c.Raft.Heartbeat/2)
	if c.Limits.Connections == 0 {
		c.Limits.Connections = 4096
	}
	if c.Limits.Streams == 0 {
		c.Limits.Streams = 256
	}
	if c.Limits.RequestBytes == 0 {
		c.Limits.RequestBytes = 256 << 20
	}
}

// Validate reports everything that is wrong with a configuration whose defaults are filled in.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.DataDir == "" {
		bad("data_dir is missing")
	}
	address := func(name, a string, required bool) {
		switch {
		case a == "" && required:
			bad("%s is missing", name)
		case a != "":
			if _, _, err := net.SplitHostPort(a); err != nil {
				bad("%s %q is not host:port", name, a)
			}
		}
	}
	address("listen.peer", c.Listen.Peer, true)
	address("listen.grpc", c.Listen.GRPC, true)
	address("listen.read", c.Listen.Read, false)
	address("listen.metrics", c.Listen.Metrics, false)
	address("advertise.peer", c.Advertise.Peer, false)
	address("advertise.grpc", c.Advertise.GRPC, false)
	if a := c.Listen.Admin; a != "off" {
		if p, ok := strings.CutPrefix(a, "unix:"); !ok || p == "" {
			bad(`listen.admin %q is neither "unix:PATH" nor "off"`, a)
		}
	}
	if c.PlainRead && c.Listen.Read != "" && !isLoopback(c.Listen.Read) {
		bad("plain_read needs a loopback address, not %q", c.Listen.Read)
	}
	if c.PlainMetrics && c.Listen.Metrics != "" && !isLoopback(c.Listen.Metrics) {
		bad("plain_metrics needs a loopback address, not %q", c.Listen.Metrics)
	}
	seen := make(map[nhi.ID]bool)
	for i, p := range c.Peers {
		if p.ID.IsZero() || seen[p.ID] {
			bad("peers[%d].id is missing or stands there twice", i)
		}
		seen[p.ID] = true
		address(fmt.Sprintf("peers[%d].peer", i), p.Peer, false)
		address(fmt.Sprintf("peers[%d].grpc", i), p.GRPC, false)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		bad("log.level %q is not debug, info, warn or error", c.Log.Level)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		bad("log.format %q is not text or json", c.Log.Format)
	}
	if r := c.Raft; r.Heartbeat < 5*time.Millisecond || r.Election < r.Heartbeat || r.LeaderLease <= 0 || r.LeaderLease > r.Heartbeat {
		bad("raft timers must satisfy 5ms ≤ heartbeat ≤ election and 0 < leader_lease ≤ heartbeat")
	}
	if c.Disk.MinFreePercent < -1 || c.Disk.MinFreePercent > 90 || c.Disk.BallastBytes < -1 {
		bad("disk.min_free_percent must be −1 to 90, and disk.ballast_bytes −1 or a size")
	}
	if c.Limits.Connections < 1 || c.Limits.Streams < 1 {
		bad("limits must be positive")
	}
	if c.Limits.RequestBytes < maxMessage {
		bad("limits.request_bytes must have room for one request of %d bytes", maxMessage)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("check configuration: %w", err)
	}
	return nil
}

// NewLogger returns the logger that the configuration describes.
func (c *Config) NewLogger(w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Log.Level)) // Validate has seen it; otherwise info
	o := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

func (c *Config) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(c.DataDir, name)
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
