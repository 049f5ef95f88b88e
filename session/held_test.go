package session_test

import (
	"context"
	"testing"
	"time"
)

// heldConversations hold on to what lives in the server's session, or let go of it.
var heldConversations = map[string][]turn{
	"cursor with hold": {
		query("begin"), query("declare c cursor with hold for select g from generate_series(1, 5) g"), query("fetch 2 from c"), query("commit"),
		query("fetch 1 from c"), query("select count(*) from pg_cursors where name = 'c'"), query("select 1/0"), query("fetch 1 from c"),
		query("close c"), query("fetch 1 from c"),
	},
	"large object": {
		query("begin"), query("select lo_create(815815)"), query("select lo_open(815815, 131072)"), query("select lowrite(0, 'written')"),
		query("select lo_lseek(0, 0, 0)"), query("select lo_close(0)"), query("commit"), query("select lo_get(815815)"),
		query("begin"), query("select lo_open(815815, 262144)"), query("select loread(0, 4)"), query("select loread(0, 4)"), query("commit"),
		query("select loread(0, 1)"), query("select lo_unlink(815815)"),
	},
	"prepared transaction": {
		query("create table held_two(i int)"), query("begin"), query("insert into held_two values (1)"), query("prepare transaction 'held'"),
		query("select count(*) from held_two"), query("commit prepared 'held'"), query("select count(*) from held_two"),
		query("begin"), query("insert into held_two values (2)"), query("prepare transaction 'held'"), query("rollback prepared 'held'"),
		query("select count(*) from held_two"), query("commit prepared 'held'"), query("drop table held_two"),
		query("begin"), query("select 1/0"), query("prepare transaction 'held'"), query("select 1"),
	},
	"session lock": {
		query("select pg_advisory_lock(816)"), query("select count(*) from pg_locks where locktype = 'advisory' and objid = 816"),
		query("begin"), query("select pg_advisory_unlock(816)"), query("rollback"), query("select pg_advisory_unlock(816)"),
		query("select count(*) from pg_locks where locktype = 'advisory' and objid = 816"),
	},
	"own notification": {
		query("listen held"), query("notify held, 'one'"), query("begin"), query("notify held, 'two'"), query("select 1"), query("commit"),
		query("unlisten held"), query("notify held, 'three'"),
	},
	"temporary table": {
		query("create temp table held_t(i int) on commit delete rows"), query("insert into held_t values (1)"), query("select * from held_t"),
		query("begin"), query("insert into held_t values (1)"), query("select * from held_t"), query("drop table held_t"), query("rollback"),
		query("select * from held_t"), query("alter table held_t add j text"), query("select * from held_t"), query("discard temp"), query("select * from held_t"),
	},
}

// TestHeldAsDirect: what the server's session holds, alone and among others.
func TestHeldAsDirect(t *testing.T) {
	sameAsDirect(t, heldConversations)
	amongOthers(t, heldConversations)
}

// TestPreparedTransactionFreesItsSession: PREPARE TRANSACTION lets the connection
// go, and whoever commits sees what was committed, on followers too.
func TestPreparedTransactionFreesItsSession(t *testing.T) {
	table(t, "held_prepared")
	p := onePool(t)
	one, two := p.dialRaw(t, nil), p.dialRaw(t, nil)
	for range 20 {
		one.say(query("begin"))
		one.expect(query("insert into held_prepared values (1)"), "CommandComplete INSERT 0 1", "ReadyForQuery T")
		one.expect(query("prepare transaction 'held_prepared'"), "CommandComplete PREPARE TRANSACTION", "ReadyForQuery I")
		two.expect(query("commit prepared 'held_prepared'"), "CommandComplete COMMIT PREPARED", "ReadyForQuery I")
		two.expect(query("select max(a) from held_prepared"), "RowDescription", "DataRow 1", "CommandComplete SELECT 1", "ReadyForQuery I")
		two.expect(query("delete from held_prepared"), "CommandComplete DELETE 1", "ReadyForQuery I")
		if got := one.shown("pinned"); got != "" {
			t.Errorf("pinned by %q", got)
		}
	}
}

// TestNotifiedWhileIdle: a listener hears of notifications while it does nothing,
// each of them, whoever else uses the pool.
func TestNotifiedWhileIdle(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 2 })
	p.awaitFollowers(t, 2)
	listener, other := p.connect(t, ""), p.connect(t, "")
	must(t, listener, "listen held_idle")
	for range 10 {
		must(t, other, "notify held_idle", "select 1 from pg_class for update limit 1")
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err := listener.WaitForNotification(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
}
