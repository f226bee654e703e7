package verify

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/creto-systems/creto/nhi"
)

// Bounds of a trust file.
const (
	MaxTrustSize      = 512 << 10 // bytes
	MaxTrustLogs      = 32
	MaxTrustWitnesses = 256 // a node counts twice: its Ed25519 and its ML-DSA-44 key
	MaxTrustGroups    = 128
	MaxTrustReceipts  = 256 // receipt keys
)

// ErrTrust is what every malformed trust file matches with errors.Is.
var ErrTrust = errors.New("malformed trust file")

// Trust is the content of a trust file: whom a verifier believes. Its text is c2sp.org/tlog-policy with three more kinds
// of lines:
//
//	ledger_id <64 hex digits>                    exactly once: the hash of the ledger's genesis leaf
//	receipt_key <node id> <64 hex digits>        a node and the id of the key with which it signs receipts
//	valid <witness name or log vkey> <from> <to> POSIX seconds, or "-" for no bound; from is included, to is not
//
// A Trust is immutable after ParseTrust and safe for concurrent use.
type Trust struct {
	LedgerID  nhi.Digest
	Logs      []TrustLog
	Witnesses []TrustWitness
	Groups    []TrustGroup
	Quorum    string // name of a witness or group, or QuorumNone
	Receipts  []TrustReceiptKey
	Valid     []TrustInterval
}

// QuorumNone is the quorum of a trust file that asks for no cosignature at all.
const QuorumNone = "none"

// TrustLog is a log key. Several keys may have the same name, the log's origin, while one replaces the other.
type TrustLog struct {
	Key VKey // type 01
	URL string
}

// TrustWitness is a cosigner under the name that groups use.
type TrustWitness struct {
	Name string
	Key  VKey // type 04 or 06
	URL  string
}

// TrustGroup holds when at least K of its members do.
type TrustGroup struct {
	Name    string
	K       int
	Members []string
}

// TrustReceiptKey says with which composite key a node signs receipts.
type TrustReceiptKey struct {
	Node nhi.ID
	Key  nhi.KeyID
}

// TrustInterval bounds the signatures of a key to [From, To) in POSIX seconds.
type TrustInterval struct {
	Name     string
	From, To int64
}

// trustParser holds what the rules of the grammar need to know of earlier lines.
type trustParser struct {
	t       Trust
	ledger  bool
	defined map[string]bool // witnesses and groups
	members map[string]bool // names that some group lists
	valid   map[string]bool
	logKeys map[string]bool
	wtKeys  map[string]bool
}

// ParseTrust parses a trust file strictly. The error matches ErrTrust and names the line.
func ParseTrust(b []byte) (*Trust, error) {
	if len(b) > MaxTrustSize {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrTrust, MaxTrustSize)
	}
	if len(b) == 0 || b[len(b)-1] != '\n' {
		return nil, fmt.Errorf("%w: no newline at the end", ErrTrust)
	}
	for _, c := range b {
		if c < ' ' && c != '\n' && c != '\t' || c == 0x7f {
			return nil, fmt.Errorf("%w: control character", ErrTrust)
		}
	}
	p := &trustParser{
		defined: map[string]bool{}, members: map[string]bool{}, valid: map[string]bool{},
		logKeys: map[string]bool{}, wtKeys: map[string]bool{},
	}
	for i, line := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		words := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if err := p.line(words); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrTrust, i+1, err)
		}
	}
	if err := p.finish(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrust, err)
	}
	return &p.t, nil
}

func (p *trustParser) line(words []string) error {
	args := words[1:]
	between := func(low, high int) error {
		if len(args) < low || len(args) > high {
			return fmt.Errorf("%q has %d arguments", clip(words[0]), len(args))
		}
		return nil
	}
	switch words[0] {
	case "ledger_id":
		if err := between(1, 1); err != nil {
			return err
		}
		return p.ledgerID(args[0])
	case "log":
		if err := between(1, 2); err != nil {
			return err
		}
		return p.log(args)
	case "witness":
		if err := between(2, 3); err != nil {
			return err
		}
		return p.witness(args)
	case "group":
		if len(args) < 3 {
			return errors.New("a group has a name, a threshold and at least one member")
		}
		return p.group(args)
	case "quorum":
		if err := between(1, 1); err != nil {
			return err
		}
		return p.quorum(args[0])
	case "receipt_key":
		if err := between(2, 2); err != nil {
			return err
		}
		return p.receiptKey(args)
	case "valid":
		if err := between(3, 3); err != nil {
			return err
		}
		return p.interval(args)
	}
	return fmt.Errorf("unknown keyword %q", clip(words[0]))
}

// parseDigest parses 64 lower-case hex digits.
func parseDigest(s string) (nhi.Digest, error) {
	var d nhi.Digest
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(d) || hex.EncodeToString(b) != s {
		return d, fmt.Errorf("%q is not 64 lower-case hex digits", clip(s))
	}
	copy(d[:], b)
	return d, nil
}

func (p *trustParser) ledgerID(s string) error {
	if p.ledger {
		return errors.New("a second ledger_id")
	}
	d, err := parseDigest(s)
	if err != nil {
		return err
	}
	p.t.LedgerID, p.ledger = d, true
	return nil
}

func (p *trustParser) log(args []string) error {
	key, err := ParseVKey(args[0])
	switch {
	case err != nil:
		return err
	case key.Type != KeyEd25519:
		return fmt.Errorf("a log's key is of type 01, not %#02x", byte(key.Type))
	case p.logKeys[key.Key]:
		return errors.New("the same log key twice")
	case len(p.t.Logs) == MaxTrustLogs:
		return fmt.Errorf("more than %d logs", MaxTrustLogs)
	}
	if err := nhi.CheckEd25519Key([]byte(key.Key)); err != nil {
		return err
	}
	p.logKeys[key.Key] = true
	p.t.Logs = append(p.t.Logs, TrustLog{Key: key, URL: optional(args, 1)})
	return nil
}

func optional(args []string, i int) string {
	if i < len(args) {
		return args[i]
	}
	return ""
}

// define takes a name of the one namespace of witnesses and groups.
func (p *trustParser) define(name string) error {
	switch {
	case name == QuorumNone:
		return errors.New(`the name "none" is taken`)
	case len(name) > MaxOriginSize:
		return errors.New("a name is longer than 255 bytes")
	case p.defined[name]:
		return fmt.Errorf("%q is defined twice", clip(name))
	}
	p.defined[name] = true
	return nil
}

func (p *trustParser) witness(args []string) error {
	key, err := ParseVKey(args[1])
	switch {
	case err != nil:
		return err
	case key.Type == KeyEd25519:
		return errors.New("a witness key is of type 04 or 06, not 01")
	case p.wtKeys[key.Key]:
		return errors.New("the same witness key twice")
	case len(p.t.Witnesses) == MaxTrustWitnesses:
		return fmt.Errorf("more than %d witnesses", MaxTrustWitnesses)
	}
	if key.Type == KeyCosignature {
		err = nhi.CheckEd25519Key([]byte(key.Key))
	} else {
		_, err = nhi.ParseMLDSA44([]byte(key.Key))
	}
	if err != nil {
		return err
	}
	if err := p.define(args[0]); err != nil {
		return err
	}
	p.wtKeys[key.Key] = true
	p.t.Witnesses = append(p.t.Witnesses, TrustWitness{Name: args[0], Key: key, URL: optional(args, 2)})
	return nil
}

func (p *trustParser) group(args []string) error {
	g := TrustGroup{Name: args[0], Members: slices.Clone(args[2:])}
	if len(p.t.Groups) == MaxTrustGroups {
		return fmt.Errorf("more than %d groups", MaxTrustGroups)
	}
	switch args[1] {
	case "all":
		g.K = len(g.Members)
	case "any":
		g.K = 1
	default:
		k, err := strconv.Atoi(args[1])
		if err != nil || strconv.Itoa(k) != args[1] || k < 1 || k > len(g.Members) {
			return fmt.Errorf("threshold %q is not all, any or a number from 1 to the number of members", clip(args[1]))
		}
		g.K = k
	}
	for _, m := range g.Members {
		if !p.defined[m] {
			return fmt.Errorf("member %q is not defined before", clip(m))
		}
		if p.members[m] {
			return fmt.Errorf("%q is a member twice", clip(m))
		}
		p.members[m] = true
	}
	if err := p.define(g.Name); err != nil {
		return err
	}
	p.t.Groups = append(p.t.Groups, g)
	return nil
}

func (p *trustParser) quorum(name string) error {
	if p.t.Quorum != "" {
		return errors.New("a second quorum")
	}
	if name != QuorumNone && !p.defined[name] {
		return fmt.Errorf("quorum %q is not defined before", clip(name))
	}
	p.t.Quorum = name
	return nil
}

func (p *trustParser) receiptKey(args []string) error {
	node, err := nhi.ParseID(args[0])
	if err != nil {
		return err
	}
	key, err := nhi.ParseKeyID(args[1])
	if err != nil {
		return err
	}
	if len(p.t.Receipts) == MaxTrustReceipts {
		return fmt.Errorf("more than %d receipt keys", MaxTrustReceipts)
	}
	for _, r := range p.t.Receipts {
		if r.Key == key {
			return errors.New("the same receipt key twice")
		}
	}
	p.t.Receipts = append(p.t.Receipts, TrustReceiptKey{Node: node, Key: key})
	return nil
}

func (p *trustParser) interval(args []string) error {
	from, err := parseBound(args[1], 0)
	if err != nil {
		return err
	}
	to, err := parseBound(args[2], math.MaxInt64)
	if err != nil {
		return err
	}
	if from >= to {
		return errors.New("the interval is empty")
	}
	if p.valid[args[0]] {
		return fmt.Errorf("%q has two intervals", clip(args[0]))
	}
	p.valid[args[0]] = true
	p.t.Valid = append(p.t.Valid, TrustInterval{Name: args[0], From: from, To: to})
	return nil
}

func parseBound(s string, open int64) (int64, error) {
	if s == "-" {
		return open, nil
	}
	n, err := parseDecimal(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time in POSIX seconds", clip(s))
	}
	return int64(n), nil
}

// finish checks what concerns the whole file. A log key under rotation is named in a valid line by its verifier key's
// text, since two log keys share the origin.
func (p *trustParser) finish() error {
	if !p.ledger {
		return errors.New("no ledger_id line")
	}
	if p.t.Quorum == "" {
		return errors.New("no quorum line")
	}
	if len(p.t.Logs) == 0 {
		return errors.New("no log line")
	}
	for _, v := range p.t.Valid {
		known := slices.ContainsFunc(p.t.Logs, func(l TrustLog) bool { return v.Name == l.Key.String() }) ||
			slices.ContainsFunc(p.t.Witnesses, func(w TrustWitness) bool { return v.Name == w.Name })
		if !known {
			return fmt.Errorf("valid line for %q, which is neither a witness nor a log key", clip(v.Name))
		}
	}
	return nil
}

// Format returns the text of the trust file without comments: ledger_id, logs, witnesses, groups, receipt keys, intervals,
// quorum, each kind in its order. ParseTrust of it gives an equal Trust.
func (t *Trust) Format() []byte { return t.format(true, true) }

// Policy returns the part that is plain c2sp.org/tlog-policy, for tools that do not know our lines.
func (t *Trust) Policy() []byte { return t.format(true, false) }

func (t *Trust) format(urls, ours bool) []byte {
	var b []byte
	line := func(words ...string) {
		for i, w := range words {
			if w == "" {
				continue
			}
			if i > 0 {
				b = append(b, ' ')
			}
			b = append(b, w...)
		}
		b = append(b, '\n')
	}
	url := func(u string) string {
		if urls {
			return u
		}
		return ""
	}
	if ours {
		line("ledger_id", hex.EncodeToString(t.LedgerID[:]))
	}
	for _, l := range t.Logs {
		line("log", l.Key.String(), url(l.URL))
	}
	for _, w := range t.Witnesses {
		line("witness", w.Name, w.Key.String(), url(w.URL))
	}
	for _, g := range t.Groups {
		k := strconv.Itoa(g.K)
		if g.K == len(g.Members) {
			k = "all"
		} else if g.K == 1 {
			k = "any"
		}
		line(append([]string{"group", g.Name, k}, g.Members...)...)
	}
	if ours {
		for _, r := range t.Receipts {
			line("receipt_key", r.Node.String(), r.Key.String())
		}
		for _, v := range t.Valid {
			line("valid", v.Name, formatBound(v.From, 0), formatBound(v.To, math.MaxInt64))
		}
	}
	line("quorum", t.Quorum)
	return b
}

func formatBound(n, open int64) string {
	if n == open {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}
