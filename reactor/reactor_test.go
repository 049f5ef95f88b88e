//go:build linux

package reactor_test

import (
	"log/slog"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/lsnproxy/lsnproxy/reactor"
)

func TestMain(m *testing.M) {
	if role := childRoles[os.Getenv(childEnv)]; role != nil {
		role()
		return
	}
	goleak.VerifyTestMain(m)
}

// runner makes a Runner of a function.
type runner func(*reactor.Task)

func (f runner) Run(t *reactor.Task) { f(t) }

// newEngine starts an engine that ends with the test.
func newEngine(t testing.TB, o reactor.Options) *reactor.Engine {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if o.Stall == 0 {
		o.Stall = time.Second
	}
	e, err := reactor.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// do runs f as a task of the loop and returns a channel that is closed when it
// has ended.
func do(t testing.TB, l *reactor.Loop, f func(*reactor.Task)) <-chan struct{} {
	t.Helper()
	done := make(chan struct{})
	l.Post(func() {
		l.Start(runner(func(task *reactor.Task) {
			defer close(done)
			f(task)
		}))
	})
	return done
}

// await fails the test if done is not closed soon.
func await(t testing.TB, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("not done after a minute")
	}
}

// settle returns when the loop has done with what ran before.
func settle(l *reactor.Loop) {
	done := make(chan struct{})
	l.Post(func() { close(done) })
	<-done
}

// tcpPair connects two TCP sockets over loopback: the raw one is for Adopt.
func tcpPair(t testing.TB) (raw int, peer *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	raw, err = reactor.Take(s)
	if err != nil {
		t.Fatal(err)
	}
	return raw, c.(*net.TCPConn)
}

// unixPair makes two connected sockets.
func unixPair(t testing.TB) (a, b int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return p[0], p[1]
}

// adopt adopts fd in a task or posted function.
func adopt(t testing.TB, l *reactor.Loop, fd int) *reactor.Conn {
	c, err := l.Adopt(fd)
	if err != nil {
		t.Errorf("adopt: %v", err)
	}
	return c
}

// TestLoopKeepsItsThread: also after a pass through the Go scheduler, and after
// a task has ended the goroutine it ran on.
func TestLoopKeepsItsThread(t *testing.T) {
	l := newEngine(t, reactor.Options{Log: slog.New(slog.DiscardHandler)}).Loops()[0]
	var first int
	await(t, do(t, l, func(*reactor.Task) { first = unix.Gettid() }))
	for range 10 {
		await(t, do(t, l, func(task *reactor.Task) {
			for range 5 {
				task.Sleep(2 * time.Millisecond)
				if id := unix.Gettid(); id != first {
					t.Errorf("on thread %d, was on %d", id, first)
				}
			}
		}))
		await(t, do(t, l, func(*reactor.Task) { runtime.Goexit() }))
	}
}
