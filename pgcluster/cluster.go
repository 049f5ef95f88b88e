// Package pgcluster runs real PostgreSQL clusters on this machine, a leader and
// streaming followers, from the installed programs.
//
// The demonstration, the tests and the benches run on it. A cluster listens on
// 127.0.0.1 only and trusts whoever connects there. It ends with the process
// that started it, however that ends: a watchdog child sees to it. Nodes are
// equal but for the role they have at the moment, so that a test may kill the
// leader, promote a follower and let the others follow that.
package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	host      = "127.0.0.1"
	superuser = "postgres"
)

// Options say what cluster to start. The zero value is a lone leader.
type Options struct {
	Followers int // streaming followers beside the leader

	// Dir is where the cluster lives. Empty: a temporary folder, removed by Stop.
	// Else it is kept, and must be missing, be empty, or hold a cluster of as
	// many nodes, which is then started again with every node in its last role.
	Dir string

	PGBin      string            // see FindBinaries
	ApplyDelay time.Duration     // recovery_min_apply_delay of every follower
	Settings   map[string]string // further settings of every node

	Faults           bool // a Link in front of every node
	FaultReplication bool // followers stream through the leader's Link too; needs Faults and no Dir

	// Hosts, if given, are where the nodes run, one each and one server on each. Then
	// there is no Dir, and Faults are those of the Network.
	Hosts []*Host

	Log io.Writer // what the servers print; nil: a log file in each node's folder
}

// Cluster is a set of servers. Its methods may be called by several goroutines.
type Cluster struct {
	dir              string
	temporary        bool // dir is ours to remove
	bin              string
	account          account
	log              io.Writer // may be shared by the servers; nil: log files
	faultReplication bool
	nodes            []*Node
	lock             *os.File
	watchdog         *watchdog

	stopped  atomic.Bool
	stopOnce sync.Once
	stopErr  error

	mu     sync.Mutex
	leader *Node // as last seen
}

// Start starts a cluster and waits until every node accepts connections and, if
// it is a new one, every follower streams. ctx bounds the start only: the
// cluster runs until Stop.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if o.Followers < 0 {
		return nil, fmt.Errorf("a cluster of %d followers", o.Followers)
	}
	if o.FaultReplication && (!o.Faults || o.Dir != "") {
		return nil, errors.New("replication through links needs Faults and no Dir: followers started again would look for links that are gone")
	}
	if o.Hosts != nil && (len(o.Hosts) != o.Followers+1 || o.Dir != "" || o.Faults) {
		return nil, errors.New("a cluster on hosts has one for each node, and neither Dir nor Faults")
	}
	bin, err := FindBinaries(o.PGBin)
	if err != nil {
		return nil, err
	}
	account, err := serverAccount()
	if err != nil {
		return nil, err
	}
	c := &Cluster{bin: bin, account: account, log: shared(o.Log), faultReplication: o.FaultReplication}
	if err := c.start(ctx, o); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, o Options) error {
	if err := c.openFolder(ctx, o.Dir); err != nil {
		return err
	}
	ports, err := c.readManifest()
	if err != nil {
		return err
	}
	if ports != nil && len(ports) != o.Followers+1 {
		return fmt.Errorf("folder %s holds a cluster of %d followers, not %d", c.dir, len(ports)-1, o.Followers)
	}
	for i := range o.Followers + 1 {
		name := fmt.Sprintf("node%d", i+1)
		n := &Node{cluster: c, name: name, folder: filepath.Join(c.dir, name)}
		if o.Hosts != nil {
			n.host = o.Hosts[i]
		}
		c.nodes = append(c.nodes, n)
	}
	c.leader = c.nodes[0]
	if ports != nil {
		return c.reopen(ctx, o, ports)
	}
	return c.create(ctx, o)
}

// Stop ends every server at once, as in a crash, removes the temporary folder
// and waits until all that is done. Later calls return what the first returned.
func (c *Cluster) Stop() error {
	c.stopOnce.Do(func() { c.stopErr = c.stop() })
	return c.stopErr
}

func (c *Cluster) stop() error {
	c.stopped.Store(true)
	var servers []*server
	for _, n := range c.nodes {
		n.mu.Lock() // a launch under way is over now, and no later one begins
		if n.server != nil {
			servers = append(servers, n.server)
		}
		n.mu.Unlock()
		if n.link != nil {
			n.link.Close()
		}
	}
	var err error
	switch {
	case c.watchdog != nil:
		err = c.watchdog.finish()
	case c.temporary:
		err = os.RemoveAll(c.dir)
	}
	if c.lock != nil {
		c.lock.Close()
	}
	if err != nil {
		return err
	}
	for _, s := range servers {
		<-s.done
	}
	return nil
}

// Dir is the cluster's folder.
func (c *Cluster) Dir() string { return c.dir }

// Program is the path of one of PostgreSQL's programs, such as pgbench, in the
// folder the servers were taken from. It need not exist.
func (c *Cluster) Program(name string) string { return filepath.Join(c.bin, name) }

// Nodes are all nodes, in a fixed order; the first was the leader when the
// cluster was made.
func (c *Cluster) Nodes() []*Node { return slices.Clone(c.nodes) }

// Followers are all nodes but the Leader, in the order of Nodes, running or not.
func (c *Cluster) Followers() []*Node {
	leader := c.Leader()
	return slices.DeleteFunc(c.Nodes(), func(n *Node) bool { return n == leader })
}

// Leader asks the servers: it is the one that is not in recovery, of several
// that with the newest timeline. While there is none (killed, and nothing
// promoted yet), it is the one that was the leader last; never nil.
func (c *Cluster) Leader() *Node {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	timelines := make([]uint32, len(c.nodes)) // 0: does not answer, or follows
	_ = each(c.nodes, func(i int, n *Node) error {
		if n.Running() {
			timelines[i] = n.leads(ctx)
		}
		return nil
	})
	newest := slices.Max(timelines)
	c.mu.Lock()
	defer c.mu.Unlock()
	if newest > 0 {
		c.leader = c.nodes[slices.Index(timelines, newest)]
	}
	return c.leader
}

// each calls f for all nodes at once, with their index, waits for all the
// calls and joins their errors.
func each(nodes []*Node, f func(i int, n *Node) error) error {
	errs := make([]error, len(nodes))
	var calls sync.WaitGroup
	for i, n := range nodes {
		calls.Go(func() { errs[i] = f(i, n) })
	}
	calls.Wait()
	return errors.Join(errs...)
}

// shared makes w fit to be written to by several servers. A file already is.
func shared(w io.Writer) io.Writer {
	switch w := w.(type) {
	case nil, *os.File:
		return w
	default:
		return &lockedWriter{w: w}
	}
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
