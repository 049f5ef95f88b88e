package session_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// TestChangedResult: a statement whose result type has changed since it was
// prepared fails as on a direct connection, also where it was never prepared: one
// session runs it, and has changed the table, on whatever connections another
// leaves to it.
func TestChangedResult(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	for _, inBlock := range []bool{false, true} {
		for _, change := range []string{
			"ALTER TABLE changed ADD more int",
			"ALTER TABLE changed ALTER v TYPE varchar(10)",
			"ALTER TABLE changed RENAME v TO w; ALTER TABLE changed RENAME w TO v", // the same
			"DROP TABLE changed; CREATE TABLE changed (id int, v text); INSERT INTO changed VALUES (1, 'x')",
			"DROP TABLE changed",
		} {
			t.Run(fmt.Sprint(change, inBlock), func(t *testing.T) {
				direct := changedResult(t, shared.cluster.Leader().Addr(), change, inBlock)
				proxied := changedResult(t, p.addr, change, inBlock)
				if !slices.Equal(direct, proxied) {
					t.Errorf("directly\n%q\nthrough the proxy\n%q", direct, proxied)
				}
			})
		}
	}
}

// changedResult runs statements before and after a change, of which the ones
// after run on another connection, if there is a choice.
func changedResult(t *testing.T, addr, change string, inBlock bool) (seen []string) {
	params := map[string]string{"user": "postgres", "database": "postgres"}
	r, other := dialRaw(t, addr, params), dialRaw(t, addr, params)
	simple := func(r *raw, sql string) []string {
		r.Send(&pgproto3.Query{String: sql})
		r.flush()
		return r.untilReady()
	}
	run := func() {
		for _, name := range []string{"read", "write"} {
			r.Send(&pgproto3.Bind{PreparedStatement: name})
			r.Send(&pgproto3.Describe{ObjectType: 'P'})
			r.Send(&pgproto3.Execute{})
			r.Send(&pgproto3.Sync{})
			r.flush()
			seen = append(seen, r.untilReady()...)
		}
	}
	simple(r, "DROP TABLE IF EXISTS changed; CREATE TABLE changed (id int, v text); INSERT INTO changed VALUES (1, 'x')")
	for name, sql := range map[string]string{"read": "SELECT * FROM changed ORDER BY id", "write": "UPDATE changed SET id = 2 RETURNING *"} {
		r.Send(&pgproto3.Parse{Name: name, Query: sql})
		r.Send(&pgproto3.Sync{})
		r.flush()
		r.untilReady()
	}
	run()
	simple(r, change)
	simple(other, "BEGIN") // on the connection that was used so far
	if inBlock {
		seen = append(seen, simple(r, "BEGIN")...)
		run()
		seen = append(seen, simple(r, "ROLLBACK")...)
	} else {
		run()
		run()
	}
	simple(other, "ROLLBACK")
	seen = append(seen, simple(r, "SELECT count(*) FROM changed WHERE id = 2")...)
	return seen
}
