package verify_test

import (
	"errors"
	"testing"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/ledger/verify/verifytest"
	"github.com/creto-systems/creto/nhi"
)

// fixture is a ledger with two tenants and two epochs. Tenant one has: 0 a lone event, 1–5 a batch, 6 a system leaf,
// sealed; then 7 a lone event, 8 a refusal, 9 a reversal of 0, sealed.
type fixture struct {
	*verifytest.Ledger
	agent    *verifytest.Agent
	one, two *verifytest.Tenant
	trust    *verify.Trust
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var emptyBody = []byte{0xa0}

func newFixture(t testing.TB, nodes int) *fixture {
	t.Helper()
	l := must[*verifytest.Ledger](t)(verifytest.New(t.Name(), nodes))
	f := &fixture{Ledger: l, agent: must[*verifytest.Agent](t)(l.NewAgent())}
	f.one, f.two = l.AddTenant(), l.AddTenant()
	check(t, l.AppendSystem(l.Tenants[0], "system.genesis"))
	tokens := []verify.Quantity{{Meter: "input_tokens", N: 100}, {Meter: "output_tokens", N: 7}}
	f.lone(t, f.one, tokens, nil)
	f.batch(t, f.one, 5, tokens)
	check(t, l.AppendSystem(f.one, "system.lease.expired"))
	f.lone(t, f.two, nil, nil)
	check(t, l.Seal())
	f.lone(t, f.one, tokens, nil)
	f.lone(t, f.one, tokens, func(l *verify.Leaf) { l.Outcome.Code = verify.OutcomeQuotaExhausted })
	f.lone(t, f.one, tokens, func(l *verify.Leaf) { l.Reverses = new(uint64) })
	check(t, l.Seal())
	f.trust = must[*verify.Trust](t)(verify.ParseTrust(l.Trust()))
	return f
}

func (f *fixture) lone(t testing.TB, tenant *verifytest.Tenant, q []verify.Quantity, edit func(*verify.Leaf)) {
	t.Helper()
	payload := must[[]byte](t)(f.Event(tenant, f.agent, "usage", emptyBody))
	env := must[*nhi.Envelope](t)(nhi.SignEvent(f.agent.Key, payload))
	check(t, f.Append(tenant, f.agent, env, q, edit))
}

func (f *fixture) batch(t testing.TB, tenant *verifytest.Tenant, n int, q []verify.Quantity) {
	t.Helper()
	var payloads [][]byte
	for range n {
		payloads = append(payloads, must[[]byte](t)(f.Event(tenant, f.agent, "usage", emptyBody)))
	}
	env := must[*nhi.Envelope](t)(nhi.SignBatch(f.agent.Key, f.ID, tenant.ID, payloads))
	check(t, f.Append(tenant, f.agent, env, q, nil))
}

// encoded is a proof file.
type encoded interface{ Encode() ([]byte, error) }

func encode(t testing.TB, p encoded) []byte {
	t.Helper()
	return must[[]byte](t)(p.Encode())
}

// wantFailure checks that a verification failed at the step, with the class and the exit code.
func wantFailure(t *testing.T, r *verify.Report, err error, step string, class verify.FailureClass, code int) {
	t.Helper()
	f, ok := errors.AsType[*verify.Failure](err)
	if !ok {
		t.Fatalf("got error %v, want a *Failure in step %q", err, step)
	}
	if f.Step != step || f.Class != class || f.ExitCode != code {
		t.Errorf("got failure in step %q, class %q, exit %d (%s), want step %q, class %q, exit %d", f.Step, f.Class, f.ExitCode, f.Detail, step, class, code)
	}
	if r == nil || r.OK || r.Failure != f || len(r.Statement) != 0 || f.Hint() == "" {
		t.Errorf("got report %+v, want one that is not OK, states nothing and carries the failure with a hint", r)
	}
}
