package election

import (
	"encoding/json"
	"errors"
	"time"
)

// State is one immutable picture of what this proxy knows. Do not modify it.
type State struct {
	Self    Member
	Members []Member // by ID, with this proxy
	Voters  []Voter  // by ID; none before the cluster is founded

	Coordinator string // its ID; "": none known
	Coordinates bool   // this proxy does, and has applied all that was decided before
	Term        uint64
	// Quorum says that this proxy is in touch with a coordinator that a majority
	// stands behind.
	Quorum bool

	Decree    Decree
	Failovers []Failover // oldest first
	Lease     Lease

	// Trouble says, for people, why there is no coordinator or why this proxy does
	// not vote; "" if nothing is wrong.
	Trouble string
}

// Member is a proxy that gossips.
type Member struct {
	ID      string    `json:"id"`
	Address string    `json:"address"` // of its gossip
	Version string    `json:"version"`
	Client  string    `json:"client"`
	Cancel  string    `json:"cancel"`
	HTTP    string    `json:"http"`
	Health  Health    `json:"health"`
	Since   time.Time `json:"since"` // the health is what it is
	Votes   bool      `json:"votes"`
}

// Health is what gossip says of a member. It informs and decides nothing.
type Health string

// The three healths of a member.
const (
	Alive  Health = "alive"
	Failed Health = "failed" // stopped answering
	Left   Health = "left"   // said goodbye
)

// Voter is one of those who elect the coordinator and record decrees.
type Voter struct {
	ID      string `json:"id"`
	Present bool   `json:"present"` // gossip says it is alive, with the storage that votes
}

// Lease is the right to write under the decree of one epoch.
type Lease struct {
	Epoch uint64
	Until time.Time // on the monotonic clock; zero: there is none
	// Retiring: a later decree stands. What runs may finish, nothing may begin.
	Retiring bool
}

// Report is what one proxy told the coordinator with Node.Report.
type Report struct {
	Member string
	Votes  bool
	At     time.Time // received here
	Body   json.RawMessage
}

// MaxReport bounds what Node.Report takes, in bytes.
const MaxReport = 16 << 10

// What can go wrong. Everything else is a context's error.
var (
	// ErrNotCoordinator: only the coordinator does this. Nothing has happened.
	ErrNotCoordinator = errors.New("this proxy is not the coordinator")
	// ErrChanged: another decree stands than the one that was to be replaced.
	// Nothing has happened.
	ErrChanged = errors.New("another decree stands by now")
	// ErrUnknown: the coordinator lost its office while a majority was asked. It may
	// have happened; the decree that stands later tells.
	ErrUnknown = errors.New("this proxy ceased to be the coordinator: outcome unknown")
	// ErrStopped: the node has been stopped.
	ErrStopped = errors.New("stopped")
)
