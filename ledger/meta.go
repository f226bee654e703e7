package ledger

import (
	"encoding/binary"

	"github.com/creto-systems/creto/nhi"
)

// storeFormat is the number of the store's layout. Open refuses any other.
const storeFormat = 1

// meta is where the ledger stands: one row, written in the batch of every Apply.
type meta struct {
	applied uint64     // Raft index of the last command
	term    uint64     // its term
	state   nhi.Digest // rolling hash of all commands
	last    int64      // last stamp, ns
	epoch   uint64     // last seal; the spine has as many leaves
	slots   uint32     // slots in use, the system log included; 0 before genesis
	active  uint32     // active feature level
}

const metaSize = 1 + 8 + 8 + 32 + 8 + 8 + 4 + 4

func metaKey() []byte    { return rowKey(nil, tableMeta, 0, []byte("m")) }
func genesisKey() []byte { return rowKey(nil, tableMeta, 0, []byte("g")) }

func (m *meta) encode() []byte {
	b := make([]byte, 0, metaSize)
	b = append(b, storeFormat)
	b = binary.BigEndian.AppendUint64(b, m.applied)
	b = binary.BigEndian.AppendUint64(b, m.term)
	b = append(b, m.state[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(m.last))
	b = binary.BigEndian.AppendUint64(b, m.epoch)
	b = binary.BigEndian.AppendUint32(b, m.slots)
	return binary.BigEndian.AppendUint32(b, m.active)
}

func (m *meta) decode(b []byte) error {
	if len(b) > 0 && b[0] != storeFormat {
		return corrupt("store format %d is not %d", b[0], storeFormat)
	}
	if len(b) != metaSize {
		return corrupt("meta row of %d bytes", len(b))
	}
	m.applied = binary.BigEndian.Uint64(b[1:])
	m.term = binary.BigEndian.Uint64(b[9:])
	m.state = nhi.Digest(b[17:49])
	m.last = int64(binary.BigEndian.Uint64(b[49:]))
	m.epoch = binary.BigEndian.Uint64(b[57:])
	m.slots = binary.BigEndian.Uint32(b[65:])
	m.active = binary.BigEndian.Uint32(b[69:])
	return nil
}
