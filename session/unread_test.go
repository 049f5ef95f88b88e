package session_test

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// unread returns how many bytes lie unread in a socket.
func unread(raw syscall.RawConn) (n int) {
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n
}
