//go:build linux

package reactor

import (
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wakeSlot is the slot number under which the eventfd is registered.
const wakeSlot = ^uint32(0)

// maxTransfer bounds one read or write in bytes. They are made without telling
// the Go scheduler, so a garbage collection that must stop this thread waits
// for them.
const maxTransfer = 256 << 10

// epoll is the kernel interface of every Linux. A socket is registered once,
// edge-triggered, for both directions and for the peer's hang-up.
type epoll struct {
	fd      int
	eventfd int
	coarse  bool // no epoll_pwait2 here: timeouts are rounded up to milliseconds
	raw     [128]unix.EpollEvent
}

func newEpoll() (*epoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	eventfd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	k := &epoll{fd: fd, eventfd: eventfd}
	// Edge-triggered, every write to the eventfd is an event of its own, and
	// the count need never be read.
	if err := k.add(eventfd, unix.EPOLLIN|unix.EPOLLET, key{slot: wakeSlot}); err != nil {
		k.close()
		return nil, err
	}
	_, errno := k.pwait2(k.raw[:1], 0)
	k.coarse = errno != 0 && errno != unix.EINTR // before Linux 5.11, or a sandbox forbids it
	return k, nil
}

func (k *epoll) close() {
	unix.Close(k.eventfd)
	unix.Close(k.fd)
}

func (k *epoll) attach(fd int, id key) error {
	return k.add(fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET, id)
}

// add registers fd. The 64 bits of data that come back with an event are Fd
// and Pad in x/sys: the slot and its generation here.
func (k *epoll) add(fd int, events uint32, id key) error {
	e := unix.EpollEvent{Events: events, Fd: int32(id.slot), Pad: int32(id.generation)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(k.fd, unix.EPOLL_CTL_ADD, fd, &e))
}

func (k *epoll) detach(fd int) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(k.fd, unix.EPOLL_CTL_DEL, fd, nil))
}

func (k *epoll) wake() {
	one := [8]byte{1}
	for {
		_, err := unix.Write(k.eventfd, one[:])
		if err != unix.EINTR {
			return // EAGAIN: the count is full, after 2^64 wake-ups
		}
	}
}

func (k *epoll) wait(timeout time.Duration, events []event) (n int, woken bool, err error) {
	raw := k.raw[:min(len(events), len(k.raw))]
	got, errno := k.poll(raw, timeout)
	if errno == unix.EINTR {
		return 0, false, nil
	}
	if errno != 0 {
		return 0, false, os.NewSyscallError("epoll_wait", errno)
	}
	for i := range raw[:got] {
		e := &raw[i]
		if uint32(e.Fd) == wakeSlot {
			woken = true
			continue
		}
		events[n] = event{key{uint32(e.Fd), uint32(e.Pad)}, readinessOf(e.Events)}
		n++
	}
	return n, woken, nil
}

// poll waits for events. A wait that cannot block is not worth telling the
// scheduler of.
func (k *epoll) poll(raw []unix.EpollEvent, timeout time.Duration) (int, unix.Errno) {
	if timeout == 0 {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(k.fd),
			uintptr(unsafe.Pointer(&raw[0])), uintptr(len(raw)), 0, 0, 0)
		return int(n), errno
	}
	if timeout > 0 && !k.coarse {
		return k.pwait2(raw, timeout)
	}
	ms := -1
	if timeout > 0 {
		ms = int(min((timeout+time.Millisecond-1)/time.Millisecond, 1<<30))
	}
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(k.fd),
		uintptr(unsafe.Pointer(&raw[0])), uintptr(len(raw)), uintptr(ms), 0, 0)
	return int(n), errno
}

// pwait2 waits with a timeout in nanoseconds, which it takes as two 64-bit
// numbers on every architecture.
func (k *epoll) pwait2(raw []unix.EpollEvent, timeout time.Duration) (int, unix.Errno) {
	ts := [2]int64{int64(timeout / time.Second), int64(timeout % time.Second)}
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(k.fd),
		uintptr(unsafe.Pointer(&raw[0])), uintptr(len(raw)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	return int(n), errno
}

func readinessOf(events uint32) readiness {
	var r readiness
	if events&unix.EPOLLIN != 0 {
		r |= canRead
	}
	if events&unix.EPOLLOUT != 0 {
		r |= canWrite
	}
	if events&unix.EPOLLRDHUP != 0 {
		r |= canRead | hungUp
	}
	if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		r |= canRead | canWrite | hungUp
	}
	return r
}

// read and write go by recvfrom and sendto: a little shorter in the kernel than
// read and write, and a broken pipe is an error without a signal.

func (k *epoll) read(fd int, p []byte) (int, unix.Errno) {
	p = p[:min(len(p), maxTransfer)]
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
			uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0)
		if errno != unix.EINTR {
			return result(n, errno), errno
		}
	}
}

func (k *epoll) write(fd int, p []byte) (int, unix.Errno) {
	p = p[:min(len(p), maxTransfer)]
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd),
			uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno != unix.EINTR {
			return result(n, errno), errno
		}
	}
}

func result(n uintptr, errno unix.Errno) int {
	if errno != 0 {
		return 0
	}
	return int(n)
}
