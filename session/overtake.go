package session

import (
	"sync/atomic"
	"time"

	"github.com/lsnproxy/lsnproxy/lagwatch"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

// A follower may show a commit before the leader does (lagwatch/shown.go). So a
// session that has read on a follower waits, before it goes to the leader, for the
// watcher to know that the leader shows what the follower had shown by then.

// overtakeLimit is how long the leader is waited for. It bounds the harm of a
// commit that hangs, as one does whose synchronous standby is gone.
var overtakeLimit = time.Second

// moment is how long a commit that hangs for no reason may take to be seen.
const moment = 20 * time.Millisecond

// horizon says what the leader has to show before the session goes there, and by
// when it was shown: what the follower of its last read on one had shown by the
// end of that. At level strong it is what any of them has shown to anybody by now;
// but not for a statement that writes, which gets what it changes in its newest
// version.
func (s *session) horizon(class *route.Class) (need lagwatch.Need, any bool) {
	need.Leader, need.Node = true, noNode
	switch {
	case s.srv.options.IgnorePositions:
	case s.policy.Level == route.LevelStrong && shows(class):
		need.Followers, need.Shown = true, topology.Now()
	case s.sight.node != noNode && s.sight.node != s.srv.board.View().Leader:
		need.Node, need.Shown = s.sight.node, s.sight.at
	}
	return need, need.Shown != 0
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

// overtake waits until the leader shows everything that was seen on followers, and
// returns the epoch in which it does; 0 if there is no leader that could.
func (s *session) overtake(class *route.Class) (epoch uint64, err error) {
	need, any := s.horizon(class)
	v := s.srv.board.View()
	if !any {
		return v.Epoch, nil
	}
	s.srv.over.wanted.Store(int64(topology.Now()))
	switch {
	case s.passed(v, &need) || shown(v, &need) && !lost(v, &need):
		return v.Epoch, nil
	case v.Leader == topology.NoLeader:
		return 0, nil
	}
	s.srv.metrics.overtakes.Add(1)
	return s.awaitLeaderToShow(need)
}

// awaitLeaderToShow is overtake where it is to be waited for.
func (s *session) awaitLeaderToShow(need lagwatch.Need) (epoch uint64, err error) {
	end := time.Now().Add(overtakeLimit)
	if need.Node != noNode && s.sight.xmax != 0 { // the leader's next snapshot will do, unless a transaction takes long
		now := topology.Now()
		s.awaitView(needLeader, func(v *topology.View) bool { _, ok := leaderAt(v, now); return ok || s.passed(v, &need) }, end)
	}
	ok := !s.cancelled && s.awaitView(need, func(v *topology.View) bool { return s.passed(v, &need) || shown(v, &need) }, end)
	if s.passed(s.srv.board.View(), &need) {
		return s.sight.epoch, nil
	}
	v := s.srv.board.View()
	if lost(v, &need) {
		s.task.Sleep(moment)
	}
	switch {
	case s.cancelled:
		return 0, errCancelled
	case s.srv.closing.Load():
		return 0, errClosed
	case !ok:
		s.srv.metrics.overtakesSpent.Add(1)
	}
	return v.Epoch, nil
}

// passed reports whether the leader is known to show all that the follower did,
// which was asked behind the session's last read on it.
func (s *session) passed(v *topology.View, need *lagwatch.Need) bool {
	return need.Node != noNode && s.sight.xmax != 0 && s.sight.epoch == v.Epoch &&
		(v.Over.Passed(s.sight.xmax) || s.srv.over.passed(s.sight.xmax, v.Epoch))
}

// foresees reports whether a read on a follower is to be followed by the question
// which transactions it may have shown: when the session has gone to the leader
// behind as many such reads before.
func (s *session) foresees(class *route.Class) bool {
	return !s.onLeader && s.status == wire.Idle && s.heeds && reads(class.Kind) && s.sight.run+1 == s.sight.lastRun &&
		!s.srv.options.IgnorePositions
}

// overtaken notes that the session goes on on the leader, which shows all it has seen.
func (s *session) overtaken() {
	if s.sight.node != noNode {
		s.sight = sighting{node: noNode, lastRun: s.sight.run}
	}
}

// leaderSnapshot is the latest snapshot of the leader that has come with a commit.
// Sessions that go to the leader behind a read on a follower share it.
type leaderSnapshot struct {
	latest atomic.Pointer[snapshotOf]
	wanted atomic.Int64 // instant: somebody went to the leader behind such a read
	asked  atomic.Int64 // instant
}

// snapshotOf is the snapshot of the leader in an epoch.
type snapshotOf struct {
	topology.Snapshot
	epoch uint64
}

// A commit asks for one if there was none lately, while they are of use.
const (
	snapshotEvery = topology.Instant(500 * time.Microsecond)
	snapshotUse   = topology.Instant(20 * time.Millisecond)
)

// due reports whether a commit is to ask for another.
func (l *leaderSnapshot) due() bool {
	now := topology.Now()
	asked := l.asked.Load()
	return now-topology.Instant(l.wanted.Load()) < snapshotUse && now-topology.Instant(asked) > snapshotEvery &&
		l.asked.CompareAndSwap(asked, int64(now))
}

func (l *leaderSnapshot) note(s topology.Snapshot, epoch uint64) {
	l.latest.Store(&snapshotOf{s, epoch})
}

func (l *leaderSnapshot) passed(xmax, epoch uint64) bool {
	latest := l.latest.Load()
	return latest != nil && latest.epoch == epoch && latest.Passed(xmax)
}

// shown reports whether the leader shows what need asks for, as far as there are
// followers that can still tell.
func shown(v *topology.View, need *lagwatch.Need) bool {
	if v.Leader == topology.NoLeader {
		return false
	}
	for i := range v.Nodes {
		n := &v.Nodes[i]
		if follower(n) && (need.Node == i || need.Followers) && n.Shown < need.Shown {
			return false
		}
	}
	return true
}

// lost reports whether a follower that need is about is gone. So, in a moment, is
// the one in which it showed more than the leader.
func lost(v *topology.View, need *lagwatch.Need) bool {
	return need.Node != noNode && !follower(&v.Nodes[need.Node])
}

func follower(n *topology.Node) bool {
	return n.Role == topology.RoleFollower && n.State != topology.Down
}

// overtakeApart is overtake before the session's token is told: who goes on with
// it may do so on the leader, and cannot know which follower to ask.
func (s *session) overtakeApart(class *route.Class) error {
	if s.srv.board.View().Leader == topology.NoLeader {
		return nil // once there is one, the moment has passed
	}
	_, err := s.overtake(class)
	if err == nil {
		s.overtaken()
	}
	return err
}

// apart runs questions of ours while the gathered batch waits.
func (s *session) apart(ask func() error) error {
	kept := s.cycle
	s.cycle = cycle{steps: s.home.lendSteps()}
	defer func() {
		s.home.takeSteps(s.cycle.steps)
		s.cycle = kept
	}()
	err := ask()
	s.out.discard(s.conn)
	if err != nil {
		s.dropUp()
	}
	return err
}
