package session

import (
	"context"
	"fmt"
	"time"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

// ordered reports whether a server has ended its connection because it was told
// to end this very session, as opposed to going down or losing it. Then the
// session ends as it would without a proxy: one of PostgreSQL's timeouts for
// sessions has passed (ProcessInterrupts in tcop/postgres.c), or somebody has
// called pg_terminate_backend. A server that is being shut down says the same
// words as the latter.
func (s *session) ordered(fatal *wire.Error) bool {
	if fatal == nil {
		return false
	}
	switch fatal.Code {
	case "25P03", "25P04", "57P05": // idle in a transaction, transaction too long, idle session
		return true
	case "57P01":
		return s.stillUp()
	}
	return false
}

// upTimeout bounds the question whether a server is still up.
const upTimeout = 5 * time.Second

// stillUp reports whether the server of the held connection takes connections,
// and is the one that took this one. While it shuts down it takes none, from
// before it tells its sessions (pmdie in postmaster.c), and after a restart it is
// younger than the connection.
func (s *session) stillUp() bool {
	c := s.conn
	address := s.srv.board.View().Nodes[c.Node].Address
	login := s.request.Login
	login.Params = []wire.Param{{Name: "application_name", Value: "lsnproxy"}}
	up := false
	s.task.Offload(func() {
		ctx, cancel := context.WithTimeout(s.srv.ctx, upTimeout)
		defer cancel()
		age := topology.Now().Since(c.Opened)
		rows, err := backend.Ask(ctx, address, login, fmt.Sprintf(
			"SELECT pg_catalog.clock_timestamp() - pg_catalog.pg_postmaster_start_time() > '%d microseconds'", age.Microseconds()))
		up = err == nil && len(rows) == 1 && rows[0][0] == "t"
	})
	return up
}
