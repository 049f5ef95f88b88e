package pool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/reactor"
)

// tally is what the sessions of a stress test have seen, to be held against the
// pool's own figures.
type tally struct {
	lent, timedOut, interrupted, destroyed atomic.Uint64
	users                                  sync.Map // of *backend.Conn: *atomic.Int32, sessions that have it
}

// take and give watch that no connection has two users.
func (y *tally) take(t *testing.T, c *backend.Conn) {
	y.lent.Add(1)
	n, _ := y.users.LoadOrStore(c, new(atomic.Int32))
	if n.(*atomic.Int32).Add(1) != 1 {
		t.Error("one connection was lent to two")
	}
}

func (y *tally) give(c *backend.Conn) {
	n, _ := y.users.Load(c)
	n.(*atomic.Int32).Add(-1)
}

// TestStress: sessions on several loops, with several startup parameters, do at
// random all that sessions do. At every moment the figures are possible, and at
// the end they add up: no connection was lost, none lent twice, nobody starved.
func TestStress(t *testing.T) {
	for _, loops := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(loops, " loops"), func(t *testing.T) { stress(t, loops, 4*time.Second) })
	}
}

func stress(t *testing.T, loops int, d time.Duration) {
	const size, sessions, kinds = 4, 30, 3
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := start(t, loops, Options{Limits: Limits{Size: size, Wait: 30 * time.Millisecond}})
	g, app := r.group(), application()
	var seen tally
	var wakers sync.Map // of int: reactor.Waker
	var interrupt [sessions]atomic.Bool
	end := time.Now().Add(d)

	var done []<-chan struct{}
	for i := range sessions {
		done = append(done, r.task(i, func(task *reactor.Task) {
			wakers.Store(i, task.Waker())
			s := stressed{t: t, g: g, seen: &seen, dice: rand.New(rand.NewPCG(seed, uint64(i)))}
			s.request = request(fmt.Sprintf("%s.%d", app, i%kinds))
			s.request.Interrupted = func() bool { return interrupt[i].Swap(false) }
			for time.Now().Before(end) {
				s.once(task)
			}
		}))
	}
	most := 0
	dice := rand.New(rand.NewPCG(seed, sessions))
	for n := 0; time.Now().Before(end); n++ {
		must(t, g.check())
		i := dice.IntN(sessions)
		if w, ok := wakers.Load(i); ok {
			interrupt[i].Store(dice.IntN(2) == 0)
			w.(reactor.Waker).Wake()
		}
		if n%200 == 0 {
			g.expire(time.Now().Add(time.Hour)) // Options has no limits: nothing may happen
			most = max(most, onServer(t, app))
		}
		time.Sleep(100 * time.Microsecond)
	}
	for _, c := range done {
		await(t, c)
	}
	s := r.settled(g)
	if s.Lent != seen.lent.Load() || s.TimedOut != seen.timedOut.Load() {
		t.Errorf("the sessions saw %d loans and %d time-outs, the pool %+v", seen.lent.Load(), seen.timedOut.Load(), s)
	}
	if s.Destroyed < seen.destroyed.Load() || s.Failed > s.Opened/10 {
		t.Errorf("the sessions destroyed %d, the pool %+v", seen.destroyed.Load(), s)
	}
	eventually(t, "the server has a process for each connection", func() bool { return onServer(t, app) == g.stat().Open })
	// A process that was told to end takes a moment.
	if most > 3*size {
		t.Errorf("%d connections on the server, at most %d may be", most, size)
	}
	t.Logf("%d interrupted, at most %d on the server, %+v", seen.interrupted.Load(), most, s)
	if seen.lent.Load() < 100 || seen.interrupted.Load() == 0 {
		t.Error("hardly anything happened")
	}
}

// stressed is one session of the stress test.
type stressed struct {
	t       *testing.T
	g       *Group
	seen    *tally
	dice    *rand.Rand
	request *Request
}

// once borrows a connection, does something, and gives it back or not.
func (s *stressed) once(task *reactor.Task) {
	c, err := s.g.Acquire(task, s.request)
	switch {
	case errors.Is(err, ErrTimeout):
		s.seen.timedOut.Add(1)
		return
	case errors.Is(err, ErrInterrupted):
		s.seen.interrupted.Add(1)
		return
	case err != nil:
		// Another session's victim was just being opened: to the pool it looks as if
		// the server were going down.
		if pg := (*pgconn.PgError)(nil); !errors.As(err, &pg) || pg.Code != "57P01" {
			s.t.Error(err)
		}
		return
	}
	s.seen.take(s.t, c)
	keep := s.use(task, c)
	s.seen.give(c)
	if keep {
		s.g.Release(c)
	} else {
		s.seen.destroyed.Add(1)
		s.g.Destroy(c)
	}
	if s.dice.IntN(4) == 0 {
		task.Sleep(time.Duration(s.dice.IntN(3000)) * time.Microsecond)
	}
}

// use does something on the connection and reports whether it is still good.
func (s *stressed) use(task *reactor.Task, c *backend.Conn) bool {
	if c.Net.Loop() != task.Loop() || c.Fingerprint != s.request.Fingerprint {
		s.t.Errorf("a connection for %s on another loop or for %s", s.request.Fingerprint, c.Fingerprint)
	}
	switch n := s.dice.IntN(100); {
	case n < 40:
		return true
	case n < 60:
		task.Sleep(time.Duration(s.dice.IntN(2000)) * time.Microsecond)
		return true
	case n < 90:
		name, err := ask(c, "SHOW application_name")
		if err == nil && name != s.request.Fingerprint {
			s.t.Errorf("%s reads %s", s.request.Fingerprint, name)
		}
		// The server of an idle connection may have ended it a moment before it
		// was lent: nobody can know that.
		return err == nil
	case n < 95:
		return false
	case n < 98: // another's, at rest or on loan
		_, err := ask(c, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name = '"+
			s.request.Fingerprint+"' LIMIT 1")
		return err == nil
	default:
		_, err := ask(c, "SELECT pg_terminate_backend(pg_backend_pid())")
		if err == nil {
			s.t.Error("a terminated connection goes on")
		}
		return false
	}
}
