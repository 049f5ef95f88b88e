//go:build linux

package reactor_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsnproxy/lsnproxy/reactor"
)

func TestEchoOneByteAtATime(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	fd, peer := tcpPair(t)
	done := do(t, l, func(*reactor.Task) {
		c := adopt(t, l, fd)
		defer c.Close()
		b := make([]byte, 1)
		for {
			_, err := c.Read(b)
			if err == io.EOF {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := c.Write(b); err != nil {
				t.Error(err)
				return
			}
		}
	})
	want := pattern(3000)
	go func() {
		for i := range want {
			peer.Write(want[i : i+1])
		}
		peer.CloseWrite()
	}()
	got, err := io.ReadAll(peer)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("echoed %d of %d bytes, %v", len(got), len(want), err)
	}
	await(t, done)
}

// flood is more than the buffers of two sockets hold.
var flood = make([]byte, 32<<20)

// pattern is n bytes in which every place is recognisable.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

// A hang-up that comes with the last bytes, or just after them, is noticed
// after they were read, though the read was short.
func TestPeerHalfCloses(t *testing.T) {
	for _, pause := range []time.Duration{0, 5 * time.Millisecond} {
		e := newEngine(t, reactor.Options{})
		l := e.Loops()[0]
		fd, peer := tcpPair(t)
		done := do(t, l, func(task *reactor.Task) {
			c := adopt(t, l, fd)
			defer c.Close()
			b := make([]byte, 100)
			n, err := c.Read(b)
			if string(b[:n]) != "last words" || err != nil {
				t.Errorf("read %q, %v", b[:n], err)
			}
			for range 2 {
				if n, err := c.Read(b); n != 0 || err != io.EOF {
					t.Errorf("at the end read %d, %v", n, err)
				}
			}
			if why := task.Wait(time.Time{}, reactor.Interest{Conn: c}); why != reactor.Ready {
				t.Errorf("wait at the end: %v", why)
			}
			// The other direction is still open.
			if _, err := c.Write([]byte("answer")); err != nil {
				t.Error(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
			if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
				t.Errorf("write after CloseWrite: %v", err)
			}
		})
		peer.Write([]byte("last words"))
		time.Sleep(pause)
		peer.CloseWrite()
		got, err := io.ReadAll(peer)
		if string(got) != "answer" || err != nil {
			t.Errorf("peer read %q, %v", got, err)
		}
		await(t, done)
		e.Close()
	}
}

func TestHalfCloseAndReadOn(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	fd, peer := tcpPair(t)
	done := do(t, l, func(*reactor.Task) {
		c := adopt(t, l, fd)
		defer c.Close()
		c.Write([]byte("request"))
		c.CloseWrite()
		got, err := io.ReadAll(c)
		if len(got) != 1<<20 || err != nil {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
	})
	if got, err := io.ReadAll(peer); string(got) != "request" || err != nil {
		t.Errorf("peer read %q, %v", got, err)
	}
	peer.Write(make([]byte, 1<<20))
	peer.Close()
	await(t, done)
}

// reset makes the peer's close send RST instead of FIN.
func reset(peer *net.TCPConn) {
	peer.SetLinger(0)
	peer.Close()
}

func TestResetWhileReading(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	fd, peer := tcpPair(t)
	reading := make(chan struct{})
	done := do(t, l, func(*reactor.Task) {
		c := adopt(t, l, fd)
		defer c.Close()
		close(reading)
		n, err := c.Read(make([]byte, 10))
		var call *os.SyscallError
		if n != 0 || !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &call) {
			t.Errorf("read %d, %v", n, err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write after the reset: %v", err)
		}
	})
	await(t, reading)
	time.Sleep(5 * time.Millisecond)
	reset(peer)
	await(t, done)
}

func TestResetWhileWriting(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	fd, peer := tcpPair(t)
	done := do(t, l, func(*reactor.Task) {
		c := adopt(t, l, fd)
		defer c.Close()
		n, err := c.Write(flood)
		if n <= 0 || !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("wrote %d, %v", n, err)
		}
	})
	if _, err := io.ReadFull(peer, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	time.Sleep(20 * time.Millisecond) // until both socket buffers are full
	reset(peer)
	await(t, done)
}

func TestIdleConnectionWakesItsRunner(t *testing.T) {
	for name, speak := range map[string]func(*net.TCPConn){
		"reset": reset,
		"end":   func(p *net.TCPConn) { p.Close() },
		"data":  func(p *net.TCPConn) { p.Write([]byte("hello")) },
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, reactor.Options{})
			l := e.Loops()[0]
			fd, peer := tcpPair(t)
			heard := make(chan string, 10)
			l.Post(func() {
				c := adopt(t, l, fd)
				c.OnReady(runner(func(task *reactor.Task) {
					b := make([]byte, 10)
					n, err := c.TryRead(b)
					switch {
					case errors.Is(err, syscall.ECONNRESET):
						heard <- "reset"
					case err == io.EOF:
						heard <- "end"
					case string(b[:n]) == "hello" && err == nil:
						heard <- "data"
					default:
						t.Errorf("read %q, %v", b[:n], err)
						close(heard)
					}
				}))
			})
			settle(l)
			if s := e.Stat().Loops[0]; s.Tasks != 0 || s.Connections != 1 {
				t.Errorf("while idle: %+v", s)
			}
			speak(peer)
			if got := <-heard; got != name {
				t.Errorf("heard %q", got)
			}
			peer.Close() // armed once: a second event starts nothing
			time.Sleep(5 * time.Millisecond)
			if len(heard) != 0 {
				t.Error("OnReady fired twice")
			}
		})
	}
}

func TestOnReadyOfWhatIsReadableAlreadyAndDisarming(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	fd, peer := tcpPair(t)
	peer.Write([]byte("hello"))
	fired := make(chan struct{})
	done := do(t, l, func(task *reactor.Task) {
		c := adopt(t, l, fd)
		task.Wait(time.Time{}, reactor.Interest{Conn: c})
		c.OnReady(runner(func(*reactor.Task) { close(fired) }))
		task.Yield()
		c.TryRead(make([]byte, 100))
		c.OnReady(runner(func(*reactor.Task) { t.Error("disarmed, and fired") }))
		c.OnReady(nil)
		peer.Write([]byte("more"))
		task.Sleep(5 * time.Millisecond)
		c.Close()
	})
	await(t, done)
	await(t, fired)
}

func TestClosedByAnotherTask(t *testing.T) {
	waits := map[string]func(*reactor.Task, *reactor.Conn) error{
		"read":  func(_ *reactor.Task, c *reactor.Conn) error { _, err := c.Read(make([]byte, 1)); return err },
		"write": func(_ *reactor.Task, c *reactor.Conn) error { _, err := c.Write(flood); return err },
		"wait": func(task *reactor.Task, c *reactor.Conn) error {
			if why := task.Wait(time.Time{}, reactor.Interest{Conn: c}); why != reactor.Ready {
				return errors.New(why.String())
			}
			_, err := c.TryRead(make([]byte, 1))
			return err
		},
	}
	for name, wait := range waits {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, reactor.Options{})
			l := e.Loops()[0]
			fd, _ := tcpPair(t)
			conn := make(chan *reactor.Conn, 1)
			waiter := do(t, l, func(task *reactor.Task) {
				c := adopt(t, l, fd)
				conn <- c
				if err := wait(task, c); err != net.ErrClosed {
					t.Errorf("got %v", err)
				}
			})
			c := <-conn
			closer := do(t, l, func(task *reactor.Task) {
				task.Sleep(10 * time.Millisecond)
				if err := c.Close(); err != nil {
					t.Error(err)
				}
				if err := c.Close(); err != net.ErrClosed {
					t.Errorf("second close: %v", err)
				}
			})
			await(t, closer)
			await(t, waiter)
		})
	}
}

// The descriptor of a closed connection is duplicated, so its registration
// lives on and its events come: they must not reach the next connection in the
// same slot.
func TestStaleEventDoesNotReachTheSuccessor(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	first, firstPeer := tcpPair(t)
	second, secondPeer := tcpPair(t)
	third, _ := tcpPair(t)
	dup, err := unix.Dup(first)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dup)
	done := do(t, l, func(task *reactor.Task) {
		adopt(t, l, first).Close()
		c := adopt(t, l, second)
		defer c.Close()
		firstPeer.Write([]byte("for the dead"))
		if why := task.Wait(time.Now().Add(20*time.Millisecond), reactor.Interest{Conn: c}); why != reactor.Deadline {
			t.Errorf("woken by %v", why)
		}
		if c.Readable() {
			t.Error("readable by another's data")
		}
		secondPeer.Write([]byte("mine"))
		b := make([]byte, 10)
		if n, err := c.Read(b); string(b[:n]) != "mine" || err != nil {
			t.Errorf("read %q, %v", b[:n], err)
		}
		adopt(t, l, third).Close()
	})
	await(t, done)
}

func TestDeadlines(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	fd, peer := tcpPair(t)
	timedOut := func(err error) bool {
		var ne net.Error
		return errors.Is(err, os.ErrDeadlineExceeded) && errors.As(err, &ne) && ne.Timeout()
	}
	done := do(t, l, func(task *reactor.Task) {
		c := adopt(t, l, fd)
		defer c.Close()
		b := make([]byte, 10)
		start := time.Now()
		c.SetReadDeadline(start.Add(10 * time.Millisecond))
		if _, err := c.Read(b); !timedOut(err) {
			t.Errorf("read: %v", err)
		}
		if d := time.Since(start); d < 10*time.Millisecond {
			t.Errorf("read ended after %v", d)
		}
		peer.Write([]byte("x")) // a passed deadline fails reads of what is there, as in package net
		task.Sleep(time.Millisecond)
		if _, err := c.Read(b); !timedOut(err) {
			t.Errorf("read after the deadline: %v", err)
		}
		c.SetReadDeadline(time.Time{})
		if n, err := c.Read(b); n != 1 || err != nil {
			t.Errorf("read without deadline: %d, %v", n, err)
		}
		c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		if n, err := c.Write(flood); n == 0 || !timedOut(err) {
			t.Errorf("write: %d, %v", n, err)
		}
	})
	await(t, done)
}

// A deadline set by another task bounds the Read that is parked.
func TestDeadlineMovedUnderAParkedRead(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	fd, _ := tcpPair(t)
	conn := make(chan *reactor.Conn, 1)
	start := time.Now()
	reader := do(t, l, func(*reactor.Task) {
		c := adopt(t, l, fd)
		c.SetReadDeadline(start.Add(time.Hour))
		conn <- c
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
	})
	c := <-conn
	l.Post(func() { c.SetDeadline(time.Now().Add(10 * time.Millisecond)) })
	await(t, reader)
}

func TestTryReadAndTryWriteNeverPark(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	a, b := unixPair(t)
	done := do(t, l, func(task *reactor.Task) {
		from, to := adopt(t, l, a), adopt(t, l, b)
		defer from.Close()
		defer to.Close()
		buffer := make([]byte, 1<<16)
		if n, err := to.TryRead(buffer); n != 0 || err != reactor.ErrAgain {
			t.Errorf("nothing there: %d, %v", n, err)
		}
		written := 0
		for from.Writable() {
			n, err := from.TryWrite(buffer)
			if err != nil {
				t.Fatal(err)
			}
			written += n
		}
		if n, err := from.TryWrite(buffer); n != 0 || err != nil {
			t.Errorf("full: %d, %v", n, err)
		}
		for read := 0; read < written; {
			task.Wait(time.Time{}, reactor.Interest{Conn: to})
			n, err := to.TryRead(buffer)
			if err != nil && err != reactor.ErrAgain {
				t.Fatal(err)
			}
			read += n
		}
		if why := task.Wait(time.Time{}, reactor.Interest{Conn: from, Write: true}); why != reactor.Ready {
			t.Errorf("room again: %v", why)
		}
	})
	await(t, done)
}

func TestAddresses(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	fd, peer := tcpPair(t)
	a, b := unixPair(t)
	defer unix.Close(b)
	done := do(t, l, func(*reactor.Task) {
		c, u := adopt(t, l, fd), adopt(t, l, a)
		if c.LocalAddr().String() != peer.RemoteAddr().String() || c.LocalAddr().Network() != "tcp" {
			t.Errorf("local %v", c.LocalAddr())
		}
		if u.LocalAddr().Network() != "unix" || u.RemoteAddr().Network() != "unix" {
			t.Errorf("unix: %v, %v", u.LocalAddr(), u.RemoteAddr())
		}
		c.Close()
		if got := c.RemoteAddr().String(); got != peer.LocalAddr().String() {
			t.Errorf("remote %v, once closed", got)
		}
		if c.LocalAddr() != nil {
			t.Errorf("local %v, once closed", c.LocalAddr())
		}
		u.Close()
	})
	await(t, done)
}

// What two tasks must not do to one connection is caught where it happens.
func TestMisusePanics(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	fd, _ := tcpPair(t)
	conn := make(chan *reactor.Conn, 1)
	reader := do(t, l, func(*reactor.Task) {
		c := adopt(t, l, fd)
		conn <- c
		c.Read(make([]byte, 1))
	})
	c := <-conn
	wants := func(message string, f func()) {
		defer func() {
			if v, _ := recover().(string); !strings.Contains(v, message) {
				t.Errorf("panic %q, want %q", v, message)
			}
		}()
		f()
	}
	await(t, do(t, l, func(task *reactor.Task) {
		wants("two tasks", func() { c.Read(make([]byte, 1)) })
		wants("two tasks", func() { task.Wait(time.Time{}, reactor.Interest{Conn: c}) })
		wants("that a task waits for", c.Detach)
		wants("that is attached", func() { l.Attach(c) })
		wants("not borrowed", func() { l.Return(make([]byte, 3)) })
		wants("no runner", func() { l.Start(nil) })
		b := l.Borrow()
		l.Return(b[:10])
		c.Close()
	}))
	await(t, reader)
}
