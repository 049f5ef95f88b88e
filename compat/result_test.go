package main

import (
	"slices"
	"testing"
)

// A feature is as bad as the worst that any copy has said of it, and one that a
// copy does not come to has failed.
func TestVerdicts(t *testing.T) {
	direct := parse("connect ok 15\n  a line of its own\ncopy none not offered\nerror ok 22012\n")
	want := []verdict{{"connect", works, "15"}, {"copy", absent, "not offered"}, {"error", works, "22012"}}
	if !slices.Equal(direct, want) {
		t.Fatalf("parsed %v, want %v", direct, want)
	}
	r := result{verdicts: direct, version: "1"}
	r.add(verdict{"connect", fails, "refused"}, way{})
	r.add(verdict{"connect", works, "15"}, way{})
	r.complete([][]verdict{{{"connect", works, ""}, {"copy", absent, ""}}}, way{})
	for feature, cell := range map[string]string{"connect": "FAIL", "copy": "-", "error": "FAIL", "cancel": "-"} {
		if r.cell(feature) != cell {
			t.Errorf("%s: %s, want %s", feature, r.cell(feature), cell)
		}
	}
	if n := failures([]result{r, {version: "says nothing"}, {}}); n != 3 {
		t.Errorf("%d failures, want 3", n)
	}
}
