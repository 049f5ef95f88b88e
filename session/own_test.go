package session_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// show returns a variable of the proxy.
func show(t testing.TB, conn *pgx.Conn, name string) string {
	t.Helper()
	var value string
	if err := conn.QueryRow(t.Context(), "show lsnproxy."+name).Scan(&value); err != nil {
		t.Fatalf("show %s: %v", name, err)
	}
	return value
}

// sqlstate returns the SQLSTATE that a statement fails with; empty if it does not.
func sqlstate(t testing.TB, conn *pgx.Conn, sql string) string {
	t.Helper()
	_, err := conn.Exec(t.Context(), sql)
	var e *pgconn.PgError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	}
	t.Fatalf("%s: %v", sql, err)
	return ""
}

// TestSetOwnVariables: they behave as settings do, and none of it stays on the
// server's connection.
func TestSetOwnVariables(t *testing.T) {
	for _, mode := range []string{"simple_protocol", "cache_statement", "exec"} {
		t.Run(mode, func(t *testing.T) {
			p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 1 })
			p.awaitFollowers(t, 2)
			conn := p.connect(t, "default_query_exec_mode="+mode)
			other := p.connect(t, "default_query_exec_mode="+mode)
			for _, c := range []*pgx.Conn{conn, other} { // which, in a transaction of the other, needs a follower
				awaitFollower(t, c, "select 1")
			}
			is := func(name, want string) {
				t.Helper()
				if got := show(t, conn, name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
				must(t, other, "select 1")
			}
			is("consistency", "session")
			must(t, conn, "set lsnproxy.consistency = 'eventual'")
			is("consistency", "eventual")
			must(t, conn, "set lsnproxy.wait to '1.5s'", "set lsnproxy.staleness = '500ms, 16MB'")
			is("wait", "1.5s")
			is("staleness", "500ms, 16MB")
			is("consistency", "eventual")

			if got := sqlstate(t, conn, "set lsnproxy.consistency = 'sesion'"); got != "22023" {
				t.Errorf("an unknown level: %q", got)
			}
			if got := sqlstate(t, conn, "set lsnproxy.node = 'x'"); got != "55P02" {
				t.Errorf("a variable that cannot be set: %q", got)
			}
			is("consistency", "eventual")

			must(t, conn, "begin", "set lsnproxy.consistency = 'strong'")
			is("consistency", "strong")
			must(t, conn, "rollback")
			is("consistency", "eventual")
			must(t, conn, "begin", "savepoint a", "set lsnproxy.consistency = 'strong'", "rollback to a",
				"set lsnproxy.wait = '1s'", "commit")
			is("consistency", "eventual")
			is("wait", "1s")
			must(t, conn, "begin", "set local lsnproxy.consistency = 'leader'", "commit")
			is("consistency", "eventual")
			must(t, conn, "select set_config('lsnproxy.consistency', 'bounded', false)")
			is("consistency", "bounded")
			must(t, conn, "reset lsnproxy.consistency")
			is("consistency", "session")
			is("wait", "1s")
			must(t, conn, "set lsnproxy.consistency to service", "reset all")
			is("consistency", "session")
			is("wait", "50ms")
			if mode != "cache_statement" { // it loses its statements
				must(t, conn, "set lsnproxy.consistency to service", "discard all")
				is("consistency", "session")
			}
			if got := show(t, other, "consistency"); got != "session" {
				t.Errorf("the other session is at %q", got)
			}
			var left string
			if err := other.QueryRow(t.Context(), "select coalesce(current_setting('lsnproxy.consistency', true), '')").Scan(&left); err != nil || left != "" {
				t.Errorf("the server's connection still has %q, %v", left, err)
			}
			if pinned := show(t, conn, "pinned"); pinned != "" {
				t.Errorf("pinned by %s", pinned)
			}
		})
	}
}

// TestWarnedOfOwnVariable: a value that no SET has shown the proxy, and that
// cannot be, changes nothing, and the client is told.
func TestWarnedOfOwnVariable(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	r := p.dialRaw(t, nil)
	query := func(sql string) string {
		r.Send(&pgproto3.Query{String: sql})
		r.flush()
		return strings.Join(r.untilReady(), "\n")
	}
	got := query("select set_config('lsnproxy.con' || 'sistency', 'sesion', false); select set_config('lsnproxy.wait', 'soon', false)")
	if !strings.Contains(got, `NoticeResponse invalid value for parameter "lsnproxy.wait"`) {
		t.Errorf("%s", got)
	}
	if got := query("show lsnproxy.wait"); !strings.Contains(got, "DataRow 50ms") {
		t.Errorf("%s", got)
	}
}

// TestTokenImport: a token makes another session see the write it stands for, on
// this proxy and on another; one that cannot be is refused.
func TestTokenImport(t *testing.T) {
	p, q := startProxy(t, shared.cluster, nil), startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	q.awaitFollowers(t, 2)
	writer := p.connect(t, "default_query_exec_mode=simple_protocol")
	must(t, writer, "drop table if exists imported", "create table imported(i int)")
	var refusals int
	for i := range 200 {
		must(t, writer, "insert into imported values (1)")
		token := show(t, writer, "token")
		reader := []*proxy{p, q}[i%2].connect(t, "default_query_exec_mode=simple_protocol")
		if i%3 == 0 {
			reader = []*proxy{p, q}[i%2].connect(t, "default_query_exec_mode=simple_protocol&options="+escape("-c lsnproxy.token="+token))
		} else {
			must(t, reader, "set lsnproxy.token = '"+token+"'")
		}
		if got := count(t, reader, "select count(*) from imported"); got != i+1 {
			t.Fatalf("with token %s the reader sees %d of %d rows, on %s", token, got, i+1, served(t, reader))
		}
		if got := show(t, reader, "token"); got < token && len(got) <= len(token) {
			t.Fatalf("token %s became %s", token, got)
		}
		_ = reader.Close(context.Background())
	}
	token := show(t, writer, "token")
	parts := strings.Split(token, ":")
	for bad, want := range map[string]string{
		"1:" + parts[1] + ":" + parts[2]:    "22023", // another system's
		parts[0] + ":" + parts[1] + ":FF/0": "22023", // ahead of the leader
		parts[0] + ":9:0/1":                 "22023", // a timeline there is not
		"nonsense":                          "22023",
		parts[0] + ":0:0/1":                 "22023",
	} {
		if got := sqlstate(t, writer, "set lsnproxy.token = '"+bad+"'"); got != want {
			t.Errorf("token %q: %q, want %q", bad, got, want)
		}
		refusals++
	}
	must(t, writer, "set lsnproxy.token = ''", "set lsnproxy.token = '"+token+"'")
	if s := p.server.Stat(); s.TokensRefused != uint64(refusals) || s.TokensImported == 0 {
		t.Errorf("counted: %d imported, %d refused", s.TokensImported, s.TokensRefused)
	}
}

// TestShowRoute: everything about the previous statement.
func TestShowRoute(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	conn := p.connect(t, "default_query_exec_mode=simple_protocol")
	if got := show(t, conn, "route"); got != "nothing routed yet" {
		t.Errorf("at the beginning: %s", got)
	}
	must(t, conn, "drop table if exists routed", "create table routed(i int)")
	p.awaitDefinitions(t)
	must(t, conn, "insert into routed values (1)")
	if got := show(t, conn, "route"); !strings.Contains(got, "served by: "+shared.cluster.Leader().Addr()+" leader: not provably a read") {
		t.Errorf("of a write:\n%s", got)
	}
	awaitFollower(t, conn, "select i from routed")
	must(t, conn, "select i from routed")
	got := show(t, conn, "route")
	for _, want := range []string{"statement: reads only\n", "level: session\n", "served by: ", " follower: ", "needed: ", "node: ", "leads", "behind"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}
