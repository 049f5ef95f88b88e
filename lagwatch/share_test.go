package lagwatch

import (
	"testing"
	"time"
)

// TestSlowStart: the share of a follower that comes back grows to its weight, and
// one that was never away has it from the beginning.
func TestSlowStart(t *testing.T) {
	c := newCluster(t, 3, limits{bytes: 100})
	c.ledger.shares = shares{weights: []uint{1, 2, 1}, slow: 100 * time.Millisecond}
	share := func(id int) uint { return c.board.View().Nodes[id].Share }
	c.leads(0, 1, 500)
	c.follows(1, 1, 500)
	c.follows(2, 1, 500)
	c.leads(0, 1, 500) // now that every node was heard
	c.follows(1, 1, 500)
	c.follows(2, 1, 500)
	if share(1) != 2*unit || share(2) != unit {
		t.Fatalf("at the beginning: %d and %d", share(1), share(2))
	}
	c.fails(1)
	c.follows(1, 1, 500) // 10 ms later each, from here on
	if share(1) != 1 {
		t.Errorf("just back: %d", share(1))
	}
	for range 5 {
		c.follows(1, 1, 500)
	}
	if share(1) != unit+1 {
		t.Errorf("halfway: %d", share(1))
	}
	for range 5 {
		c.follows(1, 1, 500)
	}
	if share(1) != 2*unit {
		t.Errorf("at the end: %d", share(1))
	}
	c.leads(0, 1, 5000)
	c.follows(2, 1, 500)
	c.shows("leader 0: usable usable lagging")
	c.follows(2, 1, 5000)
	c.shows("leader 0: usable usable usable")
	if share(2) != 1 {
		t.Errorf("back from lagging: %d", share(2))
	}
}
