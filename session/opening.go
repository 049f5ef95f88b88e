package session

import (
	"errors"

	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// A transaction that begins READ ONLY runs on a follower. Some statements that it
// may hold mean something else there, or leave something that has to be on the
// leader: advisory locks, PREPARE, cursors WITH HOLD, what belongs to one server.
// If one of these comes first, the transaction is begun anew on the leader.

// textOf returns the statement that a batch of one statement runs.
func (s *session) textOf() string {
	for i := range s.cycle.steps {
		st := &s.cycle.steps[i]
		var text []byte
		switch {
		case st.typ == wire.Query:
			text, _, _ = wire.CString(wire.Body(s.in.Bytes()[st.off : st.off+st.size]))
		case st.typ == wire.Bind && st.stmt != nil:
			text, _, _ = wire.CString(st.stmt.body)
		default:
			continue
		}
		return string(text)
	}
	return ""
}

// mindFollower looks whether a batch may run on the follower that the transaction
// is on, and if not takes the transaction to the leader.
func (s *session) mindFollower(b *batch) error {
	opening := s.opening
	s.opening = ""
	class := b.class
	if s.status != wire.InTx || class.Kind != route.Write || !b.complete && class.Pin == route.PinNone {
		return nil
	}
	switch class.Reason {
	case route.ReasonTransaction:
		s.opening = opening
		return nil
	case route.ReasonSessionState: // cursors, and settings of the transaction
		if class.Pin == route.PinNone && !class.Currval && class.Prepared == route.PreparedNone {
			return nil
		}
	}
	switch {
	case opening != "":
		return s.begunAnew(b, opening)
	case class.Pin != route.PinNone || class.Reason == route.ReasonLocking:
		return errOnFollower
	}
	return nil
}

// errOnFollower refuses what must not be left on a follower.
var errOnFollower = &wire.Error{
	Code: "25006", Message: "cannot leave a lock or anything of the session behind in a read-only transaction that has read on a follower",
	Hint: "Make this the first statement of the transaction, or begin it without READ ONLY.",
}

// begunAnew leaves the follower, on which the transaction has done nothing yet,
// and begins the transaction on the leader.
func (s *session) begunAnew(b *batch, opening string) error {
	s.leave()
	s.status = wire.Idle
	var state byte
	_, err := s.takeLeader(b)
	if err == nil {
		err = s.checkToken()
	}
	if err == nil {
		state, err = s.askState(opening)
	}
	if err == nil && state == wire.InTx {
		s.status = wire.InTx
		return nil
	}
	if s.conn != nil {
		s.destroy()
	}
	s.aborted, s.status = true, wire.Failed
	var told *wire.Error
	if errors.As(err, &told) {
		return told
	}
	return lostText(nil, nil)
}

// askState runs a command of ours on the held connection and returns the
// transaction state that it leaves.
func (s *session) askState(sql string) (state byte, err error) {
	err = s.ahead(func() error {
		_, err := s.askValue(sql)
		state = s.cycle.ownReady
		return err
	})
	return state, err
}
