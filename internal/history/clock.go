package history

import (
	"slices"
	"sort"
	"time"
)

// told is what was acknowledged of one row, in the order of the acknowledgements:
// of each the highest write so far. Nil: nothing.
type told []acknowledgement

type acknowledgement struct {
	at      time.Duration
	highest Event
}

// before returns the highest write acknowledged before an instant.
func (t told) before(at time.Duration) (Event, bool) {
	n := sort.Search(len(t), func(i int) bool { return t[i].at >= at })
	if n == 0 {
		return Event{}, false
	}
	return t[n-1].highest, true
}

// through names a row and the address its writes went through; all of them if the
// address is empty.
type through struct {
	key     Key
	address string
}

// byClock finds the reads of shared rows that miss what was acknowledged before
// they began.
func (v *Verdict) byClock(events []Event, bound time.Duration) {
	writes := make(map[through][]Event)
	for _, e := range events {
		if e.Kind == Bump && e.Outcome == Acked {
			for _, at := range []through{{e.Key, ""}, {e.Key, e.Through}} {
				writes[at] = append(writes[at], e)
			}
		}
	}
	acknowledged := make(map[through]told)
	for at, of := range writes {
		acknowledged[at] = tell(of)
	}
	for _, e := range events {
		if e.Kind != Read || e.Key.Owner != 0 {
			continue
		}
		all := acknowledged[through{e.Key, ""}]
		if due, ok := all.before(e.Start); ok && e.Version < due.Version {
			v.accuse(Late, e, due)
		}
		here := acknowledged[through{e.Key, e.Through}]
		if due, ok := here.before(e.Start); ok && e.Version < due.Version && e.Through != "" {
			v.accuse(Local, e, due)
		}
		if due, ok := all.before(e.Start - bound); bound > 0 && ok && e.Version < due.Version {
			v.accuse(Old, e, due)
		}
	}
}

func tell(writes []Event) told {
	slices.SortFunc(writes, func(a, b Event) int { return int(a.End - b.End) })
	t := make(told, 0, len(writes))
	var highest Event
	for _, w := range writes {
		if w.Version > highest.Version {
			highest = w
		}
		t = append(t, acknowledgement{w.End, highest})
	}
	return t
}
