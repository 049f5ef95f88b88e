// Package bench compares lsnproxy, PgBouncer and direct connections under
// pgbench, on one cluster, in one run.
//
// Machines wander: a number from this morning says little about one from this
// afternoon. So within each cell the systems take turns, round after round, the
// first of a round being another each time, and every ratio is taken within a
// round. What a system costs is told as processor time of its whole process per
// transaction, which on a small machine says more than the throughput: there
// server, load and proxy share the same cores.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/lsnproxy/lsnproxy/pgcluster"
)

// Options say what to compare.
type Options struct {
	Proxy     string   // path of lsnproxy
	ProxyArgs []string // further arguments of lsnproxy serve
	PgBouncer string   // path of pgbouncer; "": searched on PATH and in /usr/sbin
	PGBin     string   // folder of PostgreSQL's programs; "": see pgcluster.FindBinaries
	Systems   []string // of lsnproxy, pgbouncer, direct

	// Vary compares lsnproxy with itself instead: one process, and clients that come
	// with one setting or another.
	Vary Vary

	Workloads []string // of Workloads
	Modes     []string // of Modes
	Clients   []int
	Seconds   int // each run
	Warmup    int // seconds before each system's first run of a cell, not counted
	Rounds    int // runs of each system in each cell

	Scale     int // pgbench's scale: 100,000 accounts, 15 MB each
	Followers int // at least 1
	Pool      int // server connections of PgBouncer in transaction pooling

	Progress func(string) `json:"-"` // told about each run; nil: nobody
}

// Run is one run of pgbench against one system.
type Run struct {
	Cell
	Measurement
	Round  int
	System string
	// Variant sets the system apart from itself in other cells, as in "session
	// pooling"; Note says how it is set up. Both may be empty.
	Variant, Note string
	Began         time.Time
	Load          float64       // the machine's load average of a minute before
	CPU           time.Duration // of the system's whole process; 0 if it has none
	RSS           int64         // bytes, the highest seen; 0 if it has no process

	// Of a comparison by Vary: the processor time of all servers' processes, and how
	// many of the proxy's reads ran where.
	Servers           time.Duration
	Reads, OnFollower float64
}

// Server reports whether the system had a process to measure.
func (r Run) Server() bool { return r.RSS > 0 }

// perTransaction is the processor time spent on a transaction, in microseconds.
func (r Run) perTransaction() float64 {
	return micros(r.CPU, r.Transactions)
}

func micros(d time.Duration, transactions int64) float64 {
	return float64(d) / float64(time.Microsecond) / float64(transactions)
}

// Report is everything one comparison gave.
type Report struct {
	Environment Environment
	Options     Options
	Runs        []Run
}

// Cells are the points to measure, in order.
func (o Options) Cells() []Cell {
	var cells []Cell
	for _, w := range o.Workloads {
		for _, m := range o.Modes {
			for _, n := range o.Clients {
				cells = append(cells, Cell{Workload: w, Mode: m, Clients: n})
			}
		}
	}
	return cells
}

// Compare carries out a whole comparison: it starts a cluster and the systems,
// measures every cell, and ends them all. Any run that fails fails the whole.
func Compare(ctx context.Context, o Options) (*Report, error) {
	if err := o.find(); err != nil {
		return nil, err
	}
	c, err := pgcluster.Start(ctx, pgcluster.Options{
		PGBin: o.PGBin, Followers: max(o.Followers, 1),
		// Two connections for each client: a proxy may hold one to each side.
		Settings: map[string]string{"max_connections": fmt.Sprint(2*most(o.Clients) + 100)},
	})
	if err != nil {
		return nil, err
	}
	defer c.Stop()
	load := pgbench{jobs: cores(), seconds: o.Seconds, accounts: 100_000 * o.Scale}
	if load.program, err = findPgbench(c.Program("postgres")); err != nil {
		return nil, err
	}
	if err := load.fill(ctx, c.Leader().ServerAddr(), o.Scale); err != nil {
		return nil, err
	}
	if err := c.WaitStreaming(ctx); err != nil {
		return nil, err
	}
	systems, err := startLineup(ctx, o, c)
	if err != nil {
		return nil, err
	}
	defer systems.stop()

	report := &Report{Options: o}
	if report.Environment, err = environment(ctx, o, c); err != nil {
		return nil, err
	}
	for _, cell := range o.Cells() {
		runs, err := systems.cell(ctx, o, c, load, cell)
		report.Runs = append(report.Runs, runs...)
		if err != nil {
			return report, err
		}
	}
	return report, nil
}

// find makes sure that the programs to be measured exist.
func (o *Options) find() error {
	for _, s := range o.Systems {
		switch s {
		case "direct":
		case "lsnproxy":
			if _, err := os.Stat(o.Proxy); err != nil {
				return fmt.Errorf("no lsnproxy at %s: make build, or give its path, or leave it out of the systems", o.Proxy)
			}
		case "pgbouncer":
			program := o.PgBouncer
			if program == "" {
				program = "pgbouncer"
			}
			path, err := exec.LookPath(program)
			if err != nil && o.PgBouncer == "" {
				path, err = exec.LookPath("/usr/sbin/pgbouncer") // Debian's, not on everybody's PATH
			}
			if err != nil {
				return errors.New("no pgbouncer: apt-get install pgbouncer (or dnf install pgbouncer), or leave it out of the systems")
			}
			o.PgBouncer = path
		default:
			return fmt.Errorf("system %q: want lsnproxy, pgbouncer or direct", s)
		}
	}
	return nil
}

// cell measures every system in one cell, round after round.
func (l *lineup) cell(ctx context.Context, o Options, c *pgcluster.Cluster, load pgbench, cell Cell) ([]Run, error) {
	var systems []*system
	for _, s := range l.systems {
		if s.measure(cell) {
			systems = append(systems, s)
		}
	}
	var runs []Run
	for round := range o.Rounds {
		for i := range systems {
			s := systems[(round+i)%len(systems)]
			if round == 0 && o.Warmup > 0 {
				warm := load
				warm.seconds = o.Warmup
				if _, err := warm.cell(ctx, s, cell, func() {}); err != nil {
					return runs, fmt.Errorf("%s, warming up: %w", s.name, err)
				}
			}
			// What the run before wrote is applied first, or its replay would be
			// charged to this one.
			if err := c.WaitStreaming(ctx); err != nil {
				return runs, err
			}
			run, err := s.run(ctx, load, cell)
			if err != nil {
				return runs, fmt.Errorf("%s, %s, %s, %d clients: %w", s.name, cell.Workload, cell.Mode, cell.Clients, err)
			}
			run.Round = round
			runs = append(runs, run)
			if o.Progress != nil {
				o.Progress(run.String())
			}
		}
	}
	return runs, nil
}

// run measures one system in one cell once.
func (s *system) run(ctx context.Context, load pgbench, cell Cell) (Run, error) {
	run := Run{Cell: cell, System: s.name, Variant: s.variant, Note: s.note, Began: time.Now(), Load: loadAverage()}
	if s.server == nil {
		m, err := load.cell(ctx, s, cell, func() {})
		run.Measurement = m
		return run, err
	}
	pid := s.server.cmd.Process.Pid
	done, err := s.aside(ctx, &run)
	if err != nil {
		return run, err
	}
	before, err := usageOf(pid)
	if err != nil {
		return run, err
	}
	var watchErr error
	watch := func() {
		rss, err := residentOf(pid)
		run.RSS, watchErr = max(run.RSS, rss), errors.Join(watchErr, err)
	}
	run.Measurement, err = load.cell(ctx, s, cell, watch)
	if err != nil {
		return run, fmt.Errorf("%w\n%s said:\n%s", err, s.name, s.server.lastWords())
	}
	after, err := usageOf(pid)
	if err != nil {
		return run, err
	}
	watch()
	run.CPU, err = after.since(before)
	return run, errors.Join(err, watchErr, done())
}

func (r Run) String() string {
	line := fmt.Sprintf("round %d, %s %s, %2d clients, %-24s %8.0f tps, latency %v",
		r.Round+1, r.Workload, r.Mode, r.Clients, r.System, r.TPS, r.Latency)
	if r.Server() {
		line += fmt.Sprintf(", %.1f us CPU per transaction, %.1f MB", r.perTransaction(), float64(r.RSS)/1e6)
	}
	if r.Servers > 0 {
		line += fmt.Sprintf(", servers' CPU %.1f us, %.0f%% of the reads on followers", micros(r.Servers, r.Transactions), 100*r.OnFollower/max(1, r.Reads))
	}
	return line
}
