package session

import (
	"slices"
	"sync"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

// acknowledged is what clients of this proxy have been told is committed.
type acknowledged struct {
	mu   sync.Mutex
	ends []lsn.Position // the furthest on each of the latest timelines, oldest first
	at   lsn.Position   // covers all of it, but
	// what was acknowledged by this instant without its position being known.
	// The leader's position, as of later, covers it. 0: nothing.
	unknown topology.Instant
}

// maxEnds is how many timelines are remembered.
const maxEnds = 4

// upTo notes a commit whose position is known.
func (a *acknowledged) upTo(p lsn.Position) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.raise(p)
}

// raise has at cover p, too; mu is held.
func (a *acknowledged) raise(p lsn.Position) {
	a.at = lsn.Later(a.at, p)
	n := len(a.ends)
	if n == 0 || a.ends[n-1].Timeline < p.Timeline {
		a.ends = append(a.ends[max(0, n+1-maxEnds):], p)
		return
	}
	for i := n - 1; i >= 0; i-- { // nearly always the last
		if a.ends[i].Timeline == p.Timeline {
			a.ends[i].LSN = max(a.ends[i].LSN, p.LSN)
			return
		}
	}
}

// unseen notes a commit whose position is not known.
func (a *acknowledged) unseen(at topology.Instant) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unknown = max(a.unknown, at)
}

// told notes that p covers all that was acknowledged by at.
func (a *acknowledged) told(p lsn.Position, at topology.Instant) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.raise(p)
	if a.unknown <= at {
		a.unknown = 0
	}
}

// Acknowledged tells up to where commits were acknowledged through this proxy, on the
// latest timelines, as far as their positions are known.
func (s *Server) Acknowledged() []lsn.Position {
	s.acked.mu.Lock()
	defer s.acked.mu.Unlock()
	return slices.Clone(s.acked.ends)
}

func (a *acknowledged) get() (lsn.Position, topology.Instant) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.at, a.unknown
}

// obligation returns what the session's level requires of a node beside what the
// session itself has written and seen. false: it could not be told in time.
func (s *session) obligation(deadline time.Time) (lsn.Position, bool) {
	switch s.policy.Level {
	case route.LevelStrong:
		// One sample of the leader serves all reads that arrived before it began.
		return s.leaderSince(topology.Now(), deadline)
	case route.LevelService:
		at, unknown := s.srv.acked.get()
		if unknown != 0 {
			present, ok := s.leaderSince(unknown, deadline)
			if !ok {
				return at, false
			}
			s.srv.acked.told(present, unknown)
			at = lsn.Later(at, present)
		}
		if v := s.srv.board.View(); v.Leader != topology.NoLeader && !at.IsZero() && !v.History.Contains(at) {
			return v.Nodes[v.Leader].Position, true // a failover has lost it: its own session is told
		}
		return at, true
	default:
		return lsn.Position{}, true
	}
}

// leaderSince returns the leader's position as sampled after an instant.
func (s *session) leaderSince(since topology.Instant, deadline time.Time) (lsn.Position, bool) {
	s.awaitView(needLeader, func(v *topology.View) bool { _, ok := leaderAt(v, since); return ok }, deadline)
	v := s.srv.board.View()
	at, ok := leaderAt(v, since)
	if ok {
		_, ok = s.srv.leads(v.Leader) // else others may have another by now
	}
	return at, ok
}

// leaderAt returns the leader's position if there is a leader and it was sampled
// after an instant.
func leaderAt(v *topology.View, since topology.Instant) (lsn.Position, bool) {
	if v.Leader == topology.NoLeader {
		return lsn.Position{}, false
	}
	n := &v.Nodes[v.Leader]
	return n.Position, n.Sampled >= since
}

// without places a read for which no follower will do.
func (s *session) without(f route.Fallback, why route.Why, tried uint64) (routing, error) {
	fell := &s.home.counts.fallbacks
	switch f {
	case route.FallError:
		fell[f][why]++
		return routing{}, &wire.Error{
			Code: "LS002", Message: "no follower can serve this read at level " + s.policy.Level.String(),
			Detail: "Reason: " + why.String() + ".",
			Hint:   "Raise lsnproxy.wait, choose another lsnproxy.consistency, or allow the leader with lsnproxy.fallback.",
		}
	case route.FallStale:
		d := route.Pick(s.srv.board.View(), route.Ask{Stay: s.last.node, Tried: tried, Turn: s.turn, Stale: true})
		if d.Why == route.WhyCovers || d.Why == route.WhyStays {
			s.need = lsn.Position{}
			fell[f][why]++
			return routing{node: d.Node, why: route.WhyStale, level: s.policy.Level, view: s.srv.board.View()}, nil
		}
	}
	fell[route.FallLeader][why]++
	return s.onTheLeader(why)
}

// heedful reports whether what a read placed so has shown counts for the reads
// that follow it.
func (s *session) heedful(r routing) bool {
	return r.leader || s.policy.Remembers() && r.why != route.WhyStale
}
