package session_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
	"github.com/lsnproxy/lsnproxy/session"
)

// TestCommitAmongStatementsIsUnknown loses the connection under a string of
// statements that has committed its transaction on the way: promise 8.
func TestCommitAmongStatementsIsUnknown(t *testing.T) {
	table(t, "among")
	p := startProxy(t, shared.cluster, linked)
	p.awaitFollowers(t, 2)
	conn := p.connect(t, "application_name=among&default_query_exec_mode=simple_protocol")
	must(t, conn, "begin")
	result := make(chan error, 1)
	go func() { // ends with the connection, which is cut; waited for below
		_, err := conn.Exec(t.Context(), "insert into among values (1); commit; select pg_sleep(30)")
		result <- err
	}()
	watch := direct(t, shared.cluster.Nodes()[0])
	eventually(t, "the commit", func() bool { return count(t, watch, "select count(*) from among") == 1 })
	p.cut(0)
	if err := <-result; code(err) != "08007" {
		t.Errorf("told %v", err)
	}
	if n := p.server.Stat().OutcomeUnknown; n != 1 {
		t.Errorf("%d outcomes unknown are counted", n)
	}
	must(t, conn, "rollback", "insert into among values (2)")
}

// TestReadAfterUnknownOutcome checks that a write whose outcome the session was
// not told is not missed by its next read.
func TestReadAfterUnknownOutcome(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	p := startProxy(t, c, func(s *settings) {
		linked(s)
		s.session.LeaderWait = 20 * time.Second // the watcher's connection is cut too
	})
	p.awaitFollowers(t, 1)
	watch, follower := direct(t, c.Nodes()[0]), c.Followers()[0]
	conn := p.connect(t, "application_name=unknown&default_query_exec_mode=simple_protocol")
	must(t, watch, "create table unknown(a int)")
	eventually(t, "a read on the follower", func() bool {
		_, err := conn.Exec(t.Context(), "select count(*) from unknown")
		return err == nil && served(t, conn) == p.links[1].Addr()
	})
	if err := follower.PauseReplay(t.Context()); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { // ends with the connection, which is cut; waited for below
		_, err := conn.Exec(t.Context(), "begin; insert into unknown values (1); commit; select pg_sleep(30)")
		result <- err
	}()
	eventually(t, "the commit", func() bool { return count(t, watch, "select count(*) from unknown") == 1 })
	p.cut(0)
	if err := <-result; code(err) != "08007" {
		t.Errorf("told %v", err)
	}
	if n := count(t, direct(t, c.Nodes()[1]), "select count(*) from unknown"); n != 0 {
		t.Error("the control: the follower shows the row, so it proves nothing")
	}
	if n := count(t, conn, "select count(*) from unknown"); n != 1 {
		t.Errorf("%d rows, read on %s", n, served(t, conn))
	}
	if err := follower.ResumeReplay(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestReadIsRunAgainOnce ends the connection of a read wherever it runs: it may
// be the read itself that brings servers down.
func TestReadIsRunAgainOnce(t *testing.T) {
	p := startProxy(t, shared.cluster, linked)
	p.awaitFollowers(t, 2)
	conn := p.connect(t, "application_name=twice&default_query_exec_mode=simple_protocol")
	var nodes []*pgx.Conn
	for _, n := range shared.cluster.Nodes() {
		nodes = append(nodes, direct(t, n))
	}
	result := make(chan error, 1)
	go func() { // ends with its connections, which are cut; waited for below
		_, err := conn.Exec(t.Context(), "select pg_sleep(30), 'twice'")
		result <- err
	}()
	ended := 0
	var told error
	eventually(t, "the end of the read", func() bool {
		for i, n := range nodes {
			pid := count(t, n, `select coalesce(max(pid), 0) from pg_stat_activity
				where application_name = 'twice' and state = 'active' and query like 'select pg_sleep%'`)
			if pid > 0 {
				p.cut(i)
				ended++
				count(t, n, fmt.Sprintf("select pg_terminate_backend(%d)::int", pid)) // it has not noticed
			}
		}
		select {
		case told = <-result:
			return true
		default:
			return false
		}
	})
	if code(told) != "08006" || p.server.Stat().Retries != 1 {
		t.Errorf("told %v after %d ends, run again %d times", told, ended, p.server.Stat().Retries)
	}
	must(t, conn, "select 1")
}

// TestConnectionLostUnderCopy ends the connection of a copy whose client says
// nothing: it is told at once, not when it speaks next.
func TestConnectionLostUnderCopy(t *testing.T) {
	table(t, "copied_idle")
	p := startProxy(t, shared.cluster, linked)
	p.awaitFollowers(t, 2)
	r := p.dialRaw(t, map[string]string{"application_name": "copying"})
	r.expect(query("copy copied_idle from stdin").till("CopyInResponse"), "CopyInResponse")
	p.cut(0)
	got := r.untilReady()
	if len(got) != 2 || !strings.HasPrefix(got[0], "ErrorResponse ") || got[1] != "ReadyForQuery I" {
		t.Fatalf("told %q", got)
	}
	// What the client had under way is the rest of a copy that has failed.
	half := encoded(&pgproto3.CopyData{Data: []byte("1\n")}, &pgproto3.CopyDone{})
	r.expect(octets(half, query("select count(*) from copied_idle").bytes()), "RowDescription", "DataRow 0", "CommandComplete SELECT 1", "ReadyForQuery I")
}

// TestClientGoneAfterError checks that a client which leaves within a batch that
// has failed leaves its connection to others.
func TestClientGoneAfterError(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) {
		s.pool.Size = 1
		s.pool.Wait = 5 * time.Second
	})
	p.awaitFollowers(t, 2)
	r := p.dialRaw(t, nil)
	r.expect(flight(parse("", "selec 1"), query("select 2").send[0]).till("ErrorResponse"), `ErrorResponse 42601 syntax error at or near "selec"`)
	_ = r.conn.Close()
	eventually(t, "the end of the session", func() bool { return p.server.Stat().Connected == 0 })
	must(t, p.connect(t, ""), "select txid_current()")
}

// TestCloseUnderQuery closes the proxy under a statement that would run for
// longer than anybody waits.
func TestCloseUnderQuery(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	r := p.dialRaw(t, map[string]string{"application_name": "closing"})
	if _, err := r.conn.Write(query("select pg_sleep(60)").bytes()); err != nil {
		t.Fatal(err)
	}
	awaitRunning(t, shared.cluster, "closing")
	closed := make(chan struct{})
	go func() { // waited for below; if it hangs, so does the test's cleanup
		defer close(closed)
		p.server.Close(100 * time.Millisecond)
		p.pool.Close()
		p.engine.Close()
	}()
	select {
	case <-closed:
	case <-time.After(15 * time.Second):
		panic("the proxy does not close") // with the stacks of what hangs
	}
}

// TestLossIsToldWhateverComesFirst discards the writes of sessions in a failover:
// each is told so by its first statement, be it a read, a BEGIN or a write, and
// that statement is not run: promise 4.
func TestLossIsToldWhateverComesFirst(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	p := startProxy(t, c, nil)
	p.awaitFollowers(t, 1)
	first := []string{"select count(*) from lossy", "begin", "insert into lossy values (100)"}
	var conns []*pgx.Conn
	for range first {
		conns = append(conns, p.connect(t, "default_query_exec_mode=simple_protocol"))
	}
	must(t, conns[0], "create table lossy(i int)")
	if err := c.WaitStreaming(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, watch := c.Followers()[0], direct(t, c.Nodes()[0])
	if err := f.Set(t.Context(), "primary_conninfo", ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of streaming", func() bool { return count(t, watch, "select count(*) from pg_stat_replication") == 0 })
	for _, conn := range conns {
		must(t, conn, "insert into lossy values (1)")
	}
	if err := c.Nodes()[0].Kill(); err != nil {
		t.Fatal(err)
	}
	if err := f.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new leader", func() bool { return p.board.View().Leader == 1 })
	for i, conn := range conns {
		if _, err := conn.Exec(t.Context(), first[i]); code(err) != "LS001" {
			t.Errorf("%s: %v", first[i], err)
		}
		if s := conn.PgConn().TxStatus(); s != 'I' {
			t.Errorf("%s leaves the session in state %c", first[i], s)
		}
		if n := count(t, conn, "select count(*) from lossy"); n != 0 { // told once
			t.Errorf("%s: %d rows", first[i], n)
		}
	}
	if n := p.server.Stat().LostWrites; n != 3 {
		t.Errorf("%d losses are counted", n)
	}
}

// TestCancelWhileOvertaking cancels a statement for which the leader has not yet
// what the session has seen on a follower.
func TestCancelWhileOvertaking(t *testing.T) {
	limit := session.SetOvertakeLimit(time.Minute) // the request may be a long time on its way
	t.Cleanup(func() { session.SetOvertakeLimit(limit) })
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	p := startProxy(t, c, func(s *settings) { s.pool.Size = 1 })
	p.awaitFollowers(t, 1)
	leader := c.Nodes()[0]
	must(t, direct(t, leader), "create table ahead(a int)")
	conn := p.connect(t, "application_name=ahead&default_query_exec_mode=simple_protocol")
	written := showAhead(t, c, conn)
	eventually(t, "the row on the follower", func() bool { return count(t, conn, "select count(*) from ahead") == 1 })
	overtakes := p.server.Stat().Overtakes
	result := make(chan error, 1)
	go func() { // ends when it is cancelled, or the setting is taken back; waited for below
		_, err := conn.Exec(t.Context(), "select txid_current()")
		result <- err
	}()
	eventually(t, "the statement to wait for the leader", func() bool { return p.server.Stat().Overtakes > overtakes })
	if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-result; code(err) != "57014" || conn.PgConn().TxStatus() != 'I' {
		t.Errorf("cancelled statement: %v, state %c", err, conn.PgConn().TxStatus())
	}
	must(t, conn, "select 1")
	if err := leader.Set(context.Background(), "synchronous_standby_names", ""); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	must(t, p.connect(t, ""), "select txid_current()") // the one connection is free
}

// showAhead writes a row into the table ahead that the follower shows and the leader
// does not: its commit waits for a synchronous standby, until that setting is taken
// back. conn reads from the follower before. What comes of the write is to be
// waited for.
func showAhead(t *testing.T, c *pgcluster.Cluster, conn *pgx.Conn) (written chan error) {
	t.Helper()
	eventually(t, "a read on the follower", func() bool {
		_, err := conn.Exec(t.Context(), "select count(*) from ahead")
		return err == nil && served(t, conn) == c.Nodes()[1].Addr()
	})
	leader := c.Nodes()[0]
	writer := direct(t, leader)
	if err := leader.Set(t.Context(), "synchronous_standby_names", "nobody"); err != nil {
		t.Fatal(err)
	}
	written = make(chan error, 1)
	insert := func() { // ends when the setting is taken back; the caller waits for it
		_, err := writer.Exec(t.Context(), "insert into ahead values (1)")
		written <- err
	}
	go insert()
	// The checkpointer tells the others of the setting, when it has read it
	// (SyncRepUpdateSyncStandbysDefined in syncrep.c).
	watch := direct(t, leader)
	eventually(t, "the commit to wait for a standby", func() bool {
		select {
		case err := <-written:
			if err != nil {
				t.Fatal(err)
			}
			must(t, watch, "set synchronous_commit = local", "delete from ahead")
			go insert()
		default:
		}
		return count(t, watch, "select count(*) from pg_stat_activity where wait_event = 'SyncRep'") > 0
	})
	return written
}
