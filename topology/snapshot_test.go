package topology

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSnapshot(t *testing.T) {
	encode := func(count uint32, numbers ...uint64) []byte {
		b := binary.BigEndian.AppendUint32(nil, count)
		for _, n := range numbers {
			b = binary.BigEndian.AppendUint64(b, n)
		}
		return b
	}
	s, ok := ParseSnapshot(encode(2, 10, 20, 11, 15))
	if diff := cmp.Diff(Snapshot{20, []uint64{11, 15}}, s); diff != "" || !ok {
		t.Error(ok, diff)
	}
	for _, b := range [][]byte{nil, {1, 2, 3}, encode(1, 10, 20), encode(0, 10), encode(1<<32-1, 10, 20, 11)} {
		if s, ok := ParseSnapshot(b); ok {
			t.Errorf("%x was read as %+v", b, s)
		}
	}
	for _, c := range []struct {
		here   Snapshot
		there  uint64
		behind []uint64
	}{
		{Snapshot{Xmax: 20}, 20, nil},
		{Snapshot{Xmax: 21, Running: []uint64{20}}, 20, nil},
		{Snapshot{Xmax: 20, Running: []uint64{7, 19}}, 19, []uint64{7}},
		{Snapshot{Xmax: 20, Running: []uint64{7}}, 22, []uint64{7, 20, 21}},
	} {
		if diff := cmp.Diff(c.behind, c.here.Behind(c.there, 1000)); diff != "" {
			t.Errorf("%+v behind %d (-want +got):\n%s", c.here, c.there, diff)
		}
		if c.here.Passed(c.there) != (c.behind == nil) {
			t.Errorf("%+v passed %d: %v", c.here, c.there, c.here.Passed(c.there))
		}
	}
	if many := (&Snapshot{Xmax: 1}).Behind(1<<60, 1000); len(many) != 1001 {
		t.Errorf("%d transactions are named", len(many))
	}
}
