package session_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lsnproxy/lsnproxy/pgcluster"
)

// direct opens a connection to a node, past the proxy.
func direct(t testing.TB, n *pgcluster.Node) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), n.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// table makes an empty table on the shared leader, for the time of the test.
func table(t testing.TB, name string) {
	t.Helper()
	conn := direct(t, shared.cluster.Nodes()[0])
	must(t, conn, "drop table if exists "+name, "create table "+name+"(a int)")
	t.Cleanup(func() { _, _ = conn.Exec(context.Background(), "drop table "+name) })
}

// expect takes a turn and checks the answer.
func (r *raw) expect(t turn, want ...string) {
	r.t.Helper()
	if got := r.say(t); !slices.Equal(got, want) {
		r.t.Fatalf("got  %q\nwant %q", got, want)
	}
}

// tasks returns how many sessions have something to do.
func tasks(p *proxy) (n int) {
	for _, l := range p.engine.Stat().Loops {
		n += l.Tasks
	}
	return n
}

// beginMessage sends the first bytes of a message and waits until the session
// has taken it up.
func (p *proxy) beginMessage(r *raw, message []byte) (rest []byte) {
	r.t.Helper()
	eventually(r.t, "a session at rest", func() bool { return tasks(p) == 0 })
	if _, err := r.conn.Write(message[:3]); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, "a session that reads", func() bool { return tasks(p) == 1 })
	return message[3:]
}

// gone waits until no connection of the application is left on the leader.
func gone(t testing.TB, app string) {
	t.Helper()
	conn := direct(t, shared.cluster.Nodes()[0])
	eventually(t, "the end of the connections of "+app, func() bool {
		var n int
		err := conn.QueryRow(t.Context(), "select count(*) from pg_stat_activity where application_name = $1", app).Scan(&n)
		return err == nil && n == 0
	})
}

// TestUnnamedStatementIsNotAnothers checks that a session cannot run the unnamed
// statement that another has left on the connection.
func TestUnnamedStatementIsNotAnothers(t *testing.T) {
	table(t, "unnamed")
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 1 })
	p.awaitFollowers(t, 2)
	one, two := p.dialRaw(t, nil), p.dialRaw(t, nil)
	one.expect(flight(parse("", "insert into unnamed values (42)"), bind("", ""), execute("", 0), sync),
		"ParseComplete", "BindComplete", "CommandComplete INSERT 0 1", "ReadyForQuery I")
	missing := []string{"ErrorResponse 26000 unnamed prepared statement does not exist", "ReadyForQuery I"}
	two.expect(flight(bind("", ""), execute("", 0), sync), missing...)
	two.expect(flight(describe_('S', ""), sync), missing...)
	one.expect(flight(bind("", ""), execute("", 0), sync), "BindComplete", "CommandComplete INSERT 0 1", "ReadyForQuery I")
	two.expect(query("select count(*) from unnamed"), "RowDescription", "DataRow 2", "CommandComplete SELECT 1", "ReadyForQuery I")
}

// TestNamedStatementIsNotAnothers checks that a session cannot run a statement
// of another by the name that it has on the server, and does no harm by trying.
func TestNamedStatementIsNotAnothers(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 1 })
	p.awaitFollowers(t, 2)
	one, two := p.dialRaw(t, nil), p.dialRaw(t, nil)
	one.say(query("begin"))
	one.expect(flight(parse("mine", "select 'secret text'"), bind("", "mine"), execute("", 0), sync),
		"ParseComplete", "BindComplete", "DataRow secret text", "CommandComplete SELECT 1", "ReadyForQuery T")
	one.say(query("rollback"))
	one.say(query("begin; set local client_min_messages = log; set local log_statement = 'all'"))
	told := strings.Join(one.say(flight(bind("", "mine"), execute("", 0), sync)), " ")
	one.say(query("rollback"))
	_, inner, _ := strings.Cut(told, "execute ")
	inner, _, _ = strings.Cut(inner, ": ")
	if !strings.HasPrefix(inner, "lsnproxy:") {
		t.Fatalf("the statement's name on the server: %q", told)
	}
	missing := []string{`ErrorResponse 26000 prepared statement "` + inner + `" does not exist`, "ReadyForQuery E"}
	for _, use := range []turn{flight(bind("", inner), execute("", 0), sync), flight(describe_('S', inner), sync)} {
		two.say(query("begin"))
		two.expect(use, missing...)
		two.say(query("rollback"))
		one.say(query("begin"))
		one.expect(flight(bind("", "mine"), execute("", 0), sync), "BindComplete", "DataRow secret text", "CommandComplete SELECT 1", "ReadyForQuery T")
		one.say(query("rollback"))
	}
}

// TestPreparedAgainAfterAlter checks that a session which prepares a text that
// another has prepared gets the table as it is now.
func TestPreparedAgainAfterAlter(t *testing.T) {
	table(t, "altered")
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	one := p.dialRaw(t, nil)
	use := flight(parse("h", "select * from altered"), bind("", "h"), execute("", 0), sync)
	one.say(query("begin"))
	one.expect(use, "ParseComplete", "BindComplete", "CommandComplete SELECT 0", "ReadyForQuery T")
	one.say(query("insert into altered values (1)"))
	one.say(query("commit"))
	one.expect(query("alter table altered add b int default 2"), "CommandComplete ALTER TABLE", "ReadyForQuery I")
	for range 2 {
		other := p.dialRaw(t, nil)
		other.say(query("begin"))
		other.expect(use, "ParseComplete", "BindComplete", "DataRow 1 2", "CommandComplete SELECT 1", "ReadyForQuery T")
		other.say(query("rollback"))
	}
}

// TestPreparedNowIsNow checks that 'now', which is evaluated when a statement is
// prepared, is not as old as another session's.
func TestPreparedNowIsNow(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 1 })
	p.awaitFollowers(t, 2)
	watch := direct(t, shared.cluster.Nodes()[0])
	for range 3 {
		var before string
		if err := watch.QueryRow(t.Context(), "select extract(epoch from clock_timestamp())::numeric(20, 6)::text").Scan(&before); err != nil {
			t.Fatal(err)
		}
		r := p.dialRaw(t, nil)
		r.say(query("begin"))
		got := r.say(flight(parse("n", "select extract(epoch from 'now'::timestamptz)::numeric(20, 6)::text"), bind("", "n"), execute("", 0), sync))
		r.say(query("rollback"))
		if len(got) != 5 {
			t.Fatalf("answered %q", got)
		}
		if now := strings.TrimPrefix(got[2], "DataRow "); now < before { // of one length
			t.Errorf("'now' is %s, but it is later than %s", now, before)
		}
	}
}

// TestDeallocateAllSparesOthers lets one session drop everything on a connection
// that others have statements on.
func TestDeallocateAllSparesOthers(t *testing.T) {
	table(t, "spared")
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 1 })
	p.awaitFollowers(t, 2)
	one := p.dialRaw(t, nil)
	one.expect(flight(parse("w", "insert into spared values (1)"), bind("", "w"), execute("", 0), sync),
		"ParseComplete", "BindComplete", "CommandComplete INSERT 0 1", "ReadyForQuery I")
	for _, sql := range []string{"deallocate all", "deallocate all; select 1/0", "begin; deallocate all; select 1/0; end", "discard all"} {
		two := p.dialRaw(t, nil)
		two.say(query(sql))
		two.say(query("rollback"))
		_ = two.conn.Close()
		one.expect(flight(bind("", "w"), execute("", 0), sync), "BindComplete", "CommandComplete INSERT 0 1", "ReadyForQuery I")
	}
}

// TestOwnVariableInTransaction checks that the refusal to set a variable of ours
// fails the transaction, as every error does, and only that.
func TestOwnVariableInTransaction(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	refused := `ErrorResponse 55P02 parameter "lsnproxy.node" cannot be changed`
	r := p.dialRaw(t, nil)
	r.say(query("begin"))
	r.expect(query("create table ownset(i int)"), "CommandComplete CREATE TABLE", "ReadyForQuery T")
	r.expect(query("set lsnproxy.node = 'x'"), refused, "ReadyForQuery E")
	r.expect(query("commit"), "CommandComplete ROLLBACK", "ReadyForQuery I")
	r.expect(query("drop table ownset"), `ErrorResponse 42P01 table "ownset" does not exist`, "ReadyForQuery I")

	pinned := p.dialRaw(t, nil)
	pinned.expect(query("listen x"), "CommandComplete LISTEN", "ReadyForQuery I")
	pinned.expect(query("set lsnproxy.node = 'x'"), refused, "ReadyForQuery I")
	pinned.expect(query("notify x, 'still here'"), "CommandComplete NOTIFY", "NotificationResponse x still here", "ReadyForQuery I")
}

// TestNotificationWithinMessage lets a notification come for a client that has
// sent the beginning of a message.
func TestNotificationWithinMessage(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	r := p.dialRaw(t, nil)
	r.expect(query("listen within"), "CommandComplete LISTEN", "ReadyForQuery I")
	rest := p.beginMessage(r, query("select 1").bytes())
	must(t, direct(t, shared.cluster.Nodes()[0]), "notify within, 'x'")
	time.Sleep(50 * time.Millisecond) // nothing tells that it has come: the session reads its client
	got := r.say(octets(rest))
	if at(got, 0) != "NotificationResponse within x" { // after the answer, if it was slow
		got = append([]string{"NotificationResponse within x"}, slices.DeleteFunc(got, func(l string) bool { return l == "NotificationResponse within x" })...)
	}
	want := []string{"NotificationResponse within x", "RowDescription", "DataRow 1", "CommandComplete SELECT 1", "ReadyForQuery I"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if n := p.server.Stat().Panics; n != 0 {
		t.Errorf("%d panics", n)
	}
}

// TestConnectionLostWithinMessage ends the connection of a transaction whose
// client has sent the beginning of a message.
func TestConnectionLostWithinMessage(t *testing.T) {
	p := startProxy(t, shared.cluster, linked)
	p.awaitFollowers(t, 2)
	r := p.dialRaw(t, map[string]string{"application_name": "within"})
	r.expect(query("begin"), "CommandComplete BEGIN", "ReadyForQuery T")
	rest := p.beginMessage(r, query("rollback").bytes())
	p.cut(0)
	gone(t, "within")
	r.expect(octets(rest), "ErrorResponse 08006 server closed the connection unexpectedly", "ReadyForQuery I")
	r.expect(query("select 1"), "RowDescription", "DataRow 1", "CommandComplete SELECT 1", "ReadyForQuery I")
	if n := p.server.Stat().Panics; n != 0 {
		t.Errorf("%d panics", n)
	}
}
