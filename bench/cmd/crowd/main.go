// Command crowd measures lsnproxy, and PgBouncer beside it, under many clients over
// few server connections. See bench.Crowd.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/lsnproxy/lsnproxy/bench"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 && args[0] == "-clients-of" { // started by ourselves
		return bench.RunClients(args[1:])
	}
	c := bench.Crowd{}
	c.Progress = func(line string) { fmt.Fprintln(os.Stderr, line) }
	flags := flag.NewFlagSet("crowd", flag.ExitOnError)
	flags.StringVar(&c.Proxy, "lsnproxy", "bin/lsnproxy", "`path` of lsnproxy")
	flags.StringVar(&c.PgBouncer, "pgbouncer", "", "`path` of pgbouncer (default: on PATH or in /usr/sbin)")
	systems := flags.String("systems", "lsnproxy,pgbouncer", "what to measure")
	flags.IntVar(&c.Many, "clients", 10_000, "how many there are")
	flags.IntVar(&c.Processes, "processes", 4, "that they are in")
	flags.IntVar(&c.Pool, "pool", 64, "server connections")
	flags.IntVar(&c.Seconds, "seconds", 10, "for how long they ask")
	flags.IntVar(&c.Followers, "followers", 1, "of the cluster, at least 1")
	flags.Parse(args) // exits on error
	c.Systems = strings.Split(*systems, ",")
	var err error
	if c.Program, err = os.Executable(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	served, err := c.Run(ctx)
	if err != nil {
		return err
	}
	for _, s := range served {
		fmt.Println(s)
		if s.Errors > 0 {
			return fmt.Errorf("%s: %d errors, the first: %s", s.System, s.Errors, s.First)
		}
	}
	return nil
}
