package session_test

import (
	"context"
	"strings"
	"testing"
)

// shown asks for one of the proxy's variables.
func (r *raw) shown(name string) string {
	r.t.Helper()
	got := r.say(query("show lsnproxy." + name))
	if len(got) != 4 {
		r.t.Fatalf("show lsnproxy.%s: %q", name, got)
	}
	return strings.TrimPrefix(got[1], "DataRow ")
}

// onePool starts a proxy whose sessions share one connection to each node.
func onePool(t *testing.T) *proxy {
	t.Helper()
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 1 })
	p.awaitFollowers(t, 2)
	p.awaitDefinitions(t)
	return p
}

// TestPinsAndReleases leaves something in the server's session and takes it away
// again: the session holds its connection only in between, and others get it
// clean before and after.
func TestPinsAndReleases(t *testing.T) {
	direct(t, shared.cluster.Leader()) // there
	for name, c := range map[string]struct{ begin, pinned, end string }{
		"listen":              {"listen pins_a", "listen", "unlisten *"},
		"listen one by one":   {"listen pins_a; listen pins_b", "listen", "unlisten pins_a; unlisten pins_b"},
		"table":               {"create temp table pins_t(i int)", "temporary object", "drop table pins_t"},
		"table discarded":     {"select 1 as i into temp pins_t", "temporary object", "discard temp"},
		"function":            {"create function pg_temp.f() returns int language sql as 'select 1'", "temporary object", "drop function pg_temp.f()"},
		"type":                {"create type pg_temp.e as enum ('a')", "temporary object", "drop type pg_temp.e"},
		"lock":                {"select pg_advisory_lock(4711)", "advisory lock", "select pg_advisory_unlock(4711)"},
		"lock tried":          {"select pg_try_advisory_lock_shared(4711)", "advisory lock", "select pg_advisory_unlock_all()"},
		"lock under an error": {"select pg_advisory_lock(4711), 1 / (select 0)", "advisory lock", "select pg_advisory_unlock_all()"},
		"cursor":              {"declare pins_c cursor with hold for select 1", "cursor with hold", "close pins_c"},
		"prepared":            {"prepare pins_p as select 1", "prepared statement", "deallocate pins_p"},
		"several": {
			"listen pins_a; create temp table pins_t(i int)", "listen, temporary object",
			"do 'begin unlisten *; drop table pins_t; end'",
		},
		"block":       {"do 'begin perform pg_advisory_lock(4711); end'", "advisory lock", "do 'begin perform pg_advisory_unlock(4711); end'"},
		"library":     {"load 'auto_explain'", "library", "discard all"},
		"all":         {"listen pins_a; prepare pins_p as select 1", "prepared statement, listen", "discard all"},
		"transaction": {"begin; create temp table pins_t(i int); commit", "temporary object", "begin; drop table pins_t; commit"},
	} {
		t.Run(name, func(t *testing.T) {
			p := onePool(t)
			one, two := p.dialRaw(t, nil), p.dialRaw(t, nil)
			two.expect(query("select 1 from pg_class where false for update"), "RowDescription", "CommandComplete SELECT 0", "ReadyForQuery I")
			one.say(query(c.begin))
			if got := one.shown("pinned"); got != c.pinned {
				t.Errorf("pinned by %q, want %q", got, c.pinned)
			}
			if n := p.server.Stat().Pinned; n != 1 {
				t.Errorf("%d sessions are pinned", n)
			}
			one.say(query(c.end))
			two.expect(query("select "+left), "RowDescription", "DataRow 0", "CommandComplete SELECT 1", "ReadyForQuery I")
			if got := one.shown("pinned"); got != "" {
				t.Errorf("still pinned by %q", got)
			}
			st := p.server.Stat()
			delete(st.Pins, "definitions") // for a moment, by what SELECT INTO and DROP may have changed
			if st.Pinned != 0 || len(st.Pins) != strings.Count(c.pinned, ",")+1 {
				t.Errorf("counted %d, %v", st.Pinned, st.Pins)
			}
		})
	}
}

// left counts what other sessions may have left on a connection.
const left = `(select count(*) from pg_listening_channels())
	+ (select count(*) from pg_class where relnamespace = pg_my_temp_schema())
	+ (select count(*) from pg_locks where locktype = 'advisory')
	+ (select count(*) from pg_cursors where is_holdable)`

// TestNothingLeftPinsNothing: what was rolled back or has failed, or was only
// prepared, leaves nothing, and the connection is free.
func TestNothingLeftPinsNothing(t *testing.T) {
	p := onePool(t)
	one, two := p.dialRaw(t, nil), p.dialRaw(t, nil)
	for _, turns := range [][]turn{
		{query("begin"), query("create temp table pins_t(i int)"), query("rollback")},
		{query("begin; create temp table pins_t(i int); select 1/0"), query("rollback")},
		{query("begin"), query("savepoint a"), query("create temp table pins_t(i int)"), query("rollback to a"), query("commit")},
		{query("begin"), query("listen x"), query("rollback")},
		{query("begin"), query("declare c cursor with hold for select 1"), query("rollback")},
		{query("begin"), query("declare c cursor with hold for select 1"), query("close c"), query("commit")},
		{query("create temp table pins_t(i int, i int)")},
		{query("load 'no such library'")},
		{query("prepare p as select * from nowhere")},
		{query("select pg_try_advisory_lock(1) where false")},
		{query("begin"), query("create temp table pins_t(i int)"), query("drop table pins_t"), query("commit")},
		{query("do 'begin create temp table pins_t(i int); drop table pins_t; end'")},
		{flight(parse("l", "listen x"), describe_('S', "l"), sync)},
	} {
		for _, turn := range turns {
			one.say(turn)
		}
		two.expect(query("select "+left), "RowDescription", "DataRow 0", "CommandComplete SELECT 1", "ReadyForQuery I")
		if got := one.shown("pinned"); got != "" {
			t.Errorf("pinned by %q", got)
		}
	}
}

// TestPinnedConnectionIsNotShared: what one session has left is not seen by
// others, and reads of it stay where it is.
func TestPinnedConnectionIsNotShared(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 3 })
	p.awaitFollowers(t, 2)
	table(t, "pins_shadowed")
	one, two, three := p.dialRaw(t, nil), p.dialRaw(t, nil), p.dialRaw(t, nil)
	one.say(query("create temp table pins_shadowed as select 1 as a"))
	two.say(query("create temp table pins_shadowed as select 2 as a"))
	for range 3 {
		one.expect(query("select a from pins_shadowed"), "RowDescription", "DataRow 1", "CommandComplete SELECT 1", "ReadyForQuery I")
		two.expect(query("select a from pins_shadowed"), "RowDescription", "DataRow 2", "CommandComplete SELECT 1", "ReadyForQuery I")
		three.expect(query("select a from pins_shadowed"), "RowDescription", "CommandComplete SELECT 0", "ReadyForQuery I")
	}
}

// TestFunctionCallThatLocks: a function called by number may lock, too.
func TestFunctionCallThatLocks(t *testing.T) {
	p := onePool(t)
	one, two := p.dialRaw(t, nil), p.dialRaw(t, nil)
	call := func(oid byte) turn { // pg_advisory_lock(int8) is 2880, pg_advisory_unlock(int8) is 2884
		return octets([]byte{'F', 0, 0, 0, 28, 0, 0, 11, oid, 0, 1, 0, 1, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1})
	}
	one.expect(call(0x40), "FunctionCallResponse", "ReadyForQuery I")
	if got := one.shown("pinned"); got != "advisory lock" {
		t.Errorf("pinned by %q", got)
	}
	one.expect(call(0x44), "FunctionCallResponse", "ReadyForQuery I")
	two.expect(query("select "+left), "RowDescription", "DataRow 0", "CommandComplete SELECT 1", "ReadyForQuery I")
}

// TestFunctionNotKnownYet: what a function leaves behind that was made past the
// proxy a moment ago, is found.
func TestFunctionNotKnownYet(t *testing.T) {
	p := onePool(t)
	one, two := p.dialRaw(t, nil), p.dialRaw(t, nil)
	eventually(t, "the catalog", func() bool {
		one.say(query("select 1"))
		return strings.Contains(one.shown("node"), " follower")
	})
	maker := direct(t, shared.cluster.Nodes()[0])
	must(t, maker, "create or replace function pins_new() returns int language plpgsql as "+
		"'begin perform pg_advisory_lock(4712); execute ''create temp table pins_made(i int)''; return 1; end'")
	t.Cleanup(func() { _, _ = maker.Exec(context.Background(), "drop function pins_new()") })
	one.expect(query("select pins_new()"), "RowDescription", "DataRow 1", "CommandComplete SELECT 1", "ReadyForQuery I")
	if got := one.shown("pinned"); got != "temporary object, advisory lock" {
		t.Errorf("pinned by %q", got)
	}
	one.say(query("discard all"))
	two.expect(query("select "+left), "RowDescription", "DataRow 0", "CommandComplete SELECT 1", "ReadyForQuery I")
}
