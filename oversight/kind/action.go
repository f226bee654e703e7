package kind

import (
	"crypto/sha256"
	"fmt"

	"github.com/creto-systems/creto/nhi"
)

// Bounds of an action.
const (
	MaxOperation = 64
	MaxResource  = 128
	MaxRun       = 64
)

// Action is what is to be done: what policies judge, people approve and the grant allows once. Operation, resource and run
// are printable ASCII without spaces, quotes and backslashes.
type Action struct {
	Operation  string `cbor:"1,keyasint"` // what policies know as the action: "pay", "mail.send"
	Resource   string `cbor:"2,keyasint"` // "account:" and an account's id, or any name
	Parameters []byte `cbor:"3,keyasint"` // canonical JSON object, see Parameters; what policies know as the context
	Agent      nhi.ID `cbor:"4,keyasint"` // who does it, and alone may claim the grant
	Run        string `cbor:"5,keyasint"` // of the agent; may be empty
}

// NewAction returns the action with the canonical form of parameters, which is anything that encoding/json turns into an
// object; nil is the empty one.
func NewAction(agent nhi.ID, operation, resource, run string, parameters any) (*Action, error) {
	if parameters == nil {
		parameters = struct{}{}
	}
	p, err := Parameters(parameters)
	if err != nil {
		return nil, err
	}
	a := &Action{Operation: operation, Resource: resource, Parameters: p, Agent: agent, Run: run}
	if _, err := a.Check(); err != nil {
		return nil, err
	}
	return a, nil
}

// Check holds an action against its form and returns its parsed parameters. Errors are *InvalidError.
func (a *Action) Check() (map[string]any, error) {
	switch {
	case len(a.Operation) > MaxOperation || !plain(a.Operation):
		return nil, invalid("operation", fmt.Sprintf("is not 1 to %d printable ASCII characters without spaces and quotes", MaxOperation))
	case len(a.Resource) > MaxResource || !plain(a.Resource):
		return nil, invalid("resource", fmt.Sprintf("is not 1 to %d printable ASCII characters without spaces and quotes", MaxResource))
	case a.Run != "" && (len(a.Run) > MaxRun || !plain(a.Run)):
		return nil, invalid("run", fmt.Sprintf("is not up to %d printable ASCII characters without spaces and quotes", MaxRun))
	case a.Agent.IsZero():
		return nil, invalid("agent", "is zero")
	}
	m, err := ParseParameters(a.Parameters)
	if err != nil {
		return nil, err
	}
	for _, key := range [...]string{"approval", "chain_depth", "purpose", "root_human"} {
		if _, taken := m[key]; taken {
			return nil, invalid("parameters", fmt.Sprintf("have a member %q, a name that policies reserve", key))
		}
	}
	return m, nil
}

// Canonical returns the canonical JSON (RFC 8785) of an action that Check accepts: an object of agent (base32), operation,
// parameters, resource and run.
func (a *Action) Canonical() []byte {
	b := make([]byte, 0, 128+len(a.Operation)+len(a.Resource)+len(a.Run)+len(a.Parameters))
	b = append(b, `{"agent":"`...)
	b = append(b, a.Agent.String()...)
	b = append(b, `","operation":"`...)
	b = append(b, a.Operation...)
	b = append(b, `","parameters":`...)
	b = append(b, a.Parameters...)
	b = append(b, `,"resource":"`...)
	b = append(b, a.Resource...)
	b = append(b, `","run":"`...)
	b = append(b, a.Run...)
	return append(b, `"}`...)
}

// Digest is SHA-256 of Canonical: what votes, grants and claims name the action by.
func (a *Action) Digest() nhi.Digest { return sha256.Sum256(a.Canonical()) }
