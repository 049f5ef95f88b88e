package pool

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/reactor"
)

// TestReserve: connections beyond the size are opened for who has waited for
// long, and closed when they rest.
func TestReserve(t *testing.T) {
	r := start(t, 2, Options{Limits: Limits{Size: 1, Reserve: 1, Pressed: 30 * time.Millisecond}})
	g, req := r.group(), request(application())
	free := make(chan struct{})
	var done []<-chan struct{}
	for i := range 2 {
		ready := make(chan struct{})
		done = append(done, r.task(i, func(task *reactor.Task) {
			c := acquire(t, task, g, req)
			close(ready)
			task.Offload(func() { <-free })
			g.Release(c)
		}))
		await(t, ready)
	}
	if s := g.stat(); s.Open != 2 {
		t.Errorf("%+v", s)
	}
	done = append(done, r.task(0, func(task *reactor.Task) { g.Release(acquire(t, task, g, req)) }))
	r.waiting(g, 1)
	g.supply()
	if s := g.stat(); s.Open != 2 || s.Waiting != 1 {
		t.Errorf("the reserve is used up: %+v", s)
	}
	close(free)
	for _, d := range done {
		await(t, d)
	}
	eventually(t, "the reserve is closed", func() bool { return g.stat().Open == 1 })
	r.settled(g)
}

// TestMin: as many connections as are to be kept are there once there has been
// one, and again when they were lost.
func TestMin(t *testing.T) {
	r := start(t, 1, Options{Limits: Limits{Size: 4, Min: 3, Idle: time.Millisecond}})
	g, app := r.group(), application()
	g.keepMin()
	if s := r.settled(g); s.Open != 0 {
		t.Errorf("before anybody came: %+v", s)
	}
	r.on(0, func(task *reactor.Task) { g.Release(acquire(t, task, g, request(app))) })
	there := func() bool { return g.stat().Idle == 3 && onServer(t, app) == 3 }
	eventually(t, "three connections", there)
	g.expire(time.Now().Add(time.Hour))
	if s := r.settled(g); s.Open != 3 {
		t.Errorf("after a while: %+v", s)
	}
	sql(t, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = '"+app+"'")
	eventually(t, "three others", func() bool { return g.stat().Opened >= 6 && there() })
}

// crowd is sessions of one user that use connections all the time.
type crowd struct {
	group *Group
	uses  atomic.Int64
	done  []<-chan struct{}
}

// crowd starts n sessions of a user which it makes.
func (r *rig) crowd(n int, user string, stop *atomic.Bool) *crowd {
	r.t.Helper()
	sql(r.t, "DROP ROLE IF EXISTS "+user+"; CREATE ROLE "+user+" LOGIN")
	c := &crowd{group: r.Group(Key{Database: "postgres", User: user}, server.Addr())}
	req := &Request{Login: backend.Login{User: user, Database: "postgres"}, Fingerprint: user}
	for i := range n {
		c.done = append(c.done, r.task(i, func(task *reactor.Task) {
			for !stop.Load() {
				x, err := c.group.Acquire(task, req)
				if err != nil {
					r.t.Errorf("%s: %v", user, err)
					return
				}
				if _, err := ask(x, "SELECT 1"); err != nil {
					r.t.Error(err)
				}
				c.uses.Add(1)
				c.group.Release(x)
			}
		}))
	}
	return c
}

// TestDatabaseBound: three users who are busy all the time share two connections
// to a database, and none of them starves.
func TestDatabaseBound(t *testing.T) {
	r := start(t, 2, Options{Limits: Limits{Size: 5, OfDatabase: 2}})
	var stop atomic.Bool
	var crowds []*crowd
	for i := range 3 {
		crowds = append(crowds, r.crowd(4, fmt.Sprintf("bound%d", i), &stop))
	}
	eventually(t, "everybody has had many turns", func() bool {
		open := 0
		for _, c := range crowds { // all at once: a connection of one is given up for another
			c.group.mu.Lock()
			open += c.group.mu.open
		}
		for _, c := range crowds {
			c.group.mu.Unlock()
		}
		if open > 2 {
			t.Errorf("%d connections", open)
			return true
		}
		for _, c := range crowds {
			if c.uses.Load() < 100 {
				return false
			}
		}
		return true
	})
	stop.Store(true)
	for _, c := range crowds {
		for _, d := range c.done {
			await(t, d)
		}
		r.settled(c.group)
	}
}

// TestUserBound: the idle connection of a user to one database makes room for
// that user's to another, and a connection on loan does not.
func TestUserBound(t *testing.T) {
	r := start(t, 1, Options{Limits: Limits{Size: 5, OfUser: 1, Wait: 2 * time.Second}})
	one := r.group()
	two := r.Group(Key{Database: "template1", User: "postgres"}, server.Addr())
	other := &Request{Login: backend.Login{User: "postgres", Database: "template1"}}
	r.on(0, func(task *reactor.Task) { one.Release(acquire(t, task, one, request(application()))) })
	r.on(0, func(task *reactor.Task) {
		c := acquire(t, task, two, other)
		if _, err := one.Acquire(task, request(application())); !errors.Is(err, ErrTimeout) {
			t.Errorf("a second connection: %v", err)
		}
		two.Release(c)
	})
	if s := r.settled(two); s.Open != 1 || one.stat().Open != 0 {
		t.Errorf("%+v", s)
	}
	r.on(0, func(task *reactor.Task) { one.Release(acquire(t, task, one, request(application()))) })
	r.settled(one)
}

// TestShareIsForgotten: whoever tries one name after another leaves nothing behind.
func TestShareIsForgotten(t *testing.T) {
	p := start(t, 1, Options{Limits: Limits{Size: 1, OfDatabase: 1, OfUser: 1}})
	for i := range 100 {
		p.Group(Key{Database: fmt.Sprint(i), User: fmt.Sprint(i)}, "127.0.0.1:1")
	}
	eventually(t, "they are forgotten", func() bool {
		runtime.GC()
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.mu.shares) == 0 && len(p.mu.groups) == 0
	})
}
