package lagwatch

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// sample is one answer of a node, with what its connection was told once.
type sample struct {
	watched topology.Instant // when the connection was open
	begun   topology.Instant // just before the sample was asked for

	system      uint64
	segment     uint64
	unsupported string // why no server built like this can be used; "" if it can

	leader   bool
	at       lsn.Position
	received lsn.LSN     // by a follower; flushed, by a leader
	history  lsn.History // of a leader
	snapshot topology.Snapshot
}

// record is what is remembered of one node. A sample outlives the connection
// it came from only as a memory of what the node claimed to be.
type record struct {
	heard   bool // has answered or failed at least once
	up      bool
	failure string // why it is not up
	sample
	shown uint32 // the highest timeline it has shown, as one of its system
	standing
	reason string // for the standing

	served   bool             // has been a usable follower
	returned topology.Instant // when it became one again; 0: it never stopped being one
}

// ledger decides, from what the nodes say, what the View shows: who leads, who
// may serve, and why not. It does no I/O and reads no clock. It is not safe for
// concurrent use.
//
// It decides nothing before every node has answered or failed once: the first
// to answer may be an old leader, or of another system.
type ledger struct {
	limits limits
	trail  trail
	reign  reign
	shares shares
	nodes  []record
	// system is settled once a leader of it has been followed: after that no
	// majority of strangers can change it.
	settled bool
	// highest is the highest timeline any node of the system has shown, leader
	// or follower. A claim to lead an older one is out of date, whatever its
	// position: the old leader may well have written more than the new one.
	highest uint32
	// disputed is set while more than one node claims the highest timeline. Their
	// histories differ, so losing sight of one does not make the other right.
	disputed bool
	ruling   *Ruling // who leads, if not the nodes themselves say so
	led      lastLeader
}

// lastLeader is a leader that was found; without a timeline, a dispute.
type lastLeader struct {
	node     int
	timeline uint32
}

// Ruling is what the proxies have agreed on: who leads the database.
type Ruling struct {
	Epoch    uint64 // of the decree that says so
	Leader   string // the node's address; "" for nobody
	Timeline uint32 // that it writes
}

// rule makes r decide from now on who leads, and brings v into line with it.
func (g *ledger) rule(v *topology.View, r Ruling) {
	g.ruling = &r
	g.settle(v)
	g.show(v)
}

// notJudged is why a follower that may serve does not do so yet.
const notJudged = "lag not measured yet"

func newLedger(nodes int, l limits, t trail) *ledger {
	return &ledger{limits: l, trail: t, reign: reign{gap: t.gap}, nodes: make([]record, nodes)}
}

// sampled takes in an answer of node id and brings v into line with it.
func (g *ledger) sampled(v *topology.View, id int, s sample) {
	r := &g.nodes[id]
	if r.up && s.begun < r.begun {
		return
	}
	if r.system != s.system {
		r.shown = 0
	}
	r.shown = max(r.shown, s.at.Timeline)
	r.heard, r.up, r.failure, r.sample = true, true, "", s
	g.settle(v)

	n := &v.Nodes[id]
	n.Role, n.Received = topology.RoleFollower, max(s.received, s.at.LSN)
	if s.leader {
		n.Role, n.Received = topology.RoleLeader, s.received
	}
	n.Position = s.at
	n.Sampled, n.Watched, n.Silent = s.begun, s.watched, 0
	n.Lag, n.LagBytes, n.Fresh = 0, 0, 0
	was := r.state
	if v.Leader == id {
		g.trail.add(s.begun, s.received)
		g.reign.add(id, s.begun, s.at.LSN)
	} else if r.follows(v) {
		behind := g.trail.behind(s.at.LSN, s.received)
		n.Lag, n.LagBytes, n.Fresh = behind.time, behind.bytes, behind.fresh
		r.standing, r.reason = g.limits.judge(r.standing, behind, s.begun)
		r.comesBack(was, s.begun)
	} else {
		r.standing, r.reason = standing{}, notJudged
	}
	n.Share = g.shares.of(id, r.returned, s.begun)
	g.show(v)
	g.overtake(v, id)
}

// comesBack notes since when a follower that had been usable before is so again.
func (r *record) comesBack(was topology.State, at topology.Instant) {
	if r.state != topology.Usable || was == topology.Usable {
		return
	}
	if r.served {
		r.returned = at
	}
	r.served = true
}

// failed notes that node id cannot be sampled. What was known of its position
// dies here: after a crash it may come back with an older one. silent is
// the present if nothing has come from it, and 0 otherwise.
func (g *ledger) failed(v *topology.View, id int, why string, silent topology.Instant) {
	r := &g.nodes[id]
	r.heard, r.up, r.failure = true, false, why
	r.since = 0
	if r.state == topology.Usable {
		r.standing, r.reason = standing{}, notJudged
	}
	n := &v.Nodes[id]
	since := n.Silent
	*n = topology.Node{ID: id, Address: n.Address, Role: n.Role, Share: n.Share}
	if silent != 0 {
		n.Silent = cmp.Or(since, silent)
	}
	g.settle(v)
	g.show(v)
}

// settle decides which system this is and which node leads it.
func (g *ledger) settle(v *topology.View) {
	if g.ruling != nil && v.Epoch != g.ruling.Epoch { // nobody leads under it who is not found to
		v.Epoch, v.Leader = g.ruling.Epoch, topology.NoLeader
	}
	defer g.forgetShown(v, reignOf(v))
	for i := range g.nodes {
		if !g.nodes[i].heard {
			return
		}
	}
	if !g.settled {
		g.chooseSystem(v)
	}
	if v.System == 0 {
		return
	}
	v.Leader = g.chooseLeader(v)
	g.countLeaders(v)
	if v.Leader == topology.NoLeader {
		return
	}
	leader := &g.nodes[v.Leader]
	g.settled = true
	v.Segment = leader.segment
	if v.History.Timeline != leader.history.Timeline {
		g.reign.over(v, v.History.Timeline)
	}
	// What was read once stays true: a leader whose history cannot be read over a
	// new connection does not undo it.
	if leader.history.Known() || v.History.Timeline != leader.history.Timeline {
		v.History = leader.history
	}
}

// countLeaders begins a new epoch when another leader is found, or the same one on
// another timeline, and when it is not clear any more who leads. A leader that is
// lost from sight and comes back is no other.
func (g *ledger) countLeaders(v *topology.View) {
	led := lastLeader{node: v.Leader}
	switch {
	case g.ruling != nil:
		return
	case v.Leader != topology.NoLeader:
		led.timeline = g.nodes[v.Leader].at.Timeline
	case !g.disputed:
		return
	}
	if g.led != led {
		g.led = led
		v.Epoch++
	}
}

// chooseSystem takes the system that most nodes belong to; of equals, one that
// has a leader; of these, that of the node listed first. So one address that
// points into another cluster is the odd one out, even if it is a leader's.
func (g *ledger) chooseSystem(v *topology.View) {
	most := 0
	for i := range g.nodes {
		system, weight, claim := g.nodes[i].system, 0, 0
		for j := range g.nodes {
			if g.nodes[j].system == system {
				weight += 2
				if g.nodes[j].leader {
					claim = 1
				}
			}
		}
		if system != 0 && weight+claim > most {
			most, v.System = weight+claim, system
		}
	}
}

// chooseLeader gives the only node that claims the highest timeline ever seen,
// if it is up.
func (g *ledger) chooseLeader(v *topology.View) int {
	for i := range g.nodes {
		if r := &g.nodes[i]; r.system == v.System {
			g.highest = max(g.highest, r.shown)
		}
	}
	if g.ruling != nil {
		return g.ruledLeader(v)
	}
	claims, leader := 0, topology.NoLeader
	for i := range g.nodes {
		r := &g.nodes[i]
		if r.member(v) && r.leader && r.at.Timeline == g.highest && (r.up || g.disputed) {
			claims++
			leader = i
			if r.forks(v.History) { // from one that has led, wherever it is now
				claims++
			}
		}
	}
	g.disputed = claims > 1
	if claims != 1 || !g.nodes[leader].up {
		return topology.NoLeader
	}
	return leader
}

// forks reports whether the node's history is another than h of the same timeline: it
// was promoted without knowing of h's promotion, and so took the same number.
func (r *record) forks(h lsn.History) bool {
	return h.Timeline == r.history.Timeline && h.Known() && r.history.Known() && !slices.Equal(h.Ancestors, r.history.Ancestors)
}

// ruledLeader gives the node that leads by the decree, if it is up and agrees.
func (g *ledger) ruledLeader(v *topology.View) int {
	for i := range g.nodes {
		r := &g.nodes[i]
		if v.Nodes[i].Address == g.ruling.Leader && r.up && r.leader && r.member(v) && r.at.Timeline == g.ruling.Timeline {
			return i
		}
	}
	return topology.NoLeader
}

// member reports whether the node is of the system and can be used at all.
func (r *record) member(v *topology.View) bool {
	return r.system == v.System && r.unsupported == ""
}

// follows reports whether what the node has applied, and what it has received
// and may apply at any moment, is on the leader's history.
func (r *record) follows(v *topology.View) bool {
	end := lsn.Position{Timeline: r.at.Timeline, LSN: max(r.at.LSN, r.received)}
	return r.up && !r.leader && r.member(v) && v.History.Timeline != 0 && v.History.Contains(end)
}

// show writes the state of every node into v.
func (g *ledger) show(v *topology.View) {
	for i := range g.nodes {
		v.Nodes[i].State, v.Nodes[i].Detail = g.state(v, i)
	}
}

// state says whether node id may serve, and if not, why not.
func (g *ledger) state(v *topology.View, id int) (topology.State, string) {
	r := &g.nodes[id]
	switch {
	case !r.heard:
		return topology.Unknown, "not sampled yet"
	case !r.up:
		return topology.Down, r.failure
	case r.unsupported != "":
		return topology.Foreign, r.unsupported
	case v.System == 0:
		return topology.Unknown, "waiting for every node's first answer"
	case r.system != v.System:
		return topology.Foreign, fmt.Sprintf("system identifier %d, the cluster's is %d", r.system, v.System)
	case id == v.Leader:
		return topology.Usable, ""
	case r.leader && r.at.Timeline < g.highest:
		return topology.Superseded, fmt.Sprintf("claims to lead timeline %d, but timeline %d exists", r.at.Timeline, g.highest)
	case r.leader && g.ruling != nil:
		return topology.Superseded, fmt.Sprintf("claims to lead timeline %d, which no decree says", r.at.Timeline)
	case r.leader && g.disputed:
		return topology.Superseded, fmt.Sprintf("not the only node that claims to lead timeline %d", r.at.Timeline)
	case v.History.Timeline == 0:
		return topology.Unknown, "no leader seen yet"
	case !r.follows(v):
		return topology.Diverged, fmt.Sprintf("replayed %v and received %v, which is not on the history of timeline %d",
			r.at, r.received, v.History.Timeline)
	default:
		return r.state, r.reason
	}
}
