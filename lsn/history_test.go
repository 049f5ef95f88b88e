package lsn_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lsnproxy/lsnproxy/lsn"
)

func TestParseHistory(t *testing.T) {
	// As the server writes it (writeTimeLineHistory in access/transam/timeline.c).
	file := "1\t0/4030540\tno recovery target specified\n\n2\t1/A0\tbefore 2026-11-23 08:00:00+00\n"
	want := lsn.History{Timeline: 3, Ancestors: []lsn.Switch{{Timeline: 1, End: 0x4030540}, {Timeline: 2, End: 0x1000000A0}}}
	for name, text := range map[string]string{
		"as written":        file,
		"no last newline":   strings.TrimSpace(file),
		"spaces for tabs":   strings.ReplaceAll(file, "\t", "  "),
		"comments":          "# a comment\n  # another\n" + file,
		"carriage returns":  strings.ReplaceAll(file, "\n", "\r\n"),
		"reason left out":   "1\t0/4030540\n2\t1/A0\n",
		"leading blanks":    "  1\t0/4030540\n\t2 1/A0 x\n",
		"lower case digits": "1 0/4030540\n2 1/a0\n",
	} {
		got, err := lsn.ParseHistory(3, []byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestParseHistoryRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"one field":             "1\n",
		"no timeline":           "x\t0/1\n",
		"no position":           "1\tx\n",
		"timeline 0":            "0\t0/1\n",
		"its own parent":        "3\t0/1\n",
		"a later parent":        "4\t0/1\n",
		"the same parent twice": "1\t0/1\n1\t0/2\n",
		"parents going back":    "2\t0/1\n1\t0/2\n",
		"timeline too large":    "4294967296\t0/1\n",
		"line without an end":   "1\t0/1\n#" + strings.Repeat("x", 1<<17) + "\n",
	} {
		if got, err := lsn.ParseHistory(3, []byte(text)); err == nil {
			t.Errorf("%s: %v, want an error", name, got)
		}
	}
}

// family is timeline 3, forked off 2 at 200, which forked off 1 at 100.
var family = lsn.History{Timeline: 3, Ancestors: []lsn.Switch{{Timeline: 1, End: 100}, {Timeline: 2, End: 200}}}

func TestContains(t *testing.T) {
	for _, c := range []struct {
		at   lsn.Position
		want bool
		why  string
	}{
		{lsn.Position{Timeline: 3, LSN: 1 << 40}, true, "the timeline itself has no end"},
		{lsn.Position{Timeline: 3, LSN: 150}, true, "inherited, under the heir's name"},
		{lsn.Position{Timeline: 2, LSN: 199}, true, "before the switch"},
		{lsn.Position{Timeline: 2, LSN: 200}, true, "at the switch"},
		{lsn.Position{Timeline: 2, LSN: 201}, false, "lost at the switch to 3"},
		{lsn.Position{Timeline: 1, LSN: 100}, true, "at the first switch"},
		{lsn.Position{Timeline: 1, LSN: 101}, false, "lost at the switch to 2"},
		{lsn.Position{Timeline: 4, LSN: 1}, false, "not yet heard of"},
		{lsn.Position{}, false, "no timeline"},
	} {
		if got := family.Contains(c.at); got != c.want {
			t.Errorf("Contains(%v) = %v: %s", c.at, got, c.why)
		}
	}
	unread := lsn.History{Timeline: 3}
	if unread.Known() || !family.Known() || !(lsn.History{Timeline: 1}).Known() || (lsn.History{}).Known() {
		t.Error("Known: want it for timeline 1 and for histories that were read")
	}
	if unread.Contains(lsn.Position{Timeline: 2, LSN: 1}) {
		t.Error("a history that was not read contains an ancestor's position")
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		at, need lsn.Position
		want     bool
		why      string
	}{
		{lsn.Position{Timeline: 3, LSN: 300}, lsn.Position{}, true, "nothing is needed"},
		{lsn.Position{}, lsn.Position{}, true, "nothing is needed of a node nothing is known of"},
		{lsn.Position{Timeline: 3, LSN: 300}, lsn.Position{Timeline: 3, LSN: 300}, true, "just there"},
		{lsn.Position{Timeline: 3, LSN: 299}, lsn.Position{Timeline: 3, LSN: 300}, false, "a byte short"},
		{lsn.Position{Timeline: 3, LSN: 210}, lsn.Position{Timeline: 1, LSN: 90}, true, "an inherited write"},
		{lsn.Position{Timeline: 3, LSN: 210}, lsn.Position{Timeline: 1, LSN: 110}, false, "a lost write, though the number is smaller"},
		{lsn.Position{Timeline: 2, LSN: 205}, lsn.Position{Timeline: 1, LSN: 90}, false, "a diverged node, though it has the write"},
		{lsn.Position{Timeline: 1, LSN: 95}, lsn.Position{Timeline: 1, LSN: 90}, true, "a node that is behind on an ancestor"},
		{lsn.Position{Timeline: 1, LSN: 100}, lsn.Position{Timeline: 2, LSN: 100}, true, "the same byte under two names"},
		{lsn.Position{Timeline: 1, LSN: 100}, lsn.Position{Timeline: 2, LSN: 101}, false, "the heir's first byte"},
		{lsn.Position{Timeline: 4, LSN: 900}, lsn.Position{Timeline: 3, LSN: 1}, false, "a node ahead of this history"},
	} {
		if got := family.Covers(c.at, c.need); got != c.want {
			t.Errorf("Covers(%v, %v) = %v: %s", c.at, c.need, got, c.why)
		}
	}
}

// onFamily draws a position that family contains.
var onFamily = rapid.Custom(func(t *rapid.T) lsn.Position {
	timeline := rapid.Uint32Range(1, 3).Draw(t, "timeline")
	return lsn.Position{Timeline: timeline, LSN: lsn.LSN(rapid.Uint64Range(0, uint64(timeline)*100).Draw(t, "lsn"))}
})

func TestLaterCoversBoth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := onFamily.Draw(t, "a"), onFamily.Draw(t, "b")
		later := lsn.Later(a, b)
		if later != a && later != b {
			t.Fatalf("Later(%v, %v) = %v", a, b, later)
		}
		if !family.Covers(later, a) || !family.Covers(later, b) {
			t.Fatalf("Later(%v, %v) = %v does not cover both", a, b, later)
		}
		if again := lsn.Later(b, a); again != later {
			t.Fatalf("Later depends on the order: %v, %v", later, again)
		}
	})
}

// Coverage must be transitive: a session that moves from node to node stands on it.
func TestCoversIsTransitive(t *testing.T) {
	anywhere := rapid.Custom(func(t *rapid.T) lsn.Position {
		return lsn.Position{
			Timeline: rapid.Uint32Range(1, 4).Draw(t, "timeline"),
			LSN:      lsn.LSN(rapid.Uint64Range(0, 300).Draw(t, "lsn")),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := anywhere.Draw(t, "a"), anywhere.Draw(t, "b"), anywhere.Draw(t, "c")
		if family.Covers(a, b) && family.Covers(b, c) && !family.Covers(a, c) {
			t.Fatalf("%v covers %v, %v covers %v, but not transitively", a, b, b, c)
		}
	})
}
