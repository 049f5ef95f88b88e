package election

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// record is the state that raft replicates. What is applied is replaced, never
// modified: pictures of the state share it.
type record struct {
	Voters    map[uint64]string `json:"voters"` // their numbers and names
	Decree    Decree            `json:"decree"`
	Failovers []Failover        `json:"failovers,omitempty"`
	// Hold is how long a new coordinator takes it that anybody may hold a lease of
	// an earlier one: the longest lease there may be, and the drift. It only grows.
	Hold time.Duration `json:"hold"`
}

func (r *record) encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // numbers, text and what was valid JSON before
	}
	return b
}

func decodeRecord(b []byte) (record, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return r, err
	}
	if len(r.Failovers) > maxFailovers || len(r.Decree.Plan) > maxPlan || r.Hold < 0 {
		return r, errors.New("a record beyond its bounds")
	}
	return r, nil
}

// command is an entry of the log: one change of the record. One pointer is set.
type command struct {
	ID     requestID      `json:"id"`
	Decide *decision      `json:"decide,omitempty"`
	Record *Failover      `json:"record,omitempty"`
	Hold   *time.Duration `json:"hold,omitempty"`
	Voter  string         `json:"voter,omitempty"` // in the context of a change of voters
}

// requestID names one request of one process.
type requestID struct {
	Incarnation, Number uint64
}

type decision struct{ From, To Decree }

// entry is a decoded entry of the log.
type entry struct {
	command command
	change  *pb.ConfChange // nil: not one of voters
}

// decodeEntry decodes an entry. An empty one begins a coordinator's term.
func decodeEntry(e *pb.Entry) (entry, error) {
	var d entry
	data := e.GetData()
	switch e.GetType() {
	case pb.EntryNormal:
	case pb.EntryConfChange:
		d.change = new(pb.ConfChange)
		if err := proto.Unmarshal(data, d.change); err != nil {
			return d, err
		}
		t := d.change.GetType()
		if d.change.GetNodeId() == 0 || t != pb.ConfChangeAddNode && t != pb.ConfChangeRemoveNode {
			return d, errors.New("a change of voters of a kind that is never made")
		}
		data = d.change.GetContext()
	default:
		return d, fmt.Errorf("an entry of type %v", e.GetType())
	}
	if len(data) == 0 {
		return d, nil
	}
	return d, json.Unmarshal(data, &d.command)
}

// apply changes the record by one command. The error is for who asked; the
// outcome is the same everywhere.
func (r *record) apply(c command) error {
	switch {
	case c.Decide != nil:
		if !r.Decree.Equal(c.Decide.From) {
			return ErrChanged
		}
		r.Decree = c.Decide.To
	case c.Record != nil:
		kept := slices.DeleteFunc(slices.Clone(r.Failovers), func(o Failover) bool { return o.Epoch == c.Record.Epoch })
		kept = append(kept, *c.Record)
		r.Failovers = kept[max(0, len(kept)-maxFailovers):]
	case c.Hold != nil:
		r.Hold = max(r.Hold, *c.Hold)
	}
	return nil
}

// change changes who votes.
func (r *record) change(c *pb.ConfChange, name string) {
	r.Voters = maps.Clone(r.Voters)
	if c.GetType() == pb.ConfChangeAddNode {
		r.Voters[c.GetNodeId()] = name
	} else {
		delete(r.Voters, c.GetNodeId())
	}
}

// voter gives the number of the voter called name.
func (r *record) voter(name string) (uint64, bool) {
	for number, n := range r.Voters {
		if n == name {
			return number, true
		}
	}
	return 0, false
}
