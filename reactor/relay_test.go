//go:build linux

package reactor_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsnproxy/lsnproxy/reactor"
)

// session relays requests of a client to a server and answers back, as a proxy
// does: between a request and the next it is a plain struct without a task.
type session struct {
	client, server *reactor.Conn
}

func (s *session) Run(t *reactor.Task) {
	l := t.Loop()
	b := l.Borrow()
	defer l.Return(b)
	for {
		n, err := s.client.TryRead(b)
		if err == reactor.ErrAgain {
			s.client.OnReady(s)
			return
		}
		if err == nil {
			_, err = s.server.Write(b[:n])
		}
		if err == nil {
			n, err = s.server.Read(b)
		}
		if err == nil {
			_, err = s.client.Write(b[:n])
		}
		if err != nil {
			s.client.Close()
			s.server.Close()
			return
		}
	}
}

// BenchmarkRelay sends 64-byte requests from clients in another process
// through a relay to an echo server in that process, and reports the processor
// time of this process, the relay's, per round trip. goroutines is the same
// relay on package net, for comparison.
func BenchmarkRelay(b *testing.B) {
	for _, conns := range []int{1, 16, 64} {
		for _, loops := range []int{1, 2} {
			b.Run(fmt.Sprintf("loops=%d/conns=%d", loops, conns), func(b *testing.B) {
				e := newEngine(b, reactor.Options{Loops: loops})
				relay(b, conns, func(ln net.Listener, server string) func() {
					return serveLoops(b, e, ln, server)
				})
			})
		}
		b.Run(fmt.Sprintf("goroutines/conns=%d", conns), func(b *testing.B) {
			relay(b, conns, serveGoroutines)
		})
	}
}

// relay runs b.N round trips through what serve starts.
func relay(b *testing.B, conns int, serve func(net.Listener, string) (stop func())) {
	ends := startChild(b, "ends")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	stop := serve(ln, ends.line())
	defer stop()
	ends.say(ln.Addr().String(), conns, b.N)
	ends.line() // connected
	b.ResetTimer()
	before := processorTime()
	ends.say("go")
	ends.line() // done
	used := processorTime() - before
	b.StopTimer()
	b.ReportMetric(float64(used.Nanoseconds())/float64(b.N)/1000, "cpu-us/op")
	ends.say("end")
	ends.wait()
}

func serveLoops(b *testing.B, e *reactor.Engine, ln net.Listener, server string) func() {
	next := 0
	stop, err := e.Accept(ln, func(fd int, _ net.Addr) {
		out, err := net.Dial("tcp", server)
		if err != nil {
			b.Error(err)
			return
		}
		outFd, err := reactor.Take(out)
		if err != nil {
			b.Error(err)
			return
		}
		l := e.Loops()[next%len(e.Loops())]
		next++
		l.Post(func() {
			s := &session{client: adopt(b, l, fd), server: adopt(b, l, outFd)}
			s.client.OnReady(s)
		})
	})
	if err != nil {
		b.Fatal(err)
	}
	return stop
}

func serveGoroutines(ln net.Listener, server string) func() {
	var all sync.WaitGroup
	all.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer in.Close()
				out, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				defer out.Close()
				b := make([]byte, 16384)
				for {
					n, err := in.Read(b)
					if err == nil {
						_, err = out.Write(b[:n])
					}
					if err == nil {
						n, err = out.Read(b)
					}
					if err == nil {
						_, err = in.Write(b[:n])
					}
					if err != nil {
						return
					}
				}
			})
		}
	})
	return func() { ln.Close(); all.Wait() }
}

// endsChild is the other process of BenchmarkRelay: echo server and clients.
func endsChild() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	go func() {
		for {
			c, err := ln.Accept()
			must(err)
			go io.Copy(c, struct{ io.Reader }{c})
		}
	}()
	fmt.Println(ln.Addr())
	var proxy, word string
	var conns, rounds int64
	fmt.Scan(&proxy, &conns, &rounds)
	clients := make([]net.Conn, conns)
	for i := range clients {
		clients[i], err = net.Dial("tcp", proxy)
		must(err)
		pingPong(clients[i], make([]byte, 64))
	}
	fmt.Println("connected")
	fmt.Scan(&word)
	var left atomic.Int64
	left.Store(rounds)
	var all sync.WaitGroup
	for _, c := range clients {
		all.Go(func() {
			b := make([]byte, 64)
			for left.Add(-1) >= 0 {
				pingPong(c, b)
			}
		})
	}
	all.Wait()
	fmt.Println("done")
	fmt.Scan(&word)
}

func pingPong(c net.Conn, b []byte) {
	_, err := c.Write(b)
	must(err)
	_, err = io.ReadFull(c, b)
	must(err)
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
}

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// child is this test binary run as another process, in the role that
// childRoles knows, and spoken with by lines.
type child struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

const childEnv = "REACTOR_TEST_CHILD"

var childRoles = map[string]func(){"ends": endsChild}

func startChild(t testing.TB, role string) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: exec.Command(self)}
	c.cmd.Env = append(os.Environ(), childEnv+"="+role)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.cmd.Process.Kill(); c.cmd.Wait() })
	return c
}

// line is the child's next line.
func (c *child) line() string {
	c.t.Helper()
	s, err := c.out.ReadString('\n')
	if err != nil {
		c.t.Fatalf("child ended: %v", err)
	}
	return strings.TrimSpace(s)
}

func (c *child) say(words ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.in, words...); err != nil {
		c.t.Fatal(err)
	}
}

func (c *child) wait() {
	c.t.Helper()
	if err := c.cmd.Wait(); err != nil {
		c.t.Fatalf("child: %v", err)
	}
}
