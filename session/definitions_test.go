package session_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Definitions are looked up on a follower. The role may log in to each server
// twice, and the leader's two connections are taken.
func TestDefinitionsAreLookedUpOnAFollower(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	admin := p.connect(t, "")
	must(t, admin, "CREATE ROLE twice LOGIN CONNECTION LIMIT 2")
	defer must(t, admin, "DROP ROLE twice")

	held := p.connect(t, "user=twice")
	reader := p.connect(t, "user=twice")
	must(t, held, "BEGIN", "SELECT 1")
	must(t, reader, "BEGIN", "SELECT 1", "ROLLBACK")
	awaitFollower(t, reader, "SELECT count(*) FROM pg_catalog.pg_class")
}

// What a transaction defines is looked up when it is over: not before, when
// nobody else could see it.
func TestDefinitionsOfATransaction(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	conn, other := p.connect(t, ""), p.connect(t, "")
	must(t, conn, "CREATE FUNCTION redefined() RETURNS text LANGUAGE sql STABLE AS 'SELECT NULL::text'")
	defer must(t, conn, "DROP FUNCTION redefined()")
	known := func() bool {
		must(t, other, "SELECT redefined()")
		return servedByFollower(t, other)
	}
	eventually(t, "the function is known", known)

	must(t, conn, "BEGIN")
	must(t, conn, `CREATE OR REPLACE FUNCTION redefined() RETURNS text LANGUAGE plpgsql VOLATILE
		AS 'BEGIN CREATE TEMPORARY TABLE IF NOT EXISTS left_behind (a int); RETURN NULL; END'`)
	eventually(t, "nothing has changed for others", known)
	must(t, conn, "COMMIT")
	eventually(t, "the function is known as it is now", func() bool {
		must(t, other, "SELECT redefined()")
		return shown(t, other, "SHOW lsnproxy.pinned") == "temporary object"
	})
}

// A transaction that has locked a table does not keep definitions from being looked up.
func TestDefinitionsWhileATableIsLocked(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	admin, locker, conn := direct(t, shared.cluster.Leader()), direct(t, shared.cluster.Leader()), p.connect(t, "")
	must(t, admin, "CREATE TABLE locked (i int DEFAULT 1)", "CREATE VIEW over_locked AS SELECT i FROM locked")
	defer must(t, admin, "DROP TABLE IF EXISTS locked, unlocked CASCADE")
	must(t, locker, "BEGIN", "LOCK TABLE locked", "SELECT txid_current()")
	must(t, conn, "CREATE TABLE unlocked (i int)")
	awaitFollower(t, conn, "SELECT i FROM unlocked")
	must(t, locker, "ROLLBACK")
	awaitFollower(t, conn, "SELECT i FROM over_locked")
}

// What is dropped, such as a temporary table, leaves everything else as known as it was.
func TestDefinitionsOutliveDrop(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	p.awaitDefinitions(t)
	conn, other := p.connect(t, ""), p.connect(t, "")
	for range 20 {
		must(t, conn, "CREATE TEMPORARY TABLE passing (i int)", "DROP TABLE passing")
		must(t, other, "SELECT FROM pg_catalog.pg_class LIMIT 1")
		if !servedByFollower(t, other) {
			t.Fatal(shown(t, other, "SHOW lsnproxy.node"))
		}
	}
}

// shown returns the one value that a query gives.
func shown(t testing.TB, conn *pgx.Conn, sql string) (value string) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql, pgx.QueryExecModeSimpleProtocol).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

// What a function leaves in the session stays with the session, also if it was
// defined a moment ago, in this very transaction, or by another client.
func TestUnknownFunctionsLeaveNothingToOthers(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 3 })
	p.awaitFollowers(t, 2)
	conn := p.connect(t, "default_query_exec_mode=simple_protocol")
	define := func(name string) string {
		return fmt.Sprintf(`CREATE FUNCTION %s() RETURNS text LANGUAGE plpgsql AS
			'BEGIN CREATE TEMPORARY TABLE left_behind (a int); RETURN ''''; END'`, name)
	}
	defer must(t, conn, "DROP FUNCTION IF EXISTS now_defined()", "DROP FUNCTION IF EXISTS just_defined()", "DROP FUNCTION IF EXISTS else_defined()")
	for name, first := range map[string][]string{
		"now_defined":  {define("now_defined")},
		"just_defined": {"BEGIN", define("just_defined")},
		"else_defined": nil,
	} {
		user := p.connect(t, "default_query_exec_mode=simple_protocol")
		must(t, user, first...)
		if first == nil {
			must(t, direct(t, shared.cluster.Leader()), define(name))
		}
		must(t, user, "SELECT "+name+"()")
		if first != nil && first[0] == "BEGIN" {
			must(t, user, "COMMIT")
		}
		eventually(t, name+": pinned for what it has left", func() bool {
			return shown(t, user, "SHOW lsnproxy.pinned") == "temporary object"
		})
		must(t, user, "SELECT * FROM left_behind")
		_ = user.Close(t.Context())
	}
}

// Triggers, rules, defaults, checks, and the triggers of what a foreign key or a
// view passes a change on to, are not written in the statement that sets them off.
func TestWhatWritingLeavesBehind(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	admin := p.connect(t, "default_query_exec_mode=simple_protocol")
	must(t, admin, `CREATE SCHEMA firing;
		SET search_path = firing;
		CREATE FUNCTION temporary_table() RETURNS trigger LANGUAGE plpgsql AS
			'BEGIN CREATE TEMPORARY TABLE left_behind (a int); RETURN NULL; END';
		CREATE FUNCTION temporary_value() RETURNS int LANGUAGE plpgsql AS
			'BEGIN CREATE TEMPORARY TABLE left_behind (a int); RETURN 1; END';
		CREATE TABLE quiet (a int);
		CREATE TABLE plain (a int PRIMARY KEY);
		CREATE TABLE referencing (a int REFERENCES plain ON DELETE CASCADE);
		CREATE TRIGGER t AFTER DELETE ON referencing EXECUTE FUNCTION temporary_table();
		CREATE TABLE triggered (a int);
		CREATE TRIGGER t AFTER INSERT ON triggered EXECUTE FUNCTION temporary_table();
		CREATE VIEW seen AS SELECT * FROM triggered;
		CREATE TABLE ruled (a int);
		CREATE RULE r AS ON INSERT TO ruled DO ALSO SELECT temporary_value();
		CREATE TABLE defaulting (a int DEFAULT temporary_value(), b int);
		CREATE TABLE whole (a int) PARTITION BY LIST (a);
		CREATE TABLE part PARTITION OF whole DEFAULT;
		CREATE TRIGGER t AFTER INSERT ON part FOR EACH ROW EXECUTE FUNCTION temporary_table();
		CREATE FUNCTION compiled() RETURNS trigger LANGUAGE c AS '$libdir/autoinc', 'autoinc';
		CREATE SEQUENCE numbers;
		CREATE TABLE numbered (a int);
		CREATE TRIGGER t BEFORE INSERT ON numbered FOR EACH ROW EXECUTE FUNCTION compiled('a', 'firing.numbers');
		INSERT INTO plain VALUES (1);
		INSERT INTO referencing VALUES (1);`)
	defer must(t, admin, "DROP SCHEMA firing CASCADE")
	for _, c := range []struct{ sql, pinned string }{
		{"INSERT INTO firing.quiet (a) VALUES (2)", ""},
		{"SELECT * FROM firing.triggered", ""},
		{"DELETE FROM firing.plain WHERE a = 1", "temporary object"},
		{"INSERT INTO firing.triggered VALUES (1)", "temporary object"},
		{"INSERT INTO firing.seen VALUES (1)", "temporary object"},
		{"INSERT INTO firing.ruled VALUES (1)", "temporary object"},
		{"INSERT INTO firing.defaulting (b) VALUES (1)", "temporary object"},
		{"INSERT INTO firing.whole VALUES (1)", "temporary object"},
		{"INSERT INTO firing.numbered VALUES (5)", "library"},
		{"WITH w AS (INSERT INTO firing.whole VALUES (1) RETURNING a) SELECT * FROM w", "temporary object"},
	} {
		conn := p.connect(t, "default_query_exec_mode=simple_protocol")
		awaitFollower(t, conn, "SELECT count(*) FROM firing.plain")
		must(t, conn, c.sql)
		if got := shown(t, conn, "SHOW lsnproxy.pinned"); got != c.pinned {
			t.Errorf("%s: pinned by %q, want %q", c.sql, got, c.pinned)
		}
		_ = conn.Close(t.Context())
	}
}
