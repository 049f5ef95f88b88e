package pgcluster_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

func TestGivenFolderIsKept(t *testing.T) {
	long(t)
	dir := filepath.Join(tempDir(t), "new", "folder with 'quotes'")
	options := pgcluster.Options{Followers: 1, Dir: dir}
	c := pgtest.Start(t, options)
	exec(t, c.Leader(), "CREATE TABLE t AS SELECT 1 AS x")
	must(t, c.WaitStreaming(soon(t)))
	// The follower becomes the leader, and the old one is lost.
	must(t, c.Nodes()[0].Kill())
	must(t, c.Nodes()[1].Promote(soon(t)))
	exec(t, c.Nodes()[1], "INSERT INTO t VALUES (2)")
	addr := c.Nodes()[1].Addr()

	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := pgcluster.Start(short, options); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a folder in use was opened: %v", err)
	}
	must(t, c.Stop())
	if left := processesUnder(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}

	if _, err := pgcluster.Start(soon(t), pgcluster.Options{Followers: 2, Dir: dir}); err == nil ||
		!strings.Contains(err.Error(), "1 followers, not 2") {
		t.Errorf("a cluster of another size: %v", err)
	}
	options.Settings = map[string]string{"work_mem": "5MB"}
	again, err := pgcluster.Start(soon(t), options)
	must(t, err)
	defer again.Stop()
	second := again.Nodes()[1]
	if again.Leader() != second || second.Addr() != addr {
		t.Errorf("%s leads, at %s; was node2, at %s", again.Leader().Name(), again.Leader().Addr(), addr)
	}
	if x := get[int](t, second, "SELECT max(x) FROM t"); x != 2 {
		t.Errorf("x = %d", x)
	}
	if mem := get[string](t, second, "SHOW work_mem"); mem != "5MB" {
		t.Errorf("work_mem = %s", mem)
	}
	must(t, again.Stop())
}

func TestGivenFolderStreamsAgain(t *testing.T) {
	options := pgcluster.Options{Followers: 2, Dir: tempDir(t)}
	c := pgtest.Start(t, options)
	exec(t, c.Leader(), "CREATE TABLE t AS SELECT 1 AS x")
	must(t, c.Stop())
	c = pgtest.Start(t, options)
	for _, n := range c.Nodes() {
		if x := get[int](t, n, "SELECT x FROM t"); x != 1 {
			t.Errorf("%s: x = %d", n.Name(), x)
		}
	}
}

func TestGivenFolderWhosePortIsTaken(t *testing.T) {
	long(t)
	options := pgcluster.Options{Dir: tempDir(t)}
	c := pgtest.Start(t, options)
	addr := c.Leader().ServerAddr()
	must(t, c.Stop())
	taken, err := net.Listen("tcp", addr)
	must(t, err)
	defer taken.Close()
	if _, err := pgcluster.Start(soon(t), options); err == nil || !strings.Contains(err.Error(), "of node1 is taken by another program") {
		t.Errorf("got %v", err)
	}
}

// TestGivenFolderAfterFailedStart: what was made is removed, so that the folder
// is empty for the next try.
func TestGivenFolderAfterFailedStart(t *testing.T) {
	long(t)
	options := pgcluster.Options{Dir: tempDir(t), Settings: map[string]string{"work_mem": "none"}}
	if _, err := pgcluster.Start(soon(t), options); err == nil {
		t.Fatal("started with a bad setting")
	}
	if !missing(filepath.Join(options.Dir, "node1")) {
		t.Error("a node's folder is left")
	}
	options.Settings = nil
	pgtest.Start(t, options)
}

// TestTemporaryFolderIsReachable: a temporary folder that is closed to the
// account the servers run as, if that is another one, is passed by.
func TestTemporaryFolderIsReachable(t *testing.T) {
	long(t)
	closed := tempDir(t)
	must(t, os.Chmod(closed, 0o700))
	t.Setenv("TMPDIR", closed)
	c := pgtest.Start(t, pgcluster.Options{})
	if inside := strings.HasPrefix(c.Dir(), closed); inside != (os.Geteuid() != 0) {
		t.Errorf("cluster in %s", c.Dir())
	}
	if os.Geteuid() != 0 {
		return // every folder that the caller may use, the servers may
	}
	_, err := pgcluster.Start(soon(t), pgcluster.Options{Dir: filepath.Join(closed, "deep", "down")})
	if err == nil || !strings.Contains(err.Error(), closed+" is closed to the user") {
		t.Errorf("a folder nobody else can reach: %v", err)
	}
}

// TestFolderIsRemovedUnderServers: they are found and ended all the same.
func TestFolderIsRemovedUnderServers(t *testing.T) {
	long(t)
	c := pgtest.Start(t, pgcluster.Options{Followers: 1, Dir: filepath.Join(tempDir(t), "cluster")})
	must(t, os.RemoveAll(c.Dir()))
	must(t, c.Followers()[0].Kill())
	must(t, c.Stop())
	if left := processesUnder(t, c.Dir()); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
