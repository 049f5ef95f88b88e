//go:build torture

package session_test

import (
	"math/rand/v2"
	"testing"
)

// TestTortureHostileServer lies a lot more, and otherwise at each run.
func TestTortureHostileServer(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	lieAbout(t, rand.New(rand.NewPCG(seed, 1)), 6000)
	for i := range 5 {
		floods(t, rand.New(rand.NewPCG(seed, uint64(2+i))))
	}
}

// TestTortureHostileClient spoils a lot more.
func TestTortureHostileClient(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	spoilStreams(t, rand.New(rand.NewPCG(seed, 1)), 20_000)
}
