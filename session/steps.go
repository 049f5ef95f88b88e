package session

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// step is one message that a server answers, or that we answer in its place.
// A cycle's steps form the queue of answers due: the first is always the one
// the next message from the server belongs to.
type step struct {
	typ       byte
	act       act
	off       int // where the client's message is in the buffer, while it is there
	size      int
	stmt      *statement // Parse, Bind, Describe and Close of a statement
	name      string     // what the client calls the statement
	wants     byte       // 'S' or 'P' for Describe and Close: statement or portal
	again     bool       // Parse of a name that is taken: an error that the server must give
	done      bool       // Parse whose statement the session now knows
	raw       bool       // malformed: sent on as it is
	long      bool       // Parse too long to be remembered: only this connection knows it
	odd       bool       // Query that the server may not be able to read
	unfit     bool       // perhaps it could not, and has done nothing
	fresh     bool       // Parse of a name that the connection had not as the client's own
	suspended bool       // Execute that has not come to the end of its portal
	swaps     bool       // from here on the connection has the client's own names
	owned     bool       // Close of a name that the connection has as the client's own
	fills     bool       // changes what the connection's unnamed slot holds, to slot
	slot      uint64

	portal *portal // Bind, Execute and Close of one, in a transaction on a follower

	refused []byte // the error that the client gets for a statement that must not or cannot be run

	explain  bool // runs an EXPLAIN (LSNPROXY)
	prelude  bool // brings the connection in line: if it fails nothing of the batch is carried out
	settings bool // asks for the values of settings
	asks     bool // is part of a question of ours: what is wrong with it is not the client's business
}

// bodyOf returns the body of the client's message that a step is about, while it is in the buffer.
func (s *session) bodyOf(st *step) []byte {
	return wire.Body(s.in.Bytes()[st.off : st.off+st.size])
}

// act says who learns of the answer to a step.
type act uint8

const (
	relay   act = iota // the server's answer goes to the client
	swallow            // we asked; the client does not hear of it
	answer             // the server is not asked: we answer
)

// statement is a prepared statement as the client knows it.
type statement struct {
	id   uint64
	name string // on the servers; empty for an unnamed one
	body []byte // of the Parse message after the name: text and parameter types
	hint string // the comment in the text that is for the proxy

	class    atomic.Pointer[classified]
	result   atomic.Pointer[string] // its result type when it was first prepared (replan.go); nil: not known
	params   atomic.Pointer[string] // the server's ParameterDescription, if there was no result
	proof    atomic.Pointer[proof]
	meaning  string            // of the settings it was prepared under
	settings *backend.Settings // these
	refs     int               // sessions that know it; under the database's lock
	unnamed  bool
	schema   uint64 // count of schema changes when it was first prepared
	shared   bool
}

// classified is a statement's class by one catalog.
type classified struct {
	catalog *route.Catalog
	class   route.Class
}

// classify returns the statement's class, worked out once per catalog.
func (st *statement) classify(c *route.Catalog) route.Class {
	if k := st.class.Load(); k != nil && k.catalog == c {
		return k.class
	}
	text, _, _ := wire.CString(st.body)
	class := route.Classify(text, true, c)
	st.class.Store(&classified{catalog: c, class: class})
	return class
}

// proof says that a server has accepted a statement, from a session with these
// login data, and that no definition has changed since.
type proof struct {
	fingerprint string
	schema      uint64
}

// proved reports whether a server would accept the statement from this session,
// so that a Parse of it can be answered without one. The server then sees it
// with the first Bind. Clients count on that: pgbench prepares the statements of
// one connection while transactions of others, which it has to go on with
// itself, hold all server connections.
func (s *session) proved(st *statement) bool {
	p := st.proof.Load()
	return p != nil && p.fingerprint == s.request.Fingerprint && p.schema == s.db.schema.Load() && st.shared
}

// prove notes that the server of this session has accepted the statement.
func (s *session) prove(st *statement) {
	if s.pinned == route.PinNone && s.status == wire.Idle && !s.proved(st) {
		st.proof.Store(&proof{fingerprint: s.request.Fingerprint, schema: s.db.schema.Load()})
	}
}

// statementPrefix begins the names of statements on the servers. No client
// statement is named so by accident.
const statementPrefix = "lsnproxy:"

var lastStatement atomic.Uint64

func init() { lastStatement.Store(witness.id) }

// statements is what the sessions of a database have prepared: sessions that
// prepare the same text share one entry, and so share what is prepared on the
// server connections.
type statements struct {
	mu     sync.Mutex
	byBody map[string]*statement
}

// take returns the entry for a Parse body, with one more reference. Two sessions
// share an entry only if preparing it twice would have come to the same: no
// definition has changed in between, their settings give it the same meaning, and nothing in the text is evaluated when
// it is prepared.
func (s *statements) take(meaning string, settings *backend.Settings, body []byte, schema uint64) *statement {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.byBody[meaning+string(body)]
	if st == nil || st.schema != schema {
		id := lastStatement.Add(1)
		st = &statement{id: id, name: statementName(id), body: append([]byte(nil), body...), hint: bodyHint(body), meaning: meaning, settings: settings, schema: schema}
		if !evaluatedEarly(body) {
			s.shareLocked(st)
		}
	}
	st.refs++
	return st
}

func (s *statements) shareLocked(st *statement) {
	if s.byBody == nil {
		s.byBody = make(map[string]*statement)
	}
	st.shared = true
	s.byBody[st.meaning+string(st.body)] = st
}

// drop gives a reference back.
func (s *statements) drop(st *statement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.refs--; st.refs == 0 {
		s.unshareLocked(st)
	}
}

// unshare keeps later sessions from using this entry: what was prepared of it
// is out of date.
func (s *statements) unshare(st *statement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unshareLocked(st)
}

func (s *statements) unshareLocked(st *statement) {
	if key := st.meaning + string(st.body); s.byBody[key] == st {
		delete(s.byBody, key)
	}
	st.shared = false
}

// evaluatedEarly reports whether a text may hold a constant whose value depends
// on when it is prepared: the special dates and times ("Date/Time Input" in the
// manual: 'now', 'today' ...), or the name of an object that stands for its
// number ('t'::regclass).
func evaluatedEarly(body []byte) bool {
	text, _, _ := wire.CString(body)
	if bytes.IndexByte(text, '\'') < 0 {
		return false
	}
	folded := bytes.ToLower(text)
	for _, word := range [...]string{"now", "today", "tomorrow", "yesterday", "reg", "\\", "u&"} {
		if bytes.Contains(folded, []byte(word)) {
			return true
		}
	}
	return false
}

// newUnnamed makes the entry of an unnamed statement, which is not shared.
func newUnnamed(meaning string, body []byte) *statement {
	return &statement{id: lastStatement.Add(1), body: append([]byte(nil), body...), hint: bodyHint(body), meaning: meaning, unnamed: true}
}

func bodyHint(body []byte) string {
	text, _, _ := wire.CString(body)
	return hintOf(text)
}

// learn makes name stand for st, which the session has a reference of.
func (s *session) learn(name string, st *statement) {
	if name == "" {
		s.unnamed, s.longName = st, false
		return
	}
	if s.statements == nil {
		s.statements = make(map[string]*statement)
	}
	s.forget(name) // what SQL has deallocated
	s.statements[name] = st
}

// forget makes name stand for nothing.
func (s *session) forget(name string) {
	if name == "" {
		s.unnamed = nil
		return
	}
	if st := s.statements[name]; st != nil {
		delete(s.statements, name)
		s.db.statements.drop(st)
	}
}

// forgetStatements drops all of the session's statements that have names: nothing but
// another, or a Query, ends the one that has none (DropAllPreparedStatements in
// commands/prepare.c).
func (s *session) forgetStatements() {
	for _, st := range s.statements {
		s.db.statements.drop(st)
	}
	s.statements = nil
}
