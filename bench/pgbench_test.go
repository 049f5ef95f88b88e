package bench

import (
	"strings"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

const report15 = `pgbench (15.18 (Debian 15.18-0+deb12u1))
transaction type: <builtin: select only>
scaling factor: 1
query mode: simple
number of clients: 16
number of threads: 2
maximum number of tries: 1
duration: 5 s
number of transactions actually processed: 174220
number of failed transactions: 0 (0.000%)
latency average = 0.459 ms
initial connection time = 21.105 ms
tps = 34844.123456 (without initial connection time)
`

const report13 = `starting vacuum...end.
transaction type: <builtin: TPC-B (sort of)>
scaling factor: 1
query mode: prepared
number of clients: 10
number of threads: 1
duration: 2 s
number of transactions actually processed: 4016
latency average = 4.980 ms
tps = 2007.966867 (including connections establishing)
tps = 2009.345291 (excluding connections establishing)
`

func TestParse(t *testing.T) {
	for _, test := range []struct {
		name, report string
		want         Measurement
	}{
		{"15", report15, Measurement{Transactions: 174220, TPS: 34844.123456, Latency: 459 * time.Microsecond}},
		{"13", report13, Measurement{Transactions: 4016, TPS: 2009.345291, Latency: 4980 * time.Microsecond}},
		{
			"a number of transactions, and latency with its deviation",
			strings.NewReplacer("174220", "1600/1600", "0.459 ms", "0.459 ms\nlatency stddev = 0.1 ms").Replace(report15),
			Measurement{Transactions: 1600, TPS: 34844.123456, Latency: 459 * time.Microsecond},
		},
		{
			"before failed transactions were told",
			strings.Replace(report15, "number of failed transactions: 0 (0.000%)\n", "", 1),
			Measurement{Transactions: 174220, TPS: 34844.123456, Latency: 459 * time.Microsecond},
		},
	} {
		got, err := parse(test.report)
		if err != nil || got != test.want {
			t.Errorf("%s: %+v, %v, want %+v", test.name, got, err, test.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, test := range []struct{ name, old, new, want string }{
		{"failed transactions", "transactions: 0 (0.000%)", "transactions: 12 (0.007%)", "12 transactions failed"},
		{"an aborted run", "tps =", "Run was aborted; the above results are incomplete.\ntps =", "aborted"},
		{"no rate", "tps =", "rate =", `"tps"`},
		{"no latency", "latency average", "latency", `"latency average"`},
		{"no count", "number of transactions actually processed", "transactions", "actually processed"},
		{"nothing done", "174220", "0", "no transaction"},
		{"garbage for a number", "34844.123456", "many", "many"},
		{"another unit", "0.459 ms", "0.459 us", "milliseconds"},
	} {
		_, err := parse(strings.Replace(report15, test.old, test.new, 1))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want one with %q", test.name, err, test.want)
		}
	}
	if _, err := parse(""); err == nil {
		t.Error("took nothing for a report")
	}
}

// loader is pgbench on a real cluster, with its tables made.
func loader(t *testing.T, c *pgcluster.Cluster) pgbench {
	t.Helper()
	program, err := findPgbench(c.Program("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	load := pgbench{program: program, jobs: 2, seconds: 1}
	if err := load.fill(t.Context(), c.Leader().Addr(), 1); err != nil {
		t.Fatal(err)
	}
	return load
}

// TestFailedTransactionsFailTheRun: under repeatable read pgbench's own tables
// make writers fail each other, which pgbench counts and goes on.
func TestFailedTransactionsFailTheRun(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Settings: map[string]string{
		"default_transaction_isolation": "repeatable read",
	}})
	load := loader(t, c)
	cell := Cell{Workload: "tpcb-like", Mode: "simple", Clients: 8}
	if _, err := load.cell(t.Context(), &system{address: c.Leader().Addr()}, cell, func() {}); err == nil ||
		!strings.Contains(err.Error(), "failed") {
		t.Errorf("error %v, want failed transactions", err)
	}
	cell.Workload = "select-only"
	if m, err := load.cell(t.Context(), &system{address: c.Leader().Addr()}, cell, func() {}); err != nil || m.Transactions == 0 {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestLostServerFailsTheRun: what pgbench printed on the way is in the error.
func TestLostServerFailsTheRun(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{})
	load := loader(t, c)
	load.seconds = 30 // it ends long before
	stop := func() {
		if err := c.Leader().Kill(); err != nil {
			t.Error(err)
		}
	}
	_, err := load.cell(t.Context(), &system{address: c.Leader().Addr()}, Cell{Workload: "select-only", Mode: "prepared", Clients: 2}, stop)
	if err == nil || !strings.Contains(err.Error(), "aborted") {
		t.Errorf("error %v, want an aborted run", err)
	}
}
