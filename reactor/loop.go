//go:build linux

package reactor

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxResumes = 512 // tasks run in one turn before the kernel is asked again
	maxPooled  = 128 // idle coroutines a loop keeps
)

// Loop is one event loop: a goroutine, the connections attached to it, and the
// tasks it runs. Only Post may be called from anywhere; everything else must be
// called on the loop.
type Loop struct {
	engine *Engine
	kernel kernel
	events [128]event

	slots []slot   // attached connections by key.slot
	free  []uint32 // slots without a connection

	queue   []runnable // what runs this turn, from head on
	head    int
	later   []*Task // tasks that gave way: they run after the kernel was asked again
	tasks   []*Task // every task that runs, is queued to go on, or is parked
	pool    []*Task // coroutines that wait for a runner
	current *Task   // the task that runs now
	timers  timers
	buffers [][]byte
	closing bool

	mu     sync.Mutex
	posted []posted // what other goroutines ask for
	asleep bool     // the loop waits, or is about to wait, in the kernel
	deaf   bool     // the loop has ended

	batch []posted // what was posted and is being done
	spare []posted // the emptied array, to be filled again

	// Work begun and work done here: posted functions and tasks.
	started, finished atomic.Uint64
	count             counters
	scheduled         int64 // instant of the last pass through the Go scheduler
	courtesy          *courtesy
	residents         int   // of tasks, those that are none in flight
	stallsLogged      int64 // instant of the last log line about a stall
}

type slot struct {
	conn       *Conn
	generation uint32
}

// runnable is a runner to start or a task to resume.
type runnable struct {
	task   *Task
	runner Runner
}

// posted is a function to run, or a task of that generation to resume for why.
type posted struct {
	fn         func()
	task       *Task
	generation uint64
	why        Cause
}

func newLoop(e *Engine, k kernel) *Loop { return &Loop{engine: e, kernel: k} }

// Post makes fn run on the loop, outside any task: fn must not park. Functions
// posted by one goroutine run in their order. A panic in fn is logged and
// counted. It returns false, and fn never runs, if the loop has ended.
func (l *Loop) Post(fn func()) bool {
	l.started.Add(1)
	if l.post(posted{fn: fn}) {
		return true
	}
	l.finished.Add(1)
	return false
}

func (l *Loop) post(p posted) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deaf {
		return false
	}
	l.posted = append(l.posted, p)
	if l.asleep {
		l.asleep = false
		l.kernel.wake()
	}
	return true
}

// Start queues r to run as a task in this turn of the loop, on a pooled
// coroutine.
func (l *Loop) Start(r Runner) {
	if r == nil {
		panic("reactor: Start of no runner")
	}
	l.started.Add(1)
	l.count.tasks.Add(1)
	l.queue = append(l.queue, runnable{runner: r})
}

// run is the loop's goroutine. It keeps to one thread: the scheduler would move
// it from one to another every few waits, and its caches with it. The thread
// ends with the goroutine, as the tasks' coroutines are bound to its lock.
func (l *Loop) run() {
	runtime.LockOSThread()
	l.courtesy = newCourtesy()
	defer l.courtesy.close()
	l.turns()
}

// turns is the loop: it does what was asked, resumes whom something has come
// for, and asks the kernel for more.
func (l *Loop) turns() {
	ended := false
	defer func() {
		if !ended {
			// A task called runtime.Goexit, which ends the goroutine that
			// resumed it too, but not before its deferred calls have
			// returned. The loop goes on in this one, on its thread.
			if t := l.current; t != nil {
				l.current = nil
				l.dismiss(t)
			}
			l.turns()
		}
	}()
	for {
		l.drain()
		l.expire()
		l.resumeQueued()
		if l.over() {
			break
		}
		l.reschedule()
		l.poll()
	}
	for _, t := range l.pool {
		t.stop()
	}
	l.count.pooled.Store(0)
	ended = true
	l.engine.running.Done()
}

// slice is how long the loop runs before it passes through the Go scheduler.
const slice = 4 * time.Millisecond

// reschedule passes through the Go scheduler from time to time. A goroutine
// that has not for 10 ms (forcePreemptNS in runtime/proc.go) is one to preempt:
// the runtime's monitor then takes its processor away in every wait, and wakes
// up itself every 20 us to do so, which costs a tenth of what a query costs.
func (l *Loop) reschedule() {
	if at := now(); at-l.scheduled >= int64(slice) {
		l.scheduled = at
		l.count.courteous.Store(l.courtesy.observe(len(l.tasks) - l.residents))
		runtime.Gosched()
	}
}

// over reports whether the loop may end, and if so closes its door.
func (l *Loop) over() bool {
	if !l.closing {
		return false
	}
	if l.engine.quiescent() {
		l.engine.end()
	}
	if !l.engine.ended.Load() || len(l.queue)+len(l.tasks) > 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deaf = len(l.posted) == 0
	return l.deaf
}

// shut begins the end of the loop.
func (l *Loop) shut() {
	l.closing = true
	for i := range l.slots {
		if c := l.slots[i].conn; c != nil {
			c.Close()
		}
	}
	for _, t := range l.tasks {
		l.rouse(t, Closed)
	}
}

// drain does what other goroutines have asked for.
func (l *Loop) drain() {
	l.mu.Lock()
	l.asleep = false
	if len(l.batch) == 0 { // always, but after a Goexit
		l.batch, l.posted, l.spare = l.posted, l.spare, nil
	}
	l.mu.Unlock()
	array := l.batch[:0]
	for len(l.batch) > 0 {
		p := l.batch[0]
		l.batch[0] = posted{}
		l.batch = l.batch[1:]
		if p.fn != nil {
			l.call(p.fn)
		} else if p.task.generation == p.generation {
			p.task.wake(p.why)
		}
	}
	if cap(array) <= 4096 { // a storm's array is not kept
		l.spare = array
	}
}

// call runs a posted function.
func (l *Loop) call(fn func()) {
	defer l.finished.Add(1)
	defer func() {
		if v := recover(); v != nil {
			l.count.panics.Add(1)
			l.engine.options.Log.Error("panic on the event loop", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	fn()
}

// expire resumes the tasks whose deadline has come.
func (l *Loop) expire() {
	if len(l.timers) == 0 {
		return
	}
	at := now()
	for len(l.timers) > 0 && l.timers[0].at <= at {
		t := l.timers[0].task
		l.timers.remove(t)
		l.rouse(t, Deadline)
	}
}

// resumeQueued runs what is queued and what that queues in turn, up to a
// limit, and watches the clock for tasks that do not park.
func (l *Loop) resumeQueued() {
	for _, t := range l.later {
		l.rouse(t, turn)
	}
	l.later = l.later[:0]
	if len(l.queue) == 0 {
		return
	}
	l.count.runnable.Store(int64(len(l.queue) - l.head))
	before := now()
	for n := 0; l.head < len(l.queue) && n < maxResumes; n++ {
		next := l.queue[l.head]
		l.queue[l.head] = runnable{}
		l.head++
		runner := l.resume(next)
		after := now()
		if ran := time.Duration(after - before); ran > l.engine.options.Stall {
			l.stalled(runner, ran, after)
		}
		before = after
	}
	left := copy(l.queue, l.queue[l.head:])
	clear(l.queue[left:])
	l.queue, l.head = l.queue[:left], 0
	l.count.runnable.Store(int64(left + len(l.later)))
}

// resume runs a task until it parks or ends.
func (l *Loop) resume(next runnable) Runner {
	t := next.task
	if t == nil {
		t = l.engage(next.runner)
	}
	runner := t.runner
	t.spent = 0
	l.current = t
	t.next()
	l.current = nil
	l.count.resumes.Add(1)
	if t.runner == nil {
		l.dismiss(t)
		l.keep(t)
	}
	return runner
}

// rouse queues a parked task to be resumed if why is among what it waits for.
// This is the only way a parked task comes back, and it clears what the task
// waits for: a second cause finds it not parked.
func (l *Loop) rouse(t *Task, why Cause) {
	if t.parked&why == 0 {
		return
	}
	t.parked = 0
	t.why = why
	l.timers.remove(t)
	l.queue = append(l.queue, runnable{task: t})
}

// engage makes a task that runs r.
func (l *Loop) engage(r Runner) *Task {
	var t *Task
	if last := len(l.pool) - 1; last >= 0 {
		t = l.pool[last]
		l.pool = slices.Delete(l.pool, last, last+1)
		l.count.pooled.Add(-1)
	} else {
		t = newTask(l)
	}
	t.runner = r
	t.index = len(l.tasks)
	l.tasks = append(l.tasks, t)
	return t
}

// dismiss takes a task that has ended off the books.
func (l *Loop) dismiss(t *Task) {
	t.generation++
	t.woken = false
	last := len(l.tasks) - 1
	moved := l.tasks[last]
	l.tasks[t.index], moved.index = moved, t.index
	l.tasks[last] = nil
	l.tasks = l.tasks[:last]
	if t.resident {
		t.resident = false
		l.residents--
	} else {
		l.count.tasks.Add(-1)
	}
	l.finished.Add(1)
}

// keep pools the coroutine of a task that has ended, or ends it too.
func (l *Loop) keep(t *Task) {
	if len(l.pool) == maxPooled {
		t.stop()
		return
	}
	l.pool = append(l.pool, t)
	l.count.pooled.Add(1)
}

// stalled counts a task that kept the loop too long, and logs it, once a second
// at most.
func (l *Loop) stalled(r Runner, ran time.Duration, at int64) {
	n := l.count.stalls.Add(1)
	if l.stallsLogged != 0 && at-l.stallsLogged < int64(time.Second) {
		return
	}
	l.stallsLogged = at
	l.engine.options.Log.Warn("task kept its event loop", "task", fmt.Sprintf("%T", r), "ran", ran, "stalls", n)
}

// poll asks the kernel what has become ready, and waits if there is nothing
// else to do.
func (l *Loop) poll() {
	n, woken, err := l.kernel.wait(l.timeout(), l.events[:])
	if err != nil {
		panic(fmt.Sprintf("reactor: %v", err)) // the descriptor is ours: a broken invariant
	}
	l.count.turns.Add(1)
	if woken {
		l.count.wakeups.Add(1)
	}
	for i := range l.events[:n] {
		e := &l.events[i]
		s := &l.slots[e.slot]
		if s.generation == e.generation && s.conn != nil {
			s.conn.announce(e.ready)
		}
	}
}

// timeout is how long the kernel may wait: not at all if something was asked
// for meanwhile. From here until drain, post wakes the kernel.
func (l *Loop) timeout() time.Duration {
	if len(l.queue)+len(l.later) > 0 {
		return 0
	}
	l.mu.Lock()
	l.asleep = len(l.posted) == 0 && !l.engine.ended.Load()
	asleep := l.asleep
	l.mu.Unlock()
	switch at := l.timers.next(); {
	case !asleep:
		return 0
	case at == 0:
		return -1
	default:
		return time.Duration(max(0, at-now()))
	}
}
