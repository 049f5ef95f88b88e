package lagwatch

import (
	"time"

	"github.com/lsnproxy/lsnproxy/topology"
)

// shares say how the reads that any follower may serve are spread.
type shares struct {
	weights []uint // by node; nil: all alike
	// A follower that becomes usable again has cold caches: its share grows from
	// almost nothing to its weight in this time. 0: at once.
	slow time.Duration
}

// unit is the share of a follower of weight 1.
const unit = 1000

// of returns node id's share at now. returned is when it became usable again;
// 0: long ago.
func (s *shares) of(id int, returned, now topology.Instant) uint {
	full := uint(unit)
	if s.weights != nil {
		full *= s.weights[id]
	}
	since := now.Since(returned)
	if returned == 0 || s.slow <= 0 || since >= s.slow {
		return full
	}
	return min(full, 1+uint(float64(full)*float64(since)/float64(s.slow)))
}
