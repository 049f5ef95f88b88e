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
	r.say(query("begin read only"))
	r.say(query("select 1"))
	if got := r.say(query("select pg_advisory_lock(815)")); len(got) != 2 || got[1] != "ReadyForQuery E" {
		t.Errorf("a lock on a follower: %q", got)
	}
	r.say(query("rollback"))
	if got := r.shown("pinned"); got != "" {
		t.Errorf("pinned by %q", got)
	}

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
