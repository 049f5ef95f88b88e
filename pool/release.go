package pool

import (
	"time"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/reactor"
)

// Release takes back a connection that is idle, at a message boundary and
// without session state: the next in line gets it, else it rests. It runs on
// the connection's loop. In doubt call Destroy instead.
func (g *Group) Release(c *backend.Conn) {
	now := time.Now()
	if g.pool.aged(c, now) {
		g.Destroy(c)
		return
	}
	g.mu.Lock()
	if g.mu.closed {
		g.mu.Unlock()
		g.Destroy(c)
		return
	}
	w, replace := g.nextLocked(c)
	switch {
	case w == nil:
		g.mu.idle = append(g.mu.idle, idle{Conn: c, since: now})
		c.Net.OnReady(c.Idle)
	case replace:
		w.coming = true
		g.mu.stat.Destroyed++
		g.dialLocked(w)
	default:
		if w.loop != c.Net.Loop() {
			c.Net.Detach()
		}
		w.conn = c
	}
	g.mu.Unlock()
	if replace {
		c.Close()
	} else if w != nil {
		w.waker.Wake()
	}
}

// nextLocked finds who is served by the return of c. replace says that the
// first in line needs other startup parameters, so that c must make room.
func (g *Group) nextLocked(c *backend.Conn) (w *waiter, replace bool) {
	for _, w := range g.mu.waiters {
		if w.request.Fingerprint == c.Fingerprint {
			return g.matchLocked(c.Fingerprint), false
		}
		if !w.coming {
			return w, true
		}
	}
	return nil, false
}

// Destroy closes a connection instead of taking it back. It runs on the
// connection's loop.
func (g *Group) Destroy(c *backend.Conn) {
	c.Close()
	g.gone()
}

// gone accounts for a connection that is no more; the place goes to the first
// in line who has nothing coming.
func (g *Group) gone() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.open--
	g.mu.stat.Destroyed++
	g.provideNextLocked()
}

// watch ends an idle connection that becomes readable: the server has closed
// it, or said something that nobody asked for.
type watch struct {
	group *Group
	conn  *backend.Conn
}

// Run implements reactor.Runner.
func (w *watch) Run(*reactor.Task) {
	if w.group.takeIdle(w.conn) {
		w.group.Destroy(w.conn)
	}
}

// takeIdle takes c out of the idle ones; false if it is not among them any more.
func (g *Group) takeIdle(c *backend.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.mu.idle {
		if g.mu.idle[i].Conn == c {
			g.removeIdleLocked(i)
			return true
		}
	}
	return false
}

// expire closes the connections that have been idle or alive for too long.
func (g *Group) expire(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := len(g.mu.idle) - 1; i >= 0; i-- {
		if x := g.mu.idle[i]; g.pool.expired(x.Conn, x.since, now) {
			g.removeIdleLocked(i)
			x.Net.Loop().Post(func() { g.Destroy(x.Conn) })
		}
	}
}

// close fails everybody in line and closes the idle connections.
func (g *Group) close() {
	g.mu.Lock()
	g.mu.closed = true
	waiters, idle := g.mu.waiters, g.mu.idle
	g.mu.waiters, g.mu.idle = nil, nil
	for _, w := range waiters {
		w.err = ErrClosed
	}
	g.mu.Unlock()
	for _, w := range waiters {
		w.waker.Wake()
	}
	for _, x := range idle {
		x.Net.Loop().Post(func() { g.Destroy(x.Conn) })
	}
}

func (g *Group) stat() Stat {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.mu.stat
	s.Key, s.Address = g.key, g.address
	s.Open, s.Idle, s.Waiting = g.mu.open, len(g.mu.idle), len(g.mu.waiters)
	return s
}
