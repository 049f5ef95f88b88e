//go:build linux

package reactor

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Keepalive says how TCP finds out that the peer of a connection is gone without a word
// (tcp(7)). Where a time or the count is 0, the kernel's own holds.
type Keepalive struct {
	On       bool          // ask a peer from which nothing comes whether it is there
	Idle     time.Duration // for so long, before it is asked first
	Interval time.Duration // and so often then
	Count    int           // unanswered, that many end the connection

	// UserTimeout ends a connection on which something that was sent has not been
	// acknowledged, or was not even taken, for so long. It goes before Count.
	UserTimeout time.Duration
}

// set makes the socket do so.
func (k Keepalive) set(fd int) error {
	on := 0
	if k.On {
		on = 1
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, on); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	seconds := func(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }
	for _, option := range [...]struct{ name, value int }{
		{unix.TCP_KEEPIDLE, seconds(k.Idle)},
		{unix.TCP_KEEPINTVL, seconds(k.Interval)},
		{unix.TCP_KEEPCNT, k.Count},
		{unix.TCP_USER_TIMEOUT, int(k.UserTimeout.Milliseconds())},
	} {
		if option.value == 0 || !k.On && option.name != unix.TCP_USER_TIMEOUT {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, option.name, option.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}
