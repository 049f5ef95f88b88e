//go:build linux

package reactor

import (
	"time"

	"golang.org/x/sys/unix"
)

// kernel is what a loop asks of the operating system. Every method but wake is
// called on the loop's goroutine only. read and write never block: EAGAIN
// means not now, and a later event says when.
type kernel interface {
	// attach begins to report readiness of the socket fd under the key, the
	// present readiness first.
	attach(fd int, k key) error
	// detach ends the reports; events already on their way may still come.
	detach(fd int) error
	// wait fills events with what has happened, waiting up to timeout for the
	// first (negative: without limit, 0: not at all). woken says that wake
	// was called since the last wait.
	wait(timeout time.Duration, events []event) (n int, woken bool, err error)
	// wake makes the present or the next wait return; any goroutine.
	wake()
	read(fd int, p []byte) (int, unix.Errno)
	write(fd int, p []byte) (int, unix.Errno)
	close()
}

// key names a connection to the kernel: its slot in the loop's table, and the
// slot's generation, by which an event of a closed connection is told from one
// of its successor in the slot.
type key struct{ slot, generation uint32 }

// event says that the connection under the key has become ready.
type event struct {
	key
	ready readiness
}

// readiness is a set of what a socket is ready for.
type readiness uint8

const (
	canRead  readiness = 1 << iota
	canWrite           // never reported alone after hungUp: the write tells the error
	hungUp             // the peer has ended its side, or the connection is dead
)
