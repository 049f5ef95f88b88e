package session

import (
	"bytes"
	"encoding/binary"
	"time"
	"unicode/utf8"

	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

const (
	// BufferSize is the size of the engine's buffers that sessions expect.
	BufferSize = 16 << 10
	// maxHold is how much of a batch or of an answer is kept back at most, so
	// that it can be sent again, elsewhere.
	maxHold = 256 << 10
	// maxText is the longest statement text that is read to the end before it
	// is sent on. A longer one goes to the leader unread.
	maxText = 4 << 20
)

// batch is what is sent to a server in one go: a Query, a FunctionCall, or the
// extended protocol's messages up to a Sync.
type batch struct {
	size     int         // bytes at the front of the client's buffer
	class    route.Class // of all its statements together
	texts    int         // statements looked at
	needed   bool        // a server has something to do
	complete bool        // ends in what the server answers with ReadyForQuery
	mixed    bool        // an error in front of the Query at its end leaves it open
	flushed  bool        // ends in a Flush, or in front of what may be a copy's data
	own      bool        // shows something of ours: needs its value in place first
	ownSets  []ownSet    // what it sets of ours
	hint     string      // the comment of the first statement that has one for us
}

// gather reads until a whole batch is in the buffer, or as much of one as is
// looked at before it is sent on. It appends the batch's steps to the cycle.
func (s *session) gather() (batch, error) {
	b := batch{}
	for {
		if s.skip > 0 {
			if s.in.Len() == 0 {
				if err := s.fill(); err != nil {
					return b, err
				}
			}
			s.skipSome()
			continue
		}
		data := s.in.Bytes()[b.size:]
		typ, size, ok, err := s.header(data)
		if (err != nil || ok && strayCopy(typ)) && b.size > 0 { // a copy that the batch begins may want it, and an error ends all
			b.flushed = true
			return b, nil
		}
		if err != nil {
			return b, err
		}
		if ok && strayCopy(typ) {
			s.skip = size
			continue
		}
		if ok && size <= len(data) {
			if typ == wire.Flush && size == wire.HeaderLen {
				b.size += size
				b.flushed = true
				return b, nil
			}
			if err := s.add(&b, typ, data[:size]); err != nil {
				return b, err
			}
			if b.complete {
				return b, nil
			}
			continue
		}
		if b.size > 0 && b.size >= maxHold || ok && size > limitOf(typ) || b.needed && s.pauses() {
			return b, nil
		}
		if err := s.more(b.size + max(size, wire.HeaderLen)); err != nil {
			return b, err
		}
		s.cancelled = false // it came before there was anything to cancel
	}
}

// pause is how long the rest of a batch is waited for before its beginning is
// sent on. It is longer than a network takes for the next packet.
const pause = 250 * time.Millisecond

// pauses reports whether the client has stopped in the middle of a batch. It may
// wait for an error: a server tells of one at once, and not with the Sync.
func (s *session) pauses() bool {
	if s.client.Readable() {
		return false
	}
	end := time.Now().Add(pause)
	for {
		switch cause := s.task.Wait(end, reactor.Interest{Conn: s.client}); {
		case cause&(reactor.Ready|reactor.Closed) != 0:
			return false
		case cause&reactor.Deadline != 0:
			return true
		}
	}
}

// limitOf is how long a message may be to be read whole before it is sent on.
func limitOf(typ byte) int {
	if typ == wire.Query || typ == wire.Parse {
		return maxText
	}
	return maxHold
}

// more reads more from the client, making room for need bytes.
func (s *session) more(need int) error {
	if s.in.Attached() && need > s.in.Cap() {
		s.giveBack(s.in.Swap(make([]byte, roundUp(need))))
	}
	if s.in.Attached() && len(s.in.Space()) == 0 {
		s.giveBack(s.in.Swap(make([]byte, 2*s.in.Cap())))
	}
	return s.fill()
}

// roundUp returns the next power of two, at least twice BufferSize.
func roundUp(n int) int {
	size := 2 * BufferSize
	for size < n {
		size *= 2
	}
	return size
}

// giveBack returns memory to the loop if it was borrowed there; larger memory
// is left to the garbage collector.
func (s *session) giveBack(mem []byte) {
	if cap(mem) == BufferSize {
		s.loop.Return(mem)
	}
}

// add takes one whole message into the batch. A message that belongs to no
// request is dropped or refused as PostgresMain (tcop/postgres.c) does.
func (s *session) add(b *batch, typ byte, msg []byte) error {
	st := step{typ: typ, off: b.size, size: len(msg)}
	b.size += len(msg)
	switch typ {
	case wire.Query, wire.FunctionCall:
		b.mixed = len(s.cycle.steps) > s.cycle.head
	}
	switch typ {
	case wire.Query:
		if text, _, ok := wire.CString(wire.Body(msg)); ok {
			st.explain = s.unexplain(text)
			b.merge(s.classify(text))
			b.hint = hintOf(text)
		} else {
			b.merge(malformed)
		}
		st.odd = (s.unnamed != nil || s.longName || b.mixed) && !s.legibleQuery(wire.Body(msg)) // it matters to an unnamed statement
		b.needed, b.complete = true, true
		s.cycle.binds, s.cycle.runs = true, true
	case wire.FunctionCall:
		b.merge(functionCall(wire.Body(msg)))
		b.needed, b.complete = true, true
		s.cycle.binds, s.cycle.runs = true, true
	case wire.Sync:
		b.complete = true
		b.needed = b.needed || len(msg) != wire.HeaderLen
	case wire.Flush: // with a body, which it must not have
		return s.addRaw(b, st)
	case wire.Parse:
		return s.addParse(b, st, msg)
	case wire.Bind:
		return s.addBind(b, st, msg)
	case wire.Describe, wire.Close:
		return s.addTarget(b, st, msg)
	case wire.Execute:
		b.needed, s.cycle.runs = true, true
		s.cycle.unrun--
		if s.bound != nil {
			b.merge(s.bound.class)
		}
		st.explain = s.explained != nil && s.runsExplained(msg)
	case wire.CopyData, wire.CopyDone, wire.CopyFail:
		return nil // the rest of a copy that has failed
	case wire.Terminate:
		return errEnd
	}
	s.cycle.steps = append(s.cycle.steps, st)
	return nil
}

// addParse looks up or makes the statement that a Parse is about.
func (s *session) addParse(b *batch, st step, msg []byte) error {
	name, body, ok := wire.CString(wire.Body(msg))
	if !ok {
		return s.addRaw(b, st)
	}
	mark := ""
	text, _, ok := wire.CString(body)
	if ok && s.unexplain(text) {
		mark = explainMark
	}
	if len(name) == 0 {
		st.stmt = newUnnamed(mark, body)
	} else {
		st.name = string(name)
		if taken := s.lookup(name); taken != nil {
			st.stmt, st.again = taken, true
			b.merge(s.classify(text)) // SQL may have deallocated what has taken the name
		} else {
			st.stmt = s.db.statements.take(s.meaningNow()+mark, s.settings, body, s.db.schema.Load())
		}
	}
	b.merge(s.classOf(st.stmt))
	b.noteHint(st.stmt)
	b.needed = b.needed || st.again || s.aborted || !s.proved(st.stmt)
	s.cycle.steps = append(s.cycle.steps, st)
	return nil
}

func (s *session) addBind(b *batch, st step, msg []byte) error {
	portal, rest, ok := wire.CString(wire.Body(msg))
	name, _, ok2 := wire.CString(rest)
	if !ok || !ok2 {
		return s.addRaw(b, st)
	}
	st.name = string(name)
	if st.stmt = s.lookup(name); st.stmt != nil {
		b.merge(s.classOf(st.stmt))
		b.noteHint(st.stmt)
		if s.explained != nil || st.stmt.explains() {
			s.bindExplained(portal, st.stmt.explains())
		}
	} else {
		b.merge(route.Class{}) // the server will say that it does not exist
	}
	b.needed, s.cycle.binds = true, true
	s.cycle.unrun++
	s.cycle.steps = append(s.cycle.steps, st)
	return nil
}

func (s *session) addTarget(b *batch, st step, msg []byte) error {
	body := wire.Body(msg)
	if len(body) < 2 {
		return s.addRaw(b, st)
	}
	st.wants = body[0]
	name, rest, ok := wire.CString(body[1:])
	if !ok || len(rest) > 0 {
		return s.addRaw(b, st)
	}
	if st.wants == 'S' {
		st.name = string(name)
		st.stmt = s.lookup(name)
		if st.typ == wire.Describe && st.stmt != nil {
			b.merge(s.classOf(st.stmt))
		}
	}
	if st.typ == wire.Describe || st.wants != 'S' {
		b.needed = true
	}
	s.cycle.steps = append(s.cycle.steps, st)
	return nil
}

// functionCall is the class of a FunctionCall: what it calls is known by number
// only, so it is a write, and unless it is a function on large objects it may
// have taken or let go of a lock, and changed settings.
func functionCall(body []byte) route.Class {
	if len(body) >= 4 {
		switch binary.BigEndian.Uint32(body) {
		// lo_creat, lo_create, lo_open, lo_close, loread, lowrite, lo_lseek,
		// lo_tell, lo_truncate, their twins for 64 bits, and lo_unlink (pg_proc.dat)
		case 957, 715, 952, 953, 954, 955, 956, 958, 1004, 3170, 3171, 3172, 964:
			return route.Class{}
		case 2078: // set_config: which one is not looked at
			return route.Class{Pin: route.PinSetting}
		}
	}
	return route.Class{Pin: route.PinLock, Frees: route.PinLock, Sets: route.AnySetting, Nextval: true}
}

// malformed is the class of a message that the server will refuse.
var malformed = route.Class{Reason: route.ReasonUnreadable}

// addRaw takes in a malformed message as it is: the server says what is wrong.
func (s *session) addRaw(b *batch, st step) error {
	st.raw = true
	b.merge(malformed)
	b.needed = true
	s.cycle.steps = append(s.cycle.steps, st)
	return nil
}

// lookup finds what a statement name stands for at this place in the stream:
// messages whose answers are still due count.
func (s *session) lookup(name []byte) *statement {
	for i := len(s.cycle.steps) - 1; i >= s.cycle.head; i-- {
		st := &s.cycle.steps[i]
		if st.act == swallow || st.raw || st.name != string(name) {
			continue
		}
		switch {
		case st.typ == wire.Parse && st.long:
			return nil
		case st.typ == wire.Parse && !st.again:
			return st.stmt
		case st.typ == wire.Close && st.wants == 'S':
			return nil
		}
	}
	if len(name) == 0 {
		return s.unnamed
	}
	return s.statements[string(name)]
}

// unreadable is the class of a text that cannot be read: it may do and leave anything.
var unreadable = route.Class{
	Reason: route.ReasonUnreadable, Pin: route.PinUnread, CopyIn: true, Prepared: route.PreparedAny, Currval: true, Nextval: true,
}

// classify reads a statement's text. In an encoding whose characters may
// contain ASCII bytes it cannot be read, unless it has no other bytes: all such
// characters begin with one that is not ASCII.
func (s *session) classify(text []byte) route.Class {
	if !s.dialect.readable && bytes.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return unreadable
	}
	c := route.Classify(text, s.dialect.conforming, s.db.names())
	s.wary(&c, text)
	s.executes(&c)
	return c
}

func (s *session) classOf(st *statement) route.Class {
	text, _, _ := wire.CString(st.body)
	if s.dialect != usualDialect {
		return s.classify(text)
	}
	c := st.classify(s.db.names())
	s.wary(&c, text)
	s.executes(&c)
	return c
}

// wary says that a statement may leave in the session anything that the server
// can be asked for, if a function is called that is not known, or while nothing
// is known of the triggers and views of what it names.
func (s *session) wary(c *route.Class, text []byte) {
	if c.Reason == route.ReasonUnknownRelation && s.pinned&route.PinTemporary == 0 && s.db.catalog.Load() != nil {
		s.db.reload(catalogRecent) // it may have been made past this proxy
	}
	if !c.Unknown() && !s.unknowing(c) {
		return
	}
	if s.tellable(c) {
		if s.cycle.doubts == nil {
			s.cycle.doubts = make(map[string]doubt)
		}
		s.cycle.doubts[string(text)] = doubt{conforming: s.dialect.conforming, schema: c.Schema, defaults: c.Defaults}
	}
	c.Sets = route.Union(c.Sets, route.AnySetting)
}

// unknowing reports whether nothing is known of the triggers and views of what a
// statement names.
func (s *session) unknowing(c *route.Class) bool {
	switch {
	case c.Bare, c.Reason == route.ReasonTransaction, c.Reason == route.ReasonSavepoint, c.Reason == route.ReasonSetting:
		return false
	}
	return c.Kind == route.Write && s.db.catalog.Load() == nil || s.redefined && (c.Kind == route.Write || c.Kind == route.Read)
}

// merge takes one more statement's class into the batch's. One statement keeps
// its class; several are reads only if all are, and otherwise a write that may
// do all that any of them may.
func (b *batch) merge(c route.Class) {
	b.texts++
	b.own = b.own || c.Kind == route.Own
	switch c.Kind {
	case route.Own:
		c.Kind = route.Read
	case route.OwnSet: // for the server a setting like others
		b.ownSets = append(b.ownSets, ownSet{c.Name, c.Value})
		if c.Kind, c.Reason = route.Write, route.ReasonSetting; !c.Local {
			c.Sets = ownPrefix + c.Name
		}
		c.Name, c.Value = "", ""
	}
	if b.texts == 1 {
		b.class = c
		return
	}
	both := b.class
	if both == c { // Parse and Bind of one statement, most of all
		return
	}
	both.Reads = route.Union(both.Reads, c.Reads)
	if reads(both.Kind) && reads(c.Kind) {
		b.class.Reads, b.class.Timed, b.class.Bare = both.Reads, both.Timed || c.Timed, both.Bare && c.Bare
		return
	}
	both.Kind = route.Write
	both.Reason = route.ReasonMultiple
	both.Multi = true
	both.Bare = both.Bare && c.Bare
	both.CopyIn = both.CopyIn || c.CopyIn
	both.Chain = both.Chain || c.Chain
	both.Schema, both.Drop, both.Native = both.Schema || c.Schema, both.Drop || c.Drop, both.Native || c.Native
	both.Sets = route.Union(route.Union(both.Sets, both.Made()), route.Union(c.Sets, c.Made()))
	both.Defaults = both.Defaults || c.Defaults
	both.Pin |= c.Pin
	both.Frees |= c.Frees
	both.Currval = both.Currval || c.Currval
	both.Nextval = both.Nextval || c.Nextval
	if both.Prepared != route.PreparedNone || c.Prepared != route.PreparedNone {
		both.Prepared = route.PreparedAny
	}
	if c.Reset != route.ResetNone {
		both.Reset, both.Name = c.Reset, c.Name
	}
	b.class = both
}

// noteHint takes in the hint of a prepared statement.
func (b *batch) noteHint(st *statement) {
	if b.hint == "" {
		b.hint = st.hint
	}
}

func reads(k route.Kind) bool { return k == route.Read || k == route.Empty }

func protocolError(text string) error {
	return &wire.Error{Severity: "FATAL", Code: "08P01", Message: text}
}
