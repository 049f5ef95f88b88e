package lagwatch

import (
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
	"github.com/lsnproxy/lsnproxy/topology"
)

// fast samples often, so that the tests are short.
var fast = Options{Interval: 20 * time.Millisecond}

// A follower is promoted while the old leader lives, writes on, and returns.
func TestPromotion(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 2, Settings: quietSettings})
	nodes := c.Nodes()
	old := dialNode(t, nodes[0])
	exec(t, old, "CREATE TABLE kept (k bigint PRIMARY KEY)")
	// What the documentation of Options asks for, and less.
	exec(t, old, "CREATE ROLE watch LOGIN REPLICATION; GRANT pg_monitor TO watch")
	exec(t, old, "CREATE ROLE reader LOGIN; GRANT pg_monitor, pg_read_server_files TO reader; GRANT EXECUTE ON FUNCTION pg_read_file(text) TO reader")
	exec(t, old, "CREATE ROLE nobody LOGIN")

	o := fast
	o.User = "watch"
	w := watch(t, o, nodes...)
	w.shows("leader 0: usable usable usable")
	kept := w.token()
	for id := range nodes[1:] {
		need, ready := covered(id+1, kept)
		w.until("the followers have it all", need, ready)
	}

	goOn := hush(t, nodes[0])
	must(t, nodes[1].Promote(soon(t)))
	v := w.shows("leader 1: superseded usable usable")
	w.told(1, "leader found", nodes[1].Addr(), "timeline=2")
	w.told(0, "lacks pg_monitor")
	if v.History.Timeline != 2 || !v.History.Known() || !v.History.Contains(kept) {
		t.Errorf("the history is %v, and what was kept %v", v.History, kept)
	}
	// pg_control_checkpoint() still says 1: the timeline must come from elsewhere.
	if stale := get[int](t, dialNode(t, nodes[1]), "SELECT timeline_id FROM pg_control_checkpoint()"); stale != 1 {
		t.Logf("control: pg_control_checkpoint() says %d already", stale)
	}

	// The old leader's writes are lost, and the follower that has them diverged.
	exec(t, old, "INSERT INTO kept VALUES (1)")
	lost := lsn.Position{Timeline: 1, LSN: lsn.Normalize(at(t, old, "pg_current_wal_insert_lsn"), 16<<20)}
	v = w.until("the follower has replayed what is lost", Need{Node: -1}, func(v *topology.View) bool {
		return picture(v) == "leader 1: superseded usable diverged" && v.Nodes[2].Position.LSN >= lost.LSN
	})
	exec(t, dialNode(t, nodes[1]), "SELECT pg_logical_emit_message(true, '', repeat('x', 10000))")
	now := w.token()
	if now.LSN <= lost.LSN || v.History.Contains(lost) || v.History.Covers(now, lost) {
		t.Errorf("%v of the old leader is covered by %v of the new one, on %v", lost, now, v.History)
	}
	if n := v.Nodes[2]; n.Position.LSN < kept.LSN || v.Proves(&n, 0, kept) {
		t.Errorf("control: a diverged follower at %v, which has %v, proves it", n.Position, kept)
	}

	t.Run("seen for the first time", func(t *testing.T) { firstSight(t, nodes) })
	t.Run("history from the file", func(t *testing.T) {
		o := fast
		o.User = "reader"
		w := watch(t, o, nodes...)
		if v := w.shows("leader 1: superseded usable diverged"); !v.History.Contains(kept) {
			t.Errorf("the history is %v", v.History)
		}
	})
	t.Run("history that cannot be read", func(t *testing.T) {
		o := fast
		o.User = "nobody"
		w := watch(t, o, nodes...)
		v := w.shows("leader 1: superseded usable diverged")
		if v.History.Known() || v.History.Contains(kept) {
			t.Errorf("the history is %v", v.History)
		}
		w.told(1, "timeline history cannot be read", nodes[1].Addr())
		w.told(len(nodes), "lacks pg_monitor")
	})

	goOn()
	must(t, nodes[0].Restart(soon(t)))
	w.shows("leader 1: superseded usable diverged")
	must(t, nodes[0].Stop(pgcluster.Fast))
	w.shows("leader 1: down usable diverged")
}

// firstSight has new watchers, which remember nothing, look at an old and a new
// leader, in either order. None ever follows the old one.
func firstSight(t *testing.T, nodes []*pgcluster.Node) {
	for _, order := range [][]*pgcluster.Node{{nodes[0], nodes[1]}, {nodes[1], nodes[0]}} {
		oldLeader := 0
		if order[1] == nodes[0] {
			oldLeader = 1
		}
		for range 5 {
			w := watch(t, fast, order...)
			v := w.until("a leader is found", Need{Node: -1}, func(v *topology.View) bool { return v.Leader != topology.NoLeader })
			if v.Leader == oldLeader {
				t.Errorf("the old leader was followed: %s", picture(v))
			}
			w.Close()
		}
	}
}

// The leader dies, one follower takes over and the other follows it; then the
// other is promoted too, to the same timeline as the first.
func TestFailoverAndDispute(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 3, Settings: quietSettings})
	nodes := c.Nodes()
	exec(t, dialNode(t, nodes[0]), "CREATE TABLE kept (k bigint PRIMARY KEY)")
	w := watch(t, fast, nodes...)
	w.shows("leader 0: usable usable usable usable")
	token := w.token()
	for id := range nodes[1:] {
		need, ready := covered(id+1, token)
		w.until("the followers have it all", need, ready)
	}

	must(t, nodes[0].Kill())
	w.shows("no leader: down usable usable usable")
	must(t, nodes[1].Promote(soon(t)))
	w.shows("leader 1: down usable usable usable")
	must(t, nodes[3].Follow(soon(t), nodes[1]))
	exec(t, dialNode(t, nodes[1]), "INSERT INTO kept VALUES (1)")
	written := w.token()
	if written.Timeline != 2 {
		t.Errorf("the token of a write on the new leader is %v", written)
	}
	need, ready := covered(3, written)
	v := w.until("the repointed follower has a write of the new leader", need, ready)
	if got := v.Nodes[3].Position.Timeline; got != 2 {
		t.Errorf("it is on timeline %d", got)
	}

	// Without a receiver only the last checkpoint tells of a timeline, an old one.
	must(t, nodes[1].Stop(pgcluster.Fast))
	w.shows("no leader: down down usable usable")
	follower := dialNode(t, nodes[3])
	for end := time.Now().Add(10 * time.Second); get[int](t, follower, "SELECT count(*) FROM pg_stat_wal_receiver") > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if stale := get[int](t, follower, "SELECT timeline_id FROM pg_control_checkpoint()"); stale != 1 {
		t.Logf("control: pg_control_checkpoint() says %d already", stale)
	}
	since := topology.Now()
	v = w.until("the follower is sampled without a receiver", Need{Node: -1}, func(v *topology.View) bool { return v.Nodes[3].Sampled > since })
	if n := v.Nodes[3]; n.State != topology.Usable || n.Position.Timeline != 2 {
		t.Errorf("without a receiver the follower is %v at %v: %s", n.State, n.Position, n.Detail)
	}
	must(t, nodes[1].Start(soon(t)))
	w.shows("leader 1: down usable usable usable")

	// Two leaders of timeline 2: nobody may write, also when one of them is lost.
	must(t, nodes[2].Promote(soon(t)))
	w.shows("no leader: down superseded superseded usable")
	w.told(1, "no leader", "not the only node that claims to lead timeline 2")
	must(t, nodes[2].Stop(pgcluster.Fast))
	w.shows("no leader: down superseded down usable")
	if v, changed := w.within(200*time.Millisecond, Need{Leader: true, Node: -1}, func(v *topology.View) bool {
		return v.Leader != topology.NoLeader
	}); changed {
		t.Errorf("one of two claimants was lost, and the other followed: %s", picture(v))
	}
}

// One address leads into another cluster.
func TestForeignNode(t *testing.T) {
	ours := pgtest.Start(t, pgcluster.Options{Followers: 1, Settings: quietSettings})
	other := pgtest.Start(t, pgcluster.Options{Settings: quietSettings})
	w := watch(t, fast, append(other.Nodes(), ours.Nodes()...)...)
	v := w.shows("leader 1: foreign usable usable")
	system := get[int64](t, dialNode(t, ours.Leader()), "SELECT system_identifier FROM pg_control_system()")
	if v.System != uint64(system) {
		t.Errorf("the system is %d, want %d", v.System, system)
	}
	must(t, ours.Leader().Stop(pgcluster.Fast))
	w.shows("no leader: foreign down usable")
}
