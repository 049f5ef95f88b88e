//go:build torture

package session_test

import (
	"flag"
	"math/rand/v2"
	"testing"
)

var (
	randomSeed       = flag.Uint64("random.seed", 0, "the first scene's; 0: any")
	randomStatements = flag.Int("random.statements", 100_000, "how many to play")
)

// TestTortureRandomSessions plays others at every run. The seed of a scene is the
// name of its subtest.
func TestTortureRandomSessions(t *testing.T) {
	seed := *randomSeed
	if seed == 0 {
		seed = rand.Uint64N(1 << 40)
	}
	t.Logf("-random.seed %d", seed)
	if n := playScenes(t, seed, 1000, *randomStatements); !t.Failed() {
		t.Logf("%d statements without a difference", n)
	}
}

// TestTortureRandomSettings says others at every run.
func TestTortureRandomSettings(t *testing.T) {
	seed := *randomSeed
	if seed == 0 {
		seed = rand.Uint64N(1 << 40)
	}
	t.Logf("-random.seed %d", seed)
	saySettings(t, seed, 20_000)
}
