package main

import (
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lsnproxy/lsnproxy/election"
	"github.com/lsnproxy/lsnproxy/failover"
	"github.com/lsnproxy/lsnproxy/lagwatch"
)

// clusterConfig says who the other proxies are.
type clusterConfig struct {
	ID        string        `mapstructure:"id"`   // "": the host's name
	Bind      string        `mapstructure:"bind"` // "": no cluster
	Advertise string        `mapstructure:"advertise"`
	Join      []string      `mapstructure:"join"`
	Key       string        `mapstructure:"key"` // base64
	KeyFile   string        `mapstructure:"key_file"`
	Label     string        `mapstructure:"label"`
	Data      string        `mapstructure:"data"`
	Voters    []string      `mapstructure:"voters"`
	Expect    int           `mapstructure:"expect"`
	Heartbeat time.Duration `mapstructure:"heartbeat"`
	Election  time.Duration `mapstructure:"election"`
	Lease     time.Duration `mapstructure:"lease"`
}

func clusterDefaults() clusterConfig {
	return clusterConfig{
		Label: "lsnproxy", Heartbeat: election.DefaultHeartbeat, Election: election.DefaultElection, Lease: election.DefaultLease,
	}
}

// id is the configured one, or the host's name.
func (c *clusterConfig) id() string {
	if c.ID != "" {
		return c.ID
	}
	name, _ := os.Hostname() // an empty one is refused
	return name
}

// options are for package election, but for what only the running proxy knows.
func (c *clusterConfig) options() election.Options {
	key, _ := base64.StdEncoding.DecodeString(c.Key) // checked when it was loaded
	return election.Options{
		ID: c.id(), Bind: c.Bind, Advertise: c.Advertise, Join: c.Join, Key: key, Label: c.Label,
		Dir: c.Data, Voters: c.Voters, Expect: c.Expect,
		Heartbeat: c.Heartbeat, Election: c.Election, Lease: c.Lease,
	}
}

func (c *config) checkCluster(found *problems) {
	k := &c.Cluster
	address := func(key, value string, leastPort int) {
		if err := checkAddress(value, leastPort); err != nil {
			found.add(key, "%v", err)
		}
	}
	if k.Bind != "" {
		address("cluster.bind", k.Bind, 1)
	}
	if k.Advertise != "" {
		address("cluster.advertise", k.Advertise, 1)
	}
	for i, join := range k.Join {
		address(fmt.Sprintf("cluster.join[%d]", i), join, 1)
	}
	for i, id := range k.Voters {
		if id == "" || len(id) > election.MaxID {
			found.add(fmt.Sprintf("cluster.voters[%d]", i), "must have from 1 to %d bytes", election.MaxID)
		} else if slices.Contains(k.Voters[:i], id) {
			found.add(fmt.Sprintf("cluster.voters[%d]", i), "%s is there twice", id)
		}
	}
	if _, err := base64.StdEncoding.DecodeString(k.Key); err != nil {
		found.add("cluster.key", "want 16, 24 or 32 bytes in base64, as from: openssl rand -base64 32")
	}
	if err := k.options().Check(); err != nil {
		found.add("cluster", "%v", err)
	}
}

// clusterWarnings are what is allowed and yet worth a second look.
func (c *config) clusterWarnings() (all []string) {
	k := &c.Cluster
	if k.Bind != "" && k.Key == "" && !loopback(k.Bind) {
		all = append(all, "cluster.key: there is none and cluster.bind is not on loopback: "+
			"whoever can reach "+k.Bind+" can say who leads the database")
	}
	if k.Expect == 2 || len(k.Voters) == 2 {
		all = append(all, "cluster: two voters cannot outvote a partition: "+
			"while one of them is gone nobody may write; have three, or one")
	}
	return all
}

// needsElection reports whether the proxy is to take part in elections.
func (c *config) needsElection() bool {
	return c.Cluster.Bind != "" || c.Failover.Mode == failover.Promote || len(c.Failover.Patroni) > 0
}

// startElection takes part in elections, if the configuration wants it.
func (p *proxy) startElection(c config) (err error) {
	if !c.needsElection() {
		return nil
	}
	o := c.Cluster.options()
	o.Version, o.Log = versionText(), p.log
	o.Client = p.reachable(c, p.clients.Addr())
	o.Cancel = o.Client
	if p.http != nil {
		o.HTTP = p.reachable(c, p.http.Addr())
	}
	o.Received = func(_ string, packet []byte) { p.server.Cancel(packet) }
	p.election, err = election.Start(o)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	p.mandate.node.Store(p.election)
	p.mandate.stop = make(chan struct{})
	p.mandate.following.Go(func() { p.obey() }) // ends with mandate.stop; stopElection waits for it
	return nil
}

// obey tells the watcher of each decree.
func (p *proxy) obey() {
	for {
		changed := p.election.Changed()
		d := p.election.State().Decree
		p.watch.Rule(lagwatch.Ruling{Epoch: d.Epoch, Leader: d.Leader, Timeline: d.Timeline})
		select {
		case <-changed:
		case <-p.mandate.stop:
			return
		}
	}
}

// mandate is the right to write that the election gives this proxy: none before it
// has begun.
type mandate struct {
	node      atomic.Pointer[election.Node]
	stop      chan struct{}
	following sync.WaitGroup
}

// MayWrite implements session.Mandate.
func (m *mandate) MayWrite(now time.Time) (epoch uint64, until time.Time, ok bool) {
	if n := m.node.Load(); n != nil {
		return n.MayWrite(now)
	}
	return 0, time.Time{}, false
}

// MayFinish implements session.Mandate.
func (m *mandate) MayFinish(epoch uint64, now time.Time) bool {
	n := m.node.Load()
	return n != nil && n.MayFinish(epoch, now)
}

// Acknowledge implements session.Mandate.
func (m *mandate) Acknowledge(epoch uint64) {
	if n := m.node.Load(); n != nil {
		n.Acknowledge(epoch)
	}
}

// elsewhere hands a cancel request on to all other proxies: only the one that has
// the session can tell that the key is right.
func (m *mandate) elsewhere(packet []byte) {
	if n := m.node.Load(); n != nil {
		_ = n.Forward("", packet) // as with any cancel request, nobody is told
	}
}

// reachable is where other hosts reach an address that this one listens on: at
// the host that gossip advertises if it listens everywhere.
func (p *proxy) reachable(c config, listening net.Addr) string {
	a := listening.(*net.TCPAddr)
	if !a.IP.IsUnspecified() {
		return a.String()
	}
	for _, address := range []string{c.Cluster.Advertise, c.Cluster.Bind} {
		host, _, _ := net.SplitHostPort(address)
		if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
			_, port, _ := net.SplitHostPort(a.String())
			return net.JoinHostPort(host, port)
		}
	}
	return a.String()
}
