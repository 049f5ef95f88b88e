package election

import (
	"container/heap"
	crand "crypto/rand"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// The simulation runs several cores over a network and disks that fail, on clocks
// that drift, all in virtual time. The same seed gives the same run. After every
// step it looks whether a promise is broken.

// world is everything in one run.
type world struct {
	*rand.Rand
	seed    uint64
	now     time.Duration // true time, which no proxy knows
	events  queue
	serial  int
	steps   int
	proxies []*proxy
	disks   map[uint64]*kept // by number; those that were lost too
	cut     map[[2]int]bool
	calm    bool // nothing fails any more
	nervous bool // whoever writes down a vote may crash at once
	eager   int  // one in so many heartbeats changes the leader of the database
	flaws   flaws

	// What the proxies do with the election, as a failover would: called at a tick
	// of the one that takes itself for the coordinator, within its step.
	plan func(*world, *proxy)
	each func(*world, *proxy) // called at every proxy's tick, within its step
	open map[string]uint32    // the database's servers that take writes, by the highest timeline each has

	decrees map[uint64]Decree // as first applied anywhere
	applied map[uint64]string // record after each index, as first applied anywhere
	broken  []string
	stat    struct{ coordinators, promotions, publications, crashes, wipes int }
}

// proxy is one process after another, on one host.
type proxy struct {
	at     int
	id     string
	core   *core // nil: down
	disk   *kept
	frozen bool
	rate   float64 // of its clock; 1 is the slowest
	offset time.Duration
	since  time.Duration // true time from which rate holds
	epoch  uint64        // highest shown by this process
	term   uint64        // last one in which it took office
	born   int           // process, for events that are for one of them
	spy    func(outgoing)
}

const (
	simHeartbeat = 100 * time.Millisecond
	simElection  = 500 * time.Millisecond
	simLease     = 2 * time.Second
	simDrift     = 0.05
)

type event struct {
	at     time.Duration
	serial int
	do     func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].serial < q[j].serial
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}

func (w *world) after(d time.Duration, do func()) {
	w.serial++
	heap.Push(&w.events, event{w.now + d, w.serial, do})
}

// seeded gives raft the same randomness in each run.
type seeded struct{ *rand.Rand }

func (s seeded) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s.Uint32())
	}
	return len(b), nil
}

func newWorld(t testing.TB, seed uint64) *world {
	w := &world{
		Rand: rand.New(rand.NewPCG(seed, 1)), seed: seed, disks: map[uint64]*kept{}, cut: map[[2]int]bool{},
		decrees: map[uint64]Decree{}, applied: map[uint64]string{}, open: map[string]uint32{},
	}
	old := crand.Reader
	crand.Reader = seeded{rand.New(rand.NewPCG(seed, 2))}
	t.Cleanup(func() { crand.Reader = old })
	w.plan, w.eager, w.nervous = simplePlan, 1+w.IntN(20), w.IntN(2) == 0
	for i := range 3 + w.IntN(3) {
		p := &proxy{at: i, id: fmt.Sprintf("p%d", i), offset: time.Duration(w.Int64N(int64(time.Hour)))}
		p.rate = 1 + simDrift*w.Float64()
		w.proxies = append(w.proxies, p)
		w.wipe(p)
		w.after(time.Duration(w.Int64N(int64(time.Second))), func() { w.start(p) })
	}
	w.after(0, w.mischief)
	return w
}

// clock is what a proxy's clock says.
func (w *world) clock(p *proxy) time.Duration {
	return p.offset + time.Duration(float64(w.now-p.since)*p.rate)
}

// drift changes how fast a proxy's clock runs.
func (w *world) drift(p *proxy) {
	p.offset, p.since = w.clock(p), w.now
	p.rate = 1 + simDrift*w.Float64()
}

// voters are the first three; the others, if any, do not vote.
func (w *world) settings() settings {
	return settings{
		heartbeat: simHeartbeat, election: simElection, lease: simLease,
		hold:   simLease + time.Duration(float64(simLease)*simDrift),
		voters: []string{"p0", "p1", "p2"},
	}
}

// start starts a process, with what the last one has left on disk.
func (w *world) start(p *proxy) {
	if p.core != nil {
		return
	}
	p.born++
	p.frozen, p.epoch, p.term = false, 0, 0
	k := copyOf(p.disk)
	p.core = newCore(w.settings(), peer{id: p.id, number: k.founding.Number, incarnation: w.Uint64()}, k)
	p.core.flaws = w.flaws
	w.step(p, func() {})
	w.beat(p, p.born)
	w.hear(p, p.born)
}

// copyOf is what is read from a disk.
func copyOf(k *kept) kept {
	c := kept{founding: k.founding}
	if k.hard != nil {
		c.hard = proto.Clone(k.hard).(*pb.HardState)
	}
	if k.snapshot != nil {
		c.snapshot = proto.Clone(k.snapshot).(*pb.Snapshot)
	}
	for _, e := range k.entries {
		c.entries = append(c.entries, proto.Clone(e).(*pb.Entry))
	}
	return c
}

// keep is what disk.write does.
func (k *kept) keep(all []write) {
	for _, w := range all {
		if w.founding != nil {
			k.founding = *w.founding
		}
		if w.snapshot != nil {
			k.snapshot = w.snapshot
			k.entries = slices.DeleteFunc(slices.Clone(k.entries), func(e *pb.Entry) bool {
				return w.cleared || e.GetIndex() <= w.snapshot.GetMetadata().GetIndex()
			})
		}
		if len(w.entries) > 0 {
			k.entries = slices.DeleteFunc(slices.Clone(k.entries), func(e *pb.Entry) bool {
				return e.GetIndex() >= w.entries[0].GetIndex()
			})
			k.entries = append(k.entries, w.entries...)
		}
		if w.hard != nil {
			k.hard = w.hard
		}
	}
}

// has reports whether the disk holds an entry, or a snapshot that does.
func (k *kept) has(index, term uint64) bool {
	if k.snapshot.GetMetadata().GetIndex() >= index {
		return true
	}
	return slices.ContainsFunc(k.entries, func(e *pb.Entry) bool { return e.GetIndex() == index && e.GetTerm() == term })
}

// step has something happen to a proxy, and carries out the effects. It may crash
// before they are on disk, or after and before anything is sent.
func (w *world) step(p *proxy, happened func()) {
	if p.core == nil || p.frozen {
		return
	}
	w.steps++
	e := p.core.step(w.clock(p), happened)
	if !w.calm && w.IntN(20_000) == 0 {
		w.crash(p)
		return
	}
	p.disk.keep(e.keep)
	w.judge(p)
	if !w.calm && w.IntN(20_000) == 0 || w.nervous && voted(e) && w.IntN(8) == 0 {
		w.crash(p)
		return
	}
	// The voter is gone as soon as its vote is on its way.
	if w.nervous && voted(e) && w.IntN(8) == 0 {
		defer w.crash(p)
	}
	for _, m := range e.send {
		if p.spy != nil {
			p.spy(m)
		}
		w.send(p, m)
	}
}

// voted reports whether a vote was written down.
func voted(e effects) bool {
	return slices.ContainsFunc(e.keep, func(k write) bool { return k.hard != nil })
}

func (w *world) crash(p *proxy) {
	w.stat.crashes++
	p.core = nil
	fresh := p.at < 3 && w.IntN(4) == 0 && w.whole()
	if fresh {
		w.stat.wipes++
		w.wipe(p)
	}
	down := 2 * simElection
	if w.IntN(2) == 0 {
		down = 10 * time.Millisecond
	}
	w.after(time.Duration(w.ExpFloat64()*float64(down)), func() { w.start(p) })
}

// wipe gives a proxy an empty disk. The old one counts as what was recorded.
func (w *world) wipe(p *proxy) {
	p.disk = &kept{founding: founding{Number: w.Uint64()>>1 | 1}}
	w.disks[p.disk.founding.Number] = p.disk
}

// whole reports whether every voter has its storage: only then one may lose it,
// because a majority of lost storages is the end of any cluster.
func (w *world) whole() bool {
	for _, p := range w.proxies {
		c := p.core
		if c == nil {
			continue
		}
		for number := range c.record.Voters {
			if !slices.ContainsFunc(w.proxies, func(o *proxy) bool { return o.disk.founding.Number == number }) {
				return false
			}
		}
	}
	return slices.ContainsFunc(w.proxies, func(p *proxy) bool { return p.core != nil && p.core.coordinates() && len(p.core.record.Voters) == 3 })
}

// send sends a message, which may be lost, doubled, late, and overtaken.
func (w *world) send(from *proxy, m outgoing) {
	to := w.proxies[m.to[1]-'0']
	lost, late := 0.05, 5*time.Millisecond
	if w.calm {
		lost = 0
	} else if w.IntN(50) == 0 {
		late = simLease
	}
	for range 1 + w.IntN(40)/39 {
		if w.Float64() < lost {
			continue
		}
		w.after(time.Duration(w.ExpFloat64()*float64(late)), func() {
			if !w.cut[[2]int{from.at, to.at}] {
				w.step(to, func() { to.core.receive(m.body) })
			}
		})
	}
}

// beat is the ticker of one process, with all that a proxy does now and then.
func (w *world) beat(p *proxy, born int) {
	if p.core == nil || p.born != born {
		return
	}
	w.step(p, func() {
		if wr := &p.core.writer; wr.decree.Epoch > wr.acknowledged && w.IntN(4) == 0 {
			p.core.acknowledge(wr.decree.Epoch)
		}
		if p.core.coordinates() {
			w.plan(w, p)
			w.operate(p)
		}
		if w.each != nil {
			w.each(w, p)
		}
	})
	w.after(time.Duration(float64(simHeartbeat)*(0.8+0.4*w.Float64())), func() { w.beat(p, born) })
}

// hear is gossip: who is up and not cut off, now and then.
func (w *world) hear(p *proxy, born int) {
	if p.core == nil || p.born != born {
		return
	}
	members := map[string]peer{}
	for _, o := range w.proxies {
		c := o.core
		switch {
		case o == p:
		case c != nil && !o.frozen && !w.cut[[2]int{p.at, o.at}] && !w.cut[[2]int{o.at, p.at}]:
			members[o.id] = peer{id: o.id, number: c.self.number, cluster: c.self.cluster, incarnation: c.self.incarnation}
		default:
			if old, ok := p.core.members[o.id]; ok {
				old.gone = true
				members[o.id] = old
			}
		}
	}
	w.step(p, func() { p.core.meet(members) })
	w.after(time.Duration(float64(simElection)*(0.5+w.Float64())), func() { w.hear(p, born) })
}

// operate is the operator, who gives proxies that have lost their storage a vote.
func (w *world) operate(p *proxy) {
	c := p.core
	if len(c.waiting) > 0 || w.IntN(5) > 0 {
		return
	}
	for _, id := range []string{"p0", "p1", "p2"} {
		m, known := c.members[id]
		number, votes := c.record.voter(id)
		switch {
		case id == p.id || !known || m.gone:
		case votes && number != m.number:
			c.vote(pb.ConfChangeRemoveNode, number, id)
			return
		case !votes:
			c.vote(pb.ConfChangeAddNode, m.number, id)
			return
		}
	}
}

// simplePlan changes the leader of the database now and then, in the order of a
// failover: fence, promote, publish. What it has in mind stands in the decree's
// plan, so that the next coordinator goes on with it.
func simplePlan(w *world, p *proxy) {
	c := p.core
	if len(c.waiting) > 0 {
		return
	}
	d := c.record.Decree
	var to string
	_ = json.Unmarshal(d.Plan, &to)
	decide := func(next Decree) { c.request(command{Decide: &decision{d, next}}) }
	switch {
	case d.Epoch == 0:
		w.promote("x", 1)
		decide(Decree{Epoch: 1, Leader: "x", Timeline: 1})
	case d.Leader == "" && !c.fenced(d.Epoch):
	case d.Leader == "":
		w.promote(to, d.Timeline+1)
		decide(Decree{Epoch: d.Epoch + 1, Leader: to, Timeline: d.Timeline + 1})
		w.stat.publications++
	case !w.calm && w.IntN(w.eager) == 0:
		next := string('x' + (d.Leader[0]-'x'+1+byte(w.IntN(2)))%3)
		decide(Decree{Epoch: d.Epoch + 1, Timeline: d.Timeline, Plan: marshalJSON(next)})
	}
}

// promote opens a server of the database for writing. Nobody may hold a lease then
// under which another one is written to.
func (w *world) promote(server string, timeline uint32) {
	if w.open[server] < timeline {
		w.open[server] = timeline
		w.stat.promotions++
	}
	for _, p := range w.proxies {
		if epoch, leader := w.live(p); leader != "" && leader != server {
			w.fail("%s is promoted while %s may write to %s under epoch %d", server, p.id, leader, epoch)
		}
	}
}
