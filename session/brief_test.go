package session_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// TestBriefWhileAllHeld: statements are prepared and described, and clients log in,
// while transactions hold all connections that there may be. pgbench waits for the
// answer before it goes on with those transactions. What holds a connection for
// longer waits, and gets none of those that were opened for the others.
func TestBriefWhileAllHeld(t *testing.T) {
	table(t, "brief")
	p := onePool(t)
	holder, other := p.dialRaw(t, nil), p.dialRaw(t, nil)
	holder.say(query("begin"))
	holder.expect(query("insert into brief values (1)"), "CommandComplete INSERT 0 1", "ReadyForQuery T")
	third := p.dialRaw(t, nil)
	third.Send(&pgproto3.Query{String: "begin"})
	third.flush()
	waits := func() bool {
		n := 0
		for _, s := range p.pool.Stat() {
			n += s.Waiting
		}
		return n == 1
	}
	eventually(t, "a transaction waits", waits)

	turn := func(r *raw, messages ...pgproto3.FrontendMessage) {
		for _, m := range messages {
			r.Send(m)
		}
		r.Send(&pgproto3.Sync{})
		r.flush()
		r.untilReady()
	}
	for _, text := range []string{"select i from brief for update", "begin", "delete from brief where i = $1"} {
		turn(other, &pgproto3.Parse{Name: text, Query: text})
		turn(other, &pgproto3.Describe{ObjectType: 'S', Name: text})
	}
	another := p.dialRaw(t, map[string]string{"application_name": "brief_another"}) // nobody has logged in with that
	turn(another, &pgproto3.Parse{Name: "x", Query: "update brief set i = 2"})
	if !waits() {
		t.Error("the transaction has got a spare connection")
	}
	holder.expect(query("commit"), "CommandComplete COMMIT", "ReadyForQuery I")
	third.untilReady()
	third.expect(query("commit"), "CommandComplete COMMIT", "ReadyForQuery I")
	eventually(t, "the spare ones are closed", func() bool {
		for _, s := range p.pool.Stat() {
			if s.Open > 1 {
				return false
			}
		}
		return true
	})
}
