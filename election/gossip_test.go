package election

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	bbolterrors "go.etcd.io/bbolt/errors"
)

// with changes the options of some.
func (g *group) with(change func(*Options), ids ...string) {
	for _, id := range ids {
		o := g.options[id]
		change(&o)
		g.options[id] = o
	}
}

// health is what gossip tells one proxy of another; "": nothing.
func (g *group) health(of, other string) Health {
	for _, m := range g.nodes[of].State().Members {
		if m.ID == other {
			return m.Health
		}
	}
	return ""
}

// Proxies with a key hear each other; who has another key, none, or another label
// is not heard, and hears nobody.
func TestKeyAndLabel(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	for name, change := range map[string]func(*Options){
		"another key":   func(o *Options) { o.Key = bytes.Repeat([]byte{8}, 32) },
		"no key":        func(o *Options) { o.Key = nil },
		"another label": func(o *Options) { o.Label = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, three...)
			g.with(func(o *Options) { o.Key, o.Label, o.Voters = key, "ours", []string{"a", "b"} }, three...)
			g.with(change, "c")
			g.start(three...)
			first := g.decide("pg1:5432", "a", "b")
			g.until("both may write", func() bool { return mayWrite(g.nodes["a"], first.Epoch) && mayWrite(g.nodes["b"], first.Epoch) })
			if n := len(g.nodes["c"].State().Members); n != 1 {
				t.Errorf("the stranger sees %d members", n)
			}
			if h := g.health("a", "c"); h != "" {
				t.Errorf("the stranger is %s to another", h)
			}
		})
	}
}

// Whoever says goodbye is known to have left, and the office goes on at once.
func TestLeave(t *testing.T) {
	g := newGroup(t, three...)
	g.start(three...)
	g.decide("pg1:5432", three...)
	n := g.coordinator(three...)
	id := n.options.ID
	rest := slices.DeleteFunc(slices.Clone(three), func(o string) bool { return o == id })
	n.Stop(soon(t, 3*time.Second))
	delete(g.nodes, id)
	g.coordinator(rest...)
	for _, o := range rest {
		g.until(o+" knows who has left", func() bool { return g.health(o, id) == Left })
	}
	if err := n.Decide(soon(t, time.Second), Decree{}, Decree{Epoch: 1}); !errors.Is(err, ErrStopped) {
		t.Errorf("decides after its stop: %v", err)
	}
	if _, _, ok := n.MayWrite(time.Now()); ok {
		t.Error("may write after its stop")
	}
}

// A coordinator that is cut off steps down, and stops writing when its lease runs
// out, while the others go on; afterwards all are one again.
func TestPartition(t *testing.T) {
	g := newGroup(t, three...)
	g.start(three...)
	first := g.decide("pg1:5432", three...)
	old := g.coordinator(three...)
	id := old.options.ID
	rest := slices.DeleteFunc(slices.Clone(three), func(o string) bool { return o == id })
	g.until("it may write", func() bool { return mayWrite(old, first.Epoch) })
	g.cut(id, true)
	g.until("it steps down", func() bool { return old.State().Coordinator == "" })
	second := g.decide("pg2:5432", rest...)
	g.until("its lease runs out", func() bool { return !old.MayFinish(first.Epoch, time.Now()) })
	if old.State().Decree.Epoch != first.Epoch {
		t.Error("it has heard of what was decided without it")
	}
	g.cut(id, false)
	g.until("it writes again as the others do", func() bool { return mayWrite(old, second.Epoch) })
}

// All are killed and come back: what was decided stands, and they agree.
func TestRestartOfAll(t *testing.T) {
	g := newGroup(t, three...)
	g.start(three...)
	first := g.decide("pg1:5432", three...)
	n := g.coordinator(three...)
	if err := n.Record(soon(t, 5*time.Second), Failover{Epoch: 1, Old: "pg0:5432", New: "pg1:5432", Trigger: "test"}); err != nil {
		t.Fatal(err)
	}
	for _, id := range three {
		g.kill(id)
	}
	g.start(three...)
	for _, id := range three {
		g.until(id+" may write again", func() bool { return mayWrite(g.nodes[id], first.Epoch) })
		if f := g.nodes[id].State().Failovers; len(f) != 1 || f[0].Old != "pg0:5432" {
			t.Errorf("%s remembers %v", id, f)
		}
	}
}

// A voter that has lost its directory is a member without a vote until it is
// removed and added. One that never had a vote holds leases like the others.
func TestLostDirectory(t *testing.T) {
	g := newGroup(t, "a", "b", "c", "d")
	g.with(func(o *Options) { o.Voters = three }, "a", "b", "c", "d")
	g.start("a", "b", "c", "d")
	first := g.decide("pg1:5432", three...)
	g.until("the one without a vote may write", func() bool { return mayWrite(g.nodes["d"], first.Epoch) })
	lost := three[(slices.Index(three, g.coordinator(three...).options.ID)+1)%3]
	g.kill(lost)
	g.with(func(o *Options) { o.Dir = t.TempDir() }, lost)
	g.start(lost)
	g.until("it may write, without a vote", func() bool {
		s := g.nodes[lost].State()
		return mayWrite(g.nodes[lost], first.Epoch) && !s.Self.Votes && s.Trouble != ""
	})
	rest := slices.DeleteFunc(slices.Clone(three), func(o string) bool { return o == lost })
	voters := func(change func(n *Node) error) {
		t.Helper()
		var err error
		g.until("voters are changed", func() bool {
			err = change(g.coordinator(rest...))
			return err == nil || !errors.Is(err, ErrNotCoordinator) && !errors.Is(err, ErrUnknown)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := g.coordinator(rest...).AddVoter(soon(t, time.Second), lost); err == nil {
		t.Error("has a second vote under one name")
	}
	voters(func(n *Node) error { return n.RemoveVoter(soon(t, 5*time.Second), lost) })
	voters(func(n *Node) error { return n.AddVoter(soon(t, 5*time.Second), lost) })
	g.until("it votes", func() bool { s := g.nodes[lost].State(); return s.Self.Votes && s.Trouble == "" })
	g.kill(rest[0])
	g.decide("pg2:5432", lost, rest[1]) // with its vote
}

// What one sends reaches another, or all others.
func TestForward(t *testing.T) {
	g := newGroup(t, three...)
	got := make(chan string, 16)
	for _, id := range three {
		g.with(func(o *Options) {
			o.Received = func(from string, body []byte) { got <- from + " to " + id + ": " + string(body) }
		}, id)
	}
	g.start(three...)
	g.coordinator(three...)
	g.until("all know all", func() bool { return len(g.nodes["a"].State().Members) == 3 })
	want := func(message string) {
		t.Helper()
		select {
		case m := <-got:
			if m != message {
				t.Errorf("got %q, want %q", m, message)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%q did not come", message)
		}
	}
	if err := g.nodes["a"].Forward("b", []byte("one")); err != nil {
		t.Fatal(err)
	}
	want("a to b: one")
	if err := g.nodes["a"].Forward("", []byte("all")); err != nil {
		t.Fatal(err)
	}
	var all []string
	for range 2 {
		select {
		case m := <-got:
			all = append(all, m)
		case <-time.After(10 * time.Second):
		}
	}
	slices.Sort(all)
	if !slices.Equal(all, []string{"a to b: all", "a to c: all"}) {
		t.Errorf("got %q", all)
	}
	if err := g.nodes["a"].Forward("nobody", nil); err == nil {
		t.Error("sent to nobody")
	}
}

// What proxies report reaches the coordinator, large or small.
func TestReports(t *testing.T) {
	g := newGroup(t, three...)
	g.start(three...)
	large := `"` + string(bytes.Repeat([]byte{'x'}, MaxReport-100)) + `"`
	for id, body := range map[string]string{"a": `{"leader":"up"}`, "b": large, "c": `3`} {
		if err := g.nodes[id].Report([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	g.until("all reports are there", func() bool {
		all := g.coordinator(three...).Reports()
		return len(all) == 3 && string(all[0].Body) == `{"leader":"up"}` && string(all[1].Body) == large && all[2].Votes
	})
	// To report is no change of the state: who reports at each change would not rest.
	g.until("a state lasts", func() bool {
		changed := g.nodes["a"].Changed()
		for i := range 10 {
			if err := g.nodes["a"].Report(marshalJSON(i)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * g.nodes["a"].options.Heartbeat)
		select {
		case <-changed:
			return false
		default:
			return true
		}
	})
	if err := g.nodes["a"].Report([]byte(`{`)); err == nil {
		t.Error("reports what is not JSON")
	}
	if err := g.nodes["a"].Report([]byte(large + large)); err == nil {
		t.Error("reports too much")
	}
}

// As many as are expected found a cluster: the smallest ids vote.
func TestExpect(t *testing.T) {
	g := newGroup(t, "a", "b", "c", "d")
	g.with(func(o *Options) { o.Voters, o.Expect = nil, 3 }, "a", "b", "c", "d")
	g.start("d", "b")
	time.Sleep(300 * time.Millisecond)
	if s := g.nodes["b"].State(); len(s.Voters) > 0 || s.Trouble == "" {
		t.Fatalf("founded by two: %+v", s)
	}
	g.start("a")
	g.coordinator("a", "b", "d")
	g.until("the three vote", func() bool {
		var names []string
		for _, v := range g.nodes["d"].State().Voters {
			names = append(names, v.ID)
		}
		return slices.Equal(names, []string{"a", "b", "d"})
	})
	g.start("c")
	g.until("the late one is a member without a vote", func() bool {
		s := g.nodes["c"].State()
		return s.Coordinator != "" && !s.Self.Votes && len(s.Voters) == 3
	})
}

// A proxy whose disk fails takes no part any more, and writes nothing.
func TestDiskFails(t *testing.T) {
	g := newGroup(t, three...)
	g.start(three...)
	first := g.decide("pg1:5432", three...)
	g.until("a may write", func() bool { return mayWrite(g.nodes["a"], first.Epoch) })
	a := g.nodes["a"]
	if err := a.disk.db.Close(); err != nil { // as if pulled out
		t.Fatal(err)
	}
	second := Decree{Epoch: first.Epoch + 1, SystemID: 9, Leader: "pg2:5432", Timeline: first.Timeline + 1}
	g.until("another leader is decided without it", func() bool {
		for _, n := range g.nodes {
			if n.State().Coordinates {
				_ = n.Decide(soon(t, time.Second), first, second)
			}
		}
		return g.nodes["b"].State().Decree.Equal(second) && g.nodes["c"].State().Decree.Equal(second)
	})
	g.until("a stops", func() bool { return a.State().Trouble != "" && a.State().Lease == (Lease{}) })
	if err := a.Fenced(soon(t, time.Second), second.Epoch); !errors.Is(err, ErrStopped) {
		t.Errorf("asked afterwards: %v", err)
	}
}

// One directory serves one process.
func TestDirectoryInUse(t *testing.T) {
	g := newGroup(t, three...)
	g.start("a")
	o := g.options["a"]
	o.Bind = freeAddress(t)
	if n, err := Start(o); !errors.Is(err, bbolterrors.ErrTimeout) {
		t.Errorf("started twice: %v, %v", n, err)
	}
}
