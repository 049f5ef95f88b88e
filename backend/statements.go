package backend

import "container/list"

// Unknown is the Unnamed of a connection whose unnamed slot holds something that
// no session remembers.
const Unknown = ^uint64(0)

// Statements is the set of named statements prepared on one connection, least
// recently used first out. The zero value is empty and ready.
type Statements struct {
	// Unnamed identifies the statement that the server's unnamed slot holds; 0
	// if it is not known to hold any of ours.
	Unnamed uint64

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

// Clear forgets all: the server has dropped them.
func (s *Statements) Clear() {
	s.Unnamed = 0
	s.byID = nil
	s.order.Init()
}
