package session_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sync/errgroup"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// code returns the SQLSTATE of an error.
func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// TestFollowerKilledUnderReads is the third thing to be shown: no client sees
// an error on a read that had sent nothing on, and the follower comes back.
func TestFollowerKilledUnderReads(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 2})
	p := startProxy(t, c, nil)
	p.awaitFollowers(t, 2)
	setup := p.connect(t, "")
	if _, err := setup.Exec(t.Context(), "create table t as select generate_series(1, 1000) as i"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var done atomic.Int64
	group := errgroup.Group{}
	for i := range 16 {
		mode := []string{"simple_protocol", "exec", "cache_statement"}[i%3]
		conn, err := pgx.Connect(t.Context(), p.url("default_query_exec_mode="+mode))
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() error {
			defer conn.Close(context.Background())
			for ctx.Err() == nil {
				var n int
				if err := conn.QueryRow(t.Context(), "select count(*) from t where i <= $1", 500).Scan(&n); err != nil {
					return err
				}
				if n != 500 {
					return errors.New("wrong answer")
				}
				done.Add(1)
			}
			return nil
		})
	}
	for range 3 {
		before := done.Load()
		eventually(t, "reads before the kill", func() bool { return done.Load() > before+200 })
		f := c.Followers()[0]
		if err := f.Kill(); err != nil {
			t.Fatal(err)
		}
		before = done.Load()
		eventually(t, "reads after the kill", func() bool { return done.Load() > before+200 })
		if err := f.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.awaitFollowers(t, 2)
	}
	served := p.server.Stat().Reads[1]
	eventually(t, "reads on the follower that has returned", func() bool {
		// Sessions stay where they are, so a new one has to find it.
		conn, err := pgx.Connect(t.Context(), p.url(""))
		if err != nil {
			return false
		}
		defer conn.Close(context.Background())
		_, err = conn.Exec(t.Context(), "select count(*) from t")
		return err == nil && p.server.Stat().Reads[1] > served
	})
	cancel()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d reads, %d run again elsewhere", done.Load(), p.server.Stat().Retries)
}

// terminate ends all connections of the pool on the leader, as an administrator.
func terminate(t *testing.T, c *pgcluster.Cluster, app string) {
	t.Helper()
	direct, err := pgx.Connect(t.Context(), c.Nodes()[0].URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close(t.Context())
	var n int
	if err := direct.QueryRow(t.Context(), `select count(pg_terminate_backend(pid)) from pg_stat_activity
		where application_name = $1`, app).Scan(&n); err != nil || n == 0 {
		t.Fatalf("%d terminated, %v", n, err)
	}
}

// TestLeaderConnectionLost checks what a client is told when its server
// connection is lost, and that it can go on.
func TestLeaderConnectionLost(t *testing.T) {
	p := startProxy(t, shared.cluster, linked)
	p.awaitFollowers(t, 2)
	ctx := t.Context()

	t.Run("in an idle transaction", func(t *testing.T) {
		conn := p.connect(t, "application_name=lost1&default_query_exec_mode=simple_protocol")
		must(t, conn, "drop table if exists lost", "create table lost(i int)", "begin", "insert into lost values (1)")
		ended := destroyed(p)
		p.cut(0)
		eventually(t, "the proxy to notice", func() bool { return destroyed(p) > ended })
		_, err := conn.Exec(ctx, "insert into lost values (2)")
		if code(err) != "08006" {
			t.Fatalf("first statement after the loss: %v", err)
		}
		// What follows must not run outside the transaction that is gone.
		if _, err := conn.Exec(ctx, "insert into lost values (3)"); code(err) != "25P02" {
			t.Fatalf("second statement after the loss: %v", err)
		}
		tag, err := conn.Exec(ctx, "commit")
		if err != nil || tag.String() != "ROLLBACK" {
			t.Fatalf("commit of the lost transaction: %q, %v", tag, err)
		}
		var n int
		if err := conn.QueryRow(ctx, "select count(*) from lost").Scan(&n); err != nil || n != 0 {
			t.Fatalf("%d rows, %v", n, err)
		}
	})

	t.Run("commit of a lost transaction", func(t *testing.T) {
		conn := p.connect(t, "application_name=lost2&default_query_exec_mode=simple_protocol")
		must(t, conn, "begin", "insert into lost values (1)")
		ended := destroyed(p)
		p.cut(0)
		eventually(t, "the proxy to notice", func() bool { return destroyed(p) > ended })
		if _, err := conn.Exec(ctx, "commit"); code(err) != "08006" {
			t.Fatalf("commit: %v", err)
		}
		if _, err := conn.Exec(ctx, "insert into lost values (4)"); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("under a write", func(t *testing.T) {
		conn := p.connect(t, "application_name=lost3&default_query_exec_mode=simple_protocol")
		result := make(chan error, 1)
		go func() {
			_, err := conn.Exec(ctx, "insert into lost select i from (select 5 as i, pg_sleep(10)) x")
			result <- err
		}()
		awaitRunning(t, shared.cluster, "lost3")
		p.cut(0)
		if err := <-result; code(err) != "08007" || !strings.Contains(err.Error(), "outcome unknown") {
			t.Fatalf("write: %v", err)
		}
		var n int
		if err := conn.QueryRow(ctx, "select count(*) from lost where i = 5").Scan(&n); err != nil || n != 0 {
			t.Fatalf("%d rows, %v", n, err)
		}
	})

	t.Run("in a transaction under a statement", func(t *testing.T) {
		conn := p.connect(t, "application_name=lost4&default_query_exec_mode=simple_protocol")
		must(t, conn, "begin")
		result := make(chan error, 1)
		go func() {
			_, err := conn.Exec(ctx, "select pg_sleep(10)")
			result <- err
		}()
		awaitRunning(t, shared.cluster, "lost4")
		p.cut(0)
		if err := <-result; code(err) != "08006" {
			t.Fatalf("statement: %v", err)
		}
		if _, err := conn.Exec(ctx, "select 1"); code(err) != "25P02" {
			t.Fatalf("after the loss: %v", err)
		}
		must(t, conn, "rollback", "select 1")
	})

	t.Run("pinned session", func(t *testing.T) {
		conn := p.connect(t, "application_name=lost5&default_query_exec_mode=simple_protocol")
		must(t, conn, "create temp table mine(i int)")
		terminate(t, shared.cluster, "lost5")
		if _, err := conn.Exec(ctx, "select * from mine"); err == nil {
			t.Fatal("a temporary table has survived its session")
		}
		if !conn.IsClosed() {
			t.Fatal("a session whose state is gone must not go on")
		}
	})
}

// destroyed returns how many connections the pool has had to drop.
func destroyed(p *proxy) (n uint64) {
	for _, s := range p.pool.Stat() {
		n += s.Destroyed
	}
	return n
}

func must(t testing.TB, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// awaitRunning waits until a statement of the application runs on some node.
func awaitRunning(t testing.TB, c *pgcluster.Cluster, app string) {
	t.Helper()
	var conns []*pgx.Conn
	for _, n := range c.Nodes() {
		conn, err := pgx.Connect(t.Context(), n.URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		conns = append(conns, conn)
	}
	eventually(t, "a running statement of "+app, func() bool {
		for _, conn := range conns {
			var n int
			if err := conn.QueryRow(t.Context(), `select count(*) from pg_stat_activity
				where application_name = $1 and state = 'active'`, app).Scan(&n); err == nil && n > 0 {
				return true
			}
		}
		return false
	})
}

// TestLeaderRestart restarts the leader: statements wait for it.
func TestLeaderRestart(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	p := startProxy(t, c, func(s *settings) { s.session.LeaderWait = 20 * time.Second })
	p.awaitFollowers(t, 1)
	conn := p.connect(t, "default_query_exec_mode=simple_protocol")
	must(t, conn, "create table r(i int)", "insert into r values (1)")
	leader := c.Nodes()[0]
	if err := leader.Stop(pgcluster.Fast); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "insert into r values (2)")
		result <- err
	}()
	eventually(t, "the proxy to miss the leader", func() bool { return p.board.View().Leader < 0 })
	if err := leader.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

// TestNoLeader checks the error when none comes within the limit.
func TestNoLeader(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	p := startProxy(t, c, func(s *settings) { s.session.LeaderWait = 2 * time.Second })
	p.awaitFollowers(t, 1)
	conn := p.connect(t, "default_query_exec_mode=simple_protocol")
	awaitFollower(t, conn, "select 1")
	if err := c.Nodes()[0].Stop(pgcluster.Fast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the proxy to miss the leader", func() bool { return p.board.View().Leader < 0 })
	if _, err := conn.Exec(t.Context(), "create table never(i int)"); code(err) != "57P03" {
		t.Fatalf("write without a leader: %v", err)
	}
	if _, err := conn.Exec(t.Context(), "select 1"); err != nil { // reads go on
		t.Fatalf("%v; nodes: %+v", err, p.board.View().Nodes)
	}
}

// TestStatementOfLostBatch: a statement of which the client was not told that it was
// prepared, because every server that tried the batch was lost, may be prepared again.
func TestStatementOfLostBatch(t *testing.T) {
	p := startProxy(t, shared.cluster, linked)
	p.awaitFollowers(t, 2)
	r := p.dialRaw(t, nil)
	const slow = "select count(*) from generate_series(1, 5000) a, generate_series(1, 5000) b"
	prepare := func(name string) []string {
		r.Send(&pgproto3.Parse{Name: name, Query: slow})
		r.Send(&pgproto3.Sync{})
		r.flush()
		return r.untilReady()
	}
	prepare("first") // so that the connection has it, and the proxy answers for the server

	over, cutting := make(chan struct{}), make(chan struct{})
	go func() { // until the batch is over; awaited below
		defer close(cutting)
		for {
			select {
			case <-over:
				return
			case <-time.After(300 * time.Millisecond):
				for node := range p.links {
					p.cut(node)
				}
			}
		}
	}()
	r.Send(&pgproto3.Parse{Name: "lost", Query: slow})
	r.Send(&pgproto3.Bind{PreparedStatement: "lost"})
	r.Send(&pgproto3.Execute{})
	r.Send(&pgproto3.Sync{})
	r.flush()
	lines := r.untilReady()
	close(over)
	<-cutting
	if !strings.HasPrefix(lines[0], "ErrorResponse 08006") {
		t.Fatalf("the batch was not lost as meant: %q", lines)
	}
	p.awaitFollowers(t, 2)
	if lines := prepare("lost"); lines[0] != "ParseComplete" {
		t.Errorf("prepared again: %q", lines)
	}
}
