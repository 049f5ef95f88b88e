package session

import (
	"errors"
	"slices"
	"strconv"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

func itoa(n int) string { return strconv.Itoa(n) }

// serveOne reads one batch and sees it answered.
func (s *session) serveOne() error {
	if s.cycle.steps == nil {
		s.cycle.steps = s.home.lendSteps()
	}
	s.cycle.begin()
	defer s.closeCycle()
	b, err := s.gather()
	if err != nil {
		s.part()
		return err
	}
	if len(s.cycle.steps) == 0 && !b.complete && b.size > 0 { // only what belongs to no request
		s.in.Consume(b.size)
		return nil
	}
	s.cycle.class, s.cycle.batch, s.cycle.open = b.class, b.size, !b.complete
	err = s.serve(&b)
	if e, ok := asError(err); ok {
		return s.fail(e)
	}
	return err
}

// fail answers the batch with an error of ours and puts the transaction, if one
// is open, into the state that an error leaves it in.
func (s *session) fail(e *wire.Error) error {
	if s.status == wire.InTx && !s.aborted {
		s.breakTransaction()
	}
	status := s.status
	if s.aborted {
		status = wire.Failed
	}
	if err := s.refuse(e, status); err != nil {
		return err
	}
	if s.conn != nil && s.status == wire.Idle && s.pinned == route.PinNone {
		s.release()
	}
	return nil
}

// breakTransaction makes the transaction on the held connection a failed one.
func (s *session) breakTransaction() {
	if s.conn == nil { // an optimistic one whose follower is gone
		s.hopeful, s.aborted, s.status = false, true, wire.Failed
		return
	}
	err := s.apart(func() error {
		s.startUp()
		s.up = wire.AppendTarget(s.up, wire.Describe, noStatement) // which leaves nothing behind
		s.cycle.insert(step{typ: wire.Describe, wants: 'S'})
		err := s.syncOwn()
		s.status = s.cycle.ownReady
		return err
	})
	if err != nil || s.status != wire.Failed {
		s.destroy()
		s.hopeful, s.aborted, s.status = false, true, wire.Failed
	}
}

// serve sends a batch where it belongs.
func (s *session) serve(b *batch) error {
	if s.severed != nil && b.class.Kind != route.Rollback {
		return s.tellSevered(b)
	}
	if b.hint != "" && len(b.ownSets) == 0 {
		p, err := s.heedHint(b.hint)
		if err != nil {
			return err
		}
		defer func(was *route.Policy) { s.policy = was }(s.policy)
		s.policy = p
	}
	for _, own := range b.ownSets {
		if _, err := s.vary(*s.policy, own); err != nil { // before the server takes it
			return err
		}
	}
	if s.beginsBlock(b) {
		return errTransactionBlock
	}
	if s.conn == nil && !s.aborted {
		if err := s.checkToken(); err != nil {
			return err
		}
	}
	if b.own {
		if err := s.settleShown(b); err != nil {
			return err
		}
	}
	s.request.Brief = s.brief(b)
	if (b.class.Chain || b.class.Multi) && s.cycle.binds && s.conn != nil && !s.onLeader && s.status == wire.Failed && s.pinned == route.PinNone {
		if err := s.leaveFailed(b); err != nil {
			return s.finishOn(b, err)
		}
	}
	if b.class.Reads != "" {
		s.misses(b.class.Reads)
	}
	switch {
	case s.hopeful && (s.conn != nil || b.needed):
		return s.goOn(b)
	case s.conn != nil:
		return s.onHeld(b)
	case !b.needed && b.size > 0 && (b.complete || b.texts == 0): // what follows a Parse is in one transaction with it
		return s.local()
	case s.aborted:
		return s.resumeAborted(b)
	case b.complete && s.mayFollow(b):
		return s.read(b)
	case b.complete && s.mayHope(b):
		return s.hope(b)
	default:
		return s.write(b)
	}
}

// brief reports whether the batch leaves nothing that the session would keep its
// connection for, whatever comes of it: it prepares or describes statements.
func (s *session) brief(b *batch) bool {
	return b.complete && !s.cycle.binds && b.class.Prepared == route.PreparedNone && s.mode != ModeSession
}

// mayFollow reports whether a follower may serve the batch.
func (s *session) mayFollow(b *batch) bool {
	return !b.mixed && !s.serializable && (reads(b.class.Kind) && (b.class.Reads == "" || s.carries(b.class.Reads)) || b.class.Kind == route.BeginReadOnly)
}

// local answers a batch that no server has to see: a Sync, or the closing of
// statements.
func (s *session) local() error {
	for i := range s.cycle.steps {
		st := &s.cycle.steps[i]
		st.act = answer
		if st.typ == wire.Sync {
			s.cycle.ready = s.status
		}
	}
	if s.cycle.ready != 0 {
		s.cycle.steps = s.cycle.steps[:len(s.cycle.steps)-1]
	}
	s.in.Consume(s.cycle.batch)
	s.answerOwn()
	if s.cycle.ready != 0 {
		return s.sayReady(s.cycle.ready)
	}
	return s.flush()
}

// tellSevered tells of the connection that was lost while a transaction was
// idle on it. The transaction is over; a client that does not ask to end it is
// held in the failed state until it does, so that the rest of it does not run
// outside.
func (s *session) tellSevered(b *batch) error {
	e := s.severed
	s.severed = nil
	status := byte(wire.Failed)
	if b.class.Kind == route.Commit {
		s.aborted = false
		status = wire.Idle
	}
	return s.refuse(e, status)
}

// resumeAborted carries on a transaction whose connection was lost: a failed
// one on another connection, so that PostgreSQL itself answers what may be said
// in it.
func (s *session) resumeAborted(b *batch) error {
	s.severed = nil
	conn, group, node, err := s.leader()
	if err != nil {
		return err
	}
	s.hold(conn, group, true)
	s.untold = s.retell()
	s.routed = routing{node: node, leader: true, why: route.WhyBound, reason: b.class.Reason}
	if err = s.align(b); err == nil {
		err = s.apart(func() error {
			_, err := s.askValue("BEGIN")
			return err
		})
	}
	if err != nil {
		s.destroy()
		return &lostAgain
	}
	s.aborted = false
	if s.breakTransaction(); s.aborted {
		return &lostAgain
	}
	return s.finishOn(b, s.attempt(b, false))
}

// leaveFollower ends a failed transaction on a follower, to be followed by another one on
// the leader.
func (s *session) leaveFollower() {
	err := s.apart(func() error {
		_, err := s.askValue("ROLLBACK")
		return err
	})
	if err != nil {
		s.destroy()
	} else {
		s.release()
	}
	s.hopeful, s.aborted = false, true
}

// lostAgain answers in a transaction that is lost for good.
var lostAgain = wire.Error{Code: "25P02", Message: "current transaction is aborted, commands ignored until end of transaction block"}

// onHeld runs a batch on the connection that the transaction or the session
// holds.
func (s *session) onHeld(b *batch) error {
	s.conn.Net.OnReady(nil)
	note, transient := "", !s.onLeader
	part := b.flushed && (s.status == wire.Failed || s.status == wire.InTx && transient)
	b.complete = b.complete || part
	if transient {
		var err error
		if note, err = s.mindFollower(b); err != nil {
			return s.finishOn(b, err)
		}
		if part = part && !s.onLeader; s.onLeader {
			b.complete = !b.flushed && b.complete
		} else {
			s.watchPortals(b)
		}
	}
	s.cycle.part, s.cycle.telling, s.cycle.open = part, part, !b.complete
	if !b.own {
		s.routed = routing{node: s.conn.Node, leader: s.onLeader, why: route.WhyBound, reason: b.class.Reason}
	}
	err := s.finishOn(b, s.attempt(b, false))
	if transient && err == nil {
		s.enter(note)
	}
	if s.cycle.part && s.cycle.failed && err == nil {
		var over bool
		if over, err = s.skipRest(); over {
			err = s.sayReady(s.status)
		}
	}
	return err
}

// write runs a batch on the leader, on another connection if one cannot be brought
// in line: it may be what others had set there.
func (s *session) write(b *batch) error {
	s.heeds = true
	for try := 1; ; try++ {
		node, err := s.takeLeader(b)
		if err == nil {
			if err = s.checkToken(); err != nil { // there may be a new leader since
				return err
			}
			if !b.own {
				s.routed = routing{node: node, leader: true, why: route.WhyNotRead, reason: b.class.Reason}
			}
			s.home.counts.nodes[node].writes++
			err = s.attempt(b, false)
		}
		if !isMisfit(err) || s.cancelled || try == maxMisfits {
			return s.finishOn(b, err)
		}
		s.out.discard(s.conn)
		s.dropUp()
		s.destroy()
		if s.cycle.held { // it had been sent behind
			s.cycle.rewind()
		}
	}
}

// maxMisfits is how many connections to the leader are tried when one cannot be
// brought in line.
const maxMisfits = 3

// takeLeader takes a connection to the leader once that shows what the session has
// seen, and brings it in line.
func (s *session) takeLeader(b *batch) (node int, err error) {
	for {
		epoch, err := s.overtake(&b.class)
		if err != nil {
			return noNode, err
		}
		conn, group, node, err := s.leader()
		if err != nil {
			return node, err
		}
		if s.epoch != epoch { // there is another one since
			group.Release(conn)
			continue
		}
		s.overtaken()
		s.hold(conn, group, true)
		return node, s.align(b)
	}
}

// maxTries bounds how often a read is run again.
const maxTries = 8

// read runs a batch that may go to a follower, elsewhere again if that one
// refuses it or dies before anything has gone to the client.
func (s *session) read(b *batch) error {
	var tried uint64
	begins, note := b.class.Kind == route.BeginReadOnly || b.class.Kind == route.Begin, ""
	if begins {
		s.opening, note = opening{}, s.note(&b.class)
		s.watchPortals(b)
	}
	replay, retried := false, false
	for try := 1; ; try++ {
		r, err := s.place(tried, replay)
		if err != nil {
			return err
		}
		if r.leader && b.class.Kind == route.Begin {
			return s.write(b)
		}
		s.heeds = s.heedful(r)
		var epoch uint64
		if r.leader {
			if epoch, err = s.overtake(&b.class); err != nil {
				return err
			}
		}
		conn, group, err := s.borrow(r.node, r.leader)
		if errors.Is(err, errDeposed) {
			continue
		}
		if err != nil {
			if err := s.passOver(r.node, try, err); err != nil {
				return err
			}
			tried |= 1 << uint(r.node)
			continue
		}
		if r.leader && (!s.authorize(r.node) || s.epoch != epoch) {
			group.Release(conn)
			continue
		}
		s.hold(conn, group, r.leader)
		if !r.leader {
			if ok, err := s.assure(); err != nil {
				return err
			} else if !ok {
				tried |= 1 << uint(r.node)
				continue
			}
		} else {
			s.overtaken()
			if err := s.checkToken(); err != nil { // there may be a new leader since
				return err
			}
		}
		aligned := s.align(b)
		r.reason = b.class.Reason
		if !b.own {
			s.routed = r
		}
		if err = aligned; err == nil {
			err = s.attempt(b, try < maxTries)
		}
		switch {
		case s.cycle.refusal != "" && err == nil:
			s.home.counts.replays[slices.Index(refusals[:], s.cycle.refusal)]++
			s.out.discard(s.conn)
			if s.cycle.ready == wire.Idle {
				s.release()
			} else { // it has begun a transaction
				s.destroy()
			}
			s.cycle.rewind()
			replay = true
		case s.cycle.held && !retried && isLoss(err):
			retried = true // once: whatever ends connections may be the statement itself
			s.srv.metrics.retries.Add(1)
			s.out.discard(s.conn)
			s.destroy()
			s.dropUp()
			s.cycle.rewind()
			tried |= 1 << uint(r.node)
		case isMisfit(err) && !r.leader && !s.cancelled: // a role, say, that it does not know yet
			s.out.discard(s.conn)
			s.destroy()
			s.dropUp()
			s.cycle.rewind()
			tried |= 1 << uint(r.node)
		default:
			s.home.counts.nodes[r.node].reads[r.level][r.why]++
			if err = s.finishOn(b, err); begins && err == nil {
				s.enter(note)
			}
			return err
		}
	}
}

// passOver decides what a read does when no connection to its node can be had.
func (s *session) passOver(node, try int, err error) error {
	v := s.srv.board.View()
	if errors.Is(err, errCancelled) || try >= maxTries || node == v.Leader && !backend.Unavailable(err) {
		return tellConnect(err)
	}
	if node == v.Leader && s.task.Sleep(leaderPause) != 0 && s.srv.closing.Load() {
		return errClosed
	}
	return nil
}
