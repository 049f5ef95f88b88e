package wire_test

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/lsnproxy/lsnproxy/wire"
)

// TestBufferKeepsBytes fills, consumes, swaps and detaches in any order: what
// comes out is what went in, and room is never missing where there is some.
func TestBufferKeepsBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b wire.Buffer
		var want []byte // what must be in b
		next := byte(0)
		t.Repeat(map[string]func(*rapid.T){
			"attach": func(t *rapid.T) {
				if b.Attached() {
					t.Skip("attached")
				}
				b.Attach(make([]byte, rapid.IntRange(1, 64).Draw(t, "size")))
			},
			"detach": func(t *rapid.T) {
				capacity := b.Cap()
				if mem := b.Detach(); len(mem) != capacity {
					t.Fatalf("detached %d bytes of %d", len(mem), capacity)
				}
				want = nil
			},
			"fill": func(t *rapid.T) {
				space := b.Space()
				if len(space) == 0 && b.Len() < b.Cap() {
					t.Fatalf("no space with %d of %d bytes taken", b.Len(), b.Cap())
				}
				n := rapid.IntRange(0, len(space)).Draw(t, "n")
				for i := range n {
					space[i] = next
					want = append(want, next)
					next++
				}
				b.Filled(n)
			},
			"consume": func(t *rapid.T) {
				n := rapid.IntRange(0, b.Len()).Draw(t, "n")
				b.Consume(n)
				want = want[n:]
			},
			"swap": func(t *rapid.T) {
				size := rapid.IntRange(max(1, b.Len()), 128).Draw(t, "size")
				capacity := b.Cap()
				if old := b.Swap(make([]byte, size)); len(old) != capacity {
					t.Fatalf("swapped %d bytes of %d", len(old), capacity)
				}
				if b.Cap() != size {
					t.Fatalf("capacity %d after a swap to %d", b.Cap(), size)
				}
			},
			"": func(t *rapid.T) {
				if !bytes.Equal(b.Bytes(), want) || b.Len() != len(want) {
					t.Fatalf("holds %x (length %d), want %x", b.Bytes(), b.Len(), want)
				}
			},
		})
	})
}

func TestBufferMisuse(t *testing.T) {
	for what, misuse := range map[string]func(*wire.Buffer){
		"a second Attach":             func(b *wire.Buffer) { b.Attach(make([]byte, 8)) },
		"a Swap that would lose data": func(b *wire.Buffer) { b.Swap(make([]byte, 2)) },
	} {
		var b wire.Buffer
		b.Attach(make([]byte, 8))
		b.Filled(3)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s passed", what)
				}
			}()
			misuse(&b)
		}()
	}
}
