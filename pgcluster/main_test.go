package pgcluster_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/lsnproxy/lsnproxy/pgcluster"
)

// TestMain runs the tests, or, in the process that a test starts again from this
// program, the caller that is to crash.
func TestMain(m *testing.M) {
	if dir := os.Getenv(crashVariable); dir != "" {
		crashingCaller(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// soon bounds what must not take long.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// long marks a test that -short leaves out.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("left out by -short")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// dial opens a connection to address that the test closes.
func dial(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(soon(t), url)
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// exec runs one statement on a node.
func exec(t *testing.T, n *pgcluster.Node, sql string) {
	t.Helper()
	conn := dial(t, n.URL("postgres"))
	_, err := conn.Exec(soon(t), sql)
	must(t, err)
}

// get returns the one value of a query on a node.
func get[T any](t *testing.T, n *pgcluster.Node, sql string) T {
	t.Helper()
	var v T
	must(t, dial(t, n.URL("postgres")).QueryRow(soon(t), sql).Scan(&v))
	return v
}

// processesUnder lists the processes that have dir, or a folder below it, as
// working folder or in their command line.
func processesUnder(t *testing.T, dir string) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	must(t, err)
	var found []string
	for _, p := range all {
		cwd, _ := os.Readlink(p + "/cwd") // the process may have ended
		args, _ := os.ReadFile(p + "/cmdline")
		if strings.HasPrefix(cwd, dir) || bytes.Contains(args, []byte(dir)) {
			found = append(found, p+" "+string(bytes.ReplaceAll(args, []byte{0}, []byte{' '})))
		}
	}
	return found
}

// segment returns the number of the System V segment of a running server.
func segment(t *testing.T, n *pgcluster.Node) string {
	t.Helper()
	file, err := os.ReadFile(filepath.Join(n.DataDir(), "postmaster.pid"))
	must(t, err)
	lines := strings.Split(string(file), "\n")
	if len(lines) < 7 || len(strings.Fields(lines[6])) != 2 {
		t.Fatalf("lock file:\n%s", file)
	}
	return strings.Fields(lines[6])[1]
}

func segmentExists(t *testing.T, id string) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/sysvipc/shm")
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == id {
			return true
		}
	}
	return false
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after 30 s still not: %s", what)
		}
	}
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return os.IsNotExist(err)
}

// serverPids are the processes, the watchdog among them, that have dir in their
// command line.
func serverPids(t *testing.T, dir string) []int {
	t.Helper()
	var pids []int
	for _, line := range processesUnder(t, dir) {
		var pid int
		if _, err := fmt.Sscanf(line, "/proc/%d ", &pid); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// groupAndSession returns the process group and the session of a process
// (proc(5), stat, fields 5 and 6).
func groupAndSession(pid int) (group, session string, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", "", err
	}
	_, after, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(after)
	return fields[2], fields[3], nil
}

// tempDir makes a folder that the servers' account may pass, which that of
// t.TempDir is not if the test runs as root.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgcluster-test-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o755))
	return dir
}
