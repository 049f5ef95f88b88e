package backend

import (
	"container/list"
	"maps"
	"slices"
)

// Unknown is the Unnamed of a connection whose unnamed slot holds something that
// no session remembers.
const Unknown = ^uint64(0)

// Statements is the set of named statements prepared on one connection, least
// recently used first out. The zero value is empty and ready.
type Statements struct {
	// Unnamed identifies the statement that the server's unnamed slot holds, as of what
	// it has answered; 0 if it is empty.
	Unnamed uint64

	// Own is what the session that holds the connection has prepared under its own
	// names, after Expose; until then it is nil. IDs are not used meanwhile.
	Own map[string]struct{}

	byID  map[uint64]*list.Element
	order list.List // of uint64, most recently used in front
}

// Has reports whether statement id is prepared, and counts as a use.
func (s *Statements) Has(id uint64) bool {
	e, ok := s.byID[id]
	if ok {
		s.order.MoveToFront(e)
	}
	return ok
}

// Add says that statement id is (about to be) prepared.
func (s *Statements) Add(id uint64) {
	if s.byID == nil {
		s.byID = make(map[uint64]*list.Element)
	}
	if _, ok := s.byID[id]; !ok {
		s.byID[id] = s.order.PushFront(id)
	}
}

// Remove says that statement id is not prepared after all.
func (s *Statements) Remove(id uint64) {
	if e, ok := s.byID[id]; ok {
		s.order.Remove(e)
		delete(s.byID, id)
	}
}

// Oldest returns the least recently used statement, if more than most are
// prepared.
func (s *Statements) Oldest(most int) (id uint64, ok bool) {
	if len(s.byID) <= most {
		return 0, false
	}
	return s.order.Back().Value.(uint64), true
}

// Clear forgets all that have names: the server has dropped them. Nothing but another
// Parse or a Query ends the one that has none (DropAllPreparedStatements in
// commands/prepare.c).
func (s *Statements) Clear() {
	s.byID, s.Own = nil, nil
	s.order.Init()
}

// Expose says that from now on statements have the names that their session gives
// them. It returns those there were, which are to be dropped; what has such a name
// already stays.
func (s *Statements) Expose() []uint64 {
	ids := slices.Collect(maps.Keys(s.byID))
	s.byID = nil
	if s.Own == nil {
		s.Own = make(map[string]struct{})
	}
	s.order.Init()
	return ids
}
