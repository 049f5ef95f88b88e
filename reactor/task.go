//go:build linux

package reactor

import (
	"errors"
	"iter"
	"runtime/debug"
	"time"
)

// share is how many reads, writes and waits that need not wait a task may make
// before it gives way to the others of its loop.
const share = 64

// Runner is what a task runs. A runner that also has a method Panicked(v any)
// is told there of the panic that ended its Run, still on the loop and as the
// same task.
type Runner interface{ Run(*Task) }

// Cause says why a task was resumed: a set.
type Cause uint8

// The causes.
const (
	Ready    Cause = 1 << iota // an interest is ready, or its connection was closed
	Woken                      // Waker.Wake was called
	Deadline                   // the deadline has passed
	Closed                     // the engine is closing

	turn // internal: its turn has come again, or its offload is done
)

func (c Cause) String() string {
	s := ""
	for i, name := range [...]string{"ready", "woken", "deadline", "closed"} {
		if c&(1<<i) != 0 {
			s += "+" + name
		}
	}
	if s == "" {
		return "none"
	}
	return s[1:]
}

// Task is one run of a Runner: a coroutine of its loop. It is valid until Run
// returns; its methods may be called by the task itself only.
type Task struct {
	loop   *Loop
	runner Runner
	// generation counts the runners this coroutine has served, so that a
	// Waker of an earlier one is recognised.
	generation uint64

	parked Cause // what may resume it; 0 while it runs or is queued to run
	why    Cause // what resumed it
	woken  bool  // a wake-up came and no Wait has told of it
	spent  int   // of its share, since it was last resumed
	timed  int   // 1 + its place in loop.timers, or 0
	index  int   // its place in loop.tasks

	resident bool

	next  func() (struct{}, bool) // runs the coroutine until it yields
	stop  func()                  // ends the idle coroutine
	yield func(struct{}) bool     // gives control back to next
}

func newTask(l *Loop) *Task {
	t := &Task{loop: l}
	t.next, t.stop = iter.Pull(t.serve)
	return t
}

// serve is the coroutine: it runs one runner after another.
func (t *Task) serve(yield func(struct{}) bool) {
	t.yield = yield
	for {
		t.run()
		t.runner = nil
		if !yield(struct{}{}) {
			return
		}
	}
}

// errGoexit is what Panicked is told when Run did not return because it called
// runtime.Goexit, as testing.T.FailNow does.
var errGoexit = errors.New("reactor: the task called runtime.Goexit")

// run runs the runner; a panic ends with it.
func (t *Task) run() {
	returned := false
	defer func() {
		if returned {
			return
		}
		v := recover()
		if v == nil {
			v = errGoexit
		}
		t.report(v)
		if r, ok := t.runner.(interface{ Panicked(v any) }); ok {
			defer func() {
				if v := recover(); v != nil {
					t.report(v)
				}
			}()
			r.Panicked(v)
		}
	}()
	t.runner.Run(t)
	returned = true
}

// report logs and counts a panic, from a deferred function, so that the stack
// is the one that panicked.
func (t *Task) report(v any) {
	t.loop.count.panics.Add(1)
	t.loop.engine.options.Log.Error("panic in a task", "panic", v, "stack", string(debug.Stack()))
}

// Resident says that the task stays as long as the loop does: it is none of those
// that are in flight, of which the loop counts how many there are.
func (t *Task) Resident() {
	if !t.resident {
		t.resident = true
		t.loop.residents++
		t.loop.count.tasks.Add(-1)
	}
}

// Loop returns the task's loop.
func (t *Task) Loop() *Loop { return t.loop }

// park gives control back to the loop until one of the causes comes, or the
// instant at (0: none), and returns what came first.
func (t *Task) park(causes Cause, at int64) Cause {
	if t.loop.current != t {
		panic("reactor: a task was asked to park while another runs")
	}
	if at != 0 {
		t.loop.timers.add(t, at)
	}
	t.parked = causes
	t.yield(struct{}{})
	return t.why
}

// Interest is a direction of a connection in which a task waits to go on.
type Interest struct {
	Conn  *Conn
	Write bool // for room to write; false: for something to read
}

// Wait parks the task until one of the interests is ready, it is woken, the
// deadline (zero: none) passes or the engine closes, and tells which. What is
// so already is told at once. A wake-up is told of once; Ready means that a
// read or write is worth trying. No two tasks may wait for the same direction
// of a connection.
func (t *Task) Wait(deadline time.Time, on ...Interest) Cause {
	why := t.pending(on)
	if why != 0 {
		t.spent++
		t.giveWay()
		return why
	}
	for _, i := range on {
		i.Conn.await(t, i.Write)
	}
	why = t.park(Ready|Woken|Deadline|Closed, instant(deadline))
	for _, i := range on {
		i.Conn.await(nil, i.Write)
	}
	return why | t.pending(on)
}

// pending tells what a Wait need not wait for.
func (t *Task) pending(on []Interest) Cause {
	var why Cause
	for _, i := range on {
		if i.Conn.worth(i.Write) {
			why |= Ready
		}
	}
	if t.woken {
		t.woken = false
		why |= Woken
	}
	if t.loop.closing {
		why |= Closed
	}
	return why
}

// Yield lets the other tasks of the loop run, and the loop look for news.
func (t *Task) Yield() {
	t.loop.later = append(t.loop.later, t)
	t.park(turn, 0)
}

// giveWay yields if the task has had its share, and always while the engine
// closes: waiting ends at once then, and a task that tries again and again must
// not keep the others from ending.
func (t *Task) giveWay() {
	if t.spent >= share || t.loop.closing {
		t.Yield()
	}
}

// Sleep parks the task for d; Closed instead of Deadline says that the engine
// is closing. Wake-ups stay for the next Wait.
func (t *Task) Sleep(d time.Duration) Cause {
	if t.loop.closing {
		t.giveWay()
		return Closed
	}
	return t.park(Deadline|Closed, now()+int64(max(d, 0)))
}

// Offload runs fn on a goroutine of its own and parks the task until fn has
// returned, whatever else happens: fn must end by itself. A panic in fn is
// logged with its stack and raised again in the task.
func (t *Task) Offload(fn func()) {
	e := t.loop.engine
	var failure any
	done := posted{task: t, generation: t.generation, why: turn}
	// Ends with fn. The task waits for fn, Engine.Close for the goroutine.
	e.offloads.Go(func() {
		defer t.loop.post(done)
		defer func() {
			if failure = recover(); failure != nil {
				e.options.Log.Error("panic in an offload", "panic", failure, "stack", string(debug.Stack()))
			}
		}()
		fn()
	})
	t.park(turn, 0)
	if failure != nil {
		panic(failure)
	}
}

// Waker returns the handle by which others wake this task out of Wait.
func (t *Task) Waker() Waker { return Waker{t, t.generation} }

// Waker wakes one task; the zero Waker wakes nobody. It may be copied, kept
// longer than the task lives, and compared.
type Waker struct {
	task       *Task
	generation uint64
}

// Wake makes the task's present Wait, or its next one, return Woken. It does
// nothing if the task has ended. Any goroutine may call it; it never blocks.
func (w Waker) Wake() {
	if w.task != nil {
		w.task.loop.post(posted{task: w.task, generation: w.generation, why: Woken})
	}
}

// WakeOn is Wake for somebody who runs on loop l. A task of that loop goes on in
// this turn, without another look at the kernel.
func (w Waker) WakeOn(l *Loop) {
	switch {
	case w.task == nil:
	case w.task.loop != l:
		w.Wake()
	case w.task.generation == w.generation:
		w.task.wake(Woken)
	}
}

// wake is a wake-up that has reached the loop.
func (t *Task) wake(why Cause) {
	if why == Woken {
		t.woken = true
	}
	t.loop.rouse(t, why)
}
