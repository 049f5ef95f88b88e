package election

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// web is the loopback network between the proxies of a test. Pairs of them can be
// kept from hearing each other, in whatever they say.
type web struct {
	mu  sync.Mutex
	cut map[[2]string]bool // by addresses, both ways
}

func (w *web) blocked(a, b string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut[[2]string{a, b}] || w.cut[[2]string{b, a}]
}

// strand is one proxy's way into it.
type strand struct {
	*memberlist.NetTransport
	web  *web
	self string
}

var errCut = errors.New("cut by the test")

func (s *strand) WriteTo(b []byte, to string) (time.Time, error) {
	return s.WriteToAddress(b, memberlist.Address{Addr: to})
}

func (s *strand) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	if s.web.blocked(s.self, to.Addr) {
		return time.Now(), nil // a datagram is lost
	}
	return s.NetTransport.WriteToAddress(b, to)
}

func (s *strand) DialTimeout(to string, timeout time.Duration) (net.Conn, error) {
	return s.DialAddressTimeout(memberlist.Address{Addr: to}, timeout)
}

func (s *strand) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if s.web.blocked(s.self, to.Addr) {
		return nil, errCut
	}
	return s.NetTransport.DialAddressTimeout(to, timeout)
}

// group is several proxies on loopback.
type group struct {
	t       *testing.T
	web     *web
	options map[string]Options
	nodes   map[string]*Node
}

func newGroup(t *testing.T, ids ...string) *group {
	t.Helper()
	g := &group{t: t, web: &web{cut: map[[2]string]bool{}}, options: map[string]Options{}, nodes: map[string]*Node{}}
	var addresses []string
	for range ids {
		addresses = append(addresses, freeAddress(t))
	}
	for i, id := range ids {
		g.options[id] = Options{
			ID: id, Bind: addresses[i], Join: addresses, Dir: t.TempDir(), Voters: ids,
			Heartbeat: 20 * time.Millisecond, Election: 200 * time.Millisecond, Lease: time.Second,
			Log:       slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelInfo})).With("proxy", id),
			transport: g.web.transport,
		}
	}
	t.Cleanup(func() {
		for _, n := range g.nodes {
			n.Stop(soon(t, time.Second))
		}
	})
	return g
}

func (w *web) transport(host string, port int) (memberlist.Transport, error) {
	tr, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{host}, BindPort: port, Logger: slog.NewLogLogger(slog.DiscardHandler, 0),
	})
	return &strand{tr, w, fmt.Sprintf("%s:%d", host, port)}, err
}

// testLog shows logs of failed tests only; a proxy may speak after its test's end.
type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	if os.Getenv("ELECTION_LOG") != "" {
		os.Stderr.Write(b)
	}
	return len(b), nil
}

// freeAddress finds a port that is free for TCP and UDP.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 20 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		p, err := net.ListenPacket("udp", ln.Addr().String())
		if err == nil {
			p.Close()
			return ln.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

func soon(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func (g *group) start(ids ...string) {
	g.t.Helper()
	for _, id := range ids {
		n, err := Start(g.options[id])
		if err != nil {
			g.t.Fatal(err)
		}
		g.nodes[id] = n
	}
}

// kill ends a proxy without a goodbye: it cannot reach anybody while it ends.
func (g *group) kill(id string) {
	g.cut(id, true)
	g.nodes[id].Stop(soon(g.t, time.Millisecond))
	delete(g.nodes, id)
	g.cut(id, false)
}

// cut parts a proxy from all others, or heals that.
func (g *group) cut(id string, cut bool) {
	g.web.mu.Lock()
	defer g.web.mu.Unlock()
	for other, o := range g.options {
		if other != id {
			g.web.cut[[2]string{g.options[id].Bind, o.Bind}] = cut
		}
	}
}

// until waits for something to be so.
func (g *group) until(what string, so func() bool) {
	g.t.Helper()
	for end := time.Now().Add(time.Minute); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			for id, n := range g.nodes {
				g.t.Logf("%s: %+v", id, *n.State())
			}
			g.t.Fatalf("not so: %s", what)
		}
	}
}

// coordinator waits until those named agree on one of them, and gives it.
func (g *group) coordinator(among ...string) *Node {
	g.t.Helper()
	var found *Node
	g.until("one coordinator among "+fmt.Sprint(among), func() bool {
		id := g.nodes[among[0]].State().Coordinator
		for _, a := range among {
			if g.nodes[a].State().Coordinator != id {
				return false
			}
		}
		found = g.nodes[id]
		return found != nil && slices.Contains(among, id) && found.State().Coordinates
	})
	return found
}

// decide has the coordinator among some decide that leader leads, in a new epoch.
func (g *group) decide(leader string, among ...string) Decree {
	g.t.Helper()
	var to Decree
	g.until("decided that "+leader+" leads", func() bool {
		n := g.coordinator(among...)
		from := n.State().Decree
		to = Decree{Epoch: from.Epoch + 1, SystemID: 9, Leader: leader, Timeline: uint32(from.Epoch + 1)}
		return n.Decide(soon(g.t, time.Second), from, to) == nil
	})
	return to
}

func mayWrite(n *Node, epoch uint64) bool {
	e, _, ok := n.MayWrite(time.Now())
	return ok && e == epoch
}

var three = []string{"a", "b", "c"}

// Three proxies found a cluster, elect a coordinator, and all write under what it
// decides. With the coordinator killed, the other two go on; with it back from
// its disk, all agree again.
func TestThree(t *testing.T) {
	g := newGroup(t, three...)
	g.start(three...)
	first := g.decide("pg1:5432", three...)
	for _, id := range three {
		g.until(id+" may write", func() bool { return mayWrite(g.nodes[id], first.Epoch) })
		s := g.nodes[id].State()
		if !s.Decree.Equal(first) {
			t.Errorf("%s has the decree %v", id, s.Decree)
		}
		if s.Self.Address != g.options[id].Bind {
			t.Errorf("%s says that it is at %s", id, s.Self.Address)
		}
	}
	gone := g.coordinator(three...).options.ID
	rest := slices.DeleteFunc(slices.Clone(three), func(id string) bool { return id == gone })
	g.kill(gone)
	second := g.decide("pg2:5432", rest...)
	for _, id := range rest {
		g.until(id+" may write", func() bool { return mayWrite(g.nodes[id], second.Epoch) })
	}
	g.start(gone)
	g.until("the killed one is back", func() bool { return mayWrite(g.nodes[gone], second.Epoch) })
	g.coordinator(three...)
}

// A fence waits for a proxy that cannot be reached until its lease has run out,
// and for none that has acknowledged.
func TestFence(t *testing.T) {
	g := newGroup(t, three...)
	g.start(three...)
	first := g.decide("pg1:5432", three...)
	for _, id := range three {
		g.until(id+" may write", func() bool { return mayWrite(g.nodes[id], first.Epoch) })
	}
	n := g.coordinator(three...)
	lost := three[(slices.Index(three, n.options.ID)+1)%3]
	g.cut(lost, true)
	fence := Decree{Epoch: first.Epoch + 1, SystemID: 9}
	if err := n.Decide(soon(t, 5*time.Second), first, fence); err != nil {
		t.Fatal(err)
	}
	for id, other := range g.nodes {
		if id != lost {
			other.Acknowledge(fence.Epoch)
		}
	}
	// What is asked of the lost one afterwards was so before, too.
	if n.IsFenced(fence.Epoch) && g.nodes[lost].MayFinish(first.Epoch, time.Now()) {
		t.Error("fenced while a proxy may write")
	}
	if err := n.Fenced(soon(t, 10*time.Second), fence.Epoch); err != nil {
		t.Fatal(err)
	}
	if g.nodes[lost].MayFinish(first.Epoch, time.Now()) {
		t.Error("fenced while a proxy may write")
	}
	if s := g.nodes[lost].State(); s.Decree.Epoch != first.Epoch {
		t.Errorf("the one cut off has heard of epoch %d", s.Decree.Epoch)
	}
	g.cut(lost, false)
	g.until("the lost one knows", func() bool { return g.nodes[lost].State().Decree.Epoch == fence.Epoch })
}
