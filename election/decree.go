package election

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
)

// Decree is what the coordinator has decided and a majority of the voters has
// recorded: who leads the database.
type Decree struct {
	// Epoch grows by one whenever anything but Plan changes. 0: nothing decided yet.
	Epoch uint64 `json:"epoch"`
	// SystemID is the database system that all this is about (pg_control_system).
	SystemID uint64 `json:"system_id,omitempty"`
	// Leader is the address of the node that takes writes; "" while nobody may write.
	Leader string `json:"leader,omitempty"`
	// Timeline is the one that the leader writes.
	Timeline uint32 `json:"timeline,omitempty"`
	// Plan is the record of a change in progress, which the next coordinator goes on
	// with. What it says is its writer's business. Only voters see it.
	Plan json.RawMessage `json:"plan,omitempty"`
}

// Equal reports whether two decrees are the same, the plans byte for byte.
func (d Decree) Equal(o Decree) bool { return d.sameRule(o) && bytes.Equal(d.Plan, o.Plan) }

// sameRule reports whether only the plans may differ.
func (d Decree) sameRule(o Decree) bool {
	return d.Epoch == o.Epoch && d.SystemID == o.SystemID && d.Leader == o.Leader && d.Timeline == o.Timeline
}

// follows says whether a decree may come next after from: a new epoch for a new
// rule, the same epoch for a new plan.
func (d Decree) follows(from Decree) bool {
	if d.Epoch == from.Epoch {
		return d.sameRule(from)
	}
	return d.Epoch == from.Epoch+1
}

// Failover is the record of one that is over.
type Failover struct {
	Epoch      uint64    `json:"epoch"` // of the decree that published the new leader
	Old        string    `json:"old"`
	New        string    `json:"new"`
	Trigger    string    `json:"trigger"`
	Timeline   uint32    `json:"timeline"` // the new leader's
	Began      time.Time `json:"began"`
	PromotedAt time.Time `json:"promoted_at"`
	LostAtMost uint64    `json:"lost_at_most"` // bytes of log, as far as is known by now
	// The new timeline branched off from one at a position: what the former has beyond
	// it is lost.
	From   uint32  `json:"from"`
	Branch lsn.LSN `json:"branch"`
}

// maxFailovers is how many of them are remembered.
const maxFailovers = 100

// maxPlan bounds Decree.Plan: it travels in one message.
const maxPlan = 64 << 10
