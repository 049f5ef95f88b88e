package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lsnproxy/lsnproxy/internal/history"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// chaos is three proxies in front of three servers, whose leader is lost again and
// again in one of several ways, while sessions write and read and record what they see.
type chaos struct {
	t       *testing.T
	rng     *rand.Rand
	network *pgcluster.Network // of six hosts; nil where the machine has none
	cluster *pgcluster.Cluster
	fleet   *fleet
	timeout time.Duration // failover.timeout
	async   bool          // failovers may lose something, and shall
	faults  []string
	died    map[reign]bool  // proxies that were killed with the leader
	gaps    []time.Duration // from a fault until a new session could write
	turns   []time.Duration // the same of switchovers
}

// TestChaos: with durability sync nothing that was acknowledged is lost, no session
// sees anything it should not, and writing goes on after each fault.
func TestChaos(t *testing.T) { playChaos(t, "sync", 3, rand.Uint64()) }

// TestChaosAsync: with async a failover may lose what was acknowledged, but no more than
// its record says; then whoever wrote it is told, and never sees less than it wrote
// without having been.
func TestChaosAsync(t *testing.T) { playChaos(t, "async", 1, rand.Uint64()) }

func playChaos(t *testing.T, durability string, rounds int, seed uint64) {
	t.Logf("seed %d", seed)
	const timeout = time.Second
	c := &chaos{t: t, rng: rand.New(rand.NewPCG(seed, 0)), timeout: timeout, async: durability == "async", died: make(map[reign]bool)}
	o := pgcluster.Options{Followers: 2, Settings: map[string]string{"wal_receiver_timeout": "2s", "wal_sender_timeout": "2s"}}
	hosts := c.makeHosts(&o)
	c.cluster = pgtest.Start(t, o)
	// A shared row that lost a write counts on from where it was, and so forks.
	wrong := []history.Fault{history.Stale, history.Backward}
	if durability == "sync" {
		wrong = append(wrong, history.Unwritten, history.Forked)
		pgtest.Must(t, c.cluster.Leader().Set(t.Context(), "synchronous_standby_names", "ANY 1 (node2, node3)"))
	}
	c.fleet = attendedFleet(t, c.cluster, hosts, "failover.durability="+durability, "failover.timeout="+timeout.String(), "failover.max_lost_bytes=64MB",
		"cluster.heartbeat=50ms", "cluster.election=400ms", "cluster.lease=2s", "leader_wait=30s", "monitor.timeout=1s")

	var addresses []string
	for _, m := range c.fleet.members {
		addresses = append(addresses, m.clients)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result, err := history.Run(ctx, history.Options{
		Addresses: addresses, Sessions: 12, Duration: time.Hour, Pause: 20 * time.Millisecond, Timeout: 40 * time.Second, Seed: seed,
		Token: "lsnproxy.token", MoveEvery: 50,
		EndsSession: []string{"LS001", "LS003"},
		Meanwhile: func(ctx context.Context) error {
			defer cancel()
			time.Sleep(time.Second)
			for range rounds {
				if err := c.round(ctx); err != nil {
					return err
				}
			}
			time.Sleep(2 * time.Second) // so that everybody has learnt what became of it
			return nil
		},
	})
	if err != nil {
		t.Error(err)
	}
	for _, f := range wrong {
		if n := result.Faults[f]; n > 0 {
			t.Errorf("%d %s", n, f)
		}
	}
	if durability == "sync" {
		c.kept(result)
	} else {
		c.accounted(result)
	}
	c.times("faults", c.gaps)
	c.times("switchovers", c.turns)
	t.Logf("faults: %s\n%v", strings.Join(c.faults, ", "), result)
}

// makeHosts has each server and each proxy run on a host of its own, where the machine
// allows, and gives those for the proxies; else there are links that swallow everything in
// front of the servers.
func (c *chaos) makeHosts(o *pgcluster.Options) []*pgcluster.Host {
	network, err := pgcluster.NewNetwork(6)
	if errors.Is(err, pgcluster.ErrNoHosts) {
		c.t.Log(err)
		o.Faults, o.FaultReplication = true, true
		return nil
	}
	pgtest.Must(c.t, err)
	c.t.Cleanup(network.Close)
	c.network, o.Hosts = network, network.Hosts[:3]
	return network.Hosts[3:]
}

// times logs how long nobody could write.
func (c *chaos) times(after string, all []time.Duration) {
	if len(all) == 0 {
		return
	}
	slices.Sort(all)
	median, worst := all[len(all)/2], all[len(all)-1]
	c.t.Logf("%d %s, writable again after: median %v, worst %v, that is %.1f and %.1f times failover.timeout; all: %v",
		len(all), after, median, worst, float64(median)/float64(c.timeout), float64(worst)/float64(c.timeout), all)
}

// attendedFleet starts three proxies in front of a cluster, whose servers rejoin by
// themselves, and waits until all is ready.
func attendedFleet(t *testing.T, cluster *pgcluster.Cluster, hosts []*pgcluster.Host, set ...string) *fleet {
	t.Helper()
	program, err := exec.LookPath("lsnproxy")
	pgtest.Must(t, err)
	config := defaults()
	config.Listen, config.HTTP, config.Console.Users = "127.0.0.1:0", "127.0.0.1:0", []string{"postgres"}
	for _, n := range cluster.Nodes() {
		config.Nodes = append(config.Nodes, n.Addr())
	}
	set = append([]string{"failover.mode=promote", "shutdown_grace=0"}, set...)
	f, err := startFleet(program, filepath.Join(cluster.Dir(), "proxies"), config, set, 3, hosts)
	pgtest.Must(t, err)
	t.Cleanup(f.stop)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(f.logs())
		}
	})
	pgtest.Eventually(t, "all proxies are ready", func() bool {
		err = f.ready(t.Context(), len(config.Nodes)-1)
		return err == nil
	})
	a := &attendant{cluster: cluster, status: f.status, log: slog.New(slog.DiscardHandler)}
	a.start()
	t.Cleanup(a.stop)
	return f
}

// round does one thing to the cluster, waits until it is writable, puts it right again
// and waits until all servers are there.
func (c *chaos) round(ctx context.Context) error {
	leader, coordinator, timeline, err := c.who(ctx)
	if err != nil {
		return err
	}
	f := c.choose()
	c.faults = append(c.faults, f.name)
	if f.loses && (c.async || c.rng.IntN(2) == 0) {
		if err := c.stall(ctx, leader); err != nil {
			return fmt.Errorf("stall the followers: %w", err)
		}
	}
	e := &event{
		chaos: c, leader: leader, coordinator: coordinator, timeline: timeline, apart: coordinator,
		later: time.Duration(c.rng.Int64N(int64(2 * c.timeout))), mend: func() error { return nil },
	}
	began := time.Now()
	if err := f.do(ctx, e); err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	if err := c.writable(ctx, e.apart); err != nil {
		return fmt.Errorf("after: %s: %w", f.name, err)
	}
	gap := time.Since(began)
	if f.fault {
		c.gaps = append(c.gaps, gap)
	} else {
		c.turns = append(c.turns, gap)
	}
	c.t.Logf("%s: writable after %v", c.faults[len(c.faults)-1], gap)
	if gap > 10*c.timeout {
		c.t.Logf("who looks for the reason finds it here:\n%s", c.fleet.logs())
	}
	time.Sleep(e.later / 2)
	if leader.Running() {
		_ = leader.Thaw() // what sends to its followers, at least
	}
	if err := e.mend(); err != nil {
		return fmt.Errorf("mend after: %s: %w", f.name, err)
	}
	return c.whole(ctx, f.name)
}

// who leads and who coordinates, on what timeline.
func (c *chaos) who(ctx context.Context) (*pgcluster.Node, *member, uint32, error) {
	s, err := c.fleet.status(ctx)
	if err != nil {
		return nil, nil, 0, err
	}
	nodes := c.cluster.Nodes()
	i := slices.IndexFunc(nodes, func(n *pgcluster.Node) bool { return n.Addr() == s.Cluster.Decree.Leader })
	j := slices.IndexFunc(c.fleet.members, func(m *member) bool { return m.id == s.Cluster.Coordinator })
	if i < 0 || j < 0 {
		return nil, nil, 0, fmt.Errorf("leader %q, coordinator %q", s.Cluster.Decree.Leader, s.Cluster.Coordinator)
	}
	return nodes[i], c.fleet.members[j], s.Cluster.Decree.Timeline, nil
}

// writable waits until a new session can write through a proxy that was left alone.
func (c *chaos) writable(ctx context.Context, other *member) error {
	through := c.fleet.members[0]
	if through == other {
		through = c.fleet.members[1]
	}
	return c.patiently(ctx, 60*time.Second, func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, "postgres://postgres@"+through.clients+"/postgres?sslmode=disable")
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		_, err = conn.Exec(ctx, "CREATE TABLE IF NOT EXISTS written (at timestamptz DEFAULT now())")
		if err == nil {
			_, err = conn.Exec(ctx, "INSERT INTO written DEFAULT VALUES")
		}
		return err
	})
}

// whole waits until every server and every proxy is there again.
func (c *chaos) whole(ctx context.Context, what string) error {
	err := c.patiently(ctx, 90*time.Second, func(ctx context.Context) error { return c.fleet.ready(ctx, 2) })
	if err != nil {
		return fmt.Errorf("not whole after: %s: %w", what, err)
	}
	return nil
}

func (c *chaos) patiently(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	end := time.Now().Add(limit)
	for {
		try, cancel := context.WithTimeout(ctx, 20*time.Second)
		err := f(try)
		cancel()
		if err == nil || ctx.Err() != nil || time.Now().After(end) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// logs is what the proxies have logged.
func (f *fleet) logs() string {
	var b strings.Builder
	for _, m := range f.members {
		out, _ := exec.Command("tail", "-n", "60", m.log).CombinedOutput()
		fmt.Fprintf(&b, "%s:\n%s\n", m.id, out)
	}
	return b.String()
}
