// Package lagwatch watches the servers and is the only writer of the topology.
//
// It samples every node's role, timeline and position over connections of its
// own, decides who leads and who may serve, and publishes that as a View. Who
// needs a position that no View shows yet says so with Await: the nodes that
// matter are then sampled with urgency, and the waiter is woken by the first
// View that satisfies it.
package lagwatch

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/topology"
)

// Options say how to watch. The zero value of a duration means its default.
type Options struct {
	// User, Password and Database are the monitoring login, the same on every
	// node. It needs pg_monitor (to see a follower's timeline) and REPLICATION or
	// the right to pg_read_file (to read the timeline history); all else is
	// allowed to everybody. An empty password is for trust and peer.
	User, Password, Database string
	// TLS is used on every TCP connection; nil for none. Without a ServerName a
	// node's certificate is checked against the node's host.
	TLS *tls.Config

	Interval       time.Duration // pause between samples of a node; 250ms, and at most a quarter of MaxLag
	DemandInterval time.Duration // least pause while somebody waits; 200us
	Timeout        time.Duration // to connect, and for each answer: a node that takes longer is down; 2s
	MaxLagBytes    uint64        // a follower further behind is dropped; 0 for no limit
	MaxLag         time.Duration // the same in time; 0 for no limit
	Weights        []uint        // by node: its part of the reads that any follower may serve; nil: all alike
	SlowStart      time.Duration // in which the part of a follower that comes back grows to that; 0: at once
	NudgeAfter     time.Duration // how long a wait stalls before the leader is made to flush; 5ms
	Log            *slog.Logger  // one line per change of a role, a state or the leader; nil for none
}

// withDefaults fills in what was left out.
func (o Options) withDefaults() Options {
	o.Interval = cmp.Or(o.Interval, 250*time.Millisecond)
	if o.MaxLag > 0 {
		// Lag in time is told to within one pause between samples.
		o.Interval = max(min(o.Interval, o.MaxLag/4), time.Millisecond)
	}
	o.DemandInterval = cmp.Or(o.DemandInterval, 200*time.Microsecond)
	o.Timeout = cmp.Or(o.Timeout, 2*time.Second)
	o.NudgeAfter = cmp.Or(o.NudgeAfter, 5*time.Millisecond)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Watcher samples the nodes of a Board.
type Watcher struct {
	o     Options
	board *topology.Board
	nodes []*node
	nudge nudger

	ctx    context.Context
	cancel context.CancelFunc
	all    sync.WaitGroup // every goroutine

	// mu orders publications: who holds it may change ledger and board and sees
	// every wait that was begun before. Nothing blocks under it; wakes are called
	// and log lines written after it was released.
	mu struct {
		sync.Mutex
		ledger *ledger
		waits  waits
	}

	begun, woken atomic.Uint64 // waits, for Stat
}

// New makes a Watcher of board's nodes, which it samples on the loops of engine.
// It does nothing before Start.
func New(board *topology.Board, engine *reactor.Engine, o Options) *Watcher {
	w := &Watcher{o: o.withDefaults(), board: board}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	v := board.View()
	loops := engine.Loops()
	for i, n := range v.Nodes {
		w.nodes = append(w.nodes, &node{w: w, id: n.ID, address: n.Address, loop: loops[i%len(loops)]})
	}
	gap := w.o.Interval
	if w.o.MaxLag > 0 {
		gap = w.o.MaxLag / 64 // so that the trail spans four times the limit
	}
	w.mu.ledger = newLedger(len(v.Nodes), limits{
		bytes: w.o.MaxLagBytes, time: w.o.MaxLag,
		calm: 2 * w.o.Interval, // three samples in a row at the slow pace
	}, trail{gap: gap})
	w.mu.ledger.shares = shares{weights: o.Weights, slow: o.SlowStart}
	w.nudge = nudger{w: w, kick: make(chan struct{}, 1)}
	return w
}

// Start begins to sample. It returns at once and must be called at most once.
func (w *Watcher) Start() {
	// A task for each node, and the nudger's goroutine; Close cancels ctx, which
	// ends them all, and waits.
	for _, n := range w.nodes {
		w.all.Add(1)
		if !n.loop.Post(func() { n.loop.Start(n) }) { // the engine has ended
			w.all.Done()
		}
	}
	w.all.Go(func() { w.nudge.run(w.ctx) })
}

// Close ends all sampling and returns when every goroutine and connection is
// gone. The board keeps its last View. Waits that are still open are not woken.
// It must not be called on a loop.
func (w *Watcher) Close() {
	w.cancel()
	for _, n := range w.nodes {
		n.loop.Post(n.halt)
	}
	w.all.Wait()
}

// Rule makes the proxies' decree decide who leads. Until it is called, the nodes
// themselves do: the only one that claims the highest timeline seen.
func (w *Watcher) Rule(r Ruling) {
	w.publish(func(g *ledger, v *topology.View) { g.rule(v, r) })
}

// publish lets change alter the View, wakes whom the new View satisfies and logs
// what is different.
func (w *Watcher) publish(change func(g *ledger, v *topology.View)) {
	w.publishOn(nil, change, func([]*Wait) {})
}

// publishOn is publish on a loop, and has learn look at the waits that the View
// has ended, under the lock.
func (w *Watcher) publishOn(l *reactor.Loop, change func(g *ledger, v *topology.View), learn func(ready []*Wait)) {
	w.mu.Lock()
	before := w.board.View()
	after := w.board.Update(func(v *topology.View) { change(w.mu.ledger, v) })
	ready := w.mu.waits.takeReady(after)
	learn(ready)
	stalled := w.mu.waits.stalled(after, topology.Now()-topology.Instant(w.o.NudgeAfter))
	w.mu.Unlock()

	for _, wait := range ready {
		wait.rouse(l)
	}
	if stalled || before.Leader != after.Leader { // before, there was none to nudge
		w.nudge.poke()
	}
	w.report(before, after)
}

// report logs the difference between two views.
func (w *Watcher) report(before, after *topology.View) {
	for i := range after.Nodes {
		was, is := &before.Nodes[i], &after.Nodes[i]
		if was.Role == is.Role && was.State == is.State || was.State == topology.Unknown && is.State == topology.Unknown {
			continue
		}
		level := slog.LevelInfo
		if is.State != topology.Usable {
			level = slog.LevelWarn
		}
		w.o.Log.Log(context.Background(), level, "node changed", "node", is.Address,
			"role", is.Role.String(), "state", is.State.String(), "was", was.State.String(),
			"why", is.Detail, "position", is.Position.String())
	}
	if was, is := before.System, after.System; was != is {
		w.o.Log.Info("system found", "system", is, "was", was)
	}
	switch was, is := before.Leader, after.Leader; {
	case was == is && before.Epoch == after.Epoch:
	case is != topology.NoLeader:
		w.o.Log.Info("leader found", "node", after.Nodes[is].Address, "timeline", after.History.Timeline,
			"position", after.Nodes[is].Position.String(), "epoch", after.Epoch)
	case was != topology.NoLeader:
		w.o.Log.Warn("no leader", "was", before.Nodes[was].Address, "why", after.Nodes[was].Detail, "epoch", after.Epoch)
	}
}

// NodeStat is what metrics and the console show of one node.
type NodeStat struct {
	topology.Node
	Samples, Failures uint64
}

// Stat is a snapshot for metrics. Counters grow from 0 at New.
type Stat struct {
	Nodes    []NodeStat
	Timeline uint32    // the highest seen; a leader on a lower one is refused
	Waiting  int       // waits open now
	Waits    uint64    // waits ever begun
	Wakeups  uint64    // waits that ended in a wake-up
	Nudges   uint64    // times the leader was made to flush
	Replicas []Replica // of the leader, not older than some seconds
	// NudgeFailures counts nudges that could not be carried out.
	NudgeFailures uint64
}

// Stat returns a snapshot.
func (w *Watcher) Stat() Stat {
	v := w.board.View()
	s := Stat{
		Waits: w.begun.Load(), Wakeups: w.woken.Load(),
		Nudges: w.nudge.done.Load(), NudgeFailures: w.nudge.failed.Load(),
	}
	for i, n := range w.nodes {
		s.Nodes = append(s.Nodes, NodeStat{Node: v.Nodes[i], Samples: n.samples.Load(), Failures: n.failures.Load()})
	}
	if v.Leader != topology.NoLeader {
		if replicas := w.nodes[v.Leader].replicas.Load(); replicas != nil {
			s.Replicas = *replicas
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s.Timeline = w.mu.ledger.highest
	s.Waiting = len(w.mu.waits.open)
	return s
}
