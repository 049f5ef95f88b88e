package lagwatch

import (
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/topology"
)

// Need says which nodes to sample with urgency while a wait lasts. Make one
// with Node: -1 unless it is about one node.
type Need struct {
	Leader    bool // the leader
	Followers bool // every usable follower
	Node      int  // this node; -1 for none
	// Shown, if not 0, is for what the followers named above had shown by then: the
	// leader is to show it, too (topology.Node.Shown).
	Shown topology.Instant
	// Position is the one waited for, if it is one on the leader's log: the
	// nudger sees to it that it does not stay unflushed. The zero Position for
	// none.
	Position lsn.Position
}

// Wait is one call of Await. Cancel it in every case.
type Wait struct {
	w     *Watcher
	need  Need
	ready func(*topology.View) bool
	wake  func() // nil: waker
	waker reactor.Waker
	begun topology.Instant

	// Both under Watcher.mu.
	index   int  // in waits.open; -1 when over
	flushed bool // Position is known to be flushed on the leader
}

// Await calls wake once, as soon as a published View satisfies ready: from
// within Await if the present one does, else from one of the watcher's tasks or
// goroutines, which it must not hold up. ready runs there, too, under
// a lock, against immutable data; it must be pure and quick and must not call
// the Watcher. A View published later may not satisfy ready any more: who still
// needs it then calls Await again.
//
// To learn a position that covers a commit, wait for a sample of the leader
// begun after the commit was acknowledged, and see that the same node still
// leads on the same timeline: another leader's position says nothing about it.
func (w *Watcher) Await(need Need, ready func(*topology.View) bool, wake func()) *Wait {
	return w.await(&Wait{w: w, need: need, ready: ready, wake: wake})
}

// AwaitTask is Await for a task.
func (w *Watcher) AwaitTask(need Need, ready func(*topology.View) bool, t reactor.Waker) *Wait {
	return w.await(&Wait{w: w, need: need, ready: ready, waker: t})
}

func (w *Watcher) await(wait *Wait) *Wait {
	w.begun.Add(1)
	wait.begun, wait.index = topology.Now(), -1

	// Under the lock either this sees the View that a node is about to publish,
	// or that node sees this wait.
	w.mu.Lock()
	v := w.board.View()
	done := wait.ready(v)
	if !done {
		w.mu.waits.add(wait)
		w.hasten(v, wait)
	}
	w.mu.Unlock()
	if done {
		wait.rouse(nil)
		return wait
	}

	return wait
}

// rouse wakes who waits, from loop l; nil: from elsewhere.
func (wait *Wait) rouse(l *reactor.Loop) {
	wait.w.woken.Add(1)
	if wait.wake != nil {
		wait.wake()
	} else {
		wait.waker.WakeOn(l)
	}
}

// Cancel ends the wait. It may be called from any goroutine and again. When it
// returns, wake has been called, is just being called, or will not be.
func (wait *Wait) Cancel() {
	wait.w.mu.Lock()
	defer wait.w.mu.Unlock()
	if wait.index >= 0 {
		wait.w.mu.waits.remove(wait)
	}
}

// concerns reports whether need names node id.
func (need *Need) concerns(v *topology.View, id int) bool {
	return need.Node == id ||
		need.Leader && id == v.Leader ||
		need.Followers && follows(v, id)
}

func follows(v *topology.View, id int) bool {
	return v.Nodes[id].Role == topology.RoleFollower && v.Nodes[id].State == topology.Usable
}

// follows reports whether the wait is for any follower to apply a position.
func (wait *Wait) follows() bool {
	return wait.need.Followers && !wait.need.Position.IsZero() && wait.need.Shown == 0
}

// first says when a sample of node n can first be expected to end the wait.
func (wait *Wait) first(n *node) topology.Instant {
	if wait.follows() {
		return wait.begun + topology.Instant(n.behind)
	}
	return wait.begun
}

// wants reports whether node n is to be sampled for the wait.
func (wait *Wait) wants(v *topology.View, n *node) bool {
	need := &wait.need
	if need.Shown == 0 {
		return need.concerns(v, n.id)
	}
	if n.id != v.Leader {
		return need.concerns(v, n.id) && v.Nodes[n.id].Shown < need.Shown
	}
	// What was learnt of the leader a moment ago will do as a rule: followers are
	// behind it.
	if v.Nodes[n.id].Sampled+recent < wait.begun {
		return true
	}
	for i := range v.Nodes {
		f := &v.Nodes[i]
		if i != v.Leader && need.concerns(v, i) && f.Shown < need.Shown && f.Sampled >= need.Shown {
			return true
		}
	}
	return false
}

const recent = topology.Instant(2 * time.Millisecond)

// waits are the open waits.
type waits struct {
	open []*Wait
	turn topology.Instant // when a node was sampled last
}

func (s *waits) add(wait *Wait) {
	wait.index = len(s.open)
	s.open = append(s.open, wait)
}

func (s *waits) remove(wait *Wait) {
	last := s.open[len(s.open)-1]
	s.open[wait.index], last.index = last, wait.index
	s.open[len(s.open)-1] = nil
	s.open = s.open[:len(s.open)-1]
	wait.index = -1
}

// wanting looks through the waits that want node n sampled: when the first sample
// is worth it, when the youngest of them was begun, which is 0 if there are none,
// and whether other followers will do as well for all of them.
func (s *waits) wanting(v *topology.View, n *node) (first, youngest topology.Instant, any bool) {
	any = true
	for _, wait := range s.open {
		if !wait.wants(v, n) {
			continue
		}
		if at := wait.first(n); youngest == 0 || at < first {
			first = at
		}
		any = any && wait.follows()
		youngest = max(youngest, wait.begun)
	}
	return first, youngest, any
}

// takeReady removes and returns the waits that v satisfies.
func (s *waits) takeReady(v *topology.View) []*Wait {
	var ready []*Wait
	for i := 0; i < len(s.open); {
		wait := s.open[i]
		if !wait.ready(v) {
			i++
			continue
		}
		ready = append(ready, wait)
		s.remove(wait) // puts another one in its place
	}
	return ready
}

// stalled reports whether one begun before an instant waits for a position that
// the leader is not known to have flushed.
func (s *waits) stalled(v *topology.View, before topology.Instant) bool {
	if v.Leader == topology.NoLeader {
		return false
	}
	flushed := v.Nodes[v.Leader].Received
	for _, wait := range s.open {
		if p := wait.need.Position; wait.begun < before && !wait.flushed && p.LSN > flushed && p.Timeline == v.History.Timeline {
			return true
		}
	}
	return false
}
