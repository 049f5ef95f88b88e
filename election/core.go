package election

import (
	"maps"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// core is all that decides: raft, the replicated record, and the rules of write
// leases. It knows no clock, starts nothing and touches nothing: step says what
// time it is and what has happened, and its effects say what is to be done. The
// same steps have the same effects.
//
// Times are durations since some beginning, on a clock that never goes back.
type core struct {
	settings
	self peer
	now  time.Duration

	founding founding
	assembly assembly
	storage  *raft.MemoryStorage
	snapshot *pb.Snapshot // in storage
	raft     *raft.RawNode
	record   record
	applied  uint64        // index of the last entry in record
	appliedT uint64        // its term
	voting   *pb.ConfState // as of applied
	nextTick time.Duration

	members  map[string]peer   // what gossip says, by name; without this proxy
	names    map[uint64]string // of those who have sent raft's messages
	waiting  map[requestID]struct{}
	requests uint64 // made so far

	snapshots []uint64 // to whom raft has sent one since the last heartbeat
	changed   bool     // the voters, since the last snapshot of our own

	writer      writer
	coordinator coordinator
	notice      noticed

	out   effects
	flaws flaws
}

// settings are what core takes from Options.
type settings struct {
	heartbeat, election, lease time.Duration
	hold                       time.Duration // lease and drift
	voters                     []string
	expect                     int
	alone                      bool
	warn                       func(text string, args ...any)
}

// peer is one process: its name, the number of its storage, by which it votes,
// and the cluster that this storage belongs to.
type peer struct {
	id          string
	number      uint64
	cluster     uint64
	incarnation uint64
	gone        bool // gossip says that it has failed or left
}

// flaws are mistakes that the simulation must find. None is ever set outside tests.
type flaws struct {
	unconfirmed bool // leases are granted without asking a majority who leads
	hasty       bool // a new coordinator does not wait for leases of earlier ones
	forgetful   bool // votes are not written down
}

// effects are what a step wants done, in this order: what is to be kept must be
// on disk before anything is sent, told or shown.
type effects struct {
	keep     []write
	send     []outgoing
	answered []answer
	received []delivery
	// shown: State differs; renewed: only the lease has a new end.
	shown, renewed bool
}

// write is what must be on disk. What is nil does not change.
type write struct {
	founding *founding
	snapshot *pb.Snapshot // takes the place of all entries up to its index; cleared: of all
	cleared  bool
	entries  []*pb.Entry // take the place of all from the first one's index on
	hard     *pb.HardState
}

type outgoing struct {
	to   string
	body []byte
}

// answer ends a request that core was given.
type answer struct {
	to  requestID
	err error
}

// delivery is bytes for Options.Received.
type delivery struct {
	from string
	body []byte
}

// kept is what was found on disk.
type kept struct {
	founding founding
	hard     *pb.HardState
	snapshot *pb.Snapshot // nil: not founded, or not told yet
	entries  []*pb.Entry
}

// newCore goes on from what is on disk.
func newCore(s settings, self peer, k kept) *core {
	if s.warn == nil {
		s.warn = func(string, ...any) {}
	}
	c := &core{
		settings: s, self: self, founding: k.founding, storage: raft.NewMemoryStorage(),
		members: map[string]peer{}, names: map[uint64]string{}, waiting: map[requestID]struct{}{},
	}
	c.self.cluster = k.founding.Cluster
	if k.snapshot != nil {
		must(c.storage.ApplySnapshot(k.snapshot))
	}
	must(c.storage.Append(k.entries))
	if k.hard != nil {
		// The commit index alone is not always written down; what is in a snapshot was committed.
		k.hard.Commit = new(max(k.hard.GetCommit(), k.snapshot.GetMetadata().GetIndex()))
		must(c.storage.SetHardState(k.hard))
	}
	c.boot()
	if s.alone {
		c.beginAlone()
	}
	return c
}

// must is for what cannot fail in memory.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// boot starts raft from what is in storage.
func (c *core) boot() {
	s, err := c.storage.Snapshot()
	must(err)
	c.snapshot, c.changed, c.snapshots = s, false, nil
	c.record = record{}
	if len(s.GetData()) > 0 {
		c.record, err = decodeRecord(s.GetData())
		must(err)
	}
	c.applied, c.appliedT = s.GetMetadata().GetIndex(), s.GetMetadata().GetTerm()
	c.voting = s.GetMetadata().GetConfState()
	c.coordinator = coordinator{}
	c.raft, err = raft.NewRawNode(&raft.Config{
		ID: c.self.number, Storage: c.storage, Applied: c.applied,
		ElectionTick: int(c.election / c.heartbeat), HeartbeatTick: 1,
		PreVote: true, CheckQuorum: true, StepDownOnRemoval: true,
		DisableProposalForwarding: true,
		MaxSizePerMsg:             maxMessage / 4, MaxInflightMsgs: 64, MaxUncommittedEntriesSize: maxMessage,
		Logger: quiet{},
	})
	must(err)
	c.writer.learn(c.record.Decree)
	c.out.shown = true
}

// step lets time pass until now, does what has happened, and gives the effects.
func (c *core) step(now time.Duration, happened func()) effects {
	c.now = max(c.now, now)
	c.tick()
	if happened != nil {
		happened()
	}
	c.drain()
	c.settle()
	out := c.out
	c.out = effects{}
	return out
}

// tick runs the heartbeats that are due. Who was away for long need not live
// through all of it: two election times are enough to lose any office.
func (c *core) tick() {
	if due := c.now - 2*c.election; c.nextTick < due {
		c.nextTick = due
	}
	for ; c.nextTick <= c.now; c.nextTick += c.heartbeat {
		c.guard(c.raft.Tick)
		c.sentSnapshots()
		c.drain()
		c.found()
		c.tell()
		c.renew()
	}
}

// guard runs what may make raft panic, which a message can do that no proxy
// sends. Then raft starts anew from storage, as after a crash: nothing has been
// sent that storage does not have.
func (c *core) guard(f func()) {
	defer func() {
		if p := recover(); p != nil {
			c.warn("election started anew", "reason", p)
			c.fail(ErrUnknown)
			c.boot()
		}
	}()
	f()
}

// drain carries out what raft wants, until it wants nothing more.
func (c *core) drain() {
	for c.raft.HasReady() {
		rd := c.raft.Ready()
		c.keep(rd)
		for _, m := range rd.Messages {
			c.post(m)
		}
		for _, e := range rd.CommittedEntries {
			c.apply(e)
		}
		for _, r := range rd.ReadStates {
			c.confirmed(r)
		}
		if rd.SoftState != nil {
			c.out.shown = true
		}
		c.raft.Advance(rd)
	}
	c.compact()
}

// keep stores what raft wants stored, in memory and by the effects on disk.
func (c *core) keep(rd raft.Ready) {
	var w write
	if !raft.IsEmptySnap(rd.Snapshot) {
		w.snapshot, w.cleared = rd.Snapshot, true
		must(c.storage.ApplySnapshot(rd.Snapshot))
		c.restore(rd.Snapshot)
	}
	w.entries = rd.Entries
	must(c.storage.Append(rd.Entries))
	if !raft.IsEmptyHardState(rd.HardState) {
		must(c.storage.SetHardState(rd.HardState))
		if rd.MustSync || w.cleared {
			w.hard = c.written(rd.HardState)
		}
	}
	if w.snapshot != nil || len(w.entries) > 0 || w.hard != nil {
		c.out.keep = append(c.out.keep, w)
	}
}

// written is what is written down of raft's state.
func (c *core) written(h *pb.HardState) *pb.HardState {
	if c.flaws.forgetful {
		return &pb.HardState{Term: new(h.GetTerm()), Vote: new(uint64), Commit: new(h.GetCommit())}
	}
	return h
}

// restore takes the record out of a snapshot that another voter has sent.
func (c *core) restore(s *pb.Snapshot) {
	r, err := decodeRecord(s.GetData())
	must(err) // checked when it came in
	c.snapshot, c.changed = s, false
	c.record, c.applied, c.appliedT = r, s.GetMetadata().GetIndex(), s.GetMetadata().GetTerm()
	c.voting = s.GetMetadata().GetConfState()
	c.writer.learn(c.record.Decree)
	c.out.shown = true
}

// apply applies a committed entry to the record.
func (c *core) apply(e *pb.Entry) {
	d, err := decodeEntry(e)
	if err == nil && d.change != nil {
		c.voting = c.raft.ApplyConfChange(d.change)
		c.record.change(d.change, d.command.Voter)
		c.changed = true
	} else if err == nil {
		err = c.record.apply(d.command)
	}
	c.applied, c.appliedT = e.GetIndex(), e.GetTerm()
	if c.writer.learn(c.record.Decree) {
		c.coordinator.told = 0 // everybody is to hear of it at once
	}
	c.answer(d.command.ID, err)
	c.out.shown = true
}

// Entries kept in memory and on disk: snapshot every so many, and so many older
// ones for who is a little behind.
const (
	snapshotEvery = 256
	trailing      = 64
)

// compact puts a snapshot in the place of old entries. A new voter takes only one
// that it is in, so each change of voters makes one.
func (c *core) compact() {
	last := c.snapshot.GetMetadata().GetIndex()
	if c.applied < last+snapshotEvery && !c.changed || c.applied <= last {
		return
	}
	s, err := c.storage.CreateSnapshot(c.applied, c.voting, c.record.encode())
	must(err)
	c.snapshot, c.changed = s, false
	if first, _ := c.storage.FirstIndex(); c.applied >= first+trailing {
		must(c.storage.Compact(c.applied - trailing))
	}
	c.out.keep = append(c.out.keep, write{snapshot: s})
}

// post sends one of raft's messages.
func (c *core) post(m *pb.Message) {
	name := c.nameOf(m.GetTo())
	if m.GetType() == pb.MsgSnap {
		c.snapshots = append(c.snapshots, m.GetTo())
	}
	if name == "" {
		return
	}
	c.sendRaw(name, kindRaft, marshal(m))
}

// sentSnapshots has raft go on with those whom it has sent a snapshot since the
// last heartbeat. Whether it has arrived it finds out by itself.
func (c *core) sentSnapshots() {
	for _, to := range c.snapshots {
		c.raft.ReportSnapshot(to, raft.SnapshotFinish)
	}
	c.snapshots = nil
}

// nameOf gives the name of a storage's number, "" if nobody is known by it.
func (c *core) nameOf(number uint64) string {
	if name, ok := c.record.Voters[number]; ok {
		return name
	}
	for _, p := range c.members {
		if p.number == number {
			return p.id
		}
	}
	return c.names[number]
}

// leads reports whether raft takes this proxy for the leader.
func (c *core) leads() bool {
	return c.raft.BasicStatus().RaftState == raft.StateLeader
}

// coordinates reports whether this proxy leads and has applied everything that
// was decided before it did.
func (c *core) coordinates() bool {
	s := c.raft.BasicStatus()
	return s.RaftState == raft.StateLeader && c.appliedT == s.GetTerm()
}

// settle follows up on what the step has changed in raft.
func (c *core) settle() {
	if !c.leads() {
		c.leave()
	} else if term := c.raft.BasicStatus().GetTerm(); c.coordinator.term != term {
		c.leave()
		c.coordinator = coordinator{term: term, since: c.now, holders: map[holderID]*holder{}}
	}
	c.serve()
	c.notice.expire(c)
	c.writer.settle(c)
}

// leave ends this proxy's time as coordinator. Whoever waits for an outcome does
// not learn it.
func (c *core) leave() {
	if c.coordinator.term == 0 {
		return
	}
	c.coordinator = coordinator{}
	c.fail(ErrUnknown)
	c.out.shown = true
}

// fail ends all requests.
func (c *core) fail(err error) {
	for _, id := range slices.SortedFunc(maps.Keys(c.waiting), func(a, b requestID) int { return int(a.Number) - int(b.Number) }) {
		c.answer(id, err)
	}
}

func (c *core) answer(id requestID, err error) {
	if _, ok := c.waiting[id]; ok {
		delete(c.waiting, id)
		c.out.answered = append(c.out.answered, answer{id, err})
	}
}
