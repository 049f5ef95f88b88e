package session

import "github.com/lsnproxy/lsnproxy/wire"

// ask sends a query of our own. In a transaction it is not sent as a Query, which would
// end the client's portal and statement that have no names (exec_simple_query in
// tcop/postgres.c).
func (s *session) ask(sql string) {
	if s.status == wire.InTx {
		s.askInside(sql)
	} else {
		s.askQuery(sql)
	}
}

func (s *session) askQuery(sql string) {
	s.up = wire.AppendQuery(s.up, sql)
	s.cycle.insert(step{typ: wire.Query})
}

// asking is the name of the statement and the portal of a query of ours.
const asking = statementPrefix + "asking"

// askInside sends a query by the extended protocol.
func (s *session) askInside(sql string) {
	s.askByPortal(asking, append([]byte(sql), 0, 0, 0), make([]byte, 6))
}

// askByPortal sends a query by a portal, which it leaves there if it is the client's. The
// statement is closed in front, too, because one that has failed is still there.
func (s *session) askByPortal(portal string, parse, bind []byte) {
	s.up = wire.AppendTarget(s.up, wire.Close, asking)
	s.up = wire.AppendParse(s.up, asking, parse)
	s.up = append(wire.AppendBindHead(s.up, []byte(portal), asking, len(bind)), bind...)
	s.up = wire.AppendExecute(s.up, portal)
	s.up = wire.AppendClosePortal(s.up, asking)
	s.up = wire.AppendTarget(s.up, wire.Close, asking)
	s.up = wire.AppendEmpty(s.up, wire.Sync)
	for _, typ := range [...]byte{wire.Close, wire.Parse, wire.Bind, wire.Execute, wire.Close, wire.Close, wire.Sync} {
		s.cycle.insert(step{typ: typ, asks: true})
	}
}
