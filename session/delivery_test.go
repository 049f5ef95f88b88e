package session_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/lsnproxy/lsnproxy/internal/history"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/topology"
)

// TestDelivery: how a client gets its token, and that it costs no question when
// nobody needs it.
func TestDelivery(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	table(t, "delivered")
	warm := p.at(t, "")
	awaitFollower(t, warm, "select * from delivered")
	for _, c := range []struct {
		delivery           string
		write, read, again bool // is the token told with the answer to it
	}{
		{"inline", true, false, false},
		{"lazy", false, true, false},
		{"off", false, false, false},
	} {
		r := p.dialRaw(t, map[string]string{"options": "-c lsnproxy.delivery=" + c.delivery})
		ask := func(sql string) (told bool, answer string) {
			t.Helper()
			r.Send(&pgproto3.Query{String: sql})
			r.flush()
			for {
				msg, err := r.Receive()
				if err != nil {
					t.Fatal(err)
				}
				switch m := msg.(type) {
				case *pgproto3.ParameterStatus:
					told = told || m.Name == "lsnproxy.token"
				case *pgproto3.DataRow:
					answer = string(m.Values[0])
				case *pgproto3.ErrorResponse:
					t.Errorf("%s: %s: %s", c.delivery, sql, m.Message)
				case *pgproto3.ReadyForQuery:
					return told, answer
				}
			}
		}
		before := p.server.Stat().Probes
		for range 3 {
			if told, _ := ask("insert into delivered values (1)"); told != c.write {
				t.Errorf("%s: told with the write: %v", c.delivery, told)
			}
		}
		ask("begin")
		ask("insert into delivered values (1)")
		if told, _ := ask("commit"); told != c.write {
			t.Errorf("%s: told with the commit: %v", c.delivery, told)
		}
		if probes := p.server.Stat().Probes - before; (probes == 0) == c.write {
			t.Errorf("%s: %d positions asked for", c.delivery, probes)
		}
		if told, _ := ask("select count(*) from delivered"); told != c.read {
			t.Errorf("%s: told with the read: %v", c.delivery, told)
		}
		if told, _ := ask("select count(*) from delivered"); told {
			t.Errorf("%s: told again", c.delivery)
		}
		_, before1 := ask("show lsnproxy.token")
		ask("insert into delivered values (1)")
		told, after := ask("show lsnproxy.token")
		if told != c.read || before1 == "" || after <= before1 && len(after) <= len(before1) {
			t.Errorf("%s: shown %s after %s; told: %v", c.delivery, after, before1, told)
		}
		other := p.at(t, "token="+after)
		_, mine := ask("select count(*) from delivered")
		var theirs string
		if err := other.QueryRow(t.Context(), "select count(*)::text from delivered").Scan(&theirs); err != nil || theirs != mine {
			t.Errorf("%s: %s rows with the token, %v; it should be %s", c.delivery, theirs, err, mine)
		}
		_ = r.conn.Close()
	}
}

// TestReadYourWritesLazily is promises 1 and 2 with tokens that are learnt only
// when a read needs them.
func TestReadYourWritesLazily(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 2, ApplyDelay: 50 * time.Millisecond})
	p := startProxy(t, c, func(s *settings) { s.session.Policy.Delivery = route.DeliverLazy })
	p.awaitFollowers(t, 2)
	demandClean(t, runHistory(t, p, history.Options{Pairs: pairsEach / 4}))
	if n := p.server.Stat().Probes; n != 0 {
		t.Errorf("%d positions were asked for behind commits", n)
	}
}

// sampled waits for a sample of the leader that begins now.
func (p *proxy) sampled(t *testing.T) {
	t.Helper()
	since := topology.Now()
	eventually(t, "a sample of the leader", func() bool { return p.board.View().Nodes[0].Sampled >= since })
}

// TestLazyFate: what becomes of commits whose positions nobody had asked for when
// the leader went.
func TestLazyFate(t *testing.T) {
	t.Run("lost", func(t *testing.T) {
		c, p := lossy(t, nil)
		conn := p.at(t, "delivery=lazy")
		must(t, conn, "insert into lossy values (1)")
		p.sampled(t) // not for this session, but after its commit
		failOver(t, c, p)
		if got := sqlstate(t, conn, "select count(*) from lossy"); got != "LS001" {
			t.Errorf("the next read: %q", got)
		}
		if n := count(t, conn, "select count(*) from lossy"); n != 0 {
			t.Errorf("%d rows", n)
		}
	})
	t.Run("kept", func(t *testing.T) {
		c := pgtest.Start(t, pgcluster.Options{Followers: 1})
		p := startProxy(t, c, nil)
		p.awaitFollowers(t, 1)
		conn := p.at(t, "delivery=lazy")
		must(t, conn, "create table kept(i int)", "insert into kept values (1)")
		p.sampled(t)
		if err := c.WaitStreaming(t.Context()); err != nil {
			t.Fatal(err)
		}
		failOver(t, c, p)
		if n := count(t, conn, "select count(*) from kept"); n != 1 {
			t.Errorf("%d rows", n)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		c, p := lossy(t, func(s *settings) { s.watch.User = "watcher" })
		conn, noticed := p.at(t, "delivery=lazy"), p.at(t, "delivery=lazy lost_write=notice")
		must(t, conn, "begin", "insert into lossy values (1)")
		must(t, noticed, "begin", "insert into lossy values (1)")
		must(t, direct(t, c.Nodes()[0]), "alter role watcher nologin",
			"select pg_terminate_backend(pid) from pg_stat_activity where usename = 'watcher'")
		eventually(t, "the leader to be out of sight", func() bool { return p.board.View().Leader == topology.NoLeader })
		must(t, conn, "commit")
		must(t, noticed, "commit")
		failOver(t, c, p)
		if got := sqlstate(t, conn, "select count(*) from lossy"); got != "LS003" {
			t.Errorf("the next read: %q", got)
		}
		for _, conn := range []*pgx.Conn{conn, noticed} {
			if n := count(t, conn, "select count(*) from lossy"); n != 0 { // told once
				t.Errorf("%d rows", n)
			}
		}
		if s := p.server.Stat(); s.FatesUnknown != 2 || s.LostWrites != 0 {
			t.Errorf("counted: %d of unknown fate, %d lost", s.FatesUnknown, s.LostWrites)
		}
	})
}
