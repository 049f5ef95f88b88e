package topology

import (
	"encoding/binary"
	"slices"
)

// Snapshot is what pg_current_snapshot() tells: every transaction before Xmax
// is over, but those in Running. A follower names none of these (GetSnapshotData
// in storage/ipc/procarray.c puts them where only subtransactions are looked for).
// The zero Snapshot says of none that it is over.
type Snapshot struct {
	Xmax    uint64
	Running []uint64
}

// ParseSnapshot decodes what pg_snapshot_send in utils/adt/xid8funcs.c makes: a
// count, xmin, xmax, and the transactions between them that run.
func ParseSnapshot(b []byte) (s Snapshot, ok bool) {
	if len(b) < 20 || len(b) != 20+8*int(binary.BigEndian.Uint32(b)) {
		return s, false
	}
	s.Xmax = binary.BigEndian.Uint64(b[12:])
	for b = b[20:]; len(b) > 0; b = b[8:] {
		s.Running = append(s.Running, binary.BigEndian.Uint64(b))
	}
	return s, true
}

// Passed reports whether here all is over that may be over where the snapshot
// ends at xmax.
func (here *Snapshot) Passed(xmax uint64) bool {
	return here.Xmax >= xmax && !slices.ContainsFunc(here.Running, func(xid uint64) bool { return xid < xmax })
}

// Behind returns the transactions that are not over here and may be where the
// snapshot ends at xmax: those that run, and those from here's on. When there are
// more than most, it names one more than that.
func (here *Snapshot) Behind(xmax uint64, most int) []uint64 {
	var xids []uint64
	for _, xid := range here.Running {
		if xid < xmax {
			xids = append(xids, xid)
		}
	}
	for xid := here.Xmax; xid < xmax && len(xids) <= most; xid++ {
		xids = append(xids, xid)
	}
	return xids
}
