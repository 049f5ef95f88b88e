package lagwatch

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The helpers that tests of several packages share.
var must, soon = pgtest.Must, pgtest.Soon

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

// told waits until just n lines hold all of words: lines are written after those
// who wait for a View were woken.
func (w *watched) told(n int, words ...string) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); w.log.with(words...) < n && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if got := w.log.with(words...); got != n {
		w.t.Errorf("%d log lines with %q, want %d", got, words, n)
	}
}

// nudged waits until the leader was nudged just n times: the nudge is counted when
// its answer is there, and its effect may be seen before.
func (w *watched) nudged(n uint64) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); w.Stat().Nudges < n && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if s := w.Stat(); s.Nudges != n || s.NudgeFailures != 0 {
		w.t.Errorf("nudged %d times, failed %d times, want %d", s.Nudges, s.NudgeFailures, n)
	}
}

// with counts the lines that hold all of words.
func (l *lines) with(words ...string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for line := range strings.Lines(l.text.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			n++
		}
	}
	return n
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// engine starts an event loop for a Watcher, and ends it after that.
func engine(t testing.TB) *reactor.Engine {
	t.Helper()
	e, err := reactor.New(reactor.Options{Stall: time.Minute, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(e.Close)
	return e
}

// watched is a running Watcher and what belongs to it.
type watched struct {
	*Watcher
	t     testing.TB
	board *topology.Board
	log   *lines
}

// watch starts a Watcher of nodes, in that order, and closes it with the test.
func watch(t testing.TB, o Options, nodes ...*pgcluster.Node) *watched {
	t.Helper()
	var addresses []string
	for _, n := range nodes {
		addresses = append(addresses, n.Addr())
	}
	return watchAddresses(t, o, addresses...)
}

func watchAddresses(t testing.TB, o Options, addresses ...string) *watched {
	t.Helper()
	log := &lines{}
	if o.User == "" {
		o.User = "postgres"
	}
	o.Database = "postgres"
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	board := topology.NewBoard(addresses)
	w := New(board, engine(t), o)
	w.Start()
	t.Cleanup(func() {
		w.Close()
		if t.Failed() {
			t.Logf("the watcher said:\n%s", log)
		}
	})
	return &watched{Watcher: w, t: t, board: board, log: log}
}

// until waits for a View that satisfies ready, with the urgency of need.
func (w *watched) until(what string, need Need, ready func(*topology.View) bool) *topology.View {
	w.t.Helper()
	v, ok := w.within(time.Minute, need, ready)
	if !ok {
		w.t.Fatalf("after a minute still not: %s\n%s %+v", what, picture(v), v)
	}
	return v
}

// within is until with a limit of its own; it reports whether that held.
func (w *watched) within(d time.Duration, need Need, ready func(*topology.View) bool) (*topology.View, bool) {
	var seen *topology.View
	woken := make(chan struct{})
	wait := w.Await(need, func(v *topology.View) bool {
		if !ready(v) {
			return false
		}
		seen = v
		return true
	}, func() { close(woken) })
	defer wait.Cancel()
	select {
	case <-woken:
		return seen, true
	case <-time.After(d):
		return w.board.View(), false
	}
}

// shows waits until the View has this leader and these states.
func (w *watched) shows(want string) *topology.View {
	w.t.Helper()
	return w.until(want, Need{Node: -1}, func(v *topology.View) bool { return picture(v) == want })
}

// token returns a position that covers everything acknowledged before the call.
func (w *watched) token() lsn.Position {
	w.t.Helper()
	now := topology.Now()
	v := w.until("a sample of the leader", Need{Leader: true, Node: -1}, func(v *topology.View) bool {
		return v.Leader != topology.NoLeader && v.Nodes[v.Leader].Sampled >= now
	})
	return v.Nodes[v.Leader].Position
}

// covered is the wait of a read: node id has applied need, as sampled from now on.
func covered(id int, need lsn.Position) (Need, func(*topology.View) bool) {
	now := topology.Now()
	return Need{Node: id, Position: need}, func(v *topology.View) bool {
		return v.Nodes[id].State == topology.Usable && v.Proves(&v.Nodes[id], now, need)
	}
}

// dial opens a connection to a node that the test closes.
func dialNode(t testing.TB, n *pgcluster.Node) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(soon(t), n.URL("postgres"))
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// hush keeps a leader from writing by itself until goOn is called or the test ends.
func hush(t testing.TB, n *pgcluster.Node) (goOn func()) {
	t.Helper()
	goOn, err := n.Hush(soon(t))
	must(t, err)
	goOn = sync.OnceFunc(goOn)
	t.Cleanup(goOn)
	return goOn
}

func exec(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	_, err := conn.Exec(soon(t), sql, args...)
	must(t, err)
}

func get[T any](t testing.TB, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	must(t, conn.QueryRow(soon(t), sql, args...).Scan(&v))
	return v
}

// at returns a position on the node as a function tells it.
func at(t testing.TB, conn *pgx.Conn, function string) lsn.LSN {
	t.Helper()
	l, err := lsn.Parse(get[string](t, conn, "SELECT "+function+"()::text"))
	must(t, err)
	return l
}
