package session

import (
	"strings"

	"github.com/lsnproxy/lsnproxy/wire"
)

// Who may use the schemas that a statement names is looked at when it is prepared, and not
// again when it is run in another role (RevalidateCachedQuery in utils/cache/plancache.c
// does not ask for it). So a connection that comes to prepare a statement of the
// session's only after SET ROLE prepares it in the roles that it was first prepared in.

// rolesOf is what puts a connection into the roles of a session with such settings: commands
// that each end in a NUL.
func rolesOf(values map[string]string) string {
	roles := ""
	for _, name := range [...]string{"session_authorization", "role"} {
		if value, ok := values[name]; ok {
			roles += assignment(name, value) + "\x00"
		}
	}
	return roles
}

// prepareAsBefore prepares what the gathered batch runs that the connection does not know and
// was prepared in other roles.
func (s *session) prepareAsBefore() error {
	c := &s.cycle
	if s.status == wire.Failed || s.conn.Statements.Own != nil {
		return nil
	}
	for i := c.sent; i < len(c.steps); i++ {
		st := &c.steps[i]
		if st.raw || st.stmt == nil || st.stmt.unnamed || st.stmt.roles == s.roles || st.typ != wire.Bind && st.typ != wire.Describe || s.conn.Statements.Has(st.stmt.id) {
			continue
		}
		err := s.ahead(func() error {
			return s.prepareAs(st.stmt, func() { s.prepare(s.conn, st.stmt) })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// prepareAs prepares a statement in its own roles, in a transaction that is rolled back: the
// statement stays. If it cannot be prepared any more the client is told when it is run.
func (s *session) prepareAs(stmt *statement, prepare func()) error {
	begin, end := "BEGIN", []string{"ROLLBACK"}
	if s.status == wire.InTx {
		begin, end = "SAVEPOINT lsnproxy_roles", []string{"ROLLBACK TO SAVEPOINT lsnproxy_roles", "RELEASE SAVEPOINT lsnproxy_roles"}
	}
	s.startUp()
	for _, sql := range []string{begin, "RESET ROLE", "RESET SESSION AUTHORIZATION"} {
		s.ask(sql)
	}
	for sql := range strings.SplitSeq(strings.TrimSuffix(stmt.roles, "\x00"), "\x00") {
		s.ask(sql)
	}
	prepare()
	s.askSync()
	for _, sql := range end {
		s.ask(sql)
	}
	s.cycle.sent = len(s.cycle.steps)
	return s.exchangeOwn()
}
