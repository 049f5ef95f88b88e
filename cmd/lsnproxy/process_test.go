package main

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// process is lsnproxy run as a program of its own.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines *bufio.Scanner // of what it prints, standard error included
	seen  []string
}

func run(t *testing.T, args ...string) *process {
	t.Helper()
	return start(t, "lsnproxy", args...)
}

func start(t *testing.T, program string, args ...string) *process {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(program, args...), lines: bufio.NewScanner(r)}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		r.Close()
		if t.Failed() {
			t.Logf("lsnproxy said:\n%s", strings.Join(p.seen, "\n"))
		}
	})
	return p
}

// find reads on until a line matches, and returns the submatches.
func (p *process) find(pattern string) []string {
	p.t.Helper()
	expression := regexp.MustCompile(pattern)
	defer p.endAfter(time.Minute)()
	for p.lines.Scan() {
		p.seen = append(p.seen, p.lines.Text())
		if m := expression.FindStringSubmatch(p.lines.Text()); m != nil {
			return m
		}
	}
	p.t.Fatalf("it did not say %s", pattern)
	return nil
}

// endAfter kills the process if it is not stopped within d: a test that waits for
// words that do not come must fail and not hang.
func (p *process) endAfter(d time.Duration) (stop func()) {
	timer := time.AfterFunc(d, func() { _ = p.cmd.Process.Signal(syscall.SIGQUIT) })
	return func() { timer.Stop() }
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// wantExit waits for the end and compares the exit status; -1 stands for killed.
func (p *process) wantExit(status int) {
	p.t.Helper()
	defer p.endAfter(time.Minute)()
	for p.lines.Scan() {
		p.seen = append(p.seen, p.lines.Text())
	}
	var failed *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &failed) {
		p.t.Fatal(err)
	}
	if got := p.cmd.ProcessState.ExitCode(); got != status {
		p.t.Errorf("exit status %d, want %d", got, status)
	}
}

// get asks the HTTP port.
func get(t *testing.T, address, path string) (status int, body string) {
	t.Helper()
	answer, err := http.Get("http://" + address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// wantReady polls /readyz until it answers so, and with the text.
func wantReady(t *testing.T, address string, status int, text string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		got, body := get(t, address, "/readyz")
		if got == status && strings.Contains(body, text) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("/readyz: %d %s, want %d %s", got, body, status, text)
		}
	}
}

func exec1(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// TestServe: a proxy from its first moment, without a server, to its last, with
// a transaction that is let finish.
func TestServe(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	leader, follower := c.Nodes()[0], c.Nodes()[1]
	for _, n := range c.Nodes() {
		if err := n.Stop(pgcluster.Immediate); err != nil {
			t.Fatal(err)
		}
	}
	p := run(t, "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--set", "monitor.interval=50ms",
		"--node", follower.Addr(), "--node", leader.Addr())
	m := p.find(`msg=serving .*clients=(\S+) http=(\S+)`)
	clients, web := m[1], m[2]
	if status, body := get(t, web, "/healthz"); status != 200 || body != "alive\n" {
		t.Errorf("/healthz: %d %s", status, body)
	}
	wantReady(t, web, 503, "neither a leader nor a usable follower")
	wantReady(t, web, 503, leader.Addr()+": unknown, down")

	for _, n := range []*pgcluster.Node{leader, follower} {
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantReady(t, web, 200, "leader "+leader.Addr()+", usable followers: 1 of 1")
	conn, err := pgx.Connect(t.Context(), "postgres://postgres@"+clients+"/postgres?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	exec1(t, conn, "CREATE TABLE t (a int)")
	wantMetric(t, web, `lsnproxy_clients`, 1)
	wantMetric(t, web, `lsnproxy_writes_total{node="`+leader.Addr()+`",role="leader"}`, 1)

	if err := leader.Stop(pgcluster.Immediate); err != nil {
		t.Fatal(err)
	}
	wantReady(t, web, 200, "no leader, usable followers: 1")
	if err := leader.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantReady(t, web, 200, "leader "+leader.Addr())

	exec1(t, conn, "BEGIN")
	exec1(t, conn, "INSERT INTO t VALUES (1)")
	p.signal(syscall.SIGTERM)
	p.find("msg=stopping")
	wantReady(t, web, 503, "shutting down")
	if c, err := net.Dial("tcp", clients); err == nil {
		c.Close()
		t.Error("it still takes clients")
	}
	exec1(t, conn, "COMMIT")
	p.wantExit(0)
	if p.seen[len(p.seen)-1] == "" || !strings.Contains(p.seen[len(p.seen)-1], "msg=stopped") {
		t.Error("it did not say at last that it has stopped")
	}
}

// wantMetric reads one value from /metrics.
func wantMetric(t *testing.T, address, series string, want float64) {
	t.Helper()
	_, body := get(t, address, "/metrics")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), series+" "); ok {
			if got, err := strconv.ParseFloat(value, 64); err != nil || got != want {
				t.Errorf("%s is %s, want %v", series, value, want)
			}
			return
		}
	}
	t.Errorf("no %s among the metrics", series)
}

// TestOpenFiles: the proxy takes all the descriptors its hard limit allows.
func TestOpenFiles(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	p := start(t, "sh", "-c", "ulimit -Sn 64; exec lsnproxy serve --node 127.0.0.1:1 --listen 127.0.0.1:0 --http ''")
	got, _ := strconv.ParseUint(p.find(`msg=serving .* files=(\d+)`)[1], 10, 64)
	if got+1 < limit.Max { // package os stays one below
		t.Errorf("%d files, want %d", got, limit.Max)
	}
	p.signal(syscall.SIGTERM)
	p.wantExit(0)
}

// TestGrace: a transaction that does not end keeps the proxy as long as it has
// grace, or until a second signal.
func TestGrace(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{})
	for _, test := range []struct {
		name, grace string
		second      bool
		status      int
	}{{"is over", "200ms", false, 0}, {"is cut short", "1h", true, -1}} {
		t.Run(test.name, func(t *testing.T) {
			p := run(t, "serve", "--listen", "127.0.0.1:0", "--http", "", "--set", "shutdown_grace="+test.grace,
				"--node", c.Leader().Addr())
			clients := p.find(`msg=serving .*clients=(\S+) http=none`)[1]
			conn, err := pgx.Connect(t.Context(), "postgres://postgres@"+clients+"/postgres?sslmode=disable")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(t.Context())
			exec1(t, conn, "BEGIN")
			exec1(t, conn, "CREATE TABLE t (a int)")
			p.signal(syscall.SIGINT)
			p.find("msg=stopping")
			if test.second {
				exec1(t, conn, "INSERT INTO t VALUES (1)") // it may still work on
				p.signal(syscall.SIGINT)
			}
			p.wantExit(test.status)
		})
	}
}

// demoFolder is where the cluster of a demo lives.
func (p *process) demoFolder() string { return p.find(`folder +(/\S+)`)[1] }

// wantNothingLeft: soon no process works in folder, and it is gone.
func wantNothingLeft(t *testing.T, folder string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		left := processesUnder(t, folder)
		_, err := os.Stat(folder)
		if len(left) == 0 && errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("left: %v, folder: %v", left, err)
		}
	}
}

// processesUnder lists the processes whose working folder is below folder.
func processesUnder(t *testing.T, folder string) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, link := range all {
		if cwd, err := os.Readlink(link); err == nil && strings.HasPrefix(cwd, folder) {
			found = append(found, link)
		}
	}
	return found
}

// TestDemoEnds: however the demo ends, nothing stays behind.
func TestDemoEnds(t *testing.T) {
	for _, end := range []struct {
		signal syscall.Signal
		status int
	}{{syscall.SIGINT, 0}, {syscall.SIGTERM, 0}, {syscall.SIGHUP, 0}, {syscall.SIGKILL, -1}} {
		t.Run(end.signal.String(), func(t *testing.T) {
			t.Parallel()
			p := run(t, "demo", "--followers", "1", "--proxies", "2", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
			folder := p.demoFolder()
			p.find("Ctrl-C")
			if n := len(processesUnder(t, folder)); n < 12 {
				t.Errorf("%d processes of the servers and proxies: the check is blind", n)
			}
			p.signal(end.signal)
			p.wantExit(end.status)
			wantNothingLeft(t, folder)
		})
	}
}

// TestDemoShowsWhatWorks runs what the demo says to try.
func TestDemoShowsWhatWorks(t *testing.T) {
	p := run(t, "demo", "--followers", "1", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
	p.find("Try")
	p.find("Ctrl-C")
	var tries []string
	for _, line := range p.seen {
		if regexp.MustCompile(`^(\S*psql|\S*pgbench|curl|kill|lsnproxy) `).MatchString(line) {
			tries = append(tries, strings.ReplaceAll(line, "-T 10 ", "-T 1 "))
		}
	}
	if len(tries) != 9 {
		t.Fatalf("to try: %q", tries)
	}
	shell := func(command string) string {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		return string(out)
	}
	for _, try := range tries[:5] {
		shell(try)
	}
	// The second line of psql and what curl shows, once the new table is known.
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		node, metrics := shell(tries[1]), shell(tries[4])
		if strings.Contains(node, "follower: follower") && regexp.MustCompile(`reads_total\{.*role="follower"\} [1-9]`).MatchString(metrics) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("nothing is read on the follower:\n%s\n%s", node, metrics)
		}
	}
	kill, write, status, switchover := tries[5], tries[6], tries[7], tries[8]
	shell(kill)
	if out := shell(write); !strings.Contains(out, "INSERT 0 1") {
		t.Errorf("after the leader was killed: %s", out)
	}
	for end := time.Now().Add(time.Minute); strings.Count(shell(status), "usable") < 2; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the old leader has not rejoined:\n%s", shell(status))
		}
	}
	if out := shell(switchover); !strings.Contains(out, "leads on timeline 3") {
		t.Errorf("switchover: %s", out)
	}
	shell(write)
	p.signal(syscall.SIGINT)
	p.wantExit(0)
}

// TestDemoCommandEnds: a signal to the demo reaches its command, whose status
// then counts; if the demo is killed the command is too.
func TestDemoCommandEnds(t *testing.T) {
	for _, end := range []struct {
		signal syscall.Signal
		status int
	}{{syscall.SIGINT, 3}, {syscall.SIGTERM, 4}, {syscall.SIGHUP, 5}, {syscall.SIGKILL, -1}} {
		t.Run(end.signal.String(), func(t *testing.T) {
			t.Parallel()
			p := run(t, "demo", "--followers", "0", "--listen", "127.0.0.1:0", "--http", "", "--",
				"sh", "-c", `trap 'exit 3' INT; trap 'exit 4' TERM; trap 'exit 5' HUP; psql -XAtc 'show data_directory'; echo pid $$; while :; do sleep 0.05; done`)
			folder := filepath.Dir(filepath.Dir(p.find(`^/.*`)[0])) // FOLDER/node1/data
			pid, _ := strconv.Atoi(p.find(`^pid (\d+)`)[1])
			p.signal(end.signal)
			p.wantExit(end.status)
			wantNothingLeft(t, folder)
			for end := time.Now().Add(time.Minute); syscall.Kill(pid, 0) == nil; time.Sleep(20 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the command goes on")
				}
			}
		})
	}
}

// TestCloseLeavesNothing: a proxy that never found a server ends all it began.
func TestCloseLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	c := mustLoad(t, source{nodes: []string{"127.0.0.1:1", "127.0.0.1:2"}, set: []string{"listen=127.0.0.1:0", "http=127.0.0.1:0"}})
	p, err := startProxy(c, newLog(c.Log, c.Log.Level, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	wantReady(t, p.http.Addr().String(), 503, "127.0.0.1:2: unknown, down")
	http.DefaultClient.CloseIdleConnections()
	p.close(time.Second)
}

// TestPortTaken: what was begun before the port was found taken ends too.
func TestPortTaken(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	c := mustLoad(t, source{nodes: []string{"127.0.0.1:1"}, set: []string{"listen=127.0.0.1:0", "http=127.0.0.1:0"}})
	first, err := startProxy(c, newLog(c.Log, c.Log.Level, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	defer first.close(0)
	c.HTTP = first.http.Addr().String()
	if second, err := startProxy(c, newLog(c.Log, c.Log.Level, io.Discard)); err == nil || !strings.Contains(err.Error(), "HTTP port") {
		t.Errorf("%v, %v", second, err)
	}
	c.Listen = first.clients.Addr().String()
	if second, err := startProxy(c, newLog(c.Log, c.Log.Level, io.Discard)); err == nil || !strings.Contains(err.Error(), "client port") {
		t.Errorf("%v, %v", second, err)
	}
}
