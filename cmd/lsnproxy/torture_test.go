//go:build torture

package main

import (
	"math/rand/v2"
	"testing"
)

func TestTortureChaos(t *testing.T) { playChaos(t, "sync", 30, rand.Uint64()) }

func TestTortureChaosAsync(t *testing.T) { playChaos(t, "async", 30, rand.Uint64()) }

func TestTortureSwitchover(t *testing.T) { playSwitchovers(t, 20) }
