package session

import (
	"context"
	"errors"
	"time"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/pool"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

// A client is told a process id when it connects, and may use it: to know its own
// notifications, to compare it with pg_backend_pid(), to have itself cancelled or
// terminated by another. So as long as the pool has room, a session is at home on
// a connection to the leader from the beginning: it is told that one's process id
// and is lent that one whenever nobody else has it. When all are somebody's home,
// it is told a number that no process has: what is done to that hits nobody.

// moveInWait is how long a login waits for a connection to be at home on.
const moveInWait = time.Second

// moveIn makes the session at home on a connection to the leader, if one can be
// had. An error is the server's, which refuses the login.
func (s *session) moveIn() error {
	v := s.srv.board.View()
	if v.Leader == topology.NoLeader || !s.groups[v.Leader].Room(s.request.Fingerprint) {
		return nil
	}
	g := s.groups[v.Leader]
	r := s.request
	r.Fresh, r.Within = true, moveInWait
	c, err := g.Acquire(s.task, &r)
	switch {
	case errors.Is(err, pool.ErrTimeout), err != nil && unreachable(err):
		return nil
	case err != nil:
		return tellConnect(err)
	}
	if c.Home() == nil {
		s.settleAt(c, g)
		s.pid = c.PID()
	}
	g.Release(c)
	return nil
}

// settleAt makes c, which the session is lent, its home.
func (s *session) settleAt(c *backend.Conn, g *pool.Group) {
	if s.request.Home == nil {
		s.request.Home = &backend.Home{Lost: s.homeLost}
	}
	s.request.HomeIn = g
	c.Settle(s.request.Home)
}

// homeLost hears that the server has closed a connection of the session's while
// nobody used it. If an administrator has terminated the process that the client
// was told, that means the client; a server that shuts down or has crashed means
// nobody. It may run on any loop.
func (s *session) homeLost(pid uint32, terminated bool) {
	if !terminated || pid != s.pid || s.srv.closing.Load() {
		return
	}
	node, login := s.request.HomeIn, s.request.Login
	s.srv.loads.Add(1)
	go func() { // ends within moveInWait; Server.Close waits for it
		defer s.srv.loads.Done()
		ctx, cancel := context.WithTimeout(s.srv.ctx, moveInWait)
		defer cancel()
		c, err := backend.Dial(ctx, 0, node.Address(), login)
		if err != nil {
			return
		}
		c.Close()
		s.loop.Post(s.terminate)
	}()
}

// errTerminated ends a session as pg_terminate_backend does.
var errTerminated = &wire.Error{Severity: "FATAL", Code: "57P01", Message: "terminating connection due to administrator command"}

// terminate ends the session, at the end of what it does. It runs on its loop.
func (s *session) terminate() {
	switch {
	case s.ended:
	case s.task == nil:
		s.end(errTerminated)
	default:
		s.terminated = true
	}
}
