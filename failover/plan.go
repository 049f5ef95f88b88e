// Package failover changes the leader of the database: a pure plan, and the runner
// that carries it out while this proxy is the coordinator.
//
// The plan is a function, Next: from what the decree says, what the nodes show and
// what the proxies report it tells the one thing to do now. All that must outlive a
// coordinator is in the decree's Change, so that the next one goes on where this one
// stopped; everything else is looked at afresh. Each thing to do may be done twice.
//
// The order of a failover is fence, measure, choose, promote, publish, repoint,
// record. Nothing is promoted before every proxy has stopped to write (fence), and
// the node to be promoted is decreed before it is, so that no two coordinators ever
// promote two nodes.
package failover

import (
	"fmt"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// Settings are what an operator decides. See configs/lsnproxy.yaml.
type Settings struct {
	Mode Mode
	// Timeout is how long a leader must not have answered before it counts as lost;
	// the age up to which a message from it to a follower proves that it lives; and
	// how long a follower that does not answer is waited for before one is chosen.
	Timeout time.Duration
	// Sync: promote only a node that was a synchronous standby, and only when nobody
	// else can hold a commit that it lacks.
	Sync bool
	// MaxLost is how many bytes of the old leader's log, as far as anybody knows it
	// to have been written, the new one may lack.
	MaxLost uint64
	// RequireAll: choose only when every node but the old leader was measured.
	RequireAll bool
	// Drain is how long a switchover may hold writes before it is given up.
	Drain time.Duration
}

// Mode says who decides on the leader.
type Mode uint8

// The modes.
const (
	Observe Mode = iota // others promote; whoever leads the newest timeline is followed
	Promote             // this package promotes
)

// UnmarshalText is part of encoding.TextUnmarshaler.
func (m *Mode) UnmarshalText(text []byte) error {
	switch string(text) {
	case "observe":
		*m = Observe
	case "promote":
		*m = Promote
	default:
		return fmt.Errorf("want observe or promote, not %q", text)
	}
	return nil
}

func (m Mode) String() string { return [...]string{"observe", "promote"}[m] }

// Trigger is why the leader was changed.
type Trigger string

// The triggers. Observed is a promotion by somebody else, Returned the old leader's
// own return before another node was promoted.
const (
	Failover   Trigger = "failover"
	Switchover Trigger = "switchover"
	Observed   Trigger = "observed"
	Returned   Trigger = "returned"
)

// Phase is how far a change has come.
type Phase string

// The phases. Those that a Change may hold are Fence (nobody may write, nobody was
// chosen), Promotion (Target was chosen: it and no other node may be promoted) and
// Repoint (Target leads); the others tell people what is going on.
const (
	Steady    Phase = "steady"
	Suspect   Phase = "suspect"
	Agree     Phase = "agree"
	Fence     Phase = "fence"
	Measure   Phase = "measure"
	Choose    Phase = "choose"
	Replay    Phase = "drain" // of the target's replay
	Promotion Phase = "promote"
	Publish   Phase = "publish"
	Repoint   Phase = "repoint"
	Record    Phase = "record"
)

// Change is one change of the leader as far as it has come.
type Change struct {
	Trigger  Trigger `json:"trigger"`
	Phase    Phase   `json:"phase"`
	Why      string  `json:"why"`
	Began    int64   `json:"began"` // Unix milliseconds, for people
	Old      string  `json:"old,omitempty"`
	Timeline uint32  `json:"timeline"`       // the old leader's
	Want     string  `json:"want,omitempty"` // a switchover's wish; "" for the best
	// End is the furthest position of the old leader's log that anybody has seen.
	End lsn.LSN `json:"end"`
	// Sync is what the old leader said last of its synchronous standbys.
	Sync Sync `json:"sync"`

	Target   string  `json:"target,omitempty"`
	Position lsn.LSN `json:"position,omitempty"` // what Target had received when chosen
	Lost     uint64  `json:"lost,omitempty"`     // End less Position
	Promoted int64   `json:"promoted,omitempty"` // Unix milliseconds, for the record
}

// Decree is what a majority of the proxies has recorded.
type Decree struct {
	Epoch    uint64
	System   uint64
	Leader   string // "": nobody may write
	Timeline uint32
	Change   *Change // nil: none in progress
}

// Sight is what one proxy sees of the leader: what proxies report.
type Sight struct {
	Leader   string        `json:"leader"`
	Silent   time.Duration `json:"silent"` // since when it has not answered; 0: it answers
	Timeline uint32        `json:"timeline"`
	End      lsn.LSN       `json:"end"` // what it had flushed when it answered last
	// Acked is up to where clients of this proxy were told that they have committed, on
	// the latest timelines.
	Acked []lsn.Position `json:"acked,omitempty"`
	Sync  Sync           `json:"sync"`
}

// Wish is a switchover that was asked for.
type Wish struct {
	To string `json:"to"` // "" for the best
}

// Input is all that a decision is made from.
type Input struct {
	Settings
	Now    topology.Instant
	Wall   int64 // Unix milliseconds
	Decree Decree
	Fenced bool             // every proxy has acknowledged the decree, or its lease of an earlier one has run out
	Since  topology.Instant // when Fenced was first seen under this decree
	Voters int
	Sights []Sight // of voters, this one's own included, fresh ones only
	// Acked is Sight.Acked of every proxy that has ever reported to this coordinator.
	Acked []lsn.Position
	Nodes []Node
	Wish  *Wish
	// Mark is what the old leader had written once nobody wrote any more, as far as
	// this coordinator knows: a switchover's target must reach it. 0: not asked yet.
	Mark lsn.LSN
	// Recorded tells that the record of the present change is written, or that it
	// cannot be.
	Recorded bool
}

// Do is a thing to do.
type Do uint8

// The things to do.
const (
	Wait     Do = iota // nothing, for now
	Decide             // have Step.Decree recorded
	Quiet              // stop Node from receiving log
	ReadOnly           // make Node refuse writes, as far as that goes
	MarkEnd            // have Node, the old leader, flush all and tell how far that is: Input.Mark
	Hasten             // have Node replay what it has received without delay or pause
	Open               // promote Node
	Ready              // make Node fit to lead: not read-only, the right synchronous standbys
	Point              // have Node stream from Step.To
	Unslot             // drop the replication slot Step.To on Node
	Note               // write the record
	Refuse             // tell who wished for a switchover that it will not be
)

func (d Do) String() string {
	return [...]string{"wait", "decide", "quiet", "read-only", "mark", "hasten", "promote", "ready", "repoint", "drop slot", "record", "refuse"}[d]
}

// Step is the one thing to do now.
type Step struct {
	Do      Do
	Phase   Phase
	Node    string // whom it is done to
	To      string // Point: the leader; Ready: the synchronous_standby_names to set; Unslot: the slot
	Decree  Decree // Decide
	Blocked bool   // a person is needed, or time
	Why     string
}

// Next tells the one thing to do now. Only the coordinator may do it.
func Next(in Input) Step {
	c := in.Decree.Change
	if s, ok := in.overtaken(); ok {
		return s
	}
	switch {
	case c == nil && in.Decree.Leader == "":
		return in.adopt()
	case c == nil || c.Phase == Repoint:
		return in.guard()
	case c.Trigger == Observed:
		return in.follow()
	case c.Phase == Promotion:
		return in.promote()
	case c.Trigger == Switchover:
		return in.handOver()
	default:
		return in.choose()
	}
}

// adopt makes the node that leads the decree's leader, when there is none: at the
// first start, and in mode Observe. A node on an older timeline than one that was
// ever decreed is an old leader.
func (in *Input) adopt() Step {
	leader, why := in.claimant()
	if leader == nil {
		return Step{Phase: Choose, Blocked: true, Why: why}
	}
	if !in.Fenced && in.Decree.Epoch > 0 {
		return Step{Phase: Fence, Why: "waiting until every proxy has stopped to write"}
	}
	return in.decide(Publish, leader.Address, leader.Timeline, nil, "leads timeline %d", leader.Timeline)
}

// claimant is the only node that claims to lead the newest timeline.
func (in *Input) claimant() (*Node, string) {
	newest := in.Decree.Timeline
	for i := range in.Nodes {
		n := &in.Nodes[i]
		if n.Seen == 0 && n.Failed == "" {
			return nil, "not every node was looked at yet"
		}
		if in.ours(n) {
			newest = max(newest, n.Timeline)
		}
	}
	var leader *Node
	for i := range in.Nodes {
		n := &in.Nodes[i]
		if !in.ours(n) || n.Follower || n.Timeline < newest {
			continue
		}
		if leader != nil {
			return nil, fmt.Sprintf("%s and %s both claim to lead timeline %d", leader.Address, n.Address, newest)
		}
		leader = n
	}
	switch {
	case leader == nil:
		return nil, fmt.Sprintf("no node accepts writes on timeline %d or later", newest)
	case !leader.ok():
		return nil, leader.Address + " does not answer: " + leader.Failed
	case in.Mode == Observe && leader.Denial != "":
		return nil, leader.Address + " claims to lead, and Patroni denies it: " + leader.Denial
	}
	return leader, ""
}

// guard looks after a leader that is decreed: is it there, is a switchover wished
// for, do the others follow it, is the change that made it leader recorded?
func (in *Input) guard() Step {
	leader := in.node(in.Decree.Leader)
	if leader == nil {
		return in.decide(Fence, "", in.Decree.Timeline, nil, "%s is not one of the nodes any more", in.Decree.Leader)
	}
	if in.Mode == Observe {
		if in.deposed(leader) {
			return in.decide(Fence, "", in.Decree.Timeline, nil, "Patroni denies that %s leads: %s", leader.Address, leader.Denial)
		}
		if in.Decree.Change != nil {
			return in.finish()
		}
		return Step{Phase: Steady}
	}
	if s, lost := in.lost(); lost {
		return s
	}
	if in.Decree.Change != nil {
		return in.finish()
	}
	if in.Wish != nil {
		return in.begin(leader)
	}
	return in.tend()
}

// overtaken notices that somebody else has promoted a node: one that leads a newer
// timeline than the decree's, or the same one beside the decreed leader. Whatever was
// under way is over then.
func (in *Input) overtaken() (Step, bool) {
	d := &in.Decree
	if d.Leader == "" && (d.Change == nil || d.Change.Trigger == Observed) {
		return Step{}, false
	}
	for i := range in.Nodes {
		n := &in.Nodes[i]
		if !in.ours(n) || !n.ok() || n.Follower || n.Timeline < d.Timeline {
			continue
		}
		if n.Timeline == d.Timeline && (d.Leader == "" || n.Address == d.Leader) ||
			n.Timeline > d.Timeline && d.Leader == "" && n.Address == d.Change.Target {
			continue
		}
		var c *Change
		why := fmt.Sprintf("%s leads timeline %d", n.Address, n.Timeline)
		if d.Leader != "" {
			c = in.newChange(Observed, why)
		} else {
			changed := *d.Change
			changed.Trigger, changed.Phase, changed.Why, changed.Target = Observed, Fence, why, ""
			c = &changed
		}
		return in.decide(Fence, "", d.Timeline, c, "%s", why), true
	}
	return Step{}, false
}

// follow publishes what somebody else has promoted, once nobody writes elsewhere.
func (in *Input) follow() Step {
	if !in.Fenced {
		return in.fencing()
	}
	leader, why := in.claimant()
	if leader == nil {
		return Step{Phase: Choose, Blocked: true, Why: why}
	}
	c := *in.Decree.Change
	c.Phase, c.Target, c.Position, c.Promoted = Repoint, leader.Address, leader.Replayed, in.Wall
	if leader.Switched != 0 {
		c.Lost = distance(max(c.End, in.acked(c.Timeline)), leader.Switched)
	}
	return in.decide(Publish, leader.Address, leader.Timeline, &c, "leads timeline %d", leader.Timeline)
}

func (in *Input) fencing() Step {
	return Step{Phase: Fence, Why: "waiting until every proxy has stopped to write"}
}

// newChange begins a change of the decreed leader.
func (in *Input) newChange(trigger Trigger, why string) *Change {
	c := &Change{
		Trigger: trigger, Phase: Fence, Why: why, Began: in.Wall,
		Old: in.Decree.Leader, Timeline: in.Decree.Timeline,
	}
	for _, s := range in.Sights {
		if s.Leader == c.Old && s.Timeline == c.Timeline && s.End > c.End {
			c.End = s.End
		}
		if s.Leader == c.Old && s.Sync.Seen && (!c.Sync.Seen || s.End >= c.End) {
			c.Sync = s.Sync
		}
	}
	return c
}

// decide is the step that has a decree recorded.
func (in *Input) decide(phase Phase, leader string, timeline uint32, c *Change, why string, args ...any) Step {
	d := Decree{Epoch: in.Decree.Epoch, System: in.system(), Leader: leader, Timeline: timeline, Change: c}
	if was := in.Decree; leader != was.Leader || timeline != was.Timeline || d.System != was.System {
		d.Epoch++
	}
	return Step{Do: Decide, Phase: phase, Node: leader, Decree: d, Why: fmt.Sprintf(why, args...)}
}

// system is the identifier of the database system: the decreed one, or else that of
// most nodes.
func (in *Input) system() uint64 {
	if in.Decree.System != 0 {
		return in.Decree.System
	}
	count := make(map[uint64]int)
	best := uint64(0)
	for _, n := range in.Nodes {
		if n.System == 0 {
			continue
		}
		if count[n.System]++; count[n.System] > count[best] {
			best = n.System
		}
	}
	return best
}

// ours reports whether n was ever seen and is of this system.
func (in *Input) ours(n *Node) bool { return n.Seen != 0 && n.System == in.system() }

func (in *Input) node(address string) *Node {
	for i := range in.Nodes {
		if in.Nodes[i].Address == address {
			return &in.Nodes[i]
		}
	}
	return nil
}

// distance is how far b is behind a.
func distance(a, b lsn.LSN) uint64 {
	if a <= b {
		return 0
	}
	return uint64(a - b)
}
