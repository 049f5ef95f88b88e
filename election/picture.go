package election

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// picture makes the State of the moment.
func (n *Node) picture(c *core) *State {
	people := map[string]Member{}
	self := Member{
		ID: n.options.ID, Version: n.options.Version, Client: n.options.Client, Cancel: n.options.Cancel, HTTP: n.options.HTTP,
		Health: Alive, Since: n.began,
	}
	if n.gossip != nil {
		self.Address = n.gossip.address()
		people, _ = n.gossip.picture()
	}
	people[self.ID] = self
	voters := c.electors()
	s := &State{
		Coordinator: c.coordinatorID(), Coordinates: c.coordinates(), Term: c.raft.BasicStatus().GetTerm(),
		Decree: c.writer.decree, Failovers: c.record.Failovers, Trouble: c.trouble(),
	}
	s.Quorum = s.Coordinator != ""
	s.Term = max(s.Term, c.notice.term)
	for number, id := range voters {
		present := number == c.self.number || c.members[id].number == number && !c.members[id].gone
		s.Voters = append(s.Voters, Voter{ID: id, Present: present})
		if m, ok := people[id]; ok && present {
			m.Votes = true
			people[id] = m
		}
	}
	slices.SortFunc(s.Voters, func(a, b Voter) int { return cmp.Compare(a.ID, b.ID) })
	s.Members = slices.SortedFunc(maps.Values(people), func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	s.Self = people[self.ID]
	if l := c.writer.lease; l.until != 0 {
		s.Lease = Lease{Epoch: l.epoch, Until: n.began.Add(min(l.until, forever/2)), Retiring: l.epoch != c.writer.decree.Epoch}
	}
	return s
}

// electors gives the voters: from the record, or as the coordinator has told.
func (c *core) electors() map[uint64]string {
	if c.notice.from != "" && c.notice.term >= c.raft.BasicStatus().GetTerm() {
		return c.notice.voters
	}
	return c.record.Voters
}

// trouble says why nobody coordinates, or why this proxy does not vote.
func (c *core) trouble() string {
	if c.self.cluster == 0 {
		if f := c.founding.Founder; f != 0 && f != c.self.number {
			return "the first start waits for " + cmp.Or(c.nameOf(f), "another proxy") + ", to which this one has promised its vote"
		}
		_, missing := c.electorate()
		return missing
	}
	voters := c.electors()
	if _, votes := voters[c.self.number]; !votes {
		for _, id := range voters {
			if id == c.self.id {
				return "this proxy's vote was lost with its directory: remove and add it as a voter"
			}
		}
	}
	if c.coordinatorID() != "" {
		return ""
	}
	var absent []string
	for number, id := range voters {
		if p := c.members[id]; number != c.self.number && (p.number != number || p.gone) {
			absent = append(absent, id)
		}
	}
	if len(absent) == 0 {
		return "no coordinator yet"
	}
	slices.Sort(absent)
	return fmt.Sprintf("no coordinator: of %d voters these are not here: %s", len(voters), strings.Join(absent, ", "))
}

// refuse answers a request at once, with an error that its caller knows.
func (c *core) refuse() requestID {
	c.requests++
	id := requestID{c.self.incarnation, c.requests}
	c.waiting[id] = struct{}{}
	c.answer(id, nil)
	return id
}
