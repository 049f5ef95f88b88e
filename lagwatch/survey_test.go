package lagwatch

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// TestSurvey: the leader's replicas are told, and one that does not replay is seen
// to have written and flushed all the same; after a promotion they are the new
// leader's.
func TestSurvey(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 2, Settings: quietSettings})
	nodes := c.Nodes()
	w := watch(t, fast, nodes...)
	w.shows("leader 0: usable usable usable")
	told := func(what string, ok func(r []Replica) bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !ok(w.Stat().Replicas); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not in time: %s: %+v", what, w.Stat().Replicas)
			}
		}
	}
	told("both", func(r []Replica) bool {
		return len(r) == 2 && r[0].Application != r[1].Application && r[0].Address != ""
	})
	must(t, nodes[1].PauseReplay(soon(t)))
	exec(t, dialNode(t, nodes[0]), "SELECT pg_logical_emit_message(true, '', repeat('x', 100000))")
	told("one behind", func(r []Replica) bool {
		behind, level := &r[0], &r[1]
		if behind.Replay.Bytes < level.Replay.Bytes {
			behind, level = level, behind
		}
		return behind.Replay.Bytes >= 100000 && behind.Flush.Bytes == 0 && behind.Write.Bytes == 0 && level.Replay.Bytes == 0
	})
	must(t, nodes[1].ResumeReplay(soon(t)))
	must(t, nodes[0].Stop(pgcluster.Fast))
	must(t, nodes[1].Promote(soon(t)))
	must(t, nodes[2].Follow(soon(t), nodes[1]))
	told("the new leader's", func(r []Replica) bool { return len(r) == 1 })
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		columns []string
		want    Distance
	}{
		{[]string{"1234", "0.000123"}, Distance{1234, 123 * time.Microsecond}},
		{[]string{"-8", ""}, Distance{0, -1}},
	} {
		if diff := cmp.Diff(c.want, distance(c.columns)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.columns, diff)
		}
	}
	r := Replica{Write: Distance{1, 5}, Replay: Distance{7, -1}}
	r.worsen(&Replica{Write: Distance{2, 3}, Replay: Distance{6, 4}})
	if want := (Replica{Write: Distance{2, 5}, Replay: Distance{7, 4}}); r != want {
		t.Errorf("%+v, want %+v", r, want)
	}
}
