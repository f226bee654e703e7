package ledger

import (
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
)

// JoinToken is what the system log knows of a token that admits one node.
type JoinToken struct {
	Role     registry.Role
	Expires  int64      // ns
	Redeemer nhi.ID     // node that served the join; zero = not redeemed
	Node     nhi.ID     // node that joins
	Used     bool       // the node is registered
	Request  nhi.Digest // SHA-256 of what the joining node has asked with; zero = not said
}

// JoinToken finds a join token by its SHA-256. The error matches ErrNotFound.
func (s *Snapshot) JoinToken(token nhi.Digest) (JoinToken, error) {
	b, ok, err := s.row(rowKey(nil, tableJoin, SystemSlot, token[:]))
	if err != nil {
		return JoinToken{}, err
	}
	if !ok {
		return JoinToken{}, ErrNotFound
	}
	row := new(joinRow)
	if err := canon.Unmarshal(b, row); err != nil {
		return JoinToken{}, corrupt("join token: %v", err)
	}
	return JoinToken{
		Role: row.Role, Expires: row.Expires, Redeemer: row.Redeemer, Node: row.Node, Used: row.Used, Request: row.Request,
	}, nil
}
