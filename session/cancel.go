package session

import (
	"crypto/subtle"
	"slices"
	"sync/atomic"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/wire"
)

// cancel carries out a cancel request that a client has brought, or passes it on to
// the other proxies if it is for none of the sessions here. As with PostgreSQL, the
// one who asks is told nothing, but for the end of the connection: done is called
// when the request cannot hit anything any more that the client begins from then
// on. Clients wait for that (PQcancel in libpq).
func (s *Server) cancel(packet []byte, done func()) {
	if s.request(packet, done) {
		return
	}
	if s.options.Elsewhere != nil {
		s.options.Elsewhere(slices.Clone(packet))
	}
	done()
}

// passCancel carries out a cancel request, and returns when it is over.
func (s *session) passCancel(packet []byte) {
	var over atomic.Bool
	waking := s.waking
	s.srv.cancel(packet, func() {
		over.Store(true)
		waking.Wake()
	})
	for !over.Load() && s.task.Wait(noDeadline)&reactor.Closed == 0 {
	}
}

// Cancel finds the session that a cancel request (the packet, whole) is for and
// cancels what it runs; false: it is for none here. Any goroutine may call it.
func (s *Server) Cancel(packet []byte) bool { return s.request(packet, func() {}) }

// request is Cancel, and calls done, on any goroutine, when the request is over.
func (s *Server) request(packet []byte, done func()) bool {
	pid, key, ok := wire.CancelRequest(packet)
	if !ok {
		return false
	}
	s.mu.Lock()
	x := s.mu.byPID[pid]
	s.mu.Unlock()
	if x == nil || subtle.ConstantTimeCompare(x.key, key) != 1 {
		return false
	}
	s.metrics.cancels.Add(1)
	if !x.loop.Post(func() { x.cancel(looks, done) }) {
		done()
	}
	return true
}

// looks is how often a session that does nothing is looked at again before a
// cancel request is dropped: its statement may have reached our socket before
// the request did, and its loop hears of it in the next turn and begins it in
// the one after.
const looks = 2

// cancel cancels what the session runs: the query on the server, or the wait
// for a connection or a position. It runs on the session's loop.
func (s *session) cancel(looks int, done func()) {
	switch {
	case s.ended, s.task == nil && looks == 0:
		done()
		return
	case s.task == nil:
		if !s.loop.Post(func() { s.cancel(looks-1, done) }) {
			done()
		}
		return
	}
	s.cancelled = true
	s.waking.Wake()
	c := s.conn
	if c == nil {
		done()
		return
	}
	c.Cancels++
	loop, srv := s.loop, s.srv
	srv.loads.Add(1)
	go func() { // ends by itself within the cancel's time limit; Server.Close waits for it
		defer srv.loads.Done()
		err := c.Cancel()
		done()
		if err != nil {
			srv.log.Warn("cancel request not delivered", "error", err)
		}
		loop.Post(func() { s.cancelDone(c, err) })
	}()
}

// cancelDone says that a cancel request has reached its server, or that it may
// still do so, whoever uses the connection then. The session may be waiting for
// that before it gives the connection back.
func (s *session) cancelDone(c *backend.Conn, err error) {
	c.Cancels--
	c.Hunted = c.Hunted || err != nil
	if s.task != nil {
		s.waking.Wake()
	}
}
