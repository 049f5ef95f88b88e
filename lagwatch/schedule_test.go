package lagwatch

import (
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// TestFollowersTakeTurns: of two followers that are equally fast both are sampled
// for those who wait for any, though one of them was slow once.
func TestFollowersTakeTurns(t *testing.T) {
	const replayed, took = 300 * time.Microsecond, 100 * time.Microsecond
	w := New(topology.NewBoard([]string{"a:1", "b:1", "c:1"}), engine(t), Options{})
	t.Cleanup(w.Close)
	w.mu.Lock() // nothing samples them but the test
	defer w.mu.Unlock()
	quick, slow := w.nodes[1], w.nodes[2]
	quick.behind, slow.behind = replayed, slowest
	somewhere := lsn.Position{Timeline: 1, LSN: 1}
	samples := map[*node]int{}
	now := topology.Now()
	for range 200 {
		wait := &Wait{w: w, begun: now, need: Need{Followers: true, Node: -1, Position: somewhere}}
		n, at := quick, quick.next(wait.first(quick), true, 0)
		if other := slow.next(wait.first(slow), true, 0); other < at {
			n, at = slow, other
		}
		samples[n]++
		w.mu.waits.turn, n.ended, n.took = at, at+topology.Instant(took), took
		n.learn(wait.begun+topology.Instant(replayed), []*Wait{wait}, nil)
		w.doubtOthers(n)
		now = n.ended + topology.Instant(200*time.Microsecond)
	}
	if samples[slow] < 50 {
		t.Errorf("the one that was slow was sampled %d times of 200", samples[slow])
	}
}
