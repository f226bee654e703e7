package ledger

import (
	"fmt"

	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/registry"
)

// isolationPanic carries a handler's reach beyond what it may read out of the view.
type isolationPanic struct{ err error }

// view is the View over a txn or a Snapshot. It is not safe for concurrent use; it is cheap to make.
type view struct {
	st     state
	ledger nhi.Digest
	active uint32
	tenant *Tenant
	next   uint64
	epochs verify.Epochs
	system *view // itself in slot 0
	key    []byte
}

func (v *view) Get(t Table, key []byte) ([]byte, bool) {
	if !visible(t) {
		panic(isolationPanic{fmt.Errorf("%w: table %#x may not be read", ErrIsolation, byte(t))})
	}
	v.key = rowKey(v.key[:0], t, v.tenant.Slot, key)
	return v.st.get(v.key)
}

func (v *view) Scan(t Table, prefix, from []byte, reverse bool, fn func(key, value []byte) bool) {
	if !visible(t) {
		panic(isolationPanic{fmt.Errorf("%w: table %#x may not be read", ErrIsolation, byte(t))})
	}
	raw := rowKey(nil, t, v.tenant.Slot, prefix)
	if from != nil {
		from = rowKey(nil, t, v.tenant.Slot, from)
	}
	v.st.scan(raw, from, reverse, func(key, value []byte) bool { return fn(key[rowPrefix:], value) })
}

func (v *view) System() View          { return v.system }
func (v *view) Tenant() Tenant        { return *v.tenant }
func (v *view) LedgerID() nhi.Digest  { return v.ledger }
func (v *view) NextIndex() uint64     { return v.next }
func (v *view) Epochs() verify.Epochs { return v.epochs }
func (v *view) Active() uint32        { return v.active }

// registryView shows a View to nhi/registry, which knows nothing of this package.
type registryView struct{ v View }

func (r registryView) Get(table byte, key []byte) ([]byte, bool) { return r.v.Get(Table(table), key) }

func (r registryView) Scan(table byte, prefix, from []byte, reverse bool, fn func(key, value []byte) bool) {
	r.v.Scan(Table(table), prefix, from, reverse, fn)
}

// RegistryView adapts a View for the functions of nhi/registry.
func RegistryView(v View) registry.View { return registryView{v} }

// beside is a view of another tenant over the same state, for the checks that come before it exists.
func (v *view) beside(t *Tenant) *view {
	return &view{st: v.st, ledger: v.ledger, active: v.active, tenant: t, system: v.system}
}
