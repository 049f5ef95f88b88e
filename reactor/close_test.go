//go:build linux

package reactor_test

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsnproxy/lsnproxy/reactor"
)

func TestCloseEndsEverything(t *testing.T) {
	e := newEngine(t, reactor.Options{Loops: 2})
	var ended atomic.Int64
	total := int64(0)
	park := func(f func(*reactor.Task, *reactor.Conn)) {
		total++
		l := e.Loops()[total%2]
		fd, peer := tcpPair(t)
		started := make(chan struct{})
		do(t, l, func(task *reactor.Task) {
			defer ended.Add(1)
			c := adopt(t, l, fd)
			close(started)
			f(task, c)
			if n, err := c.Read(make([]byte, 1)); n != 0 || err != net.ErrClosed {
				t.Errorf("read after Close: %d, %v", n, err)
			}
			if why := task.Wait(time.Time{}, reactor.Interest{Conn: c}); why != reactor.Ready|reactor.Closed {
				t.Errorf("wait after Close: %v", why)
			}
		})
		await(t, started)
		t.Cleanup(func() {
			peer.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.Copy(io.Discard, peer); err != nil {
				t.Errorf("the peer was not told: %v", err)
			}
		})
	}
	park(func(_ *reactor.Task, c *reactor.Conn) { c.Read(make([]byte, 1)) })
	park(func(_ *reactor.Task, c *reactor.Conn) { c.Write(flood) })
	park(func(task *reactor.Task, c *reactor.Conn) {
		if why := task.Wait(time.Now().Add(time.Hour)); why != reactor.Closed {
			t.Errorf("wait without interest: %v", why)
		}
	})
	park(func(task *reactor.Task, c *reactor.Conn) {
		if why := task.Sleep(time.Hour); why != reactor.Closed {
			t.Errorf("sleep: %v", why)
		}
		if why := task.Sleep(time.Hour); why != reactor.Closed {
			t.Errorf("sleep after Close: %v", why)
		}
	})
	park(func(task *reactor.Task, c *reactor.Conn) {
		task.Offload(func() { time.Sleep(50 * time.Millisecond) })
	})
	// One that will not take Closed for an answer does not keep others from ending.
	stubborn := false
	l := e.Loops()[total%2]
	do(t, l, func(task *reactor.Task) {
		for !stubborn {
			task.Sleep(time.Hour)
			task.Wait(time.Time{})
		}
	})
	do(t, l, func(task *reactor.Task) {
		task.Offload(func() { time.Sleep(50 * time.Millisecond) })
		stubborn = true
	})
	// An armed runner is started to see the end, and may still start others.
	total += 2
	l = e.Loops()[0]
	fd, _ := tcpPair(t)
	l.Post(func() {
		c := adopt(t, l, fd)
		c.OnReady(runner(func(task *reactor.Task) {
			defer ended.Add(1)
			if _, err := c.TryRead(make([]byte, 1)); err != net.ErrClosed {
				t.Errorf("armed runner: %v", err)
			}
			e.Loops()[1].Post(func() {
				e.Loops()[1].Start(runner(func(task *reactor.Task) { task.Yield(); ended.Add(1) }))
			})
		}))
	})
	for _, l := range e.Loops() {
		settle(l)
	}
	go e.Close() // twice at once
	e.Close()
	if ended.Load() != total {
		t.Errorf("%d of %d tasks had ended when Close returned", ended.Load(), total)
	}
	for _, s := range e.Stat().Loops {
		if s.Connections+s.Tasks+s.Buffers+s.Pooled != 0 {
			t.Errorf("left behind: %+v", s)
		}
	}
}

// Connections that reach a closing engine are closed, not lost.
func TestAttachToAClosingEngine(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	movedFd, movedPeer := tcpPair(t)
	newFd, newPeer := tcpPair(t)
	started := make(chan struct{})
	done := do(t, l, func(task *reactor.Task) {
		moved := adopt(t, l, movedFd)
		moved.Detach()
		close(started)
		task.Wait(time.Time{})
		if err := l.Attach(moved); err != net.ErrClosed {
			t.Errorf("attach: %v", err)
		}
		if c, err := l.Adopt(newFd); c != nil || err != net.ErrClosed {
			t.Errorf("adopt: %v", err)
		}
	})
	await(t, started)
	e.Close()
	await(t, done)
	for _, p := range []*net.TCPConn{movedPeer, newPeer} {
		p.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := p.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the peer was not told: %v", err)
		}
	}
}

func TestDetached(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	a, b := unixPair(t)
	defer unix.Close(b)
	await(t, do(t, l, func(*reactor.Task) {
		c := adopt(t, l, a)
		c.Detach()
		c.Detach()
		if c.Loop() != nil || c.Readable() || c.Writable() {
			t.Error("still attached")
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("read while detached")
		}
		if _, err := c.Write(make([]byte, 1)); err == nil {
			t.Error("wrote while detached")
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := l.Attach(c); err != net.ErrClosed {
			t.Errorf("attach once closed: %v", err)
		}
	}))
	if s := e.Stat().Loops[0]; s.Connections != 0 {
		t.Errorf("attached: %d", s.Connections)
	}
}

func TestAdoptOfWhatIsNotASocket(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[1])
	await(t, do(t, l, func(*reactor.Task) {
		if c, err := l.Adopt(p[0]); c != nil || err == nil {
			t.Errorf("adopted a pipe: %v", err)
		}
	}))
	if _, err := unix.FcntlInt(uintptr(p[0]), unix.F_GETFD, 0); err != unix.EBADF {
		t.Errorf("not closed: %v", err)
	}
}
