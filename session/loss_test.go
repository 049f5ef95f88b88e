package session_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/session"
)

// lossy is a leader and a follower that gets nothing of what is written from now
// on, behind a proxy. There is a table lossy, and a user for the proxy's own login.
func lossy(t *testing.T, change func(*settings)) (*pgcluster.Cluster, *proxy) {
	t.Helper()
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	watch := direct(t, c.Nodes()[0])
	must(t, watch, "create table lossy(i int)", "create role watcher superuser login")
	if err := c.WaitStreaming(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := startProxy(t, c, change)
	p.awaitFollowers(t, 1)
	if err := c.Followers()[0].Set(t.Context(), "primary_conninfo", ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of streaming", func() bool { return count(t, watch, "select count(*) from pg_stat_replication") == 0 })
	return c, p
}

// failOver kills the leader and promotes the follower.
func failOver(t *testing.T, c *pgcluster.Cluster, p *proxy) {
	t.Helper()
	if err := c.Nodes()[0].Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Nodes()[1].Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new leader", func() bool { return p.board.View().Leader == 1 })
}

// noticed connects with variables of the proxy set and keeps the SQLSTATEs of the
// notices that come.
func (p *proxy) noticed(t *testing.T, variables string) (*pgx.Conn, *[]string) {
	t.Helper()
	config := p.at(t, variables).Config()
	notices := new([]string)
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { *notices = append(*notices, n.Code) }
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn, notices
}

// TestLossAsNotice: who has asked for it hears of a lost write by a notice, once,
// and the statement runs; so does the SET of a token that is lost.
func TestLossAsNotice(t *testing.T) {
	c, p := lossy(t, nil)
	first := []string{"select count(*) from lossy", "begin", "insert into lossy values (100)"}
	conns, notices := make([]*pgx.Conn, len(first)), make([]*[]string, len(first))
	for i := range first {
		conns[i], notices[i] = p.noticed(t, "lost_write=notice")
		must(t, conns[i], "insert into lossy values (1)")
	}
	token := show(t, conns[0], "token")
	failOver(t, c, p)
	for i, conn := range conns {
		for range 2 {
			must(t, conn, first[i])
		}
		if got := *notices[i]; len(got) == 0 || got[0] != "LS001" || slices.Contains(got[1:], "LS001") {
			t.Errorf("%s: notices %q", first[i], got)
		}
	}
	conn, heard := p.noticed(t, "lost_write=notice")
	must(t, conn, "set lsnproxy.token = '"+token+"'")
	if len(*heard) != 1 || (*heard)[0] != "LS001" || show(t, conn, "token") == token {
		t.Errorf("a lost token: notices %q, and then %s", *heard, show(t, conn, "token"))
	}
	if n := p.server.Stat().LostWrites; n != 4 {
		t.Errorf("%d losses are counted", n)
	}
}

// TestReadsByUser: each user of each database begins with a policy of its own,
// which startup parameters go over and RESET goes back to.
func TestReadsByUser(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) {
		s.session.PolicyOf = func(database, user string) session.Policy {
			if database == "postgres" && user == "postgres" {
				return session.Policy{Reads: &route.Policy{Level: route.LevelEventual, Wait: time.Second}}
			}
			return session.Policy{}
		}
	})
	p.awaitFollowers(t, 2)
	conn := p.at(t, "wait=2s")
	is := func(conn *pgx.Conn, consistency, wait string) {
		t.Helper()
		if c, w := show(t, conn, "consistency"), show(t, conn, "wait"); c != consistency || w != wait {
			t.Errorf("%s and %s, want %s and %s", c, w, consistency, wait)
		}
	}
	is(conn, "eventual", "2s")
	must(t, conn, "set lsnproxy.consistency = leader", "set lsnproxy.wait = '3s'")
	is(conn, "leader", "3s")
	must(t, conn, "reset lsnproxy.consistency")
	is(conn, "eventual", "3s")
	must(t, conn, "reset all")
	is(conn, "eventual", "2s")
	is(p.at(t, ""), "eventual", "1s")
	other, err := pgx.Connect(t.Context(), strings.Replace(p.url("default_query_exec_mode=simple_protocol"), "/postgres?", "/template1?", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(t.Context())
	is(other, "session", "50ms")
}

// TestRollbackOfWhatWasSevered: the server shuts down while a transaction rests on it,
// and says so. The client's next word is ROLLBACK, which another connection answers.
func TestRollbackOfWhatWasSevered(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{})
	p := startProxy(t, c, nil)
	conn := p.connect(t, "default_query_exec_mode=simple_protocol")
	for _, end := range []string{"rollback", "commit", "select 1", "rollback"} {
		must(t, conn, "begin", "create table severed (i int)")
		if err := c.Leader().Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := conn.Exec(t.Context(), end)
		if end == "rollback" && err != nil || end != "rollback" && err == nil {
			t.Fatalf("%s: %v", end, err)
		}
		if end == "select 1" {
			must(t, conn, "rollback")
		}
		must(t, conn, "select 1")
	}
	if n := p.server.Stat().Panics; n > 0 {
		t.Errorf("%d panics", n)
	}
}
