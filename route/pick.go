package route

import (
	"time"

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
	WhyLevel                 // the session's level asks for the leader
	WhyStays                 // the follower that served the session's last read, still good
	WhyCovers                // a follower that has applied what the session has seen
	WhyWaited                // the same, after waiting for it
	WhyReturns               // back to the follower that is the session's by weight
	WhyNoFollower            // no usable follower
	WhyBudget                // no follower got there within the waiting budget
	WhyHopeless              // every follower is known to be further behind than the waiting budget
	WhyNotSettled            // what the session has seen could not be told in time
	WhyStale                 // no follower will do, and the policy allows one that does not
)

// WhyCount is how many reasons there are.
const WhyCount = 15

func (w Why) String() string {
	return [WhyCount]string{
		"nothing routed yet", "connection held", "not provably a read", "refused by a follower",
		"functions not loaded", "level leader", "stays on its follower", "follower covers the token",
		"follower reached the token while waited for", "returns to its follower", "no usable follower",
		"no follower reached the token in time", "every follower is further behind than the waiting budget",
		"last read's position not known in time", "stale read allowed",
	}[w]
}

// Ask is what Pick decides on, beside the View.
type Ask struct {
	Need  lsn.Position // what the node must have applied
	Stay  int          // the node that served the session's last read, or NoNode
	Tried uint64       // nodes that have failed this statement: bit 1<<ID
	Turn  uint32       // spreads sessions over the followers: a number at random, always the same for a session

	// MaxAge and MaxBytes bound what the node may miss; 0: no bound. Now is the
	// present instant, which an age is measured to.
	MaxAge   time.Duration
	MaxBytes uint64
	Now      topology.Instant

	Nearest bool // prefer the follower that misses least, whatever the weights
	Stale   bool // a follower that lags will do as well
	Return  bool // leave Stay if another follower is the session's by weight
}

// NoNode stands for no node.
const NoNode = -1

// Decision is where a read goes.
type Decision struct {
	Node int  // NoNode if there is none: neither a follower nor a leader
	Wait bool // no usable follower will do yet; one may if waited for
	Why  Why
}

// Pick chooses the node of a read: the follower the session is on if that is
// still good, else one that covers what it has seen, else it says to wait. It
// goes by what the View says; the caller still has to prove the position on the
// connection it gets (topology.View.Proves).
func Pick(v *topology.View, a Ask) Decision {
	usable, best := 0, NoNode
	total := uint(0)
	for i := range v.Nodes {
		if !serves(v, i, &a) {
			continue
		}
		usable++
		if !covers(v, i, &a) {
			continue
		}
		if i == a.Stay && !a.Return {
			return Decision{Node: i, Why: WhyStays}
		}
		total += v.Nodes[i].Share
		if best == NoNode || a.Nearest && v.Nodes[i].Position.LSN > v.Nodes[best].Position.LSN {
			best = i
		}
	}
	switch {
	case best != NoNode:
		if !a.Nearest && total > 0 {
			best = drawn(v, &a, total)
		}
		why := WhyCovers
		if best == a.Stay {
			why = WhyStays
		} else if a.Return {
			why = WhyReturns
		}
		return Decision{Node: best, Why: why}
	case usable > 0:
		return Decision{Node: v.Leader, Wait: true, Why: WhyBudget}
	default:
		return Decision{Node: v.Leader, Why: WhyNoFollower}
	}
}

// serves reports whether node i may serve reads as a follower.
func serves(v *topology.View, i int, a *Ask) bool {
	n := &v.Nodes[i]
	return (n.State == topology.Usable || a.Stale && n.State == topology.Lagging) &&
		n.Role == topology.RoleFollower && a.Tried&(1<<uint(i)) == 0
}

// covers reports whether node i misses nothing that it must not.
func covers(v *topology.View, i int, a *Ask) bool {
	n := &v.Nodes[i]
	return v.History.Covers(n.Position, a.Need) &&
		(a.MaxBytes == 0 || n.LagBytes <= a.MaxBytes) &&
		(a.MaxAge == 0 || n.Fresh > 0 && a.Now.Since(n.Fresh) <= a.MaxAge)
}

// drawn returns the follower that is the asker's by the shares of all that will do:
// Turn is a point on a line on which each has its share. So a share that grows or
// shrinks moves few askers, and those only from or to it and its neighbours.
func drawn(v *topology.View, a *Ask, total uint) int {
	point := uint(uint64(a.Turn) * uint64(total) >> 32)
	for i := range v.Nodes {
		if serves(v, i, a) && covers(v, i, a) {
			if point < v.Nodes[i].Share {
				return i
			}
			point -= v.Nodes[i].Share
		}
	}
	return NoNode
}

// Hopeless reports whether no usable follower can be expected to get anywhere
// new within wait: each was further behind than that when it was last sampled.
func Hopeless(v *topology.View, a Ask, wait time.Duration) bool {
	for i := range v.Nodes {
		if serves(v, i, &a) && v.Nodes[i].Lag <= wait {
			return false
		}
	}
	return true
}
