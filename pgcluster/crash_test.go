package pgcluster_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	osexec "os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// crashVariable makes this program the caller that crashes. It holds the folder
// for the cluster, or "temporary".
const crashVariable = "PGCLUSTER_TEST_CRASH"

// crashingCaller starts a cluster, says so, and waits to be killed.
func crashingCaller(dir string) {
	o := pgcluster.Options{Followers: 2}
	if dir != "temporary" {
		o.Dir = dir
	}
	if _, err := pgcluster.Start(context.Background(), o); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("started")
	time.Sleep(time.Hour)
}

// startCaller starts a process that starts a cluster, with its temporary files
// in tmp. It waits until the cluster is complete if it is asked to.
func startCaller(t *testing.T, dir, tmp string, wait bool) *osexec.Cmd {
	t.Helper()
	cmd := osexec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), crashVariable+"="+dir, "TMPDIR="+tmp)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // if the test failed before it did
		_ = cmd.Wait()
	})
	if wait {
		said := make([]byte, 4000)
		n, err := out.Read(said)
		if err != nil || string(said[:n]) != "started\n" {
			t.Fatalf("the caller says %q, %v", said[:n], err)
		}
	}
	return cmd
}

func TestCallerCrashes(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			tmp := tempDir(t)
			caller := startCaller(t, "temporary", tmp, true)
			if len(processesUnder(t, tmp)) == 0 {
				t.Fatal("no servers")
			}
			must(t, caller.Process.Signal(signal))
			begin := time.Now()
			awaitNothing(t, tmp)
			t.Logf("gone after %v", time.Since(begin))
		})
	}
}

// awaitNothing waits until nothing is left in tmp and nobody works there.
func awaitNothing(t *testing.T, tmp string) {
	t.Helper()
	eventually(t, "nothing is left of the cluster", func() bool {
		entries, err := os.ReadDir(tmp)
		must(t, err)
		return len(entries) == 0 && len(processesUnder(t, tmp)) == 0
	})
}

// TestCallerCrashesWhileStarting kills the caller at many moments of the start,
// initdb, copies and launches of servers among them.
func TestCallerCrashesWhileStarting(t *testing.T) {
	long(t)
	for after := 50 * time.Millisecond; after < 1200*time.Millisecond; after += 100 * time.Millisecond {
		tmp := tempDir(t)
		caller := startCaller(t, "temporary", tmp, false)
		time.Sleep(after)
		must(t, caller.Process.Kill())
		awaitNothing(t, tmp)
		time.Sleep(50 * time.Millisecond)
		awaitNothing(t, tmp) // nor comes anything back
	}
}

// TestCallerCrashesInGivenFolder: the servers are gone, the folder is not.
func TestCallerCrashesInGivenFolder(t *testing.T) {
	long(t)
	dir := tempDir(t)
	caller := startCaller(t, dir, tempDir(t), true)
	must(t, caller.Process.Kill())
	// At once: Start waits for the watchdog of the cluster that crashed.
	c := pgtest.Start(t, pgcluster.Options{Followers: 2, Dir: dir})
	must(t, c.Stop())
	if missing(filepath.Join(dir, "node1", "data", "PG_VERSION")) {
		t.Error("the cluster is gone")
	}
}

// TestInterruptDoesNotReachServers: what the terminal sends to the caller's
// process group must leave the servers to the caller.
func TestInterruptDoesNotReachServers(t *testing.T) {
	long(t)
	c := pgtest.Start(t, pgcluster.Options{})
	group, session, err := groupAndSession(os.Getpid())
	must(t, err)
	seen := 0
	for _, pid := range serverPids(t, c.Dir()) {
		g, s, err := groupAndSession(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // a backend whose client has left
		}
		must(t, err)
		if seen++; g == group || s == session {
			t.Errorf("process %d is in the caller's process group or session", pid)
		}
	}
	if seen < 3 {
		t.Errorf("only %d processes run", seen)
	}
}
