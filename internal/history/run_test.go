package history

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// everything is what a single server guarantees.
var everything = []Guarantee{Written, Bounded, Session, Service, Linearizable}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func check(t *testing.T, o Options) *Result {
	t.Helper()
	result, err := Run(t.Context(), o)
	if result != nil {
		t.Log(result)
	}
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func wantNoErrors(t *testing.T, r *Result) {
	t.Helper()
	if len(r.Errors) > 0 {
		t.Errorf("errors: %v", r.Samples)
	}
}

// TestLeaderAloneIsClean: one server is a history without fault, over every
// protocol.
func TestLeaderAloneIsClean(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{})
	r := check(t, Options{
		Addresses: []string{c.Leader().Addr()},
		Pairs:     40,
		NodeQuery: "SHOW cluster_name",
	})
	wantNoErrors(t, r)
	if !r.Keeps(everything...) {
		t.Error("accused a single server")
	}
	if r.Sessions != 32 {
		t.Errorf("%d sessions, want 32", r.Sessions)
	}
	if r.Nodes[c.Leader().Name()] == 0 || len(r.Nodes) != 1 {
		t.Errorf("served by %v", r.Nodes)
	}
	counts := r.count()
	for p := range protocols {
		if counts[p][Read] == 0 {
			t.Errorf("no reads by %s", p)
		}
		for _, k := range []Kind{Insert, Update, Delete, Bump} {
			if counts[p][k] == 0 {
				t.Errorf("no %s by %s", k, p)
			}
		}
	}
}

// TestNaiveSplitterIsCaught: a splitter that ignores what followers have
// applied must be found out, by every protocol in which a read can go astray.
func TestNaiveSplitterIsCaught(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 2})
	ctx, leader, followers := t.Context(), c.Leader(), c.Followers()
	for _, f := range followers {
		if err := f.SetApplyDelay(ctx, 100*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	r := check(t, Options{
		Addresses: []string{startSplitter(t, leader.Addr(), followers[0].Addr(), followers[1].Addr())},
		Pairs:     40,
		Readers:   8,
		Bound:     50 * time.Millisecond,
		Ready:     c.WaitStreaming,
	})
	wantNoErrors(t, r)
	if r.Faults[Stale] == 0 {
		t.Error("no stale read found")
	}
	if r.Faults[Backward] == 0 {
		t.Error("no backward read found")
	}
	for _, g := range []Guarantee{Bounded, Service, Linearizable} {
		if r.Keeps(g) {
			t.Errorf("passed as %v", g)
		}
	}
	if !r.Keeps(Written) {
		t.Error("accused of more than it did")
	}
}

// TestSplitterOverTheLeaderIsClean: the splitter itself garbles nothing, so
// what the test above finds is the followers' lag.
func TestSplitterOverTheLeaderIsClean(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{})
	leader := c.Leader().Addr()
	r := check(t, Options{Addresses: []string{startSplitter(t, leader, leader)}, Pairs: 20})
	wantNoErrors(t, r)
	if !r.Keeps(everything...) {
		t.Error("accused a splitter that reads from the leader")
	}
}

// TestSessionsMove: a session that moves goes on with what it has done before, and
// its token arrives. Readers write nothing.
func TestSessionsMove(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{})
	_, port, err := net.SplitHostPort(c.Leader().Addr())
	if err != nil {
		t.Fatal(err)
	}
	r := check(t, Options{
		Addresses: []string{"127.0.0.1:" + port, "localhost:" + port},
		Sessions:  8, Pairs: 40, Readers: 3,
		Token: "application_name", Params: map[string]string{"application_name": "carried"},
		NodeQuery: "SHOW application_name",
	})
	wantNoErrors(t, r)
	if !r.Keeps(everything...) || r.Sessions != 8 {
		t.Errorf("%d sessions", r.Sessions)
	}
	if r.Nodes["carried"] == 0 || len(r.Nodes) != 1 {
		t.Errorf("tokens: %v", r.Nodes)
	}
	through, writers := make(map[string]map[int]bool), make(map[int]bool)
	for _, e := range r.Events {
		if through[e.Through] == nil {
			through[e.Through] = make(map[int]bool)
		}
		through[e.Through][e.Session] = true
		if e.Kind != Read {
			writers[e.Session] = true
		}
	}
	for address, sessions := range through {
		if len(sessions) != 8 {
			t.Errorf("%d sessions came to %s", len(sessions), address)
		}
	}
	if len(through) != 2 || len(writers) != 5 {
		t.Errorf("%d addresses, %d writers", len(through), len(writers))
	}
}

// TestLostConnections: sessions whose connections are cut begin anew, the cuts
// are counted, and nothing is held against what came of writes in doubt.
func TestLostConnections(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{})
	ended := false
	r := check(t, Options{
		Addresses: []string{c.Leader().Addr()},
		Sessions:  8,
		Duration:  3 * time.Second,
		Meanwhile: func(ctx context.Context) error {
			conn, err := pgx.Connect(ctx, c.Leader().URL("postgres"))
			if err != nil {
				return err
			}
			defer conn.Close(context.WithoutCancel(ctx))
			for range 5 {
				time.Sleep(200 * time.Millisecond)
				if _, err := conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
					WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`); err != nil {
					return err
				}
			}
			<-ctx.Done()
			ended = true
			return ctx.Err()
		},
	})
	if !r.Keeps(everything...) {
		t.Error("accused a single server")
	}
	if r.Errors["57P01"] == 0 || r.Sessions <= 8 {
		t.Errorf("%d connections, errors %v: nothing was cut", r.Sessions, r.Errors)
	}
	if !ended {
		t.Error("did not wait for the faults to end")
	}
}

// TestCancel: the end of the context ends a run at once and quietly.
func TestCancel(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := Run(ctx, Options{
		Addresses: []string{c.Leader().Addr()},
		Sessions:  4,
		Duration:  time.Hour,
		Meanwhile: func(context.Context) error {
			time.Sleep(300 * time.Millisecond)
			cancel()
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantNoErrors(t, r)
	if !r.Keeps(everything...) || r.Writes == 0 {
		t.Errorf("unexpected result: %v", r)
	}
}

func TestNobodyAnswers(t *testing.T) {
	if _, err := Run(t.Context(), Options{Addresses: []string{"127.0.0.1:1"}}); err == nil {
		t.Error("set up without a server")
	}
	if _, err := Run(t.Context(), Options{}); err == nil {
		t.Error("ran without an address")
	}
}

// TestTwoLeadersAreCaught: after a promotion beside a living leader, both take
// writes, and versions of shared rows have two makers.
func TestTwoLeadersAreCaught(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	leader, follower := c.Leader(), c.Followers()[0]
	r := check(t, Options{
		Addresses: []string{leader.Addr(), follower.Addr()},
		Sessions:  8,
		Pairs:     20,
		Ready: func(ctx context.Context) error {
			if err := c.WaitStreaming(ctx); err != nil {
				return err
			}
			return follower.Promote(ctx)
		},
	})
	wantNoErrors(t, r)
	if r.Faults[Forked] == 0 {
		t.Error("two leaders passed")
	}
	if r.Faults[Stale]+r.Faults[Backward]+r.Faults[Unwritten] > 0 {
		t.Error("each session saw one leader only, so nothing else is wrong")
	}
}

// TestRefusedStatements: errors are counted by SQLSTATE, the sessions go on,
// and what was refused is not taken for written. An error that by the caller's
// word ends a session makes it begin anew.
func TestRefusedStatements(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{})
	const lockNotAvailable = "55P03"
	o := Options{
		Addresses: []string{c.Leader().Addr()},
		Sessions:  16,
		Pairs:     40,
		Mix:       map[Protocol]int{Transaction: 2, Multi: 2, Pipelined: 1},
		Params:    map[string]string{"lock_timeout": "1"},
	}
	r := check(t, o)
	if !r.Keeps(everything...) || r.Errors[lockNotAvailable] == 0 || len(r.Errors) != 1 || r.Sessions != 16 {
		t.Errorf("%d sessions, errors %v", r.Sessions, r.Errors)
	}
	o.EndsSession = []string{lockNotAvailable}
	r = check(t, o)
	if !r.Keeps(everything...) || r.Sessions <= 16 {
		t.Errorf("%d sessions, errors %v", r.Sessions, r.Errors)
	}
}

func TestOutcomeOf(t *testing.T) {
	answers := []answer{
		{results: []result{{tag: "INSERT 0 1"}}},
		{err: &pgconn.PgError{Code: "23505"}},
		{err: &pgconn.PgError{Code: "08007"}},
		{err: &pgconn.PgError{Code: "40003"}},
	}
	for i, want := range []Outcome{Acked, Failed, Unknown, Unknown, Unknown} {
		if got := outcomeOf(answers, i); got != want {
			t.Errorf("answer %d: %v, want %v", i, got, want)
		}
	}
}

// TestGarbled: an answer that belongs to another request is noticed.
func TestGarbled(t *testing.T) {
	ask := request{statements: []statement{{sql: texts[updateOwn]}, {sql: texts[readOwn]}}}
	for _, test := range []struct {
		name    string
		request request
		tags    []string
		garbled bool
	}{
		{"as asked", ask, []string{"UPDATE 1", "SELECT 1"}, false},
		{"one short", ask, []string{"UPDATE 1"}, true},
		{"one too many", ask, []string{"UPDATE 1", "SELECT 1", "SELECT 1"}, true},
		{"another's", ask, []string{"UPDATE 1", "DELETE 1"}, true},
		{"failed commit", request{statements: []statement{{sql: "COMMIT"}}}, []string{"ROLLBACK"}, false},
	} {
		var a answer
		for _, tag := range test.tags {
			a.results = append(a.results, result{tag: tag})
		}
		if why := garbled(test.request, a); (why != "") != test.garbled {
			t.Errorf("%s: %q", test.name, why)
		}
	}
}
