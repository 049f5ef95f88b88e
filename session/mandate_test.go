package session_test

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lsnproxy/lsnproxy/lagwatch"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
	"github.com/lsnproxy/lsnproxy/wire"
)

// mandate is a right to write that the test gives and takes.
type mandate struct {
	lease atomic.Pointer[lease]
	acked atomic.Uint64
}

type lease struct {
	epoch    uint64
	until    time.Time
	retiring bool
}

func (m *mandate) MayWrite(now time.Time) (uint64, time.Time, bool) {
	l := m.lease.Load()
	return l.epoch, l.until, !l.retiring && now.Before(l.until)
}

func (m *mandate) MayFinish(epoch uint64, now time.Time) bool {
	l := m.lease.Load()
	return l.epoch == epoch && now.Before(l.until)
}

func (m *mandate) Acknowledge(epoch uint64) { m.acked.Store(epoch) }

// set gives a lease of epoch for d.
func (m *mandate) set(epoch uint64, d time.Duration, retiring bool) {
	m.lease.Store(&lease{epoch, time.Now().Add(d), retiring})
}

// ruled starts a proxy under a decree of epoch 1, with a lease of it.
func ruled(t *testing.T, change func(*settings)) (*proxy, *mandate, func(epoch uint64, leader bool)) {
	t.Helper()
	m := &mandate{}
	m.set(1, time.Hour, false)
	p := startProxy(t, shared.cluster, func(s *settings) {
		s.session.Mandate, s.session.LeaderWait = m, 400*time.Millisecond
		if change != nil {
			change(s)
		}
	})
	rule := func(epoch uint64, leader bool) {
		r := lagwatch.Ruling{Epoch: epoch, Timeline: 1}
		if leader {
			r.Leader = p.board.View().Nodes[0].Address
		}
		p.watch.Rule(r)
	}
	rule(1, true)
	p.awaitFollowers(t, 2)
	return p, m, rule
}

func stateOf(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// Without a lease nothing is written; reads go on where followers may serve them.
func TestNoLeaseNoWrite(t *testing.T) {
	p, m, _ := ruled(t, nil)
	conn := p.connect(t, "")
	ctx := t.Context()
	exec := func(sql string) string { _, err := conn.Exec(ctx, sql); return stateOf(err) }
	if got := exec("create table if not exists leased(a int)"); got != "" {
		t.Fatal(got)
	}
	p.awaitDefinitions(t)
	m.set(1, 0, false)
	if got := exec("insert into leased values (1)"); got != "57P03" {
		t.Errorf("a write without a lease: %q, want 57P03", got)
	}
	if got := exec("begin"); got != "57P03" {
		t.Errorf("BEGIN without a lease: %q, want 57P03", got)
	}
	if got := exec("set lsnproxy.consistency = 'strong'"); got != "57P03" {
		t.Errorf("SET without a lease: %q, want 57P03", got)
	}
	if got := exec("select count(*) from leased"); got != "" {
		t.Errorf("a read that a follower may serve: %q", got)
	}
	if got := exec("/* lsnproxy: consistency=strong */ select count(*) from leased"); got != "57P03" {
		t.Errorf("a strong read without a lease: %q, want 57P03", got)
	}
	m.set(1, time.Hour, true) // held while the lease is on its way out, and on its way back
	done := make(chan string)
	go func() { _, err := conn.Exec(ctx, "insert into leased values (2)"); done <- stateOf(err) }()
	time.Sleep(50 * time.Millisecond)
	select {
	case got := <-done:
		t.Errorf("a write under a lease that is retired: %q at once", got)
	default:
	}
	m.set(1, time.Hour, false)
	if got := <-done; got != "" {
		t.Errorf("a write that was held until the lease came: %q", got)
	}
}

// A decree without a leader ends what runs when the lease is over, and what begins
// later waits for the next.
func TestDecreeEndsTransactions(t *testing.T) {
	p, m, rule := ruled(t, nil)
	ctx := t.Context()
	begin := func() *pgx.Conn {
		conn := p.connect(t, "")
		for _, sql := range []string{"begin", "select pg_current_xact_id()"} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				t.Fatal(err)
			}
		}
		return conn
	}
	exec := func(conn *pgx.Conn, sql string) string { _, err := conn.Exec(ctx, sql); return stateOf(err) }

	idle, listening, running, committing := begin(), p.connect(t, ""), begin(), p.connect(t, "")
	if got := exec(listening, "listen deposed"); got != "" {
		t.Fatal(got)
	}
	inTx, alone := make(chan string, 1), make(chan string, 1)
	go func() { inTx <- exec(running, "select pg_sleep(30) /* in a transaction */, pg_current_xact_id()") }()
	go func() { alone <- exec(committing, "do $$ begin perform pg_sleep(30); end $$ /* alone */") }()
	for _, part := range []string{"in a transaction", "alone"} {
		awaitStatement(t, part)
	}

	m.set(1, 0, true)
	rule(2, false)
	if got := <-inTx; got != "08006" {
		t.Errorf("a statement in a transaction: %q, want 08006", got)
	}
	if got := <-alone; got != "08007" {
		t.Errorf("a statement that may have committed: %q, want 08007", got)
	}
	if got := exec(idle, "select 1"); got != "08006" {
		t.Errorf("the next statement of an idle transaction: %q, want 08006", got)
	}
	if got := exec(idle, "rollback"); got != "57P03" && got != "" {
		t.Errorf("ROLLBACK of what is gone: %q", got)
	}
	if got := exec(listening, "select 1"); got != "08006" || !listening.IsClosed() {
		t.Errorf("a session with state on the server: %q, closed %v; want 08006 and the end", got, listening.IsClosed())
	}
	eventually(t, "the decree is acknowledged", func() bool { return m.acked.Load() == 2 })

	m.set(3, time.Hour, false)
	rule(3, true)
	if got := exec(running, "rollback"); got != "" {
		t.Errorf("ROLLBACK under the next decree: %q", got)
	}
	if got := exec(running, "create temporary table after_decree(a int)"); got != "" {
		t.Errorf("the session does not go on: %q", got)
	}
}

// As long as the lease lasts, transactions come to their end, and nobody sees an error.
func TestDecreeDrains(t *testing.T) {
	p, m, rule := ruled(t, func(s *settings) { s.session.LeaderWait = 20 * time.Second })
	ctx := t.Context()
	a, b := p.connect(t, ""), p.connect(t, "")
	exec := func(conn *pgx.Conn, sql string) string { _, err := conn.Exec(ctx, sql); return stateOf(err) }
	for _, sql := range []string{"create table if not exists drained(a int)", "begin", "insert into drained values (1)"} {
		if got := exec(a, sql); got != "" {
			t.Fatal(got)
		}
	}
	m.set(1, time.Hour, true)
	rule(2, false)
	held := make(chan string, 1)
	go func() { held <- exec(b, "insert into drained values (2)") }()
	if got := exec(a, "insert into drained values (3)"); got != "" {
		t.Errorf("a statement while draining: %q", got)
	}
	if m.acked.Load() == 2 {
		t.Error("acknowledged while a transaction is open")
	}
	if got := exec(a, "commit"); got != "" {
		t.Errorf("COMMIT while draining: %q", got)
	}
	eventually(t, "the decree is acknowledged", func() bool { return m.acked.Load() == 2 })
	select {
	case got := <-held:
		t.Errorf("what began later did not wait: %q", got)
	default:
	}
	m.set(3, time.Hour, false)
	rule(3, true)
	if got := <-held; got != "" {
		t.Errorf("what was held: %q", got)
	}
}

// Who stands in line for a connection to a leader that is none any more goes on at once:
// a server that is cut off may let nobody in for as long as it takes to find that out.
func TestLineForOldLeader(t *testing.T) {
	p, m, rule := ruled(t, func(s *settings) { s.pool.Limits.Size = 1 })
	ctx := t.Context()
	a, b := p.connect(t, ""), p.connect(t, "")
	if _, err := a.Exec(ctx, "begin; create table if not exists lined(a int)"); err != nil {
		t.Fatal(err)
	}
	lined := make(chan string, 1)
	go func() { // ends when the statement does; waited for below
		_, err := b.Exec(ctx, "create table if not exists lined_too(a int)")
		lined <- stateOf(err)
	}()
	eventually(t, "it stands in line", func() bool { return waiting(p) == 1 })
	m.set(1, time.Hour, true)
	rule(2, false)
	if got := <-lined; got != "57P03" {
		t.Errorf("who stood in line: %q, want 57P03", got)
	}
	if _, err := a.Exec(ctx, "commit"); err != nil {
		t.Errorf("who had the connection: %v", err)
	}
}

// waiting is how many stand in line for a connection.
func waiting(p *proxy) (n int) {
	for _, g := range p.pool.Stat() {
		n += g.Waiting
	}
	return n
}

// An answer that comes when the lease is over is not passed on as a success: the
// server may have been replaced.
func TestAnswerAfterLease(t *testing.T) {
	p, m, _ := ruled(t, nil)
	conn := p.connect(t, "")
	if _, err := conn.Exec(t.Context(), "create table if not exists late(a int)"); err != nil {
		t.Fatal(err)
	}
	done := make(chan string, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "do $$ begin insert into late values (1); perform pg_sleep(0.5); end $$ /* late */")
		done <- stateOf(err)
	}()
	awaitStatement(t, "late */")
	m.set(1, 0, false)
	if got := <-done; got != "08007" {
		t.Errorf("an answer after the lease: %q, want 08007", got)
	}
}

// awaitStatement waits until a statement with this text runs on the leader.
func awaitStatement(t *testing.T, part string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), "postgres://postgres@"+shared.cluster.Leader().Addr()+"/postgres?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	eventually(t, "a statement runs: "+part, func() bool {
		var n int
		err := conn.QueryRow(t.Context(), "select count(*) from pg_stat_activity where state = 'active' and query like '%' || $1 || '%' and pid <> pg_backend_pid()", part).Scan(&n)
		return err == nil && n > 0
	})
}

// Where the servers themselves say who leads, what runs on an old leader is cut
// when another is found, though the old one lives and would go on.
func TestOldLeaderLeft(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	p := startProxy(t, c, nil)
	p.awaitFollowers(t, 1)
	conn, listening := p.connect(t, ""), p.connect(t, "")
	exec := func(conn *pgx.Conn, sql string) string { _, err := conn.Exec(t.Context(), sql); return stateOf(err) }
	for _, sql := range []string{"create table left_behind(a int)", "begin", "insert into left_behind values (1)"} {
		if got := exec(conn, sql); got != "" {
			t.Fatal(got)
		}
	}
	if got := exec(listening, "listen left_behind"); got != "" {
		t.Fatal(got)
	}
	if err := c.Nodes()[1].Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new leader", func() bool { return p.board.View().Leader == 1 })
	eventually(t, "the session that held state there ends", func() bool { return exec(listening, "") != "" })
	if got := exec(conn, "commit"); got != "08006" {
		t.Errorf("COMMIT to the old leader: %q, want 08006", got)
	}
	if got := exec(conn, "insert into left_behind values (2)"); got != "" {
		t.Errorf("the session does not go on: %q", got)
	}
}

// A cancel request that reaches another proxy than the session's finds it all the
// same, and nobody else.
func TestCancelElsewhere(t *testing.T) {
	var there *proxy
	passed := make(chan []byte, 1)
	here := startProxy(t, shared.cluster, func(s *settings) {
		s.session.Elsewhere = func(packet []byte) { passed <- packet }
	})
	there = startProxy(t, shared.cluster, nil)
	here.awaitFollowers(t, 2)
	there.awaitFollowers(t, 2)
	conn := there.connect(t, "")
	done := make(chan string, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "do $$ begin perform pg_sleep(30); end $$ /* elsewhere */")
		done <- stateOf(err)
	}()
	awaitStatement(t, "elsewhere */")
	pg := conn.PgConn()
	if _, err := dialTCP(t, here.addr).Write(wire.AppendCancelRequest(nil, pg.PID(), pg.SecretKey())); err != nil {
		t.Fatal(err)
	}
	packet := <-passed
	wrong := bytes.Clone(packet)
	wrong[len(wrong)-1] ^= 1
	if there.server.Cancel(wrong) {
		t.Error("a request with a wrong key has found somebody")
	}
	if !there.server.Cancel(packet) {
		t.Error("the request that was passed on has found nobody")
	}
	if got := <-done; got != "57014" {
		t.Errorf("the statement ended with %q, want 57014", got)
	}
}
