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
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Node is this proxy's part in the election.
type Node struct {
	options Options
	state   atomic.Pointer[State]
	stopped chan struct{}

	mu struct {
		sync.Mutex
		changed      chan struct{} // closed at the next change
		acknowledged uint64
		report       []byte
	}
}

// Start takes part. The proxy's part ends with Stop.
func Start(o Options) (*Node, error) {
	o.setDefaults()
	if err := o.Check(); err != nil {
		return nil, err
	}
	if o.Bind != "" {
		return nil, fmt.Errorf("bind %s: a cluster of proxies cannot be formed yet", o.Bind)
	}
	n := &Node{options: o, stopped: make(chan struct{})}
	n.mu.changed = make(chan struct{})
	self := Member{ID: o.ID, Version: o.Version, Client: o.Client, Cancel: o.Cancel, Health: Alive, Since: time.Now(), Votes: true}
	n.state.Store(&State{
		Self: self, Members: []Member{self}, Voters: []Voter{{ID: o.ID, Present: true}},
		Coordinator: o.ID, Coordinates: true, Term: 1, Quorum: true,
	})
	return n, nil
}

// Stop says goodbye to the others, gives the lease back and ends everything that
// Start began. Until ctx ends it waits for the others to hear of it.
func (n *Node) Stop(context.Context) {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.stopped:
	default:
		close(n.stopped)
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

// Decide replaces the decree: only on the coordinator, and only if from is the
// one that stands. It returns nil once a majority has recorded it and it stands
// here. If the epoch stays the same only the plan may differ; else it must be one
// more. After an error other than ErrNotCoordinator and ErrChanged it may stand
// nevertheless, now or later: look at State.
func (n *Node) Decide(_ context.Context, from, to Decree) error {
	if !to.follows(from) {
		return fmt.Errorf("a decree of epoch %d cannot follow one of epoch %d", to.Epoch, from.Epoch)
	}
	if len(to.Plan) > maxPlan {
		return fmt.Errorf("the plan has %d bytes; the most is %d", len(to.Plan), maxPlan)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	s := *n.state.Load()
	if !s.Decree.Equal(from) {
		return ErrChanged
	}
	s.Decree = to
	n.publish(&s)
	return nil
}

// Record adds a failover that is over to the log. One of the same epoch is
// replaced, so that it can be done again. Only on the coordinator.
func (n *Node) Record(_ context.Context, f Failover) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := *n.state.Load()
	s.Failovers = slices.DeleteFunc(slices.Clone(s.Failovers), func(o Failover) bool { return o.Epoch == f.Epoch })
	s.Failovers = append(s.Failovers, f)
	s.Failovers = s.Failovers[max(0, len(s.Failovers)-maxFailovers):]
	n.publish(&s)
	return nil
}

// MayWrite says whether something new may be written now, and under which
// epoch's decree. It costs one atomic load. The decree's leader is the only node
// that may be written to, and an answer that comes after until proves nothing:
// until then the lease must have been renewed, else the outcome is unknown.
func (n *Node) MayWrite(now time.Time) (epoch uint64, until time.Time, ok bool) {
	l := &n.state.Load().Lease
	return l.Epoch, l.Until, !l.Retiring && now.Before(l.Until)
}

// MayFinish says whether what began under the decree of epoch may still go on: a
// later decree may stand, but no other node is opened for writing before the
// lease has run out or Acknowledge has given it up. It costs one atomic load.
func (n *Node) MayFinish(epoch uint64, now time.Time) bool {
	l := &n.state.Load().Lease
	return l.Epoch == epoch && now.Before(l.Until)
}

// Acknowledge says that this proxy writes nothing any more under decrees before
// that of epoch: transactions are over, their connections are cut. The rest of an
// older lease is given up. The coordinator need not wait for it to run out then.
func (n *Node) Acknowledge(epoch uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.acknowledged = max(n.mu.acknowledged, epoch)
	s := *n.state.Load()
	n.publish(&s)
}

// IsFenced reports whether nobody writes any more under a decree before that of
// epoch: each proxy has acknowledged it, or every write lease it may have has
// surely run out. Only the coordinator knows; elsewhere it is false.
func (n *Node) IsFenced(epoch uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.state.Load()
	return epoch <= s.Decree.Epoch &&
		(n.mu.acknowledged >= epoch || s.Lease.Epoch >= epoch || !time.Now().Before(s.Lease.Until))
}

// Fenced waits until IsFenced.
func (n *Node) Fenced(ctx context.Context, epoch uint64) error {
	for !n.IsFenced(epoch) {
		if !n.State().Coordinates {
			return ErrNotCoordinator
		}
		select {
		case <-time.After(n.options.Heartbeat):
		case <-ctx.Done():
			return ctx.Err()
		case <-n.stopped:
			return ErrStopped
		}
	}
	return nil
}

// Report tells the coordinator what this proxy sees of the database: at once if it
// differs from the last, and with each renewal of the lease. At most MaxReport
// bytes; more are dropped with a warning.
func (n *Node) Report(body json.RawMessage) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.report = slices.Clone(body)
}

// Reports are the latest of every proxy, this one's too, by ID. Only the
// coordinator has them, and only those that came since it took office.
func (n *Node) Reports() []Report {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.report == nil {
		return nil
	}
	return []Report{{Member: n.options.ID, Votes: true, At: time.Now(), Body: n.mu.report}}
}

// AddVoter gives a member a vote. Only on the coordinator.
func (n *Node) AddVoter(_ context.Context, id string) error {
	return fmt.Errorf("%s is not a member", id)
}

// RemoveVoter takes a voter's vote away. Only on the coordinator.
func (n *Node) RemoveVoter(_ context.Context, id string) error {
	return fmt.Errorf("%s cannot go: it is the last voter", id)
}

// Forward sends a few bytes to Options.Received of another member, or of all
// others if to is "". It does not wait, and nobody learns whether they arrive.
func (n *Node) Forward(to string, body []byte) error {
	if to != "" && to != n.options.ID {
		return fmt.Errorf("%s is not a member", to)
	}
	return nil
}

// publish replaces the state; mu is held. An only proxy grants itself a lease
// without end, and one that has an end once its decree is replaced.
func (n *Node) publish(s *State) {
	d, l := &s.Decree, &s.Lease
	switch {
	case d.Leader != "":
		*l = Lease{Epoch: d.Epoch, Until: time.Now().Add(math.MaxInt64 / 2)}
	case n.mu.acknowledged >= d.Epoch:
		*l = Lease{}
	case l.Epoch != d.Epoch && !l.Retiring && !l.Until.IsZero():
		*l = Lease{Epoch: l.Epoch, Until: time.Now().Add(n.options.Lease), Retiring: true}
	}
	n.state.Store(s)
	close(n.mu.changed)
	n.mu.changed = make(chan struct{})
}
