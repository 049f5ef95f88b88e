package lagwatch

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// TestReign: of a reign that is over, each instant before its last sample has a
// position that covers all that was there by then, and the marks stay few.
func TestReign(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	r := reign{gap: 10 * time.Millisecond}
	var samples []topology.Mark
	for at := topology.Instant(1); len(samples) < 5000; at += topology.Instant(random.IntN(int(20 * ms))) {
		m := topology.Mark{At: at, LSN: lsn.LSN(100 + len(samples)/3)}
		samples = append(samples, m)
		r.add(2, m.At, m.LSN)
	}
	if len(r.marks) > marks {
		t.Errorf("%d marks", len(r.marks))
	}
	var v topology.View
	r.over(&v, 7)
	v.History.Timeline = 8
	for i, m := range samples {
		at, ok := v.Written(7, m.At)
		if !ok || at.Timeline != 7 || at.LSN < m.LSN {
			t.Fatalf("sample %d, %v at %v: %v, %v", i, m.LSN, m.At, at, ok)
		}
		if recent := len(samples) - i; recent < 100 && at.LSN > m.LSN+10 {
			t.Errorf("sample %d, %v: covered by %v only", i, m.LSN, at)
		}
	}
	last := samples[len(samples)-1]
	if at, ok := v.Written(7, last.At+1); ok {
		t.Errorf("what was written after the last sample is covered by %v", at)
	}
	if at, ok := v.Written(6, 1); ok {
		t.Errorf("what was written on another timeline is covered by %v", at)
	}
	for timeline := range uint32(20) {
		r.add(1, 1, 1)
		r.over(&v, timeline+8)
	}
	if len(v.Reigns) != reigns || v.Reigns[reigns-1].Timeline != 27 {
		t.Errorf("%d reigns are shown, the last is %+v", len(v.Reigns), v.Reigns[len(v.Reigns)-1])
	}
}
