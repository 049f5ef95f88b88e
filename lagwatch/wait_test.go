package lagwatch

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// quiet is a Watcher of a leader and a follower that nothing samples but the
// test.
func quiet(t *testing.T) (*Watcher, func(id int, l lsn.LSN)) {
	t.Helper()
	w := New(topology.NewBoard([]string{"a:1", "b:1"}), engine(t), Options{})
	t.Cleanup(w.Close)
	say := func(id int, l lsn.LSN) {
		s := sample{system: ourSystem, segment: 16 << 20, begun: topology.Now(), at: lsn.Position{Timeline: 1, LSN: l}, received: l}
		if id == 0 {
			s.leader, s.history = true, lsn.History{Timeline: 1}
		}
		w.publish(func(g *ledger, v *topology.View) { g.sampled(v, id, s) })
	}
	say(0, 1)
	say(1, 1)
	say(1, 1)
	return w, say
}

func reaches(id int, l lsn.LSN) func(*topology.View) bool {
	return func(v *topology.View) bool { return v.Nodes[id].Position.LSN >= l }
}

func TestAwaitWakesOnce(t *testing.T) {
	w, say := quiet(t)
	woken := 0
	wait := w.Await(Need{Followers: true, Node: -1}, reaches(1, 10), func() { woken++ })
	for l := lsn.LSN(8); l < 20; l++ {
		say(1, l)
		if want := min(max(int(l)-9, 0), 1); woken != want {
			t.Fatalf("at %d woken %d times, want %d", l, woken, want)
		}
	}
	wait.Cancel()
	wait.Cancel()
	if s := w.Stat(); s.Waiting != 0 || s.Waits != 1 || s.Wakeups != 1 {
		t.Errorf("the counters say %+v", s)
	}
}

func TestAwaitLooksAtOnce(t *testing.T) {
	w, say := quiet(t)
	say(1, 10)
	woken := false
	wait := w.Await(Need{Node: 1}, reaches(1, 10), func() { woken = true })
	if !woken {
		t.Error("the present view satisfies, and nobody was woken")
	}
	wait.Cancel()
}

func TestCancelledWaitIsNotWoken(t *testing.T) {
	w, say := quiet(t)
	waits := make([]*Wait, 10)
	var woken [10]bool
	for i := range waits {
		waits[i] = w.Await(Need{Followers: true, Node: -1}, reaches(1, 10), func() { woken[i] = true })
	}
	for i := 1; i < 10; i += 2 {
		waits[i].Cancel()
	}
	say(1, 10)
	for i, woke := range woken {
		if cancelled := i%2 == 1; woke == cancelled {
			t.Errorf("wait %d: cancelled %v, woken %v", i, cancelled, woke)
		}
		waits[i].Cancel()
	}
}

// A wake may begin the next wait: it is called without the lock.
func TestWakeMayAwait(t *testing.T) {
	w, say := quiet(t)
	order := make([]int, 0, 2)
	var second *Wait
	first := w.Await(Need{Node: 1}, reaches(1, 10), func() {
		order = append(order, 1)
		second = w.Await(Need{Node: 1}, reaches(1, 20), func() { order = append(order, 2) })
	})
	say(1, 10)
	say(1, 20)
	first.Cancel()
	second.Cancel()
	if len(order) != 2 {
		t.Errorf("woken: %v", order)
	}
}

func TestSchedule(t *testing.T) {
	w, say := quiet(t)
	say(1, 1)
	const demand, interval = 200 * time.Microsecond, 250 * time.Millisecond
	// Both were sampled when the youngest wait was begun, the follower longer ago
	// as far as turns matter.
	expect := func(leader, follower, after time.Duration, why string) {
		t.Helper()
		now := topology.Now()
		if open := w.mu.waits.open; len(open) > 0 {
			now = open[len(open)-1].begun
		}
		for id, want := range []time.Duration{leader, follower} {
			n := w.nodes[id]
			n.ended = now
			if got := n.due(w.board.View(), now+topology.Instant(after)).Since(now); got != want {
				t.Errorf("%s: node %d pauses for %v, want %v", why, id, got, want)
			}
		}
	}
	not := func(*topology.View) bool { return false }
	somewhere := lsn.Position{Timeline: 1, LSN: 100}
	for _, c := range []struct {
		need             Need
		leader, follower time.Duration
	}{
		{Need{Node: -1}, interval, interval},
		{Need{Leader: true, Node: -1}, demand, interval},
		{Need{Followers: true, Node: -1}, interval, demand},
		{Need{Followers: true, Node: -1, Position: somewhere}, interval, demand},
		{Need{Node: 1}, interval, demand},
		{Need{Node: 0}, demand, interval},
		{Need{Leader: true, Node: 1, Shown: 1 << 60}, interval, demand}, // the leader was sampled a moment ago
		{Need{Leader: true, Node: 1, Shown: 1}, interval, interval},     // it is known
	} {
		w.publish(func(g *ledger, v *topology.View) { v.Nodes[1].Shown, v.Nodes[0].Sampled = 1, topology.Now()+1<<40 })
		wait := w.Await(c.need, not, nil)
		again := w.Await(c.need, not, nil)
		again.Cancel()
		expect(c.leader, c.follower, 0, fmt.Sprintf("%+v", c.need))
		wait.Cancel()
		expect(interval, interval, 0, "after the wait")
	}

	wait := w.Await(Need{Followers: true, Node: -1, Position: somewhere}, not, nil)
	defer wait.Cancel()
	f := w.nodes[1]
	f.behind = 700 * time.Microsecond
	expect(interval, f.behind, 0, "until it can be expected to be there")
	f.behind, f.took = 0, time.Millisecond
	expect(interval, 2*time.Millisecond, 0, "when a sample takes long")
	f.took, w.mu.waits.turn = 0, wait.begun+topology.Instant(50*time.Microsecond)
	expect(interval, 250*time.Microsecond, 0, "in its turn")
	w.mu.waits.turn = 0
	expect(interval, time.Millisecond, 8*time.Millisecond, "after a while")
	expect(interval, 10*time.Millisecond, time.Hour, "in a long stall")
	w.publish(func(g *ledger, v *topology.View) { g.failed(v, 1, "gone", 0) })
	expect(interval, interval, 0, "nobody hurries for a follower that is down")
	w.publish(func(g *ledger, v *topology.View) { g.failed(v, 0, "gone", 0) })
	expect(10*time.Millisecond, 10*time.Millisecond, 0, "without a leader")
}

// TestLearn: how far a follower is behind is found from both sides.
func TestLearn(t *testing.T) {
	const real = 900 * time.Microsecond
	n := &node{}
	for range 200 { // one wait at a time, sampled when it can be expected to be over
		wait := &Wait{need: Need{Followers: true, Node: -1, Position: lsn.Position{Timeline: 1, LSN: 1}}}
		for at := n.behind; ; at += 200 * time.Microsecond {
			if at >= real {
				n.learn(topology.Instant(at), []*Wait{wait}, nil)
				break
			}
			n.learn(topology.Instant(at), nil, []*Wait{wait})
		}
	}
	if n.behind < real*3/4 || n.behind > real*5/4 {
		t.Errorf("found to be behind by %v, not %v", n.behind, real)
	}
}

// Waits come, go and are satisfied at the same time: no wake-up is lost, none
// comes twice.
func TestAwaitUnderLoad(t *testing.T) {
	const sessions, each = 8, 300
	w, say := quiet(t)
	var position atomic.Uint64
	position.Store(1)
	stop := make(chan struct{})
	var publisher sync.WaitGroup
	publisher.Go(func() { // ends when stop is closed, waited for below
		for {
			select {
			case <-stop:
				return
			default:
				say(1, lsn.LSN(position.Add(1)))
			}
		}
	})
	var all sync.WaitGroup
	for range sessions {
		all.Go(func() {
			for range each {
				target := lsn.LSN(position.Load() + rand.Uint64N(4))
				var times atomic.Int32
				woken := make(chan struct{})
				wait := w.Await(Need{Followers: true, Node: -1}, reaches(1, target), func() {
					if times.Add(1) == 1 {
						close(woken)
					}
				})
				if rand.IntN(3) == 0 {
					wait.Cancel()
				} else {
					select {
					case <-woken:
					case <-time.After(10 * time.Second):
						t.Errorf("a wake-up was lost: position %d, waited for %d", position.Load(), target)
					}
				}
				wait.Cancel()
				if n := times.Load(); n > 1 {
					t.Errorf("woken %d times", n)
				}
			}
		})
	}
	all.Wait()
	close(stop)
	publisher.Wait()
	if s := w.Stat(); s.Waiting != 0 || s.Waits != sessions*each {
		t.Errorf("the counters say %+v", s)
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{0, 100, 1000} {
		b.Run(map[int]string{0: "waits=0", 100: "waits=100", 1000: "waits=1000"}[n], func(b *testing.B) {
			w := New(topology.NewBoard([]string{"a:1", "b:1", "c:1"}), engine(b), Options{})
			for range n {
				w.Await(Need{Followers: true, Node: -1}, reaches(1, 1<<60), nil)
			}
			s := sample{system: ourSystem, at: lsn.Position{Timeline: 1, LSN: 1}}
			b.ReportAllocs()
			for b.Loop() {
				s.begun++
				w.publish(func(g *ledger, v *topology.View) { g.sampled(v, 1, s) })
			}
		})
	}
}
