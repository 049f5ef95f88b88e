package session

import (
	"errors"

	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// evidence is, for what the server can tell its session to hold, where it tells.
// Everything in a schema depends on it, by which DISCARD TEMP finds what to drop
// (RemoveTempRelations in catalog/namespace.c).
var evidence = [...]struct {
	pin    route.Pin
	exists string
}{
	{route.PinPrepared, "pg_catalog.pg_prepared_statements WHERE from_sql"},
	{route.PinListen, "pg_catalog.pg_listening_channels()"},
	{route.PinTemporary, "pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=) 2615" + // pg_namespace
		" AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()"},
	{route.PinLock, "pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory'" +
		" AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()"},
	{route.PinCursor, "pg_catalog.pg_cursors WHERE is_holdable"},
}

// provable is the pins that there is evidence for; inventory asks for it, one
// letter each.
var provable, inventory = func() (all route.Pin, sql string) {
	sql = "SELECT ''"
	for _, e := range evidence {
		all |= e.pin
		sql += " OPERATOR(pg_catalog.||) CASE WHEN EXISTS (SELECT FROM " + e.exists + ") THEN 'y' ELSE 'n' END"
	}
	return all, sql
}()

// pin takes note of what the batch may have left in the server's session or
// taken away. What really is there is asked when the session is idle.
func (s *session) pin(class *route.Class) {
	if !s.cycle.binds { // nothing was run, only prepared
		return
	}
	pin := class.Pin
	if s.cycle.nothing() && !class.Multi && s.status == wire.Idle {
		pin &= provable // an advisory lock outlasts a failure
	}
	if class.Nextval && s.onLeader && s.user.currval.Load() && (class.Multi || !s.doubting()) { // a failure takes back nothing of it
		pin |= route.PinSequence
	}
	if (pin&^s.pinned|class.Frees&s.pinned)&provable != route.PinNone || class.Unknown() && !s.doubting() {
		s.doubtful = true
	}
	s.repin(s.pinned | pin)
}

// repin makes pins what the session holds its connection for.
func (s *session) repin(pins route.Pin) {
	if pins == s.pinned {
		return
	}
	m := &s.srv.metrics
	for i := range m.pins {
		if (pins&^s.pinned)&(1<<i) != 0 {
			m.pins[i].Add(1)
		}
	}
	switch {
	case s.pinned == route.PinNone && pins != route.PinNone:
		m.pinned.Add(1)
	case s.pinned != route.PinNone && pins == route.PinNone:
		m.pinned.Add(-1)
	}
	s.pinned = pins
}

// verify asks the server what its session holds and keeps no other pins, except
// for those that it cannot tell. If it refuses, nothing is known and all stay.
func (s *session) verify() error {
	if s.longName { // the question would end it
		return nil
	}
	var found string
	err := s.aside(func() (err error) {
		found, err = s.askValue(inventory)
		return err
	})
	if s.conn == nil {
		s.doubtful = false
		return err
	}
	if err != nil || len(found) != len(evidence) {
		return err
	}
	s.doubtful = false
	pins := s.pinned &^ provable
	for i, e := range evidence {
		if found[i] == 'y' {
			pins |= e.pin
		}
	}
	s.repin(pins)
	return nil
}

// ahead asks the server questions of ours while no answer is due to the client.
// What the server says unasked goes to the client.
func (s *session) ahead(ask func() error) error {
	kept := s.cycle
	s.cycle = cycle{ours: true}
	if s.prelude != nil {
		s.startUp()
		s.sendPrelude()
	}
	err := ask()
	kept.fatal = s.cycle.fatal
	s.cycle = kept
	if err != nil {
		s.dropUp()
		return err
	}
	return s.flush()
}

// aside is ahead after a batch. If the connection is lost then, what it held is
// lost with it, and the session ends as on a direct connection.
func (s *session) aside(ask func() error) error {
	err := s.ahead(ask)
	var lost *lostError
	if !errors.As(err, &lost) {
		return err
	}
	s.out.discard(s.conn)
	if held := s.lose(); !held && !lost.ends { // it may have held something, but is not known to have
		return nil
	}
	told := lostText(lost.cause, s.cycle.fatal)
	told.Severity = "FATAL"
	return told
}

// rememberBound takes note of portals that a later batch of the transaction may execute,
// if they are of a statement whose execution counts here: that batch shall be taken for it.
func (s *session) rememberBound(class *route.Class) {
	switch {
	case s.status == wire.Idle:
		s.bound = nil // portals end with their transaction
	case s.cycle.unrun > 0 && (class.Reset != route.ResetNone || class.Frees != route.PinNone || class.Defaults || class.Local):
		if s.bound == nil {
			s.bound = new(batch)
		}
		s.bound.merge(*class)
	}
}

// discarded takes note that the batch has ended prepared statements, or all that
// the server's session held. No rollback brings any of that back.
func (s *session) discarded(class *route.Class) {
	failed := s.cycle.nothing()
	switch {
	case !s.cycle.runs, class.Reset < route.ResetDeallocate:
	case class.Multi: // under the client's own names: it is the server that knows
	case failed: // it has done nothing
		s.cycle.poisoned = s.cycle.poisoned || class.Prepared == route.PreparedDeallocate
	case class.Reset == route.ResetDeallocate:
		s.forget(class.Name)
	default:
		s.conn.Statements.Clear()
		s.forgetStatements()
	}
	if class.Reset == route.ResetDiscardAll && s.cycle.runs && !s.cycle.failed {
		// What it does not end must not be left to others: libraries, and
		// connections opened from inside.
		s.cycle.poisoned = s.cycle.poisoned || s.pinned&(route.PinLibrary|route.PinBackend|route.PinUnread) != route.PinNone
		s.cycle.doubts = nil
		if s.repin(s.pinned & route.PinDefinition); s.doubts != nil {
			s.doubts.discarded = true
		}
	}
	if class.Frees&route.PinSequence != route.PinNone && s.cycle.runs && !failed && !class.Multi {
		s.conn.Writer = 0
		s.repin(s.pinned &^ route.PinSequence)
	}
}
