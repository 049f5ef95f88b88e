package session

import "time"

// SetOvertakeLimit makes a session wait for so long, until it is called again, for
// the leader to show what a follower has shown, and returns how long it was.
func SetOvertakeLimit(limit time.Duration) (before time.Duration) {
	before, overtakeLimit = overtakeLimit, limit
	return before
}
