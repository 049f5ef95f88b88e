// Command compat runs real clients against lsnproxy and prints what works as
// Markdown. It runs inside a demo, which tells it where everything is:
//
//	bin/lsnproxy demo -- bin/compat/compat
//
// Each client has a small program in its own language, which tries one feature
// after another and prints a line for each: "feature ok|FAIL|none detail". Two copies
// of it run at once: directly on the leader, through the proxy, and through a proxy
// with so few server connections that they change hands all the time. A feature works
// if it does so in all six, and if what was seen (the detail) is always the same.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "compat:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("compat", flag.ExitOnError)
	proxy := flags.String("lsnproxy", "bin/lsnproxy", "`path` of lsnproxy")
	folder := flags.String("folder", "compat", "`folder` of the clients' programs")
	built := flags.String("built", "bin/compat", "`folder` of those that were compiled")
	only := flags.String("clients", "", "try these alone, separated by commas: "+strings.Join(names(), ", "))
	out := flags.String("out", "", "write the tables to `file` too")
	flags.Parse(args) // exits on error
	chosen, err := choose(*only)
	if err != nil {
		return err
	}

	leader, err := url.Parse(os.Getenv("LSNPROXY_LEADER"))
	if err != nil || leader.Host == "" {
		return errors.New("LSNPROXY_LEADER is not set: run this inside lsnproxy demo")
	}
	plain := way{name: "through the proxy", host: os.Getenv("PGHOST"), port: os.Getenv("PGPORT"), http: os.Getenv("LSNPROXY_HTTP")}
	if err := createReads(ctx, plain, chosen); err != nil {
		return err
	}
	servers := append([]string{leader.String()}, strings.Fields(os.Getenv("LSNPROXY_FOLLOWERS"))...)
	small, err := startProxy(ctx, *proxy, servers)
	if err != nil {
		return err
	}
	defer small.stop()
	ways := []way{
		{name: "directly", host: leader.Hostname(), port: leader.Port()},
		plain,
		{name: fmt.Sprint("through the proxy with ", smallPool, " connections"), host: "127.0.0.1", port: small.port, http: small.http},
	}
	var results []result
	for _, c := range chosen {
		r := result{client: c}
		if r.version, err = c.available(ctx, *folder, *built); err != nil {
			if *only != "" { // it was asked for by name
				return fmt.Errorf("%s is not available: %w", c.name, err)
			}
			fmt.Fprintf(os.Stderr, "%s is not available: %v\n", c.name, err)
		} else if err := r.try(ctx, *folder, *built, ways); err != nil {
			return err
		}
		results = append(results, r)
	}

	var w io.Writer = os.Stdout
	if *out != "" {
		f, err := os.Create(*out)
		if err != nil {
			return err
		}
		defer f.Close()
		w = io.MultiWriter(w, f)
	}
	write(w, results)
	if n := failures(results); n > 0 {
		return fmt.Errorf("%d of the features above are not as on a direct connection", n)
	}
	return nil
}
