package session_test

import (
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/lsnproxy/lsnproxy/pgcluster"
)

// program runs one of PostgreSQL's programs against the proxy to its end.
func program(t *testing.T, c *pgcluster.Cluster, p *proxy, name string, args ...string) string {
	t.Helper()
	host, port, _ := net.SplitHostPort(p.addr)
	cmd := exec.CommandContext(t.Context(), c.Program(name), append([]string{"-h", host, "-p", port, "-U", "postgres", "-w"}, args...)...)
	cmd.Env = []string{"LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// TestReplicationConnections runs the programs that use the replication protocol,
// and a follower, through the proxy.
func TestReplicationConnections(t *testing.T) {
	c, err := pgcluster.Start(t.Context(), pgcluster.Options{Followers: 1, Settings: map[string]string{"wal_level": "logical"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Stop() })
	p := startProxy(t, c, nil)
	p.awaitFollowers(t, 1)
	conn := p.connect(t, "")
	must(t, conn, "create table r(i int)", "insert into r select generate_series(1, 1000)")

	for _, method := range []string{"stream", "fetch"} {
		backup := filepath.Join(t.TempDir(), "backup")
		program(t, c, p, "pg_basebackup", "-D", backup, "-X", method, "-c", "fast")
		verify := exec.CommandContext(t.Context(), c.Program("pg_verifybackup"), backup)
		if out, err := verify.CombinedOutput(); err != nil {
			t.Errorf("backup with -X %s: %v\n%s", method, err, out)
		}
	}

	var end string
	scan(t, conn, &end, "select pg_current_wal_lsn()::text")
	folder := t.TempDir()
	must(t, conn, "select pg_switch_wal()", "insert into r values (0)")
	scan(t, conn, &end, "select pg_current_wal_lsn()::text")
	program(t, c, p, "pg_receivewal", "-D", folder, "--endpos="+end, "--no-loop")
	if files, _ := filepath.Glob(filepath.Join(folder, "0*")); len(files) == 0 {
		t.Error("pg_receivewal has received nothing")
	}

	program(t, c, p, "pg_recvlogical", "-d", "postgres", "--slot=logical", "--create-slot", "-P", "test_decoding")
	must(t, conn, "insert into r values (4711)")
	scan(t, conn, &end, "select pg_current_wal_lsn()::text")
	got := program(t, c, p, "pg_recvlogical", "-d", "postgres", "--slot=logical", "--start", "-f", "-", "--endpos="+end, "--no-loop")
	if !strings.Contains(got, "4711") {
		t.Errorf("pg_recvlogical: %q", got)
	}
	program(t, c, p, "pg_recvlogical", "-d", "postgres", "--slot=logical", "--drop-slot")

	host, port, _ := net.SplitHostPort(p.addr)
	follower := c.Followers()[0]
	if err := follower.Set(t.Context(), "primary_conninfo", "host="+host+" port="+port+" user=postgres application_name=through"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a follower that streams through the proxy", func() bool {
		var n int
		scan(t, conn, &n, "select count(*) from pg_stat_replication where application_name = 'through' and state = 'streaming'")
		return n == 1
	})
	if n := p.server.Stat().Replicating; n != 1 {
		t.Errorf("%d replication connections are counted, not 1", n)
	}
	must(t, conn, "insert into r values (4712)")
	eventually(t, "what was written on that follower", func() bool {
		direct, err := pgx.Connect(t.Context(), follower.URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		defer direct.Close(t.Context())
		var n int
		scan(t, direct, &n, "select count(*) from r where i = 4712")
		return n == 1
	})
}

func scan(t testing.TB, conn *pgx.Conn, into any, sql string) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql).Scan(into); err != nil {
		t.Fatal(err)
	}
}

// TestReplicationValues holds how the startup parameter is read against the
// server itself, and what a replication connection answers.
func TestReplicationValues(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.session.Replications = 10 })
	p.awaitFollowers(t, 2)
	for _, value := range []string{
		"true", "TRUE", "t", "yes", "y", "on", "1", "database",
		"false", "f", "no", "off", "of", "0", "o", "", "2", "Database", "maybe", "true ",
	} {
		direct := loginLines(t, shared.cluster.Leader().Addr(), value)
		through := loginLines(t, p.addr, value)
		if direct != through {
			t.Errorf("replication=%q:\ndirect  %s\nthrough %s", value, direct, through)
		}
	}
}

// loginLines logs in with that value, asks for the identity of the system and
// tells what came, but for the parameters.
func loginLines(t *testing.T, addr, replication string) string {
	t.Helper()
	conn := dialTCP(t, addr)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	f := pgproto3.NewFrontend(conn, conn)
	f.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{
		"user": "postgres", "database": "postgres", "replication": replication,
	}})
	f.SendQuery(&pgproto3.Query{String: "IDENTIFY_SYSTEM"}) // ahead of the greeting
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
	lines := ""
	for ready := 0; ready < 2; {
		msg, err := f.Receive()
		if err != nil {
			return lines + "end"
		}
		switch m := msg.(type) {
		case *pgproto3.ParameterStatus:
			continue
		case *pgproto3.ReadyForQuery:
			ready++
		case *pgproto3.DataRow:
			lines += string(m.Values[0]) + "; "
			continue
		}
		lines += describe(msg) + "; "
	}
	return lines
}

// TestReplicationLimit refuses one more replication connection than is allowed.
func TestReplicationLimit(t *testing.T) {
	p := startProxy(t, shared.cluster, func(s *settings) { s.session.Replications = 2 })
	p.awaitFollowers(t, 2)
	one := p.dialRaw(t, map[string]string{"replication": "database"})
	p.dialRaw(t, map[string]string{"replication": "true"})
	if lines := loginLines(t, p.addr, "true"); !strings.Contains(lines, "ErrorResponse 53300") {
		t.Errorf("a third connection: %s", lines)
	}
	_ = one.conn.Close()
	eventually(t, "the end of the first one", func() bool { return p.server.Stat().Replicating == 1 })
	p.dialRaw(t, map[string]string{"replication": "true"})
}

// TestReplicationCancel cancels a query on a replication connection.
func TestReplicationCancel(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	conn, err := pgx.Connect(t.Context(), p.url("replication=database&application_name=replcancel&default_query_exec_mode=simple_protocol"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "select pg_sleep(60)")
		done <- err
	}()
	awaitRunning(t, shared.cluster, "replcancel")
	if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; code(err) != "57014" {
		t.Errorf("cancelled statement: %v", err)
	}
}
