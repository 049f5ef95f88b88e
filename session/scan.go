package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

// scan deals with the messages in the server's buffer: headers are read across
// the whole of it, and what may pass is passed as one run. A message that is
// still incomplete waits for the rest, unless it needs not be whole.
func (s *session) scan() error {
	in, c := &s.conn.In, &s.cycle
	for {
		data := in.Bytes()[s.out.scanned:]
		if c.skip > 0 {
			n := min(c.skip, len(data))
			s.out.pass(s.conn, s.out.scanned, s.out.scanned+n)
			s.out.scanned += n
			c.skip -= n
			if c.skip > 0 {
				return nil
			}
			continue
		}
		typ, size, ok, err := wire.Header(data)
		if err != nil {
			return &lostError{cause: err}
		}
		if !ok {
			return nil
		}
		if c.due() == nil && !unasked(typ) && !(typ == wire.ReadyForQuery && c.skipping) {
			return &lostError{cause: errors.New("a message of type " + strconv.Quote(string(typ)) + " that answers nothing")}
		}
		if size > len(data) {
			if s.swallowing() || !passesInParts(typ) && (size <= maxText || len(data) < longHead) {
				return nil
			}
			c.held = false
			if !passesInParts(typ) { // an error or notice of megabytes: its beginning tells enough
				lo := s.out.scanned
				s.out.scanned += len(data)
				c.skip = size - len(data)
				if err := s.hear(typ, data, lo); err != nil {
					return err
				}
				continue
			}
			c.skip = size
			continue
		}
		lo := s.out.scanned
		s.out.scanned += size
		if err := s.hear(typ, data[:size], lo); err != nil {
			return err
		}
	}
}

// passesInParts reports whether a message is never looked into.
func passesInParts(typ byte) bool { return typ == wire.DataRow || typ == wire.CopyData }

// swallowing reports whether the server's next message answers one of ours, or is
// replaced by one of ours.
func (s *session) swallowing() bool {
	st := s.cycle.due()
	return st != nil && (st.act == swallow || st.explain)
}

// hear deals with one whole message from the server, which lies at lo.
func (s *session) hear(typ byte, msg []byte, lo int) error {
	c := &s.cycle
	st := c.due()
	pass := st == nil || st.act != swallow
	answered := false
	switch typ {
	case wire.DataRow, wire.CopyData:
		if st != nil && st.explain {
			return nil
		}
		c.held = c.held && !pass
		switch {
		case pass:
		case st.settings:
			c.settings = firstColumn(msg)
		default:
			c.value = firstColumn(msg)
		}
	case wire.ErrorResponse:
		return s.hearError(msg, lo)
	case wire.ReadyForQuery:
		return s.hearReady(msg, lo)
	case wire.ParseComplete, wire.BindComplete, wire.CloseComplete:
		answered = true
	case wire.PortalSuspended:
		answered = true
		if st != nil {
			st.suspended = true
		}
	case wire.ParameterDescription:
		if !pass {
			c.params = string(msg)
		}
	case wire.RowDescription, wire.NoData:
		answered = st != nil && st.typ == wire.Describe
		if answered && !pass {
			s.described(st, msg)
		}
	case wire.CommandComplete, wire.EmptyQueryResponse:
		answered = st != nil && st.typ == wire.Execute
		c.completed = c.completed || pass
		if st != nil && st.explain {
			s.explain()
		}
	case wire.FunctionCallResponse:
		if !pass {
			return s.hearProbe(msg)
		}
	case wire.CopyInResponse:
		if !pass {
			return &lostError{cause: errors.New("copy-in mode that nobody asked for")}
		}
		s.beginCopy(st)
	case wire.ParameterStatus:
		name, value := parameter(msg)
		if name == "in_hot_standby" { // which node serves is our business
			return nil
		}
		if !pass && !c.telling { // we have set what the client knows
			break
		}
		if len(s.params) >= maxParameters {
			return &lostError{cause: errors.New("the server reports more parameters than there are")}
		}
		pass = !s.leavesUnsaid(name, pass)
		s.heedParameter(name, value)
	case wire.NoticeResponse:
		switch prepares := st != nil && st.typ == wire.Parse && st.stmt != nil; {
		case pass && prepares: // others have to be told, too
			s.db.statements.unshare(st.stmt)
		case !pass: // what the client is not to hear is about what nobody has asked for, or was said when it was first prepared
			pass = !st.prelude && !st.settings && !prepares
		}
	case wire.NotificationResponse:
		pass = true
	case wire.CopyBothResponse, wire.Authentication, wire.BackendKeyData, wire.NegotiateProtocolVersion:
		return &lostError{cause: errors.New("unexpected message of type " + string(typ))}
	}
	if pass {
		s.out.pass(s.conn, lo, lo+len(msg))
	}
	if answered {
		s.advance()
	}
	return nil
}

// unasked reports whether a server may say such a message at any time
// ("Asynchronous Operations" in the manual), or to end the session.
func unasked(typ byte) bool {
	switch typ {
	case wire.NoticeResponse, wire.ParameterStatus, wire.NotificationResponse, wire.ErrorResponse:
		return true
	}
	return false
}

// maxParameters is more than a server reports (GUC_REPORT in utils/misc/guc.c): a
// dozen, and those of extensions.
const maxParameters = 200

func parameter(msg []byte) (name, value string) {
	n, rest, _ := wire.CString(wire.Body(msg))
	v, _, _ := wire.CString(rest)
	return string(n), string(v)
}

// advance takes the step that has been answered off the queue.
func (s *session) advance() {
	st := s.cycle.due()
	if st == nil {
		return
	}
	s.cycle.head++
	if st.fills {
		s.conn.Statements.Unnamed = st.slot
	}
	switch {
	case st.act == swallow || st.raw || st.again:
	case st.typ == wire.Parse:
		s.parsed(st)
		s.prove(st.stmt)
	case st.typ == wire.Close && st.wants == 'S': // under its own name
		s.forget(st.name)
	}
	s.answerOwn()
}

// parsed makes the session know a statement that has been prepared.
func (s *session) parsed(st *step) {
	if st.done { // at the first try
		return
	}
	st.done = true
	if st.long {
		s.forget(st.name)
		s.longName = s.longName || st.name == ""
		return
	}
	s.learn(st.name, st.stmt)
}

// answerOwn answers the steps that no server was asked about, as far as their
// turn has come.
func (s *session) answerOwn() {
	for st := s.cycle.due(); st != nil && st.act == answer; st = s.cycle.due() {
		s.cycle.head++
		typ := byte(wire.ParseComplete)
		switch {
		case st.typ == wire.Describe:
			params := *st.stmt.params.Load()
			s.out.put(s.conn, func(b []byte) []byte { return append(b, params...) })
			typ = wire.NoData
		case st.typ == wire.Close:
			typ = wire.CloseComplete
			if !st.done {
				s.forget(st.name)
			}
			st.done = true
		default:
			s.parsed(st)
		}
		s.out.put(s.conn, func(b []byte) []byte { return wire.AppendEmpty(b, typ) })
	}
}

// hearReady ends a Query, a Sync or a FunctionCall.
func (s *session) hearReady(msg []byte, lo int) error {
	c := &s.cycle
	st := c.due()
	if st == nil && c.skipping { // a Sync that came among the data of a copy that had failed already
		c.steps = append(c.steps, step{typ: wire.Sync})
		c.open = false
		st = c.due()
	}
	if st == nil || len(msg) != wire.HeaderLen+1 {
		return &lostError{cause: errors.New("unexpected ReadyForQuery")}
	}
	switch st.typ {
	case wire.Query, wire.Sync, wire.FunctionCall:
	default:
		return &lostError{cause: errors.New("ReadyForQuery before the end of a batch")}
	}
	c.head++
	c.copying, c.skipping = false, false
	if st.fills && !st.unfit {
		s.conn.Statements.Unnamed = st.slot
	}
	if st.act == swallow {
		c.ownReady = wire.Body(msg)[0]
		if st.prelude && c.ownReady == wire.Idle {
			c.held = c.again
		}
		s.answerOwn()
		return nil
	}
	if st.typ == wire.Query && !(st.unfit && st.odd) {
		s.unnamed, s.longName = nil, false // a Query ends the unnamed statement (exec_simple_query in tcop/postgres.c)
	}
	c.ready = wire.Body(msg)[0]
	if c.answered() && s.untold == nil && s.unsaid == nil && !s.owed && !(c.ready == wire.Idle && (c.commits && s.policy.Delivery == route.DeliverInline || s.unsettled())) && !s.inBlock() {
		s.out.pass(s.conn, lo, lo+len(msg)) // nothing is left to be put in front of it
		c.passed = true
	}
	return nil
}

// hearError deals with an ErrorResponse: what follows in the batch will not be
// carried out.
func (s *session) hearError(msg []byte, lo int) error {
	c := &s.cycle
	if severity := wire.Field(msg, 'V'); bytes.Equal(severity, []byte("FATAL")) || bytes.Equal(severity, []byte("PANIC")) {
		if string(wire.Field(msg, 'C')) == "08P01" { // the client's own messages are to blame
			s.out.pass(s.conn, lo, lo+len(msg))
			c.held = false
			if err := s.flush(); err != nil {
				return err
			}
			return errEnd
		}
		c.fatal = &wire.Error{
			Code: string(wire.Field(msg, 'C')), Message: string(wire.Field(msg, 'M')),
			Detail: string(wire.Field(msg, 'D')), Hint: string(wire.Field(msg, 'H')),
		}
		return &lostError{cause: c.fatal, ends: s.ordered(c.fatal)} // nothing but the end follows; how the client is told depends on what was under way
	}
	st := c.due()
	if st == nil {
		return &lostError{cause: errors.New("unexpected ErrorResponse")}
	}
	if st.prelude {
		return &misfitError{&wire.Error{
			Code: string(wire.Field(msg, 'C')), Message: string(wire.Field(msg, 'M')),
			Detail: string(wire.Field(msg, 'D')), Hint: string(wire.Field(msg, 'H')),
		}}
	}
	st.unfit = st.raw || unfit(string(wire.Field(msg, 'C')))
	switch {
	case !st.fills:
	case st.unfit: // or what was run has failed like that
		s.conn.Statements.Unnamed = backend.Unknown
	case st.typ == wire.Parse: // it ends the one before it before it can fail (exec_parse_message)
		s.conn.Statements.Unnamed = 0
	}
	broken := c.copying && c.broken != 0
	c.copying = false
	simple := st.typ == wire.Query || st.typ == wire.FunctionCall
	if simple && st.act == swallow {
		return nil // a prelude or probe that failed: its ReadyForQuery follows
	}
	if c.ours {
		c.refused = append([]byte(nil), msg...)
		s.skipToSync()
		return nil
	}
	if st.asks { // behind a statement that has failed
		s.skipToSync()
		return nil
	}
	known := st.stmt
	if st.typ == wire.Parse && st.act != swallow && !st.raw && known.unnamed && !(st.unfit && !s.legibleParse(known.body)) {
		s.unnamed, s.longName = nil, false
	}
	if !simple {
		s.skipToSync()
	}
	if c.held && !s.onLeader && slices.Contains(refusals[:], string(wire.Field(msg, 'C'))) {
		c.refusal = string(wire.Field(msg, 'C'))
		s.serializable = s.serializable || string(wire.Field(msg, 'R')) == "GetSerializableTransactionSnapshot"
		return nil
	}
	c.failed = true
	if broken && string(wire.Field(msg, 'C')) == "08P01" {
		s.out.put(s.conn, func(b []byte) []byte { return append(b, brokenBy(c.broken, msg)...) })
		return nil
	}
	if st.refused != nil && (known != nil || string(wire.Field(msg, 'C')) == "26000") {
		if known != nil {
			s.db.statements.unshare(known)
		}
		s.out.put(s.conn, func(b []byte) []byte { return append(b, st.refused...) })
		return nil
	}
	if misexplained(msg) {
		s.out.put(s.conn, func(b []byte) []byte { return append(b, wire.AddField(msg, 'H', explainHint)...) })
		return nil
	}
	if known != nil && known.shared && staleplan(msg) {
		s.db.statements.unshare(known)
	}
	if known != nil && !known.unnamed && s.conn.Statements.Own == nil && string(wire.Field(msg, 'C')) == "26000" {
		c.poisoned = true // somebody has deallocated what others rely on
	}
	if known != nil && !known.unnamed && c.skip == 0 && bytes.Contains(wire.Field(msg, 'M'), []byte(known.name)) {
		msg = wire.ReplaceField(msg, 'M', func(m string) string { return strings.ReplaceAll(m, known.name, st.name) })
		s.out.put(s.conn, func(b []byte) []byte { return append(b, msg...) })
		return nil
	}
	s.out.pass(s.conn, lo, lo+len(msg))
	return nil
}

// staleplan reports whether an error says that a statement has to be prepared
// anew (RevalidateCachedQuery in utils/cache/plancache.c).
func staleplan(msg []byte) bool {
	return string(wire.Field(msg, 'C')) == "0A000" && string(wire.Field(msg, 'R')) == "RevalidateCachedQuery"
}

// skipToSync drops the steps that the server skips after an error.
func (s *session) skipToSync() {
	c := &s.cycle
	for i := c.head; i < len(c.steps); i++ {
		if c.steps[i].typ == wire.Sync {
			s.abandon(i)
			return
		}
	}
	s.abandon(len(c.steps))
	s.in.Consume(c.batch) // what the client says next is behind it
	c.batch = 0
	c.skipping, c.open, c.held = true, true, false
}

// hearProbe takes the value of a function that was called for the proxy itself.
func (s *session) hearProbe(msg []byte) error {
	value, err := wire.FunctionResult(msg)
	if err != nil {
		return &lostError{cause: err}
	}
	if snapshot, ok := topology.ParseSnapshot(value); ok {
		s.cycle.snapshot = snapshot
	} else {
		s.cycle.value = append([]byte(nil), value...)
	}
	return nil
}

// refusals are the SQLSTATEs with which a follower may refuse what a leader would
// take ("What a router must know" in the measured facts): read-only transaction,
// features a standby lacks, functions that need a leader, XIDs or OIDs that cannot
// be assigned, a conflict with recovery.
var refusals = [...]string{"25006", "0A000", "55000", "XX000", "40001"}

// firstColumn copies the first column out of a whole DataRow.
func firstColumn(msg []byte) []byte {
	b := wire.Body(msg)
	if len(b) < 6 {
		return nil
	}
	n := int32(binary.BigEndian.Uint32(b[2:]))
	if n < 0 || int(n) > len(b)-6 {
		return nil
	}
	return append([]byte(nil), b[6:6+n]...)
}
