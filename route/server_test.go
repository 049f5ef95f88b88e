package route

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
	"github.com/lsnproxy/lsnproxy/route/internal/lex"
)

// TestServers holds the catalog and the classes against a real leader and
// follower that have run testdata/schema.sql.
func TestServers(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	leader, follower := connect(t, c.Leader()), connect(t, c.Followers()[0])
	schema, err := os.ReadFile("testdata/schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	run(t, leader, string(schema)+"CREATE ROLE nobody;")
	if err := c.WaitStreaming(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Run("Catalog", func(t *testing.T) { testCatalogRows(t, leader) })
	t.Run("Suspect", func(t *testing.T) { testSuspect(t, c.Leader(), leader) })
	t.Run("Held", func(t *testing.T) { testHeld(t, leader, connect(t, c.Leader())) })
	t.Run("Words", func(t *testing.T) { testReservedWords(t, leader) })
	t.Run("Reads", func(t *testing.T) { testReads(t, leader, follower) })
}

func connect(t *testing.T, n *pgcluster.Node) *pgconn.PgConn {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), n.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// run returns the rows of the last of the queries.
func run(t *testing.T, conn *pgconn.PgConn, sql string) [][]string {
	t.Helper()
	results, err := conn.Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rowsOf(results)
}

func rowsOf(results []*pgconn.Result) [][]string {
	var rows [][]string
	for _, r := range results {
		for _, values := range r.Rows {
			row := make([]string, len(values))
			for i, v := range values {
				row[i] = string(v)
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// testCatalogRows compares the answer to CatalogQuery with catalogFile, and with
// the one a role without any privilege gets.
func testCatalogRows(t *testing.T, conn *pgconn.PgConn) {
	start := time.Now()
	rows := sorted(run(t, conn, CatalogQuery))
	t.Logf("%d rows in %v", len(rows), time.Since(start))
	if _, err := NewCatalog(rows); err != nil {
		t.Fatal(err)
	}
	run(t, conn, "SET SESSION AUTHORIZATION nobody")
	if diff := cmp.Diff(rows, sorted(run(t, conn, CatalogQuery))); diff != "" {
		t.Errorf("without privileges (-all +nobody):\n%s", diff)
	}
	run(t, conn, "RESET SESSION AUTHORIZATION")

	version := conn.ParameterStatus("server_version")
	if !strings.HasPrefix(version, "15.") {
		t.Logf("PostgreSQL %s: %s is of 15", version, catalogFile)
		return
	}
	if *rewrite {
		writeCatalog(t, rows)
	}
	want, err := readCatalogFile()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("%s (-want +got):\n%s", catalogFile, diff)
	}
}

// testReservedWords compares the reserved words with the server's. system_user
// is one since 16 and could name a function before.
func testReservedWords(t *testing.T, conn *pgconn.PgConn) {
	for _, row := range run(t, conn, "SELECT word, catcode = 'R' FROM pg_get_keywords()") {
		l := lex.Lexer{Src: []byte(row[0])}
		if got := l.Next().Word.Reserved(); got != (row[1] == "t" && row[0] != "system_user") {
			t.Errorf("%s is reserved: %t", row[0], got)
		}
	}
}

func sorted(rows [][]string) [][]string {
	slices.SortFunc(rows, slices.Compare[[]string])
	return rows
}

func writeCatalog(t *testing.T, rows [][]string) {
	t.Helper()
	f, err := os.Create(catalogFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := csv.NewWriter(f).WriteAll(rows); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// varying are statements whose answer is another each time, wherever they run.
var varying = regexp.MustCompile(`(?i)explain.*analyze|random|clock_timestamp|now|uuid|current_timestamp|localtime|tablesample`)

// testReads runs every statement of the scripts that is a Read on both servers:
// the follower has to give the same answer, or the same error.
func testReads(t *testing.T, leader, follower *pgconn.PgConn) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	reads := 0
	for _, file := range files {
		examples := readScript(t, file)
		c, conforming := setting(t, examples)
		for _, conn := range []*pgconn.PgConn{leader, follower} {
			run(t, conn, fmt.Sprintf("SET standard_conforming_strings = %t; SET escape_string_warning = off; SET app.tenant = 'acme'", conforming))
		}
		for _, e := range examples {
			if Classify([]byte(e.sql), conforming, c).Kind != Read {
				continue
			}
			reads++
			want, wantCode := answer(t, leader, e.sql)
			got, code := answer(t, follower, e.sql)
			if code != wantCode || (code != "") != strings.Contains(e.comment, "# refused") && !newer(leader) {
				t.Errorf("%s: %s\nleader: %q, follower: %q", file, e.sql, wantCode, code)
			}
			if diff := cmp.Diff(want, got); diff != "" && !varying.MatchString(e.sql) {
				t.Errorf("%s: %s (-leader +follower)\n%s", file, e.sql, diff)
			}
		}
	}
	if reads < 80 {
		t.Errorf("%d reads in the scripts, want 80 or more", reads)
	}
}

// newer reports whether the server reads texts that the scripts say are refused.
func newer(conn *pgconn.PgConn) bool { return conn.ParameterStatus("server_version") >= "16" }

// answer runs one string of the scripts and returns its rows, or the SQLSTATE.
func answer(t *testing.T, conn *pgconn.PgConn, sql string) ([][]string, string) {
	t.Helper()
	results, err := conn.Exec(t.Context(), sql).ReadAll()
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused):
		return nil, refused.Code
	case err != nil:
		t.Fatal(err)
	}
	return rowsOf(results), ""
}
