package session_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/lsnproxy/lsnproxy/lsn"
)

func TestQueryThroughProxy(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	for _, mode := range []string{"simple_protocol", "exec", "cache_statement", "describe_exec", "cache_describe"} {
		t.Run(mode, func(t *testing.T) {
			c := p.connect(t, "default_query_exec_mode="+mode)
			for i := range 3 {
				var got int
				if err := c.QueryRow(t.Context(), "select $1::int + 1", i).Scan(&got); err != nil || got != i+1 {
					t.Fatalf("got %d, %v", got, err)
				}
			}
			table := "q_" + mode
			for _, sql := range []string{"drop table if exists " + table, "create table " + table + "(id int, v text)"} {
				if _, err := c.Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 3 {
				if _, err := c.Exec(t.Context(), "insert into "+table+" values ($1, $2)", i, "x"); err != nil {
					t.Fatal(err)
				}
				var n int
				if err := c.QueryRow(t.Context(), "select count(*) from "+table).Scan(&n); err != nil || n != i+1 {
					t.Fatalf("%d rows, %v", n, err)
				}
			}
			tx, err := c.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), "update "+table+" set v = 'y'"); err != nil {
				t.Fatal(err)
			}
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			var v string
			if err := c.QueryRow(t.Context(), "select min(v) from "+table).Scan(&v); err != nil || v != "y" {
				t.Fatalf("%q, %v", v, err)
			}
		})
	}
}

func TestRawProtocol(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	r := p.dialRaw(t, nil)
	expect := func(want ...string) {
		t.Helper()
		if got := r.untilReady(); !slices.Equal(got, want) {
			t.Fatalf("got  %q\nwant %q", got, want)
		}
	}
	r.SendQuery(&pgproto3.Query{String: "select 1"})
	r.flush()
	expect("RowDescription", "DataRow 1", "CommandComplete SELECT 1", "ReadyForQuery I")

	r.SendParse(&pgproto3.Parse{Name: "a", Query: "select $1::int"})
	r.SendSync(&pgproto3.Sync{})
	r.flush()
	expect("ParseComplete", "ReadyForQuery I")

	r.SendParse(&pgproto3.Parse{Name: "a", Query: "select $1::text"})
	r.SendSync(&pgproto3.Sync{})
	r.flush()
	expect(`ErrorResponse 42P05 prepared statement "a" already exists`, "ReadyForQuery I")

	r.SendBind(&pgproto3.Bind{PreparedStatement: "nope"})
	r.SendSync(&pgproto3.Sync{})
	r.flush()
	expect(`ErrorResponse 26000 prepared statement "nope" does not exist`, "ReadyForQuery I")

	r.SendBind(&pgproto3.Bind{PreparedStatement: "a"})
	r.SendSync(&pgproto3.Sync{})
	r.flush()
	expect(`ErrorResponse 08P01 bind message supplies 0 parameters, but prepared statement "a" requires 1`, "ReadyForQuery I")

	for range 3 {
		r.SendBind(&pgproto3.Bind{PreparedStatement: "a", Parameters: [][]byte{[]byte("7")}})
		r.SendDescribe(&pgproto3.Describe{ObjectType: 'P'})
		r.SendExecute(&pgproto3.Execute{})
		r.SendSync(&pgproto3.Sync{})
		r.flush()
		expect("BindComplete", "RowDescription", "DataRow 7", "CommandComplete SELECT 1", "ReadyForQuery I")
	}

	r.SendClose(&pgproto3.Close{ObjectType: 'S', Name: "a"})
	r.SendParse(&pgproto3.Parse{Name: "a", Query: "select 5"})
	r.SendBind(&pgproto3.Bind{PreparedStatement: "a"})
	r.SendExecute(&pgproto3.Execute{})
	r.SendSync(&pgproto3.Sync{})
	r.flush()
	expect("CloseComplete", "ParseComplete", "BindComplete", "DataRow 5", "CommandComplete SELECT 1", "ReadyForQuery I")

	r.SendParse(&pgproto3.Parse{Query: "select 1"})
	r.SendBind(&pgproto3.Bind{})
	r.SendExecute(&pgproto3.Execute{})
	r.SendParse(&pgproto3.Parse{Query: "syntax error here"})
	r.SendBind(&pgproto3.Bind{})
	r.SendExecute(&pgproto3.Execute{})
	r.SendSync(&pgproto3.Sync{})
	r.flush()
	expect("ParseComplete", "BindComplete", "DataRow 1", "CommandComplete SELECT 1",
		`ErrorResponse 42601 syntax error at or near "syntax"`, "ReadyForQuery I")

	r.SendQuery(&pgproto3.Query{String: ""})
	r.flush()
	expect("EmptyQueryResponse", "ReadyForQuery I")

	r.SendQuery(&pgproto3.Query{String: "select 1; select 2"})
	r.flush()
	if got := strings.Join(r.untilReady(), ","); !strings.HasPrefix(got, "RowDescription,DataRow 1,CommandComplete SELECT 1,RowDescription,DataRow 2,CommandComplete SELECT 1") {
		t.Fatal(got)
	}
}

// TestToken checks that a write's token comes before its ReadyForQuery, that
// SHOW tells the same, and that a statement can be prepared while all
// connections are held.
func TestToken(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	c := p.connect(t, "default_query_exec_mode=simple_protocol")
	must(t, c, "drop table if exists tok", "create table tok(i int)", "insert into tok values (1)")
	token := c.PgConn().ParameterStatus("lsnproxy.token")
	shown := ""
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		if err := c.QueryRow(t.Context(), "show lsnproxy.token", mode).Scan(&shown); err != nil {
			t.Fatal(err)
		}
		if token == "" || shown != token {
			t.Errorf("told %q, shown %q", token, shown)
		}
	}
	if _, err := lsn.ParseToken(token); err != nil {
		t.Error(err)
	}
	must(t, c, "begin", "insert into tok values (2)")
	if again := c.PgConn().ParameterStatus("lsnproxy.token"); again != token {
		t.Errorf("told %q before the commit", again)
	}
	must(t, c, "commit")
	if later := c.PgConn().ParameterStatus("lsnproxy.token"); later == token {
		t.Error("not told after the commit")
	}
	if _, err := c.Exec(t.Context(), "set lsnproxy.node = 'x'"); code(err) != "55P02" {
		t.Errorf("set of a variable of ours: %v", err)
	}
}

func TestPreparedWhileAllConnectionsAreHeld(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) {
		s.pool.Size = 1
		s.pool.Wait = 2 * time.Second
	})
	p.awaitFollowers(t, 2)
	holder, other := p.connect(t, ""), p.connect(t, "")
	const sql = "insert into pg_temp.never values ($1)"
	const good = "update pg_class set relname = relname where oid = $1"
	if _, err := holder.Prepare(t.Context(), "good", good); err != nil {
		t.Fatal(err)
	}
	must(t, holder, "begin")
	r := p.dialRaw(t, nil)
	r.SendParse(&pgproto3.Parse{Name: "good", Query: good})
	r.SendSync(&pgproto3.Sync{})
	r.flush()
	if got := r.untilReady(); !slices.Equal(got, []string{"ParseComplete", "ReadyForQuery I"}) {
		t.Errorf("a statement known to be good: %q", got)
	}
	if _, err := other.Prepare(t.Context(), "bad", sql); code(err) != "42P01" {
		t.Errorf("a statement not known: %v", err)
	}
	must(t, holder, "rollback")
}
