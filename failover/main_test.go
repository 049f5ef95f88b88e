package failover

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/lsnproxy/lsnproxy/election"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(callerVariable); dir != "" {
		_, err := (&Rejoin{Bin: dir}).run(context.Background(), "program")
		panic(err) // it is killed before
	}
	goleak.VerifyTestMain(m)
}

// The helpers that tests of several packages share.
var must, soon, eventually = pgtest.Must, pgtest.Soon, pgtest.Eventually

// quick is what the tests do not wait long for.
func quick() Options {
	return Options{
		Settings: Settings{Mode: Promote, Timeout: time.Second, MaxLost: 1 << 20, Drain: 5 * time.Second},
		User:     "postgres", Database: "postgres", HookTimeout: 20 * time.Second,
	}
}

// watched is a cluster that a Runner looks after: one proxy alone, whose sessions give
// up what they write at once when there is no leader.
type watched struct {
	*Runner
	t       *testing.T
	cluster *pgcluster.Cluster
	nodes   []*pgcluster.Node
	decider *sessions
	options Options
}

// sessions is an election.Node with what sessions do about decrees. Steps of the
// decree can be watched, and stopped at.
type sessions struct {
	*election.Node
	mu     sync.Mutex
	before func(to election.Decree) error // of each Decide
	after  func(to election.Decree)
	others []election.Report // what other proxies report
}

func (s *sessions) Decide(ctx context.Context, from, to election.Decree) error {
	s.mu.Lock()
	before, after := s.before, s.after
	s.mu.Unlock()
	if before != nil {
		if err := before(to); err != nil {
			return err
		}
	}
	err := s.Node.Decide(ctx, from, to)
	if err == nil {
		s.Acknowledge(to.Epoch)
		if after != nil {
			after(to)
		}
	}
	return err
}

func (s *sessions) State() *election.State {
	state := *s.Node.State()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.others {
		state.Voters = append(slices.Clone(state.Voters), election.Voter{ID: o.Member, Present: true})
	}
	return &state
}

func (s *sessions) Reports() []election.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(s.Node.Reports(), s.others...)
}

// say has another proxy report.
func (s *sessions) say(member string, r Sight) {
	body, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.others = slices.DeleteFunc(s.others, func(o election.Report) bool { return o.Member == member })
	s.others = append(s.others, election.Report{Member: member, Votes: true, At: time.Now(), Body: body})
}

// watch starts a cluster and a Runner that has found its leader.
func watch(t *testing.T, o Options, cluster pgcluster.Options) *watched {
	t.Helper()
	w := &watched{t: t, cluster: pgtest.Start(t, cluster)}
	w.nodes = w.cluster.Nodes()
	w.options = o
	w.run()
	w.decrees(0, 1)
	eventually(t, "every node is known, and the leader's standbys", func() bool {
		for _, n := range w.Status().Nodes {
			if n.Seen == 0 || n.Follower && !n.Streaming {
				return false
			}
		}
		return w.Status().Phase == Steady
	})
	return w
}

// run starts the proxy.
func (w *watched) run() {
	w.t.Helper()
	node, err := election.Start(election.Options{ID: "only", Heartbeat: 10 * time.Millisecond, Election: 50 * time.Millisecond, Lease: 300 * time.Millisecond})
	must(w.t, err)
	w.t.Cleanup(func() { node.Stop(context.Background()) })
	w.decider = &sessions{Node: node}
	w.takeOver()
}

// takeOver starts a Runner that knows nothing but the decree.
func (w *watched) takeOver() {
	o := w.options
	o.Nodes = nil
	for _, n := range w.nodes {
		o.Nodes = append(o.Nodes, n.Addr())
	}
	o.Log = slog.New(slog.NewTextHandler(testLog{w.t}, nil))
	r := New(w.decider, o)
	w.Runner = r
	r.Start()
	w.t.Cleanup(r.Close)
}

// testLog writes a log to a test's.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	if l.t.Context().Err() == nil {
		l.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

// decrees waits until node number i is decreed the leader of a timeline, with nothing
// left to do.
func (w *watched) decrees(i int, timeline uint32) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		d := w.decider.Node.State().Decree
		if d.Leader == w.nodes[i].Addr() && d.Timeline == timeline && len(d.Plan) == 0 {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("want %s to lead timeline %d; the decree is %+v, plan %s; status %+v", w.nodes[i].Name(), timeline, d, d.Plan, *w.Status())
		}
	}
}

// blocks waits until the plan is blocked for a reason that has text in it.
func (w *watched) blocks(text string) {
	w.t.Helper()
	eventually(w.t, "blocked: "+text, func() bool {
		s := w.Status()
		return s.Blocked && strings.Contains(s.Why, text)
	})
}

// exec runs statements on a node, past the proxy.
func (w *watched) exec(i int, sql ...string) {
	w.t.Helper()
	conn, err := pgx.Connect(soon(w.t), w.nodes[i].URL("postgres"))
	must(w.t, err)
	defer conn.Close(context.Background())
	for _, s := range sql {
		if _, err := conn.Exec(soon(w.t), s, pgx.QueryExecModeSimpleProtocol); err != nil {
			w.t.Fatalf("%s: %v", s, err)
		}
	}
}

// get asks a node for one value as text.
func (w *watched) get(i int, sql string) string {
	w.t.Helper()
	value, err := w.ask(i, sql)
	if err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func (w *watched) ask(i int, sql string) (string, error) {
	conn, err := pgx.Connect(soon(w.t), w.nodes[i].URL("postgres"))
	if err != nil {
		return "", err
	}
	defer conn.Close(context.Background())
	value := "NULL"
	err = conn.QueryRow(soon(w.t), "SELECT COALESCE(("+sql+")::text, 'NULL')").Scan(&value)
	return value, err
}

// shows waits until a node answers a question with want.
func (w *watched) shows(i int, sql, want string) {
	w.t.Helper()
	got := ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		value, err := w.ask(i, sql)
		if got = value; err != nil {
			got = err.Error() // a table may not have come yet
		} else if got == want {
			return
		}
	}
	w.t.Fatalf("%s on %s is %s, want %s", sql, w.nodes[i].Name(), got, want)
}

// rows inserts a number of rows into table kept on a node.
func (w *watched) rows(i, n int) {
	w.t.Helper()
	w.exec(i, fmt.Sprintf("CREATE TABLE IF NOT EXISTS kept (k int); INSERT INTO kept SELECT generate_series(1, %d)", n))
}

// deaf has a follower receive nothing from now on. It looks for its leader at the
// right address, else it would be repointed.
func (w *watched) deaf(i int) {
	w.t.Helper()
	must(w.t, w.nodes[i].Set(soon(w.t), "primary_conninfo", "host="+strings.Replace(w.nodes[0].ServerAddr(), ":", " port=", 1)+" user=nobody"))
	w.shows(i, "SELECT count(*) FROM pg_stat_wal_receiver", "0")
}

// hears ends that: the leader lets the deaf ones in.
func (w *watched) hears(leader int) {
	w.t.Helper()
	w.exec(leader, "SET synchronous_commit = local", "CREATE ROLE nobody LOGIN REPLICATION")
}

// received waits until a follower has received all that the leader has flushed.
func (w *watched) received(i int) {
	w.t.Helper()
	w.shows(i, "SELECT pg_last_wal_receive_lsn() >= '"+w.get(0, "SELECT pg_current_wal_flush_lsn()")+"'", "true")
}
