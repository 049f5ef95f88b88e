// Package history runs many sessions against one or more addresses, records
// what each of them wrote and read, and judges the record.
//
// It knows only PostgreSQL's protocol: the address may be a proxy, a server or
// a bare splitter under suspicion. What a session may expect of itself is judged
// by its own record, without a clock and without a view of the cluster:
//
//   - a read below a write that the same session saw acknowledged is stale;
//   - a read below an earlier read of the same session is backward;
//   - a read of something nobody wrote, or that was rolled back, is unwritten;
//   - two writes under one version of a shared row are a fork.
//
// What it may expect of others is judged by the clock of the one process that
// runs all sessions, and on shared rows only:
//
//   - a read that misses what was acknowledged to anybody before it began is late,
//     and local if that went through the same address;
//   - a read that misses what was acknowledged longer ago than a bound is old;
//   - a row is unordered if no order of its writes and reads, one at a time, each
//     between its beginning and its end, explains what was seen (linearizability;
//     github.com/anishathalye/porcupine searches for the order).
//
// Every row carries a version that only grows. A session's own rows carry
// versions which that session alone hands out; shared rows count up and carry
// the mark of the write that made them, so a value seen names its write.
package history

import (
	"fmt"
	"time"
)

// Kind is what an event did.
type Kind uint8

// The kinds of event. Insert, Update and Delete touch a session's own rows,
// Bump counts a shared row up by one.
const (
	Read Kind = iota
	Insert
	Update
	Delete
	Bump
)

func (k Kind) String() string {
	return [...]string{"read", "insert", "update", "delete", "bump"}[k]
}

// Protocol is how a session carries a write and the reads after it.
type Protocol uint8

// The protocols a session mixes.
const (
	Simple      Protocol = iota // one Query per statement, autocommit
	Extended                    // Parse, Bind, Execute on the unnamed statement, Sync, autocommit
	Prepared                    // Bind, Execute on a named statement, Sync, autocommit
	Transaction                 // BEGIN, writes, COMMIT or ROLLBACK, then a read outside
	ReadOnly                    // a write, then reads in BEGIN READ ONLY
	Pipelined                   // write and reads, each under its own Sync, in one flight
	Multi                       // several statements in one Query
	protocols
)

func (p Protocol) String() string {
	return [...]string{"simple", "extended", "prepared", "transaction", "read-only", "pipelined", "multi"}[p]
}

// Way is how a single statement is sent within a protocol that leaves it open.
type Way uint8

// The ways to send a statement.
const (
	Query   Way = iota // a Query message
	Unnamed            // Parse, Bind, Describe, Execute with the unnamed statement
	Named              // Bind, Describe, Execute of a statement prepared before
)

func (w Way) String() string {
	return [...]string{"query", "unnamed", "named"}[w]
}

// Outcome is what the session knows of a write when it is over.
type Outcome uint8

// The outcomes. Only an acknowledged write obliges later reads; only a failed
// one may never be seen.
const (
	Acked   Outcome = iota // the answer and ReadyForQuery arrived
	Failed                 // refused or rolled back: nobody may ever see it
	Unknown                // the connection was lost, or the server said it cannot tell
)

func (o Outcome) String() string {
	return [...]string{"acknowledged", "failed", "unknown"}[o]
}

// Key names a row. Owner is the session that alone writes it, 0 for a row
// shared by all.
type Key struct{ Owner, N int }

func (k Key) String() string {
	if k.Owner == 0 {
		return fmt.Sprintf("shared row %d", k.N)
	}
	return fmt.Sprintf("own row %d", k.N)
}

// Mark names a write of a shared row: the session and that session's count of
// writes. The zero Mark stands for the row as it was set up.
type Mark struct {
	Session int
	N       int64
}

// Event is one write, or one row seen by one read.
type Event struct {
	Session  int
	Kind     Kind
	Protocol Protocol
	Way      Way
	Key      Key

	// Version is the version written or seen. 0 is the row before any write:
	// own rows are then absent, shared rows present.
	Version int64
	// Absent says that the write left, or the read found, no row. A read that
	// found none does not tell a version.
	Absent bool
	// Mark is the write seen (or made) in a shared row.
	Mark Mark

	Outcome    Outcome       // Acked for reads: only answered reads are recorded
	Start, End time.Duration // sent and answered, since the run began; a read's transaction begins with it
	Through    string        // the address it went to
	Node       string        // who served it, if the session asked
	Token      string        // Options.Token as it was told with the answer to a write; "" if it was not
}

// String tells e in one line.
func (e Event) String() string {
	value := fmt.Sprintf("version %d", e.Version)
	if e.Absent {
		value = "no row"
		if e.Kind != Read {
			value = fmt.Sprintf("version %d (no row)", e.Version)
		}
	}
	if e.Mark != (Mark{}) {
		value += fmt.Sprintf(" of session %d's write %d", e.Mark.Session, e.Mark.N)
	}
	line := fmt.Sprintf("session %d %s %s by %s/%s: %s, %s, sent %v, answered %v",
		e.Session, e.Kind, e.Key, e.Protocol, e.Way, value, e.Outcome, e.Start, e.End)
	if e.Through != "" {
		line += ", through " + e.Through
	}
	if e.Node != "" {
		line += ", served by " + e.Node
	}
	return line
}
