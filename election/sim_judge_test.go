package election

import (
	"fmt"
)

// live gives what a proxy may still do: the lease that its clock finds running, even
// if the process is frozen and wakes up at this moment.
func (w *world) live(p *proxy) (epoch uint64, leader string) {
	if p.core == nil {
		return 0, ""
	}
	wr := &p.core.writer
	if w.clock(p) >= wr.lease.until || wr.acknowledged > wr.lease.epoch {
		return 0, ""
	}
	return wr.lease.epoch, w.decrees[wr.lease.epoch].Leader
}

func (w *world) fail(format string, args ...any) {
	w.broken = append(w.broken, fmt.Sprintf("seed %d, step %d, %v: ", w.seed, w.steps, w.now)+fmt.Sprintf(format, args...))
}

// judge looks whether a promise is broken, after a step of p.
func (w *world) judge(p *proxy) {
	c := p.core
	if d := c.writer.decree; d.Epoch < p.epoch {
		w.fail("%s goes back from epoch %d to %d", p.id, p.epoch, d.Epoch)
	} else {
		p.epoch = d.Epoch
	}
	w.judgeRecord(p)
	if c.coordinates() && c.coordinator.term != p.term {
		p.term = c.coordinator.term
		w.stat.coordinators++
		for _, o := range w.proxies {
			if o != p && o.core != nil && o.core.leads() && o.core.coordinator.term == p.term {
				w.fail("%s and %s both coordinate in term %d", p.id, o.id, p.term)
			}
		}
	}
	var epoch uint64
	var holder string
	for _, o := range w.proxies {
		switch e, _ := w.live(o); {
		case e == 0 || e == epoch:
		case epoch == 0:
			epoch, holder = e, o.id
		default:
			w.fail("%s may write under epoch %d, %s under %d", holder, epoch, o.id, e)
		}
	}
}

// judgeRecord compares what a proxy has applied with what others have, and looks
// whether a majority had it on disk when it was first applied.
func (w *world) judgeRecord(p *proxy) {
	c := p.core
	if c.applied <= 1 {
		return
	}
	seen, ok := w.applied[c.applied]
	if !ok {
		w.applied[c.applied] = ruleOf(c.record)
		w.judgeMajority(p)
	} else if seen != ruleOf(c.record) {
		w.fail("%s has %s at index %d, another %s", p.id, ruleOf(c.record), c.applied, seen)
	}
	d := c.record.Decree
	if first, ok := w.decrees[d.Epoch]; !ok {
		w.decrees[d.Epoch] = d
	} else if !first.sameRule(d) {
		w.fail("%s has the decree %+v, another %+v", p.id, d, first)
	}
}

// ruleOf is what must be the same everywhere.
func ruleOf(r record) string {
	d := r.Decree
	return fmt.Sprint(d.Epoch, d.Leader, d.Timeline, len(r.Voters))
}

func (w *world) judgeMajority(p *proxy) {
	c := p.core
	has := 0
	for number := range c.record.Voters {
		if d := w.disks[number]; d != nil && d.has(c.applied, c.appliedT) {
			has++
		}
	}
	// A change of voters is recorded by a majority of those before it.
	if has <= len(c.record.Voters)/2 && has+1 <= len(c.record.Voters)/2 {
		w.fail("%s has applied index %d, which %d of %d voters have on disk", p.id, c.applied, has, len(c.record.Voters))
	}
}
