package history

import (
	"fmt"
	"time"
)

// Fault is a way in which a history can be wrong.
type Fault uint8

// The faults Judge looks for.
const (
	Stale     Fault = iota // a read below a write the same session saw acknowledged
	Backward               // a read below an earlier read of the same session
	Unwritten              // a read of a write that nobody made, or that failed
	Forked                 // one version of a shared row made by two writes
	Old                    // a read below a write acknowledged longer ago than the bound
	Local                  // a read below a write acknowledged before through the same address
	Late                   // a read below a write acknowledged before to anybody
	Unordered              // a shared row without a linear order
	faults
)

func (f Fault) String() string {
	return [...]string{"stale", "backward", "unwritten", "forked", "old", "local", "late", "unordered"}[f]
}

// Guarantee is what a history may be held to. Those of different names are
// independent of each other.
type Guarantee uint8

// The guarantees.
const (
	Written      Guarantee = iota // what is read was written
	Bounded                       // and nothing is missed that was acknowledged longer ago than the bound
	Session                       // and a session misses nothing that it has written or seen
	Service                       // and nothing that was acknowledged before through the same address
	Linearizable                  // and there is one order of everything, in line with the clock
	Guarantees                    // how many there are
)

func (g Guarantee) String() string {
	return [...]string{"written", "bounded", "session", "service", "linearizable"}[g]
}

var broken = [Guarantees][]Fault{
	Written: {Unwritten, Forked}, Bounded: {Old}, Session: {Stale, Backward}, Service: {Local}, Linearizable: {Late, Unordered},
}

// Violation is one fault: the event that shows it and the one it contradicts.
type Violation struct {
	Fault Fault
	Event Event
	// Due is the write or the read that Event should not have contradicted;
	// the zero Event where nothing stands for it (an unwritten value).
	Due Event
}

func (v Violation) String() string {
	if v.Due == (Event{}) {
		return fmt.Sprintf("%s: %v", v.Fault, v.Event)
	}
	return fmt.Sprintf("%s: %v; due since %v", v.Fault, v.Event, v.Due)
}

// Verdict is what Judge found.
type Verdict struct {
	Reads, Writes int
	Faults        [faults]int // by Fault; one read may show more than one
	Violations    []Violation // the first of each fault, in the order of the events
}

// Against counts what stands against a guarantee.
func (v *Verdict) Against(g Guarantee) int {
	n := 0
	for _, f := range broken[g] {
		n += v.Faults[f]
	}
	return n
}

// Keeps reports whether nothing stands against any of the guarantees.
func (v *Verdict) Keeps(guarantees ...Guarantee) bool {
	for _, g := range guarantees {
		if v.Against(g) > 0 {
			return false
		}
	}
	return true
}

// violationsKept bounds Verdict.Violations: the first few of each fault tell the
// story.
const violationsKept = 10

func (v *Verdict) accuse(f Fault, e, due Event) {
	if v.Faults[f]++; v.Faults[f] <= violationsKept {
		v.Violations = append(v.Violations, Violation{Fault: f, Event: e, Due: due})
	}
}

// Judge examines a history. The events of one session must stand in the order
// in which the session sent them; how the sessions are mixed does not matter.
// Reads are old if they miss something that was acknowledged longer than bound
// before; 0: there is no bound.
func Judge(events []Event, bound time.Duration) Verdict {
	v := judgeSessions(events)
	v.byClock(events, bound)
	v.order(events)
	return v
}

// judgeSessions examines what each session can tell from its own record.
//
// It accuses only where no assignment of outcomes to the unknown writes could
// explain what was seen.
func judgeSessions(events []Event) Verdict {
	j := judge{
		rows:  make(map[seat]*row),
		tried: make(map[Mark]Event),
		made:  make(map[made]Event),
	}
	for _, e := range events {
		if e.Kind == Bump {
			j.tried[e.Mark] = e
		}
	}
	for _, e := range events {
		if e.Kind == Read {
			j.read(e)
		} else {
			j.write(e)
		}
	}
	return j.Verdict
}

type judge struct {
	Verdict
	rows  map[seat]*row
	tried map[Mark]Event // every write of a shared row that was tried
	made  map[made]Event // who made a version of a shared row: the first evidence
}

// seat is one session's seat before one row: obligations are per session.
type seat struct {
	session int
	key     Key
}

type made struct {
	key     Key
	version int64
}

// row is what one session knows of one row.
type row struct {
	writes []Event // own rows: what the session tried, versions ascending
	acked  Event   // the highest write acknowledged
	seen   Event   // the highest read; Version is the lowest it can have meant
}

func (j *judge) row(e Event) *row {
	at := seat{e.Session, e.Key}
	r := j.rows[at]
	if r == nil {
		r = &row{}
		j.rows[at] = r
	}
	return r
}

func (j *judge) write(e Event) {
	j.Writes++
	r := j.row(e)
	if e.Key.Owner != 0 {
		r.writes = append(r.writes, e)
	}
	if e.Outcome != Acked {
		return
	}
	if e.Kind == Bump {
		j.maker(e)
	}
	if e.Version > r.acked.Version {
		r.acked = e
	}
}

func (j *judge) read(e Event) {
	j.Reads++
	r := j.row(e)
	version, found := r.meaning(e, max(r.acked.Version, r.seen.Version))
	if e.Key.Owner == 0 {
		version, found = e.Version, j.written(e)
		j.maker(e)
	}
	if !found {
		j.accuse(Unwritten, e, j.attempt(r, e))
		return
	}
	if version < r.acked.Version {
		j.accuse(Stale, e, r.acked)
	}
	if version < r.seen.Version {
		j.accuse(Backward, e, r.seen)
	}
	if version > r.seen.Version {
		r.seen = e
		r.seen.Version = version
	}
}

// meaning says which of the session's own writes a read of its row stands for.
// A row found tells its version; no row found may stand for any delete, or for
// the time before the first write. Of several it is the most innocent: the
// lowest that is not below bound, else the highest. found is false if the read
// can stand for none.
func (r *row) meaning(e Event, bound int64) (version int64, found bool) {
	for i := len(r.writes) - 1; i >= 0; i-- {
		w := r.writes[i]
		if found && w.Version < bound {
			return version, true
		}
		if w.Outcome != Failed && w.Absent == e.Absent && (e.Absent || w.Version == e.Version) {
			version, found = w.Version, true
		}
	}
	if e.Absent && (!found || bound == 0) {
		return 0, true
	}
	return version, found
}

// written reports whether the write whose mark a shared row carries was tried
// and may have taken effect.
func (j *judge) written(e Event) bool {
	if e.Absent || e.Mark == (Mark{}) {
		return e.Version == 0
	}
	w, tried := j.tried[e.Mark]
	if !tried || w.Key != e.Key || w.Outcome == Failed {
		return false
	}
	return w.Outcome == Unknown || w.Version == e.Version
}

// attempt finds the write that a read shows though it should not: the zero
// Event if nobody tried it.
func (j *judge) attempt(r *row, e Event) Event {
	if e.Key.Owner == 0 {
		return j.tried[e.Mark]
	}
	for _, w := range r.writes {
		if w.Version == e.Version {
			return w
		}
	}
	return Event{}
}

// maker holds the maker of a version of a shared row against what was known.
// Two makers mean that two histories of the row exist.
func (j *judge) maker(e Event) {
	if e.Version == 0 {
		return
	}
	at := made{e.Key, e.Version}
	first, known := j.made[at]
	if !known {
		j.made[at] = e
	} else if first.Mark != e.Mark {
		j.accuse(Forked, e, first)
	}
}
