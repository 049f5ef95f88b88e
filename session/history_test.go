package session_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/internal/history"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// pairsEach is write-then-read pairs of each of the 32 sessions.
const pairsEach = 640

// runHistory lets 32 sessions write and read through p and judges what they saw.
func runHistory(t *testing.T, p *proxy, o history.Options) *history.Result {
	t.Helper()
	o.Addresses = []string{p.addr}
	o.Sessions = 32
	o.NodeQuery = "SHOW lsnproxy.node"
	r, err := history.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v", r)
	return r
}

// demandClean fails the test on any violation or error.
func demandClean(t *testing.T, r *history.Result) {
	t.Helper()
	if !r.Keeps(history.Written, history.Session) {
		t.Errorf("violations: %v", r.Violations)
	}
	if len(r.Errors) > 0 {
		t.Errorf("errors: %v: %v", r.Errors, r.Samples)
	}
}

// TestReadYourWritesWithApplyDelay is promises 1 and 2 on followers that apply
// everything 200 ms late.
func TestReadYourWritesWithApplyDelay(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 2, ApplyDelay: 200 * time.Millisecond})
	p := startProxy(t, c, nil)
	p.awaitFollowers(t, 2)
	demandClean(t, runHistory(t, p, history.Options{Pairs: pairsEach}))
}

// TestReadYourWritesWithReplayPauses pauses and resumes replay at random under
// the sessions.
func TestReadYourWritesWithReplayPauses(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 2})
	p := startProxy(t, c, func(s *settings) { s.session.Return = time.Millisecond }) // followers come and go
	p.awaitFollowers(t, 2)
	r := runHistory(t, p, history.Options{Pairs: pairsEach, Meanwhile: func(ctx context.Context) error {
		return pauseAtRandom(ctx, c)
	}})
	demandClean(t, r)
	if st := p.server.Stat(); st.Waits == 0 || reads(st.Reads[1:]) == 0 {
		t.Errorf("nothing was put to the test: %+v", st)
	}
}

func reads(by []uint64) (n uint64) {
	for _, x := range by {
		n += x
	}
	return n
}

// pauseAtRandom pauses and resumes replay on followers until ctx ends.
func pauseAtRandom(ctx context.Context, c *pgcluster.Cluster) error {
	resume := context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		f := c.Followers()[rand.IntN(len(c.Followers()))]
		if err := f.PauseReplay(resume); err != nil {
			return err
		}
		wait(ctx, time.Duration(rand.IntN(200))*time.Millisecond)
		if err := f.ResumeReplay(resume); err != nil {
			return err
		}
		wait(ctx, time.Duration(rand.IntN(200))*time.Millisecond)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// TestCheckerFindsStaleReads is the control: with positions ignored the same
// checker finds what it is looking for.
func TestCheckerFindsStaleReads(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 2, ApplyDelay: 200 * time.Millisecond})
	p := startProxy(t, c, func(s *settings) { s.session.IgnorePositions = true })
	p.awaitFollowers(t, 2)
	r := runHistory(t, p, history.Options{Pairs: 40, Ready: func(ctx context.Context) error {
		wait(ctx, time.Second) // until the tables are on the followers
		return nil
	}})
	if r.Faults[history.Stale] == 0 || r.Faults[history.Backward] == 0 {
		t.Errorf("with positions ignored the checker found nothing: %v", r)
	}
}
