package bench

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

func TestParseVary(t *testing.T) {
	got, err := ParseVary("lsnproxy.delivery=off,inline")
	if diff := cmp.Diff(Vary{"lsnproxy.delivery", []string{"off", "inline"}}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if got, err := ParseVary(""); got.Setting != "" || err != nil {
		t.Errorf("nothing gives %v, %v", got, err)
	}
	for _, wrong := range []string{"x", "=a", "x=", "x=a,,b", "x=a, b"} {
		if _, err := ParseVary(wrong); err == nil {
			t.Errorf("took %q", wrong)
		}
	}
}

func TestVariedMarkdown(t *testing.T) {
	r := example()
	r.Options.Vary = Vary{"lsnproxy.consistency", []string{"eventual", "session"}}
	r.Options.Workloads, r.Options.Clients = []string{"select-only"}, []int{16}
	r.Runs = []Run{
		run(0, 16, "eventual", "", 1000, 10*time.Millisecond), run(0, 16, "session", "", 900, 11*time.Millisecond),
		run(1, 16, "session", "", 2000, 10*time.Millisecond), run(1, 16, "eventual", "", 2000, 10*time.Millisecond),
	}
	for i := range r.Runs {
		run := &r.Runs[i]
		run.Servers, run.Reads, run.OnFollower = 9*run.CPU, 500, 500
		if run.System == "session" {
			run.OnFollower = 400
		}
	}
	_, table, _ := strings.Cut(r.Markdown(), "###")
	want := ` select-only, prepared protocol

| clients | lsnproxy.consistency | tps | to eventual | latency, ms | CPU, us per transaction | of all servers | sum to eventual | reads on followers |
|--:|---|---|---|---|---|---|---|---|
| 16 | eventual | 1500 (1000 to 2000) | 1.000 | 1.000 | 10.0 | 90.0 | 1.00 | 100% |
| 16 | session | 1450 (900 to 2000) | 0.950 (0.900 to 1.000) | 1.000 | 10.5 (10.0 to 11.0) | 94.5 (90.0 to 99.0) | 1.05 (1.00 to 1.10) | 80% |
`
	if diff := cmp.Diff(want, table); diff != "" {
		t.Error(diff)
	}
}

func TestCountReads(t *testing.T) {
	all, onFollower, err := countReads(`# HELP lsnproxy_reads_total Statements.
lsnproxy_reads_total{level="session",node="a:1",reason="x",role="leader"} 3
lsnproxy_reads_total{level="session",node="b:1",reason="y z",role="follower"} 1.5e+06
lsnproxy_writes_total{node="a:1",role="leader"} 7
`)
	if all != 1_500_003 || onFollower != 1_500_000 || err != nil {
		t.Errorf("%v, %v, %v", all, onFollower, err)
	}
	if _, _, err := countReads("lsnproxy_reads_total{} x"); err == nil {
		t.Error("took x for a number")
	}
}

// TestServersUsage: every process of a server counts, and none else's.
func TestServersUsage(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{})
	used, err := serversUsage([]string{c.Leader().DataDir()})
	if err != nil || len(used) < 5 || used[os.Getpid()] != 0 {
		t.Errorf("%v, %v", used, err)
	}
}

// TestVariedClients: what is varied arrives with pgbench's connections, and the
// workload that is our own runs.
func TestVariedClients(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{})
	load := loader(t, c)
	load.accounts = 100_000
	cell := Cell{Workload: "write-then-read", Mode: "prepared", Clients: 2}
	v := Vary{"default_transaction_read_only", []string{"off", "on"}}
	systems := v.systems(&system{address: c.Leader().Addr()})
	if m, err := load.cell(t.Context(), systems[0], cell, func() {}); err != nil || m.Transactions == 0 {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := load.cell(t.Context(), systems[1], cell, func() {}); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("error %v, want one of a read-only transaction", err)
	}
}
