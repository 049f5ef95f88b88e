package wire

// Buffer is a window on borrowed memory: bytes read and not yet dealt with.
// It owns nothing: whoever attached the memory takes it back with Detach.
type Buffer struct {
	mem  []byte
	r, w int
}

// Attached reports whether the buffer has memory.
func (b *Buffer) Attached() bool { return b.mem != nil }

// Attach gives the buffer memory. It must have none.
func (b *Buffer) Attach(mem []byte) {
	if b.mem != nil {
		panic("wire: Attach to a buffer that has memory")
	}
	b.mem, b.r, b.w = mem, 0, 0
}

// Detach takes the memory away, and with it whatever was in it.
func (b *Buffer) Detach() []byte {
	mem := b.mem
	b.mem, b.r, b.w = nil, 0, 0
	return mem
}

// Bytes returns what is there. It is valid until the next call of Space or
// Swap.
func (b *Buffer) Bytes() []byte { return b.mem[b.r:b.w] }

// Len returns how much is there.
func (b *Buffer) Len() int { return b.w - b.r }

// Cap returns the size of the memory.
func (b *Buffer) Cap() int { return len(b.mem) }

// Space returns room to read into, moving what is there to the front if that
// makes some. It is empty if the buffer is full.
func (b *Buffer) Space() []byte {
	if b.r == b.w {
		b.r, b.w = 0, 0
	}
	if b.w == len(b.mem) && b.r > 0 {
		copy(b.mem, b.mem[b.r:b.w])
		b.r, b.w = 0, b.w-b.r
	}
	return b.mem[b.w:]
}

// Filled says that n bytes were read into Space.
func (b *Buffer) Filled(n int) { b.w += n }

// Consume drops n bytes from the front. There being fewer is a broken invariant,
// which would otherwise show somewhere else.
func (b *Buffer) Consume(n int) {
	if n > b.w-b.r {
		panic("wire: more consumed than there is")
	}
	b.r += n
}

// Swap replaces the memory with other that is at least as long as what is
// there, which it keeps, and returns the old.
func (b *Buffer) Swap(mem []byte) (old []byte) {
	if len(mem) < b.Len() {
		panic("wire: Swap of a buffer into too little memory")
	}
	n := copy(mem, b.mem[b.r:b.w])
	old = b.mem
	b.mem, b.r, b.w = mem, 0, n
	return old
}
