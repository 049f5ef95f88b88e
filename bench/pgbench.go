package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Cell is one point of the comparison: what pgbench does, how it sends it and
// with how many connections at once.
type Cell struct {
	Workload string // of Workloads
	Mode     string // pgbench -M: simple, extended or prepared
	Clients  int
}

// Workloads and Modes are what a Cell may name. Workloads are builtin scripts of
// pgbench, but for the one that is written out here.
var (
	Workloads = []string{"select-only", "simple-update", "tpcb-like", "write-then-read"}
	Modes     = []string{"simple", "extended", "prepared"}
)

// writeThenRead writes a row and reads it back, each in a transaction of its own.
const writeThenRead = `\set aid random(1, %d)
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
`

// Measurement is what pgbench says of one run.
type Measurement struct {
	Transactions int64
	TPS          float64       // without the time it took to connect
	Latency      time.Duration // average of a transaction
}

// pgbench runs one cell against an address.
type pgbench struct {
	program  string
	jobs     int // threads, at most one per client
	seconds  int
	accounts int // rows of pgbench_accounts
}

// findPgbench looks beside the server's program, where a symbolic link leads
// from there, and on PATH, in this order: the one that came with the server is
// best, any will do.
func findPgbench(postgres string) (string, error) {
	places := []string{filepath.Join(filepath.Dir(postgres), "pgbench")}
	if real, err := filepath.EvalSymlinks(postgres); err == nil {
		places = append(places, filepath.Join(filepath.Dir(real), "pgbench"))
	}
	for _, place := range append(places, "pgbench") {
		if path, err := exec.LookPath(place); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no pgbench: apt-get install postgresql (or dnf install postgresql-contrib)")
}

// command is the program with arguments, in an environment of its own: no PG
// variable may redirect it, no locale may translate what it prints.
func (p pgbench) command(ctx context.Context, address string, args ...string) (*exec.Cmd, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	args = append([]string{"--host", host, "--port", port, "--username", "postgres"}, args...)
	cmd := exec.CommandContext(ctx, p.program, append(args, "postgres")...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	return cmd, nil
}

// fill makes pgbench's tables: scale times 100,000 accounts.
func (p pgbench) fill(ctx context.Context, address string, scale int) error {
	cmd, err := p.command(ctx, address, "--initialize", "--quiet", "--scale", strconv.Itoa(scale))
	if err != nil {
		return err
	}
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pgbench --initialize: %w\n%s", err, output)
	}
	return nil
}

// cell measures c against s for p.seconds, calling during while it runs.
func (p pgbench) cell(ctx context.Context, s *system, c Cell, during func()) (Measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(p.seconds)*time.Second+30*time.Second)
	defer cancel()
	script := []string{"--builtin", c.Workload}
	if c.Workload == "write-then-read" {
		script = []string{"--file", "-"}
	}
	cmd, err := p.command(ctx, s.address, append(script,
		"--no-vacuum", "--protocol", c.Mode,
		"--client", strconv.Itoa(c.Clients), "--jobs", strconv.Itoa(min(p.jobs, c.Clients)),
		"--time", strconv.Itoa(p.seconds))...)
	if err != nil {
		return Measurement{}, err
	}
	cmd.Stdin = strings.NewReader(fmt.Sprintf(writeThenRead, p.accounts))
	if s.options != "" {
		cmd.Env = append(cmd.Env, "PGOPTIONS="+s.options)
	}
	var out, messages strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &messages
	if err := cmd.Start(); err != nil {
		return Measurement{}, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }() // ends with pgbench, which ctx bounds; awaited here
	watch := time.NewTicker(200 * time.Millisecond)
	defer watch.Stop()
	for {
		select {
		case err = <-done:
		case <-watch.C:
			during()
			continue
		}
		break
	}
	if err != nil {
		return Measurement{}, fmt.Errorf("pgbench: %w\n%s%s", err, messages.String(), out.String())
	}
	m, err := parse(out.String())
	if err != nil {
		return Measurement{}, fmt.Errorf("pgbench: %w\n%s%s", err, messages.String(), out.String())
	}
	return m, nil
}

// parse reads pgbench's report. It knows those of PostgreSQL 10 to 18: the
// older print two rates, of which the one without connecting counts. A run in
// which a transaction failed, or a client gave up, is an error: its rate says
// nothing.
func parse(report string) (Measurement, error) {
	var m Measurement
	seen := make(map[string]bool)
	for line := range strings.Lines(report) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "Run was aborted") {
			return m, errors.New("the run was aborted")
		}
		key, value, found := strings.Cut(line, ":")
		if !found {
			key, value, found = strings.Cut(line, " = ")
		}
		if !found {
			continue
		}
		number, rest, _ := strings.Cut(strings.TrimSpace(value), " ")
		var err error
		switch key {
		case "number of transactions actually processed":
			number, _, _ = strings.Cut(number, "/") // with -t it is processed/wanted
			m.Transactions, err = strconv.ParseInt(number, 10, 64)
		case "number of failed transactions":
			var failed int64
			if failed, err = strconv.ParseInt(number, 10, 64); failed > 0 {
				err = fmt.Errorf("%d transactions failed", failed)
			}
		case "latency average":
			if rest != "ms" {
				return m, fmt.Errorf("%q: not in milliseconds", line)
			}
			var ms float64
			ms, err = strconv.ParseFloat(number, 64)
			m.Latency = time.Duration(ms * float64(time.Millisecond))
		case "tps":
			if strings.HasPrefix(rest, "(including connections") {
				continue
			}
			m.TPS, err = strconv.ParseFloat(number, 64)
		default:
			continue
		}
		if err != nil {
			return m, fmt.Errorf("%q: %w", line, err)
		}
		seen[key] = true
	}
	for _, key := range []string{"number of transactions actually processed", "latency average", "tps"} {
		if !seen[key] {
			return m, fmt.Errorf("its report does not tell %q", key)
		}
	}
	if m.Transactions == 0 {
		return m, errors.New("no transaction was processed")
	}
	return m, nil
}
