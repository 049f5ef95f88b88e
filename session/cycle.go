package session

import (
	"bytes"
	"strconv"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

// cycle is one exchange with a server: from a batch's first message to the
// ReadyForQuery that answers its last. The struct is kept for the next one.
type cycle struct {
	steps []step
	head  int // first step whose answer is due
	sent  int // first step not translated yet

	ours     bool // nothing in it is the client's
	telling  bool // but what the server reports of settings, if we have asked
	open     bool // the client's Sync is still to come
	part     bool // likewise, but all else is there, and a Sync of ours ends it
	skipping bool // after an error the server ignores everything before the Sync
	copying  bool // copy-in mode: the client's messages are the copy's
	broken   byte // what the client has sent behind a copy instead of its data
	carry    int  // bytes of a client's message still to be carried to the server
	skip     int  // bytes of a server's message still to be passed to the client

	expose bool // what comes next names statements in SQL

	class route.Class // of the batch and all that followed in the cycle
	batch int         // bytes at the front of the client's buffer that are the batch
	binds bool        // a statement is bound, not only prepared
	unrun int         // portals that were bound and not executed
	runs  bool        // and executed

	doubts map[string]doubt // statements of which a catalog to come tells what they leave behind
	tells  uint64           // the load of that catalog, if it is known

	held    bool   // nothing has gone to the client: the cycle may be run again
	again   bool   // it is held for more than what brings the connection in line
	refusal string // SQLSTATE of a follower's refusal: run again on the leader
	failed  bool   // an error went to the client

	completed bool        // a statement of the client's was executed to its end
	written   bool        // bytes went to the server
	fatal     *wire.Error // the server's last words

	ready    byte              // ReadyForQuery's status, once it came
	ownReady byte              // the status after the last query of ours
	poisoned bool              // the connection is not what it is believed to be: destroy it
	passed   bool              // ... and it has been passed on already
	commits  bool              // once idle, the position of what was written is needed
	probing  bool              // the position is asked for behind the batch
	foresees bool              // which transactions are over is asked last, and the client needs not wait for that
	value    []byte            // what a question of ours was answered
	snapshot topology.Snapshot // the server's, if it was asked
	result   string            // the result type that our Describe was answered
	params   string            // and the parameters
	refused  []byte            // the error that messages of ours were answered
	settings []byte            // what the question about settings was answered
	reported bool              // the server has reported a parameter to the client
}

// begin readies the cycle for the next batch.
func (c *cycle) begin() {
	*c = cycle{steps: c.steps[:0]}
}

// stepsAtFirst is room for a usual batch: the messages of the extended protocol and questions
// of ours. stepsAtMost is what is kept for another batch.
const (
	stepsAtFirst = 9 // and so 1 KB, with what the allocator puts in front
	stepsAtMost  = 64
	spareSteps   = 64 // of those that a loop keeps
)

// lendSteps returns room for the steps of a cycle.
func (h *home) lendSteps() []step {
	last := len(h.steps) - 1
	if last < 0 {
		return make([]step, 0, stepsAtFirst)
	}
	steps := h.steps[last]
	h.steps = h.steps[:last]
	return steps
}

// takeSteps takes it back.
func (h *home) takeSteps(steps []step) {
	if n := cap(steps); n >= stepsAtFirst && n <= stepsAtMost && len(h.steps) < cap(h.steps) {
		clear(steps[:n])
		h.steps = append(h.steps, steps[:0])
	}
}

// nothing reports whether the batch has failed before any of its statements was executed to its
// end: what those leave may outlast the failure.
func (c *cycle) nothing() bool { return c.failed && !c.completed }

// thin lets go of memory that an idle session should not hold.
func (c *cycle) thin(h *home) {
	h.takeSteps(c.steps)
	c.steps, c.doubts = nil, nil
}

// rewind readies the cycle for the same batch on another connection.
func (c *cycle) rewind() {
	kept := c.steps[:0]
	for _, st := range c.steps {
		if st.act != swallow && st.size > 0 {
			st.act, st.fills, st.suspended = relay, false, false
			kept = append(kept, st)
		}
	}
	*c = cycle{steps: kept, class: c.class, batch: c.batch, binds: c.binds, unrun: c.unrun, runs: c.runs, doubts: c.doubts, tells: c.tells}
}

// due returns the step that the server's next message belongs to, nil if none.
func (c *cycle) due() *step {
	if c.head < len(c.steps) {
		return &c.steps[c.head]
	}
	return nil
}

// answered reports whether nothing is due any more that counts for the client.
func (c *cycle) answered() bool {
	return c.head == len(c.steps) || c.foresees && c.head == len(c.steps)-1
}

// insert appends a step of our own that the client does not hear of.
func (c *cycle) insert(st step) {
	st.act, st.fills = swallow, st.fills || st.typ == wire.Query
	c.steps = append(c.steps, st)
}

// splice translates the gathered steps to the messages that go to conn, which
// it appends to s.up. What of a statement is prepared where is settled here: a
// statement that conn does not know is prepared first, one that it knows is not
// prepared again. front is queries of our own that go first.
func (s *session) splice(conn *backend.Conn, front ...string) {
	c := &s.cycle
	var few [8]step
	gathered := append(few[:0], c.steps[c.sent:]...)
	c.steps = c.steps[:c.sent]
	if s.prelude != nil {
		s.sendPrelude()
	}
	for _, sql := range front {
		s.ask(sql)
	}
	if c.expose {
		c.expose = false
		s.swapNames(func() {})
	}
	if s.doubting() && s.status != wire.Failed && !c.skipping {
		s.callWitness(conn)
	}
	for i := range gathered {
		s.translate(conn, gathered[i])
	}
	c.sent = len(c.steps)
}

// slot returns what the connection's unnamed slot will hold when all that was sent has
// been carried out.
func (s *session) slot() uint64 {
	c := &s.cycle
	for i := len(c.steps) - 1; i >= c.head; i-- {
		if st := &c.steps[i]; st.fills {
			return st.slot
		}
	}
	return s.conn.Statements.Unnamed
}

// translate sends one of the client's messages on.
func (s *session) translate(conn *backend.Conn, st step) {
	msg := s.in.Bytes()[st.off : st.off+st.size]
	known := &conn.Statements
	switch {
	case st.raw:
		s.up = append(s.up, msg...)
	case known.Own != nil:
		s.translateOwn(conn, &st, msg)
	case st.typ == wire.Parse && st.stmt.unnamed:
		s.up = append(s.up, msg...)
		st.fills, st.slot = true, st.stmt.id
	case st.typ == wire.Parse && st.again:
		_, body, _ := wire.CString(wire.Body(msg)) // it is analysed before its name is found to be taken (exec_parse_message)
		if s.status == wire.Failed {
			s.takeTwice(&st, body)
			break
		}
		s.prepare(conn, st.stmt)
		s.up = wire.AppendParse(s.up, st.stmt.name, body)
	case st.typ == wire.Parse:
		if known.Has(st.stmt.id) {
			if s.status != wire.Idle || s.cycle.class.Multi || s.cycle.open {
				s.tryParse(st.stmt.body)
			}
			st.act = answer
			break
		}
		s.evict(conn)
		s.up = wire.AppendParse(s.up, st.stmt.name, st.stmt.body)
		known.Add(st.stmt.id)
		if st.stmt.result.Load() == nil {
			s.cycle.steps = append(s.cycle.steps, st)
			s.describe(st.stmt)
			return
		}
	case st.refused != nil:
		s.refer(&st, msg)
	case st.typ == wire.Bind && st.stmt != nil:
		s.prepare(conn, st.stmt)
		if st.stmt.unnamed {
			s.up = append(s.up, msg...)
			break
		}
		portal, rest, _ := wire.CString(wire.Body(msg))
		_, rest, _ = wire.CString(rest)
		s.up = append(wire.AppendBindHead(s.up, portal, st.stmt.name, len(rest)), rest...)
	case st.typ == wire.Describe && st.stmt != nil && s.status == wire.Failed && !known.Has(st.stmt.id) && st.stmt.params.Load() != nil:
		st.act = answer // the server would, and cannot prepare it now (exec_describe_statement_message)
	case st.typ == wire.Describe && st.stmt != nil:
		s.prepare(conn, st.stmt)
		s.up = wire.AppendTarget(s.up, wire.Describe, st.stmt.name)
	case st.typ == wire.Close && st.wants == 'S':
		st.act = answer
	case st.typ == wire.Bind || st.typ == wire.Describe && st.wants == 'S':
		s.own(conn, []byte(st.name))
		s.up = append(s.up, msg...)
	default:
		s.up = append(s.up, msg...)
	}
	st.fills = st.fills || st.typ == wire.Query // which ends the unnamed statement (exec_simple_query in tcop/postgres.c)
	s.cycle.steps = append(s.cycle.steps, st)
}

// taken is what takes a name in a failed transaction.
var taken = &statement{name: statementPrefix + "taken"}

// takeTwice has the server answer a Parse of a name that is taken in a failed
// transaction: what has taken the name may not be there, and cannot be prepared. If
// the text can, because it ends the transaction, it takes the name itself.
func (s *session) takeTwice(st *step, body []byte) {
	s.tryParse(body)
	s.up = wire.AppendParse(s.up, taken.name, body)
	st.stmt = taken
}

// tryParse has the server prepare what it knows already, where that counts: it may be refused
// in a failed transaction, and in another it takes a snapshot, behind which the
// characteristics of the transaction cannot be set any more (exec_parse_message in tcop/postgres.c).
func (s *session) tryParse(body []byte) {
	s.up = wire.AppendTarget(s.up, wire.Close, taken.name)
	s.cycle.insert(step{typ: wire.Close, wants: 'S'})
	s.up = wire.AppendParse(s.up, taken.name, body)
	s.cycle.insert(step{typ: wire.Parse})
}

// own sees to it that a statement which the session does not know is not found
// among those that others have left on conn. What it prepared itself, and was
// too long to be remembered, is on the connection it keeps.
func (s *session) own(conn *backend.Conn, name []byte) {
	switch {
	case len(name) == 0 && !s.longName && !s.cycle.longComing() && s.slot() != 0:
		s.up = wire.AppendTarget(s.up, wire.Close, "")
		s.cycle.insert(step{typ: wire.Close, wants: 'S', fills: true})
	case conn.Statements.Own == nil && bytes.HasPrefix(name, []byte(statementPrefix)):
		if id, err := strconv.ParseUint(string(name[len(statementPrefix):]), 10, 64); err == nil {
			closing := step{typ: wire.Close, wants: 'S'}
			if conn.Statements.Has(id) {
				conn.Statements.Remove(id)
				closing.stmt = &statement{id: id}
			}
			s.up = wire.AppendTarget(s.up, wire.Close, string(name))
			s.cycle.insert(closing)
		}
	}
}

// longComing reports whether a Parse of the unnamed statement that is too long
// to be remembered is on its way.
func (c *cycle) longComing() bool {
	for _, st := range c.steps[c.head:] {
		if st.long && st.name == "" {
			return true
		}
	}
	return false
}

// prepare makes conn know a statement, in front of the message that uses it.
func (s *session) prepare(conn *backend.Conn, stmt *statement) {
	preparing := step{typ: wire.Parse, stmt: stmt}
	if stmt.unnamed {
		if s.slot() == stmt.id {
			return
		}
		preparing.fills, preparing.slot = true, stmt.id
	} else {
		if conn.Statements.Has(stmt.id) {
			return
		}
		s.evict(conn)
		conn.Statements.Add(stmt.id)
	}
	s.up = wire.AppendParse(s.up, stmt.name, stmt.body)
	s.cycle.insert(preparing)
}

// evict makes room for one more statement on conn.
func (s *session) evict(conn *backend.Conn) {
	id, ok := conn.Statements.Oldest(s.srv.options.Statements - 1)
	if !ok {
		return
	}
	conn.Statements.Remove(id)
	s.up = wire.AppendTarget(s.up, wire.Close, statementName(id))
	s.cycle.insert(step{typ: wire.Close, wants: 'S', stmt: &statement{id: id}})
}

func statementName(id uint64) string { return statementPrefix + itoa(int(id)) }

// undo takes back what a step that was never carried out was going to change.
func (s *session) undo(st *step) {
	if s.conn == nil {
		return
	}
	known := &s.conn.Statements
	switch {
	case st.swaps:
		known.Own = nil
	case st.fresh:
		delete(known.Own, st.name)
	case st.owned:
		known.Own[st.name] = struct{}{}
	case st.stmt == nil || st.raw || st.stmt.unnamed:
	case st.typ == wire.Parse && st.act != answer && !st.again:
		known.Remove(st.stmt.id)
		if st.act == swallow {
			delete(known.Own, st.name)
		}
	case st.typ == wire.Close && st.act == swallow:
		known.Add(st.stmt.id)
	}
}

// closeCycle gives back the references of statements that were not prepared after all.
func (s *session) closeCycle() {
	for i := range s.cycle.steps {
		st := &s.cycle.steps[i]
		if st.typ == wire.Parse && !st.raw && st.act != swallow && !st.stmt.unnamed && !st.again && !st.done {
			s.db.statements.drop(st.stmt)
		}
	}
	s.cycle.begin()
}

// unlearn forgets the statements of which the client will not hear that they were
// prepared: the answer was kept back and is dropped.
func (s *session) unlearn() {
	for i := range s.cycle.steps {
		if st := &s.cycle.steps[i]; st.typ == wire.Parse && st.done && st.name != "" {
			s.forget(st.name)
		}
	}
}

// abandon undoes all steps that are due, up to the one before end, last first.
func (s *session) abandon(end int) {
	for i := end - 1; i >= s.cycle.head; i-- {
		s.undo(&s.cycle.steps[i])
	}
	s.cycle.head = end
}
