//go:build linux

package reactor

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// again is the type of ErrAgain: a temporary net.Error, after which crypto/tls
// goes on.
type again struct{}

func (again) Error() string   { return "reactor: not ready" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

// ErrAgain says that nothing can be read now.
var ErrAgain net.Error = again{}

var errDetached = errors.New("reactor: connection is not attached to a loop")

// Conn is a stream socket attached to a loop. Its methods may be called on its
// loop only; Read and Write only by a task. One task at a time may read and one
// may write. All errors but io.EOF, ErrAgain, net.ErrClosed and
// os.ErrDeadlineExceeded are *os.SyscallError.
type Conn struct {
	loop    *Loop // nil while detached
	fd      int   // -1 once closed
	key     key
	ready   readiness // announced and not consumed
	nonpark bool      // Read answers ErrAgain instead of parking
	unix    bool

	onReady        Runner
	reader, writer *Task // who waits
	readBy         int64 // deadlines, instants
	writeBy        int64
	remote         netip.AddrPort // kept, for a log line after the peer has gone
}

// Loop returns the loop the connection is attached to, nil if none.
func (c *Conn) Loop() *Loop { return c.loop }

// Quiet returns for how long nothing has come from the peer; 0 if that is not known.
func (c *Conn) Quiet() time.Duration {
	if c.fd < 0 || c.unix {
		return 0
	}
	info, err := unix.GetsockoptTCPInfo(c.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	return time.Duration(info.Last_data_recv) * time.Millisecond
}

// OnReady makes the loop start r, once, when the connection is or becomes
// readable, hangs up or is closed, and no task waits to read it. nil disarms.
// It may fire with nothing to read.
func (c *Conn) OnReady(r Runner) {
	c.onReady = r
	if c.loop != nil && c.worth(false) {
		c.fire()
	}
}

// fire starts what OnReady armed.
func (c *Conn) fire() {
	if r := c.onReady; r != nil {
		c.onReady = nil
		c.loop.Start(r)
	}
}

// announce notes readiness and resumes who waits for it.
func (c *Conn) announce(r readiness) {
	c.ready |= r
	if r&canWrite != 0 && c.writer != nil {
		c.loop.rouse(c.writer, Ready)
	}
	if r&canRead == 0 {
		return
	}
	if c.reader != nil {
		c.loop.rouse(c.reader, Ready)
	} else {
		c.fire()
	}
}

// Readable reports whether a read is worth trying: readiness was announced and
// not consumed, or the connection is closed.
func (c *Conn) Readable() bool { return c.fd < 0 || c.ready&canRead != 0 }

// Writable reports whether a write is worth trying.
func (c *Conn) Writable() bool { return c.ready&canWrite != 0 }

// worth reports whether trying would tell something: data, room, or the end.
func (c *Conn) worth(write bool) bool {
	if c.fd < 0 {
		return true
	}
	if write {
		return c.Writable()
	}
	return c.Readable()
}

// await names the task that waits in one direction; nil: nobody any more.
func (c *Conn) await(t *Task, write bool) {
	who := &c.reader
	if write {
		who = &c.writer
	}
	if t != nil && (*who != nil || c.loop != t.loop) {
		panic("reactor: a connection is waited for by two tasks, or by one of another loop")
	}
	*who = t
}

// TryRead reads what is there, up to len(p) bytes, and never parks: n, nil |
// 0, ErrAgain | 0, io.EOF | 0, an error.
func (c *Conn) TryRead(p []byte) (int, error) {
	switch {
	case c.fd < 0:
		return 0, net.ErrClosed
	case c.loop == nil:
		return 0, errDetached
	case len(p) == 0:
		return 0, nil
	case !c.Readable():
		return 0, ErrAgain
	}
	c.spend()
	n, errno := c.loop.kernel.read(c.fd, p)
	switch {
	case errno == unix.EAGAIN:
		c.ready &^= canRead
		return 0, ErrAgain
	case errno != 0:
		return 0, os.NewSyscallError("recv", errno)
	case n == 0:
		return 0, io.EOF
	case n < min(len(p), maxTransfer) && c.ready&hungUp == 0:
		// A short read has emptied the socket: the next byte makes a new
		// edge. After a hang-up there is none to come, only the end to read.
		c.ready &^= canRead
	}
	return n, nil
}

// TryWrite writes what there is room for and never parks: n < len(p) with no
// error means that the socket is full.
func (c *Conn) TryWrite(p []byte) (int, error) {
	switch {
	case c.fd < 0:
		return 0, net.ErrClosed
	case c.loop == nil:
		return 0, errDetached
	}
	done := 0
	for done < len(p) && c.Writable() {
		c.spend()
		rest := p[done:min(len(p), done+maxTransfer)]
		n, errno := c.loop.kernel.write(c.fd, rest)
		if errno != 0 && errno != unix.EAGAIN {
			return done, os.NewSyscallError("send", errno)
		}
		done += n
		if n < len(rest) {
			c.ready &^= canWrite
		}
	}
	return done, nil
}

// spend counts a read or write against the share of the task that makes it.
func (c *Conn) spend() {
	if t := c.loop.current; t != nil {
		t.spent++
	}
}

// Read reads up to len(p) bytes, and parks the task until there are some.
func (c *Conn) Read(p []byte) (int, error) {
	for {
		n, err := 0, c.before(c.readBy)
		if err == nil {
			n, err = c.TryRead(p)
		}
		if err != ErrAgain || c.nonpark {
			return n, err
		}
		c.park(false, c.readBy)
	}
}

// Write writes all of p, and parks the task while there is no room.
func (c *Conn) Write(p []byte) (int, error) {
	done := 0
	for {
		if err := c.before(c.writeBy); err != nil {
			return done, err
		}
		part := p[done:min(len(p), done+maxTransfer)]
		n, err := c.TryWrite(part)
		done += n
		if err != nil || done == len(p) {
			return done, err
		}
		if n < len(part) {
			c.park(true, c.writeBy)
		}
	}
}

// before answers os.ErrDeadlineExceeded if the instant by has passed, and lets
// others have their turn.
func (c *Conn) before(by int64) error {
	if c.loop == nil {
		return nil // TryRead and TryWrite know why
	}
	if t := c.loop.current; t != nil && t.spent >= share && !c.nonpark {
		t.giveWay()
	}
	if by != 0 && now() >= by {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// park parks the current task until the connection is worth trying in one
// direction, the instant by passes, or it must look again.
func (c *Conn) park(write bool, by int64) {
	t := c.loop.current
	if t == nil {
		panic("reactor: Read or Write outside a task would block the loop")
	}
	c.await(t, write)
	t.park(Ready|Deadline, by)
	c.await(nil, write)
}

// SetNonpark makes Read answer ErrAgain where it would park. Through
// crypto/tls, which tolerates it, this makes a Read that takes what has come
// and returns.
func (c *Conn) SetNonpark(on bool) { c.nonpark = on }

// SetDeadline sets both deadlines; the zero time means none.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline bounds Read, one that is parked included.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.readBy, c.reader, t) }

// SetWriteDeadline bounds Write, one that is parked included.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writeBy, c.writer, t) }

func (c *Conn) setDeadline(by *int64, waiter *Task, t time.Time) error {
	if c.fd < 0 {
		return net.ErrClosed
	}
	*by = instant(t)
	if waiter != nil && waiter.parked&Woken == 0 { // in Read or Write, not in Wait
		c.loop.rouse(waiter, Ready)
	}
	return nil
}

// CloseWrite ends the outgoing direction: the peer reads what was written and
// then the end.
func (c *Conn) CloseWrite() error {
	if c.fd < 0 {
		return net.ErrClosed
	}
	return os.NewSyscallError("shutdown", unix.Shutdown(c.fd, unix.SHUT_WR))
}

// Close closes the connection, attached or detached. Who waits for it is
// resumed, and what OnReady armed is started: a read will tell them
// net.ErrClosed.
func (c *Conn) Close() error {
	if c.fd < 0 {
		return net.ErrClosed
	}
	err := unix.Close(c.fd)
	c.fd, c.ready = -1, 0
	if l := c.loop; l != nil {
		l.unseat(c.key)
		for _, t := range [...]*Task{c.reader, c.writer} {
			if t != nil {
				l.rouse(t, Ready)
			}
		}
		c.fire()
	}
	return os.NewSyscallError("close", err)
}

// LocalAddr returns the socket's own address, nil once it is closed.
func (c *Conn) LocalAddr() net.Addr {
	if c.fd < 0 {
		return nil
	}
	own, err := unix.Getsockname(c.fd)
	if err != nil {
		return nil
	}
	return netAddr(own)
}

// RemoteAddr returns the peer's address, also after it has gone.
func (c *Conn) RemoteAddr() net.Addr {
	if c.unix {
		return &net.UnixAddr{Net: "unix"}
	}
	return net.TCPAddrFromAddrPort(c.remote)
}
