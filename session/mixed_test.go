package session_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// TestErrorInFrontOfQuery: a pipeline that fails in front of a Query, without a
// Sync, on a connection that has to be brought in line first. The server ignores
// the Query and all that follows up to the Sync.
func TestErrorInFrontOfQuery(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 1 })
	p.awaitFollowers(t, 2)
	r, other := p.dialRaw(t, nil), p.dialRaw(t, nil)
	r.say(query("set geqo to off"))
	for range 3 {
		other.say(query("create temp table passing(i int) on commit drop")) // the leader's connection is another's now
		failing := flight(execute("none", 0), &pgproto3.Query{String: "create table ignored(i int)"})
		r.expect(failing.till("ErrorResponse"), `ErrorResponse 34000 portal "none" does not exist`)
		r.expect(flight(append(inOne("select 1"), sync)...), "ReadyForQuery I")
		r.expect(query("show geqo"), "RowDescription", "DataRow off", "CommandComplete SHOW", "ReadyForQuery I")
	}
	if got := r.value("select to_regclass('ignored') is null"); got != "t" {
		t.Error("the Query was not ignored")
	}
	if n := p.server.Stat().Panics; n != 0 {
		t.Errorf("%d panics", n)
	}
}

// TestSettingThatCannotBeSet leaves nothing to be carried to other connections.
func TestSettingThatCannotBeSet(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 1 })
	p.awaitFollowers(t, 2)
	r, other := p.dialRaw(t, nil), p.dialRaw(t, nil)
	r.expect(query("set max_connections to 1"),
		`ErrorResponse 55P02 parameter "max_connections" cannot be changed without restarting the server`, "ReadyForQuery I")
	other.say(query("set geqo to off"))
	for range 3 {
		other.say(query("create temp table passing(i int) on commit drop"))
		r.expect(query("set local work_mem to '5MB'; show geqo"), "CommandComplete SET", "RowDescription", "DataRow on", "CommandComplete SHOW", "ReadyForQuery I")
	}
}
