package pool

import (
	"errors"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/reactor"
)

// TestIdleLimit: only connections that were unused for long enough are closed,
// and the server has seen the last of them.
func TestIdleLimit(t *testing.T) {
	r := start(t, 2, Options{Limits: Limits{Size: 4, Idle: time.Hour}})
	g, app := r.group(), application()
	for i := range 4 {
		r.on(i, func(task *reactor.Task) { // each with parameters of its own: none is used twice
			g.Release(acquire(t, task, g, request(app+"."+string(rune('a'+i)))))
		})
	}
	now := time.Now()
	g.expire(now.Add(time.Hour - time.Minute))
	if s := r.settled(g); s.Open != 4 {
		t.Errorf("%+v", s)
	}
	g.mu.Lock() // two of them were used before the others
	for i := range 2 {
		g.mu.idle[i].since = now.Add(-2 * time.Minute)
	}
	g.mu.Unlock()
	g.expire(now.Add(time.Hour - time.Minute))
	eventually(t, "two are closed", func() bool { return g.stat().Open == 2 })
	g.expire(now.Add(time.Hour + time.Minute))
	eventually(t, "all are closed", func() bool { return g.stat().Open == 0 })
	eventually(t, "the server knows", func() bool { return onServer(t, app) == 0 })
	if s := r.settled(g); s.Destroyed != 4 {
		t.Errorf("%+v", s)
	}
}

// TestVacate: the idle connections to one database are closed, no others.
func TestVacate(t *testing.T) {
	r := start(t, 1, Options{Limits: Limits{Size: 2}})
	g, app := r.group(), application()
	r.on(0, func(task *reactor.Task) {
		lent := acquire(t, task, g, request(app))
		g.Release(acquire(t, task, g, request(app)))
		r.Pool.Vacate(g.key.Node, "another")
		r.Pool.Vacate(g.key.Node+1, g.key.Database)
		if s := g.stat(); s.Idle != 1 {
			t.Errorf("others were closed too: %+v", s)
		}
		r.Pool.Vacate(g.key.Node, g.key.Database)
		g.Release(lent) // who leaves now is waited for, too
	})
	eventually(t, "the server knows", func() bool { return onServer(t, app) == 0 })
	if s := r.settled(g); s.Idle != 0 || s.Destroyed != 2 {
		t.Errorf("%+v", s)
	}
}

// TestJanitor: the limits are looked after without anybody's doing.
func TestJanitor(t *testing.T) {
	r := start(t, 1, Options{Limits: Limits{Size: 1, Idle: time.Millisecond}})
	g, req := r.group(), request(application())
	r.on(0, func(task *reactor.Task) { g.Release(acquire(t, task, g, req)) })
	eventually(t, "the idle connection is closed", func() bool { return g.stat().Open == 0 })
	r.settled(g)
}

// TestLifetime: an old connection is closed when it comes back, or while it
// rests, and whoever waits gets a new one.
func TestLifetime(t *testing.T) {
	r := start(t, 2, Options{Limits: Limits{Size: 1, Lifetime: time.Hour}})
	g, req := r.group(), request(application())
	ready, free := make(chan struct{}), make(chan struct{})
	old := ""
	holder := r.task(0, func(task *reactor.Task) {
		c := acquire(t, task, g, req)
		old = pid(t, c)
		close(ready)
		task.Offload(func() { <-free })
		c.Born = time.Now().Add(-2 * time.Hour)
		g.Release(c)
	})
	await(t, ready)
	waiter := r.task(1, func(task *reactor.Task) {
		c := acquire(t, task, g, req)
		if c == nil {
			return
		}
		if got := pid(t, c); got == old {
			t.Errorf("process %s is too old", got)
		}
		g.Release(c)
	})
	r.waiting(g, 1)
	close(free)
	await(t, holder)
	await(t, waiter)
	if s := r.settled(g); s.Open != 1 || s.Destroyed != 1 {
		t.Errorf("%+v", s)
	}
	g.expire(time.Now().Add(time.Hour - time.Minute))
	if s := r.settled(g); s.Open != 1 {
		t.Errorf("%+v", s)
	}
	g.expire(time.Now().Add(time.Hour + time.Minute))
	eventually(t, "it is closed", func() bool { return g.stat().Open == 0 })
	r.settled(g)
}

// TestExpiredUnderWaiter: a connection is being closed for its age when somebody
// comes who would have used it.
func TestExpiredUnderWaiter(t *testing.T) {
	r := start(t, 2, Options{Limits: Limits{Size: 1, Idle: time.Hour}})
	g, req := r.group(), request(application())
	for i := range 20 {
		r.on(i, func(task *reactor.Task) { g.Release(acquire(t, task, g, req)) })
		g.expire(time.Now().Add(2 * time.Hour))
		must(t, g.check())
		r.on(i/2, func(task *reactor.Task) { g.Release(acquire(t, task, g, req)) })
	}
	r.settled(g)
}

// TestClose: with sessions in line, connections being opened, at rest and on
// loan, Close tells those who wait, ends what is under way and leaves only the
// loans, which are closed when they come back.
func TestClose(t *testing.T) {
	shut := newShut(t)
	r := start(t, 2, Options{Limits: Limits{Size: 2, Wait: time.Minute}, Connect: time.Minute})
	app := application()
	busy, slow := r.group(), r.Group(Key{Node: 1}, shut)
	resting := r.Group(Key{Node: 2, Database: "postgres", User: "postgres"}, server.Addr())
	r.on(0, func(task *reactor.Task) { resting.Release(acquire(t, task, resting, request(app))) })

	ready, free := make(chan struct{}, 2), make(chan struct{})
	var done []<-chan struct{}
	for i := range 2 {
		done = append(done, r.task(i, func(task *reactor.Task) {
			c := acquire(t, task, busy, request(app))
			ready <- struct{}{}
			task.Offload(func() { <-free })
			if i == 0 {
				busy.Release(c)
			} else {
				busy.Destroy(c)
			}
		}))
		<-ready
	}
	refused := func(g *Group) func(*reactor.Task) {
		return func(task *reactor.Task) {
			if c, err := g.Acquire(task, request(app)); c != nil || !errors.Is(err, ErrClosed) {
				t.Errorf("%v, %v", c, err)
			}
		}
	}
	for i := range 4 {
		done = append(done, r.task(i, refused(busy)), r.task(i, refused(slow)))
	}
	r.waiting(busy, 4)
	r.waiting(slow, 4)
	start := time.Now()
	r.Close()
	if time.Since(start) > 10*time.Second {
		t.Errorf("Close took %s", time.Since(start))
	}
	if s := resting.stat(); s.Open != 0 {
		t.Errorf("Close left %d idle connections", s.Open)
	}
	if s := slow.stat(); s.Open != 0 {
		t.Errorf("Close left %d connections being opened", s.Open)
	}
	must(t, busy.check())
	r.on(0, refused(busy))
	r.on(0, refused(r.Group(Key{Node: 3}, server.Addr())))
	close(free)
	for _, d := range done {
		await(t, d)
	}
	for _, g := range []*Group{busy, slow, resting} {
		if s := r.settled(g); s.Open != 0 {
			t.Errorf("%+v", s)
		}
	}
	eventually(t, "the server knows", func() bool { return onServer(t, app) == 0 })
	r.Close() // once more does no harm
}

// newShut is an address where connections are accepted and nobody answers.
func newShut(t *testing.T) string {
	at := newGate(t)
	t.Cleanup(func() { close(at.decided) }) // before the gate waits for its connections
	return at.Addr().String()
}

// TestEngineClosesFirst: the wrong order loses nothing and blocks nobody.
func TestEngineClosesFirst(t *testing.T) {
	e, err := reactor.New(reactor.Options{Loops: 2})
	must(t, err)
	p := New(Options{Limits: Limits{Size: 2, Wait: time.Minute}, Connect: time.Minute})
	r := &rig{Pool: p, t: t, loops: e.Loops()}
	app := application()
	g, slow := r.group(), r.Group(Key{Node: 1}, newShut(t))
	r.on(0, func(task *reactor.Task) { g.Release(acquire(t, task, g, request(app))) })
	waiter := r.task(1, func(task *reactor.Task) {
		if _, err := slow.Acquire(task, request(app)); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	r.waiting(slow, 1)
	e.Close()
	await(t, waiter)
	p.Close()
	must(t, g.check())
	eventually(t, "the server knows", func() bool { return onServer(t, app) == 0 })
}

// TestOpeningAfterEngine: a connection that is opened when there is no loop any
// more is closed.
func TestOpeningAfterEngine(t *testing.T) {
	e, err := reactor.New(reactor.Options{})
	must(t, err)
	p := New(Options{Limits: Limits{Size: 1, Wait: time.Minute}, Connect: time.Minute})
	defer p.Close()
	r := &rig{Pool: p, t: t, loops: e.Loops()}
	at := newGate(t)
	g, app := r.at(at.Addr().String()), application()
	waiter := r.task(0, func(task *reactor.Task) {
		if _, err := g.Acquire(task, request(app)); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	r.waiting(g, 1)
	e.Close()
	await(t, waiter)
	at.carry.Store(true)
	close(at.decided)
	eventually(t, "the connection is dropped", func() bool { return g.stat().Open == 0 })
	eventually(t, "the server knows", func() bool { return onServer(t, app) == 0 })
	must(t, g.check())
}
