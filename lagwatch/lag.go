package lagwatch

import (
	"fmt"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// mark says that at instant at the leader had not flushed past lsn.
type mark struct {
	at  topology.Instant
	lsn lsn.LSN
}

// marks is how many positions of the leader a trail remembers.
const marks = 256

// trail remembers what the leader had flushed when. A follower at a position has
// all that the leader had flushed by the latest mark not beyond it: so lag in
// time needs no heartbeat table, and a leader that writes nothing leaves no
// follower behind. Flushed and not inserted, because followers get no more: the
// log of an open transaction may stay unflushed for many seconds.
type trail struct {
	gap    time.Duration // least time between two marks
	latest mark
	marks  []mark // oldest first, both fields increasing
	recent []mark // the latest samples, whatever the gap
}

// samples is how many of them a trail remembers: while the leader is sampled for
// somebody who waits, a gap would be much longer than what they wait.
const samples = 64

// add notes a sample of the leader: at is the instant before it was asked for.
func (t *trail) add(at topology.Instant, l lsn.LSN) {
	// After a failover the new leader may be behind where the old one was.
	for len(t.marks) > 0 && t.marks[len(t.marks)-1].lsn > l {
		t.marks = t.marks[:len(t.marks)-1]
	}
	switch last := len(t.recent) - 1; {
	case last >= 0 && t.recent[last].lsn > l:
		t.recent = t.recent[:0]
	case last+1 == samples:
		t.recent = t.recent[:copy(t.recent, t.recent[1:])]
	}
	t.latest = mark{at, l}
	t.recent = append(t.recent, t.latest)
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
	fresh topology.Instant // all that the leader had flushed by then is replayed
}

// A leader flushes whole pages in the background, so that the end of what it has
// flushed may be the first part of a record, which no follower can replay. Only
// then is it at a page start. unfinished is how long such a part may be to be
// taken for one; a few records are longer.
const (
	page       = 8192
	unfinished = 8 * page
)

// behind measures a follower that has replayed up to l and received up to
// received. The time is at most one gap and one pause between samples of the
// leader too long, and too short only by such a part.
func (t *trail) behind(l, received lsn.LSN) lag {
	if len(t.marks) == 0 {
		return lag{bytes: topology.LagBytesUnknown, time: topology.LagUnknown}
	}
	end := t.latest.lsn
	if l >= end {
		return lag{fresh: t.latest.at}
	}
	g := lag{bytes: uint64(end - l), time: topology.LagUnknown}
	for _, marks := range [...][]mark{t.recent, t.marks} {
		for i := len(marks) - 1; i >= 0 && g.fresh == 0; i-- {
			if marks[i].lsn <= l {
				g.fresh = marks[i].at
				g.time = t.latest.at.Since(g.fresh)
			}
		}
	}
	if end%page == 0 && received >= end && end-l < unfinished {
		g.bytes, g.time = 0, 0 // fresh stays: there may be whole records in between
	}
	return g
}

// limits say when a follower is dropped and when it is taken back.
type limits struct {
	bytes uint64        // 0: no limit
	time  time.Duration // 0: no limit
	calm  time.Duration // how long it must be under half of both to be taken back
}

// exceeded says why g is beyond the limits divided by part, or nothing if it is
// not. measured is false if that is only because it cannot be told.
func (l limits) exceeded(g lag, part uint64) (why string, measured bool) {
	bytes, time := l.bytes/part, l.time/time.Duration(part)
	switch {
	case l.bytes > 0 && g.bytes > bytes && g.bytes != topology.LagBytesUnknown:
		return fmt.Sprintf("%d bytes behind, limit %d", g.bytes, bytes), true
	case l.time > 0 && g.time > time && g.time != topology.LagUnknown:
		return fmt.Sprintf("%v behind, limit %v", g.time, time), true
	case l.bytes > 0 && g.bytes == topology.LagBytesUnknown:
		return "lag in bytes not known yet", false
	case l.time > 0 && g.time == topology.LagUnknown:
		return "lag in time not known yet", false
	}
	return "", true
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
	if why, measured := l.exceeded(g, 1); why != "" {
		if was.state == topology.Unknown && !measured {
			return standing{}, why
		}
		return standing{state: topology.Lagging}, why
	}
	if was.state != topology.Lagging {
		return standing{state: topology.Usable}, ""
	}
	if why, _ := l.exceeded(g, 2); why != "" {
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
