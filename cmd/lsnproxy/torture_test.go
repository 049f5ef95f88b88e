//go:build torture

package main

import (
	"cmp"
	"flag"
	"math/rand/v2"
	"testing"
)

// The whole of it takes some minutes. A part of it can be played, and what has failed
// be played again: -rounds 10 -seed 42.
var (
	rounds = flag.Int("rounds", 0, "how many faults or switchovers; 0: 30 and 20")
	seed   = flag.Uint64("seed", 0, "of the faults; 0: at random")
)

func TestTortureChaos(t *testing.T) {
	playChaos(t, "sync", cmp.Or(*rounds, 30), cmp.Or(*seed, rand.Uint64()))
}

func TestTortureChaosAsync(t *testing.T) {
	playChaos(t, "async", cmp.Or(*rounds, 30), cmp.Or(*seed, rand.Uint64()))
}

func TestTortureSwitchover(t *testing.T) { playSwitchovers(t, cmp.Or(*rounds, 20)) }
