package session_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// serial makes a table with a sequence on the shared leader, for the time of the test.
func serial(t *testing.T, name string) {
	t.Helper()
	conn := direct(t, shared.cluster.Nodes()[0])
	must(t, conn, "drop table if exists "+name, "create table "+name+"(id serial, a text)")
	t.Cleanup(func() { _, _ = conn.Exec(context.Background(), "drop table "+name) })
}

// TestNeverAnothersValue: what currval and lastval tell is the session's own value
// or the error that there is none.
func TestNeverAnothersValue(t *testing.T) {
	serial(t, "seq_never")
	p := onePool(t)
	one, two := p.dialRaw(t, nil), p.dialRaw(t, nil)
	none := "ErrorResponse 55000 lastval is not yet defined in this session"
	one.expect(query("select 1; insert into seq_never(a) values ('x')"), "RowDescription", "DataRow 1", "CommandComplete SELECT 1", "CommandComplete INSERT 0 1", "ReadyForQuery I")
	two.expect(query("select lastval()"), "RowDescription", none, "ReadyForQuery I")
	two.expect(query("select currval('seq_never_id_seq')"), "RowDescription", `ErrorResponse 55000 currval of sequence "seq_never_id_seq" is not yet defined in this session`, "ReadyForQuery I")
	two.expect(query("update seq_never set a = 'y'"), "CommandComplete UPDATE 1", "ReadyForQuery I")
	two.expect(query("begin"), "CommandComplete BEGIN", "ReadyForQuery T")
	two.expect(query("select lastval()"), "RowDescription", none, "ReadyForQuery E")
	two.expect(query("rollback"), "CommandComplete ROLLBACK", "ReadyForQuery I")
}

// TestOwnValue: once somebody has asked, sessions hold the connection on which
// they have got a value until they give it up, and it is their own.
func TestOwnValue(t *testing.T) {
	serial(t, "seq_own")
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 3 })
	p.awaitFollowers(t, 2)
	first := p.dialRaw(t, nil)
	first.say(query("select lastval()"))
	sessions := []*raw{p.dialRaw(t, nil), p.dialRaw(t, nil), p.dialRaw(t, nil)}
	for i, r := range sessions {
		r.expect(query(fmt.Sprintf("insert into seq_own(a) values ('%d')", i)), "CommandComplete INSERT 0 1", "ReadyForQuery I")
	}
	for i, r := range sessions {
		if got := r.shown("pinned"); got != "sequence" {
			t.Errorf("pinned by %q", got)
		}
		r.expect(query("select 1"), "RowDescription", "DataRow 1", "CommandComplete SELECT 1", "ReadyForQuery I")
		for _, ask := range []string{"lastval()", "currval('seq_own_id_seq')"} {
			r.expect(query(fmt.Sprintf("select a from seq_own where id = %s", ask)), "RowDescription", fmt.Sprint("DataRow ", i), "CommandComplete SELECT 1", "ReadyForQuery I")
		}
	}
	for i, end := range []string{"discard sequences", "discard all"} {
		sessions[i].say(query(end))
		if got := sessions[i].shown("pinned"); got != "" {
			t.Errorf("pinned by %q after %s", got, end)
		}
		sessions[i].expect(query("select lastval()"), "RowDescription", "ErrorResponse 55000 lastval is not yet defined in this session", "ReadyForQuery I")
	}
}

// TestValueWithinTransaction pins nobody: the value comes and goes with the
// connection of the transaction.
func TestValueWithinTransaction(t *testing.T) {
	serial(t, "seq_within")
	p := onePool(t)
	one, two := p.dialRaw(t, nil), p.dialRaw(t, nil)
	for _, r := range []*raw{one, two, one} {
		r.say(query("begin"))
		r.say(query("insert into seq_within(a) values ('x') returning id"))
		got := r.say(query("select count(*) from seq_within where id = lastval()"))
		if r.say(query("commit")); len(got) < 2 || got[1] != "DataRow 1" {
			t.Errorf("within a transaction: %q", got)
		}
		r.expect(query("insert into seq_within(a) values ('y'); select count(*) from seq_within where id = lastval()"),
			"CommandComplete INSERT 0 1", "RowDescription", "DataRow 1", "CommandComplete SELECT 1", "ReadyForQuery I")
		if got := r.shown("pinned"); got != "" {
			t.Errorf("pinned by %q", got)
		}
	}
}

// TestKnownStatementBehindDiscard: a statement that is prepared already is answered
// in its turn, behind what takes away another's values.
func TestKnownStatementBehindDiscard(t *testing.T) {
	serial(t, "seq_known")
	p := onePool(t)
	one, two := p.dialRaw(t, nil), p.dialRaw(t, nil)
	for range 2 {
		for _, r := range []*raw{one, two} {
			r.expect(flight(parse("i", "insert into seq_known(a) values ('x')"), bind("", "i"), execute("", 0), close_('S', "i"), sync),
				"ParseComplete", "BindComplete", "CommandComplete INSERT 0 1", "CloseComplete", "ReadyForQuery I")
		}
	}
}

// TestNeverAnothersValueBehindFailure: nor behind the end of a failed transaction, in one
// string with it.
func TestNeverAnothersValueBehindFailure(t *testing.T) {
	serial(t, "seq_one")
	serial(t, "seq_two")
	p := onePool(t)
	one, two := p.dialRaw(t, nil), p.dialRaw(t, nil)
	for _, exit := range []string{"rollback", "commit", "rollback and chain", "rollback to a", "select 1"} {
		one.expect(query("insert into seq_one(a) values ('x')"), "CommandComplete INSERT 0 1", "ReadyForQuery I")
		two.say(query("begin"))
		two.say(query("savepoint a"))
		two.say(query("select 1/0"))
		if exit != "select 1" {
			got := two.say(query(exit + "; insert into seq_two(a) values ('x'); select count(*) from seq_two where id = lastval(); select currval('seq_one_id_seq')"))
			if len(got) < 6 || got[1] != "CommandComplete INSERT 0 1" || got[3] != "DataRow 1" || !strings.Contains(got[len(got)-2], "55000 currval") {
				t.Errorf("%s: %q", exit, got)
			}
		} else {
			two.expect(query(exit+"; select nextval('seq_two_id_seq')"), "ErrorResponse 25P02 current transaction is aborted, commands ignored until end of transaction block", "ReadyForQuery E")
		}
		two.say(query("rollback"))
		two.expect(query("begin; select currval('seq_one_id_seq')"), "CommandComplete BEGIN", "RowDescription",
			`ErrorResponse 55000 currval of sequence "seq_one_id_seq" is not yet defined in this session`, "ReadyForQuery E")
		two.say(query("rollback"))
	}
}

// TestNeverAnothersValueBehindFlush: nor if the end of the transaction was flushed.
func TestNeverAnothersValueBehindFlush(t *testing.T) {
	serial(t, "seq_flushed")
	p := onePool(t)
	one, two := p.dialRaw(t, nil), p.dialRaw(t, nil)
	one.expect(query("insert into seq_flushed(a) values ('x')"), "CommandComplete INSERT 0 1", "ReadyForQuery I")
	two.say(query("begin"))
	two.say(query("select 1/0"))
	two.say(flight(parse("", "rollback"), bind("", ""), execute("", 0), flushMsg).till("CommandComplete"))
	two.expect(flight(parse("", "select lastval()"), bind("", ""), execute("", 0), sync),
		"ParseComplete", "BindComplete", "ErrorResponse 55000 lastval is not yet defined in this session", "ReadyForQuery I")
}
