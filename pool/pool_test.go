package pool

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/reactor"
)

// TestReuse: a connection that came back is lent again, and is the one the loop
// used last.
func TestReuse(t *testing.T) {
	r := start(t, 1, Options{Limits: Limits{Size: 3}})
	g, req := r.group(), request(application())
	r.on(0, func(task *reactor.Task) {
		a, b := acquire(t, task, g, req), acquire(t, task, g, req)
		if a == b {
			t.Error("one connection was lent twice")
		}
		g.Release(a)
		g.Release(b)
		if c := acquire(t, task, g, req); c != b {
			t.Error("not the connection used last")
		}
		g.Release(b)
	})
	if s := r.settled(g); s.Open != 2 || s.Opened != 2 || s.Lent != 3 {
		t.Errorf("%+v", s)
	}
}

// TestTwiceBack: a connection that comes back twice would be lent to two.
func TestTwiceBack(t *testing.T) {
	r := start(t, 1, Options{Limits: Limits{Size: 1}})
	g, req := r.group(), request(application())
	panics := func(f func(*backend.Conn), c *backend.Conn) (did bool) {
		defer func() { did = recover() != nil }()
		f(c)
		return false
	}
	r.on(0, func(task *reactor.Task) {
		c := acquire(t, task, g, req)
		g.Release(c)
		if !panics(g.Release, c) || !panics(g.Destroy, c) {
			t.Error("a connection came back twice")
		}
	})
	r.settled(g)
}

// TestBound holds as many sessions as it can on two loops and looks at the
// server: there are never more connections than allowed. None is closed here, so
// the server's count is exact.
func TestBound(t *testing.T) {
	for _, loops := range []int{1, 2} {
		t.Run(strconv.Itoa(loops), func(t *testing.T) {
			const size = 3
			r := start(t, loops, Options{Limits: Limits{Size: size}})
			g, app := r.group(), application()
			var done []<-chan struct{}
			var served atomic.Int64
			end := time.Now().Add(1500 * time.Millisecond)
			for i := range 24 {
				done = append(done, r.task(i, func(task *reactor.Task) {
					req := request(app)
					for time.Now().Before(end) {
						c := acquire(t, task, g, req)
						if c == nil {
							return
						}
						if got, err := ask(c, "SHOW application_name"); err != nil || got != app {
							t.Errorf("%q, %v", got, err)
						}
						served.Add(1)
						g.Release(c)
					}
				}))
			}
			most := 0
			for time.Now().Before(end) {
				must(t, g.check())
				most = max(most, onServer(t, app))
			}
			for _, d := range done {
				await(t, d)
			}
			s := r.settled(g)
			if most > size || s.Open > size || s.Lent != uint64(served.Load()) {
				t.Errorf("%d on the server, %d served, %+v", most, served.Load(), s)
			}
			if s.Lent < 100 || most == 0 {
				t.Errorf("hardly anything happened: %+v", s)
			}
		})
	}
}

// TestLineInOrder: whoever came first is served first, across loops, and a
// newcomer does not overtake the line. That holds among those who need the same
// startup parameters.
func TestLineInOrder(t *testing.T) {
	for _, fingerprints := range []int{1, 3} {
		t.Run(strconv.Itoa(fingerprints), func(t *testing.T) {
			const sessions = 18
			r := start(t, 2, Options{Limits: Limits{Size: 1}})
			g, app := r.group(), application()
			var order []int // one connection: whoever has it may write
			var done []<-chan struct{}
			ready, free := make(chan struct{}), make(chan struct{})
			done = append(done, r.task(0, func(task *reactor.Task) {
				c := acquire(t, task, g, request(app+".0"))
				close(ready)
				task.Offload(func() { <-free })
				g.Release(c)
			}))
			await(t, ready)
			for i := range sessions {
				done = append(done, r.task(i/2, func(task *reactor.Task) {
					req := request(fmt.Sprintf("%s.%d", app, i%fingerprints))
					c := acquire(t, task, g, req)
					if c == nil {
						return
					}
					order = append(order, i)
					if got, err := ask(c, "SHOW application_name"); err != nil || got != req.Fingerprint {
						t.Errorf("%q, %v", got, err)
					}
					g.Release(c)
				}))
				r.waiting(g, i+1)
				must(t, g.check())
			}
			close(free)
			for _, d := range done {
				await(t, d)
			}
			for kind := range fingerprints {
				of := slices.DeleteFunc(slices.Clone(order), func(i int) bool { return i%fingerprints != kind })
				if !slices.IsSorted(of) || len(of) != sessions/fingerprints {
					t.Errorf("served in the order %v", order)
				}
			}
			r.settled(g)
		})
	}
}

// TestWaitLimit: who waits too long is told so, and has taken nothing away.
func TestWaitLimit(t *testing.T) {
	r := start(t, 2, Options{Limits: Limits{Size: 1, Wait: 50 * time.Millisecond}})
	g, req := r.group(), request(application())
	ready, free := make(chan struct{}), make(chan struct{})
	holder := r.task(0, func(task *reactor.Task) {
		var c *backend.Conn
		eventually(t, "a connection within 50 ms", func() bool {
			c, _ = g.Acquire(task, req)
			return c != nil
		})
		close(ready)
		task.Offload(func() { <-free })
		g.Release(c)
	})
	await(t, ready)
	before := g.stat().TimedOut
	for i := range 2 {
		r.on(i, func(task *reactor.Task) {
			start := time.Now()
			c, err := g.Acquire(task, req)
			if c != nil || !errors.Is(err, ErrTimeout) || time.Since(start) < 50*time.Millisecond {
				t.Errorf("%v, %v after %s", c, err, time.Since(start))
			}
		})
	}
	close(free)
	await(t, holder)
	if s := r.settled(g); s.TimedOut != before+2 || s.Waited < 100*time.Millisecond {
		t.Errorf("%+v", s)
	}
}

// TestInterrupted: a waiting session is told of what it must see to; a wake-up
// for nothing leaves it in line.
func TestInterrupted(t *testing.T) {
	r := start(t, 1, Options{Limits: Limits{Size: 1}})
	g, app := r.group(), application()
	ready, free := make(chan reactor.Waker, 1), make(chan struct{})
	holder := r.task(0, func(task *reactor.Task) {
		c := acquire(t, task, g, request(app))
		ready <- reactor.Waker{}
		task.Offload(func() { <-free })
		g.Release(c)
	})
	<-ready
	var stop atomic.Bool
	waiter := r.task(0, func(task *reactor.Task) {
		req := request(app)
		req.Interrupted = stop.Load
		ready <- task.Waker()
		if c, err := g.Acquire(task, req); c != nil || !errors.Is(err, ErrInterrupted) {
			t.Errorf("%v, %v", c, err)
		}
	})
	waker := <-ready
	r.waiting(g, 1)
	for range 10 {
		waker.Wake()
		time.Sleep(time.Millisecond)
	}
	r.waiting(g, 1)
	stop.Store(true)
	waker.Wake()
	await(t, waiter)
	r.waiting(g, 0)
	close(free)
	await(t, holder)
	r.settled(g)
}

// TestLastMoment: waiting ends just as connections are handed over. None is lost.
func TestLastMoment(t *testing.T) {
	const wait = 2 * time.Millisecond
	r := start(t, 2, Options{Limits: Limits{Size: 2, Wait: wait}})
	g, app := r.group(), application()
	var done []<-chan struct{}
	var served, late atomic.Int64
	end := time.Now().Add(3 * time.Second)
	for i := range 10 {
		done = append(done, r.task(i, func(task *reactor.Task) {
			req := request(app)
			for n := 0; time.Now().Before(end); n++ {
				c, err := g.Acquire(task, req)
				if err != nil {
					if !errors.Is(err, ErrTimeout) {
						t.Error(err)
						return
					}
					late.Add(1)
					continue
				}
				served.Add(1)
				task.Sleep(wait - 200*time.Microsecond + time.Duration(n*7%40)*10*time.Microsecond)
				g.Release(c)
			}
		}))
	}
	for time.Now().Before(end) {
		must(t, g.check())
		time.Sleep(100 * time.Microsecond)
	}
	for _, d := range done {
		await(t, d)
	}
	s := r.settled(g)
	if s.Lent != uint64(served.Load()) || s.TimedOut != uint64(late.Load()) || s.Destroyed != 0 {
		t.Errorf("%d served and %d late, %+v", served.Load(), late.Load(), s)
	}
	if served.Load() < 50 || late.Load() < 50 {
		t.Errorf("only %d served and %d late: nothing was tried", served.Load(), late.Load())
	}
}

// TestMoves: one connection goes from loop to loop and back.
func TestMoves(t *testing.T) {
	r := start(t, 2, Options{Limits: Limits{Size: 1}})
	g, req := r.group(), request(application())
	process := ""
	use := func(task *reactor.Task) {
		c := acquire(t, task, g, req)
		if c == nil {
			return
		}
		got := pid(t, c)
		if process == "" {
			process = got
		}
		if got != process || c.Net.Loop() != task.Loop() {
			t.Errorf("process %s, before %s", got, process)
		}
		g.Release(c)
	}
	for i := range 20 { // at rest
		r.on(i, use)
	}
	var done []<-chan struct{}
	for i := range 2 { // handed on
		done = append(done, r.task(i, func(task *reactor.Task) {
			for range 200 {
				use(task)
			}
		}))
	}
	for _, d := range done {
		await(t, d)
	}
	if s := r.settled(g); s.Opened != 1 || s.Lent != 420 {
		t.Errorf("%+v", s)
	}
}

// TestDestroyMakesRoom: the place of a connection that is dropped goes to the
// line.
func TestDestroyMakesRoom(t *testing.T) {
	r := start(t, 2, Options{Limits: Limits{Size: 1}})
	g, req := r.group(), request(application())
	ready, free := make(chan struct{}), make(chan struct{})
	first := ""
	holder := r.task(0, func(task *reactor.Task) {
		c := acquire(t, task, g, req)
		first = pid(t, c)
		close(ready)
		task.Offload(func() { <-free })
		g.Destroy(c)
	})
	await(t, ready)
	second := ""
	waiter := r.task(1, func(task *reactor.Task) {
		c := acquire(t, task, g, req)
		second = pid(t, c)
		g.Release(c)
	})
	r.waiting(g, 1)
	close(free)
	await(t, holder)
	await(t, waiter)
	if first == second {
		t.Error("the connection was lent on")
	}
	if s := r.settled(g); s.Opened != 2 || s.Destroyed != 1 {
		t.Errorf("%+v", s)
	}
}

// TestParametersTakeTurns: at the bound, sessions with other startup parameters
// get their share, whether many need them or one: nobody waits long, and logins
// do not eat up the time.
func TestParametersTakeTurns(t *testing.T) {
	for name, sessions := range map[string][]int{"even": {4, 4, 4}, "minority": {11, 1}} { // by their parameters
		t.Run(name, func(t *testing.T) {
			r := start(t, 2, Options{Limits: Limits{Size: 2}})
			g, app := r.group(), application()
			served := make([]atomic.Int64, len(sessions))
			var longest atomic.Int64
			var done []<-chan struct{}
			end := time.Now().Add(3 * time.Second)
			for kind, n := range sessions {
				for i := range n {
					done = append(done, r.task(i, func(task *reactor.Task) {
						req := request(fmt.Sprintf("%s.%d", app, kind))
						for time.Now().Before(end) {
							before := time.Now()
							c := acquire(t, task, g, req)
							if c == nil {
								return
							}
							if c.Fingerprint != req.Fingerprint {
								t.Errorf("%s got a connection for %s", req.Fingerprint, c.Fingerprint)
							}
							for waited := int64(time.Since(before)); ; {
								if was := longest.Load(); was >= waited || longest.CompareAndSwap(was, waited) {
									break
								}
							}
							task.Sleep(200 * time.Microsecond)
							served[kind].Add(1)
							g.Release(c)
						}
					}))
				}
			}
			for time.Now().Before(end) {
				must(t, g.check())
				time.Sleep(time.Millisecond)
			}
			for _, d := range done {
				await(t, d)
			}
			s := r.settled(g)
			for kind := range served {
				if n := served[kind].Load(); n < 5 {
					t.Errorf("parameters %d were served %d times of %d", kind, n, s.Lent)
				}
			}
			if longest := time.Duration(longest.Load()); longest > 2*time.Second || s.Opened > s.Lent/2 {
				t.Errorf("somebody waited %s, %+v", longest, s)
			}
			t.Logf("longest wait %s, %+v", time.Duration(longest.Load()), s)
			eventually(t, "the server has as many processes as the pool has connections", func() bool { return onServer(t, app) == g.stat().Open })
		})
	}
}

// TestForgottenGroups: groups that nobody holds are forgotten, those with a
// connection are not.
func TestForgottenGroups(t *testing.T) {
	r := start(t, 1, Options{Limits: Limits{Size: 1}})
	req := request(application())
	process := ""
	r.on(0, func(task *reactor.Task) {
		c := acquire(t, task, r.group(), req)
		process = pid(t, c)
		r.group().Release(c)
	})
	for i := range 1000 {
		r.Group(Key{Database: strconv.Itoa(i)}, server.Addr())
	}
	eventually(t, "one group is left", func() bool {
		runtime.GC()
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.mu.groups) == 1
	})
	r.on(0, func(task *reactor.Task) {
		c := acquire(t, task, r.group(), req)
		if got := pid(t, c); got != process {
			t.Errorf("process %s, before %s", got, process)
		}
		r.group().Release(c)
	})
	r.settled(r.group())
	if n := len(r.Groups()); n != 1 || len(r.Stat()) != 1 {
		t.Errorf("%d groups, %+v", n, r.Stat())
	}
}
