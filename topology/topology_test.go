package topology_test

import (
	"sync"
	"testing"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

func TestNewBoard(t *testing.T) {
	v := topology.NewBoard([]string{"a:1", "b:2"}).View()
	if v.Leader != topology.NoLeader || len(v.Nodes) != 2 {
		t.Fatalf("a new board shows %+v", v)
	}
	for i, n := range v.Nodes {
		if n.ID != i || n.State != topology.Unknown || n.Role != topology.RoleUnknown || n.Detail == "" {
			t.Errorf("node %d of a new board is %+v", i, n)
		}
	}
}

func TestPublishedViewDoesNotChange(t *testing.T) {
	b := topology.NewBoard([]string{"a:1", "b:2"})
	before := b.View()
	after := b.Update(func(v *topology.View) {
		v.Leader = 1
		v.Nodes[1].Role = topology.RoleLeader
	})
	if before.Leader != topology.NoLeader || before.Nodes[1].Role != topology.RoleUnknown {
		t.Errorf("an update changed the view published before it: %+v", before)
	}
	if after != b.View() || after.Leader != 1 || after.Nodes[1].Role != topology.RoleLeader {
		t.Errorf("the view after the update is %+v", b.View())
	}
}

func TestUpdatesAreNotLost(t *testing.T) {
	const each = 1000
	b := topology.NewBoard([]string{"a:1", "b:2", "c:3"})
	var all sync.WaitGroup
	for id := range 3 {
		all.Go(func() {
			for range each {
				b.Update(func(v *topology.View) { v.Nodes[id].Position.LSN++ })
			}
		})
	}
	seen := make([]lsn.LSN, 3)
	for done := false; !done; {
		v := b.View()
		done = true
		for id, n := range v.Nodes {
			if n.Position.LSN < seen[id] {
				t.Fatalf("node %d went back from %d to %d", id, seen[id], n.Position.LSN)
			}
			seen[id] = n.Position.LSN
			done = done && n.Position.LSN == each
		}
	}
	all.Wait()
}

func TestProves(t *testing.T) {
	v := &topology.View{History: lsn.History{Timeline: 2, Ancestors: []lsn.Switch{{Timeline: 1, End: 100}}}}
	node := topology.Node{Position: lsn.Position{Timeline: 2, LSN: 150}, Sampled: 1000}
	for _, c := range []struct {
		opened topology.Instant
		need   lsn.Position
		want   bool
		why    string
	}{
		{999, lsn.Position{Timeline: 2, LSN: 150}, true, "sampled after the connection was opened"},
		{1000, lsn.Position{Timeline: 2, LSN: 150}, true, "at the same instant"},
		{1001, lsn.Position{Timeline: 2, LSN: 150}, false, "the sample may be of an earlier run of the server"},
		{1001, lsn.Position{}, true, "nothing to prove"},
		{999, lsn.Position{Timeline: 2, LSN: 151}, false, "short"},
		{999, lsn.Position{Timeline: 1, LSN: 100}, true, "inherited"},
		{999, lsn.Position{Timeline: 1, LSN: 101}, false, "lost"},
	} {
		if got := v.Proves(&node, c.opened, c.need); got != c.want {
			t.Errorf("Proves(opened %d, %v) = %v: %s", c.opened, c.need, got, c.why)
		}
	}
	down := topology.Node{}
	if v.Proves(&down, 0, lsn.Position{Timeline: 2, LSN: 1}) {
		t.Error("a node of which nothing is known proves something")
	}
}

func TestNames(t *testing.T) {
	for s, want := range map[topology.State]string{
		topology.Unknown: "unknown", topology.Down: "down", topology.Foreign: "foreign",
		topology.Superseded: "superseded", topology.Diverged: "diverged", topology.Lagging: "lagging", topology.Usable: "usable",
	} {
		if s.String() != want {
			t.Errorf("state %d is called %s, want %s", s, s, want)
		}
	}
	for r, want := range map[topology.Role]string{
		topology.RoleUnknown: "unknown", topology.RoleLeader: "leader", topology.RoleFollower: "follower",
	} {
		if r.String() != want {
			t.Errorf("role %d is called %s, want %s", r, r, want)
		}
	}
}

func TestInstants(t *testing.T) {
	a := topology.Now()
	b := topology.Now()
	if b < a || b.Since(a) < 0 {
		t.Errorf("the clock went back: %d, %d", a, b)
	}
}

// Two nodes lead in turn. A commit that one of them answers when it leads no more was
// made on the timeline that it led last, also if it led another one before.
func TestTimelineOf(t *testing.T) {
	v := topology.View{Leader: topology.NoLeader, History: lsn.History{Timeline: 1}}
	led := func(what string, node int, want uint32) {
		t.Helper()
		if got := v.TimelineOf(node); got != want {
			t.Errorf("%s: node %d led timeline %d, want %d", what, node, got, want)
		}
	}
	led("nobody leads after the first", 0, 1)
	v = topology.View{Leader: 1, History: lsn.History{Timeline: 2}, Reigns: []topology.Reign{{Node: 0, Timeline: 1}}}
	led("the second leads", 0, 1)
	led("the second leads", 1, 2)
	v.Leader = topology.NoLeader
	led("nobody leads after the second", 0, 1)
	led("nobody leads after the second", 1, 2)
	v = topology.View{Leader: topology.NoLeader, History: lsn.History{Timeline: 3}, Reigns: []topology.Reign{{Node: 0, Timeline: 1}, {Node: 1, Timeline: 2}}}
	led("nobody leads after the first led again", 0, 3)
	led("nobody leads after the first led again", 1, 2)
	v.Leader = 0
	led("the first leads again", 0, 3)
}
