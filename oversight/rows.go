package oversight

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/creto-systems/creto/ledger"
	"github.com/creto-systems/creto/nhi"
	"github.com/creto-systems/creto/nhi/canon"
	"github.com/creto-systems/creto/oversight/kind"
)

// Oversight's tables. Keys are given without table and slot; integers in keys are big-endian. Values are canonical CBOR with
// integer keys. A request is its leaf index.
const (
	TablePolicy  ledger.Table = 0x40 // index → digests, chains and who published, written once
	TableText    ledger.Table = 0x41 // index → both texts of the policy, written once
	TableRequest ledger.Table = 0x42 // request → all that was frozen when it was opened, written once
	TableStatus  ledger.Table = 0x43 // request → where it stands
	TableVote    ledger.Table = 0x44 // request ‖ human → the one vote of that human
	TableByState ledger.Table = 0x45 // state ‖ request → nothing
	TableByHuman ledger.Table = 0x46 // human ‖ 0 pending, 1 past ‖ request → nothing
	TableByAgent ledger.Table = 0x47 // agent ‖ request → nothing
	TablePending ledger.Table = 0x48 // agent ‖ request → nothing, while the request is pending
)

// Tables are oversight's own.
func Tables() []ledger.Table {
	return []ledger.Table{TablePolicy, TableText, TableRequest, TableStatus, TableVote, TableByState, TableByHuman, TableByAgent, TablePending}
}

// CorruptRowError is what oversight panics with when a row of its own cannot be read: the store is damaged or was written by
// another program, and the ledger stops the node with it.
type CorruptRowError struct {
	Table ledger.Table
	Key   []byte
	Err   error
}

// Error names table and key.
func (e *CorruptRowError) Error() string {
	return fmt.Sprintf("row %x of table %#02x is corrupt: %v", e.Key, byte(e.Table), e.Err)
}

// Unwrap returns what is wrong with it.
func (e *CorruptRowError) Unwrap() error { return e.Err }

func decodeRow[T any](t ledger.Table, key, value []byte) *T {
	row := new(T)
	if err := canon.Unmarshal(value, row); err != nil {
		panic(&CorruptRowError{Table: t, Key: append([]byte(nil), key...), Err: err})
	}
	return row
}

var errMissing = errors.New("part of it is missing")

// policyRow is a published policy without its texts, which Apply has no use for.
type policyRow struct {
	Epoch      uint64     `cbor:"1,keyasint"` // policy epoch that it began
	Time       int64      `cbor:"2,keyasint"`
	By         nhi.ID     `cbor:"3,keyasint"`
	Digest     nhi.Digest `cbor:"4,keyasint"` // authz.Bundle.Digest
	SoftDigest nhi.Digest `cbor:"5,keyasint"` // SHA-256 of the soft text
	Chains     []byte     `cbor:"6,keyasint"`
}

type textRow struct {
	Hard string `cbor:"1,keyasint"`
	Soft string `cbor:"2,keyasint"`
}

// requestRow is what was frozen when a request was opened.
type requestRow struct {
	Agent    nhi.ID             `cbor:"1,keyasint"`
	Key      nhi.KeyID          `cbor:"2,keyasint"` // the one that may claim
	Link     nhi.LinkID         `cbor:"3,keyasint"`
	Account  nhi.ID             `cbor:"4,keyasint"`
	Action   kind.Action        `cbor:"5,keyasint"`
	Digest   nhi.Digest         `cbor:"6,keyasint"` // of the action
	Rendered nhi.Digest         `cbor:"7,keyasint"`
	Reason   nhi.Digest         `cbor:"8,keyasint"` // addendum; zero = none
	Reserve  []kind.Reservation `cbor:"9,keyasint"`
	Payload  nhi.Digest         `cbor:"10,keyasint"`
	Request  nhi.Digest         `cbor:"11,keyasint"` // request digest: what votes sign
	Epoch    uint64             `cbor:"12,keyasint"` // of the policy
	Policy   nhi.Digest         `cbor:"13,keyasint"` // of the bundle
	Soft     nhi.Digest         `cbor:"14,keyasint"` // of its soft text
	Policies []string           `cbor:"15,keyasint"` // soft policies that an approval satisfies, sorted
	Chains   []kind.Chain       `cbor:"16,keyasint"` // with the humans that may in fact vote; a step may have none of its own
	Defined  nhi.Digest         `cbor:"17,keyasint"` // of the same chains as they were published
	Members  []nhi.ID           `cbor:"18,keyasint"` // of the requester's chain, sorted: none of them votes
	Created  int64              `cbor:"19,keyasint"`
	End      int64              `cbor:"20,keyasint"` // after it nothing is decided or claimed
	Nonce    [16]byte           `cbor:"21,keyasint"` // of the request's event
}

// statusRow is where a request stands.
type statusRow struct {
	State    kind.State        `cbor:"1,keyasint"`
	Since    int64             `cbor:"2,keyasint"` // ns: when it became so
	Steps    []stepRow         `cbor:"3,keyasint"` // by chain
	Opens    int64             `cbor:"4,keyasint"` // ns: earliest claim; 0 before approval
	Claim    uint64            `cbor:"5,keyasint"` // index of the claim, once claimed
	Token    kind.FencingToken `cbor:"6,keyasint"`
	StartBy  int64             `cbor:"7,keyasint"`
	ReportBy int64             `cbor:"8,keyasint"`
	Leases   []uint64          `cbor:"9,keyasint"`
	Report   uint64            `cbor:"10,keyasint"` // index of the first report; 0 = none
	Result   kind.Result       `cbor:"11,keyasint"` // what it said, even if it came too late to count
	Outcome  nhi.Digest        `cbor:"12,keyasint"`
}

// stepRow is where one chain of a request stands.
type stepRow struct {
	Step     uint64 `cbor:"1,keyasint"` // from 0
	Deadline int64  `cbor:"2,keyasint"` // of the step
}

// voteRow is the one vote of one human on one request.
type voteRow struct {
	Choice    kind.Choice `cbor:"1,keyasint"`
	Index     uint64      `cbor:"2,keyasint"`
	Time      int64       `cbor:"3,keyasint"`
	Cast      bool        `cbor:"4,keyasint"` // while the request was pending; false = evidence only
	Reason    nhi.Digest  `cbor:"5,keyasint"` // addendum; zero = none
	Withdrawn uint64      `cbor:"6,keyasint"` // index of the withdrawal; 0 = none
}

func requestKey(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }

func voteKey(id uint64, human nhi.ID) []byte { return append(requestKey(id), human[:]...) }

func stateKey(s kind.State, id uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{byte(s)}, id)
}

// The two phases of a request in the queue of a human.
const (
	phasePending = 0
	phasePast    = 1
)

func humanKey(human nhi.ID, phase byte, id uint64) []byte {
	return binary.BigEndian.AppendUint64(append(human[:], phase), id)
}

func agentKey(agent nhi.ID, id uint64) []byte { return binary.BigEndian.AppendUint64(agent[:], id) }

// keyIndex returns the index at the end of a key.
func keyIndex(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(key)-8:]) }
