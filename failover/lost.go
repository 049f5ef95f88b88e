package failover

import (
	"fmt"
)

// lost decides whether the leader is lost: this proxy cannot reach it, a majority of
// the voters cannot either, and no follower hears from it. A leader that answers late
// still sends its followers something, so slow is not dead.
func (in *Input) lost() (Step, bool) {
	own := in.Sights[0]
	if own.Leader != in.Decree.Leader || own.Silent < in.Timeout {
		return Step{}, false
	}
	silent := in.silent(own.Leader)
	if 2*silent <= in.Voters {
		return Step{Phase: Suspect, Node: own.Leader, Why: fmt.Sprintf("%s has not answered for %v, say %d of %d proxies",
			own.Leader, own.Silent, silent, in.Voters)}, true
	}
	if n := in.alive(); n != nil {
		return Step{Phase: Agree, Node: own.Leader, Why: fmt.Sprintf("%s does not answer, but %s heard from it %v ago",
			own.Leader, n.Address, n.Heard)}, true
	}
	c := in.newChange(Failover, fmt.Sprintf("%s has not answered %d of %d proxies for %v", own.Leader, silent, in.Voters, own.Silent))
	return in.decide(Fence, "", in.Decree.Timeline, c, "%s", c.Why), true
}

// silent counts the voters that cannot reach the leader.
func (in *Input) silent(leader string) int {
	count := 0
	for _, s := range in.Sights {
		if s.Leader == leader && s.Silent >= in.Timeout {
			count++
		}
	}
	return count
}

// alive gives a follower that has heard from the leader lately. One that streams from
// another follower proves nothing.
func (in *Input) alive() *Node {
	for i := range in.Nodes {
		n := &in.Nodes[i]
		if !n.ok() || !n.Follower || !n.Streaming || in.Now.Since(n.Seen) > in.Timeout {
			continue
		}
		if other := in.node(n.Sender); other != nil && other.Address != in.Decree.Leader {
			continue
		}
		if n.Heard+in.Now.Since(n.Seen) < in.Timeout {
			return n
		}
	}
	return nil
}

// back reports whether the old leader answers a majority again, as the leader it was.
func (in *Input) back() bool {
	c := in.Decree.Change
	old := in.node(c.Old)
	if old == nil || !old.ok() || old.Follower || !in.ours(old) || old.Timeline != c.Timeline || old.Seen < in.Since {
		return false
	}
	answered := 0
	for _, s := range in.Sights {
		if s.Leader == c.Old && s.Silent == 0 {
			answered++
		}
	}
	return 2*answered > in.Voters
}

// giveBack decrees the old leader again, which nobody was promoted in place of.
func (in *Input) giveBack(why string) Step {
	c := *in.Decree.Change
	c.Trigger, c.Phase, c.Target, c.Position, c.Lost, c.Promoted = Returned, Repoint, c.Old, c.End, 0, in.Wall
	if old := in.node(c.Old); old != nil && old.Fenced && old.Refused[Ready] == "" {
		return Step{Do: Ready, Phase: Publish, Node: c.Old, To: old.Names, Why: why}
	}
	return in.decide(Publish, c.Old, c.Timeline, &c, "%s", why)
}

// measured reports whether n's position is final: looked at after everybody had
// stopped to write, with its receiver stopped, or, if it would not let it be stopped,
// unchanged for a while.
func (in *Input) measured(n *Node) bool {
	if !n.ok() || n.Seen < in.Since {
		return false
	}
	if n.Refused[Quiet] == "" {
		return n.Quieted && !n.Receiving
	}
	return in.Now.Since(max(n.Still, in.Since)) >= in.Timeout/4
}

// overdue reports whether what is waited for since everybody stopped to write
// has not come.
func (in *Input) overdue() bool { return in.Now.Since(in.Since) >= in.Timeout }
