package pool

import (
	"cmp"
	"container/list"
	"sync"
	"time"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/reactor"
)

// Group is the connections of one Key. Its lock is never held over anything
// that blocks, and never together with another group's.
//
// Sessions that find no idle connection stand in line. A connection on its way
// to the line, because it is being opened or fetched from another loop, is not
// meant for one of them: the first that it can serve gets it when it arrives.
// So somebody who leaves the line loses nothing, and nobody is overtaken, but for
// a moment by those who need other startup parameters.
type Group struct {
	pool    *Pool
	key     Key
	address string
	limits  Limits
	shares  []*share // of its database and of its user, where these are bounded

	mu struct {
		sync.Mutex
		idle []idle    // last used last
		line list.List // of *waiter, longest waiting first

		// coming counts the connections on their way to the line, by fingerprint:
		// as many of the first who need that one need nothing more. The others
		// wait for what comes back, all places being taken.
		coming map[string]int

		exchanged time.Time // when a connection that others waited for was last given up

		vacant time.Time // until when nothing is to rest here

		// model is the last request and its loop, to open connections before
		// they are needed. Only with Limits.Min.
		model     Request
		modelLoop *reactor.Loop

		open    int  // idle, on loan, on their way and being closed: never above Size and Reserve, but for the spare one
		failing bool // the last one could not be opened because the server was not there
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

// waiter is a session in line. Whoever takes it out of the line, under the
// lock, sets conn or err and then wakes it.
type waiter struct {
	loop    *reactor.Loop
	waker   reactor.Waker
	request *Request
	since   time.Time
	place   *list.Element // in the line
	conn    *backend.Conn
	err     error
}

// Request says what a session needs.
type Request struct {
	Login       backend.Login
	Fingerprint string        // of Login.Params: equal fingerprints may share connections
	Interrupted func() bool   // asked when the task is woken for something else
	Within      time.Duration // how long to wait, if not Limits.Wait
	Home        *backend.Home // whose connections are preferred, in HomeIn
	HomeIn      *Group
	Fresh       bool // one that is nobody's home is preferred, even if it has to be opened
	Brief       bool // it comes back after one answer, without the client's doing
}

// Acquire lends a connection to task t, waiting in line up to Limits.Wait. The
// borrower gives it back with Release or Destroy.
func (g *Group) Acquire(t *reactor.Task, r *Request) (*backend.Conn, error) {
	c := g.tryIdle(t.Loop(), r)
	if c == nil {
		var err error
		if c, err = g.wait(t, r); err != nil {
			return nil, err
		}
	}
	c.Lent = true
	return c, nil
}

// tryIdle takes a connection of this loop if nobody is in line.
func (g *Group) tryIdle(l *reactor.Loop, r *Request) *backend.Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.line.Len() > 0 {
		return nil
	}
	for i := g.choiceLocked(l, r); i >= 0; i = g.choiceLocked(l, r) {
		c := g.removeIdleLocked(i)
		c.Net.OnReady(nil)
		if quiet(c) {
			g.mu.stat.Lent++
			return c
		}
		c.Close()
		g.closedLocked()
		g.mu.stat.Destroyed++
	}
	return nil
}

// choiceLocked finds the idle connection of this loop that suits best: one at
// which the borrower is at home, else the last used that is nobody's home, else
// the last used; -1: none.
func (g *Group) choiceLocked(l *reactor.Loop, r *Request) int {
	free, any := -1, -1
	for i := len(g.mu.idle) - 1; i >= 0; i-- {
		c := g.mu.idle[i].Conn
		if c.Net.Loop() != l || c.Fingerprint != r.Fingerprint {
			continue
		}
		switch home := c.Home(); {
		case home == nil && r.HomeIn != g:
			return i
		case home == nil && free < 0:
			free = i
		case home != nil && home == r.Home:
			return i
		case any < 0:
			any = i
		}
	}
	if free < 0 && !r.Fresh {
		return any
	}
	return free
}

// Room reports whether somebody with these startup parameters can have a
// connection that is nobody's home without waiting for others.
func (g *Group) Room(fingerprint string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.open < g.limits.Size && len(g.shares) == 0 || g.freeLocked(fingerprint) >= 0
}

// wait stands in line until it is t's turn.
func (g *Group) wait(t *reactor.Task, r *Request) (*backend.Conn, error) {
	w := &waiter{loop: t.Loop(), waker: t.Waker(), request: r, since: time.Now()}
	if !g.enter(w) {
		return nil, ErrClosed
	}
	g.reclaim()
	deadline := w.since.Add(cmp.Or(r.Within, g.limits.Wait))
	next := g.nextLook(w, w.since, deadline)
	for {
		cause := t.Wait(next)
		if cause&reactor.Deadline != 0 && next != deadline {
			cause &^= reactor.Deadline
			if r.Brief {
				g.spare(w)
			}
			g.supply() // from the reserve
			next = g.nextLook(w, time.Now(), deadline)
		}
		interrupted := r.Interrupted != nil && r.Interrupted()
		c, err := g.turn(w, cause, interrupted)
		if err != nil {
			g.offer()
			return nil, err
		}
		if c == nil {
			continue
		}
		if c.Net.Loop() != t.Loop() {
			if err := c.Adopt(t.Loop()); err != nil {
				g.gone()
				return nil, err
			}
		}
		return c, nil
	}
}

// nextLook is when w looks again what it can be given.
func (g *Group) nextLook(w *waiter, now, deadline time.Time) time.Time {
	next := deadline
	if pressed := w.since.Add(g.limits.Pressed); g.limits.Reserve > 0 && pressed.Before(next) && now.Before(pressed) {
		next = pressed
	}
	if soon := now.Add(hurry); w.request.Brief && soon.Before(next) {
		next = soon
	}
	return next
}

// enter puts w in line; false if the pool is closed.
func (g *Group) enter(w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.closed {
		return false
	}
	w.place = g.mu.line.PushBack(w)
	if g.limits.Min > 0 {
		g.mu.model, g.mu.modelLoop = Request{Login: w.request.Login, Fingerprint: w.request.Fingerprint}, w.loop
	}
	g.supplyLocked()
	return true
}

// turn looks whether w has been served, or has to go; neither: it waits on. What
// was handed over in the same moment is not refused.
func (g *Group) turn(w *waiter, cause reactor.Cause, interrupted bool) (*backend.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case w.conn != nil:
		g.mu.stat.Lent++
	case w.err != nil:
	case cause&reactor.Deadline != 0:
		g.mu.stat.TimedOut++
		w.err = ErrTimeout
		g.leaveLocked(w)
	case cause&reactor.Closed != 0:
		w.err = ErrClosed
		g.leaveLocked(w)
	case interrupted:
		w.err = ErrInterrupted
		g.leaveLocked(w)
	default:
		return nil, nil
	}
	g.mu.stat.Waited += time.Since(w.since)
	return w.conn, w.err
}

func (g *Group) leaveLocked(w *waiter) {
	g.mu.line.Remove(w.place)
	if g.mu.line.Len() == 0 {
		for _, s := range g.shares {
			s.leave(g)
		}
	}
}

func (g *Group) removeIdleLocked(i int) *backend.Conn {
	c := g.mu.idle[i].Conn
	copy(g.mu.idle[i:], g.mu.idle[i+1:])
	g.mu.idle[len(g.mu.idle)-1] = idle{}
	g.mu.idle = g.mu.idle[:len(g.mu.idle)-1]
	return c
}

// quiet reports whether c is open and the server has said nothing since its last
// answer. If it has, it has closed the connection, or said something that nobody
// asked for; what it said is lost. It runs on the connection's loop.
func quiet(c *backend.Conn) bool {
	if !c.Net.Readable() {
		_, err := c.Net.TryRead(nil)
		return err == nil
	}
	// A read that filled its buffer to the last byte leaves it looking readable.
	var b [1]byte
	_, err := c.Net.TryRead(b[:])
	return err == reactor.ErrAgain
}

func (g *Group) stat() Stat {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.mu.stat
	s.Key, s.Address = g.key, g.address
	s.Open, s.Idle, s.Waiting = g.mu.open, len(g.mu.idle), g.mu.line.Len()
	return s
}
