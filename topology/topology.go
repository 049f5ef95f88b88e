// Package topology holds the proxy's picture of the cluster.
//
// A View is one immutable picture. The Board publishes it through one atomic
// pointer: readers never lock and never see a picture half changed, writers
// copy. lagwatch writes, everybody else reads.
package topology

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
)

// Instant is a point on the process's monotonic clock, in nanoseconds. Order of
// instants is what the consistency rules stand on (a sample proves something
// only about reads that ended before it began), so they are never wall time.
type Instant int64

var processStart = time.Now()

// Now reads the monotonic clock.
func Now() Instant { return Instant(time.Since(processStart)) }

// Since returns the time from earlier to i.
func (i Instant) Since(earlier Instant) time.Duration { return time.Duration(i - earlier) }

// Role is what a node said of itself at its last sample.
type Role uint8

// The roles. Unknown is treated as neither: no write and no read goes there.
const (
	RoleUnknown Role = iota
	RoleLeader
	RoleFollower
)

func (r Role) String() string {
	switch r {
	case RoleLeader:
		return "leader"
	case RoleFollower:
		return "follower"
	default:
		return "unknown"
	}
}

// State says whether a node may serve, and if not, why not.
type State uint8

// The states of a node. Only Usable serves.
const (
	Unknown    State = iota // not sampled yet
	Down                    // not reachable, or the last sample failed
	Foreign                 // another system identifier, or an unsupported build
	Superseded              // says it is the leader, but a newer timeline or a second claimant exists
	Diverged                // its timeline or position is not on the leader's history
	Lagging                 // beyond the lag threshold, or not yet back within it
	Usable
)

func (s State) String() string {
	return [...]string{"unknown", "down", "foreign", "superseded", "diverged", "lagging", "usable"}[s]
}

// Node is one server as last sampled. ID is its index in View.Nodes and stays
// the same for the life of the process.
type Node struct {
	ID      int
	Address string // host:port, as configured
	Role    Role
	State   State
	Detail  string // why it is in that state, for people

	// Position is what the node had at the sample: the replayed position of a
	// follower, the normalised insert position of a leader.
	Position lsn.Position
	// Sampled is the instant just before the sample was asked for: Position
	// covers everything the node had applied by then.
	Sampled Instant
	// Watched is the instant the watcher's present connection to the node was
	// opened. While that connection lives the server has not restarted, so its
	// position has not gone back.
	Watched Instant

	// Silent is the instant since when nothing comes from a node that is Down: it
	// neither answers nor refuses, so that its connections may stay open for ever. 0: it
	// does one or the other.
	Silent Instant

	// Received is the end of the log the node holds on disk: what a follower has
	// received, never less than it has replayed; what a leader has flushed.
	Received lsn.LSN

	// LagBytes and Lag say how far a follower, Usable or Lagging, was behind what
	// the leader had flushed when it was last sampled: everything flushed by Lag
	// before that sample has been replayed. LagUnknown and LagBytesUnknown count as
	// too much.
	LagBytes uint64
	Lag      time.Duration
	// Fresh is an instant: all that the leader had flushed by then a follower,
	// Usable or Lagging, has applied. 0 if none can be told.
	Fresh Instant

	// Shown is an instant: all that a follower had shown to anybody by then the
	// leader shows, too. Positions do not tell it: see lagwatch.
	Shown Instant

	// Share is the node's part of the reads that any follower may serve: its
	// weight, less while it has only just become usable. Only the proportion
	// counts; 0 is none unless nobody else will do.
	Share uint
}

// The lag of a follower of which it cannot be told.
const (
	LagUnknown      = time.Duration(math.MaxInt64)
	LagBytesUnknown = uint64(math.MaxUint64)
)

// NoLeader is View.Leader while no node may take writes.
const NoLeader = -1

// View is one picture of the cluster. It is never changed once published.
type View struct {
	System  uint64 // system identifier; 0 until a node was sampled
	Segment uint64 // wal_segment_size in bytes
	History lsn.History
	Leader  int // ID of the node that takes writes, or NoLeader
	// Epoch is that of the decree which says so. Where the servers themselves do, it
	// counts the leaders seen.
	Epoch  uint64
	Nodes  []Node
	Over   Snapshot // of the leader, as last sampled
	Reigns []Reign  // that are over, the latest last
}

// Reign is the time that a node led on one timeline, as far as it is remembered.
type Reign struct {
	Node     int
	Timeline uint32
	Marks    []Mark // oldest first
}

// Mark says that all that was committed by At lies before LSN.
type Mark struct {
	At  Instant
	LSN lsn.LSN
}

// Written returns a position that covers all that was committed by at on a
// timeline whose leader is gone. false: it was not sampled since.
func (v *View) Written(timeline uint32, at Instant) (lsn.Position, bool) {
	for i := range v.Reigns {
		if r := &v.Reigns[i]; r.Timeline == timeline {
			for _, m := range r.Marks {
				if m.At >= at {
					return lsn.Position{Timeline: timeline, LSN: m.LSN}, true
				}
			}
		}
	}
	return lsn.Position{}, false
}

// TimelineOf returns the timeline on which a node that takes writes, or has taken
// some a moment ago, did so. While nobody leads, the latest reign is not among those
// that are over yet: the node that led may have led an earlier one, too.
func (v *View) TimelineOf(node int) uint32 {
	last := len(v.Reigns) - 1
	if node == v.Leader || v.Leader == NoLeader && (last < 0 || v.Reigns[last].Node != node) {
		return v.History.Timeline
	}
	for i := last; i >= 0; i-- {
		if v.Reigns[i].Node == node {
			return v.Reigns[i].Timeline
		}
	}
	return v.History.Timeline
}

// Token makes a token of position p in this system.
func (v *View) Token(p lsn.Position) lsn.Token {
	return lsn.Token{System: v.System, Position: p}
}

// Proves reports whether what is known of node n proves that a connection to
// it opened at opened and still alive has applied need.
//
// A follower's position goes backwards when it restarts after a crash, and a
// restart ends every connection. So a sample begun after the connection was
// opened and the connection itself belong to the same run of the server, in
// which positions only grow; a sample begun before may be of an earlier run.
func (v *View) Proves(n *Node, opened Instant, need lsn.Position) bool {
	if need.IsZero() {
		return true
	}
	return n.Sampled >= opened && v.History.Covers(n.Position, need)
}

// Board publishes the present View.
type Board struct {
	view atomic.Pointer[View]
	mu   sync.Mutex // held by writers, so that none overwrites another's change
}

// NewBoard starts with a picture of nodes of which nothing is known yet.
func NewBoard(addresses []string) *Board {
	v := &View{Leader: NoLeader, Nodes: make([]Node, len(addresses))}
	for i, a := range addresses {
		v.Nodes[i] = Node{ID: i, Address: a, Detail: "not sampled yet", Share: 1}
	}
	b := &Board{}
	b.view.Store(v)
	return b
}

// View returns the present picture; the caller must not change it.
func (b *Board) View() *View { return b.view.Load() }

// Update publishes a changed copy of the present picture and returns it. change
// gets a copy whose Nodes it may write; it must not block.
func (b *Board) Update(change func(*View)) *View {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.view.Load()
	next := *old
	next.Nodes = append([]Node(nil), old.Nodes...)
	change(&next)
	b.view.Store(&next)
	return &next
}
