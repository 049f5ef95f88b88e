package lagwatch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
	"github.com/lsnproxy/lsnproxy/topology"
)

// quietSettings keep a leader from writing on its own while a test looks.
var quietSettings = map[string]string{"autovacuum": "off", "checkpoint_timeout": "1h"}

// never is longer than any test, for what must not happen by itself.
const never = time.Hour

// TestHazards reproduces what makes a wrong token, or a right one that is not
// reached, on one cluster that stays as it is.
func TestHazards(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1, Settings: quietSettings})
	hush(t, c.Leader())
	leader, follower := dialNode(t, c.Leader()), dialNode(t, c.Followers()[0])
	exec(t, leader, "CREATE TABLE kept (k bigint PRIMARY KEY)")
	h := &hazards{t: t, nodes: c.Nodes(), leader: leader, follower: follower}
	h.patient = h.watch(t, Options{Interval: 20 * time.Millisecond, NudgeAfter: never})

	t.Run("asynchronous commit", h.asynchronousCommit)
	t.Run("sampled before the commit record", h.sampledTooEarly)
	t.Run("end of a page", h.pageEnd)
	t.Run("end of a segment", h.segmentEnd)
	t.Run("open transaction", h.openTransaction)
	t.Run("unfinished record", h.unfinishedRecord)
	t.Run("paused replay is not nudged", h.pausedReplay)
	t.Run("pace", h.pace)
	t.Run("connections end with the watcher", h.connections)
}

type hazards struct {
	t                *testing.T
	nodes            []*pgcluster.Node // 0 leads
	leader, follower *pgx.Conn
	patient          *watched // never nudges
	key              int
}

// watch starts a Watcher and waits until it can be used.
func (h *hazards) watch(t *testing.T, o Options) *watched {
	t.Helper()
	w := watch(t, o, h.nodes...)
	w.shows("leader 0: usable usable")
	return w
}

func (h *hazards) insert(t *testing.T, on *pgx.Conn) int {
	t.Helper()
	h.key++
	exec(t, on, "INSERT INTO kept VALUES ($1)", h.key)
	return h.key
}

func (h *hazards) sees(t *testing.T, key int) bool {
	t.Helper()
	return get[bool](t, h.follower, "SELECT EXISTS (SELECT FROM kept WHERE k = $1)", key)
}

// flushed ends whatever the subtest before left unflushed.
func (h *hazards) flushed(t *testing.T) {
	t.Helper()
	exec(t, h.leader, "SELECT pg_logical_emit_message(true, '', '')")
}

// A position taken with pg_current_wal_flush_lsn() or pg_current_wal_lsn() is
// below an asynchronous commit: it is reached before the row is there. The
// watcher's is not, and the nudge spares the wait for the WAL writer.
func (h *hazards) asynchronousCommit(t *testing.T) {
	w := h.watch(t, Options{NudgeAfter: 2 * time.Millisecond})
	must(t, h.nodes[0].Set(soon(t), "wal_writer_delay", "10s"))
	defer func() { must(t, h.nodes[0].Set(soon(t), "wal_writer_delay", "200ms")) }()
	writer := dialNode(t, h.nodes[0])
	exec(t, writer, "SET synchronous_commit = off")
	const commits = 20
	below, stale := 0, 0
	for range commits {
		key := h.insert(t, writer)
		naive, right := at(t, writer, "pg_current_wal_flush_lsn"), w.token()
		if naive < right.LSN {
			below++
		}
		if at(t, h.follower, "pg_last_wal_replay_lsn") >= naive && !h.sees(t, key) {
			stale++
		}
		need, ready := covered(1, right)
		w.until("the follower has an asynchronous commit", need, ready)
		if !h.sees(t, key) {
			t.Errorf("key %d is not on a follower at %v", key, right)
		}
	}
	if below == 0 || stale == 0 {
		t.Errorf("control: of %d flushed positions %d were below the commit and %d served a stale read", commits, below, stale)
	}
	t.Logf("of %d flushed positions %d were below the commit, %d served a stale read; %d nudges", commits, below, stale, w.Stat().Nudges)
}

// A statement in the same query string as the write runs before the commit
// record is written; the watcher's sample begins after the acknowledgement.
func (h *hazards) sampledTooEarly(t *testing.T) {
	results, err := h.leader.PgConn().Exec(soon(t), fmt.Sprintf(
		"INSERT INTO kept VALUES (%d); SELECT pg_current_wal_insert_lsn()", h.key+1)).ReadAll()
	must(t, err)
	h.key++
	early, err := lsn.Parse(string(results[1].Rows[0][0]))
	must(t, err)
	end := at(t, h.leader, "pg_current_wal_insert_lsn")
	if early >= end {
		t.Errorf("control: sampled at %v in the query string, the commit ends at %v", early, end)
	}
	if got := h.patient.token(); got.LSN < lsn.Normalize(end, 16<<20) {
		t.Errorf("the watcher sampled %v, the commit ends at %v", got, end)
	}
}

// insertAtPageEnd commits so that the commit record ends where a page ends, and
// returns what pg_current_wal_insert_lsn() says then: the position after the
// next page's header, which nobody has written.
func (h *hazards) insertAtPageEnd(t *testing.T) lsn.LSN {
	t.Helper()
	commit := func(extra int) lsn.LSN {
		exec(t, h.leader, "SELECT pg_logical_emit_message(true, '', repeat('x', $1))", 300+extra)
		return at(t, h.leader, "pg_current_wal_insert_lsn")
	}
	for range 20 {
		before := commit(0)
		after := commit(0)
		left := page - int(after%page)
		size := int(after - before) // of a message and its commit, if both were in one page
		if before/page != after/page || left < size {
			continue
		}
		if got := commit(left - size); got%page == 24 {
			return got
		}
	}
	t.Fatal("no commit ended with a page")
	return 0
}

// stalls reports that the follower's replay stays short of need while the leader
// writes nothing. It is false if the leader wrote after all.
func (h *hazards) stalls(t *testing.T, need lsn.Position) bool {
	t.Helper()
	insert := at(t, h.leader, "pg_current_wal_insert_lsn")
	wait, ready := covered(1, need)
	v, reached := h.patient.within(400*time.Millisecond, wait, ready)
	if now := at(t, h.leader, "pg_current_wal_insert_lsn"); now != insert {
		t.Logf("the leader wrote by itself: %v, then %v", insert, now)
		return false
	}
	if reached {
		t.Fatalf("control: %v was reached, at %v", need, v.Nodes[1].Position)
	}
	return true
}

// level is a view in which the follower counts as not behind.
func level(v *topology.View) bool { return v.Nodes[1].Lag == 0 && v.Nodes[1].LagBytes == 0 }

// tries bounds what must be done again when the leader wrote by itself.
const tries = 8

func (h *hazards) pageEnd(t *testing.T) {
	for range tries {
		raw := h.insertAtPageEnd(t)
		token := h.patient.token()
		if token.LSN != raw-24 {
			t.Logf("the leader wrote by itself: %v, then %v", raw, token)
			continue
		}
		wait, ready := covered(1, token)
		h.patient.until("the follower is at the end of the page", wait, ready)
		if h.stalls(t, lsn.Position{Timeline: 1, LSN: raw}) {
			return
		}
	}
	t.Error("the hazard could not be reproduced")
}

func (h *hazards) segmentEnd(t *testing.T) {
	for range tries {
		h.insert(t, h.leader)
		exec(t, h.leader, "SELECT pg_switch_wal()")
		raw := at(t, h.leader, "pg_current_wal_insert_lsn")
		token := h.patient.token()
		if raw%(16<<20) != 40 || token.LSN != raw-40 {
			t.Logf("the leader wrote by itself: %v, %v", raw, token)
			continue
		}
		wait, ready := covered(1, token)
		h.patient.until("the follower is at the end of the segment", wait, ready)
		if h.stalls(t, lsn.Position{Timeline: 1, LSN: raw}) {
			return
		}
	}
	t.Error("the hazard could not be reproduced")
}

// The token of a commit covers what another session's open transaction has
// written, which nobody flushes. One nudge ends the stall for all who wait.
func (h *hazards) openTransaction(t *testing.T) {
	w := h.watch(t, Options{})
	other := dialNode(t, h.nodes[0])
	for range tries {
		h.flushed(t)
		h.insert(t, h.leader)
		exec(t, other, "BEGIN")
		h.insert(t, other)
		token := h.patient.token()
		if !h.stalls(t, token) {
			exec(t, other, "ROLLBACK")
			continue
		}
		h.patient.until("it is no lag: the follower has all that it could get", Need{Node: -1}, level)

		const readers = 20
		woken := make(chan struct{}, readers)
		for range readers {
			need, ready := covered(1, token)
			defer w.Await(need, ready, func() { woken <- struct{}{} }).Cancel()
		}
		begun := time.Now()
		for range readers {
			select {
			case <-woken:
			case <-time.After(10 * time.Second):
				t.Fatalf("not reached with nudges: %+v", w.Stat())
			}
		}
		t.Logf("%d readers went on after %v", readers, time.Since(begun))
		w.nudged(1) // for all
		exec(t, other, "COMMIT")
		return
	}
	t.Error("the hazard could not be reproduced")
}

// The leader flushes whole pages in the background: what it has flushed may end
// inside a record. A flushed position is then not reached; the follower, which
// has all it can replay, does not count as lagging.
func (h *hazards) unfinishedRecord(t *testing.T) {
	w := h.watch(t, Options{})
	other := dialNode(t, h.nodes[0])
	for range tries {
		// An asynchronous commit wakes the WAL writer, which then looks every 200 ms.
		exec(t, other, "SET synchronous_commit = off")
		h.insert(t, other)
		exec(t, other, "BEGIN")
		exec(t, other, "SELECT pg_logical_emit_message(false, '', repeat('x', 20000))")
		end := h.patient.token()
		v := h.patient.until("the leader flushes whole pages", Need{Leader: true, Followers: true, Node: -1}, func(v *topology.View) bool {
			l := v.Nodes[0]
			return l.Position != end || l.Received%page == 0 && l.Received > end.LSN-page && v.Nodes[1].Received >= l.Received
		})
		flushed := v.Nodes[0].Received
		if v.Nodes[0].Position != end || flushed >= end.LSN || !h.stalls(t, lsn.Position{Timeline: 1, LSN: flushed}) {
			exec(t, other, "ROLLBACK")
			continue // the leader wrote by itself, or the record ended with a page
		}
		h.patient.until("it is no lag: the follower has replayed all that it can", Need{Node: -1}, level)
		need, ready := covered(1, end)
		w.until("a nudge has the rest of the record flushed", need, ready)
		w.nudged(1)
		exec(t, other, "ROLLBACK")
		return
	}
	t.Error("the hazard could not be reproduced")
}

// When the leader has flushed the position, a stall is the follower's and no
// nudge can end it.
func (h *hazards) pausedReplay(t *testing.T) {
	w := h.watch(t, Options{NudgeAfter: time.Millisecond})
	must(t, h.nodes[1].PauseReplay(soon(t)))
	h.insert(t, h.leader)
	need, ready := covered(1, w.token())
	if _, reached := w.within(200*time.Millisecond, need, ready); reached {
		t.Error("control: reached while replay is paused")
	}
	must(t, h.nodes[1].ResumeReplay(soon(t)))
	w.until("replay goes on", need, ready)
	w.nudged(0)
}

// A follower is sampled often only while somebody waits for it, and never
// without a pause.
func (h *hazards) pace(t *testing.T) {
	const demand = 500 * time.Microsecond
	w := h.watch(t, Options{DemandInterval: demand, Interval: never})
	samples := func() (leader, follower uint64) {
		s := w.Stat()
		return s.Nodes[0].Samples, s.Nodes[1].Samples
	}
	idle := func() {
		t.Helper()
		pgtest.Eventually(t, "nobody waits, and nothing is sampled", func() bool {
			l, f := samples()
			time.Sleep(100 * time.Millisecond)
			l2, f2 := samples()
			return l2 == l && f2 == f
		})
	}
	idle()
	begun := time.Now()
	l, f := samples()
	pgtest.Eventually(t, "ten samples for those who wait", func() bool {
		// Young waits: a stall would be sampled less and less.
		w.within(time.Millisecond, Need{Followers: true, Node: -1}, func(*topology.View) bool { return false })
		_, f2 := samples()
		return f2-f >= 10
	})
	l2, f2 := samples()
	if most := uint64(time.Since(begun)/demand) + 2; l2 != l || f2-f > most {
		t.Errorf("waiting for followers gave %d samples of the leader and %d of the follower, at most %d wanted", l2-l, f2-f, most)
	}
	idle()
}

// Close leaves no connection on any server, the nudger's included.
func (h *hazards) connections(t *testing.T) {
	w := watch(t, Options{NudgeAfter: time.Nanosecond}, h.nodes...)
	w.shows("leader 0: usable usable")
	const count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lsnproxy-watch'"
	on := []*pgx.Conn{h.leader, h.follower}
	var with [2]int
	for end := time.Now().Add(10 * time.Second); with[0] < 3 && time.Now().Before(end); { // the nudger may take its time
		w.within(100*time.Millisecond, Need{Node: -1, Position: lsn.Position{Timeline: 1, LSN: 1 << 60}}, func(*topology.View) bool { return false })
		for i, conn := range on {
			with[i] = get[int](t, conn, count)
		}
	}
	w.Close()
	h.patient.Close()
	for i, conn := range on {
		for end := time.Now().Add(10 * time.Second); get[int](t, conn, count) != 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d connections to node %d are left", get[int](t, conn, count), i)
			}
		}
	}
	if with[0] != 3 || with[1] != 2 { // two watchers, one nudger
		t.Errorf("there were %v connections before", with)
	}
	if s := strings.TrimSpace(w.log.String()); w.log.with("cannot be nudged") != 0 {
		t.Errorf("the log says\n%s", s)
	}
}
