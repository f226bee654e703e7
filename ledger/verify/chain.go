package verify

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
)

// linkParts are the fields of a delegation link that hold a chain together (keys of the link's canonical CBOR map).
type linkParts struct {
	ledger   nhi.Digest // 2
	tenant   nhi.ID     // 3
	issuer   nhi.ID     // 5
	subject  nhi.ID     // 7
	parent   nhi.LinkID // 9, zero at the root
	depth    uint64     // 10, zero at the root
	complete bool
}

// linkID computes the id of a link's body.
func linkID(body []byte) nhi.LinkID {
	h := sha256.New()
	h.Write([]byte("creto/dlg/v1\x00"))
	h.Write(body)
	var id nhi.LinkID
	h.Sum(id[:0])
	return id
}

// parseLink reads the parts; the body's other fields only have to be canonical, since the ledger checked the link when it
// was registered and its id commits to all of them.
func parseLink(body []byte) (*linkParts, error) {
	if len(body) > 4<<10 {
		return nil, errors.New("a link is longer than 4096 bytes")
	}
	if err := canon.Check(body); err != nil {
		return nil, err
	}
	l := new(linkParts)
	r := newReader(body)
	for f := r.fields(24); ; {
		k, ok := f.key()
		if !ok {
			break
		}
		switch k {
		case 2:
			r.fixed(l.ledger[:])
		case 3:
			r.fixed(l.tenant[:])
		case 5:
			r.fixed(l.issuer[:])
		case 7:
			r.fixed(l.subject[:])
		case 9:
			r.fixed(l.parent[:])
		case 10:
			l.depth, l.complete = r.uint(MaxChain), true
		default:
			_, err := r.Item(canon.Limits{})
			r.fail(err)
		}
	}
	if err := r.done(); err != nil {
		return nil, err
	}
	if !l.complete {
		return nil, errors.New("a link without depth")
	}
	return l, nil
}

// checkChain checks that the links in the file are the chain that the leaf names: from the agent's own link up to a root.
func (r *run) checkChain(p *parsedEvent) error {
	bad := func(err error) error { return r.fail(StepChain, ClassTampering, ExitSignature, err) }
	if len(p.Links) == 0 {
		if p.leaf.Link.IsZero() {
			r.skip(StepChain, "the agent acts for itself")
		} else {
			r.skip(StepChain, "the links are not in the file; the chain's id %s… stands in the leaf", p.leaf.Link.String()[:16])
		}
		return nil
	}
	want, subject := p.leaf.Link, p.leaf.Agent
	chain := []string{subject.String()}
	for i, body := range p.Links {
		l, err := parseLink(body)
		if err != nil {
			return bad(fmt.Errorf("link %d: %w", i, err))
		}
		switch {
		case linkID(body) != want:
			return bad(fmt.Errorf("link %d is not the one that is named", i))
		case l.ledger != p.LedgerID || l.tenant != p.Tenant:
			return bad(fmt.Errorf("link %d is of another ledger or tenant", i))
		case l.subject != subject && i == 0 && p.leaf.Outcome.Code != OutcomeAccepted:
			// An agent may name any link; doing so with another's is refused, on the record.
			r.skip(StepChain, "the leaf names a link that was given to %s, not to its agent; its outcome is %q", l.subject, p.leaf.Outcome.Code)
			return nil
		case l.subject != subject:
			return bad(fmt.Errorf("link %d was given to somebody else", i))
		case l.depth != uint64(len(p.Links)-1-i) || l.parent.IsZero() != (l.depth == 0):
			return bad(fmt.Errorf("link %d has another depth than its place in the chain", i))
		}
		want, subject = l.parent, l.issuer
		chain = append([]string{subject.String()}, chain...)
	}
	r.rep.Subject.Chain = chain
	r.ok(StepChain, "%s from %s to %s, by hash; every signature was checked when its link was registered", counted(uint64(len(p.Links)), "link", "links"), chain[0], chain[len(chain)-1])
	return nil
}
