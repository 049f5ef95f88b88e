package pgcluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

func TestFollowersStream(t *testing.T) {
	begin := time.Now()
	c := pgtest.Start(t, pgcluster.Options{
		Followers: 2,
		Settings:  map[string]string{"max_prepared_transactions": "7", "lsnproxy.note": `it's a \ note`},
	})
	t.Logf("serving after %v", time.Since(begin))
	leader, followers := c.Leader(), c.Followers()
	if leader != c.Nodes()[0] || len(followers) != 2 || leader.Network() != nil {
		t.Fatalf("leader %s of %d nodes, network %v", leader.Name(), len(c.Nodes()), leader.Network())
	}
	exec(t, leader, "CREATE TABLE t AS SELECT 42 AS x")
	must(t, c.WaitStreaming(soon(t)))
	for _, n := range followers {
		if x := get[int](t, n, "SELECT x FROM t"); x != 42 {
			t.Errorf("%s: x = %d", n.Name(), x)
		}
		if !get[bool](t, n, "SELECT pg_is_in_recovery()") {
			t.Errorf("%s is not a follower", n.Name())
		}
		slot := "SELECT active FROM pg_replication_slots WHERE slot_name = '" + n.Name() + "'"
		if !get[bool](t, leader, slot) {
			t.Errorf("%s does not use its slot", n.Name())
		}
	}
	for _, n := range c.Nodes() {
		for setting, want := range map[string]string{
			"cluster_name": n.Name(), "data_checksums": "on", "fsync": "on", "data_directory": n.DataDir(),
			"max_prepared_transactions": "7", "lsnproxy.note": `it's a \ note`,
		} {
			if got := get[string](t, n, "SELECT current_setting('"+setting+"')"); got != want {
				t.Errorf("%s: %s is %q, want %q", n.Name(), setting, got, want)
			}
		}
		if log, err := os.ReadFile(n.LogFile()); err != nil || !strings.Contains(string(log), "ready to accept") {
			t.Errorf("log of %s: %v\n%s", n.Name(), err, log)
		}
	}
}

func TestClustersSideBySide(t *testing.T) {
	long(t)
	clusters := make([]*pgcluster.Cluster, 3)
	errs := make([]error, len(clusters))
	var starting sync.WaitGroup
	for i := range clusters {
		starting.Go(func() { clusters[i], errs[i] = pgcluster.Start(soon(t), pgcluster.Options{Followers: 1}) })
	}
	starting.Wait()
	must(t, errors.Join(errs...))
	for i, c := range clusters {
		exec(t, c.Leader(), fmt.Sprint("CREATE TABLE t AS SELECT ", i, " AS x"))
		must(t, c.WaitStreaming(soon(t)))
		if x := get[int](t, c.Followers()[0], "SELECT x FROM t"); x != i {
			t.Errorf("cluster %d: x = %d", i, x)
		}
		must(t, c.Stop()) // and the next ones live on
	}
}

func TestReplayPaused(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	follower := c.Followers()[0]
	exec(t, c.Leader(), "CREATE TABLE t (x int)")
	must(t, c.WaitStreaming(soon(t)))

	must(t, follower.PauseReplay(soon(t)))
	exec(t, c.Leader(), "INSERT INTO t VALUES (1)")
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := c.WaitStreaming(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("WaitStreaming while replay is paused: %v", err)
	}
	if n := get[int](t, follower, "SELECT count(*) FROM t"); n != 0 {
		t.Errorf("a paused follower has the row")
	}
	must(t, follower.ResumeReplay(soon(t)))
	must(t, c.WaitStreaming(soon(t)))
	if n := get[int](t, follower, "SELECT count(*) FROM t"); n != 1 {
		t.Errorf("%d rows after replay was resumed", n)
	}
	if err := c.Leader().PauseReplay(soon(t)); err == nil {
		t.Error("a leader's replay was paused")
	}
}

func TestApplyDelay(t *testing.T) {
	long(t)
	const delay = 700 * time.Millisecond
	c := pgtest.Start(t, pgcluster.Options{Followers: 1, ApplyDelay: delay})
	leader, follower := c.Leader(), c.Followers()[0]
	exec(t, leader, "CREATE TABLE t (x int)")
	must(t, c.WaitStreaming(soon(t)))

	write := dial(t, leader.URL("postgres"))
	read := dial(t, follower.URL("postgres"))
	arrival := func(x int) time.Duration {
		begin := time.Now() // the delay counts from the leader's commit
		_, err := write.Exec(soon(t), "INSERT INTO t VALUES ($1)", x)
		must(t, err)
		for there := false; !there; time.Sleep(5 * time.Millisecond) {
			must(t, read.QueryRow(soon(t), "SELECT count(*) > 0 FROM t WHERE x = $1", x).Scan(&there))
		}
		return time.Since(begin)
	}
	if took := arrival(1); took < delay {
		t.Errorf("a row arrived after %v, before the delay of %v", took, delay)
	}
	must(t, follower.SetApplyDelay(soon(t), 0))
	if took := min(arrival(2), arrival(3), arrival(4)); took > delay/2 {
		t.Errorf("rows arrived after %v or more without a delay", took)
	}
}

func TestKilledFollowerStreamsAgain(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	leader, follower := c.Leader(), c.Followers()[0]
	addr := follower.Addr()
	busy := dial(t, follower.URL("postgres"))
	failed := make(chan error, 1)
	go func() { // ends when the follower is killed; received from below
		_, err := busy.Exec(t.Context(), "SELECT count(*) FROM generate_series(1, 1e12::bigint)")
		failed <- err
	}()
	eventually(t, "the query runs", func() bool {
		return get[bool](t, follower, "SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()")
	})
	memory := segment(t, follower)
	must(t, follower.Kill())
	if left := processesUnder(t, follower.DataDir()); len(left) > 0 || segmentExists(t, memory) {
		t.Errorf("left after a kill: %q, or shared memory", left)
	}
	if err := <-failed; err == nil {
		t.Error("the query outlived its server")
	}
	if err := follower.Kill(); err == nil {
		t.Error("killed twice")
	}
	exec(t, leader, "CREATE TABLE t AS SELECT 1 AS x")
	must(t, follower.Start(soon(t)))
	if err := follower.Start(soon(t)); err == nil {
		t.Error("started twice")
	}
	must(t, c.WaitStreaming(soon(t)))
	if follower.Addr() != addr || get[int](t, follower, "SELECT x FROM t") != 1 {
		t.Errorf("at %s, was at %s", follower.Addr(), addr)
	}
}

func TestNodeStopsInEveryMode(t *testing.T) {
	long(t)
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	follower := c.Followers()[0]
	for _, mode := range []pgcluster.Mode{pgcluster.Fast, pgcluster.Immediate, pgcluster.Smart} {
		must(t, follower.Stop(mode))
		if left := processesUnder(t, follower.DataDir()); follower.Running() || len(left) > 0 {
			t.Errorf("mode %d leaves %q", mode, left)
		}
		must(t, follower.Start(soon(t)))
	}
	must(t, c.Leader().Restart(soon(t)))
	must(t, c.WaitStreaming(soon(t)))
}

// TestRolesChange loses a leader, promotes a follower, and brings the old
// leader back, which then claims to be one too.
func TestRolesChange(t *testing.T) {
	long(t)
	c := pgtest.Start(t, pgcluster.Options{Followers: 2})
	first, second, third := c.Nodes()[0], c.Nodes()[1], c.Nodes()[2]
	must(t, first.Kill())
	if c.Leader() != first {
		t.Errorf("%s leads, and nothing was promoted", c.Leader().Name())
	}
	must(t, second.Promote(soon(t)))
	if got := c.Followers(); c.Leader() != second || len(got) != 2 || got[0] != first || got[1] != third {
		t.Fatalf("after the promotion %s leads", c.Leader().Name())
	}
	must(t, third.Follow(soon(t), second))
	exec(t, second, "CREATE TABLE t AS SELECT 7 AS x")
	eventually(t, "the third node follows the second", func() bool {
		return get[bool](t, third, "SELECT to_regclass('t') IS NOT NULL")
	})
	must(t, first.Start(soon(t)))
	for range 100 {
		exec(t, first, "SELECT pg_logical_emit_message(true, '', repeat('x', 10000))")
	}
	if c.Leader() != second {
		t.Errorf("%s leads: the one with more log but the older timeline", c.Leader().Name())
	}
}

func TestSetTakesEffect(t *testing.T) {
	long(t)
	c := pgtest.Start(t, pgcluster.Options{})
	must(t, c.Leader().Set(soon(t), "work_mem", "5MB"))
	must(t, c.Leader().Set(soon(t), "log_line_prefix", "it's "))
	if got := get[string](t, c.Leader(), "SELECT current_setting('work_mem') || current_setting('log_line_prefix')"); got != "5MBit's " {
		t.Errorf("set %q", got)
	}
	if err := c.Leader().Set(soon(t), "no_such_setting", "1"); err == nil {
		t.Error("an unknown setting was set")
	}

	exec(t, c.Leader(), "CREATE ROLE alice LOGIN PASSWORD 'secret'")
	must(t, c.Leader().WriteFile("pg_hba.conf", []byte("host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")))
	must(t, c.Leader().Reload(soon(t)))
	as := func(password string) error {
		conn, err := pgconn.Connect(soon(t), "postgres://alice:"+password+"@"+c.Leader().Addr()+"/postgres?sslmode=disable")
		if err != nil {
			return err
		}
		return conn.Close(soon(t))
	}
	must(t, as("secret"))
	var refused *pgconn.PgError
	if err := as("wrong"); !errors.As(err, &refused) || refused.Code != "28P01" {
		t.Errorf("a wrong password: %v", err)
	}
}

func TestStopLeavesNothing(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 2})
	var segments []string
	for _, n := range c.Nodes() {
		segments = append(segments, segment(t, n))
	}
	dial(t, c.Leader().URL("postgres"))
	killBehind(t, c.Followers()[0])
	must(t, c.Followers()[1].Stop(pgcluster.Fast))

	begin := time.Now()
	must(t, c.Stop())
	t.Logf("stopped in %v", time.Since(begin))
	if left := processesUnder(t, c.Dir()); len(left) > 0 {
		t.Errorf("processes left: %q", left)
	}
	if !missing(c.Dir()) {
		t.Errorf("folder %s is left", c.Dir())
	}
	for _, id := range segments {
		if segmentExists(t, id) {
			t.Errorf("shared memory segment %s is left", id)
		}
	}
	must(t, c.Stop())
	if err := c.Nodes()[0].Start(soon(t)); err == nil {
		t.Error("a node of a stopped cluster was started")
	}
}

// killBehind kills a postmaster without the package's knowledge.
func killBehind(t *testing.T, n *pgcluster.Node) {
	t.Helper()
	file, err := os.ReadFile(filepath.Join(n.DataDir(), "postmaster.pid"))
	must(t, err)
	first, _, _ := strings.Cut(string(file), "\n")
	pid, err := strconv.Atoi(first)
	must(t, err)
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	eventually(t, "the server is gone", func() bool { return !n.Running() })
}

func TestLogGoesToWriter(t *testing.T) {
	long(t)
	var mu sync.Mutex
	var log bytes.Buffer
	c := pgtest.Start(t, pgcluster.Options{Followers: 1, Log: writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(p)
	})})
	must(t, c.Stop())
	if !strings.Contains(log.String(), "entering standby mode") || c.Leader().LogFile() != "" {
		t.Errorf("log file %q, log:\n%s", c.Leader().LogFile(), log.String())
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestStartIsCancelled(t *testing.T) {
	long(t)
	tmp := tempDir(t)
	t.Setenv("TMPDIR", tmp)
	for _, after := range []time.Duration{0, 200 * time.Millisecond, 600 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		c, err := pgcluster.Start(ctx, pgcluster.Options{Followers: 2})
		cancel()
		if err == nil {
			t.Errorf("started within %v", after)
			must(t, c.Stop())
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v", after, err)
		}
		if entries, err := os.ReadDir(tmp); err != nil || len(entries) > 0 || len(processesUnder(t, tmp)) > 0 {
			t.Errorf("after %v: left %v, %v", after, entries, err)
		}
	}
}

func TestStartFails(t *testing.T) {
	file := filepath.Join(tempDir(t), "note")
	must(t, os.WriteFile(file, []byte("mine"), 0o600))
	t.Setenv("TMPDIR", tempDir(t))
	for name, test := range map[string]struct {
		options pgcluster.Options
		want    string
	}{
		"no programs":       {pgcluster.Options{PGBin: filepath.Dir(file)}, "no initdb, postgres in"},
		"a bad setting":     {pgcluster.Options{Settings: map[string]string{"max_connections": "many"}}, "max_connections"},
		"too few":           {pgcluster.Options{Followers: -1}, "-1 followers"},
		"links, no faults":  {pgcluster.Options{FaultReplication: true}, "needs Faults"},
		"a file in the way": {pgcluster.Options{Dir: file}, "note"},
		"somebody else's":   {pgcluster.Options{Dir: filepath.Dir(file)}, "is not empty (note)"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := pgcluster.Start(soon(t), test.options)
			if err == nil {
				_ = c.Stop()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
	for _, dir := range []string{filepath.Dir(file), os.TempDir()} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 1 || len(entries) == 1 && entries[0].Name() != "note" {
			t.Errorf("left in %s: %v, %v", dir, entries, err)
		}
	}
}
