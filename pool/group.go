package pool

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/reactor"
)

// Group is the connections of one Key. Its lock is never held over anything
// that blocks, and never together with another.
type Group struct {
	pool    *Pool
	key     Key
	address string

	mu struct {
		sync.Mutex
		idle    []idle    // last used last
		waiters []*waiter // longest waiting first
		open    int       // idle, on loan and being opened: never above Options.Size
		closed  bool
		stat    Stat
	}
}

// idle is a connection at home. It stays attached to the loop that used it
// last, which watches it: a server that speaks unasked has closed it.
type idle struct {
	*backend.Conn
	since time.Time
}

// waiter is a session in the queue. Whoever takes it out of the queue, under
// the lock, sets conn or err and then wakes it.
type waiter struct {
	loop    *reactor.Loop
	waker   reactor.Waker
	request *Request
	coming  bool // a connection is being opened or fetched for it
	conn    *backend.Conn
	err     error
}

// Request says what a session needs.
type Request struct {
	Login       backend.Login
	Fingerprint string        // of Login.Params: equal fingerprints may share connections
	Interrupted func() bool   // asked when the task is woken for something else
	Within      time.Duration // how long to wait, if not Options.Wait
}

// Acquire lends a connection to task t, waiting in line up to Options.Wait.
func (g *Group) Acquire(t *reactor.Task, r *Request) (*backend.Conn, error) {
	if c := g.tryIdle(t.Loop(), r); c != nil {
		return c, nil
	}
	return g.queue(t, r)
}

// tryIdle takes the connection last used by this loop if nobody is in line.
func (g *Group) tryIdle(l *reactor.Loop, r *Request) *backend.Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.mu.waiters) > 0 {
		return nil
	}
	for i := len(g.mu.idle) - 1; i >= 0; i-- {
		c := g.mu.idle[i].Conn
		if c.Net.Loop() != l || c.Fingerprint != r.Fingerprint {
			continue
		}
		g.removeIdleLocked(i)
		if c.Net.Readable() { // the server has closed it, or said something nobody asked for
			g.mu.open--
			g.mu.stat.Destroyed++
			c.Close()
			continue
		}
		c.Net.OnReady(nil)
		g.mu.stat.Lent++
		return c
	}
	return nil
}

func (g *Group) removeIdleLocked(i int) {
	copy(g.mu.idle[i:], g.mu.idle[i+1:])
	g.mu.idle[len(g.mu.idle)-1] = idle{}
	g.mu.idle = g.mu.idle[:len(g.mu.idle)-1]
}

// queue puts the task in line and waits for its turn.
func (g *Group) queue(t *reactor.Task, r *Request) (*backend.Conn, error) {
	start := time.Now()
	w := &waiter{loop: t.Loop(), waker: t.Waker(), request: r}
	g.mu.Lock()
	if g.mu.closed {
		g.mu.Unlock()
		return nil, ErrClosed
	}
	g.mu.waiters = append(g.mu.waiters, w)
	g.provideLocked(w)
	g.mu.Unlock()

	deadline := start.Add(cmp.Or(r.Within, g.pool.options.Wait))
	for {
		cause := t.Wait(deadline)
		c, err, done := g.turn(w, cause, start)
		if !done {
			continue
		}
		if err != nil {
			return nil, err
		}
		if c.Net == nil || c.Net.Loop() != t.Loop() {
			if err := c.Adopt(t.Loop()); err != nil {
				g.gone()
				return nil, err
			}
			c.Idle = &watch{group: g, conn: c}
		}
		return c, nil
	}
}

// turn looks whether w has been served, or has to go.
func (g *Group) turn(w *waiter, cause reactor.Cause, start time.Time) (c *backend.Conn, err error, done bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case w.conn != nil:
		g.mu.stat.Lent++
	case w.err != nil:
	case cause&reactor.Deadline != 0:
		w.err = ErrTimeout
		g.mu.stat.TimedOut++
		g.removeWaiterLocked(w)
	case cause&reactor.Closed != 0:
		w.err = ErrClosed
		g.removeWaiterLocked(w)
	case w.request.Interrupted != nil && w.request.Interrupted():
		w.err = ErrInterrupted
		g.removeWaiterLocked(w)
	default:
		return nil, nil, false
	}
	g.mu.stat.Waited += time.Since(start)
	return w.conn, w.err, true
}

func (g *Group) removeWaiterLocked(w *waiter) {
	for i, x := range g.mu.waiters {
		if x == w {
			g.mu.waiters = append(g.mu.waiters[:i], g.mu.waiters[i+1:]...)
			return
		}
	}
}

// provideLocked sets a connection on its way to w, if the bound allows it: one
// that is idle on another loop, a new one, or a new one in the place of one
// with other startup parameters. Else w waits for one to come back.
func (g *Group) provideLocked(w *waiter) {
	w.coming = true
	for i := len(g.mu.idle) - 1; i >= 0; i-- {
		if c := g.mu.idle[i].Conn; c.Fingerprint == w.request.Fingerprint {
			g.removeIdleLocked(i)
			c.Net.Loop().Post(func() { g.fetch(c) })
			return
		}
	}
	if g.mu.open < g.pool.options.Size {
		g.mu.open++
		g.dialLocked(w)
		return
	}
	if len(g.mu.idle) > 0 {
		c := g.mu.idle[0].Conn
		g.removeIdleLocked(0)
		g.mu.stat.Destroyed++
		c.Net.Loop().Post(c.Close)
		g.dialLocked(w)
		return
	}
	w.coming = false
}

// provideNextLocked uses a place that became free for the first in line who has
// nothing coming.
func (g *Group) provideNextLocked() {
	if g.mu.closed {
		return
	}
	for _, w := range g.mu.waiters {
		if !w.coming {
			g.provideLocked(w)
			return
		}
	}
}

// fetch hands over an idle connection that was taken for a session, usually of
// another loop. It runs on the connection's loop.
func (g *Group) fetch(c *backend.Conn) {
	c.Net.OnReady(nil)
	if c.Net.Readable() {
		g.Destroy(c)
		return
	}
	g.Release(c)
}

// dialLocked opens a connection for w. The opening is not w's: if w leaves, the
// connection goes to the next in line.
func (g *Group) dialLocked(w *waiter) {
	if g.mu.closed {
		g.mu.open--
		return
	}
	g.pool.work.Add(1)
	go g.dial(w.loop, w.request) // owned by the pool: bounded by Options.Connect, Close waits for it
}

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

	g.mu.Lock()
	g.mu.stat.Opened++
	w := g.matchLocked(c.Fingerprint)
	if w != nil {
		w.conn = c
	}
	g.mu.Unlock()
	if w != nil {
		w.waker.Wake()
		return
	}
	l.Post(func() {
		if err := c.Adopt(l); err != nil {
			g.gone()
			return
		}
		c.Idle = &watch{group: g, conn: c}
		g.Release(c)
	})
}

// failed tells of a connection that could not be opened: everybody in line if
// the server is not there, else the first who wanted just this login.
func (g *Group) failed(r *Request, err error) {
	g.mu.Lock()
	g.mu.open--
	g.mu.stat.Failed++
	var told []*waiter
	if backend.Unavailable(err) {
		told, g.mu.waiters = g.mu.waiters, nil
	} else if w := g.matchLocked(r.Fingerprint); w != nil {
		told = []*waiter{w}
	}
	for _, w := range told {
		w.err = err
	}
	g.provideNextLocked()
	g.mu.Unlock()
	for _, w := range told {
		w.waker.Wake()
	}
}

// matchLocked takes the first waiter out of the line that a connection with
// these parameters can serve. What was coming for it, if anything, will then
// come for another one.
func (g *Group) matchLocked(fingerprint string) *waiter {
	for _, w := range g.mu.waiters {
		if w.request.Fingerprint != fingerprint {
			continue
		}
		g.removeWaiterLocked(w)
		if !w.coming {
			g.uncomeLocked(fingerprint)
		}
		return w
	}
	return nil
}

// uncomeLocked takes back the promise of one connection: the one that was
// coming went to a session ahead in the line.
func (g *Group) uncomeLocked(fingerprint string) {
	for _, w := range g.mu.waiters {
		if w.coming && w.request.Fingerprint == fingerprint {
			w.coming = false
			return
		}
	}
}
