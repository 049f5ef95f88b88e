package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lsnproxy/lsnproxy/pgcluster"
)

// The names of the systems compared. Ratios in the report are to the first two.
const (
	DirectLeader      = "direct to the leader"
	PgBouncerLeader   = "PgBouncer to the leader"
	Proxy             = "lsnproxy"
	DirectFollower    = "direct to a follower"
	PgBouncerFollower = "PgBouncer to a follower"
)

// system is something pgbench can be pointed at.
type system struct {
	name    string
	variant string // what sets it apart from the system of that name in other cells
	note    string // how it is set up
	address string
	options string   // what its clients come with, as in PGOPTIONS
	server  *process // nil for a direct connection
	status  string   // where lsnproxy tells its metrics; "" for others
	data    []string // folders of all servers' data, if their processor time is to be told
	measure func(Cell) bool
}

func always(Cell) bool     { return true }
func readOnly(c Cell) bool { return c.Workload == "select-only" }

// lineup is the systems under comparison, started.
type lineup struct {
	systems []*system
	dir     string
}

// startLineup starts the systems that o asks for, on a cluster with at least one
// follower, in a folder of its own. stop ends them.
func startLineup(ctx context.Context, o Options, c *pgcluster.Cluster) (*lineup, error) {
	dir, err := os.MkdirTemp("", "lsnproxy-bench-")
	if err != nil {
		return nil, err
	}
	l := &lineup{dir: dir}
	if err := l.start(ctx, o, c); err != nil {
		l.stop()
		return nil, err
	}
	return l, nil
}

func (l *lineup) start(ctx context.Context, o Options, c *pgcluster.Cluster) error {
	// PgBouncer reads its configuration as another user.
	if err := os.Chmod(l.dir, 0o755); err != nil {
		return err
	}
	leader, follower := c.Leader().ServerAddr(), c.Followers()[0].ServerAddr()
	if slices.Contains(o.Systems, "direct") {
		l.systems = append(l.systems,
			&system{name: DirectLeader, address: leader, measure: always},
			&system{name: DirectFollower, address: follower, measure: readOnly})
	}
	if slices.Contains(o.Systems, "pgbouncer") {
		if err := l.pgbouncers(ctx, o, leader, PgBouncerLeader, always); err != nil {
			return err
		}
		if slices.Contains(o.Workloads, "select-only") {
			if err := l.pgbouncers(ctx, o, follower, PgBouncerFollower, readOnly); err != nil {
				return err
			}
		}
	}
	if slices.Contains(o.Systems, "lsnproxy") {
		if err := l.lsnproxy(ctx, o, c); err != nil {
			return err
		}
	}
	if o.Vary.Setting != "" {
		for _, n := range c.Nodes() {
			l.systems[len(l.systems)-1].data = append(l.systems[len(l.systems)-1].data, n.DataDir())
		}
		l.systems = o.Vary.systems(l.systems[len(l.systems)-1])
	}
	return nil
}

func (l *lineup) stop() {
	for _, s := range l.systems {
		if s.server != nil {
			s.server.stop() // once more does no harm where several share it
		}
	}
	os.RemoveAll(l.dir)
}

// pgbouncers starts PgBouncer in front of target. One that cannot carry named
// statements in transaction pooling gets a twin in session pooling for them.
func (l *lineup) pgbouncers(ctx context.Context, o Options, target, name string, measure func(Cell) bool) error {
	version, err := pgbouncerVersion(o.PgBouncer)
	if err != nil {
		return err
	}
	named := carriesNamed(version)
	other := func(mode string) bool { return mode != "prepared" }
	if named || slices.ContainsFunc(o.Modes, other) {
		err := l.pgbouncer(ctx, o, target, pgbouncer{pooling: "transaction", pool: o.Pool, named: named}, &system{
			name: name, note: fmt.Sprintf("%d server connections in transaction pooling", o.Pool),
			measure: func(c Cell) bool { return measure(c) && (named || other(c.Mode)) },
		})
		if err != nil {
			return err
		}
	}
	if named || !slices.Contains(o.Modes, "prepared") {
		return nil
	}
	pool := slices.Max(o.Clients)
	return l.pgbouncer(ctx, o, target, pgbouncer{pooling: "session", pool: pool}, &system{
		name: name, variant: "session pooling",
		note:    fmt.Sprintf("%d server connections in session pooling, because %s has no named statements in transaction pooling", pool, version),
		measure: func(c Cell) bool { return measure(c) && !other(c.Mode) },
	})
}

// pgbouncer is what its configuration differs in.
type pgbouncer struct {
	pooling string
	pool    int
	named   bool // set max_prepared_statements
}

// config is the text of pgbouncer.ini. Whoever connects becomes postgres, as
// the cluster trusts whoever connects.
func (p pgbouncer) config(listen, target string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", err
	}
	toHost, toPort, err := net.SplitHostPort(target)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf(`[databases]
postgres = host=%s port=%s dbname=postgres user=postgres
[pgbouncer]
listen_addr = %s
listen_port = %s
unix_socket_dir =
auth_type = any
pool_mode = %s
default_pool_size = %d
max_client_conn = 20000
log_connections = 0
log_disconnections = 0
`, toHost, toPort, host, port, p.pooling, p.pool)
	if p.named {
		text += "max_prepared_statements = 100\n"
	}
	return text, nil
}

func (l *lineup) pgbouncer(ctx context.Context, o Options, target string, p pgbouncer, s *system) error {
	as, err := unprivileged() // PgBouncer refuses to run as root
	if err != nil {
		return err
	}
	return l.launch(ctx, s, func(listen string) (*process, error) {
		config, err := p.config(listen, target)
		if err != nil {
			return nil, err
		}
		base := filepath.Join(l.dir, fmt.Sprintf("pgbouncer%d", len(l.systems)))
		if err := os.WriteFile(base+".ini", []byte(config), 0o644); err != nil {
			return nil, err
		}
		return start(as, base+".log", o.PgBouncer, base+".ini")
	}, func(ctx context.Context) error {
		conn, err := pgconn.Connect(ctx, "postgres://postgres@"+s.address+"/postgres?sslmode=disable")
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
}

func (l *lineup) lsnproxy(ctx context.Context, o Options, c *pgcluster.Cluster) error {
	status, err := freeAddress()
	if err != nil {
		return err
	}
	// As many server connections in all as PgBouncer has: they compete for the
	// same cores, so a second set would be measured as the proxy's cost.
	each, note := o.Pool, fmt.Sprintf("%d server connections to the leader", o.Pool)
	if followers := len(c.Followers()); !slices.ContainsFunc(o.Workloads, writes) {
		each = max(1, o.Pool/followers)
		note = fmt.Sprintf("reads on %d followers, %d server connections to each", followers, each)
	}
	s := &system{name: Proxy, measure: always, note: note, status: status}
	return l.launch(ctx, s, func(listen string) (*process, error) {
		args := []string{"serve", "--listen", listen, "--http", status}
		for _, n := range c.Nodes() {
			args = append(args, "--node", n.ServerAddr())
		}
		args = append(args, "--set", fmt.Sprintf("pool.size=%d", each))
		args = append(args, o.ProxyArgs...)
		return start(nil, filepath.Join(l.dir, "lsnproxy.log"), o.Proxy, args...)
	}, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+status+"/readyz", nil)
		if err != nil {
			return err
		}
		request.Close = true
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return errors.New("/readyz: " + answer.Status)
		}
		return nil
	})
}

// launch starts s on a free port and waits until it is ready, at most 10
// seconds.
func (l *lineup) launch(ctx context.Context, s *system, start func(listen string) (*process, error), ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	address, err := freeAddress()
	if err != nil {
		return err
	}
	s.address = address
	if s.server, err = start(address); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	l.systems = append(l.systems, s)
	for {
		if err = ready(ctx); err == nil {
			return nil
		}
		if !s.server.running() || ctx.Err() != nil {
			return fmt.Errorf("%s is not ready: %w; it said:\n%s", s.name, err, s.server.lastWords())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// freeAddress is host:port where nobody listens at the moment.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// pgbouncerVersion is what pgbouncer calls itself, such as PgBouncer 1.18.0.
func pgbouncerVersion(program string) (string, error) {
	output, err := exec.Command(program, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", program, err)
	}
	first, _, _ := strings.Cut(string(output), "\n")
	return strings.TrimSpace(first), nil
}

// carriesNamed reports whether a version of PgBouncer can map named prepared
// statements in transaction pooling: 1.21 brought max_prepared_statements
// (PgBouncer's changelog).
func carriesNamed(version string) bool {
	match := regexp.MustCompile(`(\d+)\.(\d+)`).FindStringSubmatch(version)
	if match == nil {
		return false
	}
	major, _ := strconv.Atoi(match[1]) // digits by the pattern
	minor, _ := strconv.Atoi(match[2])
	return major > 1 || major == 1 && minor >= 21
}

// writes reports whether a workload needs the leader.
func writes(workload string) bool { return workload != "select-only" }
