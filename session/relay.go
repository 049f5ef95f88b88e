package session

import (
	"errors"
	"io"
	"time"

	"github.com/lsnproxy/lsnproxy/reactor"
)

// lostError says that the server connection is gone or beyond use.
type lostError struct {
	cause error
	ends  bool // the server was told to end this session, which ends with it
}

func (e *lostError) Error() string { return "server connection lost: " + e.cause.Error() }

// exchange carries the cycle's messages both ways until the server has
// answered all of them. A lostError means that the connection is gone.
//
// The four directions are tried in turn and the task parks only when none can
// move: a server that is blocked sending to us, because we are blocked sending
// to it, would otherwise wait forever. Writing to the client parks right here,
// so a client that does not read stops us reading its server.
func (s *session) exchange() error {
	c, server := &s.cycle, s.conn.Net
	s.answerOwn()
	if !c.held && c.open {
		if err := s.flush(); err != nil { // it may be what the client waits for
			return err
		}
	}
	for {
		if len(s.up) > 0 && server.Writable() {
			n, err := server.TryWrite(s.up)
			s.cycle.written = s.cycle.written || n > 0
			if s.up = s.up[n:]; len(s.up) == 0 {
				s.dropUp()
			}
			if err != nil && !server.Readable() {
				return &lostError{cause: err}
			}
		}
		if server.Readable() {
			if err := s.readServer(); err != nil {
				return err
			}
			if err := s.deliver(); err != nil {
				return err
			}
		}
		if c.head == len(c.steps) && (c.ready != 0 || c.part) && len(s.up) == 0 {
			if c.carry == 0 {
				return nil
			}
			s.pad()
			continue
		}
		if s.hearsClient() && len(s.up) == 0 && (s.in.Len() > 0 && !s.stuck() || s.client.Readable()) {
			if err := s.hearClient(); err != nil {
				return err
			}
			continue
		}
		if s.await()&reactor.Closed != 0 {
			return errClosed
		}
	}
}

// await parks until one of the directions that matter can move.
func (s *session) await() reactor.Cause {
	server := s.conn.Net
	switch {
	case len(s.up) > 0:
		return s.task.Wait(time.Time{}, reactor.Interest{Conn: server}, reactor.Interest{Conn: server, Write: true})
	case s.hearsClient():
		return s.task.Wait(time.Time{}, reactor.Interest{Conn: server}, reactor.Interest{Conn: s.client})
	default:
		return s.task.Wait(time.Time{}, reactor.Interest{Conn: server})
	}
}

// pad completes a message of which the server has got the beginning and wants
// no more: the rest of a copy that has failed, which it ignores (PostgresMain in
// tcop/postgres.c). The client's own rest is dropped when it comes.
func (s *session) pad() {
	n := min(s.cycle.carry, BufferSize)
	s.startUp()
	s.up = append(s.up, make([]byte, n)...)
	s.cycle.carry -= n
	s.skip += n
}

// readServer reads once from the server and deals with what has come.
func (s *session) readServer() error {
	in := &s.conn.In
	space := in.Space()
	if len(space) == 0 {
		if err := s.roomForServer(); err != nil {
			return err
		}
		space = in.Space()
	}
	n, err := s.conn.Net.TryRead(space)
	in.Filled(n)
	if n > 0 {
		if s.onLeader && !s.mayGoOn() {
			return &lostError{cause: errDeposed}
		}
		return s.scan()
	}
	if errors.Is(err, reactor.ErrAgain) {
		return nil
	}
	if err == nil {
		err = io.EOF
	}
	if s.cut != nil {
		err = s.cut
	}
	return &lostError{cause: err}
}

// roomForServer makes room in a buffer full of what is kept back or of one
// message that has to be whole. What is kept back beyond maxHold is let go.
func (s *session) roomForServer() error {
	in := &s.conn.In
	if s.out.scanned > 0 && in.Len() >= maxHold {
		s.cycle.held = false
		return s.flush()
	}
	if in.Len() >= maxText {
		return &lostError{cause: errors.New("the server sent a message too long to be read")}
	}
	s.giveBack(in.Swap(make([]byte, 2*in.Cap())))
	return nil
}

// deliver passes on what may go to the client now.
func (s *session) deliver() error {
	c := &s.cycle
	if c.held && c.refusal == "" && c.ready != 0 && c.answered() {
		c.held = false
	}
	if c.held || c.probing && c.ready != 0 && c.head < len(c.steps) {
		return nil // to be taken back, or on its way with the token in a moment
	}
	if c.ready != 0 && (!c.passed || c.head == len(c.steps)) {
		return nil // the end of the answer goes with what finish adds
	}
	return s.flush()
}

// flush writes to the client what has been passed.
func (s *session) flush() error {
	data := s.out.take(s.conn)
	var err error
	if len(data) > 0 {
		_, err = s.client.Write(data)
	}
	s.out.reset(s.conn)
	if err != nil {
		return errEnd
	}
	return nil
}

// hearsClient reports whether the client's messages belong to this cycle still.
func (s *session) hearsClient() bool {
	c := &s.cycle
	return c.carry > 0 || c.copying || c.open && !s.early()
}

// early reports whether what the client says next has to wait until all before it is
// answered: data for a copy of which the server has not said yet that it wants it, or
// that there is none; or what ends the session.
func (s *session) early() bool {
	c := &s.cycle
	if c.head == len(c.steps) || c.skipping || s.in.Len() == 0 {
		return false
	}
	typ, _, ok, err := s.header(s.in.Bytes())
	return err != nil || ok && strayCopy(typ)
}

// stuck reports whether what is in the client's buffer is only the beginning of
// a message that has to be whole.
func (s *session) stuck() bool {
	if s.cycle.carry > 0 {
		return false
	}
	_, _, ok, err := s.header(s.in.Bytes())
	return err == nil && (!ok || s.in.Len() < s.wanted())
}

// dropUp returns the memory of what was sent to the server.
func (s *session) dropUp() {
	if s.upFrom != nil {
		s.giveBack(s.upFrom)
	}
	s.up, s.upFrom = nil, nil
}

// startUp borrows memory for what is to be sent to the server.
func (s *session) startUp() {
	if s.upFrom == nil {
		s.upFrom = s.loop.Borrow()
		s.up = s.upFrom[:0]
	}
}
