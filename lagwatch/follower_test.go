package lagwatch

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
	"github.com/lsnproxy/lsnproxy/topology"
)

// TestFollowers has followers fall behind, die and come back, and connections
// break, under a leader that stays.
func TestFollowers(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 2, Faults: true, Settings: quietSettings})
	f := &followers{nodes: c.Nodes(), leader: dialNode(t, c.Leader())}
	exec(t, f.leader, "CREATE TABLE kept (k bigint PRIMARY KEY)")

	t.Run("idle leader", f.idleLeader)
	t.Run("behind in bytes", f.behindInBytes)
	t.Run("behind in time", f.behindInTime)
	t.Run("position goes back over a crash", f.positionGoesBack)
	t.Run("connection ended by an administrator", f.terminated)
	t.Run("sample under way", f.sampleUnderWay)
	t.Run("leader does not answer", f.silentLeader)
	t.Run("leader restarts", f.leaderRestarts)
}

type followers struct {
	nodes  []*pgcluster.Node // 0 leads
	leader *pgx.Conn
	key    int
}

func (f *followers) watch(t *testing.T, o Options) *watched {
	t.Helper()
	w := watch(t, o, f.nodes...)
	w.shows("leader 0: usable usable usable")
	return w
}

func (f *followers) insert(t *testing.T) int {
	t.Helper()
	f.key++
	exec(t, f.leader, "INSERT INTO kept VALUES ($1)", f.key)
	return f.key
}

// A leader that writes nothing leaves nobody behind, however strict the limit.
func (f *followers) idleLeader(t *testing.T) {
	defer hush(t, f.nodes[0])()
	w := f.watch(t, Options{MaxLag: 100 * time.Millisecond})
	behind := func(v *topology.View) bool {
		return picture(v) != "leader 0: usable usable usable" || v.Nodes[1].Lag != 0 || v.Nodes[2].Lag != 0
	}
	w.until("nobody is behind", Need{Node: -1}, func(v *topology.View) bool { return !behind(v) })
	if v, changed := w.within(700*time.Millisecond, Need{Node: -1}, behind); changed {
		t.Errorf("behind an idle leader: %s %+v", picture(v), v)
	}
}

// A follower that is too far behind is dropped at once, stays dropped while it
// catches up, and is back when it has been near for a while.
func (f *followers) behindInBytes(t *testing.T) {
	const limit = 100_000
	w := f.watch(t, Options{Interval: 50 * time.Millisecond, MaxLagBytes: limit})
	must(t, f.nodes[1].PauseReplay(soon(t)))
	for range 20 {
		exec(t, f.leader, "SELECT pg_logical_emit_message(true, '', repeat('x', 10000))")
	}
	v := w.shows("leader 0: usable lagging usable")
	if n := v.Nodes[1]; n.LagBytes <= limit || n.Detail == "" {
		t.Errorf("dropped at %d bytes: %q", n.LagBytes, n.Detail)
	}
	paused := w.board.View().Nodes[1].Sampled
	must(t, f.nodes[1].ResumeReplay(soon(t)))
	v = w.shows("leader 0: usable usable usable")
	if d := v.Nodes[1].Sampled.Since(paused); d < 100*time.Millisecond {
		t.Errorf("taken back %v after it was seen paused: want three samples under half of the limit", d)
	}
	if n := v.Nodes[1]; n.LagBytes > limit/2 {
		t.Errorf("taken back %d bytes behind", n.LagBytes)
	}
	address := f.nodes[1].Addr()
	w.told(1, "node changed", address, "state=lagging")
	w.told(1, "node changed", address, "was=lagging")
}

// The same in time: a follower that applies everything late.
func (f *followers) behindInTime(t *testing.T) {
	w := f.watch(t, Options{MaxLag: 400 * time.Millisecond})
	must(t, f.nodes[1].SetApplyDelay(soon(t), time.Hour))
	level := w.until("it has everything", Need{Node: -1}, func(v *topology.View) bool { return v.Nodes[1].Lag == 0 }).Nodes[0].Sampled
	begun := time.Now()
	first := f.insert(t)
	var v *topology.View
	for dropped := false; !dropped; f.insert(t) { // an idle leader would leave nobody behind
		v, dropped = w.within(20*time.Millisecond, Need{Node: -1}, func(v *topology.View) bool {
			return picture(v) == "leader 0: usable lagging usable"
		})
		if time.Since(begun) > time.Minute {
			t.Fatalf("not dropped: %s %+v", picture(v), v)
		}
	}
	// The leader was last seen where the follower is when it was level, or later.
	if n, most := v.Nodes[1], v.Nodes[0].Sampled.Since(level); n.Lag <= 400*time.Millisecond || n.Lag > most+400*time.Millisecond/64 {
		t.Errorf("%v after it was level it is %v behind", most, n.Lag)
	}
	if get[bool](t, dialNode(t, f.nodes[1]), "SELECT EXISTS (SELECT FROM kept WHERE k = $1)", first) {
		t.Error("control: the follower has what it should not have applied yet")
	}
	must(t, f.nodes[1].SetApplyDelay(soon(t), 0))
	w.shows("leader 0: usable usable usable")
}

// A follower that crashed comes back with an older position. What was known of
// it before is forgotten with the connection and proves nothing for a new one.
func (f *followers) positionGoesBack(t *testing.T) {
	w := f.watch(t, Options{Interval: 20 * time.Millisecond})
	// A restart replays from here. Then the follower must not apply what follows.
	exec(t, f.leader, "CHECKPOINT")
	need, ready := covered(1, w.token())
	w.until("the follower has the checkpoint", need, ready)
	exec(t, dialNode(t, f.nodes[1]), "CHECKPOINT")

	key := f.insert(t)
	token := w.token()
	opened := topology.Now() // of a connection that is not there any more later
	need, ready = covered(1, token)
	before := w.until("the follower has the row", need, ready)
	if !before.Proves(&before.Nodes[1], opened, token) {
		t.Error("the view does not prove what was just waited for")
	}

	must(t, f.nodes[1].Set(soon(t), "recovery_min_apply_delay", "1h"))
	must(t, f.nodes[1].Kill())
	down := w.shows("leader 0: usable down usable")
	if n := down.Nodes[1]; !n.Position.IsZero() || n.Watched != 0 || down.Proves(&n, opened, token) {
		t.Errorf("a dead follower still has %+v", n)
	}
	must(t, f.nodes[1].Start(soon(t)))
	back := w.shows("leader 0: usable usable usable")
	conn := dialNode(t, f.nodes[1])
	reopened := topology.Now()
	// Control: the position known before the crash says that the row is there.
	if !before.History.Covers(before.Nodes[1].Position, token) || get[bool](t, conn, "SELECT EXISTS (SELECT FROM kept WHERE k = $1)", key) {
		t.Error("control: the follower did not go back")
	}
	if n := back.Nodes[1]; n.Position.LSN >= before.Nodes[1].Position.LSN || n.Watched <= before.Nodes[1].Watched {
		t.Errorf("the follower is back as %+v, was %+v", n, before.Nodes[1])
	}
	if before.Proves(&before.Nodes[1], reopened, token) || back.Proves(&back.Nodes[1], reopened, token) {
		t.Error("a sample taken before the connection was opened proves something about it")
	}
	wait := Need{Node: 1, Position: token}
	applied := func(v *topology.View) bool { return v.Proves(&v.Nodes[1], reopened, token) }
	if v, reached := w.within(200*time.Millisecond, wait, applied); reached {
		t.Errorf("not applied, and proved: %+v", v.Nodes[1])
	}
	must(t, f.nodes[1].SetApplyDelay(soon(t), 0))
	w.until("the follower has the row again", wait, applied)
	if !get[bool](t, conn, "SELECT EXISTS (SELECT FROM kept WHERE k = $1)", key) {
		t.Error("proved, and the row is not there")
	}
}

// A single broken connection does not make a leader dead: no view without it.
func (f *followers) terminated(t *testing.T) {
	w := f.watch(t, Options{Interval: 20 * time.Millisecond})
	before := w.board.View()
	time.Sleep(50 * time.Millisecond) // a connection that broke at once is not tried again at once
	lost := make(chan struct{})
	defer w.Await(Need{Node: -1}, func(v *topology.View) bool { return v.Leader != 0 }, func() { close(lost) }).Cancel()
	exec(t, f.leader, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lsnproxy-watch'")
	w.until("sampled over a new connection", Need{Node: -1}, func(v *topology.View) bool {
		return v.Nodes[0].Watched > before.Nodes[0].Watched
	})
	select {
	case <-lost:
		t.Error("there was a view without a leader")
	default:
	}
	if s := w.Stat(); s.Nodes[0].Failures != 1 || s.Nodes[1].Failures != 0 {
		t.Errorf("the counters say %+v", s)
	}
}

// A sample counts from when it was asked for, not from when its answer came: one
// that was under way when a commit was acknowledged may not cover it.
func (f *followers) sampleUnderWay(t *testing.T) {
	w := f.watch(t, Options{Interval: time.Millisecond})
	near, err := pgx.Connect(soon(t), "postgres://postgres@"+f.nodes[0].ServerAddr()+"/postgres?sslmode=disable")
	must(t, err)
	defer near.Close(soon(t))
	f.nodes[0].Network().SetDelay(10 * time.Millisecond)
	defer f.nodes[0].Network().SetDelay(0)
	late := 0               // commits acknowledged while an earlier sample was under way
	for phase := range 25 { // of a sample that takes 20 ms
		time.Sleep(time.Duration(phase) * time.Millisecond)
		f.key++
		exec(t, near, "INSERT INTO kept VALUES ($1)", f.key)
		acknowledged := topology.Now()
		end := lsn.Normalize(at(t, near, "pg_current_wal_insert_lsn"), 16<<20)
		if token := w.token(); token.LSN < end {
			t.Errorf("the token %v is below the end of the commit, %v", token, end)
		}
		if v := w.board.View(); v.Nodes[0].Sampled.Since(acknowledged) > time.Millisecond {
			late++
		}
	}
	if late == 0 {
		t.Error("control: no sample was ever under way")
	}
}

// A leader that takes connections and answers nothing is down when the timeout
// is over; followers go on serving.
func (f *followers) silentLeader(t *testing.T) {
	w := f.watch(t, Options{Interval: 20 * time.Millisecond, Timeout: time.Second})
	before := w.log.with("no leader") // on a busy machine a sample may take so long
	f.nodes[0].Network().Blackhole()
	w.shows("no leader: down usable usable")
	w.told(before+1, "no leader")
	must(t, f.nodes[0].Network().Heal())
	w.shows("leader 0: usable usable usable")
}

// Lag behind a leader that is down is measured against where it was last seen.
// When it is back it can be nudged again, over a new connection.
func (f *followers) leaderRestarts(t *testing.T) {
	w := f.watch(t, Options{Interval: 20 * time.Millisecond, MaxLag: 200 * time.Millisecond})
	stall := func() {
		t.Helper()
		defer hush(t, f.nodes[0])()
		open := dialNode(t, f.nodes[0])
		exec(t, open, "BEGIN")
		exec(t, open, "SELECT pg_logical_emit_message(true, '', 'not flushed')")
		need, ready := covered(1, w.token())
		w.until("a nudge has it flushed", need, ready)
	}
	stall()
	w.nudged(1)
	must(t, f.nodes[0].Stop(pgcluster.Fast))
	w.shows("no leader: down usable usable")
	if v, changed := w.within(500*time.Millisecond, Need{Node: -1}, func(v *topology.View) bool {
		return picture(v) != "no leader: down usable usable"
	}); changed {
		t.Errorf("while the leader is down: %s", picture(v))
	}
	must(t, f.nodes[0].Start(soon(t)))
	w.shows("leader 0: usable usable usable")
	stall()
	w.nudged(2)
}
