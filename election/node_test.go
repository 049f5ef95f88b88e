package election

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"
)

// alone starts a proxy that nobody else votes with.
func alone(t *testing.T) *Node {
	t.Helper()
	n, err := Start(Options{ID: "only", Heartbeat: 10 * time.Millisecond, Election: 50 * time.Millisecond, Lease: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Stop(context.Background()) })
	return n
}

// A proxy alone coordinates itself, holds a lease without end under a decree
// with a leader, and gives it up when the decree is replaced.
func TestAlone(t *testing.T) {
	n, ctx := alone(t), context.Background()
	s := n.State()
	if !s.Coordinates || s.Coordinator != "only" || !s.Quorum {
		t.Fatalf("does not coordinate itself: %+v", s)
	}
	if _, _, ok := n.MayWrite(time.Now()); ok {
		t.Error("may write before anything is decided")
	}
	changed := n.Changed()
	first := Decree{Epoch: 1, SystemID: 7, Leader: "a:5432", Timeline: 1}
	if err := n.Decide(ctx, Decree{}, first); err != nil {
		t.Fatal(err)
	}
	<-changed
	if epoch, until, ok := n.MayWrite(time.Now()); !ok || epoch != 1 || time.Until(until) < 24*time.Hour {
		t.Errorf("lease of epoch %d until %v, %v", epoch, until, ok)
	}
	if err := n.Decide(ctx, Decree{}, first); !errors.Is(err, ErrChanged) {
		t.Errorf("decided from a decree that does not stand: %v", err)
	}
	if err := n.Decide(ctx, first, Decree{Epoch: 1, Leader: "b:5432"}); err == nil {
		t.Error("a new leader in the same epoch")
	}
	planned := first
	planned.Plan = json.RawMessage(`{"phase":"agree"}`)
	if err := n.Decide(ctx, first, planned); err != nil {
		t.Fatal(err)
	}

	if err := n.Decide(ctx, planned, Decree{Epoch: 2, SystemID: 7}); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if _, _, ok := n.MayWrite(now); ok {
		t.Error("may begin to write while fenced")
	}
	if !n.MayFinish(1, now) {
		t.Error("may not finish")
	}
	if n.IsFenced(2) {
		t.Error("fenced while somebody may finish")
	}
	n.Acknowledge(2)
	if n.MayFinish(1, now) {
		t.Error("may finish what was given up")
	}
	if err := n.Fenced(ctx, 2); err != nil {
		t.Error(err)
	}
}

// What is not acknowledged is fenced once the lease has run out.
func TestAloneRunsOut(t *testing.T) {
	n, ctx := alone(t), context.Background()
	first := Decree{Epoch: 1, Leader: "a:5432"}
	for _, d := range [][2]Decree{{{}, first}, {first, {Epoch: 2}}} {
		if err := n.Decide(ctx, d[0], d[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Fenced(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if n.MayFinish(1, time.Now()) {
		t.Error("fenced while somebody may finish")
	}
}

func TestCheckTimes(t *testing.T) {
	for _, c := range []struct {
		heartbeat, election, lease time.Duration
		drift                      float64
		ok                         bool
	}{
		{DefaultHeartbeat, DefaultElection, DefaultLease, DefaultDrift, true},
		{100, 1000, 4000, 0.01, false},
		{time.Second, 4 * time.Second, time.Minute, 0.01, false},
		{time.Second, 5 * time.Second, 17 * time.Second, 0.01, false},
		{time.Second, 5 * time.Second, 18 * time.Second, 0.01, true},
		{time.Second, 5 * time.Second, 18 * time.Second, 0.2, false},
	} {
		if err := CheckTimes(c.heartbeat, c.election, c.lease, c.drift); (err == nil) != c.ok {
			t.Errorf("%v: %v", c, err)
		}
	}
}
