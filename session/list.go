package session

import (
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// Client is one client, for people.
type Client struct {
	Address, User, Database string
	PID                     uint32 // that it was told
	Begun                   time.Time
	State                   string // login, idle, active, in transaction, failed transaction, replication, console
	Pinned                  string // why it holds its server connection beyond the transaction; "" if it does not
	Token                   lsn.Token

	// The server connection that it holds, if it holds one.
	Holds      bool
	Node       int
	ServerPID  uint32
	ServerBorn time.Time
}

// List tells of all clients. It waits for every loop, so it must not be called on one.
func (s *Server) List() []Client {
	var all []Client
	for _, h := range s.homes {
		done := make(chan []Client, 1)
		if h.loop.Post(func() { done <- h.list() }) {
			all = append(all, <-done...)
		}
	}
	return all
}

// list tells of the clients of one loop. It runs there.
func (h *home) list() []Client {
	all := make([]Client, 0, len(h.sessions))
	for x := range h.sessions {
		c := Client{
			User: x.request.Login.User, Database: x.request.Login.Database,
			PID: x.pid, Begun: x.begun, State: x.state(), Token: x.srv.board.View().Token(x.token),
		}
		if a := x.client.RemoteAddr(); a != nil {
			c.Address = a.String()
		}
		if x.token.IsZero() {
			c.Token = lsn.Token{}
		}
		if x.pinned != route.PinNone {
			c.Pinned = x.pinned.String()
		}
		if x.conn != nil {
			c.Holds, c.Node, c.ServerPID, c.ServerBorn = true, x.conn.Node, x.conn.PID(), x.conn.Born
		}
		all = append(all, c)
	}
	return all
}

func (s *session) state() string {
	switch {
	case s.pid == 0:
		return "login"
	case s.relaying && s.conn == nil:
		return "console"
	case s.relaying:
		return "replication"
	case s.task != nil:
		return "active"
	case s.aborted, s.status == wire.Failed:
		return "failed transaction"
	case s.status == wire.InTx:
		return "in transaction"
	default:
		return "idle"
	}
}
