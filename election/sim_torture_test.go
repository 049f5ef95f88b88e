//go:build torture

package election

import (
	"math/rand/v2"
	"testing"
)

// TestTortureSimulation goes on where TestSimulation ends, with other seeds each
// time, which failures tell.
func TestTortureSimulation(t *testing.T) {
	first := rand.Uint64() >> 1
	broken, steps := simulate(t, first, 1_000, 20_000, flaws{})
	for _, b := range broken {
		t.Error(b)
	}
	t.Logf("from seed %d: %d steps", first, steps)
}
