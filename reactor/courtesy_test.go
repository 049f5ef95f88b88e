//go:build linux

package reactor

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A loop is courteous from a crowd on, stays so for half of one, and is not
// while that makes it wait long, nor for a while after.
func TestCourtesyDecides(t *testing.T) {
	const short, long = fair / 10, 2 * fair
	var c courtesy
	for i, step := range []struct {
		tasks int
		wait  time.Duration
		want  bool
	}{
		{0, short, false},
		{crowd - 1, short, false},
		{crowd, long, true}, // an ordinary thread's wait says nothing
		{crowd - 1, short, true},
		{crowd / 2, fair, true},
		{crowd/2 - 1, short, false},
		{crowd - 1, short, false},
		{crowd, short, true},
		{0, long, false}, // the few waits of a loop at rest are no reason to rest
		{crowd, short, true},
		{10 * crowd, long, false},
	} {
		if c.batch = c.decide(step.tasks, step.wait); c.batch != step.want {
			t.Fatalf("step %d: %+v: courteous is %t", i, step, c.batch)
		}
	}
	for n := range rest {
		if c.batch = c.decide(10*crowd, short); c.batch {
			t.Fatalf("courteous again after %d of %d decisions", n, rest)
		}
	}
	if !c.decide(crowd, short) {
		t.Fatal("not courteous after its rest")
	}
}

// The calling thread becomes a SCHED_BATCH one and an ordinary one again, and
// keeps its nice value.
func TestCourtesySchedules(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	policy := func() (uint32, int32) {
		a, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return a.Policy, a.Nice
	}
	_, nice := policy()
	c := newCourtesy()
	defer c.close()
	if before, ok := c.read(); !ok || before.turns < 1 {
		t.Fatalf("schedstat reads %+v, %t", before, ok)
	}
	for _, step := range []struct {
		tasks int
		want  uint32
	}{{crowd, unix.SCHED_BATCH}, {0, unix.SCHED_NORMAL}} {
		for n := range sight {
			if before, _ := policy(); before == step.want {
				t.Fatalf("policy %d after %d of %d passes", before, n, sight)
			}
			c.observe(step.tasks)
		}
		if got, kept := policy(); got != step.want || kept != nice {
			t.Fatalf("with %d tasks in flight: policy %d, nice %d; want %d, %d", step.tasks, got, kept, step.want, nice)
		}
	}
}

// Without the kernel's figures a loop
// stays an ordinary thread.
func TestCourtesyWithoutFigures(t *testing.T) {
	c := &courtesy{stat: -1}
	for range 2 * sight {
		if c.observe(crowd) {
			t.Fatal("courteous without knowing how long it waits")
		}
	}
}
