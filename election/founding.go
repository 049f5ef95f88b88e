package election

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
)

// founding is what a storage remembers of how its cluster began.
//
// A cluster is founded once. The smallest of those who are to vote proposes them
// all, with the numbers of their storages; each promises itself to one founder
// and never to another; with every promise in hand the founder writes down the
// first record. Two groups that share a member can so never both be founded.
// The others get the record by raft, like any voter that is behind.
type founding struct {
	Number  uint64 `json:"number"`  // of this storage, drawn when it was made
	Cluster uint64 `json:"cluster"` // that it belongs to; 0: to none yet
	Founder uint64 `json:"founder"` // to whom it has promised itself; 0: to nobody
	Serial  uint64 `json:"serial"`  // of the proposal promised to
}

// proposal names those who are to vote.
type proposal struct {
	Serial uint64            `json:"serial"`
	Voters map[uint64]string `json:"voters"`
}

// promise answers one.
type promise struct {
	Serial uint64 `json:"serial"`
}

// assembly is a proposal under way. Only its founder has one.
type assembly struct {
	proposal
	promised map[uint64]bool
	next     time.Duration // to ask those who have not promised
}

// clusterNumber is the number of the cluster that a proposal founds.
func clusterNumber(founder, serial uint64) uint64 {
	b := binary.BigEndian.AppendUint64(nil, founder)
	h := sha256.Sum256(binary.BigEndian.AppendUint64(b, serial))
	return binary.BigEndian.Uint64(h[:]) | 1
}

// may reports whether a storage without a cluster may enter one: any, unless it
// has promised itself.
func (f founding) may(cluster uint64) bool {
	return f.Founder == 0 || cluster == clusterNumber(f.Founder, f.Serial)
}

// enter makes this storage belong to a cluster for good.
func (c *core) enter(cluster uint64) {
	c.founding.Cluster, c.self.cluster = cluster, cluster
	c.keepFounding()
	c.out.shown = true
}

func (c *core) keepFounding() {
	f := c.founding
	c.out.keep = append(c.out.keep, write{founding: &f})
}

// electorate gives those who are to found the cluster, by the numbers of their
// storages, once all of them are there; else whom it waits for.
func (c *core) electorate() (voters map[uint64]string, missing string) {
	present := map[string]uint64{c.self.id: c.self.number}
	for _, p := range c.members {
		if p.cluster != 0 {
			return nil, "others have a cluster already: add this proxy to its voters there"
		}
		if !p.gone {
			present[p.id] = p.number
		}
	}
	names := c.voters
	if c.expect > 0 {
		if len(present) < c.expect || len(present) >= 2*c.expect {
			return nil, fmt.Sprintf("%d proxies are here; the first start needs %d, and fewer than twice as many", len(present), c.expect)
		}
		names = slices.Sorted(maps.Keys(present))[:c.expect]
	}
	voters = map[uint64]string{}
	var absent []string
	for _, name := range names {
		if number, ok := present[name]; ok {
			voters[number] = name
		} else {
			absent = append(absent, name)
		}
	}
	if len(absent) > 0 {
		return nil, "the first start waits for " + strings.Join(absent, ", ")
	}
	if len(voters) == 0 {
		return nil, "this proxy founds no cluster: it names no voters and expects none"
	}
	return voters, ""
}

// found goes on with founding the cluster, if that is this proxy's to do.
func (c *core) found() {
	if c.self.cluster != 0 || c.founding.Founder != 0 && c.founding.Founder != c.self.number {
		return
	}
	voters, missing := c.electorate()
	if missing != "" || voters[c.self.number] == "" || slices.Min(slices.Collect(maps.Values(voters))) != c.self.id {
		return
	}
	a := &c.assembly
	if !maps.Equal(a.Voters, voters) {
		c.founding.Founder, c.founding.Serial = c.self.number, c.founding.Serial+1
		c.keepFounding()
		*a = assembly{proposal{c.founding.Serial, voters}, map[uint64]bool{c.self.number: true}, 0}
	}
	if len(a.promised) == len(a.Voters) {
		c.establish()
		return
	}
	if c.now < a.next {
		return
	}
	a.next = c.now + c.election
	for _, number := range slices.Sorted(maps.Keys(voters)) {
		if !a.promised[number] {
			c.send(voters[number], kindPropose, a.proposal)
		}
	}
}

// proposed answers another's proposal.
func (c *core) proposed(from peer, p proposal) {
	f := &c.founding
	if c.self.cluster != 0 || !c.agrees(from, p) {
		return
	}
	own := f.Founder == c.self.number // our own proposal, which ends here: it lacks our promise
	again := f.Founder == from.number && f.Serial <= p.Serial
	if f.Founder != 0 && !own && !again {
		return
	}
	if f.Founder != from.number || f.Serial != p.Serial {
		f.Founder, f.Serial = from.number, p.Serial
		c.assembly = assembly{}
		c.keepFounding()
		c.out.shown = true
	}
	c.send(from.id, kindPromise, promise{p.Serial})
}

// agrees reports whether a proposal is one that this proxy was told to take part in.
func (c *core) agrees(from peer, p proposal) bool {
	names := slices.Sorted(maps.Values(p.Voters))
	if p.Voters[c.self.number] != c.self.id || p.Voters[from.number] != from.id || names[0] != from.id {
		return false
	}
	if c.expect > 0 {
		return len(names) == c.expect
	}
	return slices.Equal(names, slices.Sorted(slices.Values(c.voters)))
}

// promisedBy counts a promise.
func (c *core) promisedBy(from peer, p promise) {
	a := &c.assembly
	if a.Voters[from.number] == from.id && a.Serial == p.Serial && c.founding.Founder == c.self.number {
		a.promised[from.number] = true
	}
}

// establish writes down the first record: everybody has promised.
func (c *core) establish() {
	r := record{Voters: c.assembly.Voters, Hold: c.hold}
	c.begin(r, clusterNumber(c.founding.Founder, c.founding.Serial))
}

// begin begins a cluster's log with a record.
func (c *core) begin(r record, cluster uint64) {
	s := &pb.Snapshot{Data: r.encode(), Metadata: &pb.SnapshotMetadata{
		Index: new(uint64(1)), Term: new(uint64(1)),
		ConfState: &pb.ConfState{Voters: slices.Sorted(maps.Keys(r.Voters)), AutoLeave: new(false)},
	}}
	hard := &pb.HardState{Term: new(uint64(1)), Vote: new(uint64), Commit: new(uint64(1))}
	must(c.storage.ApplySnapshot(s))
	must(c.storage.SetHardState(hard))
	c.out.keep = append(c.out.keep, write{snapshot: s, cleared: true, hard: hard})
	c.assembly = assembly{}
	c.enter(cluster)
	c.boot()
	c.guard(func() { _ = c.raft.Campaign() })
}

// beginAlone makes a cluster of this proxy alone.
func (c *core) beginAlone() {
	c.begin(record{Voters: map[uint64]string{c.self.number: c.self.id}, Hold: c.hold}, clusterNumber(c.self.number, 1))
}

// meet takes what gossip says of the other members.
func (c *core) meet(members map[string]peer) {
	c.members = members
	c.out.shown = true
}

// receive takes a message from the network, which may hold anything.
func (c *core) receive(b []byte) {
	h, body, err := decode(b)
	if err != nil || h.name == c.self.id {
		return
	}
	from := peer{id: h.name, number: h.sender, cluster: h.cluster}
	switch h.kind {
	case kindPropose:
		take(body, func(p proposal) { c.proposed(from, p) })
		return
	case kindPromise:
		take(body, func(p promise) { c.promisedBy(from, p) })
		return
	case kindForward:
		c.out.received = append(c.out.received, delivery{h.name, body})
		return
	}
	if h.cluster == 0 || c.self.cluster != 0 && h.cluster != c.self.cluster ||
		c.self.cluster == 0 && !c.founding.may(h.cluster) {
		return
	}
	switch h.kind {
	case kindRaft:
		c.receiveRaft(h, body)
	case kindNotice:
		c.adopt(h.cluster)
		take(body, func(n notice) { c.takeNotice(h.name, n) })
	case kindGrant:
		take(body, c.granted)
	case kindAsk:
		take(body, func(a ask) { c.asked(from, a) })
	}
}

// adopt has a storage without a cluster enter the one that speaks to it.
func (c *core) adopt(cluster uint64) {
	if c.self.cluster == 0 {
		c.enter(cluster)
	}
}

func (c *core) receiveRaft(h header, body []byte) {
	last, err := c.storage.LastIndex()
	must(err)
	m, err := decodeRaft(body, c.self.number, h.sender, last)
	if err != nil {
		return
	}
	c.adopt(h.cluster)
	if len(c.names) < maxHolders {
		c.names[h.sender] = h.name
	}
	c.guard(func() { _ = c.raft.Step(m) }) // an error is that of a message out of place
}

// take decodes a body and hands it on, if it is what it should be.
func take[T any](body []byte, do func(T)) {
	var v T
	if json.Unmarshal(body, &v) == nil {
		do(v)
	}
}

// send sends a message of ours, sendRaw one that is encoded.
func (c *core) send(to string, k kind, v any) { c.sendRaw(to, k, marshalJSON(v)) }

func (c *core) sendRaw(to string, k kind, body []byte) {
	h := header{kind: k, cluster: c.self.cluster, sender: c.self.number, name: c.self.id}
	c.out.send = append(c.out.send, outgoing{to, encode(h, body)})
}
