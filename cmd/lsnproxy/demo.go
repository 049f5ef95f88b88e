package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/lsnproxy/lsnproxy/pgcluster"
)

// demo is a local cluster with the proxy in front of it, in one process.
type demo struct {
	source     source
	followers  int
	applyDelay time.Duration
	dir, pgBin string

	cluster *pgcluster.Cluster
	proxy   *proxy
	config  config
}

func demoCommand() *cobra.Command {
	d := demo{}
	cmd := &cobra.Command{
		Use:   "demo [flags] [-- COMMAND [ARG ...]]",
		Short: "Make a local cluster and run the proxy in front of it",
		Long: `Make a leader and streaming followers on loopback, from the PostgreSQL that is
installed, and run the proxy in front of them until Ctrl-C.

With a COMMAND, run that instead of waiting, and exit with its status. It finds
the proxy through PGHOST, PGPORT, PGUSER and PGDATABASE, its metrics at
LSNPROXY_HTTP, and the servers themselves at LSNPROXY_LEADER and
LSNPROXY_FOLLOWERS. Other PG variables that say where and how to connect are
taken away; those that say how a session behaves, such as PGOPTIONS, are kept.

Whatever ends it, nothing is left behind, except the folder given with --dir.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if dash := cmd.ArgsLenAtDash(); len(args) > 0 && dash != 0 {
				return fmt.Errorf("unexpected %q: put the command behind --", args[0])
			}
			return nil
		},
		RunE: func(_ *cobra.Command, command []string) error { return d.run(command) },
	}
	f := cmd.Flags()
	f.IntVar(&d.followers, "followers", 2, "number of followers")
	f.DurationVar(&d.applyDelay, "apply-delay", 0, "make followers apply each commit so much later, such as 100ms")
	f.StringVar(&d.dir, "dir", "", "`FOLDER` to keep the cluster in, and to find it in again (default: a temporary one)")
	f.StringVar(&d.pgBin, "pg-bin", "", "`FOLDER` of PostgreSQL's programs (default: the newest installed)")
	f.StringVar(&d.source.listen, "listen", defaults().Listen, "`HOST:PORT` for clients; port 0 takes a free one")
	f.StringVar(&d.source.http, "http", defaults().HTTP, "`HOST:PORT` for metrics and health; port 0 takes a free one")
	f.StringArrayVar(&d.source.set, "set", nil, "`KEY=VALUE` sets one key of the proxy's configuration; may be repeated")
	return cmd
}

// startTime bounds the start of the cluster and of the proxy.
const startTime = time.Minute

func (d *demo) run(command []string) (err error) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	quiet := len(command) > 0
	defer func() { err = errors.Join(err, d.stop()) }()
	if stopped, err := d.start(signals, quiet); stopped || err != nil {
		return err
	}
	if !quiet {
		d.explain(os.Stdout)
		<-signals
		return nil
	}
	return runCommand(command, d.environment(), signals)
}

// start starts the cluster and the proxy and waits until all followers serve. A
// signal stops that.
func (d *demo) start(signals <-chan os.Signal, quiet bool) (stopped bool, err error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), startTime, fmt.Errorf("not ready within %v", startTime))
	defer cancel()
	started := make(chan error, 1)
	// Ends when the start does, which a signal makes it do; waited for below.
	go func() { started <- d.launch(ctx, quiet) }()
	select {
	case err := <-started:
		return false, err
	case <-signals:
		cancel()
		<-started
		return true, nil
	}
}

func (d *demo) launch(ctx context.Context, quiet bool) error {
	var err error
	d.cluster, err = pgcluster.Start(ctx, pgcluster.Options{
		Followers: d.followers, Dir: d.dir, PGBin: d.pgBin, ApplyDelay: d.applyDelay,
	})
	if err != nil {
		return err
	}
	for _, n := range d.cluster.Nodes() {
		d.source.nodes = append(d.source.nodes, n.Addr())
	}
	if d.config, err = load(d.source); err != nil {
		return err
	}
	level := new(slog.LevelVar)
	level.Set(d.config.Log.Level)
	if quiet {
		// What nodes go through until they are known is nobody's concern.
		level.Set(slog.LevelError)
	}
	if d.proxy, err = startProxy(d.config, newLog(d.config.Log, level, os.Stderr)); err != nil {
		return err
	}
	if err := d.awaitFollowers(ctx); err != nil {
		return err
	}
	if quiet {
		level.Set(max(slog.LevelWarn, d.config.Log.Level))
	}
	return nil
}

func (d *demo) awaitFollowers(ctx context.Context) error {
	for {
		v := d.proxy.board.View()
		if v.Leader >= 0 && usableFollowers(v) == d.followers {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w:%s", context.Cause(ctx), nodesText(v))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stop ends the proxy and the cluster, whatever of them was started.
func (d *demo) stop() error {
	if d.proxy != nil {
		hurry, cancel := context.WithCancel(context.Background())
		cancel()
		d.proxy.close(hurry, d.config)
	}
	if d.cluster == nil {
		return nil
	}
	return d.cluster.Stop()
}

// explain says what runs where and what to try.
func (d *demo) explain(w io.Writer) {
	host, port := connectTo(d.proxy.clients.Addr())
	psql := fmt.Sprintf("%s -h %s -p %s -U postgres", d.program("psql"), host, port)
	pgbench := fmt.Sprintf("%s -h %s -p %s -U postgres", d.program("pgbench"), host, port)
	fmt.Fprintf(w, "\n  proxy      %s\n", d.proxy.clients.Addr())
	leader := d.cluster.Leader()
	for _, n := range d.cluster.Nodes() {
		role := "follower"
		if n == leader {
			role = "leader"
		}
		fmt.Fprintf(w, "  %-10s %s\n", role, n.Addr())
	}
	if d.proxy.http != nil {
		fmt.Fprintf(w, "  metrics    http://%s/metrics\n", d.proxy.http.Addr())
	}
	fmt.Fprintf(w, "  servers in %s\n\nTry, in another terminal:\n\n", d.cluster.Dir())
	fmt.Fprintf(w, "  # write, then read it on a follower; who answered, and why\n  %s <<'SQL'\n%s\nSQL\n\n", psql, strings.TrimSpace(tryThis))
	fmt.Fprintf(w, "  # load: an update in each transaction, and reads\n  %s -i -q && %s -c 8 -T 10 -f select-only@9 -b tpcb-like@1\n\n", pgbench, pgbench)
	if d.proxy.http != nil {
		fmt.Fprintf(w, "  # where statements have run\n  curl -s http://%s/metrics | grep -E '^lsnproxy_(reads|writes)'\n\n", d.proxy.http.Addr())
	}
	fmt.Fprint(w, "Ctrl-C stops and removes everything.\n")
}

const tryThis = `
CREATE TABLE IF NOT EXISTS notes (text text);
INSERT INTO notes VALUES ('hello');
SELECT count(*) FROM notes;
SHOW lsnproxy.node;
`

// program is how to call one of PostgreSQL's programs.
func (d *demo) program(name string) string {
	if _, err := exec.LookPath(name); err == nil {
		return name
	}
	return d.cluster.Program(name)
}
