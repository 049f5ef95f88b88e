package pgcluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Link is a TCP proxy that behaves like a bad network on demand. Its faults are
// independent of each other and act on open connections and on new ones.
//
// A server that is down looks a little different through a link: a connection
// is accepted and then reset, rather than refused.
type Link struct {
	target   string
	listener *net.TCPListener
	running  sync.WaitGroup // every goroutine of the link; Close waits for it

	mu      sync.Mutex
	faults  faults
	changed chan struct{} // closed, and replaced, when faults change
	open    map[*net.TCPConn]struct{}
}

type faults struct {
	delay     time.Duration
	blackhole bool
	refuse    bool
	closed    bool
}

// NewLink listens on a free port of 127.0.0.1 and relays to target, host:port.
func NewLink(target string) (*Link, error) {
	var listener net.Listener
	var err error
	for range 10 { // another process may be quicker to take a free port
		listener, err = net.Listen("tcp4", net.JoinHostPort(host, strconv.Itoa(freePort())))
		if err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("link to %s: %w", target, err)
	}
	l := &Link{
		target:   target,
		listener: listener.(*net.TCPListener),
		changed:  make(chan struct{}),
		open:     make(map[*net.TCPConn]struct{}),
	}
	l.running.Go(l.accept) // until Close
	return l, nil
}

// Addr is host:port where the link listens.
func (l *Link) Addr() string { return l.listener.Addr().String() }

// SetDelay makes each byte arrive d later than it was sent, in each direction;
// those under way too. It does not limit the throughput. It is exact to about a
// millisecond.
func (l *Link) SetDelay(d time.Duration) { l.change(func(f *faults) { f.delay = d }) }

// Blackhole stops all bytes both ways, the end of a connection included.
// Connections stay open; new ones are accepted and hear nothing. What was sent
// meanwhile arrives after Heal.
func (l *Link) Blackhole() { l.change(func(f *faults) { f.blackhole = true }) }

// Refuse refuses new connections; open ones go on.
func (l *Link) Refuse() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.faults.refuse {
		return nil
	}
	l.changeLocked(func(f *faults) { f.refuse = true })
	// A socket that is shut down no longer listens, but keeps its port.
	return l.control(func(fd int) error { return syscall.Shutdown(fd, syscall.SHUT_RD) })
}

// Heal ends every fault, the delay included. A connection that was reset stays so.
func (l *Link) Heal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.faults.refuse {
		if err := l.control(func(fd int) error { return syscall.Listen(fd, syscall.SOMAXCONN) }); err != nil {
			return err
		}
	}
	l.changeLocked(func(f *faults) { *f = faults{closed: f.closed} })
	return nil
}

// Reset ends every open connection with a TCP reset on both sides.
func (l *Link) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.open {
		reset(conn)
	}
}

// Close resets every connection, stops listening and waits until all is over.
func (l *Link) Close() {
	l.change(func(f *faults) { f.closed = true })
	l.listener.Close()
	l.Reset()
	l.running.Wait()
}

func (l *Link) change(f func(*faults)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changeLocked(f)
}

func (l *Link) changeLocked(f func(*faults)) {
	f(&l.faults)
	close(l.changed)
	l.changed = make(chan struct{})
}

// control calls f with the listening socket.
func (l *Link) control(f func(fd int) error) error {
	raw, err := l.listener.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}

// await waits as long as hold asks for, given the present faults, which may
// change meanwhile. It reports whether the link is still open.
func (l *Link) await(hold func(faults) time.Duration) bool {
	for {
		l.mu.Lock()
		now, changed := l.faults, l.changed
		l.mu.Unlock()
		if now.closed {
			return false
		}
		rest := hold(now)
		if rest <= 0 {
			return true
		}
		select {
		case <-changed:
		case <-time.After(rest):
		}
	}
}

const forever = time.Duration(math.MaxInt64)

func untilNotRefusing(f faults) time.Duration {
	if f.refuse {
		return forever
	}
	return 0
}

func untilNotBlackhole(f faults) time.Duration {
	if f.blackhole {
		return forever
	}
	return 0
}

func (l *Link) accept() {
	for l.await(untilNotRefusing) {
		conn, err := l.listener.AcceptTCP()
		if err != nil {
			// It was told to refuse, or closed, or has too many files open.
			time.Sleep(time.Millisecond)
			continue
		}
		l.running.Go(func() { l.serve(conn) }) // until its connection ends
	}
}

// serve relays one client's connection.
func (l *Link) serve(client *net.TCPConn) {
	if !l.track(client) {
		return
	}
	defer l.forget(client)
	if !l.await(untilNotBlackhole) {
		return
	}
	conn, err := net.Dial("tcp", l.target)
	if err != nil {
		reset(client)
		return
	}
	server := conn.(*net.TCPConn)
	if !l.track(server) {
		return
	}
	defer l.forget(server)
	var both sync.WaitGroup
	both.Go(func() { l.relay(server, client) })
	both.Go(func() { l.relay(client, server) })
	both.Wait()
}

// track notes an open connection for Reset. It refuses, and resets, one that
// was opened while the link was closed.
func (l *Link) track(conn *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.faults.closed {
		reset(conn)
		return false
	}
	l.open[conn] = struct{}{}
	return true
}

func (l *Link) forget(conn *net.TCPConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, conn)
	conn.Close()
}

// chunk is what was read at once, and when. The last chunk of a connection has
// the error that ended it instead of bytes.
type chunk struct {
	bytes []byte
	read  time.Time
	err   error
}

// relay carries bytes from src to dst until src ends or either fails. An end of
// file is passed on as one; a failure resets both.
func (l *Link) relay(dst, src *net.TCPConn) {
	// So much may be under way: the window of a long and fast line.
	queue := make(chan chunk, 1024)
	var reading sync.WaitGroup
	reading.Go(func() { l.read(src, queue) }) // until src ends, or write has reset it
	if err := l.write(dst, queue); err != nil {
		reset(src)
		reset(dst)
	}
	for range queue {
		// Let the reader get rid of what it still has.
	}
	reading.Wait()
}

// read reads src to its end and closes queue.
func (l *Link) read(src *net.TCPConn, queue chan<- chunk) {
	defer close(queue)
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			queue <- chunk{bytes: bytes.Clone(buf[:n]), read: time.Now()}
		}
		if err != nil {
			queue <- chunk{read: time.Now(), err: err}
			return
		}
		l.await(untilNotBlackhole) // meanwhile the sender's window fills
	}
}

// write writes what read has queued when it is due. It returns nil after an end
// of file was passed on.
func (l *Link) write(dst *net.TCPConn, queue <-chan chunk) error {
	for c := range queue {
		open := l.await(func(f faults) time.Duration {
			return max(untilNotBlackhole(f), time.Until(c.read.Add(f.delay)))
		})
		if !open {
			return net.ErrClosed
		}
		if c.err == io.EOF {
			return dst.CloseWrite()
		}
		if c.err != nil {
			return c.err
		}
		if _, err := dst.Write(c.bytes); err != nil {
			return err
		}
	}
	return nil
}

// reset closes conn with a TCP reset instead of an orderly end.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0) // fails on a closed connection only
	conn.Close()
}
