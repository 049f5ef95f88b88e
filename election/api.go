package election

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Decide replaces the decree: only on the coordinator, and only if from is the
// one that stands. It returns nil once a majority has recorded it and it stands
// here. If the epoch stays the same only the plan may differ; else it must be one
// more. After an error other than ErrNotCoordinator and ErrChanged it may stand
// nevertheless, now or later: look at State.
func (n *Node) Decide(ctx context.Context, from, to Decree) error {
	if !to.follows(from) {
		return fmt.Errorf("this decree of epoch %d cannot follow one of epoch %d: a new rule needs the next epoch", to.Epoch, from.Epoch)
	}
	if len(to.Plan) > maxPlan {
		return fmt.Errorf("the plan has %d bytes; the most is %d", len(to.Plan), maxPlan)
	}
	for _, plan := range []*json.RawMessage{&from.Plan, &to.Plan} {
		if len(*plan) == 0 {
			*plan = nil
			continue
		}
		same, err := json.Marshal(*plan) // as it will come out of the log
		if err != nil {
			return fmt.Errorf("the plan is not JSON: %w", err)
		}
		*plan = same
	}
	return n.request(ctx, func(c *core) requestID {
		return c.request(command{Decide: &decision{from, to}})
	})
}

// Record adds a failover that is over to the log. One of the same epoch is
// replaced, so that it can be done again. Only on the coordinator.
func (n *Node) Record(ctx context.Context, f Failover) error {
	return n.request(ctx, func(c *core) requestID { return c.request(command{Record: &f}) })
}

// MayWrite says whether something new may be written now, and under which
// epoch's decree. It costs one atomic load. The decree's leader is the only node
// that may be written to, and an answer that comes after until proves nothing:
// by then the lease must have been renewed, else the outcome is unknown.
func (n *Node) MayWrite(now time.Time) (epoch uint64, until time.Time, ok bool) {
	l := &n.state.Load().Lease
	return l.Epoch, l.Until, !l.Retiring && now.Before(l.Until)
}

// MayFinish says whether what began under the decree of epoch may still go on: a
// later decree may stand, but no other node is opened for writing before the
// lease has run out or Acknowledge has given it up. It costs two atomic loads.
func (n *Node) MayFinish(epoch uint64, now time.Time) bool {
	l := &n.state.Load().Lease
	return l.Epoch == epoch && now.Before(l.Until) && n.acknowledged.Load() <= epoch
}

// Acknowledge says that this proxy writes nothing any more under decrees before
// that of epoch: transactions are over, their connections are cut. The rest of an
// older lease is given up, and the coordinator need not wait for it to run out.
// It does not wait; an epoch that this proxy has not heard of yet counts as the
// latest one it has.
func (n *Node) Acknowledge(epoch uint64) {
	for {
		old := n.acknowledged.Load()
		if epoch <= old || n.acknowledged.CompareAndSwap(old, epoch) {
			break
		}
	}
	n.poke()
}

// IsFenced reports whether nobody writes any more under a decree before that of
// epoch: each proxy has acknowledged it, or every write lease it may have has
// surely run out. Only the coordinator knows; elsewhere it is false.
func (n *Node) IsFenced(epoch uint64) bool {
	fenced := false
	n.call(func(c *core) { fenced = c.fenced(epoch) })
	return fenced
}

// Fenced waits until IsFenced.
func (n *Node) Fenced(ctx context.Context, epoch uint64) error {
	every := time.NewTicker(max(n.options.Heartbeat/4, time.Millisecond))
	defer every.Stop()
	for {
		fenced, coordinates := false, false
		if !n.call(func(c *core) { fenced, coordinates = c.fenced(epoch), c.coordinates() }) {
			return ErrStopped
		}
		if fenced {
			return nil
		}
		if !coordinates {
			return ErrNotCoordinator
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Report tells the coordinator what this proxy sees of the database: at once if it
// differs from the last, and with each renewal of the lease. At most MaxReport
// bytes of JSON; it does not wait.
func (n *Node) Report(body json.RawMessage) error {
	if len(body) > MaxReport {
		return fmt.Errorf("the report has %d bytes; the most is %d", len(body), MaxReport)
	}
	same, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("the report is not JSON: %w", err)
	}
	n.report.Store(&same)
	n.poke()
	return nil
}

// Reports are the latest of every proxy, this one's too, by ID. Only the
// coordinator has them, and only those that came since it took office.
func (n *Node) Reports() (all []Report) {
	n.call(func(c *core) {
		latest := map[string]*holder{}
		for id, h := range c.coordinator.holders {
			if old := latest[id.id]; len(h.report) > 0 && (old == nil || old.reported < h.reported) {
				latest[id.id] = h
			}
		}
		for id, h := range latest {
			_, votes := c.record.Voters[h.number]
			all = append(all, Report{Member: id, Votes: votes, At: n.began.Add(h.reported), Body: h.report})
		}
	})
	slices.SortFunc(all, func(a, b Report) int { return cmp.Compare(a.Member, b.Member) })
	return all
}

// AddVoter gives a member a vote. Only on the coordinator.
func (n *Node) AddVoter(ctx context.Context, id string) error {
	var refused error
	err := n.request(ctx, func(c *core) requestID {
		p, known := c.members[id]
		number, votes := c.record.voter(id)
		switch {
		case votes && (!known || p.number == number):
			refused = fmt.Errorf("%s votes already", id)
		case votes:
			refused = fmt.Errorf("%s votes with a storage that it has lost: remove it first", id)
		case !known || p.gone:
			refused = fmt.Errorf("%s is not here", id)
		default:
			return c.vote(pb.ConfChangeAddNode, p.number, id)
		}
		return c.refuse()
	})
	return cmp.Or(refused, err)
}

// RemoveVoter takes a voter's vote away. Only on the coordinator.
func (n *Node) RemoveVoter(ctx context.Context, id string) error {
	var refused error
	err := n.request(ctx, func(c *core) requestID {
		number, votes := c.record.voter(id)
		switch {
		case !votes:
			refused = fmt.Errorf("%s does not vote", id)
		case len(c.record.Voters) == 1:
			refused = fmt.Errorf("%s cannot go: it is the last voter", id)
		default:
			return c.vote(pb.ConfChangeRemoveNode, number, id)
		}
		return c.refuse()
	})
	return cmp.Or(refused, err)
}

// MaxForward bounds what Forward takes, in bytes.
const MaxForward = 1024

// Forward sends a few bytes to Options.Received of another member, or of all
// others if to is "". It does not wait, and nobody learns whether they arrive.
func (n *Node) Forward(to string, body []byte) error {
	if len(body) > MaxForward {
		return fmt.Errorf("cannot forward %d bytes; the most is %d", len(body), MaxForward)
	}
	if to != "" && !slices.ContainsFunc(n.State().Members, func(m Member) bool { return m.ID == to && to != n.options.ID }) {
		return fmt.Errorf("%s is not another member", to)
	}
	select {
	case n.forwards <- outgoing{to, slices.Clone(body)}:
		return nil
	default:
		return errors.New("too much is to be forwarded at once")
	}
}

// forward sends what Forward was given.
func (c *core) forward(m outgoing) {
	for _, p := range sorted(c.members) {
		if !p.gone && (m.to == "" || m.to == p.id) {
			c.sendRaw(p.id, kindForward, m.body)
		}
	}
}
