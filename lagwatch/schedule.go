package lagwatch

import (
	"time"

	"github.com/lsnproxy/lsnproxy/topology"
)

// schedule says when a node is sampled next. It is under Watcher.mu.
//
// Samples cost what they measure: on a busy machine they take the processor from
// the replay that they wait for. So a follower is sampled when it can be expected
// to have what is waited for, one follower after the other, and never so that
// samples take more than a third of the time.
type schedule struct {
	planned topology.Instant // of the next sample; 0 while one is under way
	anyway  bool             // it is not for somebody who waits
	ended   topology.Instant // of the last one
	took    time.Duration
	behind  time.Duration // how long after it is first waited for a follower has a position, as seen lately
}

const (
	spacing = 2 // a pause is at least so many times as long as the sample before it
	// The pause is at least this part of the age of the youngest wait: it makes no
	// wait much longer than it was, and a long stall costs little.
	slower  = 8
	slowest = 10 * time.Millisecond
)

// leaderless is the pause while there is no leader: whoever is promoted should be
// found at once.
const leaderless = 10 * time.Millisecond

// rest pauses until the next sample is due.
func (n *node) rest() {
	for n.alive() {
		now := topology.Now()
		at := n.plan(now)
		if at <= now {
			return
		}
		n.wait(time.Now().Add(at.Since(now)))
	}
}

// plan says when the next sample is due, and that it is under way if that is now.
func (n *node) plan(now topology.Instant) topology.Instant {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	v := n.w.board.View()
	anyway := n.anyway
	at := n.due(v, now)
	if anyway && n.planned != 0 && n.planned <= now { // a leader was found meanwhile
		at = n.planned
	}
	n.planned = at
	if at <= now {
		n.planned = 0
		if follows(v, n.id) {
			n.w.mu.waits.turn = now
		}
	}
	return at
}

// due says when a sample is to be taken if nobody begins to wait.
func (n *node) due(v *topology.View, now topology.Instant) topology.Instant {
	o := &n.w.o
	first, youngest, any := n.w.mu.waits.wanting(v, n)
	n.anyway = youngest == 0
	switch {
	case !n.anyway:
		return n.next(first, any, min(now.Since(youngest)/slower, slowest))
	case v.Leader == topology.NoLeader:
		return n.ended + topology.Instant(min(leaderless, o.Interval))
	default:
		return n.ended + topology.Instant(o.Interval)
	}
}

// next says when somebody who waits is served: not before an instant, and after a
// pause. With any, the followers take turns.
func (n *node) next(first topology.Instant, any bool, pause time.Duration) topology.Instant {
	o := &n.w.o
	pause = min(max(o.DemandInterval, spacing*n.took, pause), max(o.Interval, o.DemandInterval))
	at := max(first, n.ended+topology.Instant(pause))
	if any {
		at = max(at, n.w.mu.waits.turn+topology.Instant(pause))
	}
	return at
}

// hasten wakes the nodes that a new wait wants sampled earlier than they were
// going to be.
func (w *Watcher) hasten(v *topology.View, wait *Wait) {
	for _, n := range w.nodes {
		if n.planned == 0 || !wait.wants(v, n) {
			continue
		}
		if at := n.next(wait.first(n), wait.follows(), 0); at < n.planned {
			n.planned = at
			n.waker.Wake()
		}
	}
}

// pressed reports whether somebody waits for the node.
func (n *node) pressed() bool {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	_, youngest, _ := n.w.mu.waits.wanting(n.w.board.View(), n)
	return youngest != 0
}

// tell publishes a sample and learns from it how long to wait for the next ones.
func (n *node) tell(s sample) {
	ended := topology.Now()
	n.w.mu.Lock()
	n.ended, n.took = ended, ended.Since(s.begun)
	n.w.mu.Unlock()
	n.w.publishOn(n.loop, func(g *ledger, v *topology.View) { g.sampled(v, n.id, s) }, func(ready []*Wait) {
		if !s.leader {
			n.learn(s.begun, ready, n.w.mu.waits.open)
			n.w.doubtOthers(n)
		}
	})
}

// learn brings behind in line with a sample that was begun at an instant: the
// waits that it ended, and those that it did not.
func (n *node) learn(begun topology.Instant, ready, open []*Wait) {
	const most = topology.Instant(slowest)
	least := most
	for _, wait := range ready {
		if wait.follows() {
			least = min(least, begun-wait.begun)
		}
	}
	longest := topology.Instant(0)
	for _, wait := range open {
		if wait.follows() {
			longest = max(longest, min(begun-wait.begun, most))
		}
	}
	// A sample that came too late does not tell how much: so the next one comes
	// a little earlier each time.
	if earlier := max(0, time.Duration(least)*7/8); earlier < n.schedule.behind {
		n.schedule.behind -= (n.schedule.behind - earlier) / 8
	}
	if later := time.Duration(longest); later > n.schedule.behind {
		n.schedule.behind += (later - n.schedule.behind) / 4
	}
}

// doubtOthers lets what is expected of the other followers approach what was just
// seen of n, and pass it: one that is taken for slow is not asked any more, so it could
// never show that it is slow no longer, and all reads would go to the others.
func (w *Watcher) doubtOthers(n *node) {
	sooner := n.schedule.behind * 7 / 8
	for _, other := range w.nodes {
		if other != n && other.schedule.behind > sooner {
			other.schedule.behind -= (other.schedule.behind - sooner) / 16
		}
	}
}
