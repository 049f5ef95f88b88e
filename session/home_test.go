package session_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// backendPID asks the server for the process id.
func backendPID(t *testing.T, c *pgx.Conn) uint32 {
	t.Helper()
	var pid uint32
	if err := c.QueryRow(t.Context(), "select pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

// TestProcessID: as long as there is room in the pool, the process id that a
// client is told when it connects is its own, whatever others do.
func TestProcessID(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Limits.Size = 4 })
	p.awaitFollowers(t, 2)
	var all []*pgx.Conn
	for range 4 {
		all = append(all, p.connect(t, ""))
	}
	for range 3 {
		for _, c := range all { // so that connections go back in this order
			must(t, c, "begin", "select 1 from pg_class for update limit 1", "rollback")
		}
	}
	seen := make(map[uint32]bool)
	for i := len(all) - 1; i >= 0; i-- {
		told := all[i].PgConn().PID()
		if got := backendPID(t, all[i]); got != told || seen[got] {
			t.Errorf("session %d was told %d, and is %d", i, told, got)
		}
		seen[told] = true
	}
}

// TestOwnNotifications: a listener knows by the process id which notifications are
// its own, and whose the others are.
func TestOwnNotifications(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	listener, other := p.connect(t, ""), p.connect(t, "")
	must(t, listener, "listen homes")
	for _, sender := range []*pgx.Conn{listener, other, listener} {
		must(t, sender, "notify homes")
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		n, err := listener.WaitForNotification(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if n.PID != sender.PgConn().PID() {
			t.Errorf("notified by %d, sent by %d", n.PID, sender.PgConn().PID())
		}
	}
}

// TestTerminatedByAnother: to terminate the process that a client was told, ends
// the client, idle or not, and nobody else.
func TestTerminatedByAnother(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	killer, idle, bystander := p.connect(t, ""), p.dialRaw(t, nil), p.connect(t, "")
	pid := idle.say(query("select pg_backend_pid()"))[1][len("DataRow "):]
	idle.say(query("discard all"))
	must(t, killer, "select pg_terminate_backend("+pid+")")
	idle.until("ErrorResponse 57P01")
	must(t, bystander, "select 1", "create temp table here(i int)")

	busy := p.connect(t, "")
	done := make(chan error, 1)
	go func() { // ends with the statement
		_, err := busy.Exec(context.Background(), "select pg_sleep(30) from pg_class for update limit 1")
		done <- err
	}()
	told := strconv.Itoa(int(busy.PgConn().PID()))
	eventually(t, "a cancelled statement", func() bool {
		var ok bool
		sql := "select pg_cancel_backend(pid) from pg_stat_activity where state = 'active' and pid = " + told
		return killer.QueryRow(t.Context(), sql).Scan(&ok) == nil && ok
	})
	if err := <-done; code(err) != "57014" {
		t.Errorf("cancelled by another: %v", err)
	}
}

// TestNoProcessID: a client for which there was no room is told a number of its
// own that no process has, and can be cancelled by it.
func TestNoProcessID(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Limits.Size = 2 })
	p.awaitFollowers(t, 2)
	told := make(map[uint32]bool)
	var all []*pgx.Conn
	for range 5 {
		c := p.connect(t, "")
		if pid := c.PgConn().PID(); told[pid] {
			t.Errorf("%d is told twice", pid)
		}
		told[c.PgConn().PID()] = true
		all = append(all, c)
	}
	for i, c := range all {
		done := make(chan error, 1)
		go func() { // ends with the statement
			_, err := c.Exec(context.Background(), "select pg_sleep(30)")
			done <- err
		}()
		var err error
		eventually(t, fmt.Sprint("session ", i, " is cancelled"), func() bool {
			if err := c.PgConn().CancelRequest(t.Context()); err != nil {
				t.Fatal(err)
			}
			select {
			case err = <-done:
				return true
			case <-time.After(20 * time.Millisecond):
				return false
			}
		})
		if code(err) != "57014" {
			t.Errorf("session %d: %v", i, err)
		}
	}
}

// TestHomeGoesWithItsSession: where somebody was at home who has left, the next
// one is.
func TestHomeGoesWithItsSession(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Limits.Size = 1 })
	p.awaitFollowers(t, 2)
	for range 3 {
		c := p.connect(t, "")
		if told, is := c.PgConn().PID(), backendPID(t, c); told != is {
			t.Errorf("told %d, is %d", told, is)
		}
		must(t, c, "discard all")
		_ = c.Close(t.Context())
		eventually(t, "the end of the session", func() bool { return p.server.Stat().Connected == 0 })
	}
}
