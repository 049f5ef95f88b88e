package election

import (
	"bytes"
	"encoding/json"
	"math"
	"time"
)

// forever is the end of a lease without end.
const forever = time.Duration(math.MaxInt64)

// writer is this proxy's own part in writing: the lease that it holds.
type writer struct {
	decree       Decree // the latest heard of
	lease        lease
	acknowledged uint64
	released     bool
	report       json.RawMessage

	asked map[uint64]time.Duration // when each of the latest nonces was sent
	nonce uint64
	next  time.Duration // to ask
	last  time.Duration // asked
	whom  string        // was asked last
}

// lease is the right to write under the decree of epoch until some time.
type lease struct {
	epoch uint64
	until time.Duration
}

// learn takes a decree out of the record; it reports whether it is news. Older
// ones than one has heard of come when the log is read again.
func (w *writer) learn(d Decree) bool {
	if d.Epoch < w.decree.Epoch {
		return false
	}
	news := d.Epoch > w.decree.Epoch
	w.decree = d
	if news {
		w.next = 0
	}
	return news
}

// hear takes a decree that the coordinator has told, without its plan.
func (w *writer) hear(d Decree) bool { return d.Epoch > w.decree.Epoch && w.learn(d) }

// coordinatorID gives the coordinator's name, "" if none is known.
func (c *core) coordinatorID() string {
	if lead := c.raft.BasicStatus().Lead; lead != 0 {
		return c.nameIfSelf(lead)
	}
	return c.notice.from
}

func (c *core) nameIfSelf(number uint64) string {
	if number == c.self.number {
		return c.self.id
	}
	return c.nameOf(number)
}

// asksPerLease is how often a lease is renewed while it runs.
const asksPerLease = 3

// renew asks for a lease when it is time: a third of the lease after the last
// one began, two heartbeats after a request that was not answered, and at once
// when there is news.
func (c *core) renew() {
	w := &c.writer
	to := c.coordinatorID()
	if to != w.whom {
		w.whom, w.next = to, 0
		c.out.shown = true
	}
	if to == "" || w.released || c.now < w.next {
		return
	}
	w.next, w.last = c.now+2*c.heartbeat, c.now
	if w.asked == nil {
		w.asked = map[uint64]time.Duration{}
		w.nonce = c.self.incarnation // so that no other process's answers are taken
	}
	w.nonce++
	w.asked[w.nonce] = c.now
	for nonce, when := range w.asked {
		if c.now-when > c.lease {
			delete(w.asked, nonce)
		}
	}
	a := ask{Nonce: w.nonce, Incarnation: c.self.incarnation, Acknowledged: w.acknowledged, Report: w.report}
	if to == c.self.id {
		c.asked(c.self, a)
	} else {
		c.send(to, kindAsk, a)
	}
}

// granted takes what the coordinator has answered. The lease runs from the moment
// of asking, so that it does not matter how long the answer took.
func (c *core) granted(g grant) {
	w := &c.writer
	asked, ok := w.asked[g.Nonce]
	if !ok || w.released || g.Decree.Epoch < w.decree.Epoch || g.Lease <= 0 {
		return
	}
	delete(w.asked, g.Nonce)
	if w.hear(g.Decree) {
		c.out.shown = true
	}
	length := min(time.Duration(g.Lease), c.lease)
	w.next = max(w.next, asked+length/asksPerLease)
	if g.Decree.Leader == "" {
		return
	}
	until := asked + length
	switch {
	case w.lease.epoch != g.Decree.Epoch:
		w.lease = lease{g.Decree.Epoch, until}
		c.out.shown = true
	case until > w.lease.until:
		w.lease.until = until
		c.out.renewed = true
	}
}

// settle does what a change of the decree means for the lease.
func (w *writer) settle(c *core) {
	if c.alone {
		w.grantOneself(c)
	}
	if w.lease.until != 0 && c.now >= w.lease.until {
		w.lease.until = 0
		c.out.shown = true
	}
	c.renew()
}

// grantOneself gives an only proxy its lease. Under a decree with a leader it has
// no end; under the next one it has, so that what runs can finish.
func (w *writer) grantOneself(c *core) {
	switch {
	case w.released || w.decree.Epoch == w.lease.epoch:
	case w.decree.Leader != "":
		w.lease = lease{w.decree.Epoch, forever}
		c.out.shown = true
	case w.lease.until == forever:
		w.lease.until = c.now + c.lease
		c.out.shown = true
	}
}

// acknowledge says that nothing is written under decrees before that of epoch.
func (c *core) acknowledge(epoch uint64) {
	w := &c.writer
	epoch = min(epoch, w.decree.Epoch)
	if epoch <= w.acknowledged {
		return
	}
	w.acknowledged, w.next = epoch, 0
	if w.lease.epoch < epoch {
		w.lease.until = 0
	}
	c.out.shown = true
}

// tellReport has the coordinator told what this proxy sees.
func (c *core) tellReport(body json.RawMessage) {
	w := &c.writer
	if !bytes.Equal(w.report, body) {
		w.report = body
		w.next = min(w.next, w.last+c.heartbeat)
	}
}

// release gives the lease back for good and, if this proxy coordinates, the
// office to the voter that is furthest.
func (c *core) release() {
	c.writer.released, c.writer.lease = true, lease{}
	c.out.shown = true
	a := ask{Incarnation: c.self.incarnation, Acknowledged: c.writer.decree.Epoch, Released: true}
	if to := c.coordinatorID(); to != "" && to != c.self.id {
		c.send(to, kindAsk, a)
	} else if to == c.self.id {
		c.asked(c.self, a)
		if heir := c.heir(); heir != 0 {
			c.guard(func() { c.raft.TransferLeader(heir) })
		}
	}
}

// heir is the voter that has most of the log; 0 if there is no other.
func (c *core) heir() uint64 {
	var best, match uint64
	for _, p := range sorted(c.members) {
		if _, votes := c.record.Voters[p.number]; !votes || p.gone {
			continue
		}
		if m := c.raft.Status().Progress[p.number].Match; best == 0 || m > match {
			best, match = p.number, m
		}
	}
	return best
}

// noticed is what the coordinator has told this proxy, which raft tells nothing.
type noticed struct {
	from   string
	term   uint64
	at     time.Duration
	voters map[uint64]string
}

// takeNotice takes the coordinator's word where raft has none.
func (c *core) takeNotice(from string, n notice) {
	if c.writer.hear(n.Decree) {
		c.out.shown = true
	}
	if n.Term < c.notice.term || n.Term < c.raft.BasicStatus().GetTerm() {
		return
	}
	if c.notice.from != from || c.notice.term != n.Term {
		c.out.shown = true
	}
	c.notice = noticed{from, n.Term, c.now, n.Voters}
}

// expire forgets a coordinator that has not been heard of for long.
func (n *noticed) expire(c *core) {
	if n.from != "" && c.now > n.at+2*c.election {
		n.from = ""
		c.out.shown = true
	}
}
