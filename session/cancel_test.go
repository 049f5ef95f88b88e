package session_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// TestCancel cancels a statement that runs, and one that waits for a
// connection; the sessions go on.
func TestCancel(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 1 })
	p.awaitFollowers(t, 2)
	running := p.connect(t, "application_name=cancel1&default_query_exec_mode=simple_protocol")
	waiting := p.connect(t, "application_name=cancel1&default_query_exec_mode=simple_protocol")
	first, second := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := running.Exec(t.Context(), "begin; select pg_sleep(20)")
		first <- err
	}()
	awaitRunning(t, shared.cluster, "cancel1")
	go func() {
		_, err := waiting.Exec(t.Context(), "create table never(i int)")
		second <- err
	}()
	eventually(t, "a session that waits", func() bool {
		for _, s := range p.pool.Stat() {
			if s.Waiting > 0 {
				return true
			}
		}
		return false
	})
	if err := waiting.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-second; code(err) != "57014" {
		t.Fatalf("waiting statement: %v", err)
	}
	if err := running.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-first; code(err) != "57014" {
		t.Fatalf("running statement: %v", err)
	}
	must(t, running, "rollback", "select 1")
	must(t, waiting, "select 1")
}

// TestCancelNeverHitsAnother cancels statements just as they end, over and over,
// while another session uses the same server connection.
func TestCancelNeverHitsAnother(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 1 })
	p.awaitFollowers(t, 2)
	target := p.connect(t, "default_query_exec_mode=simple_protocol")
	other := p.connect(t, "default_query_exec_mode=simple_protocol")
	ctx, stop := context.WithCancel(t.Context())
	bystander := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			if _, err := other.Exec(t.Context(), "begin; select 1; end"); err != nil {
				bystander <- err
				return
			}
		}
		bystander <- nil
	}()
	cancelled := 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		go func() { _ = target.PgConn().CancelRequest(t.Context()) }()
		_, err := target.Exec(t.Context(), "begin; select pg_sleep(0.002); end")
		switch code(err) {
		case "":
			if err != nil {
				t.Fatal(err)
			}
		case "57014":
			cancelled++
			must2(t, target.Exec)
		default:
			t.Fatal(err)
		}
	}
	stop()
	if err := <-bystander; err != nil {
		t.Errorf("a session that nobody cancelled: %v", err)
	}
	t.Logf("%d statements cancelled", cancelled)
}

// must2 ends a transaction that a cancelled statement has left failed; a cancel
// that comes late may hit this too.
func must2[T any](t *testing.T, exec func(context.Context, string, ...any) (T, error)) {
	t.Helper()
	for {
		if _, err := exec(t.Context(), "rollback"); code(err) != "57014" {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

// TestWrongCancelKey must not cancel.
func TestWrongCancelKey(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	conn := p.connect(t, "default_query_exec_mode=simple_protocol")
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "begin; select pg_sleep(0.5); end")
		done <- err
	}()
	r := dialTCP(t, p.addr)
	msg, err := (&pgproto3.CancelRequest{ProcessID: conn.PgConn().PID(), SecretKey: []byte{1, 2, 3, 4}}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Write(msg); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestCancelIsOver: when the server has closed the connection that brought a cancel
// request, the request hits nothing that the client begins from then on, also where the
// session keeps its connection.
func TestCancelIsOver(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	conn := p.connect(t, "default_query_exec_mode=simple_protocol")
	must(t, conn, "listen cancels")
	for i := range 200 {
		done := make(chan error, 1)
		go func() { // ends with the statement
			_, err := conn.Exec(context.Background(), "select pg_sleep(0.001)")
			done <- err
		}()
		time.Sleep(time.Duration(i%20) * 100 * time.Microsecond)
		if err := conn.PgConn().CancelRequest(t.Context()); err != nil { // returns when that connection is closed
			t.Fatal(err)
		}
		if err := <-done; err != nil && code(err) != "57014" {
			t.Fatal(err)
		}
		must(t, conn, "select pg_sleep(0.003)")
	}
}
