package session

import "github.com/lsnproxy/lsnproxy/wire"

// What a statement means is settled when it is prepared: how its strings are read, the values of
// its constants, who may use the schemas that it names. SET changes none of that later, other
// than by search_path (RevalidateCachedQuery in utils/cache/plancache.c). So a connection that
// comes to prepare a statement of the session's after SET prepares it under the settings that
// it was first prepared under.

// preparedUnder are the commands that lead from the session's settings to those that the
// statement was first prepared under, as far as they count.
func (s *session) preparedUnder(stmt *statement) []string {
	if stmt.settings == s.settings || stmt.settings == nil {
		return nil
	}
	now, then := make(map[string]string), make(map[string]string)
	for _, name := range understanding {
		if name == "search_path" {
			continue
		}
		if value, ok := s.settings.Values[name]; ok {
			now[name] = value
		}
		if value, ok := stmt.settings.Values[name]; ok {
			then[name] = value
		}
	}
	_, commands := changes(now, then)
	return commands
}

// prepareAsBefore prepares what the gathered batch runs that the connection does not know and
// was prepared under other settings.
func (s *session) prepareAsBefore() error {
	c := &s.cycle
	if s.status == wire.Failed || s.conn.Statements.Own != nil {
		return nil
	}
	for i := c.sent; i < len(c.steps); i++ {
		st := &c.steps[i]
		if st.raw || st.stmt == nil || st.stmt.unnamed || st.stmt.settings == s.settings || st.typ != wire.Bind && st.typ != wire.Describe || s.conn.Statements.Has(st.stmt.id) {
			continue
		}
		under := s.preparedUnder(st.stmt)
		if len(under) == 0 {
			continue
		}
		err := s.ahead(func() error {
			return s.prepareUnder(under, func() { s.prepare(s.conn, st.stmt) })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// prepareUnder prepares a statement under other settings, in a transaction that is rolled back:
// the statement stays. If it cannot be prepared any more the client is told when it is run.
func (s *session) prepareUnder(settings []string, prepare func()) error {
	begin, end := "BEGIN", []string{"ROLLBACK"}
	if s.status == wire.InTx {
		begin, end = "SAVEPOINT lsnproxy_before", []string{"ROLLBACK TO SAVEPOINT lsnproxy_before", "RELEASE SAVEPOINT lsnproxy_before"}
	}
	s.startUp()
	s.ask(begin)
	for _, sql := range settings {
		s.ask(sql)
	}
	prepare()
	s.askSync()
	for _, sql := range end {
		s.ask(sql)
	}
	return s.exchangeOwn()
}

// prepareDescribed prepares what the gathered batch describes and the connection does not know,
// by itself, front before it: to describe a statement takes no snapshot, behind which the characteristics of
// the transaction could not be set any more, and to prepare it does. What is left of front is returned.
func (s *session) prepareDescribed(front []string) ([]string, error) {
	c, known := &s.cycle, &s.conn.Statements
	for i := c.sent; i < len(c.steps); i++ {
		st := &c.steps[i]
		switch {
		case st.typ == wire.Parse: // which takes one
			return front, nil
		case st.raw || st.typ != wire.Describe || st.stmt == nil || known.Own != nil:
			continue
		case st.stmt.unnamed && known.Unnamed == st.stmt.id && len(front) == 0, !st.stmt.unnamed && known.Has(st.stmt.id):
			continue
		}
		err := s.ahead(func() error {
			s.startUp()
			for _, sql := range front {
				s.ask(sql)
			}
			s.prepare(s.conn, st.stmt)
			return s.syncOwn()
		})
		if front = nil; err != nil {
			return nil, err
		}
	}
	return front, nil
}
