package invariants

import (
	"errors"
	"fmt"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/oversight/kind"
)

// approvals derives from leaves alone what may be claimed.
type approvals struct {
	ledger   nhi.Digest
	tenant   nhi.ID
	requests map[uint64]*approval
	links    map[nhi.LinkID]*registry.Link
	types    map[nhi.ID]registry.Type
}

type approval struct {
	agent   nhi.ID
	key     nhi.KeyID
	link    nhi.LinkID
	action  nhi.Digest
	members map[nhi.ID]bool   // of the requester's chain
	votes   map[uint64]bool   // leaves of accepted approving votes
	voters  map[nhi.ID]uint64 // leaf of the one vote of each
	grant   *kind.Grant
	granted uint64
	ended   string // kind of the leaf that ended it
	claimed bool
}

func (c *violations) approvals(rep Replica, r *Report) {
	c.logs(rep, func(t ledger.Tenant) {
		if t.Slot == ledger.SystemSlot {
			return
		}
		a := &approvals{
			ledger: rep.Snap.LedgerID(), tenant: t.ID, requests: make(map[uint64]*approval),
			links: make(map[nhi.LinkID]*registry.Link), types: make(map[nhi.ID]registry.Type),
		}
		head, err := rep.Snap.Head(t.Slot)
		if err != nil {
			return // leaves has said so
		}
		for i := range head.Size {
			e, err := rep.Snap.Event(t.Slot, i)
			if err != nil {
				return
			}
			if !accepted(e.Leaf) {
				continue
			}
			if err := a.leaf(e); err != nil {
				c.add("I7", where(rep, t), "leaf %d (%s): %v", i, e.Leaf.Kind, err)
			}
			if e.Leaf.Kind == kind.Claim {
				r.Claims++
			}
		}
	})
}

func (a *approvals) leaf(e *ledger.StoredEvent) error {
	l := e.Leaf
	body := e.Payload
	if e.Signature != nil {
		ev, err := nhi.DecodeEvent(e.Payload)
		if err != nil {
			return err
		}
		body = ev.Body
	}
	switch l.Kind {
	case registry.KindRegister:
		var b registry.RegisterBody
		if err := canon.Unmarshal(body, &b); err != nil {
			return err
		}
		a.types[b.ID] = b.Type
	case registry.KindRegisterLink:
		var b registry.RegisterLinkBody
		if err := canon.Unmarshal(body, &b); err != nil {
			return err
		}
		link, err := registry.DecodeLink(b.Body)
		if err != nil {
			return err
		}
		a.links[registry.LinkIDOf(b.Body)] = link
	case kind.Request:
		b, err := kind.DecodeRequestBody(body)
		if err != nil {
			return err
		}
		r := &approval{
			agent: l.Agent, key: e.Signature.Key, link: l.Link, action: b.Action.Digest(), votes: make(map[uint64]bool),
			members: map[nhi.ID]bool{l.Agent: true}, voters: make(map[nhi.ID]uint64),
		}
		for id := l.Link; id != (nhi.LinkID{}); {
			link := a.links[id]
			if link == nil {
				return fmt.Errorf("link %s is not registered", id)
			}
			r.members[link.Issuer], r.members[link.Subject] = true, true
			id = link.Parent
		}
		a.requests[l.Index] = r
	case kind.Vote:
		return a.vote(l, body)
	case kind.Granted:
		return a.grant(l, body)
	case kind.Denied, kind.Expired, kind.Lapsed, kind.Unknown:
		b, err := kind.DecodeResolution(body)
		if err != nil {
			return err
		}
		r := a.requests[b.Request]
		if r == nil {
			return fmt.Errorf("request %d is not there", b.Request)
		}
		if r.claimed != (l.Kind == kind.Unknown) {
			return fmt.Errorf("request %d: claimed %t", b.Request, r.claimed)
		}
		r.ended = l.Kind
	case kind.Withdraw:
		b, err := kind.DecodeRefBody(body)
		if err != nil {
			return err
		}
		r := a.requests[b.Request]
		if r == nil {
			return fmt.Errorf("request %d is not there", b.Request)
		}
		delete(r.votes, r.voters[l.Agent])
		if r.grant != nil {
			r.ended = l.Kind
		}
	case kind.Cancel:
		b, err := kind.DecodeRefBody(body)
		if err != nil {
			return err
		}
		if r := a.requests[b.Request]; r != nil {
			r.ended = l.Kind
		}
	case kind.Claim:
		return a.claim(l, e.Signature.Key, body)
	}
	return nil
}

func (a *approvals) vote(l *verify.Leaf, body []byte) error {
	b, err := kind.DecodeVoteBody(body)
	if err != nil {
		return err
	}
	r := a.requests[b.Request]
	switch {
	case r == nil:
		return fmt.Errorf("request %d is not there", b.Request)
	case a.types[l.Agent] != registry.Human:
		return fmt.Errorf("voter %s is no human", l.Agent)
	case r.members[l.Agent]:
		return fmt.Errorf("%s stands in the requester's own chain", l.Agent)
	case b.ActionDigest != r.action:
		return errors.New("vote is about another action")
	case r.voters[l.Agent] != 0:
		return fmt.Errorf("%s voted before", l.Agent)
	}
	r.voters[l.Agent] = l.Index
	if b.Choice == kind.Approve {
		r.votes[l.Index] = true
	}
	return nil
}

func (a *approvals) grant(l *verify.Leaf, body []byte) error {
	g, err := kind.DecodeGrant(body)
	if err != nil {
		return err
	}
	r := a.requests[g.Request]
	switch {
	case r == nil:
		return fmt.Errorf("request %d is not there", g.Request)
	case r.grant != nil:
		return fmt.Errorf("request %d was granted before", g.Request)
	case r.ended != "":
		return fmt.Errorf("request %d ended with %s", g.Request, r.ended)
	case g.ActionDigest != r.action || g.Agent != r.agent || g.Key != r.key || g.Link != r.link:
		return errors.New("grant is for another action, agent, key or link than the request")
	case len(g.Votes) == 0 || g.Uses != 1:
		return fmt.Errorf("grant of %d uses on %d votes", g.Uses, len(g.Votes))
	}
	for _, v := range g.Votes {
		if !r.votes[v] {
			return fmt.Errorf("leaf %d is no approving vote", v)
		}
	}
	r.grant, r.granted = g, l.Index
	return nil
}

func (a *approvals) claim(l *verify.Leaf, key nhi.KeyID, body []byte) error {
	b, err := kind.DecodeClaimBody(body)
	if err != nil {
		return err
	}
	r := a.requests[b.Request]
	switch {
	case r == nil:
		return fmt.Errorf("request %d is not there", b.Request)
	case r.claimed:
		return fmt.Errorf("request %d was claimed before", b.Request)
	case r.grant == nil:
		return fmt.Errorf("request %d was not granted", b.Request)
	case r.ended != "":
		return fmt.Errorf("request %d ended with %s", b.Request, r.ended)
	case l.Time < r.grant.NotBefore || l.Time > r.grant.NotAfter:
		return fmt.Errorf("claimed at %d, the grant holds from %d to %d", l.Time, r.grant.NotBefore, r.grant.NotAfter)
	case b.ActionDigest != r.action:
		return errors.New("claim is of another action")
	case l.Agent != r.agent || key != r.key || l.Link != r.link:
		return errors.New("claim is by another agent, key or link")
	}
	r.claimed = true
	return nil
}
