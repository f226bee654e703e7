package sandbox

import (
	"encoding/binary"
	"fmt"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/ledger/verify"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/sandbox/kind"
)

// The sandbox's tables. DESIGN.md lists key, value and writer of each.
const (
	TableNode    ledger.Table = 0x50 // node → what it offers and has
	TableClaim   ledger.Table = 0x51 // claim → everything about it but the command
	TableWaiting ledger.Table = 0x52 // template ‖ 0 ‖ class ‖ claim → present while it waits
	TableRunning ledger.Table = 0x53 // node ‖ claim → present while the node has it
	TableCount   ledger.Table = 0x54 // "" → waiting claims, agent → its open claims
)

// State is where a claim stands.
type State uint8

// The states of a claim. The last four are final, but that a late report turns an expired claim into what it says.
const (
	Waiting   State = 1 // for a node
	Allocated State = 2 // a node has it
	Finished  State = 3 // the command ended by itself
	Killed    State = 4 // the sandbox was ended at a limit
	Failed    State = 5 // the command did not run, or nobody knows how it ended
	Expired   State = 6 // no report came in time
)

var stateNames = [...]string{
	Waiting: "claimed", Allocated: "running", Finished: "finished", Killed: "killed", Failed: "failed", Expired: "expired",
}

// String returns the state's name as the API has it.
func (s State) String() string {
	if s >= Waiting && s <= Expired {
		return stateNames[s]
	}
	return fmt.Sprintf("state_%d", uint8(s))
}

// ParseState returns the state of that name.
func ParseState(name string) (State, bool) {
	for s := Waiting; s <= Expired; s++ {
		if stateNames[s] == name {
			return s, true
		}
	}
	return 0, false
}

// Done reports whether the claim holds nothing any more.
func (s State) Done() bool { return s >= Finished }

const rowVersion = 1

type nodeRow struct {
	V         uint64          `cbor:"1,keyasint"`
	Until     int64           `cbor:"2,keyasint"` // ns: end of the registration
	Lost      bool            `cbor:"3,keyasint"` // the end has passed
	Classes   []kind.Class    `cbor:"4,keyasint"`
	Templates []kind.Template `cbor:"5,keyasint"`
	Capacity  uint64          `cbor:"6,keyasint"`
	Running   uint64          `cbor:"7,keyasint"` // claims it has
	Index     uint64          `cbor:"8,keyasint"` // of its last registration
}

type claimRow struct {
	V         uint64     `cbor:"1,keyasint"`
	State     State      `cbor:"2,keyasint"`
	Agent     nhi.ID     `cbor:"3,keyasint"`
	Key       nhi.KeyID  `cbor:"4,keyasint"` // that signed the claim
	Link      nhi.LinkID `cbor:"5,keyasint"`
	Account   nhi.ID     `cbor:"6,keyasint"`
	Template  string     `cbor:"7,keyasint"`
	Class     kind.Class `cbor:"8,keyasint"` // allocated, while waiting the least
	Wall      int64      `cbor:"9,keyasint"` // ns
	Memory    uint64     `cbor:"10,keyasint"`
	Deadline  int64      `cbor:"11,keyasint"` // ns
	Policy    uint64     `cbor:"12,keyasint"` // epoch at the claim
	Node      nhi.ID     `cbor:"13,keyasint"`
	Rootfs    nhi.Digest `cbor:"14,keyasint"` // of the template at the allocation
	Allocated int64      `cbor:"15,keyasint"` // ns

	Report   uint64     `cbor:"16,keyasint"` // leaf index, 0 = none (leaf 0 is the tenant's authority)
	ExitCode int64      `cbor:"17,keyasint"`
	Output   nhi.Digest `cbor:"18,keyasint"`
	Reason   string     `cbor:"19,keyasint"`
	Late     bool       `cbor:"20,keyasint"` // reported after it had expired

	Usage      uint64            `cbor:"21,keyasint"` // leaf index, 0 = none
	Quantities []verify.Quantity `cbor:"22,keyasint"`
	From       string            `cbor:"23,keyasint"`

	Command  nhi.Digest `cbor:"24,keyasint"` // kind.CommandDigest
	Sequence uint64     `cbor:"25,keyasint"` // the node's number of the report
	Leases   []uint64   `cbor:"26,keyasint"` // that hold room for what it may use, until that is counted
}

func (r *claimRow) budget() int64 { return budget(r.Wall, r.Deadline, r.Allocated) }

type countRow struct {
	V uint64 `cbor:"1,keyasint"`
	N uint64 `cbor:"2,keyasint"`
}

// CorruptRowError is the panic of a row that does not decode: a wrong state must stop the node instead of being answered
// from.
type CorruptRowError struct {
	Table ledger.Table
	Key   []byte
}

// Error names the row.
func (e *CorruptRowError) Error() string {
	return fmt.Sprintf("sandbox: row %x of table %#x does not decode", e.Key, byte(e.Table))
}

func read[T any](v ledger.View, t ledger.Table, key []byte) (*T, bool) {
	value, ok := v.Get(t, key)
	if !ok {
		return nil, false
	}
	return decodeRow[T](t, key, value), true
}

func decodeRow[T any](t ledger.Table, key, value []byte) *T {
	row := new(T)
	if err := canon.Unmarshal(value, row); err != nil {
		panic(&CorruptRowError{t, append([]byte(nil), key...)})
	}
	return row
}

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

func runningKey(node nhi.ID, claim uint64) []byte {
	return binary.BigEndian.AppendUint64(node[:len(node):len(node)], claim)
}

func waitingPrefix(template string, class kind.Class) []byte {
	return append([]byte(template), 0, byte(class))
}

func waitingKey(template string, class kind.Class, claim uint64) []byte {
	return binary.BigEndian.AppendUint64(waitingPrefix(template, class), claim)
}

// lastIndex reads the claim from the end of a key.
func lastIndex(t ledger.Table, key []byte) uint64 {
	if len(key) < 8 {
		panic(&CorruptRowError{t, append([]byte(nil), key...)})
	}
	return binary.BigEndian.Uint64(key[len(key)-8:])
}
