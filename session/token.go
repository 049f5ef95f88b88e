package session

import (
	"time"

	"github.com/lsnproxy/lsnproxy/lagwatch"
	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

// settle folds what the session has seen, and has written without asking for the
// position, into its token, so that another node can be held to it. false: it
// cannot be told, or not in time.
func (s *session) settle(deadline time.Time) bool {
	if s.last.node == noNode {
		return true
	}
	last := s.last // this runs on other goroutines
	known := func(v *topology.View) bool {
		_, ok := last.covered(v)
		return ok || last.astray(v)
	}
	if !s.awaitView(lagwatch.Need{Leader: true, Node: last.node}, known, deadline) {
		return false
	}
	at, ok := last.covered(s.srv.board.View())
	if !ok {
		return false
	}
	s.fold(at)
	return true
}

// fold makes the token cover what was seen and written last, which at covers.
func (s *session) fold(at lsn.Position) {
	s.token = lsn.Later(s.token, at)
	s.owed = s.owed || s.last.written && s.policy.Delivery != route.DeliverOff && s.token != s.told
	s.last = seen{node: noNode}
}

// covered returns a position that covers what was seen: that of the node, as
// sampled later. If that cannot be had, or the node may have gone back meanwhile,
// the leader's covers it too. What was written is covered by nothing on
// another timeline.
func (last *seen) covered(v *topology.View) (lsn.Position, bool) {
	if last.astray(v) {
		if at, ok := v.Written(last.timeline, last.at); ok {
			return at, true
		}
	}
	n := &v.Nodes[last.node]
	switch {
	case last.written && n.Position.Timeline != last.timeline:
	case n.Sampled >= last.at && n.Watched <= last.at && n.Role != topology.RoleUnknown:
		return n.Position, true
	}
	if last.astray(v) {
		return lsn.Position{}, false
	}
	return leaderAt(v, last.at)
}

// astray reports whether there was a write that the present leader may not have:
// it leads on another timeline.
func (last *seen) astray(v *topology.View) bool {
	return last.written && v.Leader != topology.NoLeader && v.History.Timeline != last.timeline
}

// checkToken tells the session, once, when a write that its token stands for is
// not in the leader's history: a failover has lost it. So it does when it cannot be
// told, because the position of the write was not asked for in time.
func (s *session) checkToken() error {
	if s.token.IsZero() && !s.last.written {
		return nil
	}
	v := s.srv.board.View()
	if v.Leader == topology.NoLeader {
		return nil
	}
	var doubt error
	if s.last.astray(v) {
		at, ok := s.last.covered(v)
		if s.fold(at); !ok {
			s.owed = false
			s.srv.metrics.fatesUnknown.Add(1)
			doubt = s.tellLost(fateUnknown())
		}
	}
	if s.token.IsZero() || s.token.Timeline >= v.History.Timeline || v.History.Contains(s.token) {
		return doubt
	}
	lost := s.token
	s.token, s.told, s.owed, s.last = lsn.Position{}, lsn.Position{}, false, seen{node: noNode}
	if doubt != nil {
		return doubt // there is no more to tell
	}
	s.srv.metrics.lostWrites.Add(1)
	return s.tellLost(lostWrite(lost))
}

// tellLost tells of a write that may be lost, in the way that the policy asks for:
// by an error, which the statement ends in, or by a notice.
func (s *session) tellLost(e *wire.Error) error {
	if s.policy.Lost == route.LostError {
		return e
	}
	e.Severity = "WARNING"
	s.out.put(s.conn, e.AppendNotice)
	return s.flush() // what is kept back may be dropped
}

// lostWrite tells of a write that is not in the leader's history.
func lostWrite(at lsn.Position) *wire.Error {
	return &wire.Error{
		Code: "LS001", Message: "a write of this session may have been lost in a failover",
		Detail: "Position " + at.String() + " is not in the history of the present leader's timeline.",
		Hint:   "The session goes on from the present state; check what was written last.",
	}
}

// fateUnknown tells of a write of which it is not known whether it is in the
// leader's history.
func fateUnknown() *wire.Error {
	return &wire.Error{
		Code: "LS003", Message: "it is not known whether a failover has lost the last write of this session",
		Detail: "The leader went before the position of the write was learnt.",
		Hint:   "The session goes on from the present state; check what was written last. With lsnproxy.delivery = inline the position is always learnt.",
	}
}
