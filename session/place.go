package session

import (
	"time"

	"github.com/lsnproxy/lsnproxy/lagwatch"
	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/topology"
)

var needLeader = lagwatch.Need{Leader: true, Node: noNode}

// place decides where a read runs: where the session is, where the view says
// that what it needs is covered, where that becomes so within the waiting
// budget, or what its policy says then. The position still has to be proved on
// the connection (assure).
func (s *session) place(tried uint64, replay bool) (routing, error) {
	if why := s.toLeader(replay); why != route.WhyNothing {
		return s.onTheLeader(why)
	}
	if err := s.checkToken(); err != nil {
		return routing{}, err
	}
	p := s.policy
	var deadline time.Time // begun only when there is something to wait for
	begin := func() time.Time {
		if deadline.IsZero() {
			deadline = time.Now().Add(p.Budget())
		}
		return deadline
	}
	var beside lsn.Position
	if p.Level == route.LevelStrong || p.Level == route.LevelService {
		var ok bool
		if beside, ok = s.obligation(begin()); !ok {
			return s.unless(p.Spent, route.WhyNotSettled, tried)
		}
	}
	left := noNode // to return
	for waited := false; ; {
		v, ask := s.srv.board.View(), s.wish(tried, beside)
		d := route.Pick(v, ask)
		switch {
		case d.Why == route.WhyNoFollower:
			return s.without(p.NoFollower, d.Why, tried)
		case d.Wait && waited:
			return s.without(p.Spent, d.Why, tried)
		case d.Wait && route.Hopeless(v, ask, p.Budget()):
			return s.without(p.Spent, route.WhyHopeless, tried)
		case d.Wait:
			waited = true
			if !s.awaitFollower(tried, beside, begin()) && s.cancelled {
				return routing{}, errCancelled
			}
			continue
		case p.Remembers() && s.last.node != noNode && d.Node != s.last.node:
			if d.Why == route.WhyReturns {
				left = s.last.node
			}
			if s.placed = s.last.at; !s.settle(begin()) && d.Why != route.WhyReturns {
				return s.unless(p.Spent, route.WhyNotSettled, tried)
			}
			continue
		}
		if ask.Return {
			s.placed = s.last.at
		}
		switch {
		case waited:
			d.Why = route.WhyWaited
		case left != noNode && d.Node != left:
			d.Why = route.WhyReturns
		}
		if s.need = ask.Need; p.Level == route.LevelBounded {
			s.need = v.Nodes[d.Node].Position // what it was chosen for
		}
		r := routing{node: d.Node, why: d.Why, level: p.Level, need: s.need, view: v}
		if !deadline.IsZero() {
			r.waited = p.Budget() - time.Until(deadline)
		}
		return r, nil
	}
}

// toLeader says why a read has to run on the leader whatever the followers have
// applied; nothing if it has not.
func (s *session) toLeader(replay bool) route.Why {
	switch {
	case replay:
		return route.WhyReplay
	case s.policy.Level == route.LevelLeader:
		return route.WhyLevel
	case s.db.catalog.Load() == nil:
		return route.WhyNoCatalog
	default:
		return route.WhyNothing
	}
}

// unless is without, but for a statement that was cancelled meanwhile.
func (s *session) unless(f route.Fallback, why route.Why, tried uint64) (routing, error) {
	if s.cancelled {
		return routing{}, errCancelled
	}
	return s.without(f, why, tried)
}

// wish is what the session asks of a node; beside is what its level asks for
// beside its token.
func (s *session) wish(tried uint64, beside lsn.Position) route.Ask {
	a := route.Ask{Stay: s.last.node, Tried: tried, Turn: s.turn, Nearest: s.srv.options.Nearest}
	if every := s.srv.options.Return; every > 0 {
		a.Return = s.last.at.Since(s.placed) > every
	}
	switch p := s.policy; p.Level {
	case route.LevelEventual:
	case route.LevelBounded:
		a.MaxAge, a.MaxBytes, a.Now = p.MaxAge, p.MaxBytes, topology.Now()
	default:
		a.Need = lsn.Later(s.token, beside)
	}
	return a
}

func (s *session) onTheLeader(why route.Why) (routing, error) {
	node, err := s.awaitLeader(time.Now().Add(s.srv.options.LeaderWait))
	return routing{node: node, leader: true, why: why, level: s.policy.Level, view: s.srv.board.View()}, err
}

// awaitFollower waits until a usable follower covers the token.
func (s *session) awaitFollower(tried uint64, beside lsn.Position, deadline time.Time) bool {
	ask := s.wish(tried, beside)
	start := time.Now()
	ok := s.awaitView(lagwatch.Need{Followers: true, Leader: ask.MaxAge > 0, Node: noNode, Position: ask.Need}, func(v *topology.View) bool {
		now := ask // this runs on other goroutines
		if ask.MaxAge > 0 {
			now.Now = topology.Now()
		}
		return !route.Pick(v, now).Wait
	}, deadline)
	s.home.counts.waits.add(time.Since(start))
	if !ok {
		s.home.counts.spent++
	}
	return ok
}

// awaitView parks until the view is as wanted, the deadline has passed or the
// statement is cancelled, and reports whether the view is as wanted.
func (s *session) awaitView(need lagwatch.Need, wanted func(*topology.View) bool, deadline time.Time) bool {
	for !wanted(s.srv.board.View()) {
		w := s.srv.watch.AwaitTask(need, wanted, s.waking) // it wakes once
		cause := s.task.Wait(deadline)
		w.Cancel()
		if s.cancelled || cause&(reactor.Deadline|reactor.Closed) != 0 {
			return wanted(s.srv.board.View())
		}
	}
	return true
}

// assure makes sure that the follower at the other end of the held connection
// has applied what the read needs. If not, it gives the
// connection back.
func (s *session) assure() (bool, error) {
	if s.srv.options.IgnorePositions {
		return true, nil
	}
	conn := s.conn
	v := s.srv.board.View()
	n := &v.Nodes[conn.Node]
	if s.heeds && s.last.node == conn.Node && conn.Opened > s.last.at {
		// The connection is younger than the last read: unless the watcher's own
		// has lived through both, the server may have restarted in between.
		if n.Watched > s.last.at || n.Sampled < conn.Opened {
			if !s.settle(time.Now().Add(s.policy.Budget())) {
				s.release()
				return false, nil
			}
			s.need = lsn.Later(s.need, s.token)
		}
	}
	if v.Proves(n, conn.Opened, s.need) || v.History.Covers(conn.Floor, s.need) {
		return true, nil
	}
	s.srv.metrics.guards.Add(1)
	at, err := s.guard()
	if err != nil {
		return false, nil // the connection is gone, the read goes elsewhere
	}
	conn.Floor = lsn.Position{Timeline: n.Position.Timeline, LSN: at}
	if at != 0 && v.History.Covers(conn.Floor, s.need) {
		return true, nil
	}
	s.srv.metrics.guardsShort.Add(1)
	s.release()
	return false, nil
}

// guard asks the follower itself how far it has replayed. The gathered steps
// wait meanwhile.
func (s *session) guard() (lsn.LSN, error) {
	var at lsn.LSN
	err := s.apart(func() (err error) {
		at, err = s.probe(oidReplayLSN)
		return err
	})
	if err != nil {
		s.destroy()
	}
	return at, err
}
