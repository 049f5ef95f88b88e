package failover

import (
	"context"
	"sync"
	"time"

	"github.com/lsnproxy/lsnproxy/topology"
)

// wakefulness notices that this process has stood still, or starved: what it has not
// heard meanwhile says nothing of the leader. It has a clock of its own, because a step
// that waits for a node that does not answer is no standstill.
type wakefulness struct {
	most time.Duration // a longer pause between two beats is a standstill

	mu   sync.Mutex
	last topology.Instant // beat
	from topology.Instant // since when there was no standstill
}

// run beats until ctx ends.
func (w *wakefulness) run(ctx context.Context) {
	beats := time.NewTicker(w.most / 4)
	defer beats.Stop()
	for {
		w.since(topology.Now())
		select {
		case <-ctx.Done():
			return
		case <-beats.C:
		}
	}
}

// since tells from when on the process has not stood still. To ask is a beat: whoever
// wakes first after a standstill finds it.
func (w *wakefulness) since(now topology.Instant) topology.Instant {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Since(w.last) > w.most {
		w.from = now
	}
	w.last = max(w.last, now)
	return w.from
}
