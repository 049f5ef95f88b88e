package failover

import "fmt"

// begin starts the switchover that was wished for, or refuses it.
func (in *Input) begin(leader *Node) Step {
	refuse := func(why string, args ...any) Step {
		return Step{Do: Refuse, Phase: Steady, Why: fmt.Sprintf(why, args...)}
	}
	if !in.Fenced { // a new coordinator would have to wait for leases that it knows nothing of, and everybody with it
		return Step{Phase: Steady, Node: leader.Address, Why: "waiting until it is known who may write"}
	}
	if !leader.ok() || leader.Follower {
		return refuse("the leader %s does not answer: %s", leader.Address, leader.Failed)
	}
	c := in.newChange(Switchover, "asked for")
	c.Want = in.Wish.To
	probe := *in
	probe.Decree.Change = c
	to := probe.heir()
	switch {
	case in.Wish.To == leader.Address:
		return refuse("%s leads already", leader.Address)
	case in.Wish.To != "" && in.node(in.Wish.To) == nil:
		return refuse("%s is not one of the nodes", in.Wish.To)
	case to == nil:
		return refuse("no follower streams timeline %d: %s", c.Timeline, probe.standing())
	case distance(leader.Received, to.Replayed) > switchoverLag:
		return refuse("%s is %d bytes behind", to.Address, distance(leader.Received, to.Replayed))
	}
	return in.decide(Fence, "", in.Decree.Timeline, c, "switchover to %s", to.Address)
}

// switchoverLag is how far behind a follower may be for a switchover to begin: what
// it has to catch up with is waited for by every writer.
const switchoverLag = 16 << 20

// heir is the follower that a switchover goes to: the wanted one if it streams, or the
// furthest that does.
func (in *Input) heir() *Node {
	want := in.Decree.Change.Want
	var heir *Node
	for i := range in.Nodes {
		n := &in.Nodes[i]
		if !in.eligible(n) || !n.Streaming || want != "" && n.Address != want {
			continue
		}
		if in.Sync && !contains(in.Decree.Change.Sync.Now, n.Name) {
			continue
		}
		if heir == nil || n.Replayed > heir.Replayed {
			heir = n
		}
	}
	return heir
}

// handOver goes from the fence to the choice in a switchover: the old leader is made
// read-only, the others stop to receive, the heir reaches the old leader's end. If that
// takes too long, the old leader is given back; if it dies, this is a failover.
func (in *Input) handOver() Step {
	if !in.Fenced {
		return in.fencing()
	}
	c := in.Decree.Change
	old := in.node(c.Old)
	if in.Sights[0].Leader == c.Old && in.Sights[0].Silent >= in.Timeout && 2*in.silent(c.Old) > in.Voters {
		d := *c
		d.Trigger, d.Why = Failover, c.Old+" was lost during a switchover"
		return in.decide(Fence, "", in.Decree.Timeline, &d, "%s", d.Why)
	}
	if old == nil || !old.ok() || old.Seen < in.Since {
		return Step{Phase: Fence, Node: c.Old, Why: "waiting for the old leader's answer"}
	}
	heir := in.heir()
	if heir == nil || in.Now.Since(in.Since) > in.Drain {
		return in.giveBack("the switchover was given up: " + in.lateness(heir))
	}
	if !old.Fenced && old.Refused[ReadOnly] == "" {
		return Step{Do: ReadOnly, Phase: Fence, Node: old.Address, Why: "nobody shall write past the proxies"}
	}
	for i := range in.Nodes {
		n := &in.Nodes[i]
		if n != heir && n != old && n.ok() && in.ours(n) && n.Follower && !n.Quieted && n.Refused[Quiet] == "" {
			return Step{Do: Quiet, Phase: Measure, Node: n.Address, Why: "so that it does not get ahead of " + heir.Address}
		}
	}
	switch {
	case in.Mark == 0:
		return Step{Do: MarkEnd, Phase: Measure, Node: old.Address, Why: "where its log ends"}
	case heir.Seen < in.Since || heir.Replayed < in.Mark:
		return Step{Phase: Replay, Node: heir.Address, Why: in.lateness(heir)}
	}
	if other := in.ahead(heir); other != nil {
		return Step{Phase: Replay, Node: heir.Address, Why: fmt.Sprintf("%s has received %v, more than %v", other.Address, other.Received, heir.Received)}
	}
	return in.target(heir, 0)
}

// ahead gives an eligible node that has received more than n.
func (in *Input) ahead(n *Node) *Node {
	for i := range in.Nodes {
		if o := &in.Nodes[i]; in.eligible(o) && o.Received > n.Received {
			return o
		}
	}
	return nil
}

func (in *Input) lateness(heir *Node) string {
	if heir == nil {
		return "no follower streams any more"
	}
	return fmt.Sprintf("%s has replayed %v of %v", heir.Address, heir.Replayed, in.Mark)
}
