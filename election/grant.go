package election

import (
	"encoding/binary"
	"encoding/json"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// coordinator is what the coordinator remembers for as long as it is one.
type coordinator struct {
	term    uint64        // of its office; 0: this proxy is none
	since   time.Duration // took office
	holders map[holderID]*holder
	pending []pending // asked for, and a majority is being asked who leads
	reads   uint64    // number of the latest such question
	told    time.Duration
	longer  bool // a longer hold has been proposed
}

// holderID is one process. Another one of the same name is another holder.
type holderID struct {
	id          string
	incarnation uint64
}

// holder is what one process was granted and has told.
type holder struct {
	number       uint64
	acknowledged uint64
	leases       map[uint64]time.Duration // by epoch, when they have surely run out
	heard        time.Duration
	report       json.RawMessage
	reported     time.Duration
}

// pending is a lease that was asked for.
type pending struct {
	to        holderID
	nonce     uint64
	read      uint64
	index     uint64 // of the log, up to which the record must be applied
	confirmed bool
}

// Bounds on what others can make a coordinator remember.
const (
	maxHolders = 1024
	maxPending = 4096
)

// asked takes an asking for a lease. That this proxy leads is confirmed by a
// majority after the asking, and so long after the lease began to run.
func (c *core) asked(from peer, a ask) {
	if c.coordinator.term == 0 || !c.leads() {
		return
	}
	id := holderID{from.id, a.Incarnation}
	h := c.holder(id)
	if h == nil {
		return
	}
	h.number, h.heard = from.number, c.now
	h.acknowledged = max(h.acknowledged, a.Acknowledged)
	if len(a.Report) > 0 && len(a.Report) <= MaxReport {
		h.report, h.reported = a.Report, c.now
	}
	if a.Released {
		delete(c.coordinator.holders, id)
		return
	}
	if c.alone || len(c.coordinator.pending) >= maxPending {
		return
	}
	c.coordinator.reads++
	p := pending{to: id, nonce: a.Nonce, read: c.coordinator.reads}
	if c.flaws.unconfirmed {
		p.confirmed = true
		c.coordinator.pending = append(c.coordinator.pending, p)
		return
	}
	c.coordinator.pending = append(c.coordinator.pending, p)
	c.guard(func() { c.raft.ReadIndex(binary.BigEndian.AppendUint64(nil, p.read)) })
}

// holder finds or makes what is remembered of one process; nil if that is too much.
func (c *core) holder(id holderID) *holder {
	all := c.coordinator.holders
	if h := all[id]; h != nil {
		return h
	}
	if len(all) >= maxHolders {
		for old, h := range all {
			if c.now-h.heard > 2*c.record.Hold { // its leases are over
				delete(all, old)
			}
		}
		if len(all) >= maxHolders {
			return nil
		}
	}
	h := &holder{leases: map[uint64]time.Duration{}}
	all[id] = h
	return h
}

// confirmed notes that a majority took this proxy for the leader after a lease
// was asked for.
func (c *core) confirmed(r raft.ReadState) {
	for i := range c.coordinator.pending {
		p := &c.coordinator.pending[i]
		if len(r.RequestCtx) == 8 && p.read == binary.BigEndian.Uint64(r.RequestCtx) {
			p.confirmed, p.index = true, r.Index
		}
	}
}

// serve grants what may be granted.
func (c *core) serve() {
	if c.coordinator.term == 0 || !c.coordinates() {
		return
	}
	c.lengthen()
	left := c.coordinator.pending[:0]
	for _, p := range c.coordinator.pending {
		if p.confirmed && p.index <= c.applied {
			c.grant(p)
		} else {
			left = append(left, p)
		}
	}
	c.coordinator.pending = left
	if c.coordinator.told == 0 {
		c.tell()
	}
}

// grant grants a lease under the decree that stands, or tells that it has no leader.
func (c *core) grant(p pending) {
	h := c.coordinator.holders[p.to]
	if h == nil {
		return // released meanwhile
	}
	d := c.record.Decree
	d.Plan = nil
	g := grant{Nonce: p.nonce, Lease: int64(c.grantable()), Decree: d}
	for epoch, until := range h.leases {
		if until <= c.now {
			delete(h.leases, epoch)
		}
	}
	if d.Leader != "" {
		h.leases[d.Epoch] = c.now + c.record.Hold
	}
	if p.to == (holderID{c.self.id, c.self.incarnation}) {
		c.granted(g)
		return
	}
	c.send(p.to.id, kindGrant, g)
}

// grantable is the longest lease that every coordinator after this one will wait for.
func (c *core) grantable() time.Duration {
	if c.hold <= c.record.Hold {
		return c.lease
	}
	return time.Duration(float64(c.record.Hold) * (float64(c.lease) / float64(c.hold)))
}

// lengthen has longer leases recorded before they are granted.
func (c *core) lengthen() {
	if c.hold > c.record.Hold && !c.coordinator.longer {
		c.coordinator.longer = true
		c.propose(command{Hold: &c.hold})
	}
}

// fenced reports whether nobody writes under a decree before that of epoch.
func (c *core) fenced(epoch uint64) bool {
	if !c.coordinates() || c.record.Decree.Epoch < epoch {
		return false
	}
	if c.alone {
		l := c.writer.lease
		return c.writer.acknowledged >= epoch || l.epoch >= epoch || c.now >= l.until
	}
	if c.coordinator.term == 0 || c.now < c.coordinator.since+c.record.Hold && !c.flaws.hasty {
		return false // anybody may hold a lease of an earlier coordinator
	}
	for _, h := range c.coordinator.holders {
		if h.acknowledged >= epoch {
			continue
		}
		for e, until := range h.leases {
			if e < epoch && c.now < until {
				return false
			}
		}
	}
	return true
}

// tell tells the members that do not vote how things stand: now and then, and at
// once when the decree has changed.
func (c *core) tell() {
	if c.coordinator.term == 0 || !c.coordinates() || c.coordinator.told != 0 && c.now < c.coordinator.told+c.election/2 {
		return
	}
	c.coordinator.told = max(c.now, 1)
	d := c.record.Decree
	d.Plan = nil
	n := notice{Term: c.coordinator.term, Decree: d, Voters: c.record.Voters}
	for _, p := range sorted(c.members) {
		if _, votes := c.record.Voters[p.number]; !votes && !p.gone {
			c.send(p.id, kindNotice, n)
		}
	}
}

// request proposes a command. Its outcome comes among the effects.
func (c *core) request(x command) requestID {
	c.requests++
	x.ID = requestID{c.self.incarnation, c.requests}
	c.waiting[x.ID] = struct{}{}
	if !c.coordinates() {
		c.answer(x.ID, ErrNotCoordinator)
	} else if x.Decide != nil && !c.record.Decree.Equal(x.Decide.From) {
		c.answer(x.ID, ErrChanged) // no need to ask anybody
	} else if err := c.propose(x); err != nil {
		c.answer(x.ID, err)
	}
	return x.ID
}

func (c *core) propose(x command) (err error) {
	c.guard(func() { err = c.raft.Propose(marshalJSON(x)) })
	return err
}

// vote proposes a change of voters. Its outcome comes among the effects.
func (c *core) vote(t pb.ConfChangeType, number uint64, name string) requestID {
	c.requests++
	x := command{ID: requestID{c.self.incarnation, c.requests}, Voter: name}
	c.waiting[x.ID] = struct{}{}
	if !c.coordinates() {
		c.answer(x.ID, ErrNotCoordinator)
		return x.ID
	}
	var err error
	c.guard(func() {
		err = c.raft.ProposeConfChange(&pb.ConfChange{Type: t.Enum(), NodeId: new(number), Context: marshalJSON(x)})
	})
	if err != nil {
		c.answer(x.ID, err)
	}
	return x.ID
}
