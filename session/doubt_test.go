package session_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// A function that was defined a moment ago runs at once. What it leaves is the
// session's, also what no server tells unless it is asked by name; and the
// connection is free again when that is known.
func TestSettingsOfNewFunctions(t *testing.T) {
	const define = `create or replace function doubtful() returns text language plpgsql volatile as
		'begin return set_config(''doubtful.made'', ''mine'', false); end'`
	for name, begin := range map[string][]string{
		"called behind":    {define, "select doubtful()"},
		"in a transaction": {"begin", define, "select doubtful()", "commit"},
		"by a trigger": {
			define, `create function doubtful_trigger() returns trigger language plpgsql as 'begin perform doubtful(); return null; end'`,
			"create trigger t after insert on doubtful execute function doubtful_trigger()", "insert into doubtful values (1)",
		},
		"by a view":      {define, "create view doubtful_view as select doubtful()", "table doubtful_view"},
		"gone meanwhile": {define, "select doubtful(), set_config('doubtful.made', 'mine', false)", "drop function doubtful"},
		"discarded":      {define, "select doubtful()", "discard all", "set doubtful.made = 'mine'"},
	} {
		t.Run(name, func(t *testing.T) {
			admin := direct(t, shared.cluster.Leader())
			must(t, admin, "drop table if exists doubtful", "create table doubtful(i int)")
			defer must(t, admin, "drop table doubtful", "drop function if exists doubtful_trigger", "drop view if exists doubtful_view", "drop function if exists doubtful")
			p := onePool(t)
			one, two := p.dialRaw(t, nil), p.dialRaw(t, nil)
			for _, sql := range begin {
				one.say(query(sql))
			}
			two.expect(query("select coalesce(current_setting('doubtful.made', true), '')"), "RowDescription", "DataRow ", "CommandComplete SELECT 1", "ReadyForQuery I")
			one.expect(query("select current_setting('doubtful.made', true)"), "RowDescription", "DataRow mine", "CommandComplete SELECT 1", "ReadyForQuery I")
			if got := one.shown("pinned"); got != "" {
				t.Errorf("pinned by %q", got)
			}
		})
	}
}

// While definitions keep changing, those who change them are served, and those
// who only read are, too.
func TestDefinitionsThatKeepChanging(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 2 })
	p.awaitFollowers(t, 2)
	one, two := p.dialRaw(t, nil), p.dialRaw(t, nil)
	for range 200 {
		one.expect(query("create table changing(i int)"), "CommandComplete CREATE TABLE", "ReadyForQuery I")
		one.expect(query("insert into changing values (1)"), "CommandComplete INSERT 0 1", "ReadyForQuery I")
		two.expect(query("select i from changing"), "RowDescription", "DataRow 1", "CommandComplete SELECT 1", "ReadyForQuery I")
		one.expect(query("drop table changing"), "CommandComplete DROP TABLE", "ReadyForQuery I")
	}
	eventually(t, "nothing is in doubt", func() bool { return one.shown("pinned")+two.shown("pinned") == "" })
}

// A connection is lost of which it is not known yet what it holds: the session ends if it
// held something, and goes on if not.
func TestLossInDoubt(t *testing.T) {
	p := startProxy(t, shared.cluster, linked)
	p.awaitFollowers(t, 2)
	admin, locker := direct(t, shared.cluster.Leader()), direct(t, shared.cluster.Leader())
	defer must(t, admin, "drop function if exists lost_in_doubt", "drop table if exists lost_in_doubt")
	const define = `create function lost_in_doubt() returns text language plpgsql as 'begin return set_config(''lost.made'', ''mine'', false); end'`
	table := []string{"create table lost_in_doubt(i int)", "insert into lost_in_doubt values (1)"}
	for name, c := range map[string]struct {
		before []string
		last   string
		want   string
	}{
		"setting, at rest":          {[]string{define, "select lost_in_doubt()"}, "", "FATAL 08006"},
		"setting, under a query":    {[]string{define, "select lost_in_doubt()"}, "select pg_sleep(30)", "ERROR 08006; FATAL 08006"},
		"discarded, at rest":        {[]string{define, "select lost_in_doubt()", "discard all"}, "", "SELECT 1"},
		"nothing, at rest":          {table, "", "SELECT 1"},
		"nothing, under a query":    {table, "select pg_sleep(30)", "ERROR 08006; SELECT 1"},
		"in a transaction, at rest": {append(table, "begin"), "", "ERROR 08006"},
	} {
		t.Run(name, func(t *testing.T) {
			must(t, admin, "drop function if exists lost_in_doubt", "drop table if exists lost_in_doubt")
			// It keeps definitions from being looked up, and nothing else. Most catalogs are opened
			// by the first login, too, after what is cached of them has become invalid
			// (RelationCacheInitializePhase3 in relcache.c): that it is so is made sure of.
			must(t, admin, "vacuum analyze pg_catalog.pg_class")
			must(t, locker, "begin", "lock table pg_catalog.pg_policy")
			doubted := p.server.Stat().Pins["definitions"]
			one := p.dialRaw(t, map[string]string{"application_name": "in doubt"})
			for _, sql := range c.before {
				if got := one.say(query(sql)); strings.HasPrefix(got[0], "ErrorResponse") {
					t.Fatal(sql, got)
				}
			}
			if p.server.Stat().Pins["definitions"] == doubted {
				t.Fatal("not in doubt")
			}
			if c.last != "" {
				one.SendQuery(&pgproto3.Query{String: c.last})
				one.flush()
				awaitRunning(t, shared.cluster, "in doubt")
			}
			p.cut(0)
			must(t, locker, "rollback")
			got := ""
			if c.last != "" {
				got = one.fate() + "; "
			}
			one.SendQuery(&pgproto3.Query{String: "select 1"})
			one.flush()
			if got += one.fate(); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// fate is what has come of a Query: its command tag, or the severity and SQLSTATE of its error.
func (r *raw) fate() (fate string) {
	_ = r.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		msg, err := r.Receive()
		switch m := msg.(type) {
		case *pgproto3.CommandComplete:
			fate = string(m.CommandTag)
		case *pgproto3.ErrorResponse:
			fate = m.Severity + " " + m.Code
		case *pgproto3.ReadyForQuery:
			return fate
		}
		if err != nil {
			return fate
		}
	}
}
