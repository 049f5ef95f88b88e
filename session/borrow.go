package session

import (
	"errors"
	"fmt"
	"time"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/pool"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

// leaderPause is how long to wait before a leader that does not answer is
// tried again.
const leaderPause = 50 * time.Millisecond

// leader borrows a connection to the leader, and waits up to LeaderWait for
// there to be one that answers.
func (s *session) leader() (conn *backend.Conn, group *pool.Group, node int, err error) {
	err = s.withLeader(func(n int) (err error) {
		node = n
		if conn, group, err = s.borrow(n, true); err == nil && !s.authorize(n) {
			group.Release(conn)
			err = errDeposed
		}
		return err
	})
	return conn, group, node, err
}

// withLeader calls connect with the leader's number, again for as long as
// LeaderWait while it finds no server there.
func (s *session) withLeader(connect func(node int) error) error {
	deadline := time.Now().Add(s.srv.options.LeaderWait)
	for {
		node, err := s.awaitLeader(deadline)
		if err != nil {
			return err
		}
		err = connect(node)
		if err == nil {
			return nil
		}
		if errors.Is(err, errDeposed) {
			continue
		}
		if !unreachable(err) || time.Now().After(deadline) {
			return tellConnect(err)
		}
		s.task.Sleep(leaderPause)
		if s.srv.closing.Load() {
			return errClosed
		}
	}
}

// awaitLeader returns the node that takes writes, waiting for there to be one.
func (s *session) awaitLeader(deadline time.Time) (int, error) {
	known := func(v *topology.View) bool { return v.Leader != topology.NoLeader }
	for s.awaitView(needLeader, known, deadline) {
		leader := s.srv.board.View().Leader
		if _, ok := s.srv.leads(leader); ok {
			return leader, nil
		}
		if !time.Now().Before(deadline) {
			return noNode, &wire.Error{
				Code: "57P03", Message: "this proxy may not write now",
				Detail: fmt.Sprintf("It has had no write lease from the proxies' coordinator for %s.", s.srv.options.LeaderWait),
			}
		}
		if s.task.Sleep(leasePause); s.cancelled || s.srv.closing.Load() {
			break
		}
	}
	if s.cancelled {
		return noNode, errCancelled
	}
	return noNode, &wire.Error{
		Code: "57P03", Message: "there is no leader to take this statement",
		Detail: fmt.Sprintf("No node that accepts writes was found within %s.", s.srv.options.LeaderWait),
	}
}

// leasePause is how long to wait before a write lease is looked for again.
const leasePause = 10 * time.Millisecond

// authorize notes under which epoch the session may use a connection to node, as
// the leader; false: it may not, or not any more.
func (s *session) authorize(node int) bool {
	epoch, ok := s.srv.leads(node)
	if ok {
		s.epoch = epoch
	}
	return ok
}

var errCancelled = &wire.Error{Code: "57014", Message: "canceling statement due to user request"}

// borrow takes a connection to a node out of the pool: one to the leader, or else
// errDeposed as soon as it is none any more.
func (s *session) borrow(node int, leader bool) (*backend.Conn, *pool.Group, error) {
	g := s.groups[node]
	if leader {
		if node != s.srv.board.View().Leader {
			return nil, nil, errDeposed
		}
		s.lining = node
	}
	c, err := g.Acquire(s.task, &s.request)
	for err == nil && c.Made != nil && s.minds(c) {
		g.Destroy(c)
		c, err = g.Acquire(s.task, &s.request)
	}
	if err == pool.ErrInterrupted && s.forsaken() && !s.cancelled && !s.srv.closing.Load() {
		err = errDeposed
	}
	s.lining = noNode
	if err != nil {
		return nil, nil, err
	}
	if h := s.request.Home; h != nil && h.Homeless() && node == s.srv.board.View().Leader && c.Home() == nil {
		s.settleAt(c, g)
	}
	return c, g, nil
}

// forsaken reports whether the session stands in line for a connection to a leader
// that is none any more: the line may not move, and nobody may have that connection.
func (s *session) forsaken() bool {
	return s.lining != noNode && s.lining != s.srv.board.View().Leader
}

// unreachable reports whether a connection could not be had because the server
// is not there.
func unreachable(err error) bool {
	return !errors.Is(err, pool.ErrTimeout) && !errors.Is(err, pool.ErrInterrupted) &&
		!errors.Is(err, pool.ErrClosed) && backend.Unavailable(err)
}

// tellConnect turns the reason that no connection could be had into what the
// client is told.
func tellConnect(err error) error {
	var own *wire.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, pool.ErrTimeout):
		return &wire.Error{
			Code: "53300", Message: "no server connection became free in time",
			Hint: "All connections of this database and user are in use: raise pool.size or pool.wait, or keep transactions shorter.",
		}
	case errors.Is(err, pool.ErrInterrupted):
		return errCancelled
	case errors.Is(err, pool.ErrClosed):
		return errClosed
	}
	told := backend.ErrorOf(err)
	told.Severity = "ERROR"
	return told
}
