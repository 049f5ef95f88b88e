package session_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// TestSessionEndedByServer: what ends a session directly ends it through the
// proxy, with the same last words.
func TestSessionEndedByServer(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	leader := shared.cluster.Nodes()[0]
	terminated := func(app string) func(*testing.T) {
		return func(t *testing.T) { terminate(t, shared.cluster, app) }
	}
	for _, x := range []struct {
		name   string
		before []string
		last   string // not waited for
		end    func(*testing.T)
	}{
		{"transaction", []string{"begin"}, "", terminated("ordered")},
		{"statement", []string{"begin"}, "select pg_sleep(30)", func(t *testing.T) {
			awaitRunning(t, shared.cluster, "ordered")
			terminate(t, shared.cluster, "ordered")
		}},
		{"write", nil, "do $$ begin perform pg_sleep(30); end $$", func(t *testing.T) {
			awaitRunning(t, shared.cluster, "ordered")
			terminate(t, shared.cluster, "ordered")
		}},
		{"after a notice", nil, "do $$ begin raise notice 'first'; perform pg_sleep(30); end $$", func(t *testing.T) {
			awaitRunning(t, shared.cluster, "ordered")
			terminate(t, shared.cluster, "ordered")
		}},
		{"idle in transaction", []string{"set idle_in_transaction_session_timeout = '50ms'", "begin"}, "", func(*testing.T) {}},
		{"idle", []string{"listen ordered", "set idle_session_timeout = '50ms'"}, "", func(*testing.T) {}},
		{"own", nil, "select pg_terminate_backend(pg_backend_pid())", func(*testing.T) {}},
	} {
		t.Run(x.name, func(t *testing.T) {
			direct := lastWords(t, leader.Addr(), x.before, x.last, x.end)
			through := lastWords(t, p.addr, x.before, x.last, x.end)
			if direct != through {
				t.Errorf("\ndirect  %s\nthrough %s", direct, through)
			}
		})
	}
}

// lastWords runs statements and tells all that comes up to the end of the
// connection.
func lastWords(t *testing.T, addr string, before []string, last string, end func(*testing.T)) string {
	t.Helper()
	r := dialRaw(t, addr, map[string]string{"application_name": "ordered"})
	for _, sql := range before {
		r.SendQuery(&pgproto3.Query{String: sql})
		r.flush()
		r.untilReady()
	}
	if last != "" {
		r.SendQuery(&pgproto3.Query{String: last})
		r.flush()
	}
	end(t)
	_ = r.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	lines := ""
	for {
		msg, err := r.Receive()
		if err != nil {
			return lines
		}
		line := describe(msg)
		if e, ok := msg.(*pgproto3.ErrorResponse); ok {
			line = e.Severity + " " + line
		}
		if line != "ParameterStatus lsnproxy.token" {
			lines += line + "; "
		}
	}
}

// TestClientOutlivesShutdown: a server that shuts down says the same words, and
// its clients live on, in a transaction and under a statement.
func TestClientOutlivesShutdown(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{})
	p := startProxy(t, c, nil)
	p.awaitFollowers(t, 0)
	idle := p.connect(t, "default_query_exec_mode=simple_protocol")
	busy := p.connect(t, "application_name=shutdown&default_query_exec_mode=simple_protocol")
	must(t, idle, "begin")
	result := make(chan error, 1)
	go func() { // ends with the server, which is waited for below
		_, err := busy.Exec(t.Context(), "begin; select pg_sleep(30)")
		result <- err
	}()
	awaitRunning(t, c, "shutdown")
	if err := c.Nodes()[0].Stop(pgcluster.Fast); err != nil {
		t.Fatal(err)
	}
	if err := <-result; code(err) != "57P01" && code(err) != "08007" {
		t.Errorf("told under a statement: %v", err)
	}
	if err := c.Nodes()[0].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := idle.Exec(t.Context(), "select 1"); code(err) != "57P01" {
		t.Errorf("told in a transaction: %v", err)
	}
	for _, conn := range []*pgx.Conn{idle, busy} {
		must(t, conn, "rollback")
		eventually(t, "service again", func() bool {
			_, err := conn.Exec(t.Context(), "select 1")
			return err == nil
		})
	}
}
