package session_test

import (
	"testing"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// TestCounts: what reads did is told by node, level and reason, over all loops.
func TestCounts(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	p := startProxy(t, c, func(s *settings) { s.loops = 2 })
	p.awaitFollowers(t, 1)
	first, second := p.at(t, "consistency=eventual"), p.at(t, "consistency=eventual") // one on each loop
	must(t, first, "create table counted(i int)")
	leader := c.Leader().Addr()
	eventually(t, "reads on the follower", func() bool {
		must(t, first, "select i from counted")
		must(t, second, "select i from counted")
		return served(t, first) != leader && served(t, second) != leader
	})
	counted := func() (follower, stale, failed uint64) {
		st := p.server.Stat()
		for _, r := range st.ReadsBy {
			if r.Node == 1 && r.Level == "eventual" && r.Why == "follower covers the token" {
				follower += r.Count
			}
		}
		for _, f := range st.Fallbacks {
			switch f.To {
			case "stale":
				stale += f.Count
			case "error":
				failed += f.Count
			}
		}
		sum := uint64(0)
		for _, n := range st.WaitTimes {
			sum += n
		}
		if sum != st.Waits || stale != st.StaleAllowed {
			t.Errorf("%d waits, of which %d by time; %d stale reads, of which %d by reason", st.Waits, sum, st.StaleAllowed, stale)
		}
		return follower, stale, failed
	}
	before, _, _ := counted()
	for range 10 {
		must(t, first, "select i from counted")
		must(t, second, "select i from counted")
	}
	if after, _, _ := counted(); after != before+20 {
		t.Errorf("%d reads were counted of 20", after-before)
	}
	if err := c.Followers()[0].PauseReplay(t.Context()); err != nil {
		t.Fatal(err)
	}
	for fallback, want := range map[string]string{"stale": "", "error": "LS002"} {
		writer := p.at(t, "fallback="+fallback)
		must(t, writer, "insert into counted values (1)")
		if got := sqlstate(t, writer, "select i from counted"); got != want {
			t.Errorf("fallback=%s: %q", fallback, got)
		}
	}
	if _, stale, failed := counted(); stale != 1 || failed != 1 {
		t.Errorf("%d stale, %d failed", stale, failed)
	}
	if err := c.Followers()[0].ResumeReplay(t.Context()); err != nil {
		t.Fatal(err)
	}
}
