// Package election decides who coordinates the proxies, which decree stands, and
// who holds a write lease: memberlist membership and messages carry etcd's raft
// core.
//
// Gossip informs, it never decides. A decree stands once a majority of the
// voters has it on disk. A proxy writes only under a lease of the decree that
// stands; docs/failover.md has the rules and why they suffice.
package election

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Node is this proxy's part in the election: core, and around it the clock, the
// disk and the network.
type Node struct {
	options Options
	began   time.Time // core's time is counted from here
	state   atomic.Pointer[State]

	acknowledged atomic.Uint64
	report       atomic.Pointer[[]byte]
	met          atomic.Bool   // gossip has news of the members
	poked        chan struct{} // one of these has changed

	inbox    chan []byte
	calls    chan func(*core)
	forwards chan outgoing
	stop     chan struct{}
	stopped  chan struct{} // the loop has ended

	gossip *gossip // nil: alone
	disk   *disk   // nil: alone

	mu struct {
		sync.Mutex
		changed chan struct{} // closed at the next change
		waiting map[requestID]chan<- error
		closing bool
	}
}

// How many messages wait for the loop; more are dropped, which raft is made for, and
// cancel requests are, too.
const (
	maxInbox    = 1024
	maxForwards = 64
)

// Start takes part. The proxy's part ends with Stop.
func Start(o Options) (*Node, error) {
	o.setDefaults()
	if err := o.Check(); err != nil {
		return nil, err
	}
	n := &Node{
		options: o, began: time.Now(), poked: make(chan struct{}, 1),
		inbox: make(chan []byte, maxInbox), calls: make(chan func(*core)), forwards: make(chan outgoing, maxForwards),
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	n.mu.changed, n.mu.waiting = make(chan struct{}), map[requestID]chan<- error{}
	k := kept{founding: founding{Number: randomNumber()}}
	if o.Bind != "" {
		var err error
		if n.disk, k, err = openDisk(o.Dir); err != nil {
			return nil, err
		}
	}
	self := peer{id: o.ID, number: k.founding.Number, incarnation: randomNumber()}
	c := newCore(o.settings(), self, k)
	if o.Bind != "" {
		m := meta{
			Version: o.Version, Client: o.Client, Cancel: o.Cancel, HTTP: o.HTTP,
			Number: self.number, Cluster: k.founding.Cluster, Incarnation: self.incarnation,
		}
		var err error
		if n.gossip, err = startGossip(o, m, n.deliver, n.meet); err != nil {
			n.disk.close()
			return nil, err
		}
	}
	if err := n.carryOut(c, c.step(0, nil)); err != nil {
		n.end(0)
		return nil, err
	}
	// Ended by Stop, which waits for it.
	go n.loop(c)
	return n, nil
}

func (o *Options) settings() settings {
	return settings{
		heartbeat: o.Heartbeat, election: o.Election, lease: o.Lease,
		hold:   o.Lease + time.Duration(float64(o.Lease)*o.Drift),
		voters: o.Voters, expect: o.Expect, alone: o.Bind == "", warn: o.Log.Warn,
	}
}

// deliver takes a message from the network.
func (n *Node) deliver(b []byte) {
	select {
	case n.inbox <- b:
	default:
	}
}

// poke has the loop look at what has changed.
func (n *Node) poke() {
	select {
	case n.poked <- struct{}{}:
	default:
	}
}

// meet has the loop look at the members.
func (n *Node) meet() {
	n.met.Store(true)
	n.poke()
}

// loop owns core. If the disk fails it ends: a proxy that cannot write down its
// vote has none, and its lease runs out.
func (n *Node) loop(c *core) {
	defer close(n.stopped)
	heartbeat := time.NewTicker(n.options.Heartbeat)
	defer heartbeat.Stop()
	for {
		var happened func()
		select {
		case b := <-n.inbox:
			happened = func() { c.receive(b) }
		case call := <-n.calls:
			happened = func() { call(c) }
		case m := <-n.forwards:
			happened = func() { c.forward(m) }
		case <-n.poked:
			happened = func() { n.lookAround(c) }
		case <-heartbeat.C:
		case <-n.stop:
			n.finish(nil)
			return
		}
		if err := n.carryOut(c, c.step(time.Since(n.began), happened)); err != nil {
			n.options.Log.Error("this proxy takes no part in elections any more", "error", err)
			n.finish(err)
			return
		}
	}
}

// lookAround hands what others have left for the loop to core.
func (n *Node) lookAround(c *core) {
	c.acknowledge(n.acknowledged.Load())
	if r := n.report.Load(); r != nil {
		c.tellReport(*r)
	}
	if n.met.Swap(false) {
		_, peers := n.gossip.picture()
		c.meet(peers)
	}
}

// carryOut does what a step wants done, in the order that makes it safe.
func (n *Node) carryOut(c *core, e effects) error {
	if n.disk != nil {
		if err := n.disk.write(e.keep); err != nil {
			return err
		}
	}
	if e.shown || e.renewed {
		n.show(c, e.shown)
	}
	for _, m := range e.send {
		n.gossip.send(m.to, m.body)
	}
	if n.gossip != nil {
		n.gossip.tell(c.self.cluster)
	}
	for _, a := range e.answered {
		n.answer(a)
	}
	for _, r := range e.received {
		if n.options.Received != nil {
			n.options.Received(r.from, r.body)
		}
	}
	return nil
}

func (n *Node) answer(a answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if waiting, ok := n.mu.waiting[a.to]; ok {
		delete(n.mu.waiting, a.to)
		waiting <- a.err // has room for one
	}
}

// show publishes a new picture of the state.
func (n *Node) show(c *core, changed bool) {
	n.state.Store(n.picture(c))
	if changed {
		n.wake()
	}
}

func (n *Node) wake() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.mu.changed)
	n.mu.changed = make(chan struct{})
}

// finish ends all that waits for the loop, and takes the lease back.
func (n *Node) finish(err error) {
	s := *n.State()
	s.Lease, s.Coordinates, s.Coordinator, s.Quorum = Lease{}, false, "", false
	s.Trouble = "stopped"
	if err != nil {
		s.Trouble = "the disk has failed: " + err.Error()
	}
	n.state.Store(&s)
	n.wake()
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, waiting := range n.mu.waiting {
		delete(n.mu.waiting, id)
		waiting <- ErrUnknown
	}
}

// call runs f in the loop, and reports whether it did.
func (n *Node) call(f func(*core)) bool {
	done := make(chan struct{})
	select {
	case n.calls <- func(c *core) { defer close(done); f(c) }:
		<-done
		return true
	case <-n.stopped:
		return false
	}
}

// request has core ask the voters for something, and waits for the outcome.
func (n *Node) request(ctx context.Context, f func(*core) requestID) error {
	outcome := make(chan error, 1)
	var id requestID
	ok := n.call(func(c *core) {
		id = f(c)
		n.mu.Lock()
		defer n.mu.Unlock()
		n.mu.waiting[id] = outcome
	})
	if !ok {
		return ErrStopped
	}
	select {
	case err := <-outcome:
		return err
	case <-ctx.Done():
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.mu.waiting, id)
	return ctx.Err()
}

// Stop gives back the lease and, if another can take it, the office of the
// coordinator, says goodbye to the others, and ends everything that Start began.
// Until ctx ends it waits for the others to hear of it.
func (n *Node) Stop(ctx context.Context) {
	n.mu.Lock()
	again := n.mu.closing
	n.mu.closing = true
	n.mu.Unlock()
	if again {
		<-n.stopped
		return
	}
	n.call((*core).release)
	if n.gossip != nil {
		n.handOver(ctx)
	}
	close(n.stop)
	<-n.stopped
	patience := time.Second
	if until, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(until))
	}
	n.end(patience)
}

// handOver waits until another coordinates, if this proxy does and another can.
func (n *Node) handOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, n.options.Election)
	defer cancel()
	others := false
	for _, v := range n.State().Voters {
		others = others || v.Present && v.ID != n.options.ID
	}
	for others {
		changed := n.Changed()
		s := n.State()
		if s.Coordinator != n.options.ID && s.Coordinator != "" || s.Trouble == "stopped" {
			return
		}
		select {
		case <-changed:
		case <-n.stopped:
			return
		case <-ctx.Done():
			return
		}
	}
}

// end closes the network and the disk.
func (n *Node) end(patience time.Duration) {
	if n.gossip != nil {
		n.gossip.close(patience)
	}
	if n.disk != nil {
		if err := n.disk.close(); err != nil {
			n.options.Log.Warn("closing the record of elections", "error", err)
		}
	}
}

// State is what this proxy knows now. It never waits.
func (n *Node) State() *State { return n.state.Load() }

// Changed gives a channel that is closed at the next change of the state. Ask for
// it before looking at the state, and no change is missed. Renewals of the lease
// are no change.
func (n *Node) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.changed
}
