// Command bench compares lsnproxy, PgBouncer and direct connections, and prints
// the comparison as Markdown. See package bench.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lsnproxy/lsnproxy/bench"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	o := bench.Options{Progress: func(line string) { fmt.Fprintln(os.Stderr, line) }}
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	flags.StringVar(&o.Proxy, "lsnproxy", "bin/lsnproxy", "`path` of lsnproxy")
	proxyArgs := flags.String("lsnproxy-args", "", "further arguments of lsnproxy serve, separated by spaces")
	flags.StringVar(&o.PgBouncer, "pgbouncer", "", "`path` of pgbouncer (default: on PATH or in /usr/sbin)")
	flags.StringVar(&o.PGBin, "pgbin", "", "`folder` of PostgreSQL's programs (default: the newest installed)")
	vary := flags.String("vary", "", "compare lsnproxy with itself: a `setting` of the session and its values, as in lsnproxy.consistency=eventual,session")
	systems := flags.String("systems", "lsnproxy,pgbouncer,direct", "what to compare")
	workloads := flags.String("workload", "select-only", "of "+strings.Join(bench.Workloads, ", "))
	modes := flags.String("modes", "simple,prepared", "of "+strings.Join(bench.Modes, ", "))
	clients := flags.String("clients", "1,16,64", "numbers of connections")
	flags.IntVar(&o.Seconds, "seconds", 5, "length of each run")
	flags.IntVar(&o.Warmup, "warmup", 1, "length of the uncounted run before each system's first of a cell; 0: none")
	flags.IntVar(&o.Rounds, "rounds", 3, "runs of each system in each cell")
	flags.IntVar(&o.Scale, "scale", 10, "scale of pgbench's tables")
	flags.IntVar(&o.Followers, "followers", 2, "followers of the cluster, at least 1")
	flags.IntVar(&o.Pool, "pool", 20, "server connections of PgBouncer in transaction pooling")
	out := flags.String("out", "bench/results", "`folder` for the raw runs")
	flags.Parse(args) // exits on error
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	o.ProxyArgs = strings.Fields(*proxyArgs)
	o.Systems = strings.Split(*systems, ",")
	o.Workloads = strings.Split(*workloads, ",")
	o.Modes = strings.Split(*modes, ",")
	for _, text := range strings.Split(*clients, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("-clients: %q is not a number of connections", text)
		}
		o.Clients = append(o.Clients, n)
	}
	var err error
	if o.Vary, err = bench.ParseVary(*vary); err != nil {
		return fmt.Errorf("-vary: %w", err)
	}
	if o.Vary.Setting != "" {
		o.Systems = []string{"lsnproxy"}
	}
	if o.Seconds < 1 || o.Rounds < 1 {
		return errors.New("-seconds and -rounds: at least 1")
	}
	if err := known(o.Workloads, bench.Workloads, "-workload"); err != nil {
		return err
	}
	if err := known(o.Modes, bench.Modes, "-modes"); err != nil {
		return err
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	longest := len(o.Cells()) * max(2*len(o.Systems), len(o.Vary.Values)) * (o.Rounds*o.Seconds + o.Warmup)
	fmt.Fprintf(os.Stderr, "pgbench will run for at most %v\n", time.Duration(longest)*time.Second)
	report, err := bench.Compare(ctx, o)
	if report != nil && len(report.Runs) > 0 {
		path, saveErr := report.Save(*out)
		if saveErr != nil {
			return saveErr
		}
		fmt.Fprintln(os.Stderr, "raw runs are in", path)
	}
	if err != nil {
		return err
	}
	fmt.Print(report.Markdown())
	return nil
}

func known(words, from []string, flag string) error {
	for _, w := range words {
		if !slices.Contains(from, w) {
			return fmt.Errorf("%s: %q is not one of %s", flag, w, strings.Join(from, ", "))
		}
	}
	return nil
}
