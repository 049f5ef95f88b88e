package history

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Result is what a run came to.
type Result struct {
	Verdict
	Seed     uint64
	Elapsed  time.Duration
	Sessions int               // connections made, more than asked for if some were lost
	Errors   map[string]int    // refused statements and lost connections by SQLSTATE, or by a word where there is none
	Samples  map[string]string // the first text under each of them
	Nodes    map[string]int    // reads by the node that served them, of those that were asked about
	Events   []Event           // everything, each session's in its own order
	Ends     map[int]string    // why sessions ended before the run did: a SQLSTATE, or a word as in Errors
}

// count tells how often each protocol did each kind of operation.
func (r *Result) count() map[Protocol]map[Kind]int {
	counts := make(map[Protocol]map[Kind]int)
	for _, e := range r.Events {
		if counts[e.Protocol] == nil {
			counts[e.Protocol] = make(map[Kind]int)
		}
		counts[e.Protocol][e.Kind]++
	}
	return counts
}

// String tells the result in a few lines: counts by protocol, faults, errors
// with the first text of each, nodes, and the first violations in full.
func (r *Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d sessions, %d writes and %d reads in %v\n",
		r.Seed, r.Sessions, r.Writes, r.Reads, r.Elapsed.Round(time.Millisecond))
	for p, kinds := range sorted(r.count()) {
		fmt.Fprintf(&b, "  %-12s", p)
		for k, n := range sorted(kinds) {
			fmt.Fprintf(&b, " %s %d", k, n)
		}
		b.WriteByte('\n')
	}
	for f := range faults {
		fmt.Fprintf(&b, "%s %d\n", f, r.Faults[f])
	}
	for code, n := range sorted(r.Errors) {
		fmt.Fprintf(&b, "error %s: %d, first %s\n", code, n, r.Samples[code])
	}
	for node, n := range sorted(r.Nodes) {
		fmt.Fprintf(&b, "node %s: %d reads asked about\n", node, n)
	}
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "%v\n", v)
	}
	return b.String()
}

// sorted ranges over m in the order of its keys.
func sorted[K interface{ ~uint8 | ~string }, V any](m map[K]V) func(yield func(K, V) bool) {
	return func(yield func(K, V) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}
