package session

import (
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// In a failed transaction nothing can be prepared, discarded or taken to another server; but
// a batch may begin with what ends it, or goes back to a savepoint, and have more behind that.
// What has to be in place for the rest is done first then: behind a statement of ours that
// does what the batch begins with, and in front of one that fails, so that the batch finds
// the transaction as it was.

// exit returns the statement that the gathered batch begins with, if it is one that is run in
// a failed transaction, and nothing if it is not.
func (s *session) exit(b *batch) (text []byte, class route.Class, err error) {
	if s.dialect.readable && b.complete && s.begins() {
		all := []byte(s.textOf())
		text = route.First(all, s.dialect.conforming)
		class = route.Classify(text, s.dialect.conforming, nil)
		exits := class.Kind == route.Commit || class.Kind == route.Rollback || class.Reason == route.ReasonSavepoint
		if exits && len(text) < len(all) { // nothing of it is run if it cannot be read to its end
			exits, err = s.parses(all)
		}
		if exits {
			return text, class, err
		}
	}
	return nil, route.Class{}, err
}

// begins reports whether the gathered batch runs its first statement before anything that
// could fail.
func (s *session) begins() bool {
	steps := s.cycle.steps
	if steps[0].typ == wire.Query {
		return true
	}
	i := 0
	if steps[0].typ == wire.Parse {
		i = 1
	}
	if len(steps) < i+2 || steps[i].typ != wire.Bind || steps[i].stmt == nil || i > 0 && steps[0].stmt != steps[i].stmt {
		return false
	}
	runs := i + 1
	if steps[runs].typ == wire.Describe && len(steps) > runs+1 {
		runs++
	}
	return steps[runs].typ == wire.Execute && s.portalOf(&steps[i]) == s.portalOf(&steps[runs])
}

// portalOf returns the name of the portal that a Bind or Execute is about.
func (s *session) portalOf(st *step) string {
	name, _, _ := wire.CString(s.bodyOf(st))
	return string(name)
}

// parses reports whether a string of several statements is one, by asking to prepare it: that
// it cannot be, because there are several, is found first, but for its grammar (exec_parse_message
// in tcop/postgres.c). If the client prepares it, several are an error.
func (s *session) parses(text []byte) (ok bool, err error) {
	query := s.cycle.steps[0].typ == wire.Query
	err = s.ahead(func() error {
		s.startUp()
		s.up = wire.AppendTarget(s.up, wire.Close, asking)
		s.cycle.insert(step{typ: wire.Close})
		s.up = wire.AppendParse(s.up, asking, append(text, 0, 0, 0))
		s.cycle.insert(step{typ: wire.Parse})
		err := s.syncOwn()
		ok = s.cycle.refused == nil || query && string(wire.Field(s.cycle.refused, 'R')) == "exec_parse_message"
		return err
	})
	return ok, err
}

// lacks reports whether a batch in a failed transaction may need what cannot be put in place there.
func (s *session) lacks(class *route.Class) bool {
	if !class.Multi || !s.cycle.runs {
		return false
	}
	known := &s.conn.Statements
	if class.Prepared > route.PreparedEnds && known.Own == nil || (class.Nextval || class.Currval) && s.foreign() {
		return true
	}
	for i := range s.cycle.steps {
		st := &s.cycle.steps[i]
		if st.typ == wire.Bind && st.stmt != nil && !st.stmt.unnamed && known.Own == nil && !known.Has(st.stmt.id) &&
			(st.stmt.schema != s.db.schema.Load() || st.stmt.settings != s.settings) {
			return true
		}
	}
	return false
}

// beyond puts in place what the batch needs behind the end of the failed transaction.
func (s *session) beyond(b *batch) error {
	text, class, err := s.exit(b)
	if err != nil || text == nil {
		return err
	}
	if class.Reason != route.ReasonSavepoint {
		text = []byte("ROLLBACK AND CHAIN")
	}
	if err := s.revive(string(text)); err != nil || s.status != wire.InTx {
		return err
	}
	if c := &s.cycle.class; c.Prepared != route.PreparedNone {
		err = s.nameStatements(*c)
	}
	if err == nil {
		err = s.replan()
	}
	if err == nil {
		err = s.prepareAsBefore()
	}
	if c := &s.cycle.class; err == nil && (c.Nextval || c.Currval) {
		for _, sql := range s.sequences(*c) {
			_, err = s.stateAfter(func() { s.ask(sql) })
		}
	}
	if err == nil {
		s.breakTransaction()
	}
	if s.conn == nil {
		return &lostAgain
	}
	return err
}

// revive runs what takes a failed transaction back to where it may go on. The client is told
// what that does to its settings.
func (s *session) revive(text string) (err error) {
	s.status, err = s.stateAfter(func() {
		s.cycle.telling = true
		s.askInside(text)
	})
	s.cycle.reported = s.cycle.reported || s.unsaid != nil
	return err
}

// leaveFailed takes a batch that may be for the leader away from a follower, where the
// transaction has failed: to a failed one there.
func (s *session) leaveFailed(b *batch) error {
	if !b.class.Multi {
		s.leaveFollower()
		return nil
	}
	text, class, err := s.exit(b)
	switch {
	case err != nil || text == nil:
		return err
	case class.Reason != route.ReasonSavepoint: // it has lost its characteristics with its failure (AbortTransaction in access/transam/xact.c)
		s.leaveFollower()
		return nil
	}
	if err := s.revive(string(text)); err != nil || s.status != wire.InTx {
		return err
	}
	s.opening.add(deed{text: string(text)})
	if moves, err := s.movable(); err != nil {
		return err
	} else if moves {
		if err := s.begunAnew(b); err != nil {
			return err
		}
	}
	if s.breakTransaction(); s.conn == nil {
		return &lostAgain
	}
	return nil
}
