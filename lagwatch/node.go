package lagwatch

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// node watches one server.
type node struct {
	w       *Watcher
	id      int
	address string
	kick    chan struct{} // one slot: somebody began to wait for this node

	samples, failures atomic.Uint64

	replicas atomic.Pointer[[]Replica] // while it leads
	surveyed topology.Instant          // when it was asked for them last; 0: never
}

// run samples the node over one connection after another until ctx ends.
func (n *node) run(ctx context.Context) {
	for ctx.Err() == nil {
		lived, err := n.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		n.failures.Add(1)
		// A connection that lived and broke may have been ended by an administrator.
		// Try again at once, and only then take a leader for dead.
		again := lived > n.w.o.Interval && !isTimeout(err)
		if !again || n.w.board.View().Leader != n.id {
			n.w.publish(func(g *ledger, v *topology.View) { g.failed(v, n.id, err.Error()) })
		}
		if !again {
			sleep(ctx, n.w.o.Interval)
		}
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// watch opens a connection and samples over it until it fails or ctx ends. It
// returns why, and for how long it had a connection.
func (n *node) watch(ctx context.Context) (lived time.Duration, err error) {
	l, err := dial(ctx, n.address, &n.w.o, nil)
	if err != nil {
		return 0, err
	}
	defer l.close()
	defer l.until(ctx)()
	defer func() { lived = topology.Now().Since(l.opened) }()

	s, err := l.prepare()
	if err != nil {
		return 0, err
	}
	if l.blind {
		n.w.o.Log.Warn("the monitoring login lacks pg_monitor: after a failover a follower's timeline is known "+
			"only from its next restartpoint on, and until then it counts as diverged", "node", n.address)
	}
	histories := past{n: n, link: l}
	for ctx.Err() == nil {
		if err := l.sample(&s); err != nil {
			return 0, err
		}
		n.samples.Add(1)
		s.history = lsn.History{}
		if s.leader {
			s.history = histories.of(ctx, s.at.Timeline)
		}
		n.w.publish(func(g *ledger, v *topology.View) { g.sampled(v, n.id, s) })
		if err := n.survey(l); err != nil {
			return 0, err
		}
		n.rest(ctx)
	}
	return 0, ctx.Err()
}

// rest pauses before the next sample. Without any pause the samples would take
// the processor from the replay they wait for.
func (n *node) rest(ctx context.Context) {
	ended := topology.Now()
	pause := n.pace(ended)
	if pause >= time.Millisecond {
		t := time.NewTimer(pause)
		defer t.Stop()
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-n.kick:
		}
		pause = n.w.o.DemandInterval
	}
	if left := pause - topology.Now().Since(ended); left > 0 {
		nanosleep(left)
	}
}

// While somebody waits, the pause grows from the demand interval with the age of
// the youngest wait: it makes no wait much longer than it was, and a long stall
// costs little.
const (
	slower  = 8 // the pause is this part of the age
	slowest = 10 * time.Millisecond
)

// leaderless is the pause while there is no leader: whoever is promoted should be
// found at once.
const leaderless = 10 * time.Millisecond

// pace gives the pause from now to the next sample if nobody begins to wait.
func (n *node) pace(now topology.Instant) time.Duration {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	v, waits, o := n.w.board.View(), &n.w.mu.waits, &n.w.o
	switch {
	case waits.urgent(v, n.id):
		return max(o.DemandInterval, min(now.Since(waits.youngest)/slower, slowest, o.Interval))
	case v.Leader == topology.NoLeader:
		return min(leaderless, o.Interval)
	default:
		return o.Interval
	}
}

// poke ends a long pause.
func (n *node) poke() {
	select {
	case n.kick <- struct{}{}:
	default: // it has been told already
	}
}

// nanosleep blocks the thread: time.Sleep rounds up to a millisecond when the
// process is otherwise idle, because the runtime sleeps in epoll_wait.
func nanosleep(d time.Duration) {
	left := unix.NsecToTimespec(d.Nanoseconds())
	for unix.Nanosleep(&left, &left) == unix.EINTR {
	}
}

// sleep pauses for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
