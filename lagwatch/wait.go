package lagwatch

import (
	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// Need says which nodes to sample with urgency while a wait lasts. Make one
// with Node: -1 unless it is about one node.
type Need struct {
	Leader    bool // the leader
	Followers bool // every usable follower
	Node      int  // this node; -1 for none
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
	wake  func()
	begun topology.Instant

	// Both under Watcher.mu.
	index   int  // in waits.open; -1 when over
	flushed bool // Position is known to be flushed on the leader
}

// Await calls wake once, as soon as a published View satisfies ready: from
// within Await if the present one does, else from one of the watcher's
// goroutines, which it must not hold up. ready runs on those goroutines, under
// a lock, against immutable data; it must be pure and quick and must not call
// the Watcher. A View published later may not satisfy ready any more: who still
// needs it then calls Await again.
//
// To learn a position that covers a commit, wait for a sample of the leader
// begun after the commit was acknowledged, and see that the same node still
// leads on the same timeline: another leader's position says nothing about it.
func (w *Watcher) Await(need Need, ready func(*topology.View) bool, wake func()) *Wait {
	w.begun.Add(1)
	wait := &Wait{w: w, need: need, ready: ready, wake: wake, begun: topology.Now(), index: -1}

	// Under the lock either this sees the View that a node is about to publish,
	// or that node sees this wait.
	w.mu.Lock()
	v := w.board.View()
	done := ready(v)
	if !done {
		w.mu.waits.add(wait)
	}
	w.mu.Unlock()
	if done {
		w.woken.Add(1)
		wake()
		return wait
	}

	for _, n := range w.nodes {
		if need.concerns(v, n.id) {
			n.poke()
		}
	}
	if !need.Position.IsZero() {
		w.nudge.poke()
	}
	return wait
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

// concerns reports whether need makes node id urgent.
func (need Need) concerns(v *topology.View, id int) bool {
	return need.Node == id ||
		need.Leader && id == v.Leader ||
		need.Followers && follows(v, id)
}

func follows(v *topology.View, id int) bool {
	return v.Nodes[id].Role == topology.RoleFollower && v.Nodes[id].State == topology.Usable
}

// waits are the open waits, and how many of them make which node urgent.
type waits struct {
	open      []*Wait
	leader    int
	followers int
	node      []int
	youngest  topology.Instant // when the last of them was begun
}

func (s *waits) add(wait *Wait) {
	wait.index = len(s.open)
	s.open = append(s.open, wait)
	s.youngest = wait.begun
	s.count(wait.need, 1)
}

func (s *waits) remove(wait *Wait) {
	last := s.open[len(s.open)-1]
	s.open[wait.index], last.index = last, wait.index
	s.open[len(s.open)-1] = nil
	s.open = s.open[:len(s.open)-1]
	wait.index = -1
	s.count(wait.need, -1)
}

func (s *waits) count(need Need, by int) {
	if need.Leader {
		s.leader += by
	}
	if need.Followers {
		s.followers += by
	}
	if need.Node >= 0 {
		s.node[need.Node] += by
	}
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

// urgent reports whether somebody waits for node id.
func (s *waits) urgent(v *topology.View, id int) bool {
	return s.node[id] > 0 ||
		s.leader > 0 && id == v.Leader ||
		s.followers > 0 && follows(v, id)
}
