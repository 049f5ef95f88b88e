package bench

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   Spread
	}{
		{[]float64{3}, Spread{3, 3, 3}},
		{[]float64{4, 2}, Spread{3, 2, 4}},
		{[]float64{9, 1, 5}, Spread{5, 1, 9}},
		{[]float64{4, 3, 2, 1}, Spread{2.5, 1, 4}},
	} {
		if got := spread(test.values); got != test.want {
			t.Errorf("%v: %v, want %v", test.values, got, test.want)
		}
	}
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	// The machine is twice as fast in round 1; round 2 lacks one of them, and
	// in round 3 the base measured nothing.
	a := map[int]float64{0: 50, 1: 100, 2: 80, 3: 5}
	b := map[int]float64{0: 100, 1: 200, 3: 0}
	got := ratios(a, b)
	slices.Sort(got)
	if !slices.Equal(got, []float64{0.5, 0.5}) {
		t.Errorf("got %v", got)
	}
}

func run(round, clients int, system, variant string, tps float64, cpu time.Duration) Run {
	r := Run{
		Cell:        Cell{Workload: "select-only", Mode: "prepared", Clients: clients},
		Measurement: Measurement{Transactions: 1000, TPS: tps, Latency: time.Millisecond},
		Round:       round, System: system, Variant: variant,
		Began: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	if cpu > 0 {
		r.CPU, r.RSS, r.Note = cpu, 9_000_000, "as it comes"
	}
	return r
}

func example() *Report {
	return &Report{
		Environment: Environment{Kernel: "6.1 x86_64", CPU: "A CPU", Cores: 2, PostgreSQL: "15.18", PgBouncer: "PgBouncer 1.18.0", Commit: "abc"},
		Options: Options{
			Workloads: []string{"select-only"}, Modes: []string{"prepared"}, Clients: []int{1, 16},
			Seconds: 5, Rounds: 2, Scale: 10, Followers: 2, Progress: func(string) {},
		},
		Runs: []Run{
			run(0, 1, DirectLeader, "", 1000, 0),
			run(0, 1, PgBouncerLeader, "session pooling", 500, 40*time.Millisecond),
			run(0, 1, Proxy, "", 600, 30*time.Millisecond),
			run(1, 1, DirectLeader, "", 2000, 0),
			run(1, 1, PgBouncerLeader, "session pooling", 1000, 40*time.Millisecond),
			run(1, 1, Proxy, "", 1400, 20*time.Millisecond),
			run(0, 16, Proxy, "", 7000, 10*time.Millisecond),
		},
	}
}

func TestMarkdown(t *testing.T) {
	want := `A CPU, 2 cores, Linux 6.1 x86_64, PostgreSQL 15.18, PgBouncer 1.18.0, commit abc. pgbench at scale 10, 5 s a run, 2 rounds in which the systems take turns; a leader and 2 followers.
Numbers are medians with (lowest to highest); ratios are taken within a round; CPU is of the proxy's whole process.

### select-only, prepared protocol

| clients | system | tps | to direct | to PgBouncer | latency, ms | CPU, us per transaction | CPU to PgBouncer | RSS, MB |
|--:|---|---|---|---|---|---|---|---|
| 1 | lsnproxy | 1000 (600 to 1400) | 0.65 (0.60 to 0.70) | 1.30 (1.20 to 1.40) | 1.000 | 25.0 (20.0 to 30.0) | 0.62 (0.50 to 0.75) | 9.0 |
| 1 | PgBouncer to the leader, session pooling | 750 (500 to 1000) | 0.50 | 1.00 | 1.000 | 40.0 | 1.00 | 9.0 |
| 1 | direct to the leader | 1500 (1000 to 2000) | 1.00 | 2.00 | 1.000 |  |  |  |
| 16 | lsnproxy | 7000 |  |  | 1.000 | 10.0 |  | 9.0 |

lsnproxy: as it comes; PgBouncer to the leader, session pooling: as it comes.
`
	if diff := cmp.Diff(want, example().Markdown()); diff != "" {
		t.Error(diff)
	}
}

func TestSave(t *testing.T) {
	report := example()
	path, err := report.Save(t.TempDir() + "/results")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(path, "/20260102T030405Z.json") {
		t.Errorf("saved as %s", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	report.Options.Progress = nil
	if diff := cmp.Diff(report, &back); diff != "" {
		t.Error(diff)
	}
}
