package lagwatch

import (
	"fmt"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// mark says that at instant at the leader had not written past lsn.
type mark struct {
	at  topology.Instant
	lsn lsn.LSN
}

// marks is how many positions of the leader a trail remembers.
const marks = 256

// trail remembers where the leader was when. A follower at a position has all
// that the leader had written by the latest mark not beyond it: so lag in time
// needs no heartbeat table, and a leader that writes nothing leaves no
// follower behind.
type trail struct {
	gap    time.Duration // least time between two marks
	latest mark
	marks  []mark // oldest first, both fields increasing
}

// add notes a sample of the leader: at is the instant before it was asked for.
func (t *trail) add(at topology.Instant, l lsn.LSN) {
	// After a failover the new leader may be behind where the old one was.
	for len(t.marks) > 0 && t.marks[len(t.marks)-1].lsn > l {
		t.marks = t.marks[:len(t.marks)-1]
	}
	t.latest = mark{at, l}
	n := len(t.marks)
	switch {
	case n > 0 && t.marks[n-1].lsn == l:
		t.marks[n-1].at = at
	case n > 0 && at.Since(t.marks[n-1].at) < t.gap:
		// A follower between the two counts as at the older: a little too late.
	default:
		if n == marks {
			copy(t.marks, t.marks[1:])
			t.marks = t.marks[:n-1]
		}
		t.marks = append(t.marks, t.latest)
	}
}

// lag is how far a follower is behind the leader's latest known position. What
// cannot be told has the largest value there is, so that it counts as too much.
type lag struct {
	bytes uint64
	time  time.Duration
}

// behind measures a follower that has replayed up to l. The time is at most one
// gap and one pause between samples of the leader too long, and never too short.
func (t *trail) behind(l lsn.LSN) lag {
	if len(t.marks) == 0 {
		return lag{topology.LagBytesUnknown, topology.LagUnknown}
	}
	if l >= t.latest.lsn {
		return lag{}
	}
	bytes := uint64(t.latest.lsn - l)
	for i := len(t.marks) - 1; i >= 0; i-- {
		if t.marks[i].lsn <= l {
			return lag{bytes, t.latest.at.Since(t.marks[i].at)}
		}
	}
	return lag{bytes, topology.LagUnknown}
}

// limits say when a follower is dropped and when it is taken back.
type limits struct {
	bytes uint64        // 0: no limit
	time  time.Duration // 0: no limit
	calm  time.Duration // how long it must be under half of both to be taken back
}

// exceeded reports whether g is beyond the limits divided by part, and says so.
func (l limits) exceeded(g lag, part uint64) (string, bool) {
	if limit := l.bytes / part; l.bytes > 0 && g.bytes > limit {
		if g.bytes == topology.LagBytesUnknown {
			return "lag in bytes not known yet", true
		}
		return fmt.Sprintf("%d bytes behind, limit %d", g.bytes, limit), true
	}
	if limit := l.time / time.Duration(part); l.time > 0 && g.time > limit {
		if g.time == topology.LagUnknown {
			return "lag in time not known yet", true
		}
		return fmt.Sprintf("%v behind, limit %v", g.time, limit), true
	}
	return "", false
}

// standing is what a follower's lag has made of it.
type standing struct {
	state topology.State // Unknown (not judged yet), Lagging or Usable
	// since is when a lagging follower was first seen under half of the limits,
	// without being seen above since; 0 if it is not.
	since topology.Instant
}

// judge decides on a follower from where it stood, how far it is behind now and
// the limits, and says why. Dropping takes one sample beyond the limit; being
// taken back takes calm at half of it, so that a follower at the limit does
// not come and go. One never judged before is not made to wait.
func (l limits) judge(was standing, g lag, now topology.Instant) (standing, string) {
	if why, over := l.exceeded(g, 1); over {
		unknown := g.time == topology.LagUnknown
		if was.state == topology.Unknown && unknown {
			return standing{state: topology.Unknown}, why
		}
		return standing{state: topology.Lagging}, why
	}
	if was.state != topology.Lagging {
		return standing{state: topology.Usable}, ""
	}
	if why, over := l.exceeded(g, 2); over {
		return standing{state: topology.Lagging}, "not yet under half of the limit: " + why
	}
	if was.since == 0 {
		was.since = now
	}
	if now.Since(was.since) < l.calm {
		return standing{state: topology.Lagging, since: was.since}, "caught up, not for long enough yet"
	}
	return standing{state: topology.Usable}, ""
}
