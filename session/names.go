package session

import (
	"encoding/hex"
	"maps"
	"strings"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// Servers know the statements of the protocol as lsnproxy:N, so that sessions can
// share them. SQL has names for statements, too: PREPARE, EXECUTE, DEALLOCATE and
// pg_prepared_statements mean the names that the client has given. A session that
// uses these holds its connection, and has its statements there under its own
// names, for as long as SQL's own statements are there.

// nameStatements makes sure that the batch finds the statements which it names in
// SQL. It is called before the batch is translated.
func (s *session) nameStatements(class route.Class) error {
	if s.status == wire.Failed {
		return nil
	}
	own := s.conn.Statements.Own
	_, known := s.statements[class.Name]
	switch _, there := own[class.Name]; {
	case own == nil:
	case there || !known:
		return nil
	case class.Prepared == route.PreparedExecute:
		return s.prepareToExecute(class.Name)
	case class.Prepared != route.PreparedDeallocate:
		return nil
	}
	taken := strings.HasPrefix(class.Name, statementPrefix)
	switch class.Prepared {
	case route.PreparedEnds:
		return nil
	case route.PreparedExecute:
		if !known && !taken {
			return nil
		}
	case route.PreparedDeallocate:
		if !taken && !known {
			return nil
		}
		if !s.cycle.runs {
			return nil
		}
		if !taken {
			return s.ahead(func() error { return s.standIn(class.Name) })
		}
	}
	if err := s.exposeNames(); err != nil || class.Prepared != route.PreparedExecute {
		return err
	}
	return s.prepareToExecute(class.Name)
}

// prepareToExecute prepares a statement that could not be prepared when the names were exposed,
// and sees to it that EXECUTE, if it still cannot, fails for the reason why: not for want of the
// statement, which a server that has prepared it once only plans anew.
func (s *session) prepareToExecute(name string) error {
	stmt := s.statements[name]
	if _, there := s.conn.Statements.Own[name]; there || stmt == nil {
		return nil
	}
	var refused []byte
	err := s.ahead(func() (err error) {
		prepare := func() { s.prepareOwn(s.conn, name, stmt) }
		if under := s.preparedUnder(stmt); len(under) > 0 {
			err = s.prepareUnder(under, prepare)
		} else {
			err = s.tentatively(prepare)
		}
		refused = s.cycle.refused
		return err
	})
	for i := s.cycle.sent; i < len(s.cycle.steps); i++ {
		if st := &s.cycle.steps[i]; st.typ == wire.Query {
			st.refused = refused
		}
	}
	return err
}

// executes adds to the class of a statement that executes others, which were
// prepared by the protocol, what those do: they may be any command.
func (s *session) executes(c *route.Class) {
	switch c.Prepared {
	case route.PreparedExecute:
		if st := s.lookup([]byte(c.Name)); st != nil {
			s.does(c, st)
		}
	case route.PreparedAny:
		for _, st := range s.statements {
			s.does(c, st)
		}
	}
}

func (s *session) does(c *route.Class, st *statement) {
	d := unreadable // one that executes others in turn
	if s.dialect == usualDialect {
		if k := st.classify(s.db.names()); k.Prepared != route.PreparedExecute {
			d = k
		}
	}
	c.Currval = c.Currval || d.Currval
	if d.Pin|d.Frees == route.PinNone && !d.CopyIn && !d.Schema && !d.Drop && d.Sets == "" && d.Prepared == route.PreparedNone && d.Reason != route.ReasonTransaction && d.Reason != route.ReasonSavepoint {
		return
	}
	c.Multi = true
	c.CopyIn, c.Schema, c.Drop, c.Native, c.Defaults = c.CopyIn || d.CopyIn, c.Schema || d.Schema, c.Drop || d.Drop, c.Native || d.Native, c.Defaults || d.Defaults
	c.Pin, c.Frees, c.Sets = c.Pin|d.Pin, c.Frees|d.Frees, route.Union(c.Sets, d.Sets)
}

// standIn prepares something under the client's name, for DEALLOCATE to drop:
// nothing at all, because that cannot fail.
func (s *session) standIn(name string) error {
	s.startUp()
	s.up = wire.AppendParse(s.up, name, []byte{0, 0, 0})
	s.cycle.insert(step{typ: wire.Parse})
	s.askSync()
	return s.exchangeOwn()
}

// askSync ends messages of our own in the extended protocol.
func (s *session) askSync() {
	s.up = wire.AppendEmpty(s.up, wire.Sync)
	s.cycle.insert(step{typ: wire.Sync})
}

// exposeNames prepares all statements of the session on the held connection anew,
// under the names that the client has given them, in the place of those that
// sessions share. One that cannot be prepared any more is tried again when it is
// used.
func (s *session) exposeNames() error {
	return s.ahead(func() error {
		err := s.tentatively(func() { s.swapNames(s.askSync) })
		for name, stmt := range s.statements {
			if _, ok := s.conn.Statements.Own[name]; ok || err != nil {
				continue
			}
			switch prepare, under := func() { s.prepareOwn(s.conn, name, stmt) }, s.preparedUnder(stmt); {
			case len(under) > 0:
				err = s.prepareUnder(under, prepare)
			case s.status == wire.InTx: // one that fails makes the others behind it fail
				err = s.tentatively(prepare)
			}
		}
		return err
	})
}

// tentatively asks what may fail without harm to the client's transaction.
func (s *session) tentatively(ask func()) error {
	s.startUp()
	if s.status == wire.InTx {
		s.ask("SAVEPOINT lsnproxy_names")
	}
	ask()
	s.askSync()
	if err := s.exchangeOwn(); err != nil || s.status != wire.InTx {
		return err
	}
	if s.cycle.ownReady == wire.Failed {
		if _, err := s.askValue("ROLLBACK TO SAVEPOINT lsnproxy_names"); err != nil {
			return err
		}
	}
	_, err := s.askValue("RELEASE SAVEPOINT lsnproxy_names")
	return err
}

// swapNames closes what is prepared for all and prepares what the session has,
// calling sync after each. In the middle of a pipeline, where there is no sync, a
// statement that cannot be prepared any more fails it.
func (s *session) swapNames(sync func()) {
	coming := s.coming()
	s.repin(s.pinned | route.PinPrepared)
	s.doubtful = true
	s.up = wire.AppendTarget(s.up, wire.Close, taken.name)
	s.cycle.insert(step{typ: wire.Close, wants: 'S', swaps: s.conn.Statements.Own == nil})
	for _, id := range s.conn.Statements.Expose() {
		s.up = wire.AppendTarget(s.up, wire.Close, statementName(id))
		s.cycle.insert(step{typ: wire.Close, wants: 'S', stmt: &statement{id: id}})
	}
	for name, stmt := range coming {
		if _, there := s.conn.Statements.Own[name]; !there && !(s.cycle.ours && len(s.preparedUnder(stmt)) > 0) { // that has its turn behind the others
			s.prepareOwn(s.conn, name, stmt)
			sync()
		}
	}
}

// coming is what the session has prepared, those statements included whose answers are due.
func (s *session) coming() map[string]*statement {
	due := s.cycle.steps[s.cycle.head:]
	if len(due) == 0 {
		return s.statements
	}
	all := maps.Clone(s.statements)
	if all == nil {
		all = make(map[string]*statement)
	}
	for i := range due {
		switch st := &due[i]; {
		case st.act == swallow || st.raw || st.again || st.long || st.name == "":
		case st.typ == wire.Parse:
			all[st.name] = st.stmt
		case st.typ == wire.Close && st.wants == 'S':
			delete(all, st.name)
		}
	}
	return all
}

// prepareOwn prepares a statement under the client's name.
func (s *session) prepareOwn(conn *backend.Conn, name string, stmt *statement) {
	s.up = wire.AppendParse(s.up, name, stmt.body)
	s.cycle.insert(step{typ: wire.Parse, name: name, stmt: stmt})
	conn.Statements.Own[name] = struct{}{}
}

// translateOwn is translate on a connection where statements have the client's own
// names: the server decides what a name stands for.
func (s *session) translateOwn(conn *backend.Conn, st *step, msg []byte) {
	known := &conn.Statements
	names := st.typ == wire.Bind || st.typ == wire.Describe && st.wants == 'S'
	switch {
	case st.typ == wire.Parse && st.stmt.unnamed:
		st.fills, st.slot = true, st.stmt.id
	case st.typ == wire.Parse:
		if st.again { // it may have been deallocated
			_, body, _ := wire.CString(wire.Body(msg))
			st.stmt, st.again = s.db.statements.take(s.meaningNow(), s.settings, body, s.db.schema.Load()), false
		}
		_, there := known.Own[st.name]
		st.fresh = !there
		known.Own[st.name] = struct{}{}
	case st.typ == wire.Close && st.wants == 'S':
		st.fills = st.name == ""
		_, st.owned = known.Own[st.name]
		delete(known.Own, st.name) // here, and not when it is answered: a Parse of the name may follow
	case names && st.stmt == nil:
		s.own(conn, []byte(st.name))
	case names && st.stmt.unnamed:
		s.prepare(conn, st.stmt)
	case names:
		if _, ok := known.Own[st.name]; !ok {
			s.prepareOwn(conn, st.name, st.stmt)
		}
	}
	s.up = append(s.up, msg...)
}

// witness is a statement of nothing at all, which cannot fail. Where it is gone, DEALLOCATE
// ALL was run.
var witness = &statement{id: 1, name: statementName(1), body: []byte{0, 0, 0}}

// callWitness sees to it that the connection has the witness, in front of a function that is
// not known and may deallocate what there is.
func (s *session) callWitness(conn *backend.Conn) {
	if _, any := conn.Statements.Oldest(0); conn.Statements.Own == nil && (any || len(s.statements) > 0) {
		s.prepare(conn, witness)
		s.witnessed = true
	}
}

// hearWitness forgets all statements, those that sessions share on the connection and the
// session's own, if a function has deallocated them.
func (s *session) hearWitness() error {
	s.witnessed = false
	if s.conn.Statements.Own != nil || !s.conn.Statements.Has(witness.id) || s.longName {
		return nil
	}
	var left string
	err := s.aside(func() (err error) {
		left, err = s.askValue("SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_statements WHERE name OPERATOR(pg_catalog.=) '" + witness.name + "'")
		return err
	})
	if err == nil && s.conn != nil && left == "0" {
		s.conn.Statements.Clear()
		s.forgetStatements()
	}
	return err
}

// hideNames makes the connection one that others can use. The session forgets the
// statements that SQL has deallocated.
func (s *session) hideNames() error {
	const names = "SELECT pg_catalog.string_agg(pg_catalog.encode(pg_catalog.convert_to(name, pg_catalog.pg_client_encoding()), 'hex'), ' ')" +
		" FROM pg_catalog.pg_prepared_statements"
	var left string
	err := s.aside(func() (err error) {
		if left, err = s.askValue(names); err == nil {
			_, err = s.askValue("DEALLOCATE ALL")
		}
		return err
	})
	if err != nil || s.conn == nil { // lost
		return err
	}
	own := s.conn.Statements.Own
	s.conn.Statements.Clear()
	for _, name := range strings.Fields(left) {
		b, _ := hex.DecodeString(name)
		delete(own, string(b))
	}
	for name := range own { // not there any more
		s.forget(name)
	}
	return nil
}
