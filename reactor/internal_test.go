//go:build linux

package reactor

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The heap is held against a plain list under random adding, cancelling and
// expiring.
func TestTimersAgainstAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h timers
		var list []timer
		byInstant := func(a, b timer) int { return int(a.at - b.at) }
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				x := timer{rapid.Int64Range(1, 50).Draw(t, "at"), &Task{}}
				h.add(x.task, x.at)
				list = append(list, x)
			},
			"cancel": func(t *rapid.T) {
				if len(list) == 0 {
					t.Skip("empty")
				}
				i := rapid.IntRange(0, len(list)-1).Draw(t, "which")
				h.remove(list[i].task)
				h.remove(list[i].task) // a second time: nothing
				list = slices.Delete(list, i, i+1)
			},
			"expire": func(t *rapid.T) {
				if len(list) == 0 {
					t.Skip("empty")
				}
				first := slices.MinFunc(list, byInstant)
				if h.next() != first.at {
					t.Fatalf("next is %d, want %d", h.next(), first.at)
				}
				task := h[0].task
				h.remove(task)
				list = slices.DeleteFunc(list, func(x timer) bool { return x.task == task })
			},
			"": func(t *rapid.T) {
				if len(h) != len(list) {
					t.Fatalf("%d timers, want %d", len(h), len(list))
				}
				for i, x := range h {
					if x.task.timed != i+1 {
						t.Fatalf("timer %d thinks it is %d", i, x.task.timed-1)
					}
					if i > 0 && h[(i-1)/2].at > x.at {
						t.Fatalf("timer %d is before its parent", i)
					}
				}
			},
		})
	})
}

// Both ways to wait end neither early nor, if the machine has time for us, much
// late, and a wake-up that came before the wait ends it at once.
func TestEpollTimeouts(t *testing.T) {
	for _, coarse := range []bool{false, true} {
		k, err := newEpoll()
		if err != nil {
			t.Fatal(err)
		}
		defer k.close()
		if k.coarse {
			t.Log("no epoll_pwait2 here")
		}
		k.coarse = k.coarse || coarse
		var events [4]event
		for _, d := range []time.Duration{0, 300 * time.Microsecond, 3 * time.Millisecond} {
			shortest := time.Hour
			for tries := 0; tries < 20 && shortest > d+200*time.Millisecond; tries++ {
				start := time.Now()
				n, woken, err := k.wait(d, events[:])
				if n != 0 || woken || err != nil {
					t.Errorf("wait: %d, %v, %v", n, woken, err)
				}
				shortest = min(shortest, time.Since(start))
			}
			if shortest < d || shortest > d+200*time.Millisecond {
				t.Errorf("coarse=%v: waited %v for %v", coarse, shortest, d)
			}
		}
		for range 3 { // the event of each wake is told once, though nothing reads the eventfd
			k.wake()
			if n, woken, err := k.wait(time.Minute, events[:]); n != 0 || !woken || err != nil {
				t.Errorf("wait: %d, %v, %v", n, woken, err)
			}
			if _, woken, _ := k.wait(0, events[:]); woken {
				t.Error("told of a wake-up twice")
			}
		}
	}
}
