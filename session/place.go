package session

import (
	"time"

	"github.com/lsnproxy/lsnproxy/lagwatch"
	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

var needLeader = lagwatch.Need{Leader: true, Node: noNode}

// place decides where a read runs: where the session is, where the view says
// its token is covered, where that becomes so within the waiting budget, or the
// leader. The position still has to be proved on the connection (assure).
func (s *session) place(tried uint64, replay bool) (routing, error) {
	if replay || s.db.catalog.Load() == nil {
		why := route.WhyReplay
		if !replay {
			why = route.WhyNoCatalog
		}
		return s.onTheLeader(why)
	}
	if err := s.checkToken(); err != nil {
		return routing{}, err
	}
	var deadline time.Time // begun only when there is something to wait for
	for waited := false; ; {
		d := route.Pick(s.srv.board.View(), s.wish(tried))
		moves := s.last.node != noNode && d.Node != s.last.node
		if deadline.IsZero() && (d.Wait || moves) {
			deadline = time.Now().Add(s.srv.options.ReadWait)
		}
		switch {
		case d.Wait && !waited:
			if !s.awaitFollower(tried, deadline) && s.cancelled {
				return routing{}, errCancelled
			}
			waited = true
			continue
		case d.Wait || d.Why == route.WhyNoFollower:
			return s.onTheLeader(d.Why)
		case moves:
			if !s.settle(deadline) {
				return s.onTheLeader(route.WhyNotSettled)
			}
			continue
		}
		if waited {
			d.Why = route.WhyWaited
		}
		return routing{node: d.Node, why: d.Why}, nil
	}
}

// wish is what the session asks of a node.
func (s *session) wish(tried uint64) route.Ask {
	return route.Ask{Need: s.token, Stay: s.last.node, Tried: tried, Turn: s.turn}
}

func (s *session) onTheLeader(why route.Why) (routing, error) {
	node, err := s.awaitLeader(time.Now().Add(s.srv.options.LeaderWait))
	return routing{node: node, leader: true, why: why}, err
}

// checkToken refuses to go on, once, when the write that the token stands for
// is not in the leader's history: a failover has lost it.
func (s *session) checkToken() error {
	v := s.srv.board.View()
	if s.token.IsZero() || v.Leader == topology.NoLeader || s.token.Timeline >= v.History.Timeline ||
		v.History.Contains(s.token) {
		return nil
	}
	lost := s.token
	s.token, s.told, s.last.node = lsn.Position{}, lsn.Position{}, noNode
	s.srv.metrics.lostWrites.Add(1)
	return &wire.Error{
		Code: "LS001", Message: "a write of this session may have been lost in a failover",
		Detail: "Position " + lost.String() + " is not in the history of the present leader's timeline.",
		Hint:   "The session goes on from the present state; check what was written last.",
	}
}

// awaitFollower waits until a usable follower covers the token.
func (s *session) awaitFollower(tried uint64, deadline time.Time) bool {
	ask := s.wish(tried)
	s.srv.metrics.waits.Add(1)
	start := time.Now()
	ok := s.awaitView(lagwatch.Need{Followers: true, Node: noNode, Position: s.token}, func(v *topology.View) bool {
		return !route.Pick(v, ask).Wait
	}, deadline)
	s.srv.metrics.waited.Add(int64(time.Since(start)))
	if !ok {
		s.srv.metrics.waitsSpent.Add(1)
	}
	return ok
}

// awaitView parks until the view is as wanted, the deadline has passed or the
// statement is cancelled, and reports whether the view is as wanted.
func (s *session) awaitView(need lagwatch.Need, wanted func(*topology.View) bool, deadline time.Time) bool {
	for !wanted(s.srv.board.View()) {
		w := s.srv.watch.Await(need, wanted, s.waking.Wake) // it wakes once
		cause := s.task.Wait(deadline)
		w.Cancel()
		if s.cancelled || cause&(reactor.Deadline|reactor.Closed) != 0 {
			return wanted(s.srv.board.View())
		}
	}
	return true
}

// settle folds what the session has seen into its token, so that another node
// can be held to it: the position of the node that served the last read, as
// sampled after that read. If that node's position cannot be had, or it may
// have gone back meanwhile, the leader's covers it too.
func (s *session) settle(deadline time.Time) bool {
	if s.last.node == noNode {
		return true
	}
	last := s.last
	own := func(v *topology.View) (lsn.Position, bool) {
		n := &v.Nodes[last.node]
		return n.Position, n.Sampled >= last.at && n.Watched <= last.at && n.Role != topology.RoleUnknown
	}
	leaders := func(v *topology.View) (lsn.Position, bool) {
		if v.Leader == topology.NoLeader {
			return lsn.Position{}, false
		}
		n := &v.Nodes[v.Leader]
		return n.Position, n.Sampled >= last.at
	}
	known := func(v *topology.View) bool {
		_, ok := own(v)
		_, ok2 := leaders(v)
		return ok || ok2
	}
	if !s.awaitView(lagwatch.Need{Leader: true, Node: last.node}, known, deadline) {
		return false
	}
	v := s.srv.board.View()
	at, ok := own(v)
	if !ok {
		at, _ = leaders(v)
	}
	s.token = lsn.Later(s.token, at)
	s.last.node = noNode
	return true
}

// assure makes sure that the follower at the other end of the held connection
// has applied all that the session has written and seen. If not, it gives the
// connection back.
func (s *session) assure() (bool, error) {
	if s.srv.options.IgnorePositions {
		return true, nil
	}
	conn := s.conn
	v := s.srv.board.View()
	n := &v.Nodes[conn.Node]
	if s.last.node == conn.Node && conn.Opened > s.last.at {
		// The connection is younger than the last read: unless the watcher's own
		// has lived through both, the server may have restarted in between.
		if n.Watched > s.last.at || n.Sampled < conn.Opened {
			if !s.settle(time.Now().Add(s.srv.options.ReadWait)) {
				s.release()
				return false, nil
			}
		}
	}
	if v.Proves(n, conn.Opened, s.token) || v.History.Covers(conn.Floor, s.token) {
		return true, nil
	}
	s.srv.metrics.guards.Add(1)
	at, err := s.guard()
	if err != nil {
		return false, nil // the connection is gone, the read goes elsewhere
	}
	conn.Floor = lsn.Position{Timeline: n.Position.Timeline, LSN: at}
	if at != 0 && v.History.Covers(conn.Floor, s.token) {
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
