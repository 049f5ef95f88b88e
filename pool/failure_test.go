package pool

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/wire"
)

// lines collects log lines.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// gate stands in front of the shared server. Connections are kept waiting until
// decided is closed; then, and if they come later, they are carried to the server
// or dropped.
type gate struct {
	net.Listener
	carry   atomic.Bool
	decided chan struct{}
	work    sync.WaitGroup
}

// newGate makes one that is taken down with the test, after the pools that were
// started later.
func newGate(t *testing.T) *gate {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	g := &gate{Listener: ln, decided: make(chan struct{})}
	g.work.Go(func() { // ends when the listener is closed
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			g.work.Go(func() { g.pass(c) }) // ends with the connection
		}
	})
	t.Cleanup(func() {
		ln.Close()
		g.work.Wait()
	})
	return g
}

func (g *gate) pass(c net.Conn) {
	defer c.Close()
	<-g.decided
	if !g.carry.Load() {
		return
	}
	to, err := net.Dial("tcp", server.Addr())
	if err != nil {
		return
	}
	defer to.Close()
	g.work.Go(func() {
		defer c.Close()
		defer to.Close()
		_, _ = to.(*net.TCPConn).WriteTo(c)
	})
	_, _ = c.(*net.TCPConn).WriteTo(to)
}

// TestRefusedServer: that the server is not there concerns everybody in line,
// and the log is told once.
func TestRefusedServer(t *testing.T) {
	log, at := &lines{}, newGate(t)
	r := start(t, 2, Options{Limits: Limits{Size: 2}, Log: slog.New(slog.NewTextHandler(log, nil))})
	g, req := r.at(at.Addr().String()), request(application())
	var done []<-chan struct{}
	var told atomic.Int64
	const sessions = 6
	for i := range sessions {
		done = append(done, r.task(i, func(task *reactor.Task) {
			c, err := g.Acquire(task, req)
			if c != nil || err == nil || !backend.Unavailable(err) || errors.Is(err, ErrTimeout) {
				t.Errorf("%v, %v", c, err)
			}
			told.Add(1)
		}))
	}
	r.waiting(g, sessions)
	must(t, g.check())
	if told.Load() != 0 {
		t.Error("somebody was told before anything was known")
	}
	close(at.decided)
	for _, d := range done {
		await(t, d)
	}
	if s := r.settled(g); s.Open != 0 || s.Failed != 2 || s.TimedOut != 0 {
		t.Errorf("%+v", s)
	}
	r.on(0, func(task *reactor.Task) { // the gate drops at once now
		if _, err := g.Acquire(task, req); err == nil {
			t.Error("there is a server")
		}
	})
	at.carry.Store(true)
	r.on(0, func(task *reactor.Task) { g.Release(acquire(t, task, g, req)) })
	eventually(t, "two lines in the log", func() bool { return log.count("\n") >= 2 })
	if log.count("takes no connections") != 1 || log.count("takes connections again") != 1 || log.count(at.Addr().String()) < 2 {
		t.Errorf("the log:\n%s", log.text.String())
	}
	r.settled(g)
}

// TestRefusedLogin: that a server does not want these startup parameters
// concerns those who gave them.
func TestRefusedLogin(t *testing.T) {
	r := start(t, 2, Options{Limits: Limits{Size: 1}})
	g, app := r.group(), application()
	bad := request(app)
	bad.Fingerprint = app + ".bad"
	bad.Login.Params = append(bad.Login.Params, wire.Param{Name: "work_mem", Value: "much"})
	ready, free := make(chan struct{}), make(chan struct{})
	holder := r.task(0, func(task *reactor.Task) {
		c := acquire(t, task, g, request(app))
		close(ready)
		task.Offload(func() { <-free })
		g.Release(c)
	})
	await(t, ready)
	var done []<-chan struct{}
	for i := range 6 {
		done = append(done, r.task(i, func(task *reactor.Task) {
			if i%2 == 0 {
				c, err := g.Acquire(task, bad)
				var pg *pgconn.PgError
				if c != nil || !errors.As(err, &pg) || pg.Code != "22023" {
					t.Errorf("%v, %v", c, err)
				}
				return
			}
			if c := acquire(t, task, g, request(app)); c != nil {
				g.Release(c)
			}
		}))
		r.waiting(g, i+1)
	}
	close(free)
	await(t, holder)
	for _, d := range done {
		await(t, d)
	}
	if s := r.settled(g); s.Failed != 3 {
		t.Errorf("%+v", s)
	}
}

// TestFailureFindsNobody: the session an opening was for has left when it fails.
// Nobody else is told, and whoever came meanwhile is served.
func TestFailureFindsNobody(t *testing.T) {
	at := newGate(t)
	r := start(t, 1, Options{Limits: Limits{Size: 1, Wait: 200 * time.Millisecond}})
	g, app := r.at(at.Addr().String()), application()
	r.on(0, func(task *reactor.Task) {
		if _, err := g.Acquire(task, request(app)); !errors.Is(err, ErrTimeout) {
			t.Error(err)
		}
	})
	close(at.decided)
	eventually(t, "the opening has failed", func() bool { return g.stat().Failed == 1 })
	at.carry.Store(true)
	r.on(0, func(task *reactor.Task) {
		var c *backend.Conn
		eventually(t, "a connection", func() bool { // within 200 ms, which the machine may fail
			c, _ = g.Acquire(task, request(app))
			return c != nil
		})
		g.Release(c)
	})
	r.settled(g)
}

// TestLateOpening: the session an opening was for has left when it succeeds. The
// connection is kept.
func TestLateOpening(t *testing.T) {
	r := start(t, 1, Options{Limits: Limits{Size: 1, Wait: time.Nanosecond}})
	g, req := r.group(), request(application())
	r.on(0, func(task *reactor.Task) {
		if _, err := g.Acquire(task, req); !errors.Is(err, ErrTimeout) {
			t.Error(err)
		}
	})
	eventually(t, "the connection rests", func() bool { return g.stat().Idle == 1 })
	if s := r.settled(g); s.Opened != 1 || s.Lent != 0 {
		t.Errorf("%+v", s)
	}
}

// TestClosedByServer: an idle connection that the server has closed is not lent.
func TestClosedByServer(t *testing.T) {
	r := start(t, 2, Options{Limits: Limits{Size: 2}})
	g, req := r.group(), request(application())
	for i := range 4 {
		process := ""
		r.on(i, func(task *reactor.Task) {
			c := acquire(t, task, g, req)
			process = pid(t, c)
			g.Release(c)
		})
		sql(t, "SELECT pg_terminate_backend("+process+", 10000)")
		r.on(i/2, func(task *reactor.Task) { // on either loop, while the end may not have been noticed
			c := acquire(t, task, g, req)
			if c == nil {
				return
			}
			if got := pid(t, c); got == process {
				t.Errorf("process %s is dead", got)
			}
			g.Destroy(c)
		})
	}
	r.on(0, func(task *reactor.Task) { g.Release(acquire(t, task, g, req)) })
	sql(t, "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = '"+req.Fingerprint+"'")
	eventually(t, "an idle connection is dropped when its server ends", func() bool { return g.stat().Open == 0 })
	r.settled(g)
}

// TestClosedOnTheWay: a connection that is fetched from another loop turns out
// to have been closed by the server. Whoever waits for it gets another one.
func TestClosedOnTheWay(t *testing.T) {
	r := start(t, 2, Options{Limits: Limits{Size: 1, Wait: 10 * time.Second}})
	g, req := r.group(), request(application())
	process := ""
	r.on(0, func(task *reactor.Task) {
		c := acquire(t, task, g, req)
		process = pid(t, c)
		g.Release(c)
	})
	busy, free := make(chan struct{}), make(chan struct{})
	blocker := r.task(0, func(*reactor.Task) { // the loop does not look at its connections meanwhile
		close(busy)
		<-free
	})
	<-busy
	sql(t, "SELECT pg_terminate_backend("+process+", 10000)")
	waiter := r.task(1, func(task *reactor.Task) {
		start := time.Now()
		c := acquire(t, task, g, req)
		if c == nil {
			return
		}
		if got := pid(t, c); got == process || time.Since(start) > 5*time.Second {
			t.Errorf("process %s after %s", got, time.Since(start))
		}
		g.Release(c)
	})
	r.waiting(g, 1)
	close(free)
	await(t, blocker)
	await(t, waiter)
	if s := r.settled(g); s.Opened != 2 || s.Destroyed != 1 {
		t.Errorf("%+v", s)
	}
}

// TestRestart: sessions on two loops live through restarts of the server, and
// are served again as soon as it is back.
func TestRestart(t *testing.T) {
	node := pgtest.Start(t, pgcluster.Options{}).Leader()
	r := start(t, 2, Options{Limits: Limits{Size: 3}})
	g, app := r.at(node.Addr()), application()
	var done []<-chan struct{}
	var stop atomic.Bool
	var served, failed atomic.Int64
	for i := range 8 {
		done = append(done, r.task(i, func(task *reactor.Task) {
			for !stop.Load() {
				c, err := g.Acquire(task, request(app))
				if err != nil {
					if !backend.Unavailable(err) || errors.Is(err, ErrTimeout) {
						t.Error(err)
					}
					failed.Add(1)
					task.Sleep(5 * time.Millisecond)
					continue
				}
				if _, err := ask(c, "SELECT 1"); err != nil {
					g.Destroy(c)
					continue
				}
				served.Add(1)
				g.Release(c)
			}
		}))
	}
	more := func() {
		from := served.Load()
		eventually(t, "sessions are served", func() bool {
			must(t, g.check())
			return served.Load() > from+50
		})
	}
	more()
	for _, mode := range []pgcluster.Mode{pgcluster.Fast, pgcluster.Immediate} {
		must(t, node.Stop(mode))
		from := failed.Load()
		eventually(t, "sessions are told", func() bool {
			must(t, g.check())
			return failed.Load() > from+10
		})
		must(t, node.Start(soon(t)))
		more()
	}
	stop.Store(true)
	for _, d := range done {
		await(t, d)
	}
	r.settled(g)

	// At rest: what was idle before is not lent after.
	must(t, node.Restart(soon(t)))
	for i := range 2 {
		r.on(i, func(task *reactor.Task) {
			c := acquire(t, task, g, request(app))
			if _, err := ask(c, "SELECT 1"); err != nil {
				t.Errorf("a connection from before the restart: %v", err)
			}
			g.Release(c)
		})
	}
	r.settled(g)
}
