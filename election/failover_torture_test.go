//go:build torture

package election_test

import (
	"math/rand/v2"
	"testing"
)

// TestTortureSimulationOfFailovers goes on where TestSimulationOfFailovers ends.
func TestTortureSimulationOfFailovers(t *testing.T) {
	first := rand.Uint64() >> 1
	broken, promotions := runFailovers(t, first, 2_000, 20_000, nil)
	for _, b := range broken {
		t.Error(b)
	}
	t.Logf("from seed %d: %d promotions", first, promotions)
}
