package pool

import (
	"testing"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/reactor"
)

// TestSpare: who gives a connection back after one answer gets a spare one while
// others hold all that there may be, whatever startup parameters are needed, and
// nobody else in line gets that one.
func TestSpare(t *testing.T) {
	r := start(t, 2, Options{Limits: Limits{Size: 1}})
	g, app := r.group(), application()
	held := make(chan struct{})
	var other *backend.Conn
	holder := r.task(0, func(task *reactor.Task) {
		c := acquire(t, task, g, request(app))
		task.Offload(func() { <-held })
		g.Release(c)
	})
	eventually(t, "it is held", func() bool { return g.stat().Lent == 1 })
	long := r.task(0, func(task *reactor.Task) {
		other = acquire(t, task, g, request(app))
		g.Release(other)
	})
	r.waiting(g, 1)
	for i, name := range []string{app, app, app + ".other", app} {
		r.on(i, func(task *reactor.Task) {
			brief := request(name)
			brief.Brief = true
			c := acquire(t, task, g, brief)
			if s := g.stat(); s.Open != 2 || s.Waiting != 1 {
				t.Errorf("%+v", s)
			}
			g.Release(c)
			must(t, g.check())
		})
	}
	close(held)
	await(t, holder)
	await(t, long)
	if s := r.settled(g); s.Open != 1 || s.Opened != 5 {
		t.Errorf("%+v", s)
	}
}

// TestSpareIsShared: many who are brief, of several kinds, pass through one spare
// connection, and there is never a second.
func TestSpareIsShared(t *testing.T) {
	r := start(t, 2, Options{Limits: Limits{Size: 2}})
	g, app := r.group(), application()
	held := make(chan struct{})
	var done []<-chan struct{}
	for i := range 2 {
		done = append(done, r.task(i, func(task *reactor.Task) {
			c := acquire(t, task, g, request(app))
			task.Offload(func() { <-held })
			g.Release(c)
		}))
	}
	eventually(t, "both are held", func() bool { return g.stat().Lent == 2 })
	var brief []<-chan struct{}
	for i := range 30 {
		brief = append(brief, r.task(i, func(task *reactor.Task) {
			req := request(app + [...]string{"", ".b", ".c"}[i%3])
			req.Brief = true
			c := acquire(t, task, g, req)
			pid(t, c)
			must(t, g.check())
			g.Release(c)
		}))
	}
	for _, b := range brief {
		await(t, b)
	}
	close(held)
	for _, d := range done {
		await(t, d)
	}
	if s := r.settled(g); s.Open != 2 {
		t.Errorf("%+v", s)
	}
}
