//go:build linux

// Package reactor runs tasks on event loops.
//
// A Loop is one goroutine that owns a set of connections and the tasks that
// use them. A Task is straight-line code on a coroutine: where it would block
// it parks, and its loop resumes it when the thing it waits for has come. A
// Conn is a net.Conn whose Read and Write park the task that calls them, so
// crypto/tls runs on it unchanged and back-pressure is natural: a task that
// cannot write does not read.
//
// Everything that belongs to a loop (its connections, its tasks, its buffers)
// is touched only on that loop: in a task, or in a function given to
// Loop.Post. Post and Waker.Wake are the two doors for other goroutines.
// Nothing on a loop may block: slow work goes through Task.Offload.
//
// An idle connection needs neither task nor buffer: Conn.OnReady names the
// Runner that takes it up again when it speaks.
package reactor

import (
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Options are the engine's settings; the zero value of each means its default.
type Options struct {
	Loops      int           // event loops; default 1
	BufferSize int           // bytes of a buffer from Loop.Borrow; default 16384
	Stall      time.Duration // a task that runs longer between parks is counted and logged; default 10ms
	Keepalive  Keepalive     // of all TCP connections; default off
	Log        *slog.Logger  // default slog.Default()
}

// Engine is a set of loops that start and end together.
type Engine struct {
	options  Options
	loops    []*Loop
	ended    atomic.Bool // no work is left anywhere: the loops may go
	closed   sync.Once
	running  sync.WaitGroup
	offloads sync.WaitGroup
}

// New starts the loops. The error is the kernel's refusal of an epoll or
// eventfd descriptor.
func New(o Options) (*Engine, error) {
	if o.Loops <= 0 {
		o.Loops = 1
	}
	if o.BufferSize <= 0 {
		o.BufferSize = 16384
	}
	if o.Stall <= 0 {
		o.Stall = 10 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	e := &Engine{options: o}
	for range o.Loops {
		k, err := newEpoll()
		if err != nil {
			for _, l := range e.loops {
				l.kernel.close()
			}
			return nil, fmt.Errorf("start event loop: %w", err)
		}
		e.loops = append(e.loops, newLoop(e, k))
	}
	e.running.Add(len(e.loops))
	for _, l := range e.loops {
		// The loop ends itself when Close was called and no work is left;
		// Close waits for it.
		go l.run()
	}
	return e, nil
}

// Loops returns the engine's loops, always the same ones in the same order.
func (e *Engine) Loops() []*Loop { return e.loops }

// Close ends the engine: every attached connection is closed, parked tasks are
// resumed (Read and Write answer net.ErrClosed, Wait and Sleep answer Closed),
// runners armed with OnReady are started to see the end of their connection,
// and Close returns when all tasks, posted functions, offloads and loops have
// ended. Connections detached at that moment stay their holder's to close.
// Close must not be called on a loop.
func (e *Engine) Close() {
	e.closed.Do(func() {
		for _, l := range e.loops {
			l.Post(l.shut)
		}
		e.running.Wait()
		e.offloads.Wait()
		for _, l := range e.loops {
			l.kernel.close()
		}
	})
}

// quiescent reports whether no task or posted function exists anywhere. All
// that is finished is summed before all that is started: finished <= started
// holds at every moment, so equal sums mean they were equal in between, and
// nothing but work starts work.
func (e *Engine) quiescent() bool {
	var finished, started uint64
	for _, l := range e.loops {
		finished += l.finished.Load()
	}
	for _, l := range e.loops {
		started += l.started.Load()
	}
	return finished == started
}

// end lets all loops go.
func (e *Engine) end() {
	if e.ended.Swap(true) {
		return
	}
	for _, l := range e.loops {
		l.kernel.wake()
	}
}

// Instants are nanoseconds on the monotonic clock since the epoch, which lies a
// moment before the start of the process: 0 is free to mean "none".
var epoch = time.Now().Add(-time.Millisecond)

// now is the present instant.
func now() int64 { return int64(time.Since(epoch)) }

// instant turns a deadline into an instant; the zero time becomes 0, "none".
func instant(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(1, int64(t.Sub(epoch)))
}

// Stat is what the engine is doing.
type Stat struct {
	Loops []LoopStat
}

// LoopStat is what one loop is doing. The first group are numbers of the
// moment, the second count since the start.
type LoopStat struct {
	Connections int  // attached
	Tasks       int  // started and not ended
	Runnable    int  // of Tasks: running, or with their turn coming
	Parked      int  // of Tasks: waiting
	Pooled      int  // idle coroutines kept for the next task
	Buffers     int  // borrowed and not returned
	Courteous   bool // it waits for a free processor instead of interrupting others

	Turns   uint64 // passes through the loop
	Wakeups uint64 // turns begun because another goroutine wanted something
	Resumes uint64 // times a task was started or resumed
	Stalls  uint64 // times a task ran longer than Options.Stall between parks
	Panics  uint64 // tasks and posted functions ended by a panic
}

// Stat returns the present numbers; any goroutine.
func (e *Engine) Stat() Stat {
	s := Stat{Loops: make([]LoopStat, len(e.loops))}
	for i, l := range e.loops {
		s.Loops[i] = l.count.stat()
	}
	return s
}

// counters are written by their loop alone and read by anyone.
type counters struct {
	connections, tasks, runnable, pooled, buffers atomic.Int64
	turns, wakeups, resumes, stalls, panics       atomic.Uint64
	courteous                                     atomic.Bool
}

func (c *counters) stat() LoopStat {
	tasks, runnable := int(c.tasks.Load()), int(c.runnable.Load())
	return LoopStat{
		Connections: int(c.connections.Load()),
		Tasks:       tasks,
		Runnable:    runnable,
		Parked:      max(0, tasks-runnable),
		Pooled:      int(c.pooled.Load()),
		Buffers:     int(c.buffers.Load()),
		Courteous:   c.courteous.Load(),
		Turns:       c.turns.Load(),
		Wakeups:     c.wakeups.Load(),
		Resumes:     c.resumes.Load(),
		Stalls:      c.stalls.Load(),
		Panics:      c.panics.Load(),
	}
}

var _ net.Conn = (*Conn)(nil)
