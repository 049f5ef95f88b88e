//go:build linux

package reactor

import "fmt"

const maxBuffers = 128 // returned buffers a loop keeps

// Borrow lends a buffer of Options.BufferSize bytes, for use on this loop.
func (l *Loop) Borrow() []byte {
	l.count.buffers.Add(1)
	last := len(l.buffers) - 1
	if last < 0 {
		return make([]byte, l.engine.options.BufferSize)
	}
	b := l.buffers[last]
	l.buffers[last] = nil
	l.buffers = l.buffers[:last]
	return b
}

// Return takes back a buffer that Borrow lent, however it was sliced from its
// beginning.
func (l *Loop) Return(b []byte) {
	if cap(b) != l.engine.options.BufferSize {
		panic(fmt.Sprintf("reactor: Return of a buffer of %d bytes not borrowed", cap(b)))
	}
	l.count.buffers.Add(-1)
	if len(l.buffers) < maxBuffers {
		l.buffers = append(l.buffers, b[:cap(b)])
	}
}
