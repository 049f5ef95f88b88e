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

// leaderless is the pause between samples while there is no leader: whoever is
// promoted should be found at once.
const leaderless = 10 * time.Millisecond

// node watches one server.
type node struct {
	w       *Watcher
	id      int
	address string
	kick    chan struct{} // one slot: somebody began to wait for this node

	samples, failures atomic.Uint64
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
	past := past{n: n, link: l}
	for ctx.Err() == nil {
		if err := l.sample(&s); err != nil {
			return 0, err
		}
		n.samples.Add(1)
		s.history = lsn.History{}
		if s.leader {
			s.history = past.of(ctx, s.at.Timeline)
		}
		n.w.publish(func(g *ledger, v *topology.View) { g.sampled(v, n.id, s) })
		n.rest(ctx)
	}
	return 0, ctx.Err()
}

// rest pauses before the next sample: for the demand interval while somebody
// waits for this node, else for longer, unless somebody begins to.
//
// Without any pause the samples would take the processor from the replay they
// wait for.
func (n *node) rest(ctx context.Context) {
	ended := topology.Now()
	if pause, urgent := n.pace(); !urgent {
		t := time.NewTimer(pause)
		defer t.Stop()
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-n.kick:
		}
	}
	if left := n.w.o.DemandInterval - topology.Now().Since(ended); left > 0 {
		nanosleep(left)
	}
}

// pace gives the pause until the next sample if nobody begins to wait, and
// whether somebody does already.
func (n *node) pace() (pause time.Duration, urgent bool) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	v := n.w.board.View()
	if n.w.mu.waits.urgent(v, n.id) {
		return 0, true
	}
	if v.Leader == topology.NoLeader {
		return min(leaderless, n.w.o.Interval), false
	}
	return n.w.o.Interval, false
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
