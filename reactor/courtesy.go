//go:build linux

package reactor

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	crowd = 6                      // tasks in flight that are worth gathering the answers of
	sight = 25                     // passes through the scheduler between two decisions, slice apart at least
	fair  = 500 * time.Microsecond // what a courteous loop waits for a processor at most, on average
	rest  = 50                     // decisions for which a loop that waited longer does not try again
)

// courtesy is whether a loop that wakes up lets others finish what they are at.
//
// A thread that wakes up is given the processor of one that has run for long,
// at once. With many tasks in flight and no processor free that is a bad
// bargain: the loop interrupts a server that has its answer nearly ready, finds
// one answer where it could have found several, and sleeps again, at the price
// of two switches each time. A SCHED_BATCH thread (sched(7)) interrupts nobody:
// it gets the next processor that becomes free, which is at once on an idle
// machine. With few tasks in flight there is nothing to gather, and beside
// programs that never sleep the wait has no end in sight: the loop is an
// ordinary thread then.
type courtesy struct {
	stat  int  // the descriptor of its thread's schedstat; -1: not to be had, and the loop stays ordinary
	batch bool // it is courteous

	passes, tasks int       // since the last decision, and the tasks in flight at each, added up
	before        schedstat // at the last decision
	resting       int       // decisions to come before it may be courteous again
}

// schedstat is how long a thread has waited for a processor, and how often it
// got one (Documentation/scheduler/sched-stats.rst of the kernel).
type schedstat struct {
	waited time.Duration
	turns  int64
}

// newCourtesy is that of the thread that calls it.
func newCourtesy() *courtesy {
	path := fmt.Sprintf("/proc/self/task/%d/schedstat", unix.Gettid())
	stat, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		stat = -1
	}
	return &courtesy{stat: stat}
}

func (c *courtesy) close() {
	if c.stat >= 0 {
		unix.Close(c.stat)
	}
}

// observe takes note of the tasks in flight, and from time to time draws the
// conclusion for the calling thread. It reports whether the loop is courteous.
func (c *courtesy) observe(tasks int) bool {
	if c.stat < 0 {
		return false
	}
	c.passes++
	c.tasks += tasks
	if c.passes < sight {
		return c.batch
	}
	after, ok := c.read()
	wait := (after.waited - c.before.waited) / time.Duration(max(1, after.turns-c.before.turns))
	batch := ok && c.decide(c.tasks/c.passes, wait)
	c.before, c.passes, c.tasks = after, 0, 0
	if batch != c.batch {
		if !schedule(batch) { // a sandbox forbids it
			batch = false
			c.resting = rest
		}
		c.batch = batch
	}
	return c.batch
}

// decide says whether a loop with so many tasks in flight, which has waited so
// long for a processor each time it needed one, is to be courteous.
func (c *courtesy) decide(tasks int, wait time.Duration) bool {
	switch {
	case tasks < crowd/2, tasks < crowd && !c.batch:
		return false
	case c.batch && wait > fair:
		c.resting = rest
		return false
	case c.resting > 0:
		c.resting--
		return false
	}
	return true
}

// read reads the thread's schedstat: the time it ran and the time it waited in
// nanoseconds, and the number of times it got a processor.
func (c *courtesy) read() (s schedstat, ok bool) {
	var b [96]byte
	n, err := unix.Pread(c.stat, b[:], 0)
	if err != nil {
		return s, false
	}
	fields := bytes.Fields(b[:n])
	if len(fields) != 3 {
		return s, false
	}
	waited, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return s, false
	}
	s.waited = time.Duration(waited)
	s.turns, err = strconv.ParseInt(string(fields[2]), 10, 64)
	return s, err == nil
}

// schedule makes the calling thread courteous or ordinary; its nice value stays.
func schedule(batch bool) bool {
	policy := unix.SCHED_NORMAL
	if batch {
		policy = unix.SCHED_BATCH
	}
	var priority int32 // the only one that these policies have
	_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, uintptr(policy), uintptr(unsafe.Pointer(&priority)))
	return errno == 0
}
