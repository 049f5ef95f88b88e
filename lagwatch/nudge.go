package lagwatch

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// nudger ends stalls on a quiet leader. A right token may stand for log that
// nobody flushes for many seconds: that of another session's open transaction,
// or of an asynchronous commit. Followers get only what is flushed. A commit
// with an xid of its own flushes everything before it, so one nudge serves all
// who wait.
//
// One goroutine, one connection (opened when first needed and kept), at most
// one nudge at a time and at most one for each wait.
type nudger struct {
	w    *Watcher
	kick chan struct{} // one slot: a wait for a position has lasted too long
	idle atomic.Bool   // it sleeps until kicked

	link *link // to the leader; nil if there is none
	node int   // whom link goes to

	failing bool // the last nudge could not be carried out

	done, failed atomic.Uint64
}

// poke tells the nudger to look, if it does not watch the clock already.
func (d *nudger) poke() {
	if d.idle.Load() {
		select {
		case d.kick <- struct{}{}:
		default: // it has been told already
		}
	}
}

// run nudges the leader whenever a wait has lasted too long, until ctx ends.
func (d *nudger) run(ctx context.Context) {
	defer d.drop()
	for ctx.Err() == nil {
		// Idle is set before looking: a wait begun after the look kicks.
		d.idle.Store(true)
		covered, target, due := d.look(topology.Now())
		switch {
		case len(covered) == 0:
			select {
			case <-ctx.Done():
			case <-d.kick:
			}
		case due > 0:
			d.idle.Store(false)
			sleep(ctx, due)
		default:
			d.idle.Store(false)
			d.serve(ctx, covered, target)
		}
	}
}

// look returns the waits that a nudge begun now would cover, the furthest of
// their positions, and in what time the oldest of them will have lasted too
// long. Positions on another timeline than the leader's are no matter of
// flushing.
func (d *nudger) look(now topology.Instant) (covered []*Wait, target lsn.LSN, due time.Duration) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	v := d.w.board.View()
	if v.Leader == topology.NoLeader {
		return nil, 0, 0
	}
	oldest, flushed := now, v.Nodes[v.Leader].Received
	for _, wait := range d.w.mu.waits.open {
		p := wait.need.Position
		if p.IsZero() || wait.flushed || p.Timeline != v.History.Timeline || p.LSN <= flushed {
			continue
		}
		covered = append(covered, wait)
		target = max(target, p.LSN)
		oldest = min(oldest, wait.begun)
	}
	return covered, target, d.w.o.NudgeAfter - now.Since(oldest)
}

// serve sees to it that the leader has flushed up to target.
func (d *nudger) serve(ctx context.Context, covered []*Wait, target lsn.LSN) {
	nudged, err := d.flush(ctx, target)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		d.drop()
		d.failed.Add(1)
		if !d.failing {
			d.failing = true
			d.w.o.Log.Warn("a stalled leader cannot be nudged", "why", err.Error())
		}
		sleep(ctx, d.w.o.Interval)
		return
	}
	d.failing = false
	if nudged {
		d.done.Add(1)
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	for _, wait := range covered {
		wait.flushed = true
	}
}

// flush commits an empty message on the leader, unless it has flushed up to
// target already: then the stall is the follower's. It reports whether it did.
func (d *nudger) flush(ctx context.Context, target lsn.LSN) (nudged bool, err error) {
	v := d.w.board.View()
	if v.Leader == topology.NoLeader {
		return false, errors.New("there is no leader")
	}
	sql := fmt.Sprintf("SELECT pg_logical_emit_message(true, '', '') WHERE pg_current_wal_flush_lsn() < '%v'", target)
	if d.link != nil && d.node == v.Leader {
		if row, err := d.query(ctx, sql); err == nil {
			return row != nil, nil
		}
		// The connection was idle and may be of an earlier run of the server.
	}
	d.drop()
	if d.link, err = dial(ctx, v.Nodes[v.Leader].Address, &d.w.o, flushing); err != nil {
		return false, err
	}
	d.node = v.Leader
	row, err := d.query(ctx, sql)
	return row != nil, err
}

func (d *nudger) query(ctx context.Context, sql string) ([]string, error) {
	defer d.link.until(ctx)()
	return d.link.query(sql)
}

// flushing makes a commit flush the log and wait for nothing else: not for the
// answer of a synchronous standby, which may be the one that stalls.
var flushing = map[string]string{"synchronous_commit": "local"}

// drop closes the connection.
func (d *nudger) drop() {
	if d.link != nil {
		d.link.close()
		d.link = nil
	}
}
