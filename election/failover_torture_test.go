//go:build torture

package election_test

import (
	"cmp"
	"flag"
	"math/rand/v2"
	"testing"
)

// A part of it can be played, and what has failed be played again: -worlds 1 -seed 42.
var (
	worlds = flag.Int("worlds", 2_000, "how many to play")
	seed   = flag.Uint64("seed", 0, "of the first one; 0: at random")
)

// TestTortureSimulationOfFailovers goes on where TestSimulationOfFailovers ends.
func TestTortureSimulationOfFailovers(t *testing.T) {
	first := cmp.Or(*seed, rand.Uint64()>>1)
	broken, promotions := runFailovers(t, first, *worlds, 20_000, nil)
	for _, b := range broken {
		t.Error(b)
	}
	t.Logf("%d worlds from seed %d: %d promotions", *worlds, first, promotions)
}
