package route

import (
	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// Why is the reason a node was picked.
type Why uint8

// The reasons. The first group is about the statement, the second about reads.
const (
	WhyNothing    Why = iota // nothing has been routed yet
	WhyBound                 // the transaction or the session holds this connection
	WhyNotRead               // the statement may write, or is not provably a read
	WhyReplay                // a follower refused it; run again on the leader
	WhyNoCatalog             // what the database's functions do is not known at the moment
	WhyStays                 // the follower that served the session's last read, still good
	WhyCovers                // a follower that has applied what the session has seen
	WhyWaited                // the same, after waiting for it
	WhyNoFollower            // no usable follower
	WhyBudget                // no follower got there within the waiting budget
	WhyNotSettled            // what the session has seen could not be told in time
)

func (w Why) String() string {
	return [...]string{
		"nothing routed yet", "connection held", "not provably a read", "refused by a follower",
		"functions not loaded", "stays on its follower", "follower covers the token",
		"follower reached the token while waited for", "no usable follower",
		"no follower reached the token in time", "last read's position not known in time",
	}[w]
}

// Ask is what Pick decides on, beside the View.
type Ask struct {
	Need  lsn.Position // what the node must have applied
	Stay  int          // the node that served the session's last read, or NoNode
	Tried uint64       // nodes that have failed this statement: bit 1<<ID
	Turn  uint         // spreads sessions that have no follower yet
}

// NoNode stands for no node.
const NoNode = -1

// Decision is where a read goes.
type Decision struct {
	Node int  // NoNode if there is none: neither a follower nor a leader
	Wait bool // no usable follower has applied Need yet; one may if waited for
	Why  Why
}

// Pick chooses the node of a read: the follower the session is on if that is
// still good, else one that covers what it has seen, else it says to wait. It
// goes by what the View says; the caller still has to prove the position on the
// connection it gets (topology.View.Proves).
func Pick(v *topology.View, a Ask) Decision {
	usable, covering := 0, 0
	for i := range v.Nodes {
		if !serves(v, i, a) {
			continue
		}
		usable++
		if v.History.Covers(v.Nodes[i].Position, a.Need) {
			if i == a.Stay {
				return Decision{Node: i, Why: WhyStays}
			}
			covering++
		}
	}
	switch {
	case covering > 0:
		return Decision{Node: nth(v, a, int(a.Turn%uint(covering))), Why: WhyCovers}
	case usable > 0:
		return Decision{Node: v.Leader, Wait: true, Why: WhyBudget}
	default:
		return Decision{Node: v.Leader, Why: WhyNoFollower}
	}
}

// serves reports whether node i may serve reads as a follower.
func serves(v *topology.View, i int, a Ask) bool {
	n := &v.Nodes[i]
	return n.State == topology.Usable && n.Role == topology.RoleFollower && a.Tried&(1<<uint(i)) == 0
}

// nth returns the n-th of the followers that serve and cover.
func nth(v *topology.View, a Ask, n int) int {
	for i := range v.Nodes {
		if serves(v, i, a) && v.History.Covers(v.Nodes[i].Position, a.Need) {
			if n == 0 {
				return i
			}
			n--
		}
	}
	return NoNode
}
