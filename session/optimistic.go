package session

import (
	"encoding/binary"
	"slices"

	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// An optimistic transaction (route.Policy.Optimistic) begins on a follower, in the
// hope that it will only read. At READ COMMITTED each statement sees what was
// committed before it, so nothing holds a transaction to a server as long as it has
// only read: with the first statement that is not a read, or that cannot be
// told to mean the same there, it is ended on the follower and goes on
// on the leader, in a transaction begun alike that shows all that was seen
// (overtake). If the follower is lost, it goes on there, too.

// mayHope reports whether a batch begins a transaction that may be optimistic.
func (s *session) mayHope(b *batch) bool {
	return s.policy.Optimistic && b.class.Kind == route.Begin && b.class.Plain && !b.mixed && !s.serializable && s.mode == ModeTransaction && s.ownOnly()
}

// ownOnly reports whether reads need not see what others have committed: else
// that would count with each statement of a transaction anew.
func (s *session) ownOnly() bool {
	switch s.policy.Level {
	case route.LevelSession, route.LevelBounded, route.LevelEventual:
		return true
	}
	return false
}

// hope begins a transaction on a follower that covers what the session has seen,
// whatever else its level allows: what is written may rest on what is read.
func (s *session) hope(b *batch) error {
	was, p := s.policy, *s.policy
	p.Level, p.Spent, p.NoFollower = route.LevelSession, route.FallLeader, route.FallLeader
	s.policy = &p
	defer func() { s.policy = was }()
	err := s.read(b)
	if err != nil || s.conn == nil || s.onLeader || s.status != wire.InTx {
		return err
	}
	s.hopeful = true
	switch string(s.cycle.value) { // SHOW transaction_isolation, by attempt
	case "read committed", "read uncommitted":
		return nil
	}
	s.leave()
	return nil
}

// goOn runs a batch of an optimistic transaction: on the follower, or it takes the
// transaction to the leader.
func (s *session) goOn(b *batch) error {
	if s.conn != nil {
		s.conn.Net.OnReady(nil)
		if s.mayStay(b) {
			node, note := s.conn.Node, s.note(&b.class)
			s.watchPortals(b)
			if !b.own {
				s.routed = routing{node: node, why: route.WhyBound, reason: b.class.Reason, level: s.policy.Level}
			}
			err := s.attempt(b, true)
			switch {
			case s.cycle.refusal != "" && err == nil:
				s.home.counts.replays[slices.Index(refusals[:], s.cycle.refusal)]++
				s.out.discard(s.conn)
			case s.cycle.held && isLoss(err):
				s.srv.metrics.retries.Add(1)
				s.out.discard(s.conn)
				s.dropUp()
				s.destroy()
			default:
				s.home.counts.nodes[node].reads[s.policy.Level][route.WhyBound]++
				err = s.finishOn(b, err)
				if s.status == wire.Idle || s.aborted {
					s.hopeful = false
				}
				if err == nil {
					s.enter(note)
				}
				return err
			}
			s.cycle.rewind()
		}
	}
	s.hopeful = false
	if err := s.begunAnew(b); err != nil {
		return err
	}
	if !b.own {
		s.routed = routing{node: s.conn.Node, leader: true, why: route.WhyNotRead, reason: b.class.Reason}
	}
	s.home.counts.nodes[s.conn.Node].writes++
	return s.finishOn(b, s.attempt(b, false))
}

// mayStay reports whether a batch may run on the follower.
func (s *session) mayStay(b *batch) bool {
	switch {
	case s.status == wire.Failed: // it will not be run, unless it ends the transaction
		return true
	case !b.complete || b.mixed:
		return false
	case b.class.Kind == route.Commit || b.class.Kind == route.Rollback, b.texts == 0: // the last, portals that are there, or are not
		return true
	default:
		return reads(b.class.Kind) && s.carries(b.class.Reads) && s.ownOnly() &&
			s.token == s.need && // a hint may have brought another
			!s.leavesPortal() && !s.tellsTime(&b.class)
	}
}

// leavesPortal reports whether the gathered batch makes a portal that a later one
// may go on with, which could not be taken to the leader.
func (s *session) leavesPortal() bool {
	left := false
	for i := range s.cycle.steps {
		st := &s.cycle.steps[i]
		body := s.bodyOf(st)
		switch st.typ {
		case wire.Bind:
			if portal, _, ok := wire.CString(body); !ok || len(portal) > 0 {
				return true
			}
			left = true
		case wire.Execute:
			if _, rows, ok := wire.CString(body); !ok || len(rows) != 4 || binary.BigEndian.Uint32(rows) != 0 {
				return true
			}
			left = false
		}
	}
	return left
}

// tellsTime reports whether the gathered batch may ask when its transaction began:
// at another time on the leader.
func (s *session) tellsTime(class *route.Class) bool {
	if class.Timed {
		return true
	}
	for i := range s.cycle.steps {
		st := &s.cycle.steps[i]
		switch {
		case st.typ == wire.Query && route.Timely(s.bodyOf(st)):
			return true
		case st.stmt != nil && route.Timely(st.stmt.body):
			return true
		}
	}
	return false
}

// leave ends a transaction that has only read on a follower, unless the connection
// is gone already.
func (s *session) leave() {
	if s.conn == nil {
		return
	}
	if state, err := s.stateAfter(func() { s.askQuery("ROLLBACK") }); err != nil || state != wire.Idle {
		s.destroy()
	} else {
		s.release()
	}
}
