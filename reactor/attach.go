//go:build linux

package reactor

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Adopt takes over the stream socket fd and attaches it. It is closed if that
// fails, with net.ErrClosed when the engine is closing.
func (l *Loop) Adopt(fd int) (*Conn, error) {
	c := &Conn{fd: fd}
	if err := c.prepare(l.engine.options.Keepalive); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if err := l.Attach(c); err != nil {
		return nil, err
	}
	return c, nil
}

// prepare sets the socket's options and learns its peer.
func (c *Conn) prepare(k Keepalive) error {
	peer, err := unix.Getpeername(c.fd)
	if err != nil {
		return os.NewSyscallError("getpeername", err)
	}
	c.remote, c.unix = addrPort(peer)
	if err := unix.SetNonblock(c.fd, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if c.unix {
		return nil
	}
	if err := unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	return k.set(c.fd)
}

// Attach takes over a detached connection. It is closed if that fails, with
// net.ErrClosed when the engine is closing.
func (l *Loop) Attach(c *Conn) error {
	switch {
	case c.loop != nil:
		panic("reactor: Attach of a connection that is attached")
	case c.fd < 0:
		return net.ErrClosed
	case l.closing:
		c.Close()
		return net.ErrClosed
	}
	k := l.seat(c)
	if err := l.kernel.attach(c.fd, k); err != nil {
		l.unseat(k)
		c.Close()
		return err
	}
	c.loop, c.key = l, k
	// Most often there is room to write, and the kernel's word on it comes
	// only with the next turn: a write may be tried until then.
	c.ready = canWrite
	return nil
}

// seat gives c a slot.
func (l *Loop) seat(c *Conn) key {
	l.count.connections.Add(1)
	last := len(l.free) - 1
	if last < 0 {
		l.slots = append(l.slots, slot{conn: c})
		return key{slot: uint32(len(l.slots) - 1)}
	}
	n := l.free[last]
	l.free = l.free[:last]
	l.slots[n].conn = c
	return key{n, l.slots[n].generation}
}

// unseat frees a slot; events still on their way to it will be recognised.
func (l *Loop) unseat(k key) {
	l.count.connections.Add(-1)
	l.slots[k.slot] = slot{generation: k.generation + 1}
	l.free = append(l.free, k.slot)
}

// Detach deregisters the connection, so that another loop may Attach it.
// Nothing is lost: what is ready then is announced there. No task may wait for
// it; OnReady is disarmed.
func (c *Conn) Detach() {
	if c.loop == nil || c.fd < 0 {
		return
	}
	if c.reader != nil || c.writer != nil {
		panic("reactor: Detach of a connection that a task waits for")
	}
	c.loop.kernel.detach(c.fd) // fails only for a descriptor that is not registered
	c.loop.unseat(c.key)
	c.loop, c.onReady, c.ready = nil, nil, 0
}
