package pool

import (
	"runtime"
	"slices"
	"sync"
	"time"
	"weak"
)

// share is a bound that groups have in common: the connections to one node for
// one database, or for one user. Its lock is taken last, under a group's.
//
// A group that finds no place in it stands in line for one. The next place that
// becomes free is that group's, and so that one does, an idle connection of
// another group is closed, or one that comes back to a group which has had its
// time.
type share struct {
	most int

	mu struct {
		sync.Mutex
		open      int
		hungry    []*Group  // longest first
		since     time.Time // when the first of them became that
		exchanged time.Time // when a connection was last given up for one of them
	}
}

// shareKey names a share: of a database, or else of a user.
type shareKey struct {
	node int
	user bool
	name string
}

// shareLocked returns the share of k; nil if it has no bound.
func (p *Pool) shareLocked(k shareKey, most int) *share {
	if most == 0 {
		return nil
	}
	if s := p.mu.shares[k].Value(); s != nil {
		return s
	}
	s := &share{most: most}
	p.mu.shares[k] = weak.Make(s)
	runtime.AddCleanup(s, p.forgetShare, k)
	return s
}

func (p *Pool) forgetShare(k shareKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.shares[k].Value() == nil {
		delete(p.mu.shares, k)
	}
}

// take takes a place for g, or puts g in line for one.
func (s *share) take(g *Group) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.open < s.most && (len(s.mu.hungry) == 0 || s.mu.hungry[0] == g) {
		s.mu.open++
		s.leaveLocked(g)
		return true
	}
	if !slices.Contains(s.mu.hungry, g) {
		if len(s.mu.hungry) == 0 {
			s.mu.since = time.Now()
		}
		s.mu.hungry = append(s.mu.hungry, g)
	}
	return false
}

// give gives a place back.
func (s *share) give() {
	s.mu.Lock()
	s.mu.open--
	s.mu.Unlock()
}

// leave says that g wants no place any more.
func (s *share) leave(g *Group) {
	s.mu.Lock()
	s.leaveLocked(g)
	s.mu.Unlock()
}

func (s *share) leaveLocked(g *Group) {
	if i := slices.Index(s.mu.hungry, g); i >= 0 {
		s.mu.hungry = slices.Delete(s.mu.hungry, i, i+1)
		s.mu.since = time.Now()
	}
}

// next returns the group that a free place is for, if there are both.
func (s *share) next() *Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.open < s.most && len(s.mu.hungry) > 0 {
		return s.mu.hungry[0]
	}
	return nil
}

// claims reports whether a connection of g that comes back is to be closed for
// another group: at once if nobody in g waits for it, else when that other has
// been patient.
func (s *share) claims(g *Group, busy bool, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.hungry) == 0 || s.mu.hungry[0] == g || s.mu.open < s.most ||
		busy && (now.Sub(s.mu.since) < patience || now.Sub(s.mu.exchanged) < patience) {
		return false
	}
	s.mu.exchanged = now
	return true
}

// takePlacesLocked takes a place in each of the group's shares, or in none.
func (g *Group) takePlacesLocked() bool {
	for i, s := range g.shares {
		if !s.take(g) {
			for _, taken := range g.shares[:i] {
				taken.give()
			}
			return false
		}
	}
	return true
}

// closedLocked accounts for one connection less.
func (g *Group) closedLocked() {
	g.mu.open--
	for _, s := range g.shares {
		s.give()
	}
}

// claimedLocked reports whether a connection that comes back is to be closed for
// another group.
func (g *Group) claimedLocked(now time.Time) bool {
	for _, s := range g.shares {
		if s.claims(g, g.mu.line.Len() > 0, now) {
			return true
		}
	}
	return false
}

// offer gives the places that have become free in the group's shares to those
// who stand in line for them. The caller holds no lock.
func (g *Group) offer() {
	for _, s := range g.shares {
		for next := s.next(); next != nil; next = s.next() {
			next.supply()
			if s.next() == next { // those in its line have something coming after all
				s.leave(next)
			}
		}
	}
}

// supply looks anew what those in line can be given.
func (g *Group) supply() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.supplyLocked()
}

// reclaim closes the longest idle connection of the other groups in a share that
// has no place for g. The caller holds no lock.
func (g *Group) reclaim() {
	for _, s := range g.shares {
		if !s.lacks(g) {
			continue
		}
		for _, other := range g.pool.Groups() {
			if other != g && slices.Contains(other.shares, s) && other.yield() {
				break
			}
		}
	}
}

// lacks reports whether g stands in line for a place, and none is free.
func (s *share) lacks(g *Group) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.open >= s.most && slices.Contains(s.mu.hungry, g)
}

// yield closes the group's longest idle connection, if it has one.
func (g *Group) yield() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.mu.idle) == 0 {
		return false
	}
	g.retire(g.removeIdleLocked(0))
	return true
}
