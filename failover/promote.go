package failover

import (
	"fmt"
	"slices"
	"time"
)

// promote opens the target that the decree names, and publishes it once it writes on
// a timeline of its own. There is no way back from here, unless the target refuses:
// one that does not answer may have been promoted, and another one beside it would open
// a timeline of the same number.
func (in *Input) promote() Step {
	if !in.Fenced {
		return in.fencing()
	}
	c := in.Decree.Change
	n := in.node(c.Target)
	switch {
	case n == nil:
		return Step{Phase: Promotion, Blocked: true, Why: c.Target + ", which was to be promoted, is not one of the nodes any more"}
	case !n.ok() || n.Seen < in.Since:
		return Step{
			Phase: Promotion, Node: n.Address, Blocked: in.overdue(),
			Why: fmt.Sprintf("%s, which may have been promoted, does not answer: %s", n.Address, n.Failed),
		}
	case !n.Follower && n.Timeline > c.Timeline:
		return in.publish(n)
	case !n.Follower:
		return Step{Phase: Promotion, Node: n.Address, Why: "waiting until it writes on a new timeline"}
	case n.Refused[Open] != "" && in.back():
		return in.giveBack(c.Old + " answers again, and nobody may be promoted: " + n.Refused[Open])
	case n.Refused[Open] != "":
		return Step{Phase: Promotion, Node: n.Address, Blocked: true, Why: n.Refused[Open]}
	case n.QuietedIn != in.Decree.Epoch && n.Refused[Quiet] == "":
		return Step{Do: Quiet, Phase: Promotion, Node: n.Address, Why: "so that it is promoted now or not at all"}
	case n.Held && n.Refused[Hasten] == "":
		return Step{Do: Hasten, Phase: Replay, Node: n.Address, Why: "its replay is delayed or paused"}
	case n.Replayed < n.Received && !in.stopped(n):
		return Step{Phase: Replay, Node: n.Address, Why: fmt.Sprintf("replayed %v of %v", n.Replayed, n.Received)}
	}
	return Step{Do: Open, Phase: Promotion, Node: n.Address, Why: fmt.Sprintf("at %v", n.Received)}
}

// stopped reports whether a follower's replay has come to its end. What it has received
// may end in the middle of a record, which nobody can replay. Nothing hangs on this: a
// server that is promoted replays all that it has first; it only takes longer then.
func (in *Input) stopped(n *Node) bool {
	return in.Now.Since(max(n.Calm, in.Since)) >= in.Timeout/4
}

// publish lets everybody write to the promoted node.
func (in *Input) publish(n *Node) Step {
	c := *in.Decree.Change
	names := in.standbys(n)
	if n.Refused[Ready] == "" && (n.Fenced || names != n.Names) {
		return Step{Do: Ready, Phase: Promotion, Node: n.Address, To: names, Why: "making it fit to lead"}
	}
	if in.Sync && names != n.Names {
		return Step{Phase: Promotion, Node: n.Address, Blocked: true, Why: "durability is sync, and synchronous_standby_names cannot be set: " + n.Refused[Ready]}
	}
	c.Phase, c.Promoted = Repoint, in.Wall
	if n.Switched != 0 {
		c.Lost = distance(max(c.End, in.acked(c.Timeline)), n.Switched)
	}
	return in.decide(Publish, n.Address, n.Timeline, &c, "%s leads timeline %d", n.Address, n.Timeline)
}

// standbys is what synchronous_standby_names must be on the new leader: what it was
// on the old one, which was set there and not replicated. Without durability sync it
// is left alone.
func (in *Input) standbys(n *Node) string {
	c := in.Decree.Change
	if !in.Sync || !c.Sync.Seen {
		return n.Names
	}
	r, ok := parseRule(c.Sync.Names)
	if !ok {
		return n.Names
	}
	if !r.lists(n.Name) || r.lists("*") {
		return c.Sync.Names
	}
	old := ""
	if o := in.node(c.Old); o != nil {
		old = o.Name
	}
	return r.without(n.Name, old)
}

// finish repoints the followers, has the change recorded, and ends it.
func (in *Input) finish() Step {
	if s, ok := in.repoint(0); ok {
		return s
	}
	if !in.Recorded && in.Mode == Promote {
		return Step{Do: Note, Phase: Record, Node: in.Decree.Leader, Why: "writing the record"}
	}
	return in.decide(Steady, in.Decree.Leader, in.Decree.Timeline, nil, "%s leads timeline %d", in.Decree.Leader, in.Decree.Timeline)
}

// tend keeps followers on the leader, old leaders from being written to, and those that
// follow now from holding log for nobody.
func (in *Input) tend() Step {
	if s, ok := in.repoint(in.Timeout); ok {
		return s
	}
	for i := range in.Nodes {
		n := &in.Nodes[i]
		if n.ok() && in.ours(n) && !n.Follower && n.Timeline < in.Decree.Timeline && !n.Fenced && n.Refused[ReadOnly] == "" {
			return Step{Do: ReadOnly, Phase: Steady, Node: n.Address, Why: fmt.Sprintf("it led timeline %d, which is over", n.Timeline)}
		}
	}
	if s, ok := in.release(); ok {
		return s
	}
	return Step{Phase: Steady}
}

// release finds a follower that led once and still holds log for one of the others,
// which receive from the leader now: it would for ever, and fill its disk. Before any of
// them is pointed there again its slot is made again.
func (in *Input) release() (Step, bool) {
	for i := range in.Nodes {
		n := &in.Nodes[i]
		if !n.ok() || !in.ours(n) || !n.Follower || !n.Streaming || n.Timeline != in.Decree.Timeline || n.Refused[Unslot] != "" {
			continue
		}
		for j := range in.Nodes {
			o := &in.Nodes[j]
			elsewhere := o.Address == in.Decree.Leader || o.Upstream == in.Decree.Leader
			if i != j && o.ok() && elsewhere && o.Slot != "" && slices.Contains(n.Unused, o.Slot) {
				return Step{Do: Unslot, Phase: Steady, Node: n.Address, To: o.Slot, Why: o.Address + " does not receive from it any more"}, true
			}
		}
	}
	return Step{}, false
}

// repoint finds a follower that has received nothing of the present timeline for a
// while and does not look for it at the leader.
func (in *Input) repoint(patience time.Duration) (Step, bool) {
	if in.Mode == Observe {
		return Step{}, false
	}
	leader := in.Decree.Leader
	for i := range in.Nodes {
		n := &in.Nodes[i]
		if n.Address == leader || !n.ok() || !in.ours(n) || !n.Follower || n.Refused[Point] != "" || n.Upstream == leader || in.stray(n) {
			continue
		}
		if n.Streaming && n.Timeline == in.Decree.Timeline && n.Sender != in.formerLeader() {
			continue // from another follower, or by an address that is not among ours
		}
		if !n.Quieted && n.Alone != 0 && in.Now.Since(n.Alone) < patience {
			continue
		}
		return Step{Do: Point, Phase: Repoint, Node: n.Address, To: leader, Why: "it does not receive timeline " + fmt.Sprint(in.Decree.Timeline)}, true
	}
	return Step{}, false
}

func (in *Input) formerLeader() string {
	if c := in.Decree.Change; c != nil && c.Old != in.Decree.Leader {
		return c.Old
	}
	return ""
}
