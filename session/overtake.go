package session

import (
	"encoding/binary"
	"strconv"
	"time"

	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/topology"
)

// A follower may show a commit before the leader does: the leader's own
// backends see a transaction only when it has left the list of running ones
// (ProcArrayEndTransaction), which is after its commit record was flushed, sent
// and, while that backend waits for a processor or for a synchronous standby,
// perhaps replayed. Positions say nothing about it. So a session that has read
// on a follower and goes to the leader asks both which transactions are over.

// overtakeLimit is how long the leader is waited for. It bounds the harm of a
// commit that hangs, as one does whose synchronous standby is gone.
var overtakeLimit = time.Second

const (
	overtakePause = time.Millisecond
	maxBehind     = 1000 // transactions that are asked about one by one
)

// snapshot is what pg_current_snapshot() tells: every transaction before xmax
// is over, but those in running.
type snapshot struct {
	node    int
	asked   topology.Instant // it covers all that was over by then
	xmax    uint64
	running []uint64
}

// horizon asks the follower of the session's last read on one which transactions
// it may have shown: those before the snapshot's xmax. At level strong it asks
// every follower, for what any of them has shown to anybody by now; but not for a
// statement that writes, which gets what it changes in its newest version. It is
// empty if there is nothing to make sure of.
func (s *session) horizon(class *route.Class) []snapshot {
	v := s.srv.board.View()
	switch {
	case s.srv.options.IgnorePositions:
		return nil
	case s.policy.Level == route.LevelStrong && shows(class):
		var seen []snapshot
		by := topology.Now()
		for i := range v.Nodes {
			if n := &v.Nodes[i]; n.Role == topology.RoleFollower && n.State != topology.Down {
				seen = s.seenOn(seen, i, by)
			}
		}
		return seen
	case s.sight.node == noNode || s.sight.node == v.Leader:
		return nil
	default:
		return s.seenOn(nil, s.sight.node, s.sight.at)
	}
}

// shows reports whether a statement that goes to the leader may be after what is
// there, or begin a transaction that is.
func shows(class *route.Class) bool {
	switch class.Reason {
	case route.ReasonDML, route.ReasonSetting, route.ReasonOwn, route.ReasonUtility:
		return false
	default:
		return true
	}
}

// seenOn appends what a follower may have shown by an instant, unless the leader
// is known to show it as well.
func (s *session) seenOn(all []snapshot, node int, by topology.Instant) []snapshot {
	if topology.Instant(s.srv.shown[node].Load()) >= by {
		return all
	}
	asked := topology.Now()
	var seen snapshot
	err := s.askNode(node, func() (err error) {
		seen, err = s.askSnapshot()
		return err
	})
	if err != nil || seen.xmax == 0 {
		return all // the follower is gone; so, by now, is the moment
	}
	seen.node, seen.asked = node, asked
	return append(all, seen)
}

// overtake waits until the leader at the other end of the held connection shows
// everything that was seen on followers.
func (s *session) overtake(all []snapshot) error {
	for _, there := range all {
		s.srv.metrics.overtakes.Add(1)
		if err := s.overtakeOne(there); err != nil {
			return err
		}
	}
	s.sight.node = noNode
	return nil
}

// overtakeApart is overtake before the session's token is told: who goes on with
// it may do so on the leader, and cannot know which follower to ask.
func (s *session) overtakeApart(class *route.Class) error {
	leader := s.srv.board.View().Leader
	seen := s.horizon(class)
	if len(seen) == 0 || leader == topology.NoLeader {
		return nil
	}
	if err := s.askNode(leader, func() error { return s.overtake(seen) }); err != nil && s.cancelled {
		return errCancelled
	}
	return nil // if the leader cannot be asked, the moment has passed once it can
}

func (s *session) overtakeOne(seen snapshot) error {
	for end := time.Now().Add(overtakeLimit); time.Now().Before(end); s.task.Sleep(overtakePause) {
		var now snapshot
		err := s.apart(func() (err error) {
			now, err = s.askSnapshot()
			return err
		})
		if err != nil {
			return err
		}
		if behind := now.behind(seen); len(behind) == 0 || !s.committedOn(seen.node, behind) {
			shown := &s.srv.shown[seen.node]
			shown.Store(int64(max(seen.asked, topology.Instant(shown.Load()))))
			return nil
		}
		if s.cancelled {
			return errCancelled
		}
		if s.srv.closing.Load() {
			return errClosed
		}
	}
	s.srv.metrics.overtakesSpent.Add(1)
	return nil
}

// behind returns the transactions that are not over here and may be over there:
// those that run, and those from xmax on.
func (here snapshot) behind(there snapshot) []uint64 {
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

// committedOn asks a node whether any of the transactions is committed there.
func (s *session) committedOn(node int, xids []uint64) bool {
	if len(xids) > maxBehind {
		return true
	}
	sql := "SELECT count(*) FROM unnest('{"
	for i, xid := range xids {
		if i > 0 {
			sql += ","
		}
		sql += strconv.FormatUint(xid, 10)
	}
	sql += "}'::pg_catalog.xid8[]) x WHERE pg_catalog.pg_xact_status(x) = 'committed'"
	var answer string
	err := s.askNode(node, func() (err error) {
		answer, err = s.askValue(sql)
		return err
	})
	return err == nil && answer != "0"
}

// askNode runs ask with a connection to node in the place of the one held.
func (s *session) askNode(node int, ask func() error) error {
	brief := s.request
	brief.Within = overtakeLimit
	group := s.groups[node]
	conn, err := group.Acquire(s.task, &brief)
	if err != nil {
		return err
	}
	held, heldBy, leader := s.conn, s.group, s.onLeader
	s.hold(conn, group, false)
	err = s.apart(ask)
	if err == nil {
		s.release()
	} else if s.conn != nil {
		s.destroy()
	}
	s.conn, s.group, s.onLeader = held, heldBy, leader
	return err
}

// apart runs questions of ours while the gathered batch waits.
func (s *session) apart(ask func() error) error {
	kept := s.cycle
	s.cycle = cycle{}
	defer func() { s.cycle = kept }()
	err := ask()
	s.out.discard(s.conn)
	if err != nil {
		s.dropUp()
	}
	return err
}

// askSnapshot calls pg_current_snapshot() on the held connection.
func (s *session) askSnapshot() (snapshot, error) {
	value, err := s.call(oidSnapshot)
	if err != nil {
		return snapshot{}, err
	}
	// pg_snapshot_send in utils/adt/xid8funcs.c: a count, xmin, xmax, and the
	// transactions between them that run.
	if len(value) < 20 || len(value) != 20+8*int(binary.BigEndian.Uint32(value)) {
		return snapshot{}, nil
	}
	snap := snapshot{xmax: binary.BigEndian.Uint64(value[12:])}
	for b := value[20:]; len(b) > 0; b = b[8:] {
		snap.running = append(snap.running, binary.BigEndian.Uint64(b))
	}
	return snap, nil
}
