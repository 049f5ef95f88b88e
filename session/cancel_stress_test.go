package session_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	groups "sync" // the name itself is taken in this package
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lsnproxy/lsnproxy/pgcluster"
)

// target is a session that is cancelled at random moments, and counts.
type target struct {
	conn *pgx.Conn
	app  string
	sent atomic.Int64 // cancel requests, counted before they are sent
	hits int64        // statements that were cancelled
}

// TestCancelStress cancels statements at random moments, from sessions of both
// protocol versions that share few connections with each other and with others
// that nobody cancels. Each cancelled statement must be of a session that asked
// for it, at most as many as it asked for; and one that runs long is cancelled.
func TestCancelStress(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size, s.loops = 3, 2 })
	p.awaitFollowers(t, 2)
	ctx, stop := context.WithCancel(t.Context())
	var others, cancelling groups.WaitGroup
	for range 4 {
		conn := p.connect(t, "default_query_exec_mode=simple_protocol")
		others.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if _, err := conn.Exec(t.Context(), statementFor(i)); err != nil {
					t.Errorf("a session that nobody cancels: %v", err)
					return
				}
			}
		})
	}
	targets := make([]*target, 8)
	for i := range targets {
		x := &target{app: fmt.Sprintf("target%d", i)}
		x.conn = p.connect(t, fmt.Sprintf("default_query_exec_mode=simple_protocol&application_name=%s&max_protocol_version=3.%d", x.app, i%2*2))
		if n, want := len(x.conn.PgConn().SecretKey()), 4+i%2*28; n != want {
			t.Fatalf("a key of %d bytes, not %d", n, want)
		}
		targets[i] = x
		cancelling.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(time.Duration(rand.IntN(6000)) * time.Microsecond)
				x.sent.Add(1)
				if err := x.conn.PgConn().CancelRequest(t.Context()); err != nil {
					t.Errorf("cancel request: %v", err)
				}
			}
		})
	}
	var running groups.WaitGroup
	for _, x := range targets {
		running.Go(func() {
			for i := range 60 {
				if err := x.run(t.Context(), statementFor(i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	stop()
	cancelling.Wait()
	others.Wait()
	var sent, hits int64
	for _, x := range targets {
		sent, hits = sent+x.sent.Load(), hits+x.hits
	}
	t.Logf("%d cancel requests, %d statements cancelled", sent, hits)
	if hits == 0 {
		t.Error("nothing was cancelled")
	}
	for _, x := range targets {
		x.runsLong(t, shared.cluster)
	}
}

// statementFor alternates reads, writes and transactions of a few milliseconds.
func statementFor(i int) string {
	sleep := fmt.Sprintf("pg_sleep(%.4f)", rand.Float64()/200)
	switch i % 3 {
	case 0:
		return "select " + sleep
	case 1:
		return "do $$ begin perform " + sleep + "; end $$"
	default:
		return "begin; select " + sleep + "; end"
	}
}

// run runs a statement, and takes note if it was cancelled.
func (x *target) run(ctx context.Context, sql string) error {
	for {
		_, err := x.conn.Exec(ctx, sql)
		if err == nil {
			return nil
		}
		if code(err) != "57014" {
			return fmt.Errorf("%s: %w", sql, err)
		}
		x.hits++
		if sent := x.sent.Load(); x.hits > sent {
			return fmt.Errorf("%d statements cancelled by %d requests", x.hits, sent)
		}
		sql = "rollback"
	}
}

// runsLong cancels a statement that would run for a minute, once.
func (x *target) runsLong(t *testing.T, c *pgcluster.Cluster) {
	t.Helper()
	done := make(chan error, 1)
	go func() { // ends with the statement, which is waited for
		_, err := x.conn.Exec(t.Context(), "begin; select pg_sleep(60); end")
		done <- err
	}()
	awaitRunning(t, c, x.app)
	if err := x.conn.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if code(err) != "57014" {
			t.Errorf("a statement that ran long: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("a statement that runs long is not cancelled")
	}
	if err := x.run(t.Context(), "rollback"); err != nil {
		t.Error(err)
	}
}
