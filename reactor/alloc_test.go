//go:build linux

package reactor_test

import (
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsnproxy/lsnproxy/reactor"
)

// Once everything has been used once, a round trip allocates nothing, however
// the task comes to it. AllocsPerRun counts all goroutines.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	idle, _ := tcpPair(t)
	for name, serve := range map[string]func(*reactor.Task, *reactor.Conn){
		"a task started by readiness": func(_ *reactor.Task, c *reactor.Conn) {
			s := &echo{conn: c}
			c.OnReady(s)
		},
		"a task parked in Read": func(_ *reactor.Task, c *reactor.Conn) {
			b := make([]byte, 1)
			for {
				if _, err := c.Read(b); err != nil {
					c.Close()
					return
				}
				c.Write(b)
			}
		},
		"a task parked in Wait": func(task *reactor.Task, c *reactor.Conn) {
			b := make([]byte, 1)
			other := adopt(t, task.Loop(), idle)
			defer other.Close()
			for {
				task.Wait(time.Now().Add(time.Hour), reactor.Interest{Conn: c}, reactor.Interest{Conn: other})
				_, err := c.TryRead(b)
				if err == reactor.ErrAgain {
					continue
				}
				if err != nil {
					c.Close()
					return
				}
				task.Waker().Wake()
				task.Wait(time.Time{})
				task.Sleep(time.Microsecond)
				task.Yield()
				c.TryWrite(b)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, reactor.Options{})
			l := e.Loops()[0]
			a, b := unixPair(t)
			unix.SetNonblock(b, false)
			done := do(t, l, func(task *reactor.Task) { serve(task, adopt(t, l, a)) })
			buffer := make([]byte, 1)
			n := testing.AllocsPerRun(500, func() {
				unix.Write(b, buffer)
				if n, err := unix.Read(b, buffer); n != 1 || err != nil {
					t.Error(io.ErrUnexpectedEOF)
				}
			})
			if n != 0 {
				t.Errorf("%v allocations per round trip", n)
			}
			unix.Close(b)
			await(t, done)
		})
	}
}
