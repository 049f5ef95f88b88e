package session_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// explained returns what EXPLAIN (LSNPROXY) says of a statement.
func explained(t *testing.T, conn *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	rows, err := conn.Query(t.Context(), "explain (lsnproxy) "+sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if name := rows.FieldDescriptions()[0].Name; name != "QUERY PLAN" {
		t.Errorf("%s: the column is called %s", sql, name)
	}
	if tag := rows.CommandTag().String(); tag != "EXPLAIN" {
		t.Errorf("%s: %s", sql, tag)
	}
	return strings.Join(lines, "\n")
}

// TestExplain: EXPLAIN (LSNPROXY) says what SHOW lsnproxy.route says after the
// statement, and does not run it.
func TestExplain(t *testing.T) {
	for _, mode := range []string{"simple_protocol", "cache_statement", "cache_describe", "describe_exec", "exec"} {
		t.Run(mode, func(t *testing.T) {
			p := startProxy(t, shared.cluster, nil)
			p.awaitFollowers(t, 2)
			table(t, "explained")
			conn := p.connect(t, "default_query_exec_mode="+mode)
			leader := shared.cluster.Leader().Addr()
			awaitFollower(t, conn, "select * from explained")
			for range 3 { // prepared, and used again
				got := explained(t, conn, "select a from explained where a = $1", 1)
				if route := show(t, conn, "route"); got != route {
					t.Errorf("explained as\n%s\nand then shown as\n%s", got, route)
				}
				for _, want := range []string{"statement: reads only\n", "level: session\n", "follower: ", "node: " + leader} {
					if !strings.Contains(got, want) {
						t.Errorf("%q is not in\n%s", want, got)
					}
				}
				got = explained(t, conn, "insert into explained values ($1)", 7)
				if want := "served by: " + leader + " leader: not provably a read; statement: INSERT"; !strings.Contains(got, want) {
					t.Errorf("%q is not in\n%s", want, got)
				}
				must(t, conn, "begin")
				if got := explained(t, conn, "select count(*) from explained"); !strings.Contains(got, "connection held") {
					t.Errorf("in a transaction:\n%s", got)
				}
				must(t, conn, "commit")
			}
			must(t, conn, "set lsnproxy.consistency = leader")
			if got := explained(t, conn, "select 1"); !strings.Contains(got, "level: leader") {
				t.Errorf("at level leader:\n%s", got)
			}
			if n := count(t, conn, "select count(*) from explained"); n != 0 {
				t.Errorf("it was run: %d rows", n)
			}
			// The same words without the option are PostgreSQL's.
			rows, _ := conn.Query(t.Context(), "explain (costs 0)  select a from explained where a = $1", 1)
			if plan, err := pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || !strings.Contains(strings.Join(plan, "\n"), "Scan") {
				t.Errorf("EXPLAIN became %q, %v", plan, err)
			}
			for _, bad := range []string{
				"explain (lsnproxy, analyze) select 1", "explain (analyze, lsnproxy) select 1", "explain (lsnproxy false) select 1",
				"explain (lsnproxy) analyze insert into explained values (1)", "explain (lsnproxy) (analyze) insert into explained values (1)",
			} {
				_, err := conn.Exec(t.Context(), bad)
				var e *pgconn.PgError
				if !errors.As(err, &e) || e.Code != "42601" || strings.Contains(e.Message, "unrecognized") && e.Hint == "" {
					t.Errorf("%s: %v", bad, err)
				}
			}
			if got := sqlstate(t, conn, "explain (lsnproxy) select * from nowhere"); got != "42P01" {
				t.Errorf("of a table that is not there: %q", got)
			}
			if n := count(t, conn, "select count(*) from explained"); n != 0 {
				t.Errorf("it was run: %d rows", n)
			}
		})
	}
}

// TestExplainOnTheWire: rows in limits, by portals with names, among other
// statements, and where an error is.
func TestExplainOnTheWire(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	table(t, "explained")
	r := p.dialRaw(t, nil)
	parts := func(lines []string) string {
		for i, line := range lines {
			lines[i], _, _ = strings.Cut(line, " ")
			if i > 0 && lines[i] == "DataRow" && strings.HasPrefix(lines[i-1], "DataRow") {
				lines[i-1] = ""
			}
		}
		return strings.Join(strings.Fields(strings.Join(lines, " ")), " ")
	}
	r.Send(&pgproto3.Parse{Name: "e", Query: "explain (lsnproxy) select a from explained order by a"})
	r.Send(&pgproto3.Parse{Name: "s", Query: "select 1"})
	r.Send(&pgproto3.Bind{PreparedStatement: "e", DestinationPortal: "pe", ResultFormatCodes: []int16{1}})
	r.Send(&pgproto3.Bind{PreparedStatement: "s", DestinationPortal: "ps"})
	r.Send(&pgproto3.Describe{ObjectType: 'P', Name: "pe"})
	r.Send(&pgproto3.Execute{Portal: "pe", MaxRows: 1})
	r.Send(&pgproto3.Execute{Portal: "ps"})
	r.Send(&pgproto3.Execute{Portal: "pe"})
	r.Send(&pgproto3.Sync{})
	r.flush()
	want := "ParseComplete ParseComplete BindComplete BindComplete RowDescription PortalSuspended DataRow CommandComplete DataRow CommandComplete ReadyForQuery"
	if got := parts(r.untilReady()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	r.Send(&pgproto3.Query{String: "select 1; explain (lsnproxy) select 1"})
	r.flush()
	if got := strings.Join(r.untilReady(), "\n"); !strings.Contains(got, `ErrorResponse 42601 unrecognized EXPLAIN option "lsnproxy"`) {
		t.Errorf("among others: %s", got)
	}
	r.Send(&pgproto3.Query{String: "explain (lsnproxy) slect 1"})
	r.flush()
	for {
		msg, err := r.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := msg.(*pgproto3.ErrorResponse); ok && e.Position != 20 {
			t.Errorf("the error is at %d", e.Position)
		}
		if _, ok := msg.(*pgproto3.ReadyForQuery); ok {
			break
		}
	}
}
