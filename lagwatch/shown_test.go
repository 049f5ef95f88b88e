package lagwatch

import (
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
	"github.com/lsnproxy/lsnproxy/topology"
)

// TestShown: what followers had shown is known to be shown by the leader as far as
// its snapshot goes, and not any more when another leads.
func TestShown(t *testing.T) {
	w, _ := quiet(t)
	clock := topology.Now()
	say := func(id int, leader bool, timeline uint32, xmax uint64, running ...uint64) topology.Instant {
		clock = max(clock+1, topology.Now())
		s := sample{
			system: ourSystem, segment: 16 << 20, begun: clock, leader: leader,
			at: lsn.Position{Timeline: timeline, LSN: 50}, received: 50, snapshot: topology.Snapshot{Xmax: xmax, Running: running},
		}
		if leader {
			s.history = lsn.History{Timeline: timeline}
		}
		w.publish(func(g *ledger, v *topology.View) { g.sampled(v, id, s) })
		return s.begun
	}
	shows := func(what string, by topology.Instant) {
		t.Helper()
		if got := w.board.View().Nodes[1].Shown; got != by {
			t.Errorf("%s: shown by %d, want %d", what, got, by)
		}
	}
	say(0, true, 1, 100, 90)
	first := say(1, false, 1, 90)
	shows("all is over on the leader", first)
	second := say(1, false, 1, 95)
	shows("one runs", first)
	w.publish(func(g *ledger, v *topology.View) { g.cleared(v, 1, second, lastLeader{0, 1}) })
	shows("it does not show it", second)
	third := say(1, false, 1, 105)
	shows("the leader has not come so far", second)
	w.publish(func(g *ledger, v *topology.View) { g.cleared(v, 1, third, lastLeader{0, 2}) })
	shows("as another leader had it", second)
	say(0, true, 1, 105)
	shows("now it has", third)
	say(0, true, 2, 105)
	shows("on another timeline", 0)
}

// TestShownByServers: the leader shows what a follower shows, but for a commit that
// hangs there, and a transaction that just runs changes nothing.
func TestShownByServers(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1, Settings: quietSettings})
	nodes := c.Nodes()
	w := watch(t, Options{Interval: never}, nodes...)
	w.shows("leader 0: usable usable")
	leader, follower, long := dialNode(t, nodes[0]), dialNode(t, nodes[1]), dialNode(t, nodes[0])
	exec(t, leader, "CREATE TABLE seen (i int)")
	exec(t, long, "BEGIN; INSERT INTO seen VALUES (0)") // it never ends
	shown := func(within time.Duration) bool {
		t.Helper()
		by := topology.Now()
		ready := func(v *topology.View) bool { return v.Nodes[1].Shown >= by }
		_, ok := w.within(within, Need{Leader: true, Node: 1, Shown: by}, ready)
		return ok
	}
	exec(t, leader, "INSERT INTO seen VALUES (1)")
	if !shown(time.Minute) {
		t.Error("the follower shows no more than the leader, and that is not found")
	}
	must(t, nodes[0].Set(soon(t), "synchronous_standby_names", "nobody"))
	hung := make(chan error, 1)
	go func() { // ends when the setting is taken back; waited for below
		_, err := leader.Exec(soon(t), "INSERT INTO seen VALUES (2)")
		hung <- err
	}()
	pgtest.Eventually(t, "the row on the follower", func() bool { return get[int](t, follower, "SELECT count(*) FROM seen") == 2 })
	if shown(100 * time.Millisecond) {
		t.Error("the commit hangs, and the leader is said to show it")
	}
	must(t, nodes[0].Set(soon(t), "synchronous_standby_names", ""))
	must(t, <-hung)
	if !shown(time.Minute) {
		t.Error("the commit is over, and that is not found")
	}
}
