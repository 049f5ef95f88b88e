package session

import (
	"crypto/subtle"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/wire"
)

// cancel finds the session that a cancel request is for and cancels what it
// runs. As with PostgreSQL, the one who asks is told nothing.
func (s *Server) cancel(packet []byte) {
	pid, key, ok := wire.CancelRequest(packet)
	if !ok {
		return
	}
	s.mu.Lock()
	x := s.mu.byPID[pid]
	s.mu.Unlock()
	if x == nil || subtle.ConstantTimeCompare(x.key, key) != 1 {
		return
	}
	s.metrics.cancels.Add(1)
	x.loop.Post(x.cancel)
}

// cancel cancels what the session runs: the query on the server, or the wait
// for a connection or a position. It runs on the session's loop.
func (s *session) cancel() {
	if s.ended || s.task == nil {
		return
	}
	s.cancelled = true
	s.waking.Wake()
	c := s.conn
	if c == nil {
		return
	}
	c.Cancels++
	loop, srv := s.loop, s.srv
	srv.loads.Add(1)
	go func() { // ends by itself within the cancel's time limit; Server.Close waits for it
		defer srv.loads.Done()
		if err := c.Cancel(); err != nil {
			srv.log.Warn("cancel request not delivered", "error", err)
		}
		loop.Post(func() { s.cancelDone(c) })
	}()
}

// cancelDone says that a cancel request has reached its server. The session may
// be waiting for that before it gives the connection back.
func (s *session) cancelDone(c *backend.Conn) {
	c.Cancels--
	if s.task != nil {
		s.waking.Wake()
	}
}
