package lagwatch

import (
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

// maxBehind is how many transactions are asked about one by one.
const maxBehind = 1000

// overtake notes what the leader shows of what followers have shown, after a
// sample of node id.
func (g *ledger) overtake(v *topology.View, id int) {
	if v.Leader == topology.NoLeader {
		return
	}
	leader := &g.nodes[v.Leader]
	v.Over = leader.snapshot
	for i := range g.nodes {
		r := &g.nodes[i]
		if (i == id || id == v.Leader) && r.up && !r.leader && r.begun > v.Nodes[i].Shown && leader.snapshot.Passed(r.snapshot.Xmax) {
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
	v.Over = topology.Snapshot{}
	for i := range v.Nodes {
		v.Nodes[i].Shown = 0
		if i != v.Leader {
			g.nodes[i].snapshot = topology.Snapshot{Xmax: math.MaxUint64} // until it is sampled again
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
	xids := w.mu.ledger.nodes[v.Leader].snapshot.Behind(s.snapshot.Xmax, maxBehind)
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
