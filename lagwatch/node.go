package lagwatch

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/topology"
)

// node watches one server. It is a task of an event loop: a sample on a goroutine
// of its own, which the Go scheduler puts to sleep and wakes twice for each,
// takes five times as much of the processor.
type node struct {
	w       *Watcher
	id      int
	address string
	loop    *reactor.Loop

	// These belong to the loop.
	task   *reactor.Task
	link   *link // nil while there is none
	closed bool  // the engine is closing
	failed bool  // the task before this one ended in a panic

	samples, failures atomic.Uint64

	replicas atomic.Pointer[[]Replica] // while it leads
	surveyed topology.Instant          // when it was asked for them last; 0: never

	waker reactor.Waker // under Watcher.mu, as the schedule is
	schedule
}

// Run implements reactor.Runner: it samples the node over one connection after
// another until the watcher closes.
func (n *node) Run(t *reactor.Task) {
	n.task = t
	t.Resident()
	n.w.mu.Lock()
	n.waker = t.Waker()
	n.w.mu.Unlock()
	if n.failed {
		n.sleep(n.w.o.Interval)
	}
	n.run(n.w.ctx)
	n.w.all.Done()
}

// Panicked implements the reactor's hook: what was known dies, and all begins anew.
func (n *node) Panicked(any) {
	if n.link != nil {
		n.link.raw.Close()
	}
	n.failed = true
	n.w.publish(func(g *ledger, v *topology.View) { g.failed(v, n.id, "the proxy failed at it", 0) })
	n.loop.Start(n)
}

func (n *node) run(ctx context.Context) {
	for n.alive() {
		lived, err := n.watch(ctx)
		if !n.alive() {
			return
		}
		n.failures.Add(1)
		// A connection that lived and broke may have been ended by an administrator.
		// Try again at once, and only then take a leader for dead.
		again := lived > n.w.o.Interval && !isTimeout(err)
		if !again || n.w.board.View().Leader != n.id {
			silent := topology.Instant(0)
			if isSilence(err) {
				silent = topology.Now()
			}
			n.w.publish(func(g *ledger, v *topology.View) { g.failed(v, n.id, err.Error(), silent) })
		}
		if !again {
			n.sleep(n.w.o.Interval)
		}
	}
}

// alive reports whether to go on.
func (n *node) alive() bool { return !n.closed && n.w.ctx.Err() == nil }

// halt makes the task see that the watcher closes. It runs on the loop.
func (n *node) halt() {
	if n.link != nil {
		n.link.conn.SetDeadline(time.Unix(1, 0))
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.waker.Wake()
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// isSilence reports whether nothing has come from the node's host: no answer in time, or
// the network has found nobody there.
func isSilence(err error) bool {
	return isTimeout(err) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.EHOSTDOWN) || errors.Is(err, syscall.ENETUNREACH)
}

// watch opens a connection and samples over it until it fails or the watcher
// closes. It returns why, and for how long it had a connection.
func (n *node) watch(ctx context.Context) (lived time.Duration, err error) {
	var l *link
	n.task.Offload(func() { l, err = dial(ctx, n.address, &n.w.o, nil) })
	if err != nil {
		return 0, err
	}
	if err := l.attach(n.loop); err != nil {
		return 0, err
	}
	n.link = l
	defer func() {
		lived = topology.Now().Since(l.opened)
		l.close()
		n.link = nil
	}()

	s, err := l.prepare()
	if err != nil {
		return 0, err
	}
	if l.blind {
		n.w.o.Log.Warn("the monitoring login lacks pg_monitor: after a failover a follower's timeline is known "+
			"only from its next restartpoint on, and until then it counts as diverged", "node", n.address)
	}
	histories := past{n: n, link: l}
	for n.alive() {
		if err := l.sample(&s); err != nil {
			return 0, err
		}
		n.samples.Add(1)
		s.history = lsn.History{}
		if s.leader {
			s.history = histories.of(ctx, s.at.Timeline)
		}
		n.tell(s)
		if err := n.clear(l, &s); err != nil {
			return 0, err
		}
		if err := n.survey(l); err != nil {
			return 0, err
		}
		n.rest()
	}
	return 0, ctx.Err()
}

// clear asks a follower whether it shows any of the transactions that may not be
// over on the leader, if somebody waits to know.
func (n *node) clear(l *link, s *sample) error {
	xids, leader := n.suspects(s)
	if len(xids) == 0 {
		return nil
	}
	committed, err := l.committed(xids)
	if refused := (*pgconn.PgError)(nil); errors.As(err, &refused) {
		return nil // nothing is known
	}
	if err == nil && !committed {
		n.w.publish(func(g *ledger, v *topology.View) { g.cleared(v, n.id, s.begun, leader) })
	}
	return err
}

// sleep pauses for d or until the watcher closes.
func (n *node) sleep(d time.Duration) {
	for end := time.Now().Add(d); n.alive() && time.Now().Before(end); {
		n.wait(end)
	}
}

func (n *node) wait(until time.Time) {
	n.closed = n.task.Wait(until)&reactor.Closed != 0
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
