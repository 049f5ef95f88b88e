package lagwatch

import (
	"encoding/binary"
	"math"
	"slices"
	"strconv"

	"github.com/lsnproxy/lsnproxy/topology"
)

// A follower may show a commit before the leader does: the leader's own
// backends see a transaction only when it has left the list of running ones
// (ProcArrayEndTransaction), which is after its commit record was flushed, sent
// and, while that backend waits for a processor or for a synchronous standby,
// perhaps replayed. Positions say nothing about it. So each sample brings the
// node's snapshot along: once the leader's says that all is over that may be over
// by a follower's, the leader shows what the follower had shown by the time its
// sample was begun. When the leader's was taken does not matter.

// snapshot is what pg_current_snapshot() tells: every transaction before xmax
// is over, but those in running. A follower names none of these (GetSnapshotData
// in storage/ipc/procarray.c puts them where only subtransactions are looked for).
type snapshot struct {
	xmax    uint64
	running []uint64
}

// read decodes what pg_snapshot_send in utils/adt/xid8funcs.c makes: a count,
// xmin, xmax, and the transactions between them that run.
func (s *snapshot) read(b []byte) bool {
	if len(b) < 20 || len(b) != 20+8*int(binary.BigEndian.Uint32(b)) {
		return false
	}
	*s = snapshot{xmax: binary.BigEndian.Uint64(b[12:])}
	if n := len(b)/8 - 2; n > 0 {
		s.running = make([]uint64, 0, n)
	}
	for b = b[20:]; len(b) > 0; b = b[8:] {
		s.running = append(s.running, binary.BigEndian.Uint64(b))
	}
	return true
}

// maxBehind is how many transactions are asked about one by one.
const maxBehind = 1000

// passed reports whether here all is over that may be over there.
func (here *snapshot) passed(there *snapshot) bool {
	return here.xmax >= there.xmax && !slices.ContainsFunc(here.running, func(xid uint64) bool { return xid < there.xmax })
}

// behind returns the transactions that are not over here and may be over there:
// those that run, and those from xmax on.
func (here *snapshot) behind(there *snapshot) []uint64 {
	var xids []uint64
	for _, xid := range here.running {
		if xid < there.xmax {
			xids = append(xids, xid)
		}
	}
	for xid := here.xmax; xid < there.xmax && len(xids) <= maxBehind; xid++ {
		xids = append(xids, xid)
	}
	return xids
}

// overtake notes what the leader shows of what followers have shown, after a
// sample of node id.
func (g *ledger) overtake(v *topology.View, id int) {
	if v.Leader == topology.NoLeader {
		return
	}
	leader := &g.nodes[v.Leader]
	for i := range g.nodes {
		r := &g.nodes[i]
		if (i == id || id == v.Leader) && r.up && !r.leader && r.begun > v.Nodes[i].Shown && leader.passed(&r.snapshot) {
			v.Nodes[i].Shown = r.begun
		}
	}
}

// forgetShown forgets it unless the same leads as before. On another timeline the
// same numbers stand for other transactions.
func (g *ledger) forgetShown(v *topology.View, before lastLeader) {
	if reignOf(v) == before {
		return
	}
	for i := range v.Nodes {
		v.Nodes[i].Shown = 0
		if i != v.Leader {
			g.nodes[i].snapshot = snapshot{xmax: math.MaxUint64} // until it is sampled again
		}
	}
}

// reignOf names who leads, and on which timeline.
func reignOf(v *topology.View) lastLeader { return lastLeader{v.Leader, v.History.Timeline} }

// cleared notes that the leader, if it is still the same, shows what node id had
// shown by an instant.
func (g *ledger) cleared(v *topology.View, id int, by topology.Instant, leader lastLeader) {
	if n := &v.Nodes[id]; reignOf(v) == leader && g.nodes[id].up && !g.nodes[id].leader {
		n.Shown = max(n.Shown, by)
	}
}

// suspects returns the transactions that node n, as sampled, may show and the
// leader, which it names, may not, if somebody waits to know and they are not too
// many.
func (n *node) suspects(s *sample) ([]uint64, lastLeader) {
	w := n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.board.View()
	if s.leader || v.Leader == topology.NoLeader || v.Nodes[n.id].Shown >= s.begun {
		return nil, lastLeader{}
	}
	if !slices.ContainsFunc(w.mu.waits.open, func(wait *Wait) bool { return wait.need.Shown != 0 && wait.wants(v, n) }) {
		return nil, lastLeader{}
	}
	xids := w.mu.ledger.nodes[v.Leader].behind(&s.snapshot)
	if len(xids) > maxBehind {
		return nil, lastLeader{}
	}
	return xids, reignOf(v)
}

// committed reports whether any of the transactions is committed on the node.
func (l *link) committed(xids []uint64) (bool, error) {
	sql := "SELECT count(*) FROM unnest('{"
	for i, xid := range xids {
		if i > 0 {
			sql += ","
		}
		sql += strconv.FormatUint(xid, 10)
	}
	sql += "}'::pg_catalog.xid8[]) x WHERE pg_catalog.pg_xact_status(x) = 'committed'"
	row, err := l.query(sql)
	return len(row) != 1 || row[0] != "0", err
}
