package bench

import (
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
	_, table, _ := strings.Cut(r.Markdown(), "###")
	want := ` select-only, prepared protocol

| clients | lsnproxy.consistency | tps | to eventual | latency, ms | CPU, us per transaction | CPU to eventual |
|--:|---|---|---|---|---|---|
| 16 | eventual | 1500 (1000 to 2000) | 1.000 | 1.000 | 10.0 | 1.00 |
| 16 | session | 1450 (900 to 2000) | 0.950 (0.900 to 1.000) | 1.000 | 10.5 (10.0 to 11.0) | 1.05 (1.00 to 1.10) |
`
	if diff := cmp.Diff(want, table); diff != "" {
		t.Error(diff)
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
