package failover

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// world is a model of a database and of the coordinator that looks after it: what
// Next is judged by. Time is a number, and nothing in it waits.
type world struct {
	t        judge
	now      topology.Instant
	settings Settings
	decree   Decree
	servers  []*server
	voters   int
	mayWrite []bool // by proxy: it has a lease of an epoch with a leader

	// What the coordinator remembers only for itself.
	since    topology.Instant
	mark     lsn.LSN
	seen     []Node
	wish     *Wish
	recorded bool
	sight    Sight
	acked    []lsn.Position

	opened  map[uint32]string // who was promoted to a timeline
	asked   map[string]bool   // who answered when the target was chosen
	notes   []Change
	refused []string
	log     []string
	before  func(Step) bool // called before a step is done; false: it is not
	seed    func(*Input)    // a bug that was put in on purpose
}

// judge is a test, of package testing or of rapid.
type judge interface {
	Errorf(format string, args ...any)
	Helper()
}

// server is one of its servers.
type server struct {
	address            string
	up, frozen, leader bool
	timeline           uint32
	received, replayed lsn.LSN
	upstream           string
	quieted, fenced    bool
	quietedIn          uint64
	slow               bool // replays nothing by itself
	names              string
	refuses            map[Do]string
	stream             topology.Instant // when it heard from its upstream last
}

func newWorld(t judge, servers, voters int) *world {
	w := &world{
		t: t, now: topology.Instant(time.Hour), voters: voters, opened: map[uint32]string{},
		settings: Settings{Mode: Promote, Timeout: 3 * time.Second, MaxLost: 1 << 20, Drain: 10 * time.Second},
	}
	for i := range servers {
		w.servers = append(w.servers, &server{
			address: fmt.Sprintf("n%d:5432", i+1), up: true, timeline: 1,
			received: 1000, replayed: 1000, upstream: "n1:5432", refuses: map[Do]string{},
		})
	}
	w.servers[0].leader, w.servers[0].upstream = true, ""
	w.decree = Decree{Epoch: 1, System: 7, Leader: "n1:5432", Timeline: 1}
	w.mayWrite = slices.Repeat([]bool{true}, voters)
	w.restart()
	w.look()
	return w
}

func (w *world) at(address string) *server {
	for _, s := range w.servers {
		if s.address == address {
			return s
		}
	}
	return nil
}

// answers reports whether the proxies can reach a server.
func (s *server) answers() bool { return s.up && !s.frozen }

// restart makes another proxy the coordinator, which has seen nothing yet.
func (w *world) restart() {
	w.since, w.mark, w.recorded = 0, 0, false
	w.seen = nil
	for _, s := range w.servers {
		w.seen = append(w.seen, Node{Address: s.address, Refused: map[Do]string{}})
	}
}

// look is a look at every server.
func (w *world) look() {
	for i, s := range w.servers {
		n := &w.seen[i]
		if !s.answers() {
			n.Failed = "no answer"
			continue
		}
		sender := w.at(s.upstream)
		streams := !s.leader && !s.quieted && sender != nil && sender.answers() && sender.timeline >= s.timeline && s.received <= sender.received
		if streams && sender.leader {
			s.stream = w.now
			s.timeline = sender.timeline
		}
		still := n.Still
		if n.Received != s.received || n.Seen == 0 {
			still = w.now
		}
		calm := n.Calm
		if n.Replayed != s.replayed || n.Seen == 0 {
			calm = w.now
		}
		refused := n.Refused
		alone := n.Alone
		switch {
		case streams:
			alone = 0
		case alone == 0:
			alone = w.now
		}
		*n = Node{
			Address: s.address, Seen: w.now, System: 7, Follower: !s.leader, Timeline: s.timeline,
			Received: s.received, Replayed: s.replayed, Still: still, Alone: alone,
			Held: s.slow, Calm: calm, Streaming: streams, Receiving: streams, Heard: w.now.Since(s.stream),
			Sender: s.upstream, Upstream: s.upstream, Quieted: s.quieted, QuietedIn: s.quietedIn, Fenced: s.fenced,
			Names: s.names, Name: strings.TrimSuffix(s.address, ":5432"), Refused: refused,
		}
		if s.quieted {
			n.Upstream = ""
		}
	}
	// The sight of the leader, which all proxies share here.
	about := w.decree.Leader
	if about == "" && w.decree.Change != nil {
		about = w.decree.Change.Old
	}
	if w.sight.Leader != about {
		w.sight = Sight{Leader: about, Timeline: w.decree.Timeline}
	}
	if s := w.at(about); s != nil && s.answers() && s.leader {
		w.sight.Silent, w.sight.End, w.sight.Timeline = 0, s.received, s.timeline
		w.sight.Sync = Sync{Seen: true, Names: s.names}
		for _, f := range w.servers {
			if f != s && f.up && f.upstream == s.address && s.names != "" {
				w.sight.Sync.Now = append(w.sight.Sync.Now, strings.TrimSuffix(f.address, ":5432"))
			}
		}
	}
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	w.now += topology.Instant(d)
	if s := w.at(w.sight.Leader); s == nil || !s.answers() {
		w.sight.Silent += d
	}
	w.replicate()
	w.look()
}

// replicate has the followers receive and replay what there is.
func (w *world) replicate() {
	for _, s := range w.servers {
		up := w.at(s.upstream)
		if !s.up || s.frozen || s.leader {
			continue
		}
		if !s.quieted && up != nil && up.answers() && up.timeline >= s.timeline && s.received <= up.received {
			s.received = up.received
		}
		if !s.slow {
			s.replayed = s.received
		}
	}
}

// write is a client's write, where it is allowed.
func (w *world) write(bytes lsn.LSN) {
	if s := w.at(w.decree.Leader); s != nil && s.answers() && s.leader && slices.Contains(w.mayWrite, true) {
		s.received += bytes
		s.replayed = s.received
	}
}

// fenced is the truth, and what the coordinator is told of it.
func (w *world) fenced() bool { return !slices.Contains(w.mayWrite, true) }

func (w *world) input() Input {
	in := Input{
		Settings: w.settings, Now: w.now, Wall: 1, Decree: w.decree, Voters: w.voters, Nodes: slices.Clone(w.seen),
		Mark: w.mark, Acked: w.acked, Recorded: w.recorded, Wish: w.wish, Fenced: w.decree.Leader != "" || w.fenced(),
	}
	if in.Fenced && w.since == 0 {
		w.since = w.now
	}
	in.Since = w.since
	for range w.voters {
		in.Sights = append(in.Sights, w.sight)
	}
	if w.seed != nil {
		w.seed(&in)
	}
	return in
}

// step asks for the next thing and does it.
func (w *world) step() Step {
	s := Next(w.input())
	w.log = append(w.log, fmt.Sprintf("%v %v %s: %s", s.Phase, s.Do, s.Node, s.Why))
	if w.before == nil || w.before(s) {
		w.apply(s)
	}
	w.look()
	return s
}

// apply does what a step says, and judges it.
func (w *world) apply(s Step) {
	n := w.at(s.Node)
	refuse := func() bool {
		if n == nil || !n.answers() {
			return true
		}
		if why := n.refuses[s.Do]; why != "" {
			w.seen[slices.Index(w.servers, n)].Refused[s.Do] = why
			return true
		}
		return false
	}
	if s.Do != Wait && s.Do != Decide && s.Do != Refuse && refuse() {
		return
	}
	switch s.Do {
	case Wait:
	case Decide:
		w.decided(s.Decree)
	case Quiet:
		n.quieted, n.quietedIn = true, w.decree.Epoch
	case ReadOnly:
		n.fenced = true
	case MarkEnd:
		w.mark = n.received
	case Hasten:
		n.slow = false
	case Open:
		w.open(n)
	case Ready:
		n.fenced, n.names = false, s.To
	case Point:
		n.upstream, n.quieted, n.quietedIn = s.To, false, 0
	case Note:
		w.recorded = true
		w.notes = append(w.notes, *w.decree.Change)
	case Refuse:
		w.refused = append(w.refused, s.Why)
		w.wish = nil
	}
}

func (w *world) decided(d Decree) {
	if d.Epoch != w.decree.Epoch {
		w.since, w.mark = 0, 0
	}
	if d.Leader != "" {
		s := w.at(d.Leader)
		if !s.leader && s.up {
			w.fail("%s was published and is a follower", d.Leader)
		}
		if d.Leader != w.decree.Leader && !w.fenced() {
			w.fail("%s was published while somebody writes elsewhere", d.Leader)
		}
		w.mayWrite = slices.Repeat([]bool{true}, w.voters)
	}
	if w.decree.Leader != "" && d.Leader == "" {
		w.wish = nil
	}
	if d.Change != nil && d.Change.Phase == Promotion {
		w.asked = make(map[string]bool)
		for _, s := range w.servers {
			w.asked[s.address] = s.answers() && s.refuses[Quiet] == ""
		}
	}
	w.decree = d
}

// open promotes a server, as PostgreSQL does, and judges whether it should have been.
func (w *world) open(n *server) {
	if n.leader {
		return
	}
	if n.quietedIn != w.decree.Epoch && n.refuses[Quiet] == "" {
		return // as act.go's open does nothing then
	}
	c := w.decree.Change
	if c == nil || c.Target != n.address {
		w.fail("%s was promoted and is not decreed", n.address)
		return
	}
	if !w.fenced() {
		w.fail("%s was promoted while somebody may write", n.address)
	}
	if n.replayed < n.received && n.refuses[Hasten] == "" {
		w.fail("%s was promoted at %v with %v received", n.address, n.replayed, n.received)
	}
	for _, o := range w.servers {
		if o != n && w.asked[o.address] && o.answers() && !o.leader && o.timeline == n.timeline && o.received > n.received {
			w.fail("%s was promoted at %v, and %s is at %v", n.address, n.received, o.address, o.received)
		}
	}
	if other := w.opened[c.Timeline+1]; other != "" && other != n.address {
		w.fail("%s and %s were both promoted to timeline %d", other, n.address, c.Timeline+1)
	}
	if c.Trigger == Switchover && w.at(c.Old).up && n.received < w.at(c.Old).received {
		w.fail("switchover to %s at %v, the leader was at %v", n.address, n.received, w.at(c.Old).received)
	}
	w.opened[c.Timeline+1] = n.address
	n.leader, n.timeline, n.upstream = true, n.timeline+1, ""
	n.received += 100
	n.replayed = n.received
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Errorf(format+"\n%s", append(args, strings.Join(w.log, "\n"))...)
}

// settle steps until nothing is to be done under a decree with a leader, or until the
// plan is blocked; it returns the last step.
func (w *world) settle() Step {
	var s Step
	for range 400 {
		s = w.step()
		if s.Do != Wait {
			continue
		}
		if leads := w.at(w.decree.Leader); s.Phase == Steady && !s.Blocked && leads != nil && leads.answers() && w.sight.Silent == 0 {
			return s
		}
		if s.Blocked && w.now.Since(w.since) > 2*w.settings.Timeout {
			return s
		}
		w.mayWrite = slices.Repeat([]bool{w.decree.Leader != ""}, w.voters)
		w.pass(200 * time.Millisecond)
	}
	return s
}
