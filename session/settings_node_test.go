package session_test

import (
	"strings"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// onNode runs statements on a node itself.
func onNode(t *testing.T, n *pgcluster.Node, sql ...string) {
	t.Helper()
	r := dialRaw(t, n.Addr(), nil)
	for _, one := range sql {
		if lines := r.say(query(one)); strings.HasPrefix(lines[0], "Error") {
			t.Fatalf("%s: %s", one, lines[0])
		}
	}
}

// value runs a query and returns the first column of its last row, or the error.
func (r *raw) value(sql string) string {
	r.t.Helper()
	got := ""
	for _, line := range r.say(query(sql)) {
		if rest, ok := strings.CutPrefix(line, "DataRow "); ok {
			got = rest
		}
		if strings.HasPrefix(line, "ErrorResponse") {
			return line
		}
	}
	return got
}

// wants runs a query until a follower has served it, checking the answer each
// time.
func (r *raw) wants(sql, want string) {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if got := r.value(sql); got != want {
			r.t.Fatalf("%s: %s, want %s", sql, got, want)
		}
		where := r.value("show lsnproxy.node")
		if strings.Contains(where, "follower") {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("no follower serves %s: %s", sql, where)
		}
	}
}

// TestRowSecurityOnFollowers: reads of several sessions with roles and settings of
// their own go to followers, through few connections, and see their own rows.
func TestRowSecurityOnFollowers(t *testing.T) {
	onNode(t, shared.cluster.Nodes()[0], `drop table if exists owned`, `drop role if exists tenant`, `create role tenant`,
		`create table owned(tenant text, note text)`, `insert into owned values ('a', 'of a'), ('b', 'of b'), ('b', 'more')`,
		`alter table owned enable row level security`, `grant select on owned to tenant`,
		`create policy own on owned using (tenant = current_setting('app.tenant', true))`)
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 1 })
	p.awaitFollowers(t, 2)
	all, a, b := p.dialRaw(t, nil), p.dialRaw(t, nil), p.dialRaw(t, nil)
	all.hold([]turn{query("create temp table wait_for_catalog(i int)"), query("discard all")})
	for r, tenant := range map[*raw]string{a: "a", b: "b"} {
		r.hold([]turn{query("set role tenant"), query("set app.tenant = '" + tenant + "'"), query("set application_name = 'app " + tenant + "'")})
	}
	for range 5 {
		if got := all.value("select count(*) from owned"); got != "3" { // its setting is the node's
			t.Fatalf("all of them: %s", got)
		}
		a.wants("select count(*) from owned", "1")
		b.wants("select count(*) from owned", "2")
		a.wants("select current_user || current_setting('app.tenant') || current_setting('application_name')", "tenantaapp a")
		all.wants("select current_user || current_setting('application_name')", "postgres")
		b.wants("show app.tenant", "b")
	}
	b.hold([]turn{query("begin"), query("set local app.tenant = 'a'")})
	if got := b.value("select count(*) from owned"); got != "1" {
		t.Errorf("inside the transaction: %s", got)
	}
	b.say(query("commit"))
	b.wants("select count(*) from owned", "2")
	for _, r := range []*raw{a, b, all} {
		if got := r.value("show lsnproxy.pinned"); got != "" {
			t.Errorf("pinned: %s", got)
		}
	}
	a.say(query("reset role"))
	a.wants("select count(*) from owned", "3")
}

// TestRoleThatIsGone: a statement never runs as somebody else than it should.
func TestRoleThatIsGone(t *testing.T) {
	leader := shared.cluster.Nodes()[0]
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 1 })
	p.awaitFollowers(t, 2)
	onNode(t, leader, "drop role if exists fleeting", "create role fleeting")
	r, other := p.dialRaw(t, nil), p.dialRaw(t, nil)
	r.say(query("set role fleeting"))
	other.say(query("insert into pg_description select where false"))
	onNode(t, leader, "drop role fleeting")
	for _, sql := range []string{
		"select current_user", "create table mine(i int)", "rollback", "rollback; create table mine(i int)", "begin", "select 1; select 2",
	} {
		if got := r.value(sql); !strings.Contains(got, `role "fleeting" does not exist`) {
			t.Errorf("%s: %q", sql, got)
		}
	}
	got := r.say(flight(append(append(inOne("commit"), inOne("create table mine(i int)")...), sync)...))
	if !strings.Contains(strings.Join(got, "\n"), `role "fleeting" does not exist`) {
		t.Errorf("pipeline: %q", got)
	}
	if got := other.value("select to_regclass('mine') is null"); got != "t" {
		t.Error("a table was made by somebody else")
	}
}

// TestDefaultsThatChange: who connects after ALTER ROLE, ALTER DATABASE and a new
// configuration finds the new defaults; who was there before keeps his on the
// connections that are as old as he is, of which the leader has one for him.
func TestDefaultsThatChange(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	t.Cleanup(func() {
		onNode(t, shared.cluster.Nodes()[0], "alter role postgres reset work_mem", "alter database postgres reset all")
	})
	stays := map[string]string{"options": "-c lsnproxy.consistency=leader"}
	before := p.dialRaw(t, stays)
	if got := before.value("show work_mem"); got != "4MB" {
		t.Fatal(got)
	}
	before.say(query("alter role postgres set work_mem = '7MB'"))
	if got := p.dialRaw(t, nil).value("show work_mem"); got != "7MB" {
		t.Errorf("after ALTER ROLE: %s", got)
	}
	before.say(query("alter database postgres set datestyle = 'German'"))
	if got := p.dialRaw(t, nil).value("select date '2001-02-03'"); got != "03.02.2001" {
		t.Errorf("after ALTER DATABASE: %s", got)
	}
	if got := before.value("show work_mem") + before.value("select date '2001-02-03'"); got != "4MB2001-02-03" {
		t.Errorf("who was there before: %s", got)
	}
	before.hold([]turn{query("begin"), query("alter role postgres set work_mem = '8MB'")})
	early := p.dialRaw(t, stays)
	before.say(query("commit"))
	if got := early.value("show work_mem") + p.dialRaw(t, nil).value("show work_mem"); got != "7MB8MB" {
		t.Errorf("around a transaction: %s", got)
	}
}

// TestStartupParameters: RESET returns to what the client began with.
func TestStartupParameters(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 2 })
	p.awaitFollowers(t, 2)
	params := map[string]string{"options": "-c work_mem=9MB -c app.x=start", "DateStyle": "German", "application_name": "mine"}
	r, plain := p.dialRaw(t, params), p.dialRaw(t, nil)
	for range 3 {
		for _, sql := range []string{"set work_mem = '1MB'", "set app.x = 'other'", "set datestyle = 'ISO'", "set application_name = 'else'"} {
			r.say(query(sql))
			plain.say(query(sql))
		}
		r.say(query("reset all"))
		plain.say(query("reset all"))
		r.wants("select current_setting('work_mem') || current_setting('application_name') || date '2001-02-03'", "9MBmine03.02.2001")
		plain.wants("select current_setting('work_mem') || current_setting('application_name') || date '2001-02-03'", "4MB2001-02-03")
		if got := r.value("show app.x"); got != "start" {
			t.Errorf("app.x: %s", got)
		}
	}
}

// TestNodesWithOtherDefaults: the client finds what it was told, wherever it reads.
func TestNodesWithOtherDefaults(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	onNode(t, c.Nodes()[1], "alter system set timezone = 'Asia/Tokyo'", "alter system set datestyle = 'German'", "select pg_reload_conf()")
	eventually(t, "the follower's configuration", func() bool {
		return dialRaw(t, c.Nodes()[1].Addr(), nil).value("show datestyle") == "German, DMY"
	})
	p := startProxy(t, c, nil)
	p.awaitFollowers(t, 1)
	r := p.dialRaw(t, nil)
	r.wants("select timestamptz '2001-01-01 00:00:00Z'", dialRaw(t, c.Nodes()[0].Addr(), nil).value("select timestamptz '2001-01-01 00:00:00Z'"))
	r.say(query("set time zone 'America/Lima'"))
	r.wants("select timestamptz '2001-01-01 00:00:00Z'", "2000-12-31 19:00:00-05")
	if lines := r.say(query("select date '2001-02-03'")); len(lines) != 4 {
		t.Errorf("more is told than was asked: %q", lines)
	}
}

// TestShortTimeouts: what others have set does not hit the session that follows.
func TestShortTimeouts(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 1 })
	p.awaitFollowers(t, 2)
	hasty, r := p.dialRaw(t, nil), p.dialRaw(t, nil)
	hasty.say(query("set statement_timeout = 30"))
	r.say(query("set work_mem = '5MB'"))
	for range 10 {
		if got := hasty.value("insert into pg_description select from pg_sleep(5) where false"); !strings.Contains(got, "57014") && got != "" {
			t.Errorf("the hasty one: %s", got)
		}
		if got := r.value("select current_setting('statement_timeout') || current_setting('work_mem') from pg_sleep(0.05)"); got != "05MB" {
			t.Errorf("the other: %s", got)
		}
	}
}

// TestConnectionLostWithSettings: settings made in a transaction that is lost are
// taken back, and the client is told.
func TestConnectionLostWithSettings(t *testing.T) {
	p := startProxy(t, shared.cluster, linked)
	p.awaitFollowers(t, 2)
	r := p.dialRaw(t, nil)
	r.hold([]turn{query("set work_mem = '5MB'"), query("set time zone 'Asia/Tokyo'"), query("begin"), query("set work_mem = '6MB'"), query("set time zone 'UTC'")})
	p.cut(0)
	told := strings.Join(append(r.say(query("show work_mem")), r.say(query("rollback"))...), "\n")
	if !strings.Contains(told, "ParameterStatus TimeZone Asia/Tokyo") {
		t.Errorf("told %q", told)
	}
	if got := r.value("show work_mem") + r.value("show timezone"); got != "5MBAsia/Tokyo" {
		t.Errorf("afterwards %s", got)
	}
}

// TestNamesOfStatementsUnderOwnSettings: what is prepared for SQL to see is prepared
// under the session's settings, on a connection that had others.
func TestNamesOfStatementsUnderOwnSettings(t *testing.T) {
	onNode(t, shared.cluster.Nodes()[0], "drop schema if exists named cascade", "create schema named", "create table named.t(i int)")
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 1 })
	p.awaitFollowers(t, 2)
	r, other := p.dialRaw(t, nil), p.dialRaw(t, nil)
	r.hold([]turn{query("set search_path = named"), flight(parse("n", "select count(*) from t"), sync)})
	other.hold([]turn{query("set search_path = pg_catalog"), query("insert into pg_description select where false")})
	if got := r.value("execute n"); got != "0" {
		t.Errorf("execute: %s", got)
	}
	if got := r.value("deallocate n"); got != "" {
		t.Errorf("deallocate: %s", got)
	}
	if got := other.value("show search_path"); got != "pg_catalog" {
		t.Errorf("the other has %s", got)
	}
}
