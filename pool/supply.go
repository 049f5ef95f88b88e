package pool

import (
	"context"
	"log/slog"
	"maps"
	"time"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/reactor"
)

// supplyLocked sets a connection on its way for everybody in line who has none
// coming, in their order, as far as the bound allows. It is called whenever
// somebody has come into the line, a place has become free, or what was coming
// does not come.
func (g *Group) supplyLocked() {
	if g.mu.closed {
		return
	}
	var left map[string]int
	if len(g.mu.coming) > 0 { // seldom, and everybody who gets in line comes by here
		left = maps.Clone(g.mu.coming)
	}
	for e := g.mu.line.Front(); e != nil; e = e.Next() {
		w := e.Value.(*waiter)
		if f := w.request.Fingerprint; left[f] > 0 {
			left[f]--
		} else if !g.sendLocked(w) {
			return
		}
	}
}

// sendLocked sets a connection that can serve w on its way, if the bound allows
// it: one that is idle on another loop, a new one, or a new one in the place of
// the longest idle one with other startup parameters.
func (g *Group) sendLocked(w *waiter) bool {
	f := w.request.Fingerprint
	i := g.idleLocked(f)
	if w.request.Fresh && g.roomLocked(w) {
		i = g.freeLocked(f)
	}
	switch {
	case i >= 0:
		c := g.removeIdleLocked(i)
		g.post(c.Net.Loop(), func() {
			c.Net.OnReady(nil)
			g.place(c, true)
		})
	case g.roomLocked(w) && g.takePlacesLocked():
		g.dialLocked(w.loop, w.request)
	case len(g.mu.idle) > 0:
		c := g.removeIdleLocked(0)
		g.post(c.Net.Loop(), func() {
			closeIdle(c)
			g.lost(f) // and a new one is opened
		})
	default:
		return false
	}
	g.comesLocked(f)
	return true
}

// comesLocked counts one more connection on its way to the line.
func (g *Group) comesLocked(fingerprint string) {
	if g.mu.coming == nil {
		g.mu.coming = make(map[string]int)
	}
	g.mu.coming[fingerprint]++
}

// roomLocked reports whether one more connection may be opened for w.
func (g *Group) roomLocked(w *waiter) bool {
	l := &g.limits
	return g.mu.open < l.Size || g.mu.open < l.Size+l.Reserve && time.Since(w.since) >= l.Pressed
}

// most is how many connections the limits allow.
func (g *Group) most() int { return g.limits.Size + g.limits.Reserve }

// hurry is how long a brief request waits while others hold all connections.
const hurry = 100 * time.Millisecond

// spare opens a connection for a brief request, one more than the limits of the
// group allow. Those who hold the others may be waiting for it: a client that
// prepares a statement, say, while transactions are open on other connections of
// its own, which it goes on with when that is done. The spare one serves brief
// requests alone, so it never becomes one more that is held.
func (g *Group) spare(w *waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := w.request.Fingerprint
	if w.conn == nil && w.err == nil && g.mu.coming[f] == 0 && g.mu.open <= g.most() && g.takePlacesLocked() {
		g.dialLocked(w.loop, w.request)
		g.comesLocked(f)
	}
}

// keepMin opens connections, as far as the shares allow, until there are as many
// as are to be kept. Nobody waits for them.
func (g *Group) keepMin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.mu.modelLoop != nil && g.mu.open < g.limits.Min && !g.mu.closed && g.mu.line.Len() == 0 {
		if !g.takePlacesLocked() {
			for _, s := range g.shares {
				s.leave(g)
			}
			return
		}
		model := g.mu.model
		g.dialLocked(g.mu.modelLoop, &model)
		g.comesLocked(model.Fingerprint)
	}
}

// dialLocked begins to open a connection, whose place in the shares is taken.
func (g *Group) dialLocked(l *reactor.Loop, r *Request) {
	g.mu.open++
	g.pool.work.Add(1)
	go g.dial(l, r) // owned by the pool: bounded by Options.Connect, Close waits for it
}

// idleLocked finds the last used idle connection with these parameters; -1: none.
func (g *Group) idleLocked(fingerprint string) int {
	for i := len(g.mu.idle) - 1; i >= 0; i-- {
		if g.mu.idle[i].Fingerprint == fingerprint {
			return i
		}
	}
	return -1
}

// freeLocked is idleLocked for those that are nobody's home.
func (g *Group) freeLocked(fingerprint string) int {
	for i := len(g.mu.idle) - 1; i >= 0; i-- {
		if c := g.mu.idle[i].Conn; c.Fingerprint == fingerprint && c.Home() == nil {
			return i
		}
	}
	return -1
}

// post runs f on loop l; Pool.Close waits for it. false, and f never runs, if the
// loop has ended: then its connections are closed, and those who waited have
// been told.
func (g *Group) post(l *reactor.Loop, f func()) bool {
	g.pool.work.Add(1)
	posted := l.Post(func() {
		defer g.pool.work.Done()
		f()
	})
	if !posted {
		g.pool.work.Done()
	}
	return posted
}

// Dial opens a connection that belongs to no group: it serves one session, which
// closes it.
func (p *Pool) Dial(t *reactor.Task, node int, address string, login backend.Login) (*backend.Conn, error) {
	var c *backend.Conn
	var err error
	t.Offload(func() {
		ctx, cancel := context.WithTimeout(p.ctx, p.options.Connect)
		defer cancel()
		c, err = backend.Dial(ctx, node, address, login)
	})
	if err != nil {
		return nil, err
	}
	return c, c.Adopt(t.Loop())
}

// dial opens a connection for the line. l is the loop it is attached to first.
func (g *Group) dial(l *reactor.Loop, r *Request) {
	defer g.pool.work.Done()
	ctx, cancel := context.WithTimeout(g.pool.ctx, g.pool.options.Connect)
	defer cancel()
	c, err := backend.Dial(ctx, g.key.Node, g.address, r.Login)
	if err != nil {
		g.failed(r, err)
		return
	}
	c.Fingerprint = r.Fingerprint
	c.Idle = &watch{group: g, conn: c}
	posted := g.post(l, func() {
		if err := c.Adopt(l); err != nil {
			g.failed(r, err)
			return
		}
		g.opened()
		g.place(c, true)
	})
	if !posted {
		c.Close()
		g.opened()
		g.lost(r.Fingerprint)
	}
}

func (g *Group) opened() {
	g.mu.Lock()
	g.mu.stat.Opened++
	back := g.mu.failing
	g.mu.failing = false
	g.mu.Unlock()
	if back {
		g.pool.options.Log.Info("server takes connections again", g.name())
	}
}

// failed tells of a connection that could not be opened: everybody in line if
// the server is not there, else the first who wanted just this login. The log
// is told when it begins.
func (g *Group) failed(r *Request, err error) {
	all := backend.Unavailable(err)
	g.mu.Lock()
	g.closedLocked()
	g.mu.stat.Failed++
	begins := all && !g.mu.failing && !g.mu.closed
	g.mu.failing = g.mu.failing || begins
	g.arrivedLocked(r.Fingerprint)
	told := g.dismissLocked(err, all, r.Fingerprint)
	g.supplyLocked()
	g.mu.Unlock()
	if begins {
		g.pool.options.Log.Warn("server takes no connections", g.name(), "error", err)
	}
	wake(told)
	g.offer()
}

// dismissLocked ends the wait of everybody in line, or else of the first who
// needs that fingerprint, with an error. They are then to be woken.
func (g *Group) dismissLocked(err error, all bool, fingerprint string) []*waiter {
	var told []*waiter
	for e := g.mu.line.Front(); e != nil && (all || len(told) == 0); {
		w := e.Value.(*waiter)
		e = e.Next()
		if all || w.request.Fingerprint == fingerprint {
			g.leaveLocked(w)
			w.err = err
			told = append(told, w)
		}
	}
	return told
}

func wake(all []*waiter) {
	for _, w := range all {
		w.waker.Wake()
	}
}

// lost says that one of the connections on their way to the line, with these
// parameters, is no more. Another takes its place.
func (g *Group) lost(fingerprint string) {
	g.mu.Lock()
	g.arrivedLocked(fingerprint)
	g.goneLocked()
	g.mu.Unlock()
	g.offer()
}

// arrivedLocked takes one connection off those on their way.
func (g *Group) arrivedLocked(fingerprint string) {
	if g.mu.coming[fingerprint]--; g.mu.coming[fingerprint] == 0 {
		delete(g.mu.coming, fingerprint)
	}
}

// name names the group in a log line.
func (g *Group) name() slog.Attr {
	return slog.Group("pool", "server", g.address, "database", g.key.Database, "user", g.key.User)
}
