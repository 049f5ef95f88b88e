package session

import (
	"time"

	"github.com/lsnproxy/lsnproxy/route"
)

// counts is what the sessions of one loop have done. Only that loop touches it, so
// that counting costs no more than an addition.
type counts struct {
	nodes     []nodeCounts // by node
	probes    uint64       // positions asked for behind commits
	replays   [len(refusals)]uint64
	fallbacks [route.FallbackCount][route.WhyCount]uint64
	waits     waitCounts // of reads, for a follower that will do
	spent     uint64     // of them, in vain
}

type nodeCounts struct {
	reads  [route.LevelCount][route.WhyCount]uint64
	writes uint64
}

// WaitBounds are the upper bounds of the times that Stat counts waits by.
var WaitBounds = [...]time.Duration{
	100 * time.Microsecond, 200 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond,
	10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 10 * time.Second,
}

type waitCounts struct {
	by    [len(WaitBounds) + 1]uint64 // above all bounds before it; the last: above all
	total time.Duration
}

func (w *waitCounts) add(d time.Duration) {
	i := 0
	for i < len(WaitBounds) && d > WaitBounds[i] {
		i++
	}
	w.by[i]++
	w.total += d
}

// Reads is how many reads ran on a node, at a level and for a reason.
type Reads struct {
	Node       int
	Level, Why string
	Count      uint64
}

// Fallbacks is how many reads no follower would do for, by what became of them.
type Fallbacks struct {
	To, Why string
	Count   uint64
}

// countUp adds the counts of all loops up. It waits for each of them.
func (s *Server) countUp() counts {
	all := counts{nodes: make([]nodeCounts, len(s.board.View().Nodes))}
	for _, h := range s.homes {
		done := make(chan struct{})
		if h.loop.Post(func() { all.add(&h.counts); close(done) }) {
			<-done
		} else { // it has ended
			all.add(&h.counts)
		}
	}
	return all
}

func (c *counts) add(o *counts) {
	for i := range o.nodes {
		c.nodes[i].writes += o.nodes[i].writes
		for level := range o.nodes[i].reads {
			for why, n := range o.nodes[i].reads[level] {
				c.nodes[i].reads[level][why] += n
			}
		}
	}
	for i := range o.fallbacks {
		for why, n := range o.fallbacks[i] {
			c.fallbacks[i][why] += n
		}
	}
	for i, n := range o.replays {
		c.replays[i] += n
	}
	for i, n := range o.waits.by {
		c.waits.by[i] += n
	}
	c.waits.total += o.waits.total
	c.spent += o.spent
	c.probes += o.probes
}

// tell fills in what of st is counted by loop.
func (c *counts) tell(st *Stat) {
	for i := range c.nodes {
		n, sum := &c.nodes[i], uint64(0)
		for level := range n.reads {
			for why, count := range n.reads[level] {
				if sum += count; count > 0 {
					st.ReadsBy = append(st.ReadsBy, Reads{i, route.Level(level).String(), route.Why(why).String(), count})
				}
			}
		}
		st.Reads, st.Writes = append(st.Reads, sum), append(st.Writes, n.writes)
	}
	for to := range c.fallbacks {
		for why, count := range c.fallbacks[to] {
			if count > 0 {
				st.Fallbacks = append(st.Fallbacks, Fallbacks{route.Fallback(to).String(), route.Why(why).String(), count})
			}
		}
	}
	for _, count := range c.fallbacks[route.FallStale] {
		st.StaleAllowed += count
	}
	st.Replays = make(map[string]uint64)
	for i, count := range c.replays {
		st.Replays[refusals[i]] = count
	}
	for _, count := range c.waits.by {
		st.Waits += count
	}
	st.WaitTimes = c.waits.by[:]
	st.Waited, st.WaitsSpent, st.Probes = c.waits.total, c.spent, c.probes
}
