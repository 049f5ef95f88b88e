package session_test

import "testing"

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
