package session

import (
	"fmt"
	"regexp"

	"github.com/lsnproxy/lsnproxy/wire"
)

// strayCopy reports whether a message outside a copy is the rest of one that
// has failed, which PostgreSQL ignores.
func strayCopy(typ byte) bool {
	return typ == wire.CopyData || typ == wire.CopyDone || typ == wire.CopyFail
}

// beginCopy starts passing the client's copy data. A Sync that was sent behind
// the statement is ignored by the server in copy-in mode ("COPY Operations" in
// the manual): the one that counts is still to come.
func (s *session) beginCopy(st *step) {
	c := &s.cycle
	c.copying, c.held = true, false
	s.in.Consume(c.batch)
	c.batch = 0
	if st == nil || st.typ == wire.Query {
		return
	}
	for i := c.head + 1; i < len(c.steps); i++ {
		if next := &c.steps[i]; next.act != swallow && next.typ != wire.Sync {
			s.breakCopy(next.typ)
			return
		}
	}
	c.steps = c.steps[:c.head+1]
	c.sent = len(c.steps)
	c.open = true
}

// breakCopy deals with a message of the client's that may not follow a copy: the server
// fails the copy on its type, and ends the session since it cannot tell where the next
// one begins (CopyGetData in commands/copyfromparse.c). What it has got in its place may be
// of another type, or nothing at all.
func (s *session) breakCopy(typ byte) {
	s.cycle.broken = typ
	s.startUp()
	s.up = wire.AppendEmpty(s.up, typ)
}

// brokenBy is an error about a message in a copy as it is about one of the given type.
func brokenBy(typ byte, msg []byte) []byte {
	return wire.ReplaceField(msg, 'M', func(m string) string {
		return messageType.ReplaceAllLiteralString(m, fmt.Sprintf("0x%02X", typ))
	})
}

var messageType = regexp.MustCompile("0x[0-9A-F]{2}")

// copyMore passes on the client's messages in copy-in mode, as they are.
func (s *session) copyMore() error {
	c := &s.cycle
	for c.copying && c.carry == 0 {
		data := s.in.Bytes()
		typ, size, ok, err := wire.Header(data)
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		switch typ {
		case wire.CopyDone, wire.CopyFail:
			c.copying = false
		case wire.Terminate:
			return errEnd
		}
		n := min(size, len(data))
		s.up = append(s.up, data[:n]...)
		s.in.Consume(n)
		c.carry = size - n
	}
	return nil
}
