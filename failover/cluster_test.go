package failover

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lsnproxy/lsnproxy/election"
	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/topology"
)

var two = pgcluster.Options{Followers: 2}

// The leader is killed. A follower leads, the other one follows it, the record says so,
// and the old leader is made read-only when it returns.
func TestKill(t *testing.T) {
	w := watch(t, quick(), two)
	w.rows(0, 100)
	must(t, w.cluster.WaitStreaming(soon(t)))
	old := w.nodes[0].Addr()
	must(t, w.nodes[0].Kill())
	w.decrees(1, 2)
	w.shows(1, "SELECT count(*) FROM kept", "100")
	w.rows(1, 1)
	w.shows(2, "SELECT count(*) FROM kept", "101")
	w.shows(2, "SELECT received_tli FROM pg_stat_wal_receiver", "2")

	want := fmt.Sprintf("(%s,%s,failover,0)", old, w.nodes[1].Addr())
	const record = `SELECT string_agg(ROW(o.address, n.address, trigger, lag_at_promotion)::text, ' ' ORDER BY epoch)
 FROM lsnproxy.failover_log JOIN lsnproxy.replication_node o ON o.id = old_leader_id JOIN lsnproxy.replication_node n ON n.id = new_leader_id`
	w.shows(2, record, want)
	w.shows(2, "SELECT string_agg(role, ' ' ORDER BY address = '"+old+"', role DESC) FROM lsnproxy.replication_node", "leader follower unknown")
	w.shows(2, "SELECT count(*) FROM lsnproxy.leader_lease JOIN lsnproxy.replication_node n ON n.id = leader_id WHERE role = 'leader'", "1")
	if f := w.decider.Node.State().Failovers; len(f) != 1 || f[0].New != w.nodes[1].Addr() || f[0].Old != old || f[0].Trigger != "failover" {
		t.Errorf("the decrees' log: %+v", f)
	}

	must(t, w.nodes[0].Start(soon(t)))
	w.shows(0, "SELECT current_setting('default_transaction_read_only')", "on")
	w.decrees(1, 2)

	// A proxy that was cut off comes back and tells what it has acknowledged.
	branch := w.decider.Node.State().Failovers[0].Branch
	w.decider.say("late", Sight{Acked: []lsn.Position{{Timeline: 1, LSN: branch + 77}, {Timeline: 2, LSN: branch + 777}}})
	w.shows(2, record, fmt.Sprintf("(%s,%s,failover,77)", old, w.nodes[1].Addr()))
	if f := w.decider.Node.State().Failovers; len(f) != 1 || f[0].LostAtMost != 77 {
		t.Errorf("the decrees' log: %+v", f)
	}
}

// A leader that the other proxies reach is not lost.
func TestOthersReachIt(t *testing.T) {
	w := watch(t, quick(), two)
	seen := Sight{Leader: w.nodes[0].Addr(), Timeline: 1}
	w.decider.say("second", seen)
	w.decider.say("third", seen)
	must(t, w.nodes[0].Kill())
	eventually(t, "it is suspected", func() bool { return w.Status().Phase == Suspect })
	seen.Silent = time.Second
	w.decider.say("second", seen)
	w.decrees(1, 2)
}

// A promotion that comes late, when the node was given another leader or another
// coordinator is about to choose, does nothing.
func TestLatePromotion(t *testing.T) {
	w := watch(t, quick(), two)
	must(t, w.cluster.WaitStreaming(soon(t)))
	address := w.nodes[1].Addr()
	late := func(n Node) {
		t.Helper()
		must(t, w.with(soon(t), address, func(conn *pgx.Conn) error { return open(soon(t), conn, 1, &n) }))
		if got := w.get(1, "SELECT pg_is_in_recovery()"); got != "true" {
			t.Errorf("promoted in an epoch that is over: in recovery %s", got)
		}
	}
	late(Node{})
	w.rows(0, 1)
	w.received(1)
	w.shows(1, "SELECT count(*) FROM kept", "1")
	before := Node{Replayed: w.probe(address).node().Replayed, Refused: map[Do]string{Quiet: "denied"}}
	w.rows(0, 1)
	w.shows(1, "SELECT count(*) FROM kept", "2")
	late(before)
	must(t, w.with(soon(t), address, func(conn *pgx.Conn) error {
		return redirect(soon(t), conn, func(c conninfo) (conninfo, error) { return c.at(quietedIn(12), ""), nil })
	}))
	late(Node{})
}

// The leader hangs and wakes up after another one was promoted.
func TestFreeze(t *testing.T) {
	w := watch(t, quick(), two)
	w.rows(0, 100)
	must(t, w.cluster.WaitStreaming(soon(t)))
	must(t, w.nodes[0].Freeze())
	w.decrees(1, 2)
	must(t, w.nodes[0].Thaw())
	w.shows(0, "SELECT current_setting('default_transaction_read_only')", "on")
	w.rows(1, 1)
	w.shows(2, "SELECT count(*) FROM kept", "101")
}

// Whoever has received most is promoted, not whoever has replayed most; what it has
// received is replayed first, though it was to be delayed or is paused.
func TestFurthest(t *testing.T) {
	w := watch(t, quick(), two)
	w.exec(0, "CREATE TABLE kept (k int)")
	must(t, w.cluster.WaitStreaming(soon(t)))
	w.deaf(1)
	must(t, w.nodes[2].PauseReplay(soon(t)))
	must(t, w.nodes[2].SetApplyDelay(soon(t), time.Hour))
	w.rows(0, 100)
	w.received(2)
	must(t, w.nodes[0].Kill())
	w.decrees(2, 2)
	w.shows(2, "SELECT count(*) FROM kept", "100")
	w.hears(2)
	w.shows(1, "SELECT count(*) FROM kept", "100")
}

// Nobody is promoted who lacks more than is allowed; the leader's return ends that.
func TestMaxLost(t *testing.T) {
	o := quick()
	o.MaxLost = 1000
	w := watch(t, o, two)
	must(t, w.cluster.WaitStreaming(soon(t)))
	w.deaf(1)
	w.deaf(2)
	w.rows(0, 1000)
	end := w.get(0, "SELECT pg_current_wal_flush_lsn()")
	eventually(t, "the proxy has seen what was written", func() bool { return w.Status().Nodes[0].Received.String() == end })
	must(t, w.nodes[0].Kill())
	w.blocks("failover.max_lost_bytes is 1000")
	must(t, w.nodes[0].Start(soon(t)))
	w.decrees(0, 1)
	w.hears(0)
	w.shows(1, "SELECT count(*) FROM kept", "1000")
	w.shows(2, "SELECT count(*) FROM kept", "1000")
}

// With durability sync only a synchronous standby is promoted, and the new leader asks
// for as many.
func TestSync(t *testing.T) {
	o := quick()
	o.Sync = true
	w := watch(t, o, two)
	must(t, w.nodes[0].Set(soon(t), "synchronous_standby_names", "ANY 1 (node2, node3)"))
	w.synchronous(0, 2)
	w.deaf(1)
	w.rows(0, 100)
	w.received(2)
	must(t, w.nodes[0].Kill())
	w.decrees(2, 2)
	w.shows(2, "SELECT current_setting('synchronous_standby_names')", `ANY 1 ("node2", "node1")`)
	w.hears(2)
	w.rows(2, 1)
	w.shows(1, "SELECT count(*) FROM kept", "101")

	// Now only node2 is left of the two that may have the last commit.
	w.synchronous(2, 1)
	must(t, w.nodes[2].Kill())
	w.blocks("2 are needed")
	must(t, w.nodes[2].Start(soon(t)))
	w.decrees(2, 2)
}

// synchronous waits until the proxy has seen so many synchronous standbys of a leader.
func (w *watched) synchronous(leader, n int) {
	w.t.Helper()
	eventually(w.t, "the proxy has seen the synchronous standbys", func() bool {
		return len(w.probe(w.nodes[leader].Addr()).sight(1, 0, 0, time.Hour).Sync.Now) == n
	})
}

// A role with no more rights than it needs, and with fewer.
func TestRights(t *testing.T) {
	o := quick()
	o.User = "failover"
	o.NoRecord = true
	cluster := two
	w := &watched{t: t, options: o}
	admin := watch(t, quick(), cluster)
	admin.exec(0, "CREATE ROLE failover LOGIN REPLICATION IN ROLE pg_monitor")
	must(t, admin.cluster.WaitStreaming(soon(t)))
	admin.Close()
	w.cluster, w.nodes = admin.cluster, admin.nodes
	w.run()
	w.decrees(0, 1)
	must(t, w.nodes[0].Kill())
	w.blocks("permission denied for function pg_promote")
	must(t, w.nodes[0].Start(soon(t)))
	w.decrees(0, 1)

	w.exec(0, "GRANT EXECUTE ON FUNCTION pg_promote TO failover")
	must(t, w.cluster.WaitStreaming(soon(t)))
	w.forgive()
	must(t, w.nodes[0].Kill())
	w.decrees(1, 2)
	if got := w.get(2, "SELECT current_setting('primary_conninfo')"); strings.Contains(got, nowhere) {
		t.Errorf("without the right to, it was repointed: %s", got)
	}
	w.exec(1, `GRANT EXECUTE ON FUNCTION pg_reload_conf, pg_wal_replay_resume TO failover`,
		`GRANT ALTER SYSTEM ON PARAMETER primary_conninfo, recovery_min_apply_delay, default_transaction_read_only, synchronous_standby_names TO failover`)
	// The follower is not repointed before it is: it learns of the rights from the leader.
	must(t, w.nodes[2].Follow(soon(t), w.nodes[1]))
	w.shows(2, "SELECT has_parameter_privilege('failover', 'primary_conninfo', 'ALTER SYSTEM')", "true")
	w.forgive()
	must(t, w.nodes[1].Kill())
	w.decrees(2, 3)
}

// forgive has every refusal forgotten.
func (w *watched) forgive() {
	for _, p := range w.probes {
		p.forgive()
	}
}

// The proxy dies at each decree of a failover, before or after it stands, and another
// one goes on.
func TestTakeOver(t *testing.T) {
	for _, when := range []string{"before", "after"} {
		for at := range 4 {
			t.Run(fmt.Sprintf("%s decree %d", when, at), func(t *testing.T) {
				w := watch(t, quick(), two)
				w.rows(0, 100)
				must(t, w.cluster.WaitStreaming(soon(t)))
				w.deaf(1)
				w.rows(0, 10)
				w.received(2)
				must(t, w.cluster.Nodes()[0].Kill())
				w.die(when, at)
				w.decrees(2, 2)
				w.hears(2)
				w.shows(2, "SELECT count(*) FROM kept", "110")
				w.shows(1, "SELECT count(*) FROM kept", "110")
				w.shows(1, "SELECT count(*) FROM lsnproxy.failover_log", "1")
			})
		}
	}
}

// die has the Runner end at the decree of that number from now, and another one go on.
func (w *watched) die(when string, at int) {
	first, dead := w.Runner, make(chan struct{})
	count := 0
	reached := func() bool { count++; return count == at+1 }
	stop := func() {
		first.cancel()
		close(dead)
	}
	w.decider.mu.Lock()
	if when == "before" {
		w.decider.before = func(election.Decree) error {
			if reached() {
				stop()
				return election.ErrNotCoordinator
			}
			return nil
		}
	} else {
		w.decider.after = func(election.Decree) {
			if reached() {
				stop()
			}
		}
	}
	w.decider.mu.Unlock()
	select {
	case <-dead:
	case <-soon(w.t).Done():
		w.t.Fatalf("decree %d never came", at)
	}
	first.Close()
	w.takeOver()
}

// An old leader that has written what nobody got becomes a follower again, rewound; one
// that cannot be rewound is copied anew. What it had written alone is gone from it.
func TestRejoin(t *testing.T) {
	for _, rewindable := range []bool{true, false} {
		t.Run(fmt.Sprintf("rewindable %v", rewindable), func(t *testing.T) {
			w := watch(t, quick(), two)
			w.rows(0, 100)
			must(t, w.cluster.WaitStreaming(soon(t)))
			must(t, w.nodes[0].Freeze())
			w.decrees(1, 2)
			must(t, w.nodes[0].Thaw())
			w.exec(0, "SET default_transaction_read_only = off; INSERT INTO kept VALUES (999)")
			must(t, w.nodes[0].Kill())
			w.rows(1, 10)

			r := Rejoin{
				Data: w.nodes[0].DataDir(), Source: w.nodes[1].URL("postgres"), Bin: filepath.Dir(w.cluster.Program("postgres")),
				Slot: "node1", Command: w.nodes[0].Command,
			}
			if !rewindable {
				must(t, os.RemoveAll(filepath.Join(w.nodes[0].DataDir(), "pg_wal")))
			}
			must(t, r.Run(soon(t)))
			must(t, w.nodes[0].Start(soon(t)))
			w.shows(0, "SELECT count(*) FROM kept", "110")
			w.shows(0, "SELECT received_tli FROM pg_stat_wal_receiver", "2")
			w.shows(0, "SELECT pg_is_in_recovery()", "true")

			// It may lead again.
			must(t, w.cluster.WaitStreaming(soon(t)))
			eventually(t, "it is seen as a follower", func() bool { return w.Status().Nodes[0].Streaming })
			must(t, w.Switchover(soon(t), w.nodes[0].Addr()))
			w.decrees(0, 3)
			w.rows(0, 1)
			w.shows(2, "SELECT count(*) FROM kept", "111")
		})
	}
}

// A follower that has led does not hold log for those that receive from another now. What
// somebody else has it hold stays.
func TestUnusedSlots(t *testing.T) {
	w := watch(t, quick(), two)
	w.exec(2, "SELECT pg_drop_replication_slot('node1'), pg_drop_replication_slot('node2')",
		"SELECT pg_create_physical_replication_slot(n, true) FROM unnest(ARRAY['node1', 'node2', 'mine']) AS n")
	w.shows(2, "SELECT string_agg(slot_name, ' ') FROM pg_replication_slots", "mine")

	// They are there again when it leads.
	eventually(t, "it is seen as a follower", func() bool { return w.Status().Nodes[2].Streaming })
	must(t, w.Switchover(soon(t), w.nodes[2].Addr()))
	w.decrees(2, 2)
	w.shows(2, "SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots", "mine node2")
	w.shows(2, "SELECT string_agg(slot_name, ' ') FROM pg_replication_slots WHERE active", "node2")
}

// Rejoin refuses a source that does not lead.
func TestRejoinFollower(t *testing.T) {
	w := watch(t, quick(), two)
	r := Rejoin{
		Data: w.nodes[2].DataDir(), Source: w.nodes[1].URL("postgres"), Bin: filepath.Dir(w.cluster.Program("postgres")),
		Command: w.nodes[2].Command,
	}
	if err := r.Run(soon(t)); err == nil || !strings.Contains(err.Error(), "it is a follower itself") || !w.nodes[2].Running() {
		t.Errorf("rejoining a follower: %v", err)
	}
}

// A proxy that stood still does not take that for the leader's silence.
func TestAwake(t *testing.T) {
	const second = topology.Instant(time.Second)
	p := newProbe(New(nil, quick()), "n1:5432")
	p.mu.began, p.mu.answered = second, 10*second
	for _, c := range []struct {
		now, awake topology.Instant
		silent     time.Duration
	}{
		{10*second + second/10, second, 0},
		{13 * second, second, 3 * time.Second},
		{70 * second, 70 * second, 0},
		{72 * second, 70 * second, 2 * time.Second},
	} {
		if got := p.sight(1, c.now, c.awake, 100*time.Millisecond).Silent; got != c.silent {
			t.Errorf("at %v, awake since %v: silent for %v, want %v", c.now, c.awake, got, c.silent)
		}
	}
}

// Who could not be pointed to the leader that was lost is pointed to the next one before
// the change counts as over: until then nobody could take over from that one.
func TestRepointedAtOnce(t *testing.T) {
	w := watch(t, quick(), two)
	must(t, w.cluster.WaitStreaming(soon(t)))
	w.probe(w.nodes[2].Addr()).refuse(Point, "the leader is gone")
	must(t, w.nodes[0].Kill())
	w.decrees(1, 2)
	if info, want := w.get(2, "SELECT current_setting('primary_conninfo')"), w.nodes[1].Addr()[len("127.0.0.1:"):]; !strings.Contains(info, want) {
		t.Errorf("it was left at %s, and %s leads", info, want)
	}
}

// A step that waits for the leader that was lost is no standstill: it keeps nobody from
// finding that it is lost.
func TestLostWhileWaitedFor(t *testing.T) {
	w := watch(t, quick(), two)
	must(t, w.cluster.WaitStreaming(soon(t)))
	astray := w.probe(w.nodes[2].Addr())
	astray.refuse(Point, "not yet")
	must(t, w.nodes[2].Set(soon(t), "primary_conninfo", "host=127.0.0.1 port=1"))
	eventually(t, "it is seen to follow nobody for long", func() bool {
		n := astray.node()
		return n.Alone != 0 && topology.Now().Since(n.Alone) > w.o.Timeout
	})
	must(t, w.nodes[0].Freeze())
	w.forgive() // from now on it is to be pointed to the leader, and its slot made there first
	w.decrees(1, 2)
}

// Hooks are told, and stand in for SQL that a server refuses.
func TestHooks(t *testing.T) {
	heard := filepath.Join(t.TempDir(), "heard")
	hook := []string{"sh", "-c", "cat >> " + heard}
	o := quick()
	o.Hooks = Hooks{Suspect: hook, Fence: hook, Promote: hook, Repoint: hook, Rejoin: hook}
	o.User, o.NoRecord = "failover", true
	admin := watch(t, quick(), two)
	admin.exec(0, "CREATE ROLE failover LOGIN REPLICATION IN ROLE pg_monitor", "GRANT EXECUTE ON FUNCTION pg_promote TO failover")
	must(t, admin.cluster.WaitStreaming(soon(t)))
	admin.Close()
	w := &watched{t: t, options: o, cluster: admin.cluster, nodes: admin.nodes}
	w.run()
	w.decrees(0, 1)
	must(t, w.nodes[0].Freeze())
	w.decrees(1, 2)
	must(t, w.nodes[0].Thaw())
	for hook, node := range map[string]int{"suspect": 0, "repoint": 2, "rejoin": 0} {
		eventually(t, "hook "+hook+" is told", func() bool {
			text, _ := os.ReadFile(heard)
			return strings.Contains(string(text), fmt.Sprintf(`{"hook":%q,"node":%q`, hook, w.nodes[node].Addr()))
		})
	}
}

// A follower that hung while another one was chosen, and has received more than that
// one: it cannot follow any more, and whoever rewinds is told.
func TestDiverged(t *testing.T) {
	heard := filepath.Join(t.TempDir(), "heard")
	o := quick()
	o.Hooks.Rejoin = []string{"sh", "-c", "cat >> " + heard}
	w := watch(t, o, two)
	w.exec(0, "CREATE TABLE kept (k int)")
	must(t, w.cluster.WaitStreaming(soon(t)))
	w.deaf(1)
	w.rows(0, 10)
	w.received(2)
	must(t, w.nodes[2].Freeze())
	must(t, w.nodes[0].Kill())
	w.decrees(1, 2)
	must(t, w.nodes[2].Thaw())
	eventually(t, "hook rejoin is told", func() bool {
		text, _ := os.ReadFile(heard)
		return strings.Contains(string(text), fmt.Sprintf(`{"hook":"rejoin","node":%q,"leader":%q`, w.nodes[2].Addr(), w.nodes[1].Addr()))
	})
	if info := w.get(2, "SELECT current_setting('primary_conninfo')"); strings.Contains(info, fmt.Sprint(w.nodes[1].Addr()[len("127.0.0.1:"):])) {
		t.Errorf("it was pointed to a leader that it cannot follow: %s", info)
	}
}
