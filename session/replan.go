package session

import (
	"github.com/lsnproxy/lsnproxy/wire"
)

// A prepared statement keeps the result type that it had when it was prepared:
// when a change of definitions would give it another, PostgreSQL refuses to run
// it (RevalidateCachedQuery in utils/cache/plancache.c), since the client may
// rely on what it was told. A connection that comes to prepare the statement only
// after the change does not know of it. So the type is remembered, and compared
// before such a connection runs the statement.

// noStatement is a statement that no connection has: ids begin at 1.
const noStatement = statementPrefix + "0"

var errChangedResult = wire.Error{Code: "0A000", Message: "cached plan must not change result type"}

// replan looks for statements among the steps to be sent that conn would have to
// prepare anew in spite of a change of definitions, and finds out which of them
// it may not run.
func (s *session) replan() error {
	c := &s.cycle
	if s.status == wire.Failed || s.conn.Statements.Own != nil {
		return nil
	}
	schema := s.db.schema.Load()
	for i := c.sent; i < len(c.steps); i++ {
		st := &c.steps[i]
		if st.raw || st.stmt == nil || st.stmt.unnamed || st.stmt.schema == schema || st.typ != wire.Bind && st.typ != wire.Describe {
			continue
		}
		before := st.stmt.result.Load()
		if before == nil || s.conn.Statements.Has(st.stmt.id) {
			continue
		}
		refused, err := s.prepareAnew(st.stmt, *before)
		if err != nil {
			return err
		}
		c.steps[i].refused = refused
	}
	return nil
}

// prepareAnew prepares a statement on the session's connection and compares its
// result type with the one it had before. What it returns is the error that the
// client gets instead of an answer, if it must not be run.
func (s *session) prepareAnew(stmt *statement, before string) (refused []byte, err error) {
	var now string
	err = s.ahead(func() error {
		s.startUp()
		s.prepare(s.conn, stmt)
		s.describe(stmt)
		err := s.syncOwn()
		now, refused = s.cycle.result, s.cycle.refused
		return err
	})
	switch {
	case err != nil || refused != nil && s.status == wire.Idle: // it will fail the same way once more
		return nil, err
	case refused != nil || now == before:
		return refused, nil
	}
	err = s.ahead(func() error {
		s.startUp()
		s.conn.Statements.Remove(stmt.id)
		s.up = wire.AppendTarget(s.up, wire.Close, stmt.name)
		s.cycle.insert(step{typ: wire.Close, wants: 'S', stmt: stmt})
		return s.syncOwn()
	})
	return errChangedResult.Append(nil), err
}

// refer has the server fail a message about a statement that must not be run:
// by its rules for the rest of the batch and the transaction.
func (s *session) refer(st *step, msg []byte) {
	if st.typ == wire.Describe {
		s.up = wire.AppendTarget(s.up, wire.Describe, noStatement)
		return
	}
	portal, rest, _ := wire.CString(wire.Body(msg))
	_, rest, _ = wire.CString(rest)
	s.up = append(wire.AppendBindHead(s.up, portal, noStatement, len(rest)), rest...)
}

// syncOwn ends a batch of messages of ours.
func (s *session) syncOwn() error {
	s.askSync()
	return s.exchangeOwn()
}

// describe asks for the result type of a statement, behind its Parse.
func (s *session) describe(stmt *statement) {
	s.up = wire.AppendTarget(s.up, wire.Describe, stmt.name)
	s.cycle.insert(step{typ: wire.Describe, wants: 'S', stmt: stmt})
}

// described takes the result type of a statement from the server's answer to our
// Describe: RowDescription or NoData.
func (s *session) described(st *step, msg []byte) {
	result := resultType(msg)
	s.cycle.result = result
	st.stmt.result.CompareAndSwap(nil, &result)
	if msg[0] == wire.NoData {
		params := s.cycle.params
		st.stmt.params.CompareAndSwap(nil, &params)
	}
}

// resultType is what a RowDescription says of a result type, as far as a prepared
// statement must keep it (equalTupleDescs in access/common/tupdesc.c): names,
// types and their modifiers, but not which table the columns are from.
func resultType(msg []byte) string {
	var kept []byte
	body := wire.Body(msg)
	if len(body) < 2 {
		return "" // NoData
	}
	for body = body[2:]; ; {
		name, rest, ok := wire.CString(body)
		if !ok || len(rest) < 18 {
			return string(kept)
		}
		kept = append(append(kept, name...), 0)
		kept = append(kept, rest[6:10]...)  // type
		kept = append(kept, rest[12:16]...) // its modifier
		body = rest[18:]
	}
}
