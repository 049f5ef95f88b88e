package lagwatch

import (
	"slices"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// reign remembers when the present leader was where, so that a commit whose
// position nobody has asked for can still be held against the history when the
// leader is gone: the first position sampled after it covers it.
type reign struct {
	gap   time.Duration // least time between two marks but the last two
	node  int
	marks []topology.Mark // oldest first, both fields not decreasing; the last is the latest sample
}

// add notes a sample of the leader, begun at an instant.
func (r *reign) add(node int, at topology.Instant, l lsn.LSN) {
	r.node = node
	n := len(r.marks)
	switch {
	case n > 0 && r.marks[n-1].LSN == l:
		r.marks[n-1].At = at
		return
	case n > 1 && at.Since(r.marks[n-2].At) < r.gap:
		n--
	case n == marks:
		copy(r.marks, r.marks[1:])
		n--
	}
	r.marks = append(r.marks[:n], topology.Mark{At: at, LSN: l})
}

// reigns is how many that are over a View shows.
const reigns = 8

// over moves the reign, on a timeline that is no more the leader's, into v.
func (r *reign) over(v *topology.View, timeline uint32) {
	if timeline == 0 || len(r.marks) == 0 {
		return
	}
	past := append(slices.Clone(v.Reigns), topology.Reign{Node: r.node, Timeline: timeline, Marks: slices.Clone(r.marks)})
	v.Reigns = past[max(0, len(past)-reigns):]
	r.marks = r.marks[:0]
}
