package session

import (
	"github.com/lsnproxy/lsnproxy/backend"
)

// outlet is what goes to the client next: as a rule one run of bytes as they
// lie in the server's buffer, written from there. When something is left out of
// the run or put into it, what is left to send is collected in extra.
//
// Offsets count from the front of the server's buffer, so they stay right when
// the buffer moves or grows its memory.
type outlet struct {
	lo, hi  int    // the run
	scanned int    // how far the server's buffer was dealt with
	extra   []byte // used instead of the run once it cannot be one
}

// pass appends bytes lo to hi of the server's buffer.
func (o *outlet) pass(c *backend.Conn, lo, hi int) {
	switch {
	case len(o.extra) > 0:
		o.extra = append(o.extra, c.In.Bytes()[lo:hi]...)
	case o.lo == o.hi:
		o.lo, o.hi = lo, hi
	case o.hi == lo:
		o.hi = hi
	default:
		o.spill(c)
		o.extra = append(o.extra, c.In.Bytes()[lo:hi]...)
	}
}

// put appends bytes of our own, made by make.
func (o *outlet) put(c *backend.Conn, make func([]byte) []byte) {
	o.spill(c)
	o.extra = make(o.extra)
}

// spill moves the run to extra.
func (o *outlet) spill(c *backend.Conn) {
	if o.lo < o.hi {
		o.extra = append(o.extra, c.In.Bytes()[o.lo:o.hi]...)
	}
	o.lo, o.hi = 0, 0
}

// take returns what is to be written now. c may be nil if nothing was passed.
func (o *outlet) take(c *backend.Conn) []byte {
	if len(o.extra) > 0 || c == nil {
		return o.extra
	}
	return c.In.Bytes()[o.lo:o.hi]
}

// reset forgets what was passed, and frees what was dealt with of the server's
// buffer.
func (o *outlet) reset(c *backend.Conn) {
	if c != nil {
		c.In.Consume(o.scanned)
	}
	extra := o.extra[:0]
	if cap(extra) > BufferSize {
		extra = nil
	}
	*o = outlet{extra: extra}
}

// thin lets go of memory that an idle session should not hold.
func (o *outlet) thin() {
	if cap(o.extra) > 256 {
		o.extra = nil
	}
}

// discard forgets what was passed or put without sending it.
func (o *outlet) discard(c *backend.Conn) { o.reset(c) }
