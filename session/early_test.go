package session_test

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// TestErrorBeforeSync: a client that has sent no Sync yet, and no Flush, is told
// of an error when it happens; what it sends then is skipped up to the Sync. And
// what succeeds waits for the Sync, but is carried out.
func TestErrorBeforeSync(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	var all [2][]string
	for i, addr := range []string{shared.cluster.Nodes()[0].Addr(), p.addr} {
		r := dialRaw(t, addr, nil)
		failing := func(sql string) {
			r.Send(&pgproto3.Parse{Query: sql})
			r.Send(&pgproto3.Bind{})
			r.Send(&pgproto3.Execute{})
			r.flush()
			all[i] = append(all[i], r.until("ErrorResponse")...)
			r.Send(&pgproto3.Parse{Query: "select 'skipped'"})
			r.Send(&pgproto3.Execute{})
			r.Send(&pgproto3.Sync{})
			r.flush()
			all[i] = append(all[i], r.untilReady()...)
		}
		failing("select nothing from nowhere")
		failing("select 1 / 0")
		failing("insert into pg_class default values")
		r.SendQuery(&pgproto3.Query{String: "begin"})
		r.flush()
		all[i] = append(all[i], r.untilReady()...)
		failing("select 1 / 0")
		r.SendQuery(&pgproto3.Query{String: "rollback"})
		r.flush()
		all[i] = append(all[i], r.untilReady()...)

		r.Send(&pgproto3.Parse{Query: "select pg_advisory_lock(815)"})
		r.Send(&pgproto3.Bind{})
		r.Send(&pgproto3.Execute{})
		r.flush()
		watch := direct(t, shared.cluster.Nodes()[0])
		eventually(t, "the lock", func() bool {
			return count(t, watch, "select count(*) from pg_locks where locktype = 'advisory' and objid = 815") == 1
		})
		r.Send(&pgproto3.Parse{Query: "select pg_advisory_unlock(815)"})
		r.Send(&pgproto3.Bind{})
		r.Send(&pgproto3.Execute{})
		r.Send(&pgproto3.Sync{})
		r.flush()
		all[i] = append(all[i], r.untilReady()...)
	}
	if !slices.Equal(all[0], all[1]) {
		t.Errorf("\ndirect  %q\nthrough %q", all[0], all[1])
	}
}
