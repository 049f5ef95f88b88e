package failover

import (
	"fmt"
	"strings"

	"github.com/lsnproxy/lsnproxy/lsn"
)

// choose goes from the fence to the choice: every follower that answers stops to
// receive, is measured, and the furthest one is decreed the target.
func (in *Input) choose() Step {
	if !in.Fenced {
		return in.fencing()
	}
	c := in.Decree.Change
	if in.back() {
		return in.giveBack(fmt.Sprintf("%s answers again before anybody was promoted", c.Old))
	}
	var missing []string
	for i := range in.Nodes {
		n := &in.Nodes[i]
		switch {
		case n.Address == c.Old, n.Seen != 0 && !in.ours(n):
		case !n.ok():
			missing = append(missing, n.Address)
		case n.Follower && !n.Quieted && n.Refused[Quiet] == "":
			return Step{Do: Quiet, Phase: Measure, Node: n.Address, Why: "so that its position stays"}
		case n.Follower && !in.measured(n):
			return Step{Phase: Measure, Node: n.Address, Why: "waiting for its final position"}
		}
	}
	if len(missing) > 0 && !in.overdue() {
		return Step{Phase: Measure, Why: "waiting for " + strings.Join(missing, ", ")}
	}
	if len(missing) > 0 && in.RequireAll {
		return in.blocked("%s cannot be measured, and failover.require_all_followers is set", strings.Join(missing, ", "))
	}
	best := in.best(c.Want)
	if best == nil {
		return in.blocked("no follower on timeline %d can be promoted: %s", c.Timeline, in.standing())
	}
	if why := in.unsynchronous(best); in.Sync && why != "" {
		return in.blocked("durability is sync: %s", why)
	}
	lost := distance(in.end(), best.Received)
	if lost > in.MaxLost {
		return in.blocked("%s lacks %d bytes of what %s had written, failover.max_lost_bytes is %d", best.Address, lost, c.Old, in.MaxLost)
	}
	return in.target(best, lost)
}

func (in *Input) blocked(why string, args ...any) Step {
	return Step{Phase: Choose, Blocked: true, Why: fmt.Sprintf(why, args...)}
}

// target decrees whom to promote. From then on it is this node or none.
func (in *Input) target(n *Node, lost uint64) Step {
	c := *in.Decree.Change
	c.Phase, c.Target, c.Position, c.Lost = Promotion, n.Address, n.Received, lost
	c.End = in.end()
	return in.decide(Choose, "", in.Decree.Timeline, &c, "%s has received up to %v, nobody more", n.Address, n.Received)
}

// end is the furthest position of the old leader's log that anybody is known to have
// seen: the proxies when it still answered, or acknowledged a commit, and every follower,
// also one that does not answer now.
func (in *Input) end() lsn.LSN {
	c := in.Decree.Change
	end := max(c.End, in.Mark, in.acked(c.Timeline))
	for i := range in.Nodes {
		if n := &in.Nodes[i]; n.Address != c.Old && in.ours(n) && n.Follower && n.Timeline == c.Timeline {
			end = max(end, n.Received)
		}
	}
	return end
}

// acked is up to where commits on a timeline were acknowledged, as far as is known.
func (in *Input) acked(timeline uint32) (end lsn.LSN) {
	for _, p := range in.Acked {
		if p.Timeline == timeline {
			end = max(end, p.LSN)
		}
	}
	return end
}

// eligible reports whether n could be promoted: a follower of this system that
// answers, on the newest timeline. Whoever is on an older one may have log that the
// newest does not have, and would open a timeline of a number that exists.
func (in *Input) eligible(n *Node) bool {
	c := in.Decree.Change
	return in.ours(n) && n.ok() && n.Follower && n.Address != c.Old && n.Timeline == c.Timeline && n.Refused[Open] == ""
}

// best is the eligible node that no eligible other is ahead of; of equals, the wanted
// one, then the one that has replayed most, then the first.
func (in *Input) best(want string) *Node {
	var best *Node
	for i := range in.Nodes {
		n := &in.Nodes[i]
		if !in.eligible(n) {
			continue
		}
		switch {
		case best == nil, n.Received > best.Received,
			n.Received == best.Received && n.Address == want,
			n.Received == best.Received && best.Address != want && n.Replayed > best.Replayed:
			best = n
		}
	}
	return best
}

// standing says why each node cannot be promoted.
func (in *Input) standing() string {
	var all []string
	for i := range in.Nodes {
		n := &in.Nodes[i]
		why := ""
		switch {
		case n.Address == in.Decree.Change.Old:
			why = "the old leader"
		case !n.ok():
			why = n.Failed
		case !in.ours(n):
			why = "of another system"
		case !n.Follower:
			why = "not a follower"
		case n.Refused[Open] != "":
			why = n.Refused[Open]
		default:
			why = fmt.Sprintf("on timeline %d", n.Timeline)
		}
		all = append(all, n.Address+": "+why)
	}
	return strings.Join(all, "; ")
}

// unsynchronous says why the node may lack a commit that was acknowledged by
// synchronous standbys; "" if it cannot.
//
// A commit is with so many of the listed standbys (FIRST or ANY count). Which ones may
// have changed since the leader was asked last. But if all listed ones but count-1 are
// measured, one of them has it, and so has the furthest of them.
func (in *Input) unsynchronous(n *Node) string {
	c := in.Decree.Change
	if !c.Sync.Seen {
		return c.Old + " was never asked for its synchronous standbys"
	}
	r, ok := parseRule(c.Sync.Names)
	if !ok {
		return c.Old + " had no synchronous standby (synchronous_standby_names was empty)"
	}
	if !contains(c.Sync.Now, n.Name) {
		return fmt.Sprintf("%s (%s) was not a synchronous standby when %s was seen last; those were: %s",
			n.Address, n.Name, c.Old, strings.Join(c.Sync.Now, ", "))
	}
	listed, measured := len(r.names), 0
	if r.lists("*") {
		listed = len(in.Nodes) - 1
	} else if old := in.node(c.Old); old != nil && old.Name != "" && r.lists(old.Name) {
		listed--
	}
	for i := range in.Nodes {
		if o := &in.Nodes[i]; in.eligible(o) && r.lists(o.Name) {
			measured++
		}
	}
	if need := listed - r.count + 1; measured < need {
		return fmt.Sprintf("of %d listed standbys, any %d of which may hold the last commit, only %d can be measured; %d are needed",
			listed, r.count, measured, need)
	}
	return ""
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}
