package admin

import "time"

// Snapshot is the figures of one moment. Fields called totals grow from 0 at
// the start of the process.
type Snapshot struct {
	Sessions Sessions
	Nodes    []Node
	Watch    Watch
	Changes  Changes
	Pools    []Pool
	Loops    []Loop
}

// Sessions is what clients do. All but Connected and Replicating are totals.
type Sessions struct {
	Connected, Replicating     int64  // clients now; of them, replication connections
	Clients, Replications      uint64 // clients ever; replication connections that began
	Reads                      []Reads
	Fallbacks                  []Fallbacks
	Replays                    map[string]uint64 // statements refused by a follower and run again on the leader, by SQLSTATE
	Retries                    uint64            // statements run again because the connection was lost before anything was answered
	Silent                     uint64            // connections given up to followers from which nothing came
	Waits                      Histogram         // of reads for a follower
	WaitsSpent                 uint64            // of them, those that ended without one
	Guards, GuardsShort        uint64            // positions asked for ahead of a read; those that fell short
	Probes                     uint64            // of a position after the fact
	Aligned                    uint64            // connections brought in line with a session's settings
	OutcomeUnknown, LostWrites uint64
	FatesUnknown               uint64 // sessions told that nobody knows whether a write of theirs is lost
	StaleAllowed               uint64 // reads that policy let miss something
	TokensImported             uint64 // by SET lsnproxy.token and the like
	TokensRefused              uint64
	Cancels, Panics            uint64
	Pins                       map[string]uint64 // times a session began to hold on to its connection, by why
	Pinned                     int64             // sessions that do now
}

// Reads is how many reads ran on a node, at a level of consistency, for a reason.
type Reads struct {
	Node, Role, Level, Reason string
	Count                     uint64
}

// Fallbacks is how many reads no follower would do for, for a reason, and what they
// did then: run on the leader, run on a follower all the same (stale), or fail.
type Fallbacks struct {
	To, Reason string
	Count      uint64
}

// Histogram is how often something took how long.
type Histogram struct {
	Bounds []time.Duration // upper ones
	Counts []uint64        // to each of Bounds from the one before; the last: longer
	Sum    time.Duration
}

// Node is one server.
type Node struct {
	Address, Role, State string
	Leader               bool // takes the writes at the moment
	Writes               uint64
	Samples, Failures    uint64

	Timeline uint32
	Position uint64 // bytes of log applied, or written by a leader; 0: not known
	Received uint64 // bytes of log it holds; 0: not known

	// How far a follower is behind. Unknown counts as infinitely far.
	Follows            bool
	LagBytes           uint64
	Lag                time.Duration
	LagKnown, AgeKnown bool
	Age                time.Duration // of the sample all this comes from
}

// Changes is what this proxy does about the leader; nothing unless it coordinates.
type Changes struct {
	Blocked         bool // a person is needed, or time
	Steps, Failures uint64
	Leaders         uint64 // published by this proxy
}

// Watch is what the watcher of the nodes does.
type Watch struct {
	Timeline              uint32 // the highest seen
	Waiting               int    // waits open now
	Waits, Wakeups        uint64
	Nudges, NudgeFailures uint64
	Replicas              []Replica
}

// Replica is a standby or a subscriber as the leader's pg_stat_replication has it.
type Replica struct {
	Application, Address string
	Write, Flush, Replay Distance
}

// Distance is one of a replica's lags. A negative time is not known.
type Distance struct {
	Bytes uint64
	Time  time.Duration
}

// Pool is the server connections to one node, for one database and user.
type Pool struct {
	Node, Database, User                      string
	Open, Idle, Waiting                       int
	Opened, Failed, Destroyed, TimedOut, Lent uint64
	Waited                                    time.Duration
}

// Loop is one event loop.
type Loop struct {
	Connections, Tasks, Runnable, Buffers   int
	Turns, Wakeups, Resumes, Stalls, Panics uint64
	Courteous                               bool
}
