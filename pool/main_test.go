package pool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/wire"
)

// server is a lone leader that tests use which do not stop it.
var server *pgcluster.Node

func TestMain(m *testing.M) { os.Exit(pgtest.Lone(m, &server, func() error { return goleak.Find() })) }

// The helpers that tests of several packages share.
var must, soon, eventually = pgtest.Must, pgtest.Soon, pgtest.Eventually

// await waits for a task to end.
func await(t testing.TB, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(90 * time.Second):
		t.Fatal("a task has not ended after 90 s")
	}
}

// rig is a pool and the loops its sessions run on.
type rig struct {
	*Pool
	t     testing.TB
	loops []*reactor.Loop
}

// start makes a pool on an engine of some loops; both end with the test.
func start(t testing.TB, loops int, o Options) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	e, err := reactor.New(reactor.Options{Loops: loops, Stall: time.Minute, Log: log})
	must(t, err)
	t.Cleanup(e.Close)
	if o.Wait == 0 {
		o.Wait = 15 * time.Second
	}
	if o.Connect == 0 {
		o.Connect = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = log
	}
	p := New(o)
	t.Cleanup(p.Close)
	return &rig{Pool: p, t: t, loops: e.Loops()}
}

// group is the superuser's group of the shared server.
func (r *rig) group() *Group { return r.at(server.Addr()) }

func (r *rig) at(address string) *Group {
	return r.Group(Key{Database: "postgres", User: "postgres"}, address)
}

// runner makes a Runner of a function.
type runner func(*reactor.Task)

func (f runner) Run(t *reactor.Task) { f(t) }

// task runs f as a task of loop i and returns a channel that is closed when it
// has ended.
func (r *rig) task(i int, f func(*reactor.Task)) <-chan struct{} {
	r.t.Helper()
	done := make(chan struct{})
	l := r.loops[i%len(r.loops)]
	posted := l.Post(func() {
		l.Start(runner(func(t *reactor.Task) {
			defer close(done)
			f(t)
		}))
	})
	if !posted {
		r.t.Fatal("the loop has ended")
	}
	return done
}

// on runs f as a task of loop i and waits for its end.
func (r *rig) on(i int, f func(*reactor.Task)) {
	r.t.Helper()
	await(r.t, r.task(i, f))
}

// waiting waits until n sessions stand in line.
func (r *rig) waiting(g *Group, n int) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%d sessions in line", n), func() bool { return g.stat().Waiting == n })
}

// lastApplication makes names that tell the connections of one test.
var lastApplication atomic.Int64

// application returns a name of its own for the connections of a test.
func application() string { return "pool" + strconv.FormatInt(lastApplication.Add(1), 10) }

// request asks for a connection with that application_name.
func request(application string) *Request {
	return &Request{
		Login: backend.Login{
			User: "postgres", Database: "postgres",
			Params: []wire.Param{{Name: "application_name", Value: application}},
		},
		Fingerprint: application,
	}
}

// acquire acquires or fails the test.
func acquire(t testing.TB, task *reactor.Task, g *Group, r *Request) *backend.Conn {
	c, err := g.Acquire(task, r)
	if err != nil {
		t.Errorf("Acquire: %v", err)
		return nil
	}
	return c
}

// ask runs one query in a task and returns the first value of the answer.
func ask(c *backend.Conn, query string) (string, error) {
	if _, err := c.Net.Write(wire.AppendQuery(nil, query)); err != nil {
		return "", err
	}
	value := ""
	var refused error
	for {
		msg, err := readMessage(c.Net)
		if err != nil {
			return "", errors.Join(refused, err)
		}
		switch msg[0] {
		case wire.DataRow:
			if b := wire.Body(msg)[2:]; value == "" && int32(binary.BigEndian.Uint32(b)) >= 0 {
				value = string(b[4 : 4+binary.BigEndian.Uint32(b)])
			}
		case wire.ErrorResponse:
			refused = errors.New(string(wire.Field(msg, 'M')))
		case wire.ReadyForQuery:
			return value, refused
		}
	}
}

// readMessage reads one whole message.
func readMessage(r io.Reader) ([]byte, error) {
	msg := make([]byte, wire.HeaderLen)
	if _, err := io.ReadFull(r, msg); err != nil {
		return nil, err
	}
	_, size, _, err := wire.Header(msg)
	if err != nil {
		return nil, err
	}
	msg = append(msg, make([]byte, size-len(msg))...)
	_, err = io.ReadFull(r, msg[wire.HeaderLen:])
	return msg, err
}

// pid asks a connection for its server process, which tells it from others.
func pid(t testing.TB, c *backend.Conn) string {
	v, err := ask(c, "SELECT pg_backend_pid()")
	if err != nil {
		t.Errorf("ask for the process: %v", err)
	}
	return v
}

// sql runs statements on the shared server past the pool and returns the first
// value.
func sql(t testing.TB, text string) string {
	t.Helper()
	rows, err := backend.Ask(soon(t), server.Addr(), backend.Login{User: "postgres", Database: "postgres"}, text)
	must(t, err)
	if len(rows) == 0 {
		return ""
	}
	return rows[0][0]
}

// onServer counts the server's processes for applications of that name or names
// that begin with it and a dot.
func onServer(t testing.TB, application string) int {
	t.Helper()
	n, err := strconv.Atoi(sql(t, fmt.Sprintf(
		"SELECT count(*) FROM pg_stat_activity WHERE application_name = '%[1]s' OR application_name LIKE '%[1]s.%%'", application)))
	must(t, err)
	return n
}

// check looks whether the group's figures can be. It holds at every moment.
func (g *Group) check() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var wrong []string
	require := func(ok bool, what string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf(what, args...))
		}
	}
	under := 0
	for f, n := range g.mu.coming {
		require(n > 0, "%d connections on their way for %s", n, f)
		under += n
	}
	most := g.most() + 1 // a spare one
	require(g.mu.open <= most, "%d connections, at most %d may be", g.mu.open, most)
	require(len(g.mu.idle)+under <= g.mu.open, "%d idle and %d on their way of %d", len(g.mu.idle), under, g.mu.open)
	there := int(g.mu.stat.Opened) - int(g.mu.stat.Destroyed)
	require(there <= g.mu.open && g.mu.open <= there+under, "%d connections, but %d opened and not destroyed, %d on their way",
		g.mu.open, there, under)
	for _, x := range g.mu.idle {
		require(!x.Lent && x.Net != nil && x.Net.Loop() != nil, "an idle connection is on loan or nowhere")
	}
	if g.mu.closed {
		require(len(g.mu.idle) == 0 && g.mu.line.Len() == 0, "%d idle and %d in line after the end", len(g.mu.idle), g.mu.line.Len())
	}
	// Who has nothing coming has no place to come into: nobody starves.
	left := make(map[string]int)
	for f, n := range g.mu.coming {
		left[f] = n
	}
	before := time.Time{}
	for e := g.mu.line.Front(); e != nil; e = e.Next() {
		w := e.Value.(*waiter)
		require(w.conn == nil && w.err == nil, "somebody in line is served already")
		require(!w.since.Before(before.Add(-time.Second)), "the line is out of order")
		before = w.since
		f := w.request.Fingerprint
		if left[f]--; left[f] >= 0 {
			continue
		}
		require((g.mu.open >= g.limits.Size || g.shares != nil) && len(g.mu.idle) == 0,
			"nothing comes for one who needs %s, with %d of %d connections, %d idle", f, g.mu.open, g.limits.Size, len(g.mu.idle))
	}
	if wrong != nil {
		return errors.New(strings.Join(wrong, "; "))
	}
	return nil
}

// settled waits until nobody stands in line and nothing is on its way, and
// checks that all connections are at home and all figures add up.
func (r *rig) settled(g *Group) Stat {
	r.t.Helper()
	eventually(r.t, "a quiet moment", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.mu.line.Len() == 0 && len(g.mu.coming) == 0 && g.mu.open == len(g.mu.idle)
	})
	must(r.t, g.check())
	return g.stat()
}
