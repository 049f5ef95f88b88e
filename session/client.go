package session

import (
	"errors"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// hearClient takes one step in carrying the client's messages of a cycle that
// is under way: a copy's data, a message too long for the buffer, or what
// follows in a batch that was not complete when it was sent on.
func (s *session) hearClient() error {
	c := &s.cycle
	if s.in.Len() == 0 || s.stuck() {
		if err := s.more(s.wanted()); err != nil {
			return err
		}
	}
	s.startUp()
	switch {
	case c.carry > 0:
		n := min(c.carry, s.in.Len())
		s.up = append(s.up, s.in.Bytes()[:n]...)
		s.in.Consume(n)
		c.carry -= n
		return nil
	case s.skip > 0:
		s.skipSome()
		return nil
	case c.copying:
		return s.copyMore()
	default:
		return s.spliceMore()
	}
}

// wanted returns how much of the message at the front must be there before it
// can be dealt with: all of it, or of a long one the names at its beginning.
func (s *session) wanted() int {
	typ, size, ok, _ := wire.Header(s.in.Bytes())
	switch {
	case !ok || s.cycle.carry > 0 || s.skip > 0 || s.cycle.copying:
		return wire.HeaderLen
	case size > limitOf(typ):
		return longHead
	}
	return size
}

// longHead is how much of a long message is read before it is sent on.
const longHead = BufferSize / 2

// skipSome drops what has come of a message that nobody wants any more.
func (s *session) skipSome() {
	n := min(s.skip, s.in.Len())
	s.in.Consume(n)
	s.skip -= n
}

// spliceMore sends on what has come of a batch that is still open.
func (s *session) spliceMore() error {
	var b batch
	flush := false
	for !b.complete && !flush {
		data := s.in.Bytes()[b.size:]
		typ, size, ok, err := s.header(data)
		if (err != nil || ok && strayCopy(typ)) && !s.cycle.skipping && s.cycle.head < len(s.cycle.steps) {
			flush = true // what is before it is answered first, and the server says whether it wants a copy's data
			break
		}
		if err != nil {
			return err
		}
		if !ok || size > len(data) {
			if !ok || b.size > 0 || size <= limitOf(typ) {
				break
			}
			if s.cycle.skipping || strayCopy(typ) {
				s.skip = size
				s.skipSome()
				return nil
			}
			return s.carryLong(typ, size)
		}
		switch {
		case s.cycle.skipping && typ != wire.Sync && typ != wire.Terminate:
			b.size += size
			s.in.Consume(b.size) // the server would ignore it as well
			b.size = 0
		case typ == wire.Flush && size == wire.HeaderLen:
			b.size += size
			flush = true
		default:
			if err := s.add(&b, typ, data[:size]); err != nil {
				return err
			}
		}
	}
	s.cycle.expose = b.class.Prepared > route.PreparedEnds && s.conn.Statements.Own == nil
	s.splice(s.conn)
	if flush {
		s.up = wire.AppendEmpty(s.up, wire.Flush)
	}
	s.in.Consume(b.size)
	s.cycle.open = !b.complete
	s.noteClass(b.class, b.texts)
	s.answerOwn()
	return s.flush()
}

// header reads the header of a client's message and refuses what PostgreSQL
// refuses (SocketBackend in tcop/postgres.c), whether it will look at the message or
// skip it: a type that there is not, and a length that is too much for its type.
func (s *session) header(data []byte) (typ byte, size int, ok bool, err error) {
	typ, size, ok, err = wire.Header(data)
	if !ok || err != nil {
		return typ, size, ok, err
	}
	switch typ {
	case wire.Query, wire.FunctionCall, wire.Bind, wire.Parse, wire.CopyData:
	case wire.Execute, wire.Describe, wire.Close, wire.Flush, wire.Sync, wire.CopyDone, wire.CopyFail, wire.Terminate:
		if size > 10000+1 {
			return typ, size, ok, wire.ErrFraming
		}
	default:
		return typ, size, ok, protocolError("invalid frontend message type " + itoa(int(typ)))
	}
	return typ, size, ok, nil
}

// carryLong sends on a message that is too long to be looked at whole. What it
// does is unknown, so it goes to the leader, and if it names a statement the
// session keeps the connection that knows it.
func (s *session) carryLong(typ byte, size int) error {
	data := s.in.Bytes()
	st := step{typ: typ}
	unread := unreadable
	rest := data
	switch typ {
	case wire.Query, wire.FunctionCall:
		st.fills, st.odd = typ == wire.Query, true
		s.cycle.open = false
		if typ == wire.FunctionCall {
			unread.Pin = route.PinNone
		}
	case wire.Parse:
		name, _, ok := wire.CString(data[wire.HeaderLen:])
		if !ok {
			return protocolError("statement name too long")
		}
		st.fills, st.slot = len(name) == 0, backend.Unknown
		st.long, st.name, st.stmt = true, string(name), newUnnamed("", nil)
	case wire.Bind:
		portal, after, ok := wire.CString(data[wire.HeaderLen:])
		name, after, ok2 := wire.CString(after)
		if !ok || !ok2 {
			return protocolError("statement or portal name too long")
		}
		if st.stmt = s.lookup(name); st.stmt != nil && s.conn.Statements.Own == nil {
			st.name = string(name)
			unread = s.classOf(st.stmt)
			s.prepare(s.conn, st.stmt)
			fixed := wire.HeaderLen + len(portal) + 1 + len(name) + 1
			s.up = wire.AppendBindHead(s.up, portal, st.stmt.name, size-fixed)
			rest = after
		} else {
			s.own(s.conn, name)
		}
	default:
		return wire.ErrFraming
	}
	s.cycle.steps = append(s.cycle.steps, st)
	s.cycle.sent = len(s.cycle.steps)
	s.up = append(s.up, rest...)
	s.in.Consume(len(data))
	s.cycle.carry = size - len(data)
	s.cycle.binds, s.cycle.runs = true, typ == wire.Query
	s.noteClass(unread, 1)
	return nil
}

// noteClass takes the class of statements that came after the batch was routed
// into what is known of the cycle.
func (s *session) noteClass(c route.Class, texts int) {
	if texts == 0 {
		return
	}
	all := batch{class: s.cycle.class, texts: 1}
	all.merge(c)
	s.cycle.class = all.class
}

// skipRest drops the rest of a batch whose error the client has been told,
// up to its Sync, or to the end of the Query. A Sync that is malformed is left, for the
// server to say so: false, because the batch is not over then.
func (s *session) skipRest() (over bool, err error) {
	c := &s.cycle
	s.in.Consume(c.batch)
	c.batch = 0
	s.skip += c.carry
	c.carry = 0
	for c.open = c.open || c.part; c.open; {
		if s.in.Len() == 0 || s.skip == 0 && s.in.Len() < wire.HeaderLen {
			if err := s.more(wire.HeaderLen); err != nil {
				return false, err
			}
			continue
		}
		if s.skip > 0 {
			s.skipSome()
			continue
		}
		typ, size, _, err := s.header(s.in.Bytes())
		if err != nil {
			return false, err
		}
		switch typ {
		case wire.Terminate:
			return false, errEnd
		case wire.Sync, wire.Query, wire.FunctionCall:
			if typ == wire.Sync && size != wire.HeaderLen {
				c.open = false
				return false, nil
			}
			c.open = typ != wire.Sync && len(c.steps) > 0
		}
		s.skip = size
		s.skipSome()
	}
	return true, nil
}

// refuse answers the batch with an error of ours; status is the transaction
// state the client is left in.
func (s *session) refuse(e *wire.Error, status byte) error {
	if s.conn == nil {
		again := s.retell()
		s.out.put(nil, func(p []byte) []byte { return append(p, again...) })
	}
	s.out.put(s.conn, e.Append)
	if err := s.flush(); err != nil {
		return err
	}
	if over, err := s.skipRest(); err != nil || !over {
		s.status = status
		return err
	}
	return s.sayReady(status)
}

// sayReady ends the answer to a batch.
func (s *session) sayReady(status byte) error {
	s.status = status
	s.out.put(s.conn, func(b []byte) []byte { return s.appendReady(b, status) })
	return s.flush()
}

// asError returns the error to tell the client, if err is one that leaves the
// session alive.
func asError(err error) (*wire.Error, bool) {
	e, ok := errors.AsType[*wire.Error](err)
	return e, ok && e.Severity != "FATAL"
}
