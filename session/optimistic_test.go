package session_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/lsnproxy/lsnproxy/internal/equivalence"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
	"github.com/lsnproxy/lsnproxy/route"
)

func optimistic(s *settings) { s.session.Policy.Optimistic = true }

// onFollower begins transactions until one is on a follower, and has read there.
func onFollower(t *testing.T, conn *pgx.Conn, begin string) {
	t.Helper()
	eventually(t, "a transaction on a follower", func() bool {
		must(t, conn, begin, "select 1")
		if served(t, conn) != shared.cluster.Leader().Addr() {
			return true
		}
		must(t, conn, "rollback")
		return false
	})
}

// TestOptimistic: where the statements of an optimistic transaction run, and that
// nothing of it is lost on the way.
func TestOptimistic(t *testing.T) {
	for _, mode := range []string{"simple_protocol", "cache_statement", "exec"} {
		t.Run(mode, func(t *testing.T) {
			p := startProxy(t, shared.cluster, optimistic)
			p.awaitFollowers(t, 2)
			table(t, "hoped")
			conn := p.connect(t, "default_query_exec_mode="+mode)
			must(t, conn, "drop view if exists hoped_plain, hoped_since", "drop function if exists hoped_when()",
				"create function hoped_when() returns timestamptz stable language plpgsql as 'begin return current_timestamp; end'",
				"create view hoped_since as select hoped_when()", "create view hoped_plain as select count(*) from pg_class")
			watch := direct(t, shared.cluster.Nodes()[0])
			t.Cleanup(func() {
				_, _ = watch.Exec(context.Background(), "drop view hoped_plain, hoped_since; drop function hoped_when()")
			})
			writer := p.at(t, "")
			leader := shared.cluster.Leader().Addr()
			is := func(follower bool, what string) {
				t.Helper()
				if got := served(t, conn); (got != leader) != follower {
					t.Errorf("%s: on %s", what, got)
				}
			}
			// Only reads: all of it, when the definitions have been looked up for the last time.
			eventually(t, "a second read on a follower", func() bool {
				onFollower(t, conn, "begin")
				must(t, conn, "select count(*) from hoped", "select * from hoped_plain")
				there := served(t, conn) != leader
				must(t, conn, "commit")
				is(there, "the commit")
				return there
			})

			// A write, and reads of what it wrote.
			onFollower(t, conn, "start transaction isolation level read committed")
			must(t, conn, "insert into hoped values (1)")
			is(false, "the write")
			if n := count(t, conn, "select count(*) from hoped"); n != 1 {
				t.Errorf("the transaction sees %d rows of its own", n)
			}
			is(false, "a read behind it")
			must(t, conn, "rollback")
			if n := count(t, conn, "select count(*) from hoped"); n != 0 {
				t.Errorf("%d rows after the rollback", n)
			}

			// What has to be on the leader, though it reads.
			for _, sql := range []string{
				"savepoint a", "set local work_mem = '1MB'", "select * from hoped for update", "select now()", "select 'TODAY'::date",
				"declare c cursor for select 1", "lock table hoped in share mode", "create temporary table hoping(i int) on commit drop",
				"select * from hoped_since", "select hoped_when()", "select pg_advisory_xact_lock(1)", "select set_config('work_mem', '1MB', true)",
			} {
				onFollower(t, conn, "begin")
				must(t, conn, sql)
				is(false, sql)
				must(t, conn, "rollback")
			}

			// A hint that asks for more than the transaction has.
			must(t, writer, "insert into hoped values (9)")
			for _, hint := range []string{"consistency=strong", "consistency=leader", "token=" + show(t, writer, "token")} {
				onFollower(t, conn, "begin")
				must(t, conn, "/* lsnproxy: "+hint+" */ select 1")
				is(false, hint)
				must(t, conn, "rollback")
				must(t, writer, "delete from hoped")
				conn = p.connect(t, "default_query_exec_mode="+mode) // which has not that token
			}

			// What is no transaction at READ COMMITTED, or not a plain one.
			for _, begin := range []string{"begin isolation level repeatable read", "begin isolation level serializable", "begin read write"} {
				must(t, conn, begin, "select 1")
				is(false, begin)
				must(t, conn, "commit")
			}
			must(t, conn, "set default_transaction_isolation = 'repeatable read'", "begin", "select 1")
			is(false, "repeatable read by default")
			if got := show(t, conn, "pinned"); got != "" {
				t.Errorf("pinned by %s", got)
			}
			var level string
			if err := conn.QueryRow(t.Context(), "show transaction_isolation").Scan(&level); err != nil || level != "repeatable read" {
				t.Errorf("the level is %s, %v", level, err)
			}
			must(t, conn, "commit", "reset default_transaction_isolation")

			// Errors.
			onFollower(t, conn, "begin")
			if got := sqlstate(t, conn, "select 1/0"); got != "22012" {
				t.Errorf("%q", got)
			}
			if got := sqlstate(t, conn, "insert into hoped values (1)"); got != "25P02" {
				t.Errorf("in a failed transaction: %q", got)
			}
			must(t, conn, "rollback", "begin", "insert into hoped values (7)", "commit")
			if n := count(t, conn, "select count(*) from hoped"); n != 1 {
				t.Errorf("%d rows", n)
			}
			must(t, conn, "set lsnproxy.optimistic = off", "begin", "select 1")
			is(false, "switched off")
			must(t, conn, "commit")
		})
	}
}

// TestOptimisticRefused: what a follower refuses, a function in disguise, goes on
// on the leader with nothing lost; so does what was on a connection that is lost, while
// it was idle or under a statement.
func TestOptimisticRefused(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { optimistic(s); linked(s) })
	p.awaitFollowers(t, 2)
	table(t, "hoped")
	watch := direct(t, shared.cluster.Nodes()[0])
	must(t, watch, "create or replace function disguised() returns int stable language sql as 'select 1'")
	t.Cleanup(func() { _, _ = watch.Exec(context.Background(), "drop function disguised()") })
	conn := p.at(t, "")
	eventually(t, "the function to be known", func() bool {
		must(t, conn, "select disguised()")
		return served(t, conn) != p.links[0].Addr()
	})
	// Changed past the proxy, which takes it for a read for a while.
	must(t, watch, "create or replace function disguised() returns int language sql as 'insert into hoped values (1); select 1'")
	for _, f := range shared.cluster.Followers() {
		follower := direct(t, f)
		eventually(t, "the change on "+f.Addr(), func() bool {
			return count(t, follower, "select count(*) from pg_proc where proname = 'disguised' and provolatile = 'v'") == 1
		})
	}
	must(t, conn, "begin", "select 1", "select disguised()")
	if served(t, conn) != p.links[0].Addr() {
		t.Error("it wrote on a follower")
	}
	must(t, conn, "commit")
	if n := count(t, conn, "select count(*) from hoped"); n != 1 {
		t.Errorf("%d rows", n)
	}
	for range 3 {
		must(t, conn, "begin", "select 1")
		cut := 0
		for i, link := range p.links {
			if i > 0 && link.Addr() == served(t, conn) {
				p.cut(i)
				cut++
			}
		}
		if n := count(t, conn, "select count(*) from hoped"); n != 1 || served(t, conn) != p.links[0].Addr() && cut > 0 {
			t.Errorf("%d rows on %s after %d cuts", n, served(t, conn), cut)
		}
		must(t, conn, "insert into hoped values (2)", "rollback")
	}
}

// TestOptimisticMonotonic: the leader shows what the follower has shown, though it
// would do so later by itself: the commit waits there for a synchronous standby.
func TestOptimisticMonotonic(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	p := startProxy(t, c, optimistic)
	p.awaitFollowers(t, 1)
	leader := c.Nodes()[0]
	must(t, direct(t, leader), "create table ahead(a int)")
	conn := p.at(t, "")
	written := showAhead(t, c, conn)
	must(t, conn, "begin")
	eventually(t, "the row on the follower", func() bool { return count(t, conn, "select count(*) from ahead") == 1 })
	overtakes := p.server.Stat().Overtakes
	go func() { // ends with the overtaking below
		for p.server.Stat().Overtakes == overtakes {
			time.Sleep(time.Millisecond)
		}
		_ = leader.Set(t.Context(), "synchronous_standby_names", "")
	}()
	if n := count(t, conn, "select count(*) from (select 1 from ahead for update) x"); n != 1 {
		t.Errorf("the leader shows %d rows of 1", n)
	}
	must(t, conn, "commit")
	if err := <-written; err != nil {
		t.Error(err)
	}
}

// TestOptimisticPortals: rows in portions, and portals with names, are the leader's.
func TestOptimisticPortals(t *testing.T) {
	p := startProxy(t, shared.cluster, optimistic)
	p.awaitFollowers(t, 2)
	warm := p.at(t, "")
	onFollower(t, warm, "begin")
	r := p.dialRaw(t, nil)
	r.expect(flight(parse("", "begin"), bind("", ""), execute("", 0), parse("", "select count(*) from pg_class where relname = 'hoped'"), bind("", ""), execute("", 0), sync),
		"ParseComplete", "BindComplete", "CommandComplete BEGIN", "ParseComplete", "BindComplete", "DataRow 0", "CommandComplete SELECT 1", "ReadyForQuery T")
	r.expect(query("create temporary table hoped(i int) on commit drop"), "CommandComplete CREATE TABLE", "ReadyForQuery T")
	r.expect(query("rollback"), "CommandComplete ROLLBACK", "ReadyForQuery I")
	for _, portal := range []string{"", "p"} {
		r.expect(query("begin"), "CommandComplete BEGIN", "ReadyForQuery T")
		r.expect(query("select 1"), "RowDescription", "DataRow 1", "CommandComplete SELECT 1", "ReadyForQuery T")
		r.expect(flight(parse("", "select generate_series(1, 3)"), bind(portal, ""), execute(portal, 2), sync),
			"ParseComplete", "BindComplete", "DataRow 1", "DataRow 2", "PortalSuspended", "ReadyForQuery T")
		r.expect(query("savepoint a"), "CommandComplete SAVEPOINT", "ReadyForQuery T")
		if portal != "" {
			r.expect(flight(execute(portal, 0), sync), "DataRow 3", "CommandComplete SELECT 1", "ReadyForQuery T")
		}
		r.expect(query("commit"), "CommandComplete COMMIT", "ReadyForQuery I")
	}
}

// TestRandomOptimistic plays scenes with transactions that begin on followers.
func TestRandomOptimistic(t *testing.T) {
	st := newStage(t)
	st.change = optimistic
	acts := []act{{20, false}, {2, true}}
	for n := range 4 {
		a := acts[n%len(acts)]
		scene := equivalence.Generate(equivalence.Options{Seed: 100 + uint64(n), Sessions: 1 + n%3, Steps: 400, Notify: !a.together})
		t.Run(fmt.Sprint(n), func(t *testing.T) { st.demandSame(t, scene, a) })
	}
}

// TestOptimisticUnderFaults lets sessions change rows of their own in transactions
// that begin on followers, while these stall and their connections are cut: each
// transaction finds what the one before has left, and on the leader all that the
// follower has shown it of others.
func TestOptimisticUnderFaults(t *testing.T) {
	const sessions, each = 8, 40
	c := pgtest.Start(t, pgcluster.Options{Followers: 2, ApplyDelay: 5 * time.Millisecond})
	p := startProxy(t, c, func(s *settings) {
		optimistic(s)
		linked(s)
		s.session.Policy.Delivery = route.DeliverLazy
		s.session.Return = time.Millisecond
	})
	p.awaitFollowers(t, 2)
	admin := direct(t, c.Nodes()[0])
	must(t, admin, "create table own(k int primary key, v int)", fmt.Sprintf("insert into own select k, 0 from generate_series(0, %d) k", sessions-1))
	if err := c.WaitStreaming(t.Context()); err != nil {
		t.Fatal(err)
	}
	warm := p.at(t, "")
	eventually(t, "a transaction on a follower", func() bool {
		must(t, warm, "begin", "select v from own")
		where := served(t, warm)
		must(t, warm, "rollback")
		return where != p.links[0].Addr()
	})
	run, stop := context.WithCancel(t.Context())
	faults, ctx := errgroup.WithContext(run)
	faults.Go(func() error { return pauseAtRandom(ctx, c) })
	faults.Go(func() error {
		for ctx.Err() == nil {
			wait(ctx, time.Duration(200+rand.IntN(300))*time.Millisecond)
			p.cut(1 + rand.IntN(2))
		}
		return nil
	})
	var all errgroup.Group
	for k := range sessions {
		conn := p.at(t, "")
		all.Go(func() error {
			for n := range each {
				if err := ownChange(t.Context(), conn, k, (k+1)%sessions, n); err != nil {
					return fmt.Errorf("session %d, transaction %d: %w", k, n, err)
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	stop()
	if err := faults.Wait(); err != nil {
		t.Error(err)
	}
	followed := uint64(0)
	for _, r := range p.server.Stat().ReadsBy {
		if r.Node > 0 {
			followed += r.Count
		}
	}
	if followed < sessions {
		t.Errorf("nothing was put to the test: %+v", p.server.Stat())
	}
}

// ownChange is the nth transaction of a session: it reads its own row and another,
// then adds 1 to its own and reads the other once more.
func ownChange(ctx context.Context, conn *pgx.Conn, mine, other, n int) (err error) {
	value := func(sql string) (v int) {
		if err == nil {
			err = conn.QueryRow(ctx, sql).Scan(&v)
		}
		return v
	}
	if _, err := conn.Exec(ctx, "begin"); err != nil {
		return err
	}
	found := value(fmt.Sprintf("select v from own where k = %d", mine))
	seen := value(fmt.Sprintf("select v from own where k = %d", other))
	left := value(fmt.Sprintf("update own set v = v + 1 where k = %d returning v", mine))
	now := value(fmt.Sprintf("select v from own where k = %d", other))
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "commit"); err != nil {
		return err
	}
	if found != n || left != n+1 || now < seen {
		return fmt.Errorf("found %d, left %d; saw %d of another, and then %d", found, left, seen, now)
	}
	return nil
}
