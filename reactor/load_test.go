//go:build linux

package reactor_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/reactor"
)

// wanderer echoes, and moves to another loop between any two messages, with
// data that has arrived already or not.
type wanderer struct {
	t     testing.TB
	loops []*reactor.Loop
	conn  *reactor.Conn
	moves *atomic.Int64
	ended *sync.WaitGroup
}

func (w *wanderer) Run(task *reactor.Task) {
	l := task.Loop()
	b := l.Borrow()
	defer l.Return(b)
	for range 1 + rand.IntN(3) {
		n, err := w.conn.TryRead(b[:1+rand.IntN(64)])
		if err == reactor.ErrAgain {
			break
		}
		if err == nil {
			_, err = w.conn.Write(b[:n])
		}
		if err != nil {
			if err != io.EOF {
				w.t.Error(err)
			}
			w.conn.Close()
			w.ended.Done()
			return
		}
	}
	if rand.IntN(2) == 0 {
		w.conn.OnReady(w)
		return
	}
	w.moves.Add(1)
	w.conn.Detach()
	to := w.loops[rand.IntN(len(w.loops))]
	if !to.Post(func() {
		if err := to.Attach(w.conn); err != nil {
			w.t.Error(err)
		}
		w.conn.OnReady(w)
	}) {
		w.t.Error("loop has ended")
	}
}

func TestMovingBetweenLoopsLosesNothing(t *testing.T) {
	e := newEngine(t, reactor.Options{Loops: 3})
	const conns, messages = 20, 5000
	var moves atomic.Int64
	var ended, clients sync.WaitGroup
	ended.Add(conns)
	for i := range conns {
		fd, peer := tcpPair(t)
		l := e.Loops()[i%3]
		w := &wanderer{t: t, loops: e.Loops(), moves: &moves, ended: &ended}
		l.Post(func() {
			w.conn = adopt(t, l, fd)
			w.conn.OnReady(w)
		})
		clients.Go(func() {
			for n := range uint64(messages) {
				b := binary.BigEndian.AppendUint64(nil, n)
				if _, err := peer.Write(b); err != nil {
					t.Error(err)
				}
			}
			peer.CloseWrite()
		})
		clients.Go(func() {
			got, err := io.ReadAll(peer)
			if err != nil || len(got) != 8*messages {
				t.Errorf("answered %d of %d bytes, %v", len(got), 8*messages, err)
				return
			}
			for n := range uint64(messages) {
				if g := binary.BigEndian.Uint64(got[8*n:]); g != n {
					t.Errorf("answer %d is %d", n, g)
					return
				}
			}
		})
	}
	clients.Wait()
	ended.Wait()
	for i, l := range e.Loops() {
		settle(l)
		if s := e.Stat().Loops[i]; s.Connections != 0 || s.Buffers != 0 || s.Tasks != 0 {
			t.Errorf("left behind on loop %d: %+v", i, s)
		}
	}
	t.Logf("%d moves", moves.Load())
	if moves.Load() < conns {
		t.Error("hardly any moves")
	}
}

// A client that does not read stops the server that sends to it: the relay
// holds one buffer, whatever the server would like to send.
func TestBackPressure(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	fromFd, source := tcpPair(t)
	toFd, client := tcpPair(t)
	done := do(t, l, func(*reactor.Task) {
		from, to := adopt(t, l, fromFd), adopt(t, l, toFd)
		defer from.Close()
		defer to.Close()
		b := l.Borrow()
		defer l.Return(b)
		for {
			n, err := from.Read(b)
			if err == nil {
				_, err = to.Write(b[:n])
			}
			if err != nil {
				if err != io.EOF {
					t.Error(err)
				}
				return
			}
		}
	})
	const total = 200 << 20
	var sent atomic.Int64
	go func() {
		chunk := make([]byte, 1<<16)
		for sent.Load() < total {
			if _, err := source.Write(chunk); err != nil {
				return
			}
			sent.Add(int64(len(chunk)))
		}
		source.CloseWrite()
	}()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	stopped := int64(-1)
	for still := 0; still < 5; still++ { // until nothing moves any more
		if now := sent.Load(); now != stopped {
			stopped, still = now, 0
		}
		time.Sleep(100 * time.Millisecond)
	}
	runtime.ReadMemStats(&after)
	if stopped >= total/2 {
		t.Errorf("the source has sent %d bytes to a client that reads nothing", stopped)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("heap has grown by %d bytes", grown)
	}
	if s := e.Stat().Loops[0]; s.Buffers != 1 || s.Parked != 1 {
		t.Errorf("while stopped: %+v", s)
	}
	before, turns := after, e.Stat().Loops[0].Turns
	time.Sleep(50 * time.Millisecond)
	if now := e.Stat().Loops[0].Turns; now != turns {
		t.Errorf("%d turns while nothing could be done", now-turns)
	}
	n, err := io.Copy(io.Discard, client)
	if n != total || err != nil {
		t.Errorf("client read %d of %d bytes, %v", n, total, err)
	}
	await(t, done)
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("heap has grown by %d bytes", grown)
	}
}

// Ten thousand clients in other processes connect and are silent: each costs
// its Conn, its session and a slot. Then all speak and are answered.
func TestTenThousandIdleConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("10,000 connections")
	}
	const children, each = 2, 5000
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	heap, all := memory(t)
	stop, err := e.Accept(ln, func(fd int, _ net.Addr) {
		l.Post(func() {
			s := &echo{conn: adopt(t, l, fd)}
			s.conn.OnReady(s)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	var crowds []*child
	for range children {
		c := startChild(t, "crowd")
		c.say(ln.Addr(), each)
		crowds = append(crowds, c)
	}
	for _, c := range crowds {
		c.line() // connected, each answered once
	}
	settle(l)
	if s := e.Stat().Loops[0]; s.Connections != children*each || s.Tasks != 0 || s.Buffers != 0 {
		t.Errorf("while idle: %+v", s)
	}
	heapIdle, allIdle := memory(t)
	perConn := func(a, b int64) int64 { return (b - a) / (children * each) }
	t.Logf("per idle connection: %d bytes of heap, %d bytes resident in all", perConn(heap, heapIdle), perConn(all, allIdle))
	if perConn(heap, heapIdle) > 1000 {
		t.Error("an idle connection costs too much")
	}
	for _, c := range crowds {
		c.say("speak")
	}
	for _, c := range crowds {
		if got := c.line(); got != strconv.Itoa(each) {
			t.Errorf("answered %s of %d", got, each)
		}
		c.say("end")
		c.wait()
	}
}

// memory returns the heap in use and the resident size of this process, in
// bytes, after a collection.
func memory(t testing.TB) (heap, resident int64) {
	t.Helper()
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return int64(m.HeapAlloc), pages * int64(os.Getpagesize())
}

// echo answers what it is told.
type echo struct{ conn *reactor.Conn }

func (s *echo) Run(t *reactor.Task) {
	l := t.Loop()
	b := l.Borrow()
	defer l.Return(b)
	for {
		n, err := s.conn.TryRead(b)
		if err == reactor.ErrAgain {
			s.conn.OnReady(s)
			return
		}
		if err == nil {
			_, err = s.conn.Write(b[:n])
		}
		if err != nil {
			s.conn.Close()
			return
		}
	}
}

func init() { childRoles["crowd"] = crowdChild }

// crowdChild connects many clients, which speak once now and once when told.
func crowdChild() {
	in := bufio.NewReader(os.Stdin)
	var address, word string
	var n int
	fmt.Fscan(in, &address, &n)
	conns := make([]net.Conn, n)
	for i := range conns {
		var err error
		conns[i], err = net.Dial("tcp", address)
		must(err)
		pingPong(conns[i], make([]byte, 8))
	}
	fmt.Println("connected")
	fmt.Fscan(in, &word)
	for i, c := range conns {
		_, err := c.Write(binary.BigEndian.AppendUint64(nil, uint64(i)))
		must(err)
	}
	answered := 0
	for i, c := range conns {
		b := make([]byte, 8)
		_, err := io.ReadFull(c, b)
		must(err)
		if binary.BigEndian.Uint64(b) == uint64(i) {
			answered++
		}
	}
	fmt.Println(answered)
	fmt.Fscan(in, &word)
}
