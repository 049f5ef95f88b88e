//go:build linux

package reactor_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/reactor"
)

func TestWaitForWhicheverComesFirst(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	clientFd, client := tcpPair(t)
	serverFd, server := tcpPair(t)
	wakers := make(chan reactor.Waker, 1)
	speak := make(chan func(), 1)
	go func() {
		for f := range speak {
			time.Sleep(5 * time.Millisecond)
			f()
		}
	}()
	done := do(t, l, func(task *reactor.Task) {
		c, s := adopt(t, l, clientFd), adopt(t, l, serverFd)
		defer c.Close()
		defer s.Close()
		wakers <- task.Waker()
		both := func(d time.Duration) reactor.Cause {
			var deadline time.Time
			if d != 0 {
				deadline = time.Now().Add(d)
			}
			return task.Wait(deadline, reactor.Interest{Conn: c}, reactor.Interest{Conn: s})
		}
		b := make([]byte, 10)
		w := <-wakers
		expect := func(what string, got, want reactor.Cause) {
			if got != want {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		speak <- func() { client.Write([]byte("c")) }
		expect("client", both(time.Hour), reactor.Ready)
		if !c.Readable() || s.Readable() {
			t.Error("the wrong one is readable")
		}
		expect("client, not read yet", both(time.Hour), reactor.Ready)
		c.Read(b)
		speak <- func() { server.Write([]byte("s")) }
		expect("server", both(0), reactor.Ready)
		if c.Readable() || !s.Readable() {
			t.Error("the wrong one is readable")
		}
		s.Read(b)
		speak <- w.Wake
		expect("wake", both(time.Hour), reactor.Woken)
		expect("deadline", both(10*time.Millisecond), reactor.Deadline)
		expect("passed deadline", both(-time.Hour), reactor.Deadline)
		expect("room", task.Wait(time.Time{}, reactor.Interest{Conn: c}, reactor.Interest{Conn: c, Write: true}), reactor.Ready)
		w.Wake()
		client.Write([]byte("c"))
		task.Sleep(10 * time.Millisecond) // keeps the wake-up for Wait
		expect("both came", both(time.Hour), reactor.Ready|reactor.Woken)
		expect("a wake-up is told of once", both(time.Hour), reactor.Ready)
	})
	await(t, done)
	close(speak)
}

func TestWakeIsStickyAndEndsWithTheTask(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	var old reactor.Waker
	old.Wake() // the zero Waker: nobody
	await(t, do(t, l, func(task *reactor.Task) {
		old = task.Waker()
		old.Wake()
		old.Wake()
		task.Sleep(time.Millisecond)
		if why := task.Wait(time.Now().Add(time.Hour)); why != reactor.Woken {
			t.Errorf("first wait: %v", why)
		}
		if why := task.Wait(time.Now().Add(time.Millisecond)); why != reactor.Deadline {
			t.Errorf("second wait: %v", why)
		}
	}))
	// The same coroutine serves the next task; the old waker must not reach it.
	await(t, do(t, l, func(task *reactor.Task) {
		if task.Waker() == old {
			t.Error("wakers of two tasks are equal")
		}
		old.Wake()
		if why := task.Wait(time.Now().Add(10 * time.Millisecond)); why != reactor.Deadline {
			t.Errorf("woken by a waker of another task: %v", why)
		}
	}))
	settle(l)
	if s := e.Stat().Loops[0]; s.Pooled != 1 {
		t.Errorf("pooled coroutines: %d", s.Pooled)
	}
}

// A task that another of its loop wakes goes on in the same turn; one of another
// loop, and one that has ended, as with Wake.
func TestWakeOnTheLoop(t *testing.T) {
	e := newEngine(t, reactor.Options{Loops: 2})
	here, there := e.Loops()[0], e.Loops()[1]
	turns := func() uint64 { return e.Stat().Loops[0].Turns }
	var at, resumed uint64
	wakers := make(chan reactor.Waker, 1)
	sleeper := do(t, here, func(task *reactor.Task) {
		wakers <- task.Waker()
		if why := task.Wait(time.Now().Add(time.Hour)); why != reactor.Woken {
			t.Errorf("woken on its loop: %v", why)
		}
		resumed = turns()
	})
	w := <-wakers
	settle(here)
	await(t, do(t, here, func(*reactor.Task) {
		reactor.Waker{}.WakeOn(here)
		at = turns()
		w.WakeOn(here)
	}))
	await(t, sleeper)
	if resumed != at {
		t.Errorf("woken in turn %d, resumed in turn %d", at, resumed)
	}
	await(t, do(t, here, func(task *reactor.Task) {
		w.WakeOn(here)
		if why := task.Wait(time.Now().Add(10 * time.Millisecond)); why != reactor.Deadline {
			t.Errorf("woken by a waker of another task: %v", why)
		}
		own := task.Waker()
		do(t, there, func(*reactor.Task) { own.WakeOn(there) })
		if why := task.Wait(time.Now().Add(time.Hour)); why != reactor.Woken {
			t.Errorf("woken from another loop: %v", why)
		}
	}))
}

// Wakes from many goroutines meet deadlines and readiness; the task must count
// every token it is sent, and never be resumed twice at once.
func TestWakeStorm(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	const senders, each = 8, 2000
	var sent, got atomic.Int64
	wakers := make(chan reactor.Waker, 1)
	done := do(t, l, func(task *reactor.Task) {
		wakers <- task.Waker()
		for got.Load() < senders*each {
			task.Wait(time.Now().Add(time.Duration(rand.IntN(1000)) * time.Microsecond))
			got.Store(sent.Load())
		}
	})
	w := <-wakers
	var all sync.WaitGroup
	for range senders {
		all.Go(func() {
			for range each {
				sent.Add(1)
				w.Wake()
			}
		})
	}
	all.Wait()
	await(t, done)
}

func TestPostStormKeepsOrder(t *testing.T) {
	e := newEngine(t, reactor.Options{Loops: 2})
	const senders, each = 16, 5000
	for _, l := range e.Loops() {
		var last [senders]int
		var all, ran sync.WaitGroup
		ran.Add(senders * each)
		for i := range senders {
			all.Go(func() {
				for n := 1; n <= each; n++ {
					if !l.Post(func() {
						if last[i] != n-1 {
							t.Errorf("sender %d: %d after %d", i, n, last[i])
						}
						last[i] = n
						ran.Done()
					}) {
						t.Error("refused")
					}
					if n%1000 == 0 {
						time.Sleep(time.Millisecond) // let the loop fall asleep
					}
				}
			})
		}
		all.Wait()
		ran.Wait()
	}
	e.Close()
	if e.Loops()[0].Post(func() { t.Error("ran after Close") }) {
		t.Error("Post accepted after Close")
	}
}

func TestSleepersWakeInOrder(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	const n = 500
	var all sync.WaitGroup
	var late time.Duration
	var last time.Time
	all.Add(n)
	start := time.Now()
	l.Post(func() {
		for range n {
			d := time.Duration(rand.IntN(50_000)) * time.Microsecond
			l.Start(runner(func(task *reactor.Task) {
				defer all.Done()
				at := start.Add(d)
				if why := task.Wait(at); why != reactor.Deadline {
					t.Errorf("woken by %v", why)
				}
				late = max(late, time.Since(at))
				if time.Now().Before(at) {
					t.Error("woken early")
				}
				if at.Before(last) {
					t.Errorf("%v after %v", at.Sub(start), last.Sub(start))
				}
				last = at
			}))
		}
	})
	all.Wait()
	t.Logf("latest of %d: %v", n, late)
}

func TestOffload(t *testing.T) {
	log := &lines{}
	e := newEngine(t, reactor.Options{Log: slog.New(slog.NewTextHandler(log, nil))})
	l := e.Loops()[0]
	done := do(t, l, func(task *reactor.Task) {
		result := ""
		w := task.Waker()
		task.Offload(func() {
			w.Wake()                                   // must not end the offload early
			await(t, do(t, l, func(*reactor.Task) {})) // the loop goes on meanwhile
			time.Sleep(5 * time.Millisecond)
			result = "done"
		})
		if result != "done" {
			t.Error("went on before the offload had ended")
		}
		if why := task.Wait(time.Now().Add(time.Hour)); why != reactor.Woken {
			t.Errorf("the wake-up was lost: %v", why)
		}
		func() {
			defer func() {
				if v := recover(); v != "boom" {
					t.Errorf("recovered %v", v)
				}
			}()
			task.Offload(func() { panic("boom") })
		}()
		task.Offload(runtime.Goexit)
	})
	await(t, done)
	if got := log.String(); !strings.Contains(got, "boom") || !strings.Contains(got, "TestOffload") {
		t.Errorf("logged: %s", got)
	}
}

// casualty panics, and is told of it.
type casualty struct {
	run  func(*reactor.Task)
	told chan any
}

func (c *casualty) Run(t *reactor.Task) { c.run(t) }
func (c *casualty) Panicked(v any)      { c.told <- v; panic("again") }

func TestPanicEndsOneTaskOnly(t *testing.T) {
	log := &lines{}
	e := newEngine(t, reactor.Options{Log: slog.New(slog.NewTextHandler(log, nil))})
	l := e.Loops()[0]
	told := make(chan any, 1)
	bystander := do(t, l, func(task *reactor.Task) { task.Sleep(20 * time.Millisecond) })
	for name, run := range map[string]func(*reactor.Task){
		"boom":                        func(*reactor.Task) { panic("boom") },
		"boom later":                  func(task *reactor.Task) { task.Sleep(time.Millisecond); panic("boom later") },
		"nil pointer dereference":     func(*reactor.Task) { var c *casualty; c.told <- 1 },
		"the task called runtime.Goe": func(*reactor.Task) { runtime.Goexit() },
	} {
		l.Post(func() { l.Start(&casualty{run: run, told: told}) })
		if v := fmt.Sprint(<-told); !strings.Contains(v, name) {
			t.Errorf("told of %q, want %q", v, name)
		}
	}
	l.Post(func() { panic("in a posted function") })
	await(t, bystander)
	settle(l)
	s := e.Stat().Loops[0]
	if s.Panics != 9 { // four tasks, each twice, and a posted function
		t.Errorf("panics counted: %d", s.Panics)
	}
	if got := log.String(); !strings.Contains(got, "task_test.go") || !strings.Contains(got, "in a posted function") {
		t.Errorf("logged: %s", got)
	}
	e.Close() // and nothing is left behind
}

// lines is a log to look at.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestStallIsCountedAndLogged(t *testing.T) {
	log := &lines{}
	e := newEngine(t, reactor.Options{Stall: 500 * time.Millisecond, Log: slog.New(slog.NewTextHandler(log, nil))})
	l := e.Loops()[0]
	await(t, do(t, l, func(task *reactor.Task) { task.Sleep(600 * time.Millisecond) })) // parked is not stalled
	settle(l)
	if s := e.Stat().Loops[0]; s.Stalls != 0 {
		t.Errorf("stalls: %d", s.Stalls)
	}
	await(t, do(t, l, func(task *reactor.Task) {
		time.Sleep(600 * time.Millisecond)
		task.Yield()
	}))
	settle(l)
	if s := e.Stat().Loops[0]; s.Stalls != 1 || !strings.Contains(log.String(), "reactor_test.runner") {
		t.Errorf("stalls: %d, log: %s", s.Stalls, log)
	}
}

// A relay whose both ends are always ready gives way to the other tasks.
func TestGreedyTaskGivesWay(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	a, b := unixPair(t)
	stop := false
	greedy := do(t, l, func(*reactor.Task) {
		in, out := adopt(t, l, a), adopt(t, l, b)
		defer in.Close()
		defer out.Close()
		buffer := make([]byte, 100)
		for !stop {
			if _, err := in.Write(buffer); err != nil {
				t.Error(err)
			}
			if _, err := out.Read(buffer); err != nil {
				t.Error(err)
			}
		}
	})
	await(t, do(t, l, func(task *reactor.Task) {
		for range 10 {
			task.Sleep(time.Millisecond)
		}
		stop = true
	}))
	await(t, greedy)
}

func TestStartFromEverywhere(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	const n = 3000 // more than one turn resumes
	started := 0
	done := make(chan struct{})
	var again runner
	again = func(task *reactor.Task) {
		if started++; started == n {
			close(done)
			return
		}
		task.Loop().Start(again)
	}
	l.Post(func() { l.Start(again) })
	await(t, done)
	var parked sync.WaitGroup
	parked.Add(n)
	l.Post(func() {
		for range n {
			l.Start(runner(func(task *reactor.Task) {
				defer parked.Done()
				task.Sleep(5 * time.Millisecond)
			}))
		}
	})
	parked.Wait()
	settle(l)
	if s := e.Stat().Loops[0]; s.Pooled == 0 || s.Pooled > 200 {
		t.Errorf("pooled coroutines: %d", s.Pooled)
	}
}
