package history

import (
	"math"
	"slices"

	"github.com/anishathalye/porcupine"
)

// value is what a shared row holds.
type value struct {
	version int64
	mark    Mark
}

// counting is a shared row as porcupine sees it: a write makes the next version, a
// read finds the present one. Inputs are kinds, outputs values. A write whose
// version nobody has learnt has an output of version 0. It makes one of those that
// nobody else is known to have made, or comes after the last that is known, which
// stands for its not having happened as well.
func counting(unmade map[int64]bool, last int64) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return value{} },
		Step: func(state, input, output any) (bool, any) {
			now, given := state.(value), output.(value)
			if input.(Kind) == Read {
				return given == now, now
			}
			next := value{now.version + 1, given.mark}
			if given.version == 0 {
				return unmade[next.version] || next.version > last, next
			}
			return given == next, next
		},
	}
}

// order finds the shared rows whose operations have no linear order.
func (v *Verdict) order(events []Event) {
	rows := make(map[Key][]Event)
	for _, e := range events {
		if e.Key.Owner == 0 && (e.Kind == Read || e.Kind == Bump && e.Outcome != Failed) {
			rows[e.Key] = append(rows[e.Key], e)
		}
	}
	for _, row := range rows {
		// Most of what is wrong two operations show; the search for what takes more may
		// take forever when there is none.
		if e, due, ok := contradiction(row); ok {
			v.accuse(Unordered, e, due)
		} else if !linear(row) {
			v.accuse(Unordered, row[0], Event{})
		}
	}
}

// linear reports whether the operations of one row have a linear order.
//
// A write of unknown outcome never ends. Where a read shows it, its version is
// known; where none does, it matters only if a version is missing that others were
// built on. What is left of them is then few, and the search short.
func linear(row []Event) bool {
	made, last := make(map[int64]Mark), int64(0)
	shown := make(map[Mark]int64)
	for _, e := range row {
		if e.Kind == Read || e.Outcome == Acked {
			made[e.Version] = e.Mark
			shown[e.Mark] = e.Version
			last = max(last, e.Version)
		}
	}
	unmade := make(map[int64]bool)
	for version := int64(1); version < last; version++ {
		if _, known := made[version]; !known {
			unmade[version] = true
		}
	}
	var operations []porcupine.Operation
	for _, e := range row {
		o := porcupine.Operation{
			Input: e.Kind, Output: value{e.Version, e.Mark},
			Call: int64(e.Start), Return: int64(e.End),
		}
		if e.Kind == Bump && e.Outcome == Unknown {
			version := shown[e.Mark]
			if version == 0 && len(unmade) == 0 {
				continue
			}
			o.Output, o.Return = value{version, e.Mark}, math.MaxInt64
		}
		operations = append(operations, o)
	}
	return porcupine.CheckOperations(counting(unmade, last), operations)
}

// contradiction finds two operations of which the one that came after the other
// belongs before it; false if it is not as simple as that.
func contradiction(row []Event) (e, due Event, ok bool) {
	known := slices.DeleteFunc(slices.Clone(row), func(e Event) bool { return e.Kind == Bump && e.Outcome == Unknown })
	before := tell(slices.Clone(known))
	for _, e := range known {
		if due, ok := before.before(e.Start); ok && (e.Version < due.Version || e.Version == due.Version && e.Kind == Bump) {
			return e, due, true
		}
	}
	return e, due, false
}
