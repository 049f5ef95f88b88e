package election

import (
	"container/heap"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// mischief breaks something now and then, and mends it.
func (w *world) mischief() {
	if w.calm {
		return
	}
	p := w.proxies[w.IntN(len(w.proxies))]
	long := time.Duration(w.ExpFloat64() * float64(simLease))
	switch w.IntN(8) {
	case 0, 1: // a part of the proxies is cut off from the rest, perhaps one way
		part := w.IntN(1 << len(w.proxies))
		both := w.IntN(3) > 0
		for _, a := range w.proxies {
			for _, b := range w.proxies {
				w.cut[[2]int{a.at, b.at}] = part>>a.at&1 == 1 && part>>b.at&1 == 0 || both && part>>a.at&1 == 0 && part>>b.at&1 == 1
			}
		}
		w.after(long, func() { clear(w.cut) })
	case 2: // a pair
		o := w.proxies[w.IntN(len(w.proxies))]
		w.cut[[2]int{p.at, o.at}] = true
		w.after(long, func() { clear(w.cut) })
	case 3:
		if p.core != nil && !p.frozen {
			w.crash(p)
		}
	case 4, 5: // frozen, and thawed
		p.frozen = true
		w.after(long, func() { p.frozen = false })
	default:
		w.drift(p)
	}
	w.after(time.Duration(w.ExpFloat64()*float64(simElection)), w.mischief)
}

// run lets the world go on for so many steps, and no longer than a promise holds.
func (w *world) run(steps int) {
	for w.steps < steps && len(w.broken) == 0 {
		w.next()
	}
}

func (w *world) next() {
	e := heap.Pop(&w.events).(event)
	w.now = max(w.now, e.at)
	e.do()
}

// heal mends everything for good, and looks whether the proxies get anywhere: within
// a time that is long enough for any election and fence, all may write.
func (w *world) heal() {
	w.calm, w.nervous = true, false
	clear(w.cut)
	for _, p := range w.proxies {
		p.frozen = false
	}
	epoch := uint64(0)
	for end := w.now + 30*simLease; w.now < end && len(w.broken) == 0; w.next() {
		epoch = 0
		all := true
		for _, p := range w.proxies {
			e, leader := w.live(p)
			all = all && leader != "" && (epoch == 0 || e == epoch)
			epoch = e
		}
		if all && w.whole() {
			return
		}
	}
	if len(w.broken) == 0 {
		var text strings.Builder
		for _, p := range w.proxies {
			if c := p.core; c != nil {
				fmt.Fprintf(&text, "\n%s: %+v lead %s coordinates %v voters %v lease %+v at %v trouble %q", p.id, c.raft.BasicStatus(), c.coordinatorID(), c.coordinates(),
					slices.Sorted(maps.Values(c.record.Voters)), c.writer.lease, w.clock(p), c.trouble())
			}
		}
		w.fail("healed, and not all may write after a long time%s", text.String())
	}
}

// simulate runs worlds of so many steps each, and gives what was broken.
func simulate(t testing.TB, first uint64, worlds, steps int, f flaws) (broken []string, total int) {
	for seed := first; seed < first+uint64(worlds); seed++ {
		w := newWorld(t, seed)
		w.flaws = f
		w.run(steps)
		w.heal()
		total += w.steps
		if testing.Verbose() && seed == first {
			t.Logf("seed %d: %d steps, %v, %+v, epoch %d", seed, w.steps, w.now, w.stat, len(w.decrees))
		}
		if len(w.broken) > 0 {
			return w.broken, total
		}
	}
	return nil, total
}

func TestSimulation(t *testing.T) {
	worlds := 100
	if raceEnabled {
		worlds = 3
	}
	broken, steps := simulate(t, 1, worlds, 10_000, flaws{})
	for _, b := range broken {
		t.Error(b)
	}
	t.Logf("%d steps", steps)
}

// TestSimulationFindsFlaws: a simulation that finds nothing shows nothing, unless
// it would have found what is wrong.
func TestSimulationFindsFlaws(t *testing.T) {
	worlds := 1000
	for name, f := range map[string]flaws{
		"unconfirmed": {unconfirmed: true}, "hasty": {hasty: true}, "forgetful": {forgetful: true},
	} {
		if raceEnabled && !f.hasty {
			continue // takes a million steps; the one that takes few shows that the test works
		}
		t.Run(name, func(t *testing.T) {
			broken, steps := simulate(t, 1, worlds, 10_000, f)
			if broken == nil {
				t.Errorf("not found in %d steps", steps)
			} else {
				t.Logf("found after %d steps: %s", steps, broken[0])
			}
		})
	}
}

// TestSimulationIsTheSame: a seed gives the same run each time, so that what it
// finds can be looked at.
func TestSimulationIsTheSame(t *testing.T) {
	run := func() string {
		w := newWorld(t, 7)
		w.run(5_000)
		return fmt.Sprint(w.now, w.stat, len(w.applied), w.open)
	}
	if a, b := run(), run(); a != b {
		t.Errorf("%s, then %s", a, b)
	}
}
