package oversight

import (
	"crypto/sha256"
	"fmt"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/authz"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/nhi/registry"
	"github.com/creto-systems/creto/oversight/kind"
)

// Policy is a tenant's policy as published. A tenant that has published nothing has the default policy with epoch and index
// 0, no publisher and no chains.
type Policy struct {
	Epoch     uint64 // policy epoch that it began
	Index     uint64 // of the leaf that published it
	Time      int64  // of that leaf, ns
	Publisher nhi.ID
	Bundle    authz.Bundle
	Chains    []kind.Chain // ascending by name
	Digest    nhi.Digest   // of Bundle
}

// PolicyVersion identifies the policy in force without reading its texts: equal digests are equal policies. It is what a
// cache of compiled policies is keyed by.
func PolicyVersion(v ledger.View) (digest nhi.Digest, index uint64) {
	p, index := currentPolicy(v)
	return p.Digest, index
}

// CurrentPolicy returns the policy in force in a view.
func CurrentPolicy(v ledger.View) *Policy {
	row, index := currentPolicy(v)
	p := &Policy{Epoch: row.Epoch, Index: index, Time: row.Time, Publisher: row.By, Digest: row.Digest}
	if row.Epoch == 0 {
		p.Bundle = authz.DefaultBundle()
		return p
	}
	key := requestKey(index)
	value, ok := v.Get(TableText, key)
	if !ok {
		panic(&CorruptRowError{Table: TableText, Key: key, Err: errMissing})
	}
	text := decodeRow[textRow](TableText, key, value)
	p.Bundle = authz.Bundle{Hard: []byte(text.Hard), Soft: []byte(text.Soft), Chains: row.Chains}
	p.Chains = row.chains(index)
	return p
}

// currentPolicy returns the policy in force without its texts. The default one has no index.
func currentPolicy(v ledger.View) (row *policyRow, index uint64) {
	v.Scan(TablePolicy, nil, nil, true, func(key, value []byte) bool {
		row, index = decodeRow[policyRow](TablePolicy, key, value), keyIndex(key)
		return false
	})
	if row == nil {
		b := authz.DefaultBundle()
		row = &policyRow{Digest: b.Digest(), SoftDigest: sha256.Sum256(b.Soft)}
	}
	return row, index
}

func (p *policyRow) chains(index uint64) []kind.Chain {
	chains, err := kind.DecodeChains(p.Chains)
	if err != nil {
		panic(&CorruptRowError{Table: TablePolicy, Key: requestKey(index), Err: err})
	}
	return chains
}

// checkPublish compiles the policy at the edge, where all that is wrong with it can be said at once. Apply never evaluates
// Cedar: a text that got past this check would deny everything, and the authority could replace it.
func checkPublish(ev *nhi.Event) error {
	b, err := kind.DecodePublishBody(ev.Body)
	if err != nil {
		return err
	}
	return CheckPolicy(b)
}

// CheckPolicy compiles a policy, looks for the chains that it names, and refuses soft policies that could hold back events which
// no approval can be used for: whoever asked and was approved would be refused again. The error is an authz.PolicyErrors
// with all that is wrong with the texts, or a *kind.InvalidError.
func CheckPolicy(b *kind.PublishBody) error {
	e, err := authz.Compile(authz.Bundle{Hard: []byte(b.Hard), Soft: []byte(b.Soft), Chains: b.Chains})
	if err != nil {
		return err
	}
	if err := e.CheckSoftActions(kind.Ungranted()); err != nil {
		return err
	}
	chains, err := kind.DecodeChains(b.Chains)
	if err != nil {
		return err
	}
	for _, name := range e.Chains() {
		if len(chainsNamed(chains, []string{name})) == 0 {
			return &kind.InvalidError{Field: "soft", Reason: fmt.Sprintf("names the chain %q, which chains does not define: nobody could approve", name)}
		}
	}
	return nil
}

func decidePublish(v ledger.View, ev *ledger.Event, at ledger.Stamp) ledger.Decision {
	b, err := kind.DecodePublishBody(ev.Body)
	if err != nil {
		return refuseInvalid(err)
	}
	if ev.Signer == nil || ev.Signer.Type != registry.Authority && ev.Signer.Type != registry.Human {
		return refuse(verify.OutcomeUnauthorized, kind.Refusal{Reason: kind.ReasonNotSigner, Hint: "the tenant's authority or a human publishes policies"})
	}
	chains, err := kind.DecodeChains(b.Chains)
	if err != nil {
		return refuseInvalid(err)
	}
	for i := range chains {
		for _, id := range chains[i].Asked(len(chains[i].Steps) - 1) {
			if who, ok := human(v, id); !ok || who.Status == registry.Revoked {
				return refuse(verify.OutcomeNotFound, kind.Refusal{
					Reason: kind.ReasonUnknownHuman,
					Hint:   fmt.Sprintf("chain %q asks %s, who is not registered as a human or is revoked", chains[i].Name, id),
				})
			}
		}
	}
	bundle := authz.Bundle{Hard: []byte(b.Hard), Soft: []byte(b.Soft), Chains: b.Chains}
	row := policyRow{
		Epoch: v.Epochs().Policy + 1, Time: at.Time, By: ev.Agent, Digest: bundle.Digest(), SoftDigest: sha256.Sum256(bundle.Soft),
		Chains: b.Chains,
	}
	key := requestKey(v.NextIndex())
	return ledger.Decision{
		Detail: canon.MustMarshal(kind.Published{Epoch: row.Epoch, Digest: row.Digest}),
		Writes: []ledger.Write{
			{Table: TablePolicy, Key: key, Value: canon.MustMarshal(row)},
			{Table: TableText, Key: key, Value: canon.MustMarshal(textRow{Hard: b.Hard, Soft: b.Soft})},
		},
		Bump: ledger.BumpPolicy,
	}
}

// human returns an identity of the tenant if it is a human's.
func human(v ledger.View, id nhi.ID) (*registry.Identity, bool) {
	who, err := registry.ResolveIdentity(ledger.RegistryView(v), id, v.NextIndex())
	return who, err == nil && who.Type == registry.Human
}

// active reports whether an id is that of a human who may act now.
func active(v ledger.View, id nhi.ID) bool {
	who, ok := human(v, id)
	return ok && who.Status == registry.Active
}
