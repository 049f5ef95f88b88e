package history

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Shorthand for hand-made histories. Times and protocols do not matter to the
// judge, so they are left out.
func own(session int) Key { return Key{Owner: session, N: 1} }

func wrote(session int, kind Kind, version int64, o Outcome) Event {
	return Event{
		Session: session, Kind: kind, Key: own(session), Version: version,
		Absent: kind == Delete, Outcome: o,
	}
}

func saw(session int, version int64) Event {
	return Event{Session: session, Key: own(session), Version: version}
}

func missed(session int) Event { return Event{Session: session, Key: own(session), Absent: true} }

func bumped(session int, n, version int64, o Outcome) Event {
	return Event{
		Session: session, Kind: Bump, Key: Key{N: 1}, Version: version,
		Mark: Mark{session, n}, Outcome: o,
	}
}

func sawShared(session int, version int64, by Mark) Event {
	return Event{Session: session, Key: Key{N: 1}, Version: version, Mark: by}
}

func TestJudge(t *testing.T) {
	for _, test := range []struct {
		name   string
		events []Event
		want   string // faults found, in order
	}{
		{"nothing", nil, ""},
		{"a row before its insert", []Event{missed(1)}, ""},
		{"own write read back", []Event{wrote(1, Insert, 1, Acked), saw(1, 1), wrote(1, Update, 2, Acked), saw(1, 2)}, ""},
		{"an insert missed", []Event{wrote(1, Insert, 1, Acked), missed(1)}, "stale"},
		{"an update missed", []Event{wrote(1, Insert, 1, Acked), wrote(1, Update, 2, Acked), saw(1, 1)}, "stale"},
		{"a delete missed", []Event{wrote(1, Insert, 1, Acked), wrote(1, Delete, 2, Acked), saw(1, 1)}, "stale"},
		{"a delete seen", []Event{wrote(1, Insert, 1, Acked), wrote(1, Delete, 2, Acked), missed(1)}, ""},
		{
			"a second insert missed: the row as it was between",
			[]Event{wrote(1, Insert, 1, Acked), wrote(1, Delete, 2, Acked), wrote(1, Insert, 3, Acked), missed(1)},
			"stale",
		},
		{"a missed write missed again", []Event{wrote(1, Insert, 1, Acked), missed(1), missed(1)}, "stale stale"},
		{"a failed write not seen", []Event{wrote(1, Insert, 1, Acked), wrote(1, Update, 2, Failed), saw(1, 1)}, ""},
		{"a failed write seen", []Event{wrote(1, Insert, 1, Acked), wrote(1, Update, 2, Failed), saw(1, 2)}, "unwritten"},
		{"a value nobody wrote", []Event{wrote(1, Insert, 1, Acked), saw(1, 9)}, "unwritten"},
		{"an unknown write not seen", []Event{wrote(1, Insert, 1, Acked), wrote(1, Update, 2, Unknown), saw(1, 1)}, ""},
		{"an unknown write seen", []Event{wrote(1, Insert, 1, Acked), wrote(1, Update, 2, Unknown), saw(1, 2)}, ""},
		{
			"an unknown write seen, then not",
			[]Event{wrote(1, Insert, 1, Acked), wrote(1, Update, 2, Unknown), saw(1, 2), saw(1, 1)},
			"backward",
		},
		{
			"no row may be the time before, or an unknown delete: no accusation",
			[]Event{wrote(1, Insert, 1, Unknown), wrote(1, Delete, 2, Unknown), missed(1), saw(1, 1), missed(1)},
			"",
		},
		{
			"no row after an unknown delete, and the row again",
			[]Event{wrote(1, Insert, 1, Acked), wrote(1, Delete, 2, Unknown), missed(1), saw(1, 1)},
			"backward",
		},

		{"shared as set up", []Event{sawShared(1, 0, Mark{})}, ""},
		{"shared counts up", []Event{bumped(1, 1, 1, Acked), sawShared(2, 1, Mark{1, 1}), bumped(2, 1, 2, Acked), sawShared(1, 2, Mark{2, 1})}, ""},
		{"shared: own write missed", []Event{bumped(1, 1, 1, Acked), sawShared(1, 0, Mark{})}, "stale"},
		{"shared: another's write need not be seen", []Event{bumped(1, 1, 1, Acked), sawShared(2, 0, Mark{})}, ""},
		{
			"shared: a reader goes back",
			[]Event{bumped(1, 1, 1, Acked), bumped(1, 2, 2, Acked), sawShared(2, 2, Mark{1, 2}), sawShared(2, 1, Mark{1, 1})},
			"backward",
		},
		{
			"shared: both faults at once",
			[]Event{bumped(1, 1, 1, Acked), sawShared(1, 1, Mark{1, 1}), sawShared(1, 0, Mark{})},
			"stale backward",
		},
		{
			"shared: the row is gone",
			[]Event{bumped(1, 1, 1, Acked), {Session: 1, Key: Key{N: 1}, Absent: true}},
			"stale",
		},
		{"shared: rolled back and seen before the session knew", []Event{sawShared(2, 1, Mark{1, 1}), bumped(1, 1, 1, Failed)}, "unwritten"},
		{"shared: a mark nobody made", []Event{sawShared(2, 1, Mark{7, 7})}, "unwritten"},
		{"shared: unknown write seen", []Event{sawShared(2, 1, Mark{1, 1}), bumped(1, 1, 0, Unknown)}, ""},
		{"shared: a mark under another version", []Event{bumped(1, 1, 1, Acked), sawShared(2, 2, Mark{1, 1})}, "unwritten"},
		{"shared: one version acknowledged twice", []Event{bumped(1, 1, 1, Acked), bumped(2, 1, 1, Acked)}, "forked"},
		{
			"shared: two readers see two makers",
			[]Event{
				bumped(1, 1, 0, Unknown), bumped(2, 1, 0, Unknown),
				sawShared(3, 1, Mark{1, 1}), sawShared(4, 1, Mark{2, 1}),
			},
			"forked",
		},
		{
			"sessions do not oblige each other",
			[]Event{wrote(1, Insert, 1, Acked), wrote(2, Insert, 1, Acked), missed(2), saw(1, 1)},
			"stale",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := judgeSessions(test.events)
			var got []string
			for _, violation := range v.Violations {
				got = append(got, violation.Fault.String())
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("got %v, want %q", v.Violations, test.want)
			}
			if v.Keeps(Written, Session) != (test.want == "") {
				t.Errorf("Keeps() = %v with %d violations", v.Keeps(Written, Session), len(got))
			}
			if v.Reads+v.Writes != len(test.events) {
				t.Errorf("%d reads and %d writes of %d events", v.Reads, v.Writes, len(test.events))
			}
		})
	}
}

// TestViolationTellsTheStory: a report must name what was seen, what was due
// and who saw it.
func TestViolationTellsTheStory(t *testing.T) {
	read := saw(7, 1)
	read.Protocol, read.Way, read.Node = Pipelined, Named, "follower2"
	v := judgeSessions([]Event{wrote(7, Insert, 1, Acked), wrote(7, Update, 2, Acked), read})
	story := v.Violations[0].String()
	for _, part := range []string{
		"stale", "session 7", "own row 1", "pipelined/named", "version 1", "follower2",
		"due since", "update", "version 2", "acknowledged",
	} {
		if !strings.Contains(story, part) {
			t.Errorf("%q does not tell %q", story, part)
		}
	}
}

func TestJudgeKeepsFewViolations(t *testing.T) {
	events := []Event{wrote(1, Insert, 1, Acked)}
	for range 100 {
		events = append(events, missed(1))
	}
	v := judgeSessions(events)
	if v.Faults[Stale] != 100 || len(v.Violations) != violationsKept {
		t.Errorf("%d faults, %d told", v.Faults[Stale], len(v.Violations))
	}
}

// serial is one copy of the data on which operations happen one at a time:
// whatever it answers is right.
type serial struct {
	sessions []*player
	shared   Event // the row as a read of it would find it
	events   []Event
}

type player struct {
	writes int64
	state  Event // the own row as a read of it would find it
	over   bool  // an unknown outcome ends a session's life
}

func newSerial(sessions int) *serial {
	s := &serial{shared: Event{Key: Key{N: 1}}}
	for i := range sessions {
		s.sessions = append(s.sessions, &player{state: missed(i + 1)})
	}
	return s
}

// step lets one session do one operation, drawn from t.
func (s *serial) step(t *rapid.T) {
	i := rapid.IntRange(0, len(s.sessions)-1).Draw(t, "session")
	p, id := s.sessions[i], i+1
	if p.over {
		return
	}
	switch rapid.SampledFrom([]string{"read", "read shared", "write", "bump"}).Draw(t, "operation") {
	case "read":
		s.events = append(s.events, p.state)
	case "read shared":
		e := s.shared
		e.Session = id
		s.events = append(s.events, e)
	case "write":
		kind := Insert
		if !p.state.Absent {
			kind = rapid.SampledFrom([]Kind{Update, Delete}).Draw(t, "kind")
		}
		p.writes++
		e := wrote(id, kind, p.writes, s.outcome(t, p))
		s.events = append(s.events, e)
		if s.happens(t, e.Outcome) {
			p.state = saw(id, e.Version)
			if e.Absent {
				p.state = missed(id)
			}
		}
	case "bump":
		p.writes++
		e := bumped(id, p.writes, s.shared.Version+1, s.outcome(t, p))
		if s.happens(t, e.Outcome) {
			s.shared.Version, s.shared.Mark = e.Version, e.Mark
		}
		if e.Outcome == Unknown {
			e.Version = 0
		}
		s.events = append(s.events, e)
	}
}

func (s *serial) outcome(t *rapid.T, p *player) Outcome {
	o := rapid.SampledFrom([]Outcome{Acked, Acked, Acked, Acked, Failed, Unknown}).Draw(t, "outcome")
	p.over = o == Unknown
	return o
}

func (s *serial) happens(t *rapid.T, o Outcome) bool {
	return o == Acked || o == Unknown && rapid.Bool().Draw(t, "happened")
}

func play(t *rapid.T) []Event {
	s := newSerial(3)
	for range rapid.IntRange(0, 60).Draw(t, "steps") {
		s.step(t)
	}
	return s.events
}

func TestSerialHistoriesAreAccepted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		if v := judgeSessions(play(t)); !v.Keeps(Written, Session) {
			t.Fatalf("accused a serial history: %v", v.Violations)
		}
	})
}

// TestMixingSessionsDoesNotMatter: only the order within a session counts.
func TestMixingSessionsDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var apart []Event
		events := play(t)
		for id := 1; id <= 3; id++ {
			for _, e := range events {
				if e.Session == id {
					apart = append(apart, e)
				}
			}
		}
		if v := judgeSessions(apart); !v.Keeps(Written, Session) {
			t.Fatalf("accused a serial history told session by session: %v", v.Violations)
		}
	})
}

// TestMutatedHistoriesAreCaught appends to a serial history a read of a state
// that a later one had replaced in the same session's sight, or that never was.
func TestMutatedHistoriesAreCaught(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := play(t)
		id := rapid.IntRange(1, 3).Draw(t, "victim")
		read, want := mutation(t, events, id)
		if want == faults {
			t.Skip("nothing to spoil")
		}
		before := judgeSessions(events)
		after := judgeSessions(append(events, read))
		if after.Faults[want] != before.Faults[want]+1 {
			t.Fatalf("%v passed as not %v: %v", read, want, after.Violations)
		}
	})
}

func mutation(t *rapid.T, events []Event, id int) (Event, Fault) {
	// What the session knows for sure of the shared row and of its own.
	var acked, seen, ownAcked Event
	var failed []Event
	deleted := false // perhaps: no row may then be what an unknown delete left
	for _, e := range events {
		if e.Kind != Read && e.Outcome == Failed {
			failed = append(failed, e)
		}
		if e.Session != id {
			continue
		}
		deleted = deleted || e.Kind == Delete && e.Outcome == Unknown
		switch {
		case e.Kind == Bump && e.Outcome == Acked:
			acked = e
		case e.Kind == Read && e.Key.Owner == 0:
			seen = e
		case e.Kind != Read && e.Kind != Bump && e.Outcome == Acked:
			ownAcked = e
		}
	}
	back := func(below int64) Event {
		version := rapid.Int64Range(0, below-1).Draw(t, "version")
		e := sawShared(id, version, Mark{})
		for _, w := range events { // whoever made that version, if it is known
			if w.Key.Owner == 0 && w.Version == version && w.Outcome == Acked {
				e.Mark = w.Mark
			}
		}
		return e
	}
	switch rapid.SampledFrom([]Fault{Stale, Backward, Unwritten, Forked}).Draw(t, "mutation") {
	case Stale:
		if e := back(max(acked.Version, 1)); acked.Version > 0 && (e.Version == 0 || e.Mark != Mark{}) {
			return e, Stale
		}
		if ownAcked.Kind == Insert && ownAcked.Version == 1 && !deleted {
			return missed(id), Stale
		}
	case Backward:
		if e := back(max(seen.Version, 1)); seen.Version > 0 && (e.Version == 0 || e.Mark != Mark{}) {
			return e, Backward
		}
	case Unwritten:
		if len(failed) > 0 {
			e := rapid.SampledFrom(failed).Draw(t, "failed")
			e.Kind, e.Outcome = Read, Acked
			if !e.Absent {
				return e, Unwritten
			}
		}
	case Forked:
		if acked.Version > 0 {
			e := acked
			e.Mark = Mark{Session: id, N: 1 << 40}
			return e, Forked
		}
	}
	return Event{}, faults
}
