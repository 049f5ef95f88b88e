package history

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// during says when an event was sent and answered, in seconds.
func during(e Event, start, end int) Event {
	e.Start, e.End = time.Duration(start)*time.Second, time.Duration(end)*time.Second
	return e
}

func at(address string, e Event) Event {
	e.Through = address
	return e
}

func TestByClockAndOrder(t *testing.T) {
	one, two := Mark{1, 1}, Mark{1, 2}
	first, second := bumped(1, 1, 1, Acked), bumped(1, 2, 2, Acked)
	lost := bumped(1, 1, 0, Unknown)
	for _, test := range []struct {
		name   string
		events []Event
		want   string // faults found, with a bound of 10 seconds
	}{
		{"read after the answer", []Event{during(first, 0, 1), during(sawShared(2, 1, one), 2, 3)}, ""},
		{"missed while it was under way", []Event{during(first, 0, 2), during(sawShared(2, 0, Mark{}), 1, 3)}, ""},
		{"missed after the answer", []Event{during(first, 0, 1), during(sawShared(2, 0, Mark{}), 2, 3)}, "late unordered"},
		{
			"missed after the answer at the same address",
			[]Event{during(at("a", first), 0, 1), during(at("a", sawShared(2, 0, Mark{})), 2, 3)},
			"late local unordered",
		},
		{
			"missed after the answer at another address",
			[]Event{during(at("a", first), 0, 1), during(at("b", sawShared(2, 0, Mark{})), 2, 3)},
			"late unordered",
		},
		{"missed within the bound", []Event{during(first, 0, 1), during(sawShared(2, 0, Mark{}), 11, 12)}, "late unordered"},
		{"missed beyond the bound", []Event{during(first, 0, 1), during(sawShared(2, 0, Mark{}), 12, 13)}, "late old unordered"},
		{
			"seen by one, then not by another, before it was answered",
			[]Event{during(first, 0, 9), during(sawShared(2, 1, one), 1, 2), during(sawShared(3, 0, Mark{}), 3, 4)},
			"unordered",
		},
		{
			"seen by one and not by another at the same time",
			[]Event{during(first, 0, 9), during(sawShared(2, 1, one), 1, 4), during(sawShared(3, 0, Mark{}), 3, 5)},
			"",
		},
		{"unknown and never seen", []Event{during(lost, 0, 1), during(sawShared(2, 0, Mark{}), 2, 3)}, ""},
		{
			"unknown and seen at last",
			[]Event{during(lost, 0, 1), during(sawShared(2, 0, Mark{}), 2, 3), during(sawShared(2, 1, one), 4, 5)},
			"",
		},
		{
			"unknown, seen, and not seen again",
			[]Event{during(lost, 0, 1), during(sawShared(2, 1, one), 2, 3), during(sawShared(3, 0, Mark{}), 4, 5)},
			"unordered",
		},
		{"unknown and built on", []Event{during(lost, 0, 1), during(second, 2, 3), during(sawShared(2, 2, two), 4, 5)}, ""},
		{"built on what nobody made", []Event{during(second, 2, 3)}, "unordered"},
		{
			"built on what came only later",
			[]Event{during(second, 0, 1), during(lost, 2, 3)},
			"unordered",
		},
		{"rolled back", []Event{during(bumped(1, 1, 1, Failed), 0, 1), during(sawShared(2, 0, Mark{}), 2, 3)}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := Judge(test.events, 10*time.Second)
			var got []string
			for _, violation := range v.Violations {
				got = append(got, violation.Fault.String())
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("got %v, want %q", v.Violations, test.want)
			}
		})
	}
}

// clocked gives a serial history times: each event begins after the one before and
// ends before the next, but for the unknown writes.
func clocked(events []Event) []Event {
	for i := range events {
		events[i] = during(events[i], 2*i+1, 2*i+2)
	}
	return events
}

// TestSerialHistoriesAreLinear: what happens one at a time has an order.
func TestSerialHistoriesAreLinear(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		if v := Judge(clocked(play(t)), time.Second); !v.Keeps(everything...) {
			t.Fatalf("accused a serial history: %v", v.Violations)
		}
	})
}

// TestOrderAgreesWithClock: where every write's outcome and version is known, a row
// has a linear order exactly if no operation shows less than one that ended before
// it began.
func TestOrderAgreesWithClock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var row []Event
		marks := []Mark{{}}
		writes := rapid.IntRange(0, 8).Draw(t, "writes")
		for n := int64(1); n <= int64(writes); n++ {
			marks = append(marks, Mark{1, n})
			row = append(row, bumped(1, n, n, Acked))
		}
		for range rapid.IntRange(0, 8).Draw(t, "reads") {
			n := rapid.IntRange(0, writes).Draw(t, "version")
			row = append(row, sawShared(2, int64(n), marks[n]))
		}
		for i := range row {
			start := rapid.IntRange(0, 20).Draw(t, "start")
			row[i] = during(row[i], start, start+rapid.IntRange(1, 20).Draw(t, "length"))
		}
		if len(row) == 0 {
			return
		}
		if _, _, found := contradiction(row); found == linear(row) {
			t.Fatalf("linear: %v, contradiction: %v: %v", linear(row), found, row)
		}
	})
}

// TestOrderIsTold: a row on which much is unknown and two operations contradict each
// other is judged without a search through all orders.
func TestOrderIsTold(t *testing.T) {
	var row []Event
	for n := int64(1); n <= 24; n++ {
		row = append(row, during(bumped(1, n, 0, Unknown), 0, 1))
	}
	row = append(row, during(bumped(2, 30, 30, Acked), 2, 3), during(sawShared(3, 29, Mark{1, 1}), 4, 5))
	judged := make(chan *Verdict, 1)
	go func() { // ends with the test, or never
		v := Judge(row, time.Second)
		judged <- &v
	}()
	select {
	case v := <-judged:
		if v.Keeps(Linearizable) {
			t.Error("nothing was found")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it is being searched for")
	}
}
