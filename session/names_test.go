package session_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// prepared shows the session's statements, but for the time.
func prepared() turn {
	return query("select name, statement, parameter_types, from_sql from pg_prepared_statements order by name collate \"C\"")
}

// run executes a statement that is prepared.
func run(name string, params ...string) turn {
	return flight(bind("", name, params...), execute("", 0), sync)
}

// nameConversations use statements by the protocol and by SQL.
var nameConversations = map[string][]turn{
	"execute a statement of the protocol": {
		flight(parse("k", "select $1::int + 1"), sync), query("execute k(1)"), run("k", "5"), query("execute k('x')"), query("execute k"), run("k", "5"),
		query("explain (costs off) execute k(1)"), query("create temp table made as execute k(1)"), query("select * from made"), query("drop table made"), run("k", "7"),
	},
	"deallocate a statement of the protocol": {
		flight(parse("k", "select 1"), parse("l", "select 2"), parse("Q q", "select 3"), sync), query("deallocate k"), run("k"), run("l"),
		query("deallocate k"), query("deallocate \"q q\""), query("deallocate prepare \"Q q\""), run("Q q"), run("l"),
		flight(parse("k", "select 4"), sync), run("k"), query("deallocate L"), run("l"), prepared(), run("k"),
	},
	"deallocate all": {
		flight(parse("k", "select 1"), parse("l", "select 2"), sync), query("deallocate all"), run("k"), run("l"), prepared(),
		flight(parse("k", "select 3"), sync), run("k"), query("discard plans"), run("k"), query("discard all"), run("k"), prepared(),
		flight(parse("k", "select 3"), sync), query("do 'begin deallocate all; end'"), run("k"), prepared(),
		flight(parse("k", "select 3"), sync), query("begin"), query("discard all"), query("rollback"), run("k"),
		query("begin"), query("deallocate k"), query("rollback"), run("k"),
	},
	"deallocate by the extended protocol": {
		flight(parse("k", "select 1"), parse("d", "deallocate k"), describe_('S', "d"), sync), run("k"), run("d"), run("k"), run("d"),
		flight(parse("k", "select 1"), parse("a", "deallocate all"), describe_('S', "a"), sync), run("k"), run("a"), run("k"), run("a"),
		flight(parse("k", "select 2"), parse("", "deallocate k"), bind("", ""), execute("", 0), parse("k", "select 3"), bind("", "k"), execute("", 0), sync), run("k"),
		flight(parse("", "deallocate all"), bind("", ""), execute("", 0), parse("k", "select 4"), bind("", "k"), execute("", 0), sync), run("k"),
		flight(close_('S', "k"), sync), run("k"),
		flight(parse("k", "select 5"), sync), flight(parse("", "deallocate k"), bind("", ""), execute("", 0), execute("", 0), sync), flight(parse("k", "select 6"), sync), run("k"),
	},
	"list": {
		prepared(), flight(parse("k", "select $1::int + $2::text::int"), parse("l", "select 2"), sync), prepared(),
		flight(close_('S', "k"), sync), prepared(), query("select count(*) from pg_prepared_statements where name like 'lsnproxy%'"),
		flight(parse("count", "select count(*) from pg_prepared_statements"), bind("", "count"), execute("", 0), sync), run("count"), prepared(), run("l"),
	},
	"prepare by SQL": {
		query("prepare p as select 1"), run("p"), query("execute p"), flight(describe_('S', "p"), sync), flight(parse("p", "select 2"), sync),
		flight(parse("k", "select 3"), sync), query("prepare k as select 4"), run("k"), query("execute k"), prepared(),
		flight(close_('S', "p"), sync), query("execute p"), prepared(), query("deallocate k"), run("k"), query("prepare k as select 5"), run("k"), query("deallocate all"), run("k"),
	},
	"prepare with parameters": {
		query("prepare p(int, text) as select $1, $2"), query("execute p(1, 'x')"), flight(describe_('S', "p"), sync),
		flight(bind("", "p", "1", "y"), describe_('P', ""), execute("", 0), sync), query("deallocate p"), query("execute p(1, 'x')"),
	},
	"in a transaction": {
		flight(parse("k", "select 1"), sync), query("begin"), query("execute k"), run("k"), query("prepare p as select 2"), run("p"), prepared(), query("deallocate k"), run("k"),
		query("rollback"), run("k"), run("p"), prepared(), query("deallocate p"), run("p"),
		query("begin"), query("execute nothing"), query("execute p"), query("rollback"),
	},
	"out of date": {
		query("create temp table gone(i int)"), flight(parse("g", "select * from gone"), parse("k", "select 1"), sync), query("drop table gone"),
		query("execute k"), run("g"), run("k"), query("begin"), run("g"), query("rollback"), run("k"),
		query("deallocate g"), run("g"), run("k"),
	},
	"out of date in a transaction": {
		query("create temp table gone(i int)"), flight(parse("g", "select * from gone"), parse("k", "select 1"), sync), query("drop table gone"),
		query("begin"), query("execute k"), run("k"), query("deallocate g"), run("k"), query("commit"), run("g"), run("k"),
	},
	"describe what the connection lacks in a failed transaction": {
		flight(parse("k", "update pg_description set description = $1 where false"), parse("l", "select 1"), sync), flight(parse("m", "select"), parse("n", "select 3"), parse("o", "select 4"), sync),
		query("begin"), query("select 1/0"), flight(describe_('S', "k"), close_('S', "l"), sync), flight(describe_('S', "m"), close_('S', "n"), sync), query("rollback"), run("l"), run("n"),
	},
	"the unnamed statement": {
		flight(parse("", "discard all"), bind("", ""), execute("", 0), sync), flight(bind("", ""), execute("", 0), sync), flight(bind("", ""), execute("", 0), sync),
		flight(parse("", "deallocate all"), bind("", ""), execute("", 0), sync), flight(bind("", ""), execute("", 0), sync),
		flight(parse("", "select $1::int"), sync), flight(parse("k", "select 1"), sync),
		flight(bind("", "", "1"), execute("", 0), sync), flight(bind("", "", "2"), execute("", 0), sync),
		flight(parse("", "execute k"), bind("", ""), execute("", 0), sync), flight(bind("", ""), execute("", 0), sync),
		flight(close_('S', ""), sync), flight(bind("", ""), execute("", 0), sync),
	},
	"several statements": {
		query("prepare p as select 1; execute p; deallocate p"), query("execute p"), query("prepare p as select 1; select 1/0"), query("execute p"),
		flight(parse("k", "select 1"), sync), query("select 1; execute k; deallocate all; select 2"), run("k"), prepared(),
	},
	"execute any command of the protocol's": {
		query("create temp table filled(i int)"), flight(parse("k", "copy filled from stdin"), sync),
		query("execute k").till("CopyInResponse"), flight(&pgproto3.CopyData{Data: []byte("1\n")}, &pgproto3.CopyDone{}), query("table filled"), query("drop table filled"),
		flight(parse("s", "set work_mem = '7MB'"), parse("r", "reset all"), parse("t", "create temp table left_by_execute(i int)"), parse("again", "execute s"), sync),
		query("execute s"), query("show work_mem"), query("execute r"), query("show work_mem"), query("execute again"), query("show work_mem"), query("deallocate all"), query("show work_mem"), query("reset work_mem"),
		flight(parse("t", "create temp table left_by_execute(i int)"), sync), query("execute t"), query("deallocate all"), query("table left_by_execute"), query("drop table left_by_execute"),
	},
	"in an encoding that cannot be read": {
		query("set client_encoding = 'SJIS'"), flight(parse("k", "select 1"), sync), query("prepare k as select 2"), run("k"), query("execute k"),
		query("prepare k as select '\xb1'"), query("prepare p as select '\xb1'"), run("p"), query("execute p"), query("deallocate k --\xb1"), run("k"), query("reset client_encoding"), run("p"), query("discard all"),
	},
	"a pipeline that goes on": {
		flight(parse("k", "select 1"), sync), flight(parse("", "select 2"), bind("", ""), execute("", 0), flushMsg).till("CommandComplete"),
		flight(parse("", "execute k"), bind("", ""), execute("", 0), bind("", "k"), execute("", 0), sync), run("k"),
		flight(parse("", "select 2"), bind("", ""), execute("", 0), flushMsg).till("CommandComplete"),
		flight(parse("", "deallocate k"), bind("", ""), execute("", 0), bind("", "k"), execute("", 0), sync), run("k"), prepared(),
	},
	"odd names": {
		flight(parse("ä '\"", "select 1"), sync), prepared(), run("ä '\""), query(`execute "ä '"""`), query(`deallocate "ä '"""`), run("ä '\""),
		query(`execute "lsnproxy:1"`), query(`deallocate "lsnproxy:1"`), flight(parse("lsnproxy:1", "select 5"), sync), run("lsnproxy:1"), query(`execute "lsnproxy:1"`), query(`deallocate "lsnproxy:1"`), run("lsnproxy:1"),
	},
	"savepoint": {
		query("begin"), query("select 1/0"), query("execute k"), query("deallocate all"), prepared(), query("rollback"),
		flight(parse("k", "select 1"), sync), query("begin"), query("savepoint a"), query("deallocate k"), query("rollback to a"), run("k"), query("rollback"),
	},
}

// TestNamesAsDirect: SQL's own names of statements, alone on a pool.
func TestNamesAsDirect(t *testing.T) { sameAsDirect(t, nameConversations) }

// TestNamesAmongOthers holds the same conversations while another session, which
// has statements of the same names, takes one of the two connections or the other.
func TestNamesAmongOthers(t *testing.T) { amongOthers(t, nameConversations) }

// amongOthers holds the conversations with the leader and with a proxy that has two
// connections to it, between which another session makes the session change.
func amongOthers(t *testing.T, conversations map[string][]turn) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 2 })
	p.awaitFollowers(t, 2)
	for name, turns := range conversations {
		t.Run(name, func(t *testing.T) {
			other, third := p.dialRaw(t, nil), p.dialRaw(t, nil)
			for _, n := range []string{"k", "l", "g", "p"} {
				other.say(flight(parse(n, "select 'another''s "+n+"'"), sync))
			}
			want := dialRaw(t, shared.cluster.Nodes()[0].Addr(), nil).hold(turns)
			r := p.dialRaw(t, nil)
			var got []string
			for i, turn := range turns {
				busy := other
				if i%2 == 1 {
					busy = third
				}
				busy.say(query("begin"))
				busy.say(run("k"))
				for _, line := range r.say(turn) {
					got = append(got, fmt.Sprint(i, " ", line))
				}
				busy.say(query("rollback"))
				if turn.until == "" && i%3 == 0 {
					other.expect(run("l"), "BindComplete", "DataRow another's l", "CommandComplete SELECT 1", "ReadyForQuery I")
				}
			}
			for i := range max(len(got), len(want)) {
				if a, b := at(got, i), at(want, i); a != b {
					t.Fatalf("line %d:\nproxy  %.300s\ndirect %.300s", i, a, b)
				}
			}
			for _, n := range []string{"k", "l", "g", "p"} {
				other.expect(run(n), "BindComplete", fmt.Sprintf("DataRow another's %s", n), "CommandComplete SELECT 1", "ReadyForQuery I")
			}
		})
	}
}
