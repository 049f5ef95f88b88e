//go:build linux

package reactor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// acceptPause is how long Accept waits for descriptors or memory to be freed.
const acceptPause = 100 * time.Millisecond

// listener is what Accept needs of a *net.TCPListener or *net.UnixListener.
type listener interface {
	net.Listener
	File() (*os.File, error)
}

// Accept accepts connections of ln on one goroutine and hands each over as a
// non-blocking descriptor, which is each's to close. When descriptors run out
// it says so in the log and tries again until some are free. stop ends the
// goroutine, waits for it, and leaves ln open; until then the socket is open
// though ln be closed. The error tells of a listener that is neither TCP nor
// Unix.
func (e *Engine) Accept(ln net.Listener, each func(fd int, remote net.Addr)) (stop func(), err error) {
	l, ok := ln.(listener)
	if !ok {
		return nil, fmt.Errorf("accept on a %T: not a socket", ln)
	}
	// The raw form of a net.Listener does not wait (net.rawListener.Read); that
	// of a duplicate of its descriptor does.
	file, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("accept: %w", err)
	}
	a := &acceptor{engine: e, raw: raw, each: each, stopping: make(chan struct{}), done: make(chan struct{})}
	// Ended by stop, which waits for it.
	go a.run()
	return sync.OnceFunc(func() {
		close(a.stopping)
		file.Close() // ends the wait
		<-a.done
	}), nil
}

type acceptor struct {
	engine   *Engine
	raw      syscall.RawConn
	each     func(int, net.Addr)
	stopping chan struct{} // closed by stop
	done     chan struct{} // closed when the goroutine has ended
}

func (a *acceptor) run() {
	defer close(a.done)
	log := a.engine.options.Log
	for {
		fd, peer, err := a.accept()
		switch {
		case err == nil:
			a.each(fd, netAddr(peer))
			continue
		case a.stopped() || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed):
			return
		case passing(err):
			continue
		}
		log.Error("cannot accept connections, trying again", "error", err, "pause", acceptPause)
		select {
		case <-a.stopping:
			return
		case <-time.After(acceptPause):
		}
	}
}

func (a *acceptor) stopped() bool {
	select {
	case <-a.stopping:
		return true
	default:
		return false
	}
}

// accept waits for one connection. The wait is the runtime's: only this
// goroutine is parked.
func (a *acceptor) accept() (fd int, peer unix.Sockaddr, err error) {
	outer := a.raw.Read(func(ln uintptr) bool {
		fd, peer, err = unix.Accept4(int(ln), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		return err != unix.EAGAIN
	})
	if outer != nil {
		return -1, nil, outer
	}
	return fd, peer, os.NewSyscallError("accept4", err)
}

// passing reports whether an error of accept concerns one connection only: the
// next may be accepted at once. The list is that of accept(2), where Linux
// passes on errors that were pending on the new connection.
func passing(err error) bool {
	for _, e := range [...]unix.Errno{
		unix.EINTR, unix.ECONNABORTED, unix.EPROTO, unix.ENETDOWN, unix.ENOPROTOOPT,
		unix.EHOSTDOWN, unix.ENONET, unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Take takes the socket out of a connection of package net (not of crypto/tls)
// and closes that: the descriptor returned is the caller's, for Adopt. Nothing
// that was read ahead is lost, since package net does not read ahead.
func Take(c net.Conn) (fd int, err error) {
	defer c.Close()
	s, ok := c.(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("take the socket of a %T: not a socket", c)
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("take the socket: %w", err)
	}
	outer := raw.Control(func(old uintptr) {
		fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err = errors.Join(outer, os.NewSyscallError("fcntl", err)); err != nil {
		return -1, fmt.Errorf("take the socket: %w", err)
	}
	return fd, nil
}

// addrPort is a socket address in short form: zero, and true, for a Unix one.
func addrPort(sa unix.Sockaddr) (addr netip.AddrPort, isUnix bool) {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), false
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			ip = ip.WithZone(strconv.Itoa(int(sa.ZoneId)))
		}
		return netip.AddrPortFrom(ip, uint16(sa.Port)), false
	default:
		return netip.AddrPort{}, true
	}
}

// netAddr is a socket address as package net has it.
func netAddr(sa unix.Sockaddr) net.Addr {
	if sa, ok := sa.(*unix.SockaddrUnix); ok {
		return &net.UnixAddr{Name: sa.Name, Net: "unix"}
	}
	addr, isUnix := addrPort(sa)
	if isUnix {
		return &net.UnixAddr{Net: "unix"}
	}
	return net.TCPAddrFromAddrPort(addr)
}
