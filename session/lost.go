package session

import (
	"errors"

	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// mismatched gives up a connection that could not be brought in line: the batch
// has not been carried out.
func (s *session) mismatched(misfit *misfitError) error {
	s.out.discard(s.conn)
	s.dropUp()
	s.abandon(len(s.cycle.steps))
	s.destroy()
	return misfit.cause
}

// lostBehind deals with a connection that was lost after it had answered the
// client. What was written is covered by the leader's position from now on.
func (s *session) lostBehind() {
	if s.cycle.commits {
		s.wrote(s.conn.Node)
	} else {
		s.saw(s.conn.Node)
	}
	s.out.spill(s.conn)
	s.in.Consume(s.cycle.batch)
	s.cycle.batch = 0
	s.dropUp()
	s.destroy()
}

// lostAfter deals with a connection that was lost when the whole answer had been
// passed on: what was open on it is over, and the client hears of it next.
func (s *session) lostAfter(lost *lostError) error {
	s.status = s.cycle.ready
	s.out.spill(s.conn)
	s.in.Consume(s.cycle.batch)
	s.cycle.batch = 0
	s.dropUp()
	if err := s.flush(); err != nil {
		return err
	}
	return s.sever(lost)
}

// lost deals with a connection that was lost while it owed the client an
// answer. The client is told and lives on, unless it was the session that the
// server was told to end; what it had begun is over.
func (s *session) lost(l *lostError) error {
	c := &s.cycle
	told := lostText(l.cause, c.fatal)
	ends := c.class.Kind == route.Commit || c.class.Kind == route.Rollback
	unknown := s.onLeader && c.written && !c.failed && !c.copying && s.mayHaveCommitted(&c.class)
	if l.ends && c.class.Kind != route.Commit && !c.class.Multi {
		unknown = false // one statement, whose server says that it was not completed
	}
	if unknown {
		s.srv.metrics.outcomeUnknown.Add(1)
		told = &wire.Error{
			Code: "08007", Message: "connection to the server was lost before it confirmed the commit: outcome unknown",
			Detail: told.Message, Hint: "Look whether the change is there before you repeat it.",
		}
	}
	if c.written {
		s.saw(s.conn.Node) // it may have been shown something, and may have done it
	}
	torn := c.skip > 0
	inTransaction := s.status != wire.Idle && !ends
	s.srv.log.Warn("server connection lost under a statement", "node", s.srv.board.View().Nodes[s.conn.Node].Address,
		"cause", l.cause, "told", told.Code)
	if c.held && !l.ends {
		s.out.discard(s.conn)
		s.unlearn()
	} else {
		s.out.spill(s.conn) // what came before the end was said
	}
	s.dropUp()
	s.abandon(len(c.steps))
	held := s.lose()
	if torn {
		return errEnd // in the middle of a message there is no way to say anything
	}
	if l.ends || held {
		if err := s.flush(); err != nil {
			return err
		}
		told.Severity = "FATAL"
		return told
	}
	s.aborted = inTransaction
	status := byte(wire.Idle)
	if s.aborted {
		status = wire.Failed
	}
	return s.refuse(told, status)
}

// mayHaveCommitted reports whether a statement of this class may have committed
// something by itself, or what the transaction did before.
func (s *session) mayHaveCommitted(class *route.Class) bool {
	if s.status == wire.Idle {
		return !reads(class.Kind) && class.Kind != route.Begin
	}
	return class.Kind == route.Commit || class.Multi ||
		class.Kind == route.Write && class.Reason == route.ReasonTransaction
}

// lostText makes what the client is told of a connection lost for cause, from the
// server's last words if it had any.
func lostText(cause error, fatal *wire.Error) *wire.Error {
	switch {
	case fatal != nil:
		e := *fatal
		return &e
	case errors.Is(cause, errDeposed):
		e := deposed
		return &e
	case errors.Is(cause, errSilent):
		return &wire.Error{Code: "08006", Message: "no answer comes from the server"}
	}
	return &wire.Error{Code: "08006", Message: "server closed the connection unexpectedly"}
}

// isMisfit reports whether the connection could not be brought in line.
func isMisfit(err error) bool {
	_, ok := errors.AsType[*misfitError](err)
	return ok
}

// isLoss reports whether the connection was lost, and the session not told to end.
func isLoss(err error) bool {
	lost, ok := errors.AsType[*lostError](err)
	return ok && !lost.ends
}
