package lagwatch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

const (
	ourSystem = 7001
	stranger  = 7002
)

// cluster drives a ledger as the nodes' goroutines would.
type cluster struct {
	t      interface{ Fatalf(string, ...any) }
	ledger *ledger
	board  *topology.Board
	now    topology.Instant
}

func newCluster(t interface{ Fatalf(string, ...any) }, nodes int, l limits) *cluster {
	addresses := make([]string, nodes)
	for i := range addresses {
		addresses[i] = fmt.Sprintf("n%d:5432", i)
	}
	return &cluster{t: t, ledger: newLedger(nodes, l, trail{}), board: topology.NewBoard(addresses), now: ms}
}

func (c *cluster) take(id int, s sample) {
	c.now += 10 * ms
	s.begun, s.watched, s.segment = c.now, ms, 16<<20
	if s.system == 0 {
		s.system = ourSystem
	}
	c.board.Update(func(v *topology.View) { c.ledger.sampled(v, id, s) })
}

// leads has node id say that it leads timeline at l; ends are the switch points
// of the timelines before it.
func (c *cluster) leads(id int, timeline uint32, l lsn.LSN, ends ...lsn.LSN) {
	h := lsn.History{Timeline: timeline}
	for i, end := range ends {
		h.Ancestors = append(h.Ancestors, lsn.Switch{Timeline: uint32(i + 1), End: end})
	}
	c.take(id, sample{leader: true, at: lsn.Position{Timeline: timeline, LSN: l}, received: l, history: h})
}

// follows has node id say that it has replayed up to l and received no more.
func (c *cluster) follows(id int, timeline uint32, l lsn.LSN) {
	c.take(id, sample{at: lsn.Position{Timeline: timeline, LSN: l}, received: l})
}

func (c *cluster) fails(id int) {
	c.now += 10 * ms
	c.board.Update(func(v *topology.View) { c.ledger.failed(v, id, "connection refused", 0) })
}

// shows compares leader and states with want: "leader 1: superseded usable down".
func (c *cluster) shows(want string) {
	if h, ok := c.t.(*testing.T); ok {
		h.Helper()
	}
	if got := picture(c.board.View()); got != want {
		c.t.Fatalf("the view is %q, want %q\n%+v", got, want, c.board.View())
	}
}

func picture(v *topology.View) string {
	var states []string
	for _, n := range v.Nodes {
		states = append(states, n.State.String())
	}
	leader := "no leader"
	if v.Leader != topology.NoLeader {
		leader = fmt.Sprintf("leader %d", v.Leader)
	}
	return leader + ": " + strings.Join(states, " ")
}

func TestNothingIsDecidedBeforeAllWereHeard(t *testing.T) {
	c := newCluster(t, 3, limits{})
	c.leads(0, 1, 900) // an old leader that is back, and the first to answer
	c.shows("no leader: unknown unknown unknown")
	c.follows(2, 2, 300)
	c.shows("no leader: unknown unknown unknown")
	c.leads(1, 2, 300, 200)
	// Node 2 answered when there was no leader to compare it with.
	c.shows("leader 1: superseded usable unknown")
	c.follows(2, 2, 300)
	c.shows("leader 1: superseded usable usable")
}

func TestFailureIsHeardToo(t *testing.T) {
	c := newCluster(t, 2, limits{})
	c.fails(1)
	c.leads(0, 1, 100)
	c.shows("leader 0: usable down")
	if v := c.board.View(); v.System != ourSystem || v.Segment != 16<<20 || v.History.Timeline != 1 {
		t.Errorf("system, segment and history are %d, %d, %v", v.System, v.Segment, v.History)
	}
}

func TestLeaderFailsAndAFollowerIsPromoted(t *testing.T) {
	c := newCluster(t, 3, limits{})
	c.leads(0, 1, 500)
	c.follows(1, 1, 400)
	c.follows(2, 1, 300)
	c.follows(1, 1, 400)
	c.shows("leader 0: usable usable usable")

	c.fails(0)
	c.shows("no leader: down usable usable")
	if n := c.board.View().Nodes[0]; !n.Position.IsZero() || n.Sampled != 0 || n.Watched != 0 {
		t.Errorf("of a node that is down is known %+v", n)
	}
	c.follows(2, 1, 350)
	c.shows("no leader: down usable usable")

	c.leads(1, 2, 410, 400)
	c.shows("leader 1: down usable usable")
	v := c.board.View()
	if !v.History.Contains(lsn.Position{Timeline: 1, LSN: 400}) || v.History.Contains(lsn.Position{Timeline: 1, LSN: 401}) {
		t.Errorf("the history is %v", v.History)
	}

	// The old leader returns as one, with more log than the new.
	c.leads(0, 1, 9000)
	c.shows("leader 1: superseded usable usable")
	if got := c.board.View().Nodes[0].Detail; got != "claims to lead timeline 1, but timeline 2 exists" {
		t.Errorf("the old leader is superseded because it %s", got)
	}
	// Also while the new one is out of sight.
	c.fails(1)
	c.shows("no leader: superseded down usable")
	c.leads(0, 1, 9900)
	c.shows("no leader: superseded down usable")
	// Rewound, it follows.
	c.leads(1, 2, 500, 400)
	c.follows(0, 2, 500)
	c.shows("leader 1: usable usable usable")
}

func TestFollowerTellsOfANewerTimeline(t *testing.T) {
	c := newCluster(t, 2, limits{})
	c.leads(0, 1, 500)
	c.follows(1, 1, 400)
	c.follows(1, 2, 450) // of a leader that is not on the list
	c.shows("no leader: superseded diverged")
	c.leads(0, 1, 600)
	c.shows("no leader: superseded diverged")
}

func TestDivergedFollowers(t *testing.T) {
	c := newCluster(t, 2, limits{})
	c.leads(0, 2, 500, 400)
	for _, s := range []struct {
		timeline     uint32
		at, received lsn.LSN
		want         topology.State
		why          string
	}{
		{2, 490, 495, topology.Usable, "on the leader's timeline"},
		{1, 400, 400, topology.Usable, "on the ancestor, at its end"},
		{1, 401, 401, topology.Diverged, "has replayed what was lost"},
		{1, 390, 401, topology.Diverged, "may replay what was lost at any moment"},
		{1, 390, 0, topology.Usable, "has received nothing since it started"},
		{1, 390, 380, topology.Usable, "receives a segment again from its beginning"},
	} {
		c.take(1, sample{at: lsn.Position{Timeline: s.timeline, LSN: s.at}, received: s.received})
		n := c.board.View().Nodes[1]
		if n.State != s.want {
			t.Errorf("%s: %v (%s), want %v", s.why, n.State, n.Detail, s.want)
		}
		if n.Received != max(s.at, s.received) {
			t.Errorf("%s: received %v", s.why, n.Received)
		}
	}
}

func TestTwoClaimants(t *testing.T) {
	c := newCluster(t, 3, limits{})
	c.leads(0, 1, 500)
	c.follows(1, 1, 500)
	c.follows(2, 1, 500)
	c.leads(1, 1, 510) // lost its standby.signal
	c.shows("no leader: superseded superseded usable")
	if got := c.board.View().Nodes[1].Detail; got != "not the only node that claims to lead timeline 1" {
		t.Errorf("it is superseded because it is %s", got)
	}
	// Losing sight of one does not make the other right.
	c.fails(0)
	c.leads(1, 1, 520)
	c.shows("no leader: down superseded usable")
	// Nor does seeing it again.
	c.leads(0, 1, 520)
	c.shows("no leader: superseded superseded usable")
	// It ends when one gives up its claim.
	c.follows(1, 1, 510)
	c.shows("leader 0: usable usable usable")
	// Or when a later timeline decides.
	c.leads(1, 1, 510)
	c.shows("no leader: superseded superseded usable")
	c.leads(2, 2, 530, 500)
	c.shows("leader 2: superseded superseded usable")
}

func TestLeaderMovesWithinATimeline(t *testing.T) {
	c := newCluster(t, 2, limits{}) // a data folder attached to another host
	c.fails(1)
	c.leads(0, 1, 500)
	c.fails(0)
	c.leads(1, 1, 510)
	c.shows("leader 1: down usable")
}

func TestStrangersLeader(t *testing.T) {
	c := newCluster(t, 4, limits{})
	c.take(0, sample{system: stranger, leader: true, at: lsn.Position{Timeline: 3, LSN: 900}})
	c.leads(1, 1, 500)
	c.follows(2, 1, 500)
	c.follows(3, 1, 500)
	c.follows(2, 1, 500)
	c.shows("leader 1: foreign usable usable usable")
	// While our leader is down the other does not become it, nor count as newer.
	c.fails(1)
	c.shows("no leader: foreign down usable usable")
	c.leads(1, 1, 500)
	c.shows("leader 1: foreign usable usable usable")
}

func TestSystemIsSettledByALeader(t *testing.T) {
	c := newCluster(t, 3, limits{})
	c.leads(0, 1, 500)
	c.fails(1)
	c.fails(2)
	c.shows("leader 0: usable down down")
	for _, id := range []int{1, 2} { // now strangers are the majority
		c.take(id, sample{system: stranger, at: lsn.Position{Timeline: 1, LSN: 500}})
	}
	c.shows("leader 0: usable foreign foreign")
}

func TestSystemOfEquals(t *testing.T) {
	c := newCluster(t, 2, limits{})
	c.take(0, sample{system: stranger, at: lsn.Position{Timeline: 1, LSN: 500}})
	c.leads(1, 1, 500)
	c.shows("leader 1: foreign usable")

	c = newCluster(t, 2, limits{})
	c.leads(0, 1, 500)
	c.take(1, sample{system: stranger, leader: true, at: lsn.Position{Timeline: 1, LSN: 500}})
	c.shows("leader 0: usable foreign")
}

func TestUnsupportedServer(t *testing.T) {
	c := newCluster(t, 2, limits{})
	c.take(0, sample{leader: true, at: lsn.Position{Timeline: 1, LSN: 1}, unsupported: "wal_block_size is 16384"})
	c.follows(1, 1, 1)
	c.shows("no leader: foreign unknown")
}

func TestHistoryStaysKnown(t *testing.T) {
	c := newCluster(t, 2, limits{})
	c.leads(0, 2, 500, 400)
	c.follows(1, 1, 300)
	c.shows("leader 0: usable usable")
	c.leads(0, 2, 500) // over a new connection, the history cannot be read
	c.follows(1, 1, 300)
	c.shows("leader 0: usable usable")
	c.leads(0, 3, 600) // of a new timeline nothing is known
	c.follows(1, 1, 300)
	c.shows("leader 0: usable diverged")
	c.leads(0, 3, 600, 400, 550)
	c.follows(1, 1, 300)
	c.shows("leader 0: usable usable")
}

func TestNoLeaderEverSeen(t *testing.T) {
	c := newCluster(t, 2, limits{})
	c.fails(0)
	c.follows(1, 1, 300)
	c.shows("no leader: down unknown")
	if got := c.board.View().Nodes[1].Detail; got != "no leader seen yet" {
		t.Errorf("the follower is not used because: %s", got)
	}
}

func TestLaggingFollower(t *testing.T) {
	c := newCluster(t, 2, limits{bytes: 100, calm: 25 * time.Millisecond})
	c.fails(1)
	c.leads(0, 1, 400)
	c.leads(0, 1, 500)
	c.follows(1, 1, 450)
	c.shows("leader 0: usable usable")
	c.leads(0, 1, 1000)
	c.shows("leader 0: usable usable") // judged by its own next sample only
	c.follows(1, 1, 460)
	c.shows("leader 0: usable lagging")
	if n := c.board.View().Nodes[1]; n.LagBytes != 540 || n.Lag != 30*time.Millisecond || n.Detail != "540 bytes behind, limit 100" {
		t.Errorf("the follower is %d bytes and %v behind: %s", n.LagBytes, n.Lag, n.Detail)
	}
	c.follows(1, 1, 960)
	c.follows(1, 1, 970)
	c.follows(1, 1, 980)
	c.shows("leader 0: usable lagging")
	c.follows(1, 1, 990)
	c.shows("leader 0: usable usable")

	// While the leader is down, lag is measured against where it was last seen.
	c.fails(0)
	c.follows(1, 1, 990)
	c.shows("no leader: down usable")
	if n := c.board.View().Nodes[1]; n.LagBytes != 10 {
		t.Errorf("%d bytes behind a leader last seen at 1000", n.LagBytes)
	}

	// A follower that was dropped and then lost comes back as one that was dropped.
	c.follows(1, 1, 800)
	c.shows("no leader: down lagging")
	c.fails(1)
	c.follows(1, 1, 1000)
	c.shows("no leader: down lagging")
}

func TestOlderSampleIsDiscarded(t *testing.T) {
	c := newCluster(t, 1, limits{})
	c.leads(0, 1, 500)
	old := c.ledger.nodes[0].sample
	old.begun--
	old.at.LSN = 400
	c.board.Update(func(v *topology.View) { c.ledger.sampled(v, 0, old) })
	if got := c.board.View().Nodes[0].Position.LSN; got != 500 {
		t.Errorf("an older sample set the position to %d", got)
	}
}

// Whatever the nodes say: the leader is the only one that claims the highest
// timeline shown so far, nobody serves who is off its history, and a follower
// serves only within the limits.
func TestLedgerInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const nodes = 4
		c := newCluster(t, nodes, limits{bytes: 300})
		highest := uint32(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			id := rapid.IntRange(0, nodes-1).Draw(t, "node")
			timeline := rapid.Uint32Range(1, 3).Draw(t, "timeline")
			at := lsn.LSN(rapid.IntRange(1, 600).Draw(t, "lsn"))
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				c.fails(id)
				timeline = 0
			case 1:
				c.leads(id, timeline, at, []lsn.LSN{200, 400}[:timeline-1]...)
			default:
				c.follows(id, timeline, at)
			}
			highest = max(highest, timeline)
			v := c.board.View()
			for _, n := range v.Nodes {
				if n.State != topology.Usable {
					if n.ID == v.Leader {
						t.Fatalf("the leader is %v", n.State)
					}
					continue
				}
				switch n.Role {
				case topology.RoleLeader:
					if n.ID != v.Leader || n.Position.Timeline != highest {
						t.Fatalf("node %d serves as leader of timeline %d: %s, highest %d", n.ID, n.Position.Timeline, picture(v), highest)
					}
				case topology.RoleFollower:
					if !v.History.Contains(n.Position) || n.LagBytes > 300 {
						t.Fatalf("node %d serves: %+v on %v", n.ID, n, v.History)
					}
				default:
					t.Fatalf("node %d serves in no role", n.ID)
				}
			}
		}
	})
}

// With a decree, what a node claims makes it nobody's leader, and the one that
// leads by the decree leads only once it agrees.
func TestRuling(t *testing.T) {
	c := newCluster(t, 3, limits{})
	rule := func(r Ruling) { c.board.Update(func(v *topology.View) { c.ledger.rule(v, r) }) }
	rule(Ruling{Epoch: 1, Leader: "n0:5432", Timeline: 1})
	c.leads(0, 1, 1000)
	c.follows(1, 1, 1000)
	c.follows(2, 1, 900)
	c.follows(1, 1, 1000)
	c.shows("leader 0: usable usable usable")

	rule(Ruling{Epoch: 2}) // fenced: followers go on
	c.shows("no leader: superseded usable usable")
	c.leads(1, 2, 1100, 1000)
	c.shows("no leader: superseded superseded usable")

	rule(Ruling{Epoch: 3, Leader: "n1:5432", Timeline: 2})
	c.follows(2, 2, 1100)
	c.shows("leader 1: superseded usable usable")
	c.leads(0, 3, 2000, 1000, 1000) // promoted past us: a higher timeline is no argument
	c.shows("leader 1: superseded usable usable")
	if v := c.board.View(); v.Epoch != 3 {
		t.Errorf("the view's epoch is %d, want 3", v.Epoch)
	}

	rule(Ruling{Epoch: 4, Leader: "n2:5432", Timeline: 3})
	c.shows("no leader: superseded superseded usable")
}

// A node that is promoted without having heard of the last promotion takes the same
// timeline's number for another history. It is not followed, though nobody else is
// there to claim it.
func TestSameTimelineTwice(t *testing.T) {
	c := newCluster(t, 3, limits{})
	c.leads(0, 1, 1000)
	c.follows(1, 1, 1000)
	c.follows(2, 1, 900)
	c.fails(0)
	c.leads(1, 2, 1100, 1000)
	c.follows(2, 2, 1050)
	c.follows(2, 2, 1100)
	c.shows("leader 1: down usable usable")
	c.fails(1)
	c.leads(0, 2, 1200, 1005)
	c.shows("no leader: superseded down usable")
	c.leads(1, 2, 1150, 1000)
	c.shows("no leader: superseded superseded usable")
	c.follows(0, 2, 1150) // rewound
	c.shows("leader 1: usable usable usable")
}
