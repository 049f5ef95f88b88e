package session_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// settingCorners are conversations about settings. Between the turns another
// session uses the connections, with settings of its own.
var settingCorners = map[string][]turn{
	"set, show, reset": {
		query("set work_mem = '5MB'"), query("show work_mem"), query("set datestyle = 'German'"), query("select date '2001-02-03'"),
		query("set time zone 'Asia/Tokyo'"), query("show timezone"), query("set time zone -7"), query("show timezone"),
		query("set time zone interval '-08:30' hour to minute"), query("select timestamptz '2001-01-01 00:00:00Z'"),
		query("reset work_mem"), query("show work_mem"), query("reset all"), query("show timezone"), query("select date '2001-02-03'"),
		query("set names 'latin1'"), query("show client_encoding"), query("select 'ä'"), query("reset client_encoding"),
		query("set schema 'pg_catalog'"), query("show search_path"), query("select count(*) from class"), query("set search_path to default"),
		query("set xml option document"), query("show xmloption"), query("set session characteristics as transaction isolation level repeatable read"),
		query("show transaction_isolation"), query("discard all"), query("show transaction_isolation"), query("show xmloption"),
		query("set work_mem to default"), query("show work_mem"), query("set work_mem from current"), query("show work_mem"),
	},
	"values that need quoting": {
		query(`set application_name = 'it''s a \ back"slash'`), query("show application_name"), query("select 1"),
		query(`set search_path = "$user", public, "it's", "Quoted", user`), query("show search_path"),
		query("select set_config('search_path', 'Foo,  bar', false)"), query("show search_path"), query("set search_path = ''"), query("show search_path"),
		query("select set_config('search_path', '', false)"), query("show search_path"),
		query(`select set_config('app.user', 'ü\n''"', false)`), query("select current_setting('app.user'), current_setting('App.User', true)"),
		query("set app.text = 'grüße'"), query("set client_encoding = 'latin1'"), query("show app.text"),
		query("reset client_encoding"), query("show app.text"), query("reset app.text"), query("select current_setting('app.text', true) is null"),
		query("set standard_conforming_strings = off"), query(`set application_name = 'a\\b'`), query("show application_name"), query(`select 'a\\b'`),
		query("set standard_conforming_strings = on"), query(`select 'a\\b'`), query("set nonsense = 1"), query("set work_mem = 'much'"), query("show work_mem"),
	},
	"transactions": {
		query("set work_mem = '5MB'"), query("begin"), query("set work_mem = '6MB'"), query("set datestyle = 'German'"), query("show work_mem"),
		query("rollback"), query("show work_mem"), query("show datestyle"),
		query("begin"), query("set work_mem = '7MB'"), query("savepoint a"), query("set work_mem = '8MB'"), query("set local datestyle = 'SQL'"),
		query("rollback to a"), query("show work_mem"), query("commit"), query("show work_mem"), query("show datestyle"),
		query("begin"), query("set local work_mem = '9MB'"), query("set local time zone 'UTC'"), query("set local time zone 'Asia/Tokyo'"), query("show work_mem"), query("commit"), query("show work_mem"),
		query("begin"), query("set work_mem = '10MB'"), query("select 1/0"), query("set work_mem = '11MB'"), query("commit"), query("show work_mem"),
		query("begin"), query("set work_mem = '12MB'"), query("commit and chain"), query("show work_mem"), query("reset work_mem"), query("rollback"), query("show work_mem"),
		query("begin"), query("reset all"), query("commit"), query("show work_mem"),
		query("set work_mem = '13MB'; select 1/0"), query("show work_mem"), query("set work_mem = '14MB'; show work_mem"), query("show work_mem"),
		query("begin; set work_mem = '15MB'; rollback; set work_mem = '16MB'"), query("show work_mem"),
		flight(slices.Concat(inOne("set work_mem = '17MB'"), inOne("select 1/0"), []pgproto3.FrontendMessage{sync})...), query("show work_mem"),
		flight(slices.Concat(inOne("set work_mem = '18MB'"), inOne("show work_mem"), []pgproto3.FrontendMessage{sync})...), query("show work_mem"),
		flight(slices.Concat(inOne("begin"), inOne("set work_mem = '19MB'"), inOne("commit"), []pgproto3.FrontendMessage{sync})...), query("show work_mem"),
		flight(append(inOne("set work_mem = '20MB'"), flushMsg)...).till("CommandComplete"), flight(sync), query("show work_mem"),
		query("select set_config('work_mem', '21MB', false), set_config('datestyle', 'SQL', true)"), query("show work_mem"), query("show datestyle"),
	},
	"what may not be set": {
		query("begin"), query("set max_connections = 5"), query("rollback"), query("show max_connections"),
		query("begin; set log_statement = 'all'; rollback"), query("set role pg_monitor"), query("begin"), query("set log_statement = 'all'"), query("rollback"), query("show work_mem"),
		query("reset role"), query("show work_mem"), query("show log_statement"),
	},
	"custom settings stay, once made": {
		query("select current_setting('made.local', true) is null"), query("begin"), query("set local made.local = 'x'"), query("commit"), query("select current_setting('made.local', true)"),
		query("begin"), query("select set_config('made.one', 'x', true), set_config('made.two', 'y', true)"), query("rollback"), query("select current_setting('made.one', true), current_setting('made.two', true)"),
		query("begin"), query("set made.undone = 'x'"), query("rollback"), query("select current_setting('made.undone', true)"), query("begin; set local made.three = 'x'; commit"), query("show made.three"),
		query("select current_setting('made.never', true) is null"), query("show made.never"), query("discard all"), query("show made.one"),
	},
	"by functions": {
		query("create function sets(v text) returns text language plpgsql as $$ begin perform set_config('app.x', v, false); set work_mem = '5MB'; return v; end $$"),
		query("select sets('one')"), query("select current_setting('app.x'), current_setting('work_mem')"),
		query("begin"), query("select sets('two')"), query("rollback"), query("select current_setting('app.x')"),
		query("do $$ begin set datestyle = 'German'; end $$"), query("show datestyle"), query("do $$ begin reset datestyle; end $$"), query("show datestyle"),
		query("drop function sets(text)"), query("reset all"), query("show app.x"),
	},
	"roles": {
		query("create role alice; create role bob; grant alice to bob"), query("set role alice"), query("select current_user, session_user"), query("show role"),
		query("show is_superuser"), query("set work_mem = '5MB'"), query("reset role"), query("select current_user"), query("show work_mem"),
		query("set session authorization bob"), query("select current_user, session_user"), query("set role alice"), query("select current_user, session_user"),
		query("set role none"), query("select current_user"), query("set role nobody"), query("set role alice"), query("reset session authorization"), query("select current_user, session_user"),
		query("begin"), query("set role alice"), query("rollback"), query("select current_user"), query("begin"), query("set local role alice"), query("select current_user"), query("commit"),
		query("select current_user"), query("set role alice"), query("discard all"), query("select current_user"), query("show role"),
		query("drop role alice; drop role bob"),
	},
	"kinds of transactions": {
		query("set default_transaction_isolation = 'serializable'"), query("select 1"), query("show transaction_isolation"), query("begin read only"), query("select 1"), query("commit"),
		query("reset default_transaction_isolation"), query("set default_transaction_read_only = on"), query("create table never(i int)"), query("select 1"),
		query("begin read write"), query("show transaction_read_only"), query("commit"), query("show transaction_read_only"), query("reset all"),
		query("begin"), query("set transaction read only"), query("select 1"), query("create table never(i int)"), query("rollback"),
		query("begin isolation level serializable read only deferrable"), query("select 1"), query("commit"), query("begin isolation level repeatable read read only"),
		query("select 1"), query("show transaction_isolation"), query("commit"), query("set transaction isolation level serializable"), query("show transaction_isolation"),
	},
	"prepared under other settings": {
		query("create schema sa; create schema sb; create table sa.t(i int); create table sb.t(v text); insert into sa.t values (1); insert into sb.t values ('one')"),
		query("set search_path = sa"), flight(parse("p", "select * from t"), bind("", "p"), describe_('P', ""), execute("", 0), sync),
		query("set search_path = sb"), flight(parse("q", "select * from t"), bind("", "q"), describe_('P', ""), execute("", 0), sync),
		flight(close_('S', "p"), parse("p", "select * from t"), bind("", "p"), describe_('P', ""), execute("", 0), sync),
		query("set datestyle = 'SQL, DMY'"), flight(parse("d", "select date '01/02/2003'"), bind("", "d"), execute("", 0), sync), flight(bind("", "d"), execute("", 0), sync),
		query("drop schema sa, sb cascade"),
	},
}

// TestSettingsSameAsDirect holds the conversations while other sessions use the
// same connections with settings of their own.
func TestSettingsSameAsDirect(t *testing.T) {
	for _, size := range []int{1, 5} {
		p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = size })
		p.awaitFollowers(t, 2)
		other := p.dialRaw(t, nil)
		for name, turns := range settingCorners {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				want := dialRaw(t, shared.cluster.Nodes()[0].Addr(), nil).hold(turns)
				other.hold([]turn{query("set work_mem = '1MB'"), query("set datestyle = 'Postgres'"), query("set search_path = pg_catalog"), query("set time zone 'America/Lima'")})
				r := p.dialRaw(t, nil)
				var got []string
				status := "I"
				for i, turn := range turns {
					for _, line := range r.say(turn) {
						got = append(got, fmt.Sprintf("%d %s", i, line))
						status = line[len(line)-1:]
					}
					if size > 1 || status == "I" && turn.until == "" {
						other.say(query("show work_mem"))
						other.say(query("insert into pg_description select where false"))
					}
				}
				for i := range max(len(got), len(want)) {
					if a, b := at(got, i), at(want, i); a != b {
						t.Fatalf("line %d:\nproxy  %.300s\ndirect %.300s", i, a, b)
					}
				}
				eventually(t, "not pinned", func() bool { return r.shown("pinned") == "" })
			})
		}
	}
}

// TestCustomSettingOfAnother: a session does not find a custom setting that another has
// made on the connection.
func TestCustomSettingOfAnother(t *testing.T) {
	p := onePool(t)
	one, two := p.dialRaw(t, nil), p.dialRaw(t, nil)
	for range 2 {
		one.expect(query("set another.made = 'x'"), "CommandComplete SET", "ReadyForQuery I")
		two.expect(query("select current_setting('another.made', true) is null"), "RowDescription", "DataRow t", "CommandComplete SELECT 1", "ReadyForQuery I")
		one.expect(query("show another.made"), "RowDescription", "DataRow x", "CommandComplete SHOW", "ReadyForQuery I")
		two.say(query("begin"))
		two.expect(query("show another.made"), `ErrorResponse 42704 unrecognized configuration parameter "another.made"`, "ReadyForQuery E")
		two.say(query("rollback"))
	}
}
