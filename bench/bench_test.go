package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// TestMain is also the program of a crowd's clients.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-clients-of" {
		if err := RunClients(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func small() Options {
	return Options{
		Systems:   []string{"direct"},
		Workloads: []string{"select-only"},
		Modes:     []string{"simple", "prepared"},
		Clients:   []int{2},
		Seconds:   1, Rounds: 1, Scale: 1, Followers: 1, Pool: 5,
	}
}

// TestCompare is a whole comparison in small. PgBouncer takes part where it is
// installed; where it is not, asking for it must say how to install it.
func TestCompare(t *testing.T) {
	o := small()
	want := map[string]int{DirectLeader: 2, DirectFollower: 2}
	peer := o
	peer.Systems = append(peer.Systems, "pgbouncer")
	if err := peer.find(); err == nil {
		o = peer
		want[PgBouncerLeader], want[PgBouncerFollower] = 2, 2
	} else if !strings.Contains(err.Error(), "apt-get install pgbouncer") {
		t.Error(err)
	}
	var told []string
	o.Progress = func(line string) { told = append(told, line) }
	report, err := Compare(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int)
	for _, r := range report.Runs {
		got[r.System]++
		if r.Transactions == 0 || r.TPS <= 0 || r.Latency <= 0 {
			t.Errorf("nothing measured: %v", r)
		}
		peer := strings.HasPrefix(r.System, "PgBouncer")
		if peer != r.Server() || peer != (r.CPU > 0) {
			t.Errorf("%s: CPU %v, RSS %d", r.System, r.CPU, r.RSS)
		}
	}
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%d runs of %s, want %d", got[name], name, n)
		}
	}
	if len(told) != len(report.Runs) {
		t.Errorf("told of %d runs of %d", len(told), len(report.Runs))
	}
	t.Log(report.Markdown())
}

// TestLineupEnds: whatever was started is gone afterwards, also if a later
// system did not start.
func TestLineupEnds(t *testing.T) {
	path, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	l := &lineup{dir: t.TempDir()}
	s := &system{name: "sleeper"}
	err = l.launch(t.Context(), s, func(string) (*process, error) {
		return start(nil, l.dir+"/log", path, "1000")
	}, func(context.Context) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	pid := s.server.cmd.Process.Pid
	l.stop()
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the process is still there: %v", err)
	}

	o := small()
	o.Systems, o.Proxy = []string{"lsnproxy"}, "/bin/false"
	if _, err := startLineup(t.Context(), o, c); err == nil || !strings.Contains(err.Error(), "lsnproxy is not ready") {
		t.Errorf("error %v, want one that says lsnproxy is not ready", err)
	}
}

func TestFind(t *testing.T) {
	for _, test := range []struct {
		name string
		o    Options
		want string
	}{
		{"no proxy", Options{Systems: []string{"lsnproxy"}, Proxy: "no/such"}, "make build"},
		{"no pgbouncer", Options{Systems: []string{"pgbouncer"}, PgBouncer: "no/such"}, "apt-get install pgbouncer"},
		{"a misspelt system", Options{Systems: []string{"pgbuncer"}}, `"pgbuncer"`},
	} {
		if _, err := Compare(t.Context(), test.o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if _, err := findPgbench("/no/such/postgres"); err != nil && !strings.Contains(err.Error(), "install") {
		t.Error(err)
	}
}

func TestCarriesNamed(t *testing.T) {
	for version, want := range map[string]bool{
		"PgBouncer 1.18.0": false, "PgBouncer 1.20.1": false, "PgBouncer 1.21.0": true,
		"PgBouncer 1.25.2": true, "PgBouncer 2.0": true, "no number": false,
	} {
		if carriesNamed(version) != want {
			t.Errorf("%s: %v", version, !want)
		}
	}
}

func TestPgBouncerConfig(t *testing.T) {
	text, err := pgbouncer{pooling: "session", pool: 7}.config("127.0.0.1:6432", "127.0.0.1:5432")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"postgres = host=127.0.0.1 port=5432 dbname=postgres user=postgres",
		"listen_port = 6432", "pool_mode = session", "default_pool_size = 7",
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
	if strings.Contains(text, "max_prepared_statements") {
		t.Error("a setting that version 1.18 refuses")
	}
	if text, _ = (pgbouncer{named: true}).config("a:1", "b:2"); !strings.Contains(text, "max_prepared_statements") {
		t.Error("named statements not asked for")
	}
}
