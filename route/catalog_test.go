package route

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lsnproxy/lsnproxy/pgcluster"
)

func TestNewCatalogRefuses(t *testing.T) {
	for _, rows := range [][][]string{
		{{"function", "f", "v", ""}},
		{{"planet", "f", "", "", ""}},
	} {
		if _, err := NewCatalog(rows); err == nil || !strings.HasPrefix(err.Error(), "catalog: ") {
			t.Errorf("%v: %v", rows, err)
		}
	}
}

// TestWorstMeaning: a name stands for the worst that any schema has under it,
// in whatever order the rows come.
func TestWorstMeaning(t *testing.T) {
	rows := [][]string{
		{"function", "f", "i", "b", ""},
		{"function", "f", "v", "", "BEGIN CREATE TEMP TABLE x (i int); END"},
		{"function", "g", "s", "", "SELECT f()"},
		{"relation", "r", "", "", ""},
		{"relation", "r", "unlogged", "", ""},
		{"relation", "v", "", "", ""},
		{"view", "v", "", "", "SELECT g() FROM v2"},
		{"relation", "v2", "", "", ""},
		{"view", "v2", "", "", "SELECT 1 FROM r"},
	}
	for range len(rows) {
		rows = append(rows[1:], rows[0])
		c, err := NewCatalog(rows)
		if err != nil {
			t.Fatal(err)
		}
		for sql, want := range map[string]Class{
			"SELECT f()":       {Reason: ReasonVolatile, Pin: PinTemporary, At: 7},
			"SELECT g()":       {Reason: ReasonVolatile, Pin: PinTemporary, At: 7},
			"SELECT 1 FROM r":  {Reason: ReasonRelation, At: 14},
			"SELECT 1 FROM v2": {Reason: ReasonRelation, At: 14},
			"SELECT 1 FROM v":  {Reason: ReasonRelation, Pin: PinTemporary, At: 14},
		} {
			got := Classify([]byte(sql), true, c)
			want.Schema = got.Schema
			if got.Reason == ReasonSessionState {
				got.Reason = ReasonVolatile // the same function says both
			}
			if got != want {
				t.Errorf("%s: %+v, want %+v", sql, got, want)
			}
		}
	}
}

// testHeld reads the catalog while somebody has locked a table: what is defined by
// it is taken to do anything, and nothing is waited for.
func testHeld(t *testing.T, conn, other *pgconn.PgConn) {
	run(t, conn, `CREATE SCHEMA held; SET search_path = held;
		CREATE TABLE mine (i int DEFAULT 3, CHECK (i > 0)); CREATE TABLE free (i int DEFAULT 4);
		CREATE VIEW over_mine AS SELECT i FROM mine; CREATE VIEW over_view AS SELECT i FROM over_mine; CREATE VIEW over_free AS SELECT i FROM free;
		CREATE POLICY p ON mine USING (i > 1);
		CREATE RULE r AS ON UPDATE TO free DO ALSO SELECT i FROM mine;
		CREATE TABLE ruled (i int); CREATE RULE r AS ON INSERT TO ruled DO ALSO SELECT i FROM mine;
		CREATE FUNCTION of_mine() RETURNS int LANGUAGE sql STABLE BEGIN ATOMIC SELECT i FROM mine; END;
		RESET search_path`)
	defer run(t, conn, "DROP SCHEMA held CASCADE")
	for _, locks := range []bool{false, true} {
		if locks {
			run(t, other, "BEGIN; LOCK TABLE held.mine")
			defer run(t, other, "ROLLBACK")
		}
		run(t, conn, "SET lock_timeout = '1s'")
		catalog, err := NewCatalog(run(t, conn, CatalogQuery))
		if err != nil {
			t.Fatal(err)
		}
		if catalog.Held() != locks {
			t.Errorf("held: %v, want %v", catalog.Held(), locks)
		}
		for sql, unclear := range map[string]bool{
			"SELECT i FROM held.over_mine": true, "SELECT i FROM held.over_view": true, "SELECT i FROM held.over_free": false,
			"SELECT held.of_mine()": true, "INSERT INTO held.mine VALUES (1)": true, "INSERT INTO held.ruled VALUES (1)": true,
			"DELETE FROM held.over_mine": true, "SELECT i FROM held.free": false,
		} {
			if c := Classify([]byte(sql), true, catalog); c.Unknown() != (unclear && locks) {
				t.Errorf("%s: locked %v, %+v", sql, locks, c)
			}
		}
	}
	run(t, conn, "RESET lock_timeout")
}

// testSuspect makes databases in which a statement may do more than its text
// shows: nothing in them is a read.
func testSuspect(t *testing.T, leader *pgcluster.Node, conn *pgconn.PgConn) {
	const kind = `CREATE TYPE kind AS (a int);
		CREATE FUNCTION same(kind, kind) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN true; END $$;
		CREATE FUNCTION compare(kind, kind) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 0; END $$;
		CREATE FUNCTION to_number(kind) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 0; END $$;`
	for name, c := range map[string]struct {
		sql  string
		want Reason
	}{
		"harmless": {"CREATE CAST (kind AS int) WITH FUNCTION to_number(kind) AS ASSIGNMENT", ReasonRead},
		"equals":   {"CREATE OPERATOR = (LEFTARG = kind, RIGHTARG = kind, FUNCTION = same)", ReasonOperator},
		"converts": {"CREATE CAST (kind AS int) WITH FUNCTION to_number(kind) AS IMPLICIT", ReasonType},
		"support": {`CREATE OPERATOR CLASS kinds FOR TYPE kind USING btree AS OPERATOR 3 pg_catalog.=(record, record),
			FUNCTION 1 compare(kind, kind)`, ReasonOperator},
		"index": {`CREATE OPERATOR === (LEFTARG = kind, RIGHTARG = kind, FUNCTION = same);
			CREATE OPERATOR CLASS kinds FOR TYPE kind USING hash AS OPERATOR 1 ===`, ReasonOperator},
	} {
		run(t, conn, "CREATE DATABASE "+name)
		other, err := pgconn.Connect(t.Context(), leader.URL(name))
		if err != nil {
			t.Fatal(err)
		}
		run(t, other, kind+c.sql)
		catalog, err := NewCatalog(run(t, other, CatalogQuery))
		if err != nil {
			t.Fatal(err)
		}
		if got := Classify([]byte("SELECT 1 ORDER BY 1"), true, catalog); got.Reason != c.want {
			t.Errorf("%s: %v, want %v", name, got.Reason, c.want)
		}
		if err := other.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
