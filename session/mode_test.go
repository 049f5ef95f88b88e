package session_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/lsnproxy/lsnproxy/session"
)

// inMode makes a policy of that mode for every session, with one connection to
// each node.
func inMode(m session.Mode) func(*settings) {
	return func(s *settings) {
		s.pool.Size = 1
		s.session.PolicyOf = func(string, string) session.Policy { return session.Policy{Mode: m} }
	}
}

// TestSessionMode: a session reads from followers until it does something else,
// keeps its connection from then on, and leaves it clean to the next one.
func TestSessionMode(t *testing.T) {
	p := startProxy(t, shared.cluster, inMode(session.ModeSession))
	p.awaitFollowers(t, 2)
	const options = "default_query_exec_mode=simple_protocol"
	var node, pinned string
	first := p.connect(t, options)
	eventually(t, "a read on a follower", func() bool {
		scan(t, first, new(int), "select 1")
		scan(t, first, &node, "show lsnproxy.node")
		return strings.Contains(node, " follower")
	})
	scan(t, first, &pinned, "show lsnproxy.pinned")
	if pinned != "" {
		t.Errorf("pinned by %q before it has used the leader", pinned)
	}
	must(t, first, "create temp table mode_temp(i int)", "insert into mode_temp values (7)", "set search_path to pg_catalog", "discard temp")
	for range 3 {
		scan(t, first, new(int), "select 1")
	}
	scan(t, first, &node, "show lsnproxy.node")
	scan(t, first, &pinned, "show lsnproxy.pinned")
	if !strings.Contains(node, " leader") || !strings.Contains(pinned, "pool mode") {
		t.Errorf("after it has: %q, pinned by %q", node, pinned)
	}
	must(t, first, "create temp table mode_temp(i int)", "listen mode", "prepare mode_stmt as select 1", "select pg_advisory_lock(4711)")
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	second := p.connect(t, options)
	must(t, second, "create temp table mode_temp(i int)", "prepare mode_stmt as select 2")
	var path string
	scan(t, second, &path, "show search_path")
	if path != `"$user", public` {
		t.Errorf("search_path is %s", path)
	}
	var left int
	scan(t, second, &left, "select count(*) from pg_listening_channels()")
	var locks int
	scan(t, second, &locks, "select count(*) from pg_locks where locktype = 'advisory'")
	if left+locks != 0 {
		t.Errorf("%d channels and %d locks are left", left, locks)
	}
	for _, s := range p.pool.Stat() {
		if s.Destroyed != 0 {
			t.Errorf("%s: %d connections were destroyed", s.Address, s.Destroyed)
		}
	}
}

// TestSessionModeInDoubt: what DISCARD ALL does not end goes with the connection:
// a transaction, a library.
func TestSessionModeInDoubt(t *testing.T) {
	p := startProxy(t, shared.cluster, inMode(session.ModeSession))
	p.awaitFollowers(t, 2)
	for i, what := range []string{"begin", "load 'plpgsql'"} {
		r := p.dialRaw(t, nil)
		r.SendQuery(&pgproto3.Query{String: "set work_mem = '1MB'"})
		r.flush()
		r.untilReady()
		r.SendQuery(&pgproto3.Query{String: what})
		r.flush()
		r.untilReady()
		_ = r.conn.Close()
		eventually(t, "the end of the connection after "+what, func() bool {
			var destroyed uint64
			for _, s := range p.pool.Stat() {
				destroyed += s.Destroyed
			}
			return destroyed == uint64(i+1)
		})
	}
	must(t, p.connect(t, ""), "create temp table mode_temp(i int)")
}

// TestStatementMode: transaction blocks are refused, or end the session if they
// show only afterwards; what is over with its statement is not.
func TestStatementMode(t *testing.T) {
	p := startProxy(t, shared.cluster, inMode(session.ModeStatement))
	p.awaitFollowers(t, 2)
	r := p.dialRaw(t, nil)
	ask := func(sql string) []string {
		r.SendQuery(&pgproto3.Query{String: sql})
		r.flush()
		return r.untilReady()
	}
	refused := []string{"ErrorResponse 0A000 transaction blocks not allowed in statement pooling mode", "ReadyForQuery I"}
	for _, sql := range []string{"begin", "start transaction isolation level serializable", "begin read only"} {
		if got := ask(sql); !slices.Equal(got, refused) {
			t.Errorf("%s: %q", sql, got)
		}
	}
	for _, sql := range []string{"select 1", "create table mode_stmt(i int)", "begin; insert into mode_stmt values (1); commit", "drop table mode_stmt"} {
		if got := ask(sql); slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "ErrorResponse") }) {
			t.Errorf("%s: %q", sql, got)
		}
	}
	r.Send(&pgproto3.Parse{Query: "begin"})
	r.Send(&pgproto3.Bind{})
	r.Send(&pgproto3.Execute{})
	r.Send(&pgproto3.Sync{})
	r.flush()
	if got := r.untilReady(); !slices.Equal(got, refused) {
		t.Errorf("begin: %q", got)
	}
	r.SendQuery(&pgproto3.Query{String: "select 1; begin"})
	r.flush()
	if got := r.until("ErrorResponse"); len(got) != 5 || got[4] != refused[0] {
		t.Errorf("a hidden begin: %q", got)
	}
	if msg, err := r.Receive(); err == nil {
		t.Errorf("after the end: %s", describe(msg))
	}
	must(t, p.connect(t, ""), "create table mode_stmt(i int)", "drop table mode_stmt")
}

// TestClientLimits: one client more than its user or its database may have is
// refused, until another has left.
func TestClientLimits(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) {
		s.session.PolicyOf = func(database, user string) session.Policy {
			if database == "template1" {
				return session.Policy{OfDatabase: 1}
			}
			return session.Policy{OfUser: 2}
		}
	})
	p.awaitFollowers(t, 2)
	connect := func(database string) (*pgx.Conn, error) {
		return pgx.Connect(t.Context(), strings.Replace(p.url(""), "/postgres?", "/"+database+"?", 1))
	}
	other, err := connect("template1")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(t.Context())
	if _, err := connect("template1"); code(err) != "53300" || !strings.Contains(err.Error(), `for database "template1"`) {
		t.Errorf("one more of the database: %v", err)
	}
	one := p.connect(t, "")
	if _, err := connect("postgres"); code(err) != "53300" || !strings.Contains(err.Error(), `for role "postgres"`) {
		t.Errorf("one more of the user: %v", err)
	}
	_ = one.Close(t.Context())
	eventually(t, "room for another", func() bool {
		conn, err := connect("postgres")
		if err == nil {
			_ = conn.Close(t.Context())
		}
		return err == nil
	})
}
