package ledger

import (
	"encoding/binary"
	"fmt"

	"github.com/creto-systems/creto/nhi"
)

// The ledger's tables. Every key is table ‖ slot (u32 BE) ‖ key, except tableTimers: table ‖ due (i64 BE) ‖ slot ‖ name ‖ 0 ‖
// ref. DESIGN.md lists key, value and writer of each.
const (
	tableMeta     Table = 0x01 // one row each: see meta.go
	tableHeads    Table = 0x02 // → size, compact range
	tableLeaves   Table = 0x03 // index → leaf
	tablePayloads Table = 0x04 // index → position in the envelope, detail, payload
	tableSigs     Table = 0x05 // signature digest → signature record
	tableTiles    Table = 0x06 // level, tile → hashes
	tableRequests Table = 0x07 // signer, request id → first outcome
	tableSealed   Table = 0x08 // epoch → head leaf
	tableNodes    Table = 0x09 // level, index, ^epoch → hash in the heads tree (pseudo slot of the heads)
	tableEpochs   Table = 0x0a // → policy, entities, revocation
	tableDirty    Table = 0x0b // → present while the log has grown since the last seal
	tableTenants  Table = 0x0c // slot 0: slot → tenant
	tableTenantID Table = 0x0d // slot 0: tenant id → slot
	tablePostings Table = 0x0f // dimension, term, first index → deltas
	tableKeyring  Table = 0x10 // index, ordinal → wrapped record key
	tableAddenda  Table = 0x11 // index, ordinal → digest, ciphertext
	tableTimers   Table = 0x12
	tableErasures Table = 0x13 // erased index → where and when
	tableTokens   Table = 0x14 // read tokens: SHA-256 → expiry
	tableJoin     Table = 0x15 // slot 0: join tokens: SHA-256 → role, expiry, redeemer
	tableMembers  Table = 0x16 // slot 0: node id → role, cosigning keys, membership
	tablePurge    Table = 0x17 // slot 0: Raft index, slot, erased index → present: what PurgeErased has to do, in order

	firstForeignTable Table = 0x20
)

// Slots that belong to no tenant.
const (
	SystemSlot uint32 = 0          // the system log
	headsSlot  uint32 = 0xfffffffe // the heads tree, which is no log
	SpineSlot  uint32 = 0xffffffff // the spine
	maxSlot    uint32 = 0xfffffff0 // the last slot a tenant can get
)

// visible tells which tables a handler may read.
func visible(t Table) bool {
	switch t {
	case tableTenants, tableTenantID, tableTokens, tableJoin, tableMembers, tableErasures:
		return true
	}
	return t >= firstForeignTable
}

// rowKey appends table ‖ slot ‖ key to dst.
func rowKey(dst []byte, t Table, slot uint32, key []byte) []byte {
	dst = append(dst, byte(t))
	dst = binary.BigEndian.AppendUint32(dst, slot)
	return append(dst, key...)
}

const rowPrefix = 5 // table and slot

// indexKey appends table ‖ slot ‖ index to dst.
func indexKey(dst []byte, t Table, slot uint32, index uint64) []byte {
	dst = append(dst, byte(t))
	dst = binary.BigEndian.AppendUint32(dst, slot)
	return binary.BigEndian.AppendUint64(dst, index)
}

func tileKey(dst []byte, slot uint32, level int, tile uint64) []byte {
	dst = append(dst, byte(tableTiles))
	dst = binary.BigEndian.AppendUint32(dst, slot)
	dst = append(dst, byte(level))
	return binary.BigEndian.AppendUint64(dst, tile)
}

func ordinalKey(dst []byte, t Table, slot uint32, index uint64, ordinal int) []byte {
	return append(indexKey(dst, t, slot, index), byte(ordinal))
}

// purgeKey appends the key of an erasure in the order of commands.
func purgeKey(dst []byte, raft uint64, slot uint32, index uint64) []byte {
	dst = indexKey(dst, tablePurge, SystemSlot, raft)
	dst = binary.BigEndian.AppendUint32(dst, slot)
	return binary.BigEndian.AppendUint64(dst, index)
}

func requestKey(dst []byte, slot uint32, signer nhi.ID, id [16]byte) []byte {
	dst = append(dst, byte(tableRequests))
	dst = binary.BigEndian.AppendUint32(dst, slot)
	dst = append(dst, signer[:]...)
	return append(dst, id[:]...)
}

func timerKey(dst []byte, due int64, slot uint32, name string, ref []byte) []byte {
	dst = append(dst, byte(tableTimers))
	dst = binary.BigEndian.AppendUint64(dst, uint64(due))
	dst = binary.BigEndian.AppendUint32(dst, slot)
	dst = append(dst, name...)
	dst = append(dst, 0)
	return append(dst, ref...)
}

// parseTimerKey is the inverse of timerKey.
func parseTimerKey(key []byte) (slot uint32, t Timer, err error) {
	if len(key) < 13 || Table(key[0]) != tableTimers {
		return 0, Timer{}, fmt.Errorf("timer key of %d bytes", len(key))
	}
	t.Due = int64(binary.BigEndian.Uint64(key[1:]))
	slot = binary.BigEndian.Uint32(key[9:])
	rest := key[13:]
	for i, c := range rest {
		if c == 0 {
			t.Name = string(rest[:i])
			t.Ref = append([]byte(nil), rest[i+1:]...)
			return slot, t, nil
		}
	}
	return 0, Timer{}, fmt.Errorf("timer key without a name")
}

// prefixEnd returns the first key that does not begin with prefix; nil if there is none.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] != 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return nil
}
