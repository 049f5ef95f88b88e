//go:build linux && race

package reactor_test

const raceEnabled = true
