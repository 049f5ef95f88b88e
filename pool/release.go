package pool

import (
	"bytes"
	"maps"
	"time"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/reactor"
)

// Release takes back a connection that is idle, at a message boundary and
// without session state: the next in line gets it, else it rests. It runs on
// the connection's loop. In doubt call Destroy instead.
func (g *Group) Release(c *backend.Conn) {
	takeBack(c)
	g.place(c, false)
}

// Destroy closes a connection instead of taking it back. It runs on the
// connection's loop.
func (g *Group) Destroy(c *backend.Conn) {
	takeBack(c)
	c.Close()
	g.gone()
}

// takeBack ends a loan. Two sessions on one connection would read each other's
// rows, so a connection that comes back twice is not survived.
func takeBack(c *backend.Conn) {
	if !c.Lent {
		panic("pool: a connection came back that is not on loan")
	}
	c.Lent = false
	c.Net.OnReady(nil) // the borrower may have had it watched
}

// place finds a place for a connection that nobody uses: with the first in line
// whom it can serve, else among the idle ones. It is closed if it is too old, if
// its server has closed it, or to make room for one that the first in line
// needs. came says that it was on its way to the line. It runs on the
// connection's loop.
func (g *Group) place(c *backend.Conn, came bool) {
	now := time.Now()
	aged := g.aged(c, now)
	if aged || !quiet(c) {
		if home := c.Home(); home != nil && !aged {
			home.Lost(c.PID(), terminated(c))
		}
		c.Close()
		if came {
			g.lost(c.Fingerprint)
		} else {
			g.gone()
		}
		return
	}
	l := c.Net.Loop()
	w, fits := g.handOver(c, came, now)
	switch {
	case !fits:
		c.Close()
		g.gone()
	case w != nil:
		w.waker.WakeOn(l)
	}
}

// handOver gives c to the first in line whom it can serve, who is then to be
// woken, or lets it rest if there is none.
func (g *Group) handOver(c *backend.Conn, came bool, now time.Time) (w *waiter, fits bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if came {
		g.arrivedLocked(c.Fingerprint)
	}
	if g.mu.closed || g.shares != nil && g.claimedLocked(now) {
		return nil, false
	}
	w, fits = g.nextLocked(c.Fingerprint, now)
	switch {
	case !fits:
	case w == nil && now.Before(g.mu.vacant):
		return nil, false
	case w == nil:
		g.mu.idle = append(g.mu.idle, idle{Conn: c, since: now})
		c.Net.OnReady(c.Idle)
	default:
		g.leaveLocked(w)
		if w.loop != c.Net.Loop() {
			c.Net.Detach()
		}
		w.conn = c
	}
	return w, fits
}

// patience is how long somebody in line may be overtaken by others whom the
// connections that come back can serve, while he needs one with other startup
// parameters, and how much time passes at least before the next connection is
// given up for such a one: a login costs as much as many queries.
const patience = 50 * time.Millisecond

// nextLocked finds the first in line whom a connection with these parameters can
// serve, if anybody. It does not fit if there is nobody, but somebody who needs
// other parameters and has nothing coming: its place serves him. Nor does it if
// such a one is first and has been patient, or if there is one too many and nobody
// whose request is brief.
func (g *Group) nextLocked(fingerprint string, now time.Time) (w *waiter, fits bool) {
	var left map[string]int
	if g.mu.line.Len() > 0 && len(g.mu.coming) > 0 {
		left = maps.Clone(g.mu.coming)
	}
	spare := g.mu.open > g.most()
	fits = !spare
	for e := g.mu.line.Front(); e != nil; e = e.Next() {
		w := e.Value.(*waiter)
		f := w.request.Fingerprint
		switch {
		case spare && !w.request.Brief:
		case f == fingerprint:
			return w, true
		case left[f] > 0:
			left[f]--
		case now.Sub(w.since) >= patience && now.Sub(g.mu.exchanged) >= patience:
			g.mu.exchanged = now
			return nil, false
		default:
			fits = false
		}
	}
	return nil, fits
}

// terminated reports whether the server has closed c as pg_terminate_backend and a
// shutdown do. The first byte of what it said has been read.
func terminated(c *backend.Conn) bool {
	var b [512]byte
	n, _ := c.Net.TryRead(b[:])
	return bytes.Contains(b[:n], []byte("\x00C57P01\x00"))
}

// gone accounts for a connection that is no more; the place goes to the first
// in line who has nothing coming.
func (g *Group) gone() {
	g.mu.Lock()
	g.goneLocked()
	g.mu.Unlock()
	g.offer()
}

func (g *Group) goneLocked() {
	g.closedLocked()
	g.mu.stat.Destroyed++
	g.supplyLocked()
}

// watch looks after an idle connection that becomes readable.
type watch struct {
	group *Group
	conn  *backend.Conn
}

// Run implements reactor.Runner.
func (w *watch) Run(*reactor.Task) {
	if w.group.takeIdle(w.conn) {
		w.group.place(w.conn, false)
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

// expire closes the connections that have been idle or alive for too long, and
// what is left of the reserve.
func (g *Group) expire(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	open := g.mu.open
	for i := len(g.mu.idle) - 1; i >= 0; i-- {
		if g.expired(g.mu.idle[i], open, now) {
			open--
			g.retire(g.removeIdleLocked(i))
		}
	}
}

// Vacate closes the idle connections to a database of a node, and those that come
// back in the next few seconds. PostgreSQL neither drops nor copies a database that
// somebody is connected to, but waits so long for those who leave
// (CountOtherDBBackends in procarray.c).
func (p *Pool) Vacate(node int, database string) {
	for _, g := range p.Groups() {
		if g.key.Node == node && g.key.Database == database {
			g.vacate()
		}
	}
}

// vacancy is how long PostgreSQL waits.
const vacancy = 5 * time.Second

func (g *Group) vacate() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.vacant = time.Now().Add(vacancy)
	for i := len(g.mu.idle) - 1; i >= 0; i-- {
		g.retire(g.removeIdleLocked(i))
	}
}

// retire closes a connection that was idle until now.
func (g *Group) retire(c *backend.Conn) {
	g.post(c.Net.Loop(), func() {
		closeIdle(c)
		g.gone()
	})
}

// closeIdle closes a connection that is watched. It runs on its loop.
func closeIdle(c *backend.Conn) {
	c.Net.OnReady(nil)
	c.Close()
}

// close fails everybody in line and closes the idle connections.
func (g *Group) close() {
	g.mu.Lock()
	g.mu.closed = true
	told := g.dismissLocked(ErrClosed, true, "")
	for _, x := range g.mu.idle {
		g.retire(x.Conn)
	}
	g.mu.idle = nil
	g.mu.Unlock()
	wake(told)
}
