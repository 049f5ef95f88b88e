package route_test

import (
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/topology"
)

const second = topology.Instant(time.Second)

// picture is a leader at 1000 and three followers: 1 has 900, 2 has 800, 3 has
// 100 and lags.
func picture() *topology.View {
	v := &topology.View{History: lsn.History{Timeline: 1}}
	for i, at := range []lsn.LSN{1000, 900, 800, 100} {
		v.Nodes = append(v.Nodes, topology.Node{
			ID: i, Role: topology.RoleFollower, State: topology.Usable, Share: 1000,
			Position: lsn.Position{Timeline: 1, LSN: at}, LagBytes: uint64(1000 - at),
			Lag: time.Duration(1000-at) * time.Millisecond, Fresh: topology.Instant(at) * second / 1000,
		})
	}
	v.Nodes[0].Role = topology.RoleLeader
	v.Nodes[3].State = topology.Lagging
	return v
}

func TestPick(t *testing.T) {
	at := func(l lsn.LSN) lsn.Position { return lsn.Position{Timeline: 1, LSN: l} }
	for _, c := range []struct {
		name string
		ask  route.Ask
		want route.Decision
	}{
		{"by its turn", route.Ask{Stay: -1}, route.Decision{Node: 1, Why: route.WhyCovers}},
		{"by another turn", route.Ask{Stay: -1, Turn: 1 << 31}, route.Decision{Node: 2, Why: route.WhyCovers}},
		{"by the last turn", route.Ask{Stay: -1, Turn: 1<<32 - 1}, route.Decision{Node: 2, Why: route.WhyCovers}},
		{"stays", route.Ask{Stay: 2}, route.Decision{Node: 2, Why: route.WhyStays}},
		{"goes back to its own", route.Ask{Stay: 2, Return: true}, route.Decision{Node: 1, Why: route.WhyReturns}},
		{"is on its own", route.Ask{Stay: 1, Return: true}, route.Decision{Node: 1, Why: route.WhyStays}},
		{"must move", route.Ask{Stay: 2, Need: at(850)}, route.Decision{Node: 1, Why: route.WhyCovers}},
		{"must wait", route.Ask{Stay: 2, Need: at(950)}, route.Decision{Node: 0, Wait: true, Why: route.WhyBudget}},
		{"tried", route.Ask{Stay: -1, Tried: 1 << 1}, route.Decision{Node: 2, Why: route.WhyCovers}},
		{"all tried", route.Ask{Stay: -1, Tried: 6}, route.Decision{Node: 0, Why: route.WhyNoFollower}},
		{"nearest", route.Ask{Stay: -1, Turn: 1 << 31, Nearest: true}, route.Decision{Node: 1, Why: route.WhyCovers}},
		{"in bytes", route.Ask{Stay: 2, MaxBytes: 150}, route.Decision{Node: 1, Why: route.WhyCovers}},
		{"in bytes, none", route.Ask{Stay: 2, MaxBytes: 50}, route.Decision{Node: 0, Wait: true, Why: route.WhyBudget}},
		{
			"in time, at the limit",
			route.Ask{Stay: 2, MaxAge: 200 * time.Millisecond, Now: second},
			route.Decision{Node: 2, Why: route.WhyStays},
		},
		{
			"in time, past the limit as time goes by",
			route.Ask{Stay: 2, MaxAge: 200 * time.Millisecond, Now: second + 1},
			route.Decision{Node: 1, Why: route.WhyCovers},
		},
		{"stale", route.Ask{Stay: -1, Stale: true, Turn: 1<<32 - 1}, route.Decision{Node: 3, Why: route.WhyCovers}},
	} {
		if got := route.Pick(picture(), c.ask); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// TestShares: sessions are spread by share, and one without any share serves
// only when nobody else will do.
func TestShares(t *testing.T) {
	v := picture()
	v.Nodes[1].Share, v.Nodes[2].Share = 3000, 1000
	count := [4]int{}
	for turn := range uint32(4000) {
		count[route.Pick(v, route.Ask{Stay: -1, Turn: turn * (1 << 32 / 4000)}).Node]++
	}
	if count[1]+count[2] != 4000 || count[1] < 2995 || count[1] > 3005 {
		t.Errorf("shares of 3 to 1 came out as %v", count)
	}
	v.Nodes[1].Share = 0
	if d := route.Pick(v, route.Ask{Stay: -1}); d.Node != 2 {
		t.Errorf("without a share: %+v", d)
	}
	if d := route.Pick(v, route.Ask{Stay: -1, Tried: 1 << 2}); d.Node != 1 {
		t.Errorf("the only one, without a share: %+v", d)
	}
}

// TestSharesGrow: while the share of a follower that has come back grows, sessions
// move to it, and none moves away.
func TestSharesGrow(t *testing.T) {
	for grows := 1; grows <= 2; grows++ {
		v := picture()
		moves := 0
		for turn := range uint32(1000) {
			before := 3 - grows
			for share := range uint(1000) {
				v.Nodes[grows].Share = share
				now := route.Pick(v, route.Ask{Stay: before, Turn: turn * (1 << 32 / 1000), Return: true}).Node
				if now != before && now != grows {
					t.Fatalf("turn %d moves from %d to %d as the share of %d grows to %d", turn, before, now, grows, share)
				}
				if now != before {
					moves++
				}
				before = now
			}
		}
		if moves < 490 || moves > 510 {
			t.Errorf("%d of 1000 sessions moved", moves)
		}
	}
}

// TestUnknownAge: a follower of which no age can be told is too old for any bound.
func TestUnknownAge(t *testing.T) {
	v := picture()
	v.Nodes[1].Fresh, v.Nodes[2].Fresh = 0, 0
	if d := route.Pick(v, route.Ask{Stay: -1, MaxAge: time.Hour, Now: second}); !d.Wait {
		t.Errorf("%+v", d)
	}
	v.Nodes[1].LagBytes, v.Nodes[2].LagBytes = topology.LagBytesUnknown, topology.LagBytesUnknown
	if d := route.Pick(v, route.Ask{Stay: -1, MaxBytes: 1 << 40}); !d.Wait {
		t.Errorf("%+v", d)
	}
}

func TestHopeless(t *testing.T) {
	for wait, want := range map[time.Duration]bool{50 * time.Millisecond: true, 100 * time.Millisecond: false} {
		if got := route.Hopeless(picture(), route.Ask{Stay: -1}, wait); got != want {
			t.Errorf("waiting %v is hopeless: %v", wait, got)
		}
	}
}

func TestNames(t *testing.T) {
	for l := route.LevelSession; l <= route.LevelEventual; l++ {
		if got, err := route.ParseLevel(l.String()); got != l || err != nil {
			t.Errorf("%v: %v, %v", l, got, err)
		}
	}
	for f := route.FallLeader; f <= route.FallStale; f++ {
		if got, err := route.ParseFallback(f.String()); got != f || err != nil {
			t.Errorf("%v: %v, %v", f, got, err)
		}
	}
	if l, err := route.ParseLevel("Bounded"); l != route.LevelBounded || err != nil {
		t.Error(l, err)
	}
	_, err := route.ParseLevel("sesion")
	if err == nil || err.Error() != "must be session, leader, strong, service, bounded or eventual" {
		t.Error(err)
	}
}
