package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/lsnproxy/lsnproxy/admin"
	"github.com/lsnproxy/lsnproxy/failover"
	"github.com/lsnproxy/lsnproxy/pgcluster"
)

// demo is a local cluster with the proxy in front of it, in one process.
type demo struct {
	source     source
	followers  int
	applyDelay time.Duration
	dir, pgBin string
	proxies    int

	cluster   *pgcluster.Cluster
	proxy     *proxy     // the only one, in this process
	fleet     *fleet     // or several
	attendant *attendant // nil if nobody promotes
	config    config
}

func demoCommand() *cobra.Command {
	d := demo{source: source{nodesLater: true}}
	cmd := &cobra.Command{
		Use:   "demo [flags] [-- COMMAND [ARG ...]]",
		Short: "Make a local cluster and run the proxy in front of it",
		Long: `Make a leader and streaming followers on loopback, from the PostgreSQL that is
installed, and run the proxy in front of them until Ctrl-C.

With several --proxies, or without a COMMAND, a leader that is lost is replaced
(failover.mode is promote), and old leaders rejoin by themselves.

With a COMMAND, run that instead of waiting, and exit with its status. It finds
the proxy through PGHOST, PGPORT, PGUSER and PGDATABASE, its metrics at
LSNPROXY_HTTP, the ports of all proxies in LSNPROXY_PORTS, and the servers themselves at LSNPROXY_LEADER and
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
	f.IntVar(&d.followers, "followers", 2, "make `N` followers")
	f.DurationVar(&d.applyDelay, "apply-delay", 0, "make followers apply each commit later by `TIME`, such as 100ms")
	f.IntVar(&d.proxies, "proxies", 1, "run `N` proxies that elect a coordinator, each a process of its own")
	f.StringVar(&d.dir, "dir", "", "keep the cluster in `FOLDER`, and find it there the next time (default: a temporary one)")
	f.StringVar(&d.pgBin, "pg-bin", "", "take PostgreSQL's programs from `FOLDER` (default: the newest installed)")
	d.source.flags(cmd)
	return cmd
}

// startTime bounds the start of the cluster and of the proxy.
const startTime = time.Minute

func (d *demo) run(command []string) (err error) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	behaviour := clearPG()
	quiet := len(command) > 0
	if d.proxies < 1 {
		return fmt.Errorf("--proxies %d: there must be one at least", d.proxies)
	}
	if !quiet || d.proxies > 1 {
		d.source.set = slices.Insert(d.source.set, 0, "failover.mode=promote")
	}
	if quiet {
		// By default; --set goes over it.
		d.source.set = slices.Insert(d.source.set, 0, "log.level=warn")
	}
	if d.config, err = load(d.source); err != nil {
		return err
	}
	d.config.Console.Users = []string{"postgres"}
	defer func() {
		signal.Stop(signals) // one more ends us at once, and the watchdog the servers
		if failed := d.stop(); failed != nil {
			fmt.Fprintln(os.Stderr, "lsnproxy:", failed)
			err = exitStatus(1)
		}
	}()
	if err := d.start(signals, quiet); err != nil {
		return err
	}
	if !quiet {
		d.explain(os.Stdout)
		<-signals
		return nil
	}
	return runCommand(command, d.environment(behaviour), signals)
}

// start starts the cluster and the proxy and waits until all followers serve. A
// signal ends that with its status.
func (d *demo) start(signals <-chan os.Signal, quiet bool) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), startTime, fmt.Errorf("not ready within %v", startTime))
	defer cancel()
	started := make(chan error, 1)
	// Ends with launch, which a signal makes return; waited for here.
	go func() { started <- d.launch(ctx, quiet) }()
	select {
	case err := <-started:
		return err
	case s := <-signals:
		cancel()
		<-started
		return exitStatus(128 + int(s.(syscall.Signal)))
	}
}

func (d *demo) launch(ctx context.Context, quiet bool) (err error) {
	d.cluster, err = pgcluster.Start(ctx, pgcluster.Options{
		Followers: d.followers, Dir: d.dir, PGBin: d.pgBin, ApplyDelay: d.applyDelay,
	})
	if err != nil {
		return err
	}
	for _, n := range d.cluster.Nodes() {
		d.config.Nodes = append(d.config.Nodes, n.Addr())
	}
	if d.proxies > 1 {
		return d.launchFleet(ctx)
	}
	level := new(slog.LevelVar)
	level.Set(d.config.Log.Level)
	if quiet && d.config.Log.Level == slog.LevelWarn {
		// What nodes go through until they are known is worth no warning.
		level.Set(slog.LevelError)
	}
	log := newLog(d.config.Log, level, os.Stderr)
	if d.proxy, err = startProxy(d.config, log); err != nil {
		return err
	}
	if err := d.awaitFollowers(ctx); err != nil {
		return err
	}
	level.Set(d.config.Log.Level)
	d.config.warn(log)
	d.attend(func(context.Context) (admin.Status, error) { return d.proxy.status(), nil }, log)
	return nil
}

func (d *demo) launchFleet(ctx context.Context) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	d.fleet, err = startFleet(self, filepath.Join(d.cluster.Dir(), "proxies"), d.config, d.source.set, d.proxies, nil)
	if err != nil {
		return err
	}
	for {
		err := d.fleet.ready(ctx, d.followers)
		if err == nil {
			d.attend(d.fleet.status, newLog(d.config.Log, d.config.Log.Level, os.Stderr))
			return nil
		}
		if ended := (*fatal)(nil); errors.As(err, &ended) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// attend has old leaders rejoin, where somebody promotes.
func (d *demo) attend(status func(context.Context) (admin.Status, error), log *slog.Logger) {
	if d.config.Failover.Mode == failover.Promote {
		d.attendant = &attendant{cluster: d.cluster, status: status, log: log}
		d.attendant.start()
	}
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
	if d.attendant != nil {
		d.attendant.stop()
	}
	if d.proxy != nil {
		d.proxy.close(0)
	}
	if d.fleet != nil {
		d.fleet.stop()
	}
	if d.cluster == nil {
		return nil
	}
	return d.cluster.Stop()
}

// explain says what runs where and what to try.
func (d *demo) explain(w io.Writer) {
	clients, web := d.doors()
	host, port, _ := net.SplitHostPort(clients[0]) // written by ourselves
	to := fmt.Sprintf(" -h %s -p %s -U postgres postgres ", host, port)
	psql, pgbench := d.program("psql")+to, d.program("pgbench")+to

	fmt.Fprintln(w)
	for i, address := range clients {
		fmt.Fprintf(w, "  proxy      %s\n", address)
		if d.fleet != nil {
			fmt.Fprintf(w, "             HTTP %s, log %s\n", web, d.fleet.members[i].log)
		}
	}
	leader := d.cluster.Leader()
	for _, n := range d.cluster.Nodes() {
		role := "follower"
		if n == leader {
			role = "leader"
		}
		fmt.Fprintf(w, "  %-9s  %s\n", role, n.Addr())
	}
	fmt.Fprintf(w, "  folder     %s\n\nTry in another terminal:\n\n", d.cluster.Dir())
	fmt.Fprint(w, "# write, read it, ask who answered and why (a new table is read on followers after a moment)\n",
		psql, `-c "CREATE TABLE IF NOT EXISTS notes (note text)"`, "\n",
		psql, `-c "INSERT INTO notes VALUES ('hello')" -c "SELECT count(*) FROM notes" -c "SHOW lsnproxy.node"`, "\n\n",
		"# ten seconds of load, one transaction in ten a write\n",
		pgbench, "-i -q && ", pgbench, "-c 8 -T 10 -b select-only@9 -b tpcb-like@1\n\n")
	fmt.Fprint(w, "# what the proxy itself knows\n", d.program("psql"), fmt.Sprintf(" -h %s -p %s -U postgres %s ", host, port, d.config.Console.Database),
		`-c "SHOW NODES" -c "SHOW HELP"`, "\n\n")
	if web != "" {
		fmt.Fprintf(w, "# where statements have run\ncurl -s http://%s/metrics | grep -E '^lsnproxy_(reads|writes)'\n\n", web)
	}
	if d.attendant != nil {
		fmt.Fprint(w, "# kill the leader, and go on writing; the old one rejoins by itself\n",
			"kill -9 $(head -1 ", leader.DataDir(), "/postmaster.pid)\n",
			psql, `-c "INSERT INTO notes VALUES ('still there')" -c "SELECT count(*) FROM notes"`, "\n")
		if web != "" {
			fmt.Fprintf(w, "lsnproxy status --http %s\nlsnproxy switchover --http %s\n", web, web)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "Ctrl-C stops it all.")
}

// doors are the addresses for clients of all the proxies, and the first one's for HTTP,
// "" for none.
func (d *demo) doors() (clients []string, web string) {
	if d.fleet != nil {
		for _, m := range d.fleet.members {
			clients = append(clients, m.clients)
		}
		return clients, d.fleet.members[0].http
	}
	if d.proxy.http != nil {
		web = net.JoinHostPort(connectTo(d.proxy.http.Addr()))
	}
	return []string{net.JoinHostPort(connectTo(d.proxy.clients.Addr()))}, web
}

// program is how to call one of PostgreSQL's programs.
func (d *demo) program(name string) string {
	if _, err := exec.LookPath(name); err == nil {
		return name
	}
	return d.cluster.Program(name)
}
