package election_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/election"
	"github.com/lsnproxy/lsnproxy/failover"
	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// The simulation with the real plan of failovers on top: proxies as in TestSimulation,
// and servers that die, freeze, return and are cut off, as the proxies see them and do
// things to them, late or not at all.

// database is the model of three servers.
type database struct {
	w       *election.World
	servers []*server
	runners map[string]*runner
	cut     map[[2]string]bool // proxy or server, and server
	opened  map[uint32]string  // who was promoted to a timeline
	written uint32             // the newest timeline that a write was accepted on
	asked   map[string]bool    // who answered when the target was chosen
	calm    bool
	weak    bool // nobody may stop what followers receive
	bug     func(*failover.Input)
	stat    struct{ writes, promotions int }
	last    failover.Step
}

// String tells how things stand, for who looks into a failure.
func (db *database) String() string {
	text := fmt.Sprintf("%v %v %s: %s", db.last.Phase, db.last.Do, db.last.Node, db.last.Why)
	for _, s := range db.servers {
		text += fmt.Sprintf("\n%+v", *s)
	}
	return text
}

// server is a PostgreSQL server as far as a change of the leader is concerned.
type server struct {
	address    string
	up, frozen bool
	leader     bool
	timeline   uint32
	received   lsn.LSN
	replayed   lsn.LSN
	history    map[uint32]lsn.LSN // where earlier timelines of its log ended
	upstream   string
	quieted    bool
	quietedIn  uint64
	fenced     bool
	slow       bool
	heard      time.Duration // true time of the last word from its upstream
	streams    bool
}

func (s *server) answers() bool { return s.up && !s.frozen }

// runner is what one process of a proxy remembers of the servers.
type runner struct {
	process  int
	nodes    []failover.Node
	answered time.Duration // on its clock: when the leader did
	sight    failover.Sight
	epoch    uint64
	since    topology.Instant
	mark     lsn.LSN
	recorded bool
	doing    bool
	serial   int // of what it does
}

const patience = 1500 * time.Millisecond

func newDatabase(t testing.TB, seed uint64) *database {
	db := &database{runners: map[string]*runner{}, cut: map[[2]string]bool{}, opened: map[uint32]string{}}
	db.w = election.NewWorld(t, seed, func(_ *election.World, p *election.Proxy) { db.beat(p) })
	for i := range 3 {
		db.servers = append(db.servers, &server{
			address: fmt.Sprintf("n%d:5432", i+1), up: true, timeline: 1, received: 1000, replayed: 1000,
			history: map[uint32]lsn.LSN{}, upstream: "n1:5432",
		})
	}
	db.servers[0].leader, db.servers[0].upstream = true, ""
	db.weak = seed%4 == 0
	db.w.After(0, db.replicate)
	db.w.After(0, db.mischief)
	return db
}

func (db *database) at(address string) *server {
	for _, s := range db.servers {
		if s.address == address {
			return s
		}
	}
	return nil
}

// reaches reports whether a proxy or a server gets an answer from a server.
func (db *database) reaches(from string, s *server) bool {
	return s.answers() && !db.cut[[2]string{from, s.address}]
}

// replicate has the followers receive and replay.
func (db *database) replicate() {
	for _, s := range db.servers {
		s.streams = false
		if !s.answers() || s.leader {
			continue
		}
		up := db.at(s.upstream)
		if !s.quieted && up != nil && up != s && db.reaches(s.address, up) && s.fits(up) {
			s.received, s.timeline = up.received, up.timeline
			s.history = up.history
			s.heard, s.streams = db.w.Now(), true
		}
		if !s.slow {
			s.replayed = s.received
		}
	}
	db.w.After(40*time.Millisecond, db.replicate)
}

// fits reports whether a server's log is the beginning of another's.
func (s *server) fits(up *server) bool {
	if s.timeline == up.timeline {
		return s.received <= up.received
	}
	end, ok := up.history[s.timeline]
	return ok && s.received <= end
}

// mischief breaks something about the servers now and then, and mends it.
func (db *database) mischief() {
	r := db.w.Random()
	s := db.servers[r.IntN(len(db.servers))]
	for _, o := range db.servers {
		if o.leader && r.IntN(2) == 0 {
			s = o
		}
	}
	long := time.Duration(r.ExpFloat64() * float64(2*patience))
	if !db.calm {
		switch r.IntN(8) {
		case 0, 1:
			s.up = false
			db.w.After(long, func() { s.up = true })
		case 2:
			s.frozen = true
			db.w.After(long, func() { s.frozen = false })
		case 3:
			s.slow = !s.slow
		case 4:
			for _, o := range db.servers {
				db.cut[[2]string{o.address, s.address}] = r.IntN(2) == 0
			}
			fallthrough
		case 5, 6:
			for _, p := range db.w.Proxies() {
				db.cut[[2]string{p.ID(), s.address}] = r.IntN(2) == 0
			}
			db.w.After(long, func() { clear(db.cut) })
		default:
			db.rejoin()
		}
	} else {
		db.rejoin()
	}
	db.w.After(time.Duration(r.ExpFloat64()*float64(patience)), db.mischief)
}

// rejoin rewinds what does not fit the leader that is decreed, as people or a hook do.
func (db *database) rejoin() {
	var newest *server
	for _, s := range db.servers {
		if s.leader && s.answers() && (newest == nil || s.timeline > newest.timeline) && s.address == db.w.Latest().Leader && s.timeline == db.w.Latest().Timeline {
			newest = s
		}
	}
	if newest == nil {
		return
	}
	for _, s := range db.servers {
		if s != newest && s.answers() && !s.fits(newest) || s.leader && s.timeline < newest.timeline {
			s.leader, s.fenced, s.quieted, s.slow = false, false, false, false
			s.timeline, s.received, s.replayed, s.history = newest.timeline, newest.received, newest.received, newest.history
			s.upstream, s.quietedIn = newest.address, 0
		}
	}
}

// beat is a heartbeat of one proxy: it looks at the servers, reports, writes, and does
// what the plan says if it coordinates.
func (db *database) beat(p *election.Proxy) {
	if db.w.Calm() && !db.calm {
		db.mend()
	}
	r := db.runners[p.ID()]
	if r == nil || r.process != p.Process() {
		r = &runner{process: p.Process()}
		for _, s := range db.servers {
			n := failover.Node{Address: s.address, Refused: map[failover.Do]string{}}
			if db.weak {
				n.Refused[failover.Quiet] = "denied"
			}
			r.nodes = append(r.nodes, n)
		}
		db.runners[p.ID()] = r
	}
	for i := range db.servers {
		db.look(p, r, i)
	}
	body, err := json.Marshal(db.sight(p, r))
	if err != nil {
		panic(err)
	}
	p.Report(body)
	db.write(p)
	if p.Coordinates() && !p.Busy() && !r.doing {
		db.decide(p, r)
	}
}

// mend ends all faults of the servers.
func (db *database) mend() {
	db.calm = true
	clear(db.cut)
	for _, s := range db.servers {
		s.up, s.frozen = true, false
	}
}

func (db *database) clock(p *election.Proxy) topology.Instant { return topology.Instant(db.w.Clock(p)) }

// look is one look of a proxy at a server.
func (db *database) look(p *election.Proxy, r *runner, i int) {
	s, n, now := db.servers[i], &r.nodes[i], db.clock(p)
	if !db.reaches(p.ID(), s) {
		n.Failed = "no answer"
		return
	}
	was := *n
	*n = failover.Node{
		Address: s.address, Seen: now, System: 7, Follower: !s.leader, Timeline: s.timeline,
		Received: s.received, Replayed: s.replayed, Still: was.Still, Calm: was.Calm, Alone: was.Alone, Quieted: s.quieted, QuietedIn: s.quietedIn,
		Streaming: s.streams, Receiving: s.streams, Heard: db.w.Now() - s.heard, Sender: s.upstream, Upstream: s.upstream,
		Held: s.slow, Name: s.address[:2], Fenced: s.fenced, Refused: was.Refused, Switched: s.history[s.timeline-1],
	}
	if s.leader {
		n.Streaming, n.Receiving, n.Sender, n.Upstream = false, false, "", ""
	}
	if was.Received != n.Received || was.Seen == 0 {
		n.Still = now
	}
	if was.Replayed != n.Replayed || was.Seen == 0 {
		n.Calm = now
	}
	switch {
	case n.Streaming:
		n.Alone = 0
	case was.Alone == 0:
		n.Alone = now
	}
}

// sight is what a proxy sees of the leader, or of the one that is to be replaced.
func (db *database) sight(p *election.Proxy, r *runner) failover.Sight {
	d, c := planOf(p.Decree())
	about := d.Leader
	if about == "" && c != nil {
		about = c.Old
	}
	now := db.w.Clock(p)
	if r.sight.Leader != about {
		r.sight = failover.Sight{Leader: about, Timeline: d.Timeline}
		r.answered = now
	}
	if s := db.at(about); s != nil && db.reaches(p.ID(), s) && s.leader && s.timeline >= d.Timeline {
		r.answered, r.sight.End, r.sight.Timeline = now, s.received, s.timeline
		r.sight.Sync = failover.Sync{Seen: true}
	}
	r.sight.Silent = now - r.answered
	return r.sight
}

func planOf(d election.Decree) (failover.Decree, *failover.Change) {
	f := failover.Decree{Epoch: d.Epoch, System: d.SystemID, Leader: d.Leader, Timeline: d.Timeline}
	if len(d.Plan) > 0 {
		f.Change = new(failover.Change)
		if err := json.Unmarshal(d.Plan, f.Change); err != nil {
			panic(err)
		}
	}
	return f, f.Change
}

// write writes where the proxy's lease says. A write on an older timeline than one that
// was written before is lost by some and seen by others: what all this is to prevent.
func (db *database) write(p *election.Proxy) {
	_, leader := db.w.Live(p)
	s := db.at(leader)
	if s == nil || !s.leader || s.fenced || !db.reaches(p.ID(), s) {
		return
	}
	db.stat.writes++
	s.received += lsn.LSN(1 + db.w.Random().IntN(50))
	s.replayed = s.received
	if s.timeline < db.written {
		db.w.Fail("%s writes to %s on timeline %d after a write on %d", p.ID(), leader, s.timeline, db.written)
	}
	db.written = max(db.written, s.timeline)
}

// decide asks the plan what to do, and does it.
func (db *database) decide(p *election.Proxy, r *runner) {
	d, _ := planOf(p.Decree())
	if r.epoch != d.Epoch {
		r.epoch, r.since, r.mark, r.recorded = d.Epoch, 0, 0, false
	}
	now := db.clock(p)
	fenced := p.Fenced(d.Epoch)
	if fenced && r.since == 0 {
		r.since = now
	}
	in := failover.Input{
		Settings: failover.Settings{Mode: failover.Promote, Timeout: patience, MaxLost: 1 << 30, Drain: 2 * patience},
		Now:      now, Decree: d, Fenced: fenced, Since: r.since, Voters: p.Voters(), Nodes: slices.Clone(r.nodes),
		Mark: r.mark, Recorded: r.recorded, Sights: []failover.Sight{r.sight},
	}
	bodies, ages := p.Reports()
	for i, body := range bodies {
		var said failover.Sight
		if json.Unmarshal(body, &said) != nil || ages[i] > patience {
			continue
		}
		if said.Silent > 0 {
			said.Silent += ages[i]
		}
		in.Sights = append(in.Sights, said)
	}
	if d.Leader != "" && db.w.Random().IntN(200) == 0 {
		in.Wish = &failover.Wish{}
	}
	if db.bug != nil {
		db.bug(&in)
	}
	db.last = failover.Next(in)
	db.carryOut(p, r, db.last, in)
}

func (db *database) carryOut(p *election.Proxy, r *runner, step failover.Step, in failover.Input) {
	switch step.Do {
	case failover.Wait, failover.Refuse:
		return
	case failover.Note:
		r.recorded = true
		return
	case failover.Decide:
		to := election.Decree{Epoch: step.Decree.Epoch, SystemID: step.Decree.System, Leader: step.Decree.Leader, Timeline: step.Decree.Timeline}
		if c := step.Decree.Change; c != nil {
			to.Plan, _ = json.Marshal(c)
			if c.Phase == failover.Promotion {
				db.asked = map[string]bool{}
				for _, n := range in.Nodes {
					db.asked[n.Address] = n.Failed == "" && n.Seen >= in.Since
				}
			}
		}
		p.Decide(p.Decree(), to)
		return
	}
	// The process may be frozen, dead, or no coordinator any more when it is done.
	r.doing = true
	serial := r.serial + 1
	r.serial = serial
	done := func() { r.doing = r.doing && r.serial != serial }
	db.w.After(patience, done) // it waits no longer, but what it has asked for may come later
	delay := 5 * time.Millisecond
	if !db.calm && db.w.Random().IntN(8) == 0 {
		delay = patience << (2 * db.w.Random().IntN(3))
	}
	db.w.After(time.Duration(db.w.Random().ExpFloat64()*float64(delay)), func() {
		done()
		if s := db.at(step.Node); db.reaches(p.ID(), s) {
			db.do(s, r, step, &in)
		}
	})
}

// do is the effect of one statement on a server.
func (db *database) do(s *server, r *runner, step failover.Step, in *failover.Input) {
	switch step.Do {
	case failover.Quiet:
		if !s.leader {
			s.quieted, s.quietedIn, s.streams, s.upstream = true, in.Decree.Epoch, false, "nowhere:1"
		}
	case failover.ReadOnly:
		s.fenced = true
	case failover.MarkEnd:
		if s.leader {
			r.mark = s.received
		}
	case failover.Hasten:
		s.slow = false
		s.replayed = s.received
	case failover.Open:
		db.open(s, in)
	case failover.Ready:
		s.fenced = false
	case failover.Point:
		if !s.leader {
			s.upstream, s.quieted, s.quietedIn = step.To, false, 0
		}
	}
}

// open promotes a follower, and judges whether that may be. The statement that does it
// does nothing to a server to which anybody has done something since it was quieted in
// the same epoch, or where it cannot be quieted, that has replayed anything since.
func (db *database) open(s *server, in *failover.Input) {
	i := slices.IndexFunc(in.Nodes, func(n failover.Node) bool { return n.Address == s.address })
	if s.leader || !db.weak && s.quietedIn != in.Decree.Epoch || db.weak && s.replayed != in.Nodes[i].Replayed {
		return
	}
	for _, p := range db.w.Proxies() {
		if epoch, leader := db.w.Live(p); leader != "" && leader != s.address {
			db.w.Fail("%s is promoted while %s may write to %s under epoch %d", s.address, p.ID(), leader, epoch)
		}
	}
	for _, o := range db.servers {
		// Who cannot be quieted may receive more after it was measured.
		if !db.weak && o != s && db.asked[o.address] && o.answers() && !o.leader && o.timeline == s.timeline && o.received > s.received {
			db.w.Fail("%s is promoted at %v, and %s is at %v", s.address, s.received, o.address, o.received)
		}
	}
	s.history = map[uint32]lsn.LSN{s.timeline: s.received}
	s.leader, s.timeline = true, s.timeline+1
	s.received += 100
	s.replayed = s.received
	if other := db.opened[s.timeline]; other != "" && other != s.address {
		db.w.Fail("%s and %s are both promoted to timeline %d", other, s.address, s.timeline)
	}
	db.opened[s.timeline] = s.address
	db.stat.promotions++
}

func runFailovers(t testing.TB, first uint64, worlds, steps int, bug func(*failover.Input)) (broken []string, promotions int) {
	for seed := first; seed < first+uint64(worlds); seed++ {
		db := newDatabase(t, seed)
		db.bug = bug
		db.w.Run(steps)
		db.w.Heal()
		promotions += db.stat.promotions
		if b := db.w.Broken(); len(b) > 0 {
			return append(b, db.String()), promotions
		}
	}
	return nil, promotions
}

func TestSimulationOfFailovers(t *testing.T) {
	worlds := 60
	if election.RaceEnabled {
		worlds = 3
	}
	broken, promotions := runFailovers(t, 1, worlds, 20_000, nil)
	for _, b := range broken {
		t.Error(b)
	}
	t.Logf("%d promotions", promotions)
	if promotions < 2*worlds {
		t.Error("hardly anybody was promoted: the simulation shows little")
	}
}

// TestSimulationFindsBugs: a plan that does not wait for the fence, or takes whoever is
// first, is found out.
func TestSimulationFindsBugs(t *testing.T) {
	if election.RaceEnabled {
		t.Skip("takes many steps; runs without the race detector")
	}
	for name, bug := range map[string]func(*failover.Input){
		"unfenced": func(in *failover.Input) { in.Fenced = in.Decree.Leader == "" },
		"inverted": func(in *failover.Input) {
			for i := range in.Nodes {
				if n := &in.Nodes[i]; n.Follower {
					n.Received = 1<<40 - n.Received
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			broken, promotions := runFailovers(t, 1, 300, 10_000, bug)
			if broken == nil {
				t.Errorf("not found in %d promotions", promotions)
			} else {
				t.Logf("found: %s", broken[0])
			}
		})
	}
}
