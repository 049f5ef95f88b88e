package session_test

import (
	"strings"
	"testing"
)

// TestReadOnlyTransactionThatMoves: what must be on the leader is, even in a
// transaction that has begun on a follower.
func TestReadOnlyTransactionThatMoves(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	watch := direct(t, shared.cluster.Nodes()[0])
	locked := func() (n int) {
		if err := watch.QueryRow(t.Context(), "select count(*) from pg_locks where locktype = 'advisory'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	r := p.dialRaw(t, nil)
	eventually(t, "reads on a follower", func() bool {
		r.say(query("select 1"))
		return strings.Contains(r.shown("node"), " follower")
	})
	for _, begin := range []string{"begin isolation level repeatable read read only; ", "begin read only; declare c cursor for select 1"} {
		for sql := range strings.SplitSeq(begin, "; ") {
			r.say(query(sql))
		}
		r.say(query("select 1"))
		if got := r.say(query("select pg_advisory_lock(815)")); len(got) != 2 || got[1] != "ReadyForQuery E" {
			t.Errorf("a lock on a follower: %q", got)
		}
		r.say(query("rollback"))
	}
	if got := r.shown("pinned"); got != "" {
		t.Errorf("pinned by %q", got)
	}

	r.say(query("begin read only"))
	r.say(query("select 1"))
	r.expect(query("select pg_advisory_xact_lock(815)"), "RowDescription", "DataRow ", "CommandComplete SELECT 1", "ReadyForQuery T")
	if n := locked(); n != 1 {
		t.Errorf("%d locks are held on the leader", n)
	}
	r.say(query("rollback"))

	for _, begin := range []turn{query("begin read only"), flight(parse("", "begin isolation level repeatable read, read only"), bind("", ""), execute("", 0), sync)} {
		r.say(begin)
		r.expect(query("select pg_advisory_xact_lock(815)"), "RowDescription", "DataRow ", "CommandComplete SELECT 1", "ReadyForQuery T")
		if n := locked(); n != 1 {
			t.Errorf("%d locks are held on the leader", n)
		}
		r.expect(query("create table never(i int)"), "ErrorResponse 25006 cannot execute CREATE TABLE in a read-only transaction", "ReadyForQuery E")
		r.say(query("rollback"))
		if n := locked(); n != 0 {
			t.Errorf("%d locks are held after the transaction", n)
		}
	}
	r.say(query("begin read only"))
	r.expect(query("declare c cursor with hold for select 1 union all select 2"), "CommandComplete DECLARE CURSOR", "ReadyForQuery T")
	r.say(query("commit"))
	r.expect(query("fetch c"), "RowDescription", "DataRow 1", "CommandComplete FETCH 1", "ReadyForQuery I")
	r.expect(query("create temp table here(i int)"), "CommandComplete CREATE TABLE", "ReadyForQuery I")
	r.say(query("close c"))
	r.say(query("drop table here"))
}

// readOnlyConversations are in transactions that begin on a follower.
var readOnlyConversations = map[string][]turn{
	"what followers refuse, first": {
		query("begin read only"), query("listen readonly"), query("commit"), query("select * from pg_listening_channels()"), query("unlisten *"),
		query("begin read only"), query("set transaction read write"), query("create temp table written(i int)"), query("show transaction_read_only"), query("rollback"),
		query("begin read only"), query("set transaction isolation level serializable"), query("show transaction_isolation"), query("select 1"), query("commit"),
		query("begin read only"), query("commit prepared 'nothing'"), query("rollback"), query("begin read only"), query("prepare transaction 'readonly'"), query("rollback prepared 'readonly'"),
		query("begin read only"), query("begin read write"), query("show transaction_read_only"), query("commit"),
		query("begin read only"), query("lock table pg_description in share mode"), query("notify nobody"), query("commit"),
		query("begin read only"), query("notify nobody"), query("set transaction isolation level repeatable read"), query("commit"),
	},
	"what followers refuse, after reads": {
		query("begin read only"), query("select 1"), query("listen readonly"), query("select 2"), query("commit"), query("select * from pg_listening_channels()"), query("unlisten *"),
		query("begin read only"), query("select 1"), query("set transaction read write"), query("rollback"),
		query("begin read only"), query("show timezone"), query("set transaction read write"), query("show transaction_read_only"), query("rollback"),
		query("begin read only"), query("declare c cursor for select 1"), query("fetch c"), query("close c"), query("notify nobody"), query("set transaction read write"), query("rollback"),
		query("begin read only"), flight(parse("", "select 1"), sync), query("listen readonly"), query("set transaction read write"), query("rollback"),
		query("begin read only"), flight(parse("", "select $1::int"), bind("", "", "1"), execute("", 0), sync), flight(parse("", "select txid_current() is null"), bind("", ""), execute("", 0), sync), query("commit"),
	},
	"moves with all that it has": {
		query("begin read only"), query("savepoint a"), query("set local work_mem = '5MB'"), query("set datestyle = 'German'"), query("savepoint b"), query("set local work_mem = '6MB'"),
		query("select 1"), query("select 1/0"), query("rollback to b"), query("listen readonly"), query("show work_mem"), query("show datestyle"), query("release b"),
		query("set local work_mem = '7MB'"), query("rollback to a"), query("show work_mem"), query("show datestyle"), query("set intervalstyle = 'iso_8601'"), query("commit"),
		query("show intervalstyle"), query("show datestyle"), query("select * from pg_listening_channels()"), query("reset all"), query("unlisten *"),
	},
	"begun twice": {
		flight(parse("", "begin read only"), bind("", ""), execute("", 0), execute("", 0), sync), query("rollback"),
		query("begin read only"), query("select 1"), query("commit"), query("begin read only"), query("select 1"), query("commit"),
	},
	"chained": {
		query("begin read only"), query("select 1"), query("set local work_mem = '5MB'"), query("commit and chain"), query("show transaction_read_only"), query("listen readonly"), query("show work_mem"),
		query("rollback and chain"), query("notify nobody"), query("show transaction_read_only"), query("rollback"),
		query("begin read only"), query("select 1/0"), query("rollback and chain"), query("notify nobody"), query("commit"),
	},
}

// TestReadOnlyAsDirect: a transaction that is READ ONLY takes what a leader takes.
func TestReadOnlyAsDirect(t *testing.T) { sameAsDirect(t, readOnlyConversations) }

// TestReadOnlyAmongOthers: likewise when each of its connections may be another.
func TestReadOnlyAmongOthers(t *testing.T) { amongOthers(t, readOnlyConversations) }
