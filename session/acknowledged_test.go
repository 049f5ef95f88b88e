package session

import (
	"slices"
	"testing"

	"github.com/lsnproxy/lsnproxy/lsn"
)

// TestAcknowledged: the furthest of each of the latest timelines is told, also if an
// answer comes when the next leader is known already.
func TestAcknowledged(t *testing.T) {
	at := func(timeline uint32, l lsn.LSN) lsn.Position { return lsn.Position{Timeline: timeline, LSN: l} }
	var s Server
	if all := s.Acknowledged(); len(all) != 0 {
		t.Errorf("before any: %v", all)
	}
	for _, p := range []lsn.Position{at(1, 10), at(1, 30), at(1, 20), at(2, 25), at(1, 40), at(1, 35), at(3, 50), at(4, 60), at(5, 70), at(3, 55)} {
		s.acked.upTo(p)
	}
	if want := []lsn.Position{at(2, 25), at(3, 55), at(4, 60), at(5, 70)}; !slices.Equal(s.Acknowledged(), want) {
		t.Errorf("%v, want %v", s.Acknowledged(), want)
	}
}
