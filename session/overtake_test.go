package session_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// TestLeaderIsOvertaken makes a commit hang on the leader, for want of a
// synchronous standby, when the followers show it already. A session that has
// seen it there must not find it missing on the leader, nor must one that goes on
// with its token, nor, at level strong, any.
func TestLeaderIsOvertaken(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	const onLeader = "select 1; select count(*) from seen" // the leader answers several statements
	for _, who := range []string{"itself", "itself, having told its token", "its token", "another, strong", "another's transaction, strong", "ignorant"} {
		ignore := who == "ignorant"
		p := startProxy(t, c, func(s *settings) { s.session.IgnorePositions = ignore })
		p.awaitFollowers(t, 1)
		reader := p.connect(t, "default_query_exec_mode=simple_protocol")
		other := startProxy(t, c, nil)
		other.awaitFollowers(t, 1)
		leader := c.Nodes()[0]
		must(t, reader, "drop table if exists seen", "create table seen(i int)")
		awaitFollower(t, reader, "select count(*) from seen")

		if err := leader.Set(t.Context(), "synchronous_standby_names", "nobody"); err != nil {
			t.Fatal(err)
		}
		writer, err := pgx.Connect(t.Context(), leader.URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		written := make(chan error, 1)
		go func() {
			_, err := writer.Exec(t.Context(), "insert into seen values (1)")
			written <- err
		}()
		eventually(t, "the row on the follower", func() bool { return count(t, reader, "select count(*) from seen") == 1 })
		if node := served(t, reader); node != c.Nodes()[1].Addr() {
			t.Fatalf("the row was seen on %s, not on the follower", node)
		}
		let := make(chan error, 1)
		time.AfterFunc(200*time.Millisecond, func() { let <- leader.Set(t.Context(), "synchronous_standby_names", "") })
		n := 0
		switch who {
		case "its token":
			n = count(t, other.at(t, "token="+token(t, reader)), onLeader)
		case "another, strong":
			n = count(t, other.at(t, "consistency=strong"), onLeader)
		case "another's transaction, strong":
			conn := other.at(t, "consistency=strong")
			must(t, conn, "begin")
			n = count(t, conn, "select count(*) from seen")
			must(t, conn, "commit")
		case "itself, having told its token":
			token(t, reader)
			fallthrough
		default:
			n = count(t, reader, onLeader)
		}
		for _, done := range []chan error{written, let} {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		_ = writer.Close(t.Context())
		if ignore && n != 0 {
			t.Error("the control has not shown the hazard")
		} else if !ignore && n != 1 {
			t.Errorf("%s: a row seen on the follower was missing on the leader", who)
		}
	}
}

// served returns the address of the node that served the previous statement.
func served(t testing.TB, conn *pgx.Conn) string {
	t.Helper()
	var node string
	if err := conn.QueryRow(t.Context(), "show lsnproxy.node").Scan(&node); err != nil {
		t.Fatal(err)
	}
	for i := range node {
		if node[i] == ' ' {
			return node[:i]
		}
	}
	return node
}

// token returns the session's token.
func token(t testing.TB, conn *pgx.Conn) (token string) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "show lsnproxy.token").Scan(&token); err != nil {
		t.Fatal(err)
	}
	return token
}

// count returns the number that the last result of sql gives.
func count(t testing.TB, conn *pgx.Conn, sql string) int {
	t.Helper()
	results, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, b := range results[len(results)-1].Rows[0][0] {
		n = n*10 + int(b-'0')
	}
	return n
}
