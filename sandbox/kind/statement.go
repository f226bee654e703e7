package kind

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gowebpki/jcs"
	intoto "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/creto-systems/creto/nhi"
)

const (
	// PredicateType says what kind of statement a node makes about a run.
	PredicateType = "https://creto.dev/attestation/sandbox-run/v1"
	// PayloadType is the DSSE payload type of an in-toto statement.
	PayloadType = "application/vnd.in-toto+json"

	subjectName = "rootfs"
)

// MaxStatedCommand is how many bytes of JSON a command may have to stand in a statement word by word; of a longer one only
// the digest does.
const MaxStatedCommand = 3 << 10

// maxExact is the largest integer that every JSON reader keeps.
const maxExact = 1 << 53

// Run is what a node states about one run: the predicate of its in-toto statement, whose subject is the root file system.
type Run struct {
	Ledger      nhi.Digest
	Tenant      nhi.ID
	Claim       uint64 // leaf index
	Agent       nhi.ID
	Link        nhi.LinkID
	Account     nhi.ID
	PolicyEpoch uint64 // of the claim
	Node        nhi.ID
	Sequence    uint64 // the node's report number

	Template       string
	Rootfs         nhi.Digest // SHA-256 of the sorted manifest; zero if nothing ran
	Command        []string   // nil after OpenStatement if it was too long to be stated
	CommandDigest  nhi.Digest // filled in by SignStatement
	Isolation      Class
	Backend        string // name, and
	BackendVersion string // version of what isolates

	Status       Status
	Reason       string
	ExitCode     int64
	Output       nhi.Digest // SHA-256 of all the command wrote
	OutputBytes  uint64
	Started      time.Time // by the node's clock; zero if nothing ran
	Finished     time.Time
	MeasuredFrom string // "" if nothing was measured
	WallLimit    int64  // ns
	MemoryLimit  uint64 // bytes
}

// predicate is Run as JSON. Integers are text where they may pass 2^53.
type predicate struct {
	Ledger        string          `json:"ledger"`
	Tenant        string          `json:"tenant"`
	Claim         uint64          `json:"claim"`
	Agent         string          `json:"agent"`
	Link          string          `json:"link,omitempty"`
	Account       string          `json:"account,omitempty"`
	PolicyEpoch   uint64          `json:"policyEpoch"`
	Node          string          `json:"node"`
	Sequence      uint64          `json:"sequence"`
	Template      string          `json:"template"`
	Command       []string        `json:"command,omitempty"`
	CommandDigest string          `json:"commandDigest"`
	Isolation     string          `json:"isolation"`
	Backend       predicateEngine `json:"backend"`
	Status        string          `json:"status"`
	Reason        string          `json:"reason,omitempty"`
	ExitCode      int64           `json:"exitCode"`
	Output        predicateOutput `json:"output"`
	Started       string          `json:"startedOn,omitempty"`
	Finished      string          `json:"finishedOn,omitempty"`
	MeasuredFrom  string          `json:"measuredFrom,omitempty"`
	Limits        predicateLimits `json:"limits"`
}

type predicateEngine struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

type predicateOutput struct {
	SHA256 string `json:"sha256"`
	Bytes  uint64 `json:"bytes"`
}

type predicateLimits struct {
	Wall   int64  `json:"wallNs,string"`
	Memory uint64 `json:"memoryBytes,string"`
}

const timeFormat = time.RFC3339Nano

// encodeStatement returns the one encoding of a statement: the canonical JSON (RFC 8785) of an in-toto statement.
func encodeStatement(r *Run) ([]byte, error) {
	p := predicate{
		Ledger: hexDigest(r.Ledger), Tenant: r.Tenant.String(), Claim: r.Claim, Agent: r.Agent.String(),
		PolicyEpoch: r.PolicyEpoch, Node: r.Node.String(), Sequence: r.Sequence,
		Template: r.Template, CommandDigest: hexDigest(r.CommandDigest),
		Isolation: r.Isolation.String(), Backend: predicateEngine{r.Backend, r.BackendVersion},
		Status: r.Status.String(), Reason: r.Reason, ExitCode: r.ExitCode,
		Output: predicateOutput{hexDigest(r.Output), r.OutputBytes}, MeasuredFrom: r.MeasuredFrom,
		Limits: predicateLimits{r.WallLimit, r.MemoryLimit},
	}
	if stated, err := json.Marshal(r.Command); err == nil && len(stated) <= MaxStatedCommand {
		p.Command = r.Command
	}
	if r.Link != (nhi.LinkID{}) {
		p.Link = r.Link.String()
	}
	if !r.Account.IsZero() {
		p.Account = r.Account.String()
	}
	if !r.Started.IsZero() {
		p.Started = r.Started.UTC().Format(timeFormat)
	}
	if !r.Finished.IsZero() {
		p.Finished = r.Finished.UTC().Format(timeFormat)
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode predicate: %w", err)
	}
	s := &intoto.Statement{
		Type:          intoto.StatementTypeUri,
		Subject:       []*intoto.ResourceDescriptor{{Name: subjectName, Digest: map[string]string{"sha256": hexDigest(r.Rootfs)}}},
		PredicateType: PredicateType,
		Predicate:     new(structpb.Struct),
	}
	if err := protojson.Unmarshal(raw, s.Predicate); err != nil {
		return nil, fmt.Errorf("encode predicate: %w", err)
	}
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("validate statement: %w", err)
	}
	if raw, err = protojson.Marshal(s); err != nil {
		return nil, fmt.Errorf("encode statement: %w", err)
	}
	// protojson varies its white space on purpose.
	if raw, err = jcs.Transform(raw); err != nil {
		return nil, fmt.Errorf("encode statement: %w", err)
	}
	return raw, nil
}

// errEncoding refuses a second spelling of a statement.
var errEncoding = errors.New("is not in its canonical encoding")

// decodeStatement is the inverse of encodeStatement and accepts nothing else.
func decodeStatement(raw []byte) (*Run, error) {
	var s intoto.Statement
	if err := protojson.Unmarshal(raw, &s); err != nil {
		return nil, invalid("statement", "is not an in-toto statement")
	}
	if err := s.Validate(); err != nil {
		return nil, invalid("statement", err.Error())
	}
	if s.Type != intoto.StatementTypeUri || s.PredicateType != PredicateType || len(s.Subject) != 1 {
		return nil, invalid("statement", "is not about one run of a sandbox")
	}
	inner, err := protojson.Marshal(s.Predicate)
	if err != nil {
		return nil, invalid("predicate", "does not decode")
	}
	var p predicate
	d := json.NewDecoder(bytes.NewReader(inner))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return nil, invalid("predicate", "does not decode")
	}
	r, err := p.run(s.Subject[0].Digest["sha256"])
	if err != nil {
		return nil, err
	}
	again, err := encodeStatement(r)
	if err != nil {
		return nil, invalid("statement", "does not encode")
	}
	if !bytes.Equal(again, raw) {
		return nil, invalid("statement", errEncoding.Error())
	}
	return r, nil
}

func (p *predicate) run(rootfs string) (*Run, error) {
	r := &Run{
		Claim: p.Claim, PolicyEpoch: p.PolicyEpoch, Sequence: p.Sequence, Template: p.Template, Command: p.Command,
		Backend: p.Backend.Name, BackendVersion: p.Backend.Version, Reason: p.Reason, ExitCode: p.ExitCode,
		OutputBytes: p.Output.Bytes, MeasuredFrom: p.MeasuredFrom, WallLimit: p.Limits.Wall, MemoryLimit: p.Limits.Memory,
	}
	if max(p.Claim, p.PolicyEpoch, p.Sequence, p.Output.Bytes) > maxExact {
		return nil, invalid("predicate", "has an integer above 2^53")
	}
	var err error
	digest := func(field, text string, dst *nhi.Digest) {
		if d, ok := parseDigest(text); ok {
			*dst = d
		} else if err == nil {
			err = invalid(field, "is not a SHA-256 digest in hex")
		}
	}
	id := func(field, text string, dst *nhi.ID) {
		if i, e := nhi.ParseID(text); e == nil {
			*dst = i
		} else if err == nil {
			err = invalid(field, "is not an id")
		}
	}
	at := func(field, text string, dst *time.Time) {
		if text == "" {
			return
		}
		t, e := time.Parse(timeFormat, text)
		if e != nil && err == nil {
			err = invalid(field, "is not a time")
		}
		*dst = t.UTC()
	}
	digest("subject", rootfs, &r.Rootfs)
	digest("ledger", p.Ledger, &r.Ledger)
	digest("commandDigest", p.CommandDigest, &r.CommandDigest)
	digest("output", p.Output.SHA256, &r.Output)
	id("tenant", p.Tenant, &r.Tenant)
	id("agent", p.Agent, &r.Agent)
	id("node", p.Node, &r.Node)
	if p.Account != "" {
		id("account", p.Account, &r.Account)
	}
	at("startedOn", p.Started, &r.Started)
	at("finishedOn", p.Finished, &r.Finished)
	if err != nil {
		return nil, err
	}
	if p.Link != "" {
		if r.Link, err = nhi.ParseLinkID(p.Link); err != nil {
			return nil, invalid("link", "is not a link id")
		}
	}
	if r.Isolation, err = ParseClass(p.Isolation); err != nil {
		return nil, err
	}
	var ok bool
	if r.Status, ok = parseStatus(p.Status); !ok {
		return nil, invalid("status", "is none of the statuses")
	}
	if r.Command != nil && CommandDigest(r.Command) != r.CommandDigest {
		return nil, invalid("commandDigest", "is not that of the command")
	}
	return r, nil
}

func hexDigest(d nhi.Digest) string { return nhi.LinkID(d).String() }

func parseDigest(s string) (nhi.Digest, bool) {
	l, err := nhi.ParseLinkID(s)
	return nhi.Digest(l), err == nil
}
