package main

import (
	"context"
	"errors"
	"time"

	"github.com/lsnproxy/lsnproxy/admin"
	"github.com/lsnproxy/lsnproxy/election"
	"github.com/lsnproxy/lsnproxy/lsn"
)

// stopElection gives the lease back and takes leave of the other proxies.
func (p *proxy) stopElection() {
	if p.election == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	close(p.mandate.stop)
	p.mandate.following.Wait()
	p.election.Stop(ctx)
}

// status is what `lsnproxy status` shows. HTTP is open before the election has
// begun, and p.started says when it has.
func (p *proxy) status() admin.Status {
	s := admin.Status{Version: versionText()}
	for _, n := range p.snapshot().Nodes {
		server := admin.NodeStatus{
			Address: n.Address, Role: n.Role, State: n.State, Leader: n.Leader,
			Timeline: n.Timeline, Position: lsn.LSN(n.Position).String(),
		}
		if n.Follows && n.LagKnown {
			server.Lag = n.Lag.Round(time.Millisecond).String()
		}
		s.Nodes = append(s.Nodes, server)
	}
	if p.stage.Load() != starting && p.election != nil {
		s.Cluster = cluster(p.election.State(), time.Now())
		s.Failover = p.failoverState()
	}
	return s
}

// cluster is what election says of the proxies, in admin's terms.
func cluster(s *election.State, now time.Time) *admin.Cluster {
	c := &admin.Cluster{
		Self: s.Self.ID, Coordinator: s.Coordinator, Term: s.Term, Quorum: s.Quorum, Trouble: s.Trouble,
		Decree: admin.Decree(s.Decree), Lease: admin.Lease{Epoch: s.Lease.Epoch, Retiring: s.Lease.Retiring},
	}
	if left := s.Lease.Until.Sub(now); left > 0 {
		c.Lease.Seconds = left.Seconds()
	}
	for _, m := range s.Members {
		c.Members = append(c.Members, admin.Member{
			ID: m.ID, Address: m.Address, Client: m.Client, HTTP: m.HTTP, Version: m.Version,
			Health: string(m.Health), Since: m.Since, Votes: m.Votes,
		})
	}
	for _, v := range s.Voters {
		c.Voters = append(c.Voters, v.ID)
	}
	for _, f := range s.Failovers {
		c.Failovers = append(c.Failovers, admin.Failover{
			Epoch: f.Epoch, Old: f.Old, New: f.New, Trigger: f.Trigger, Timeline: f.Timeline, Began: f.Began,
			PromotedAt: f.PromotedAt, LostAtMost: f.LostAtMost, From: f.From, Branch: f.Branch.String(),
		})
	}
	return c
}

// vote gives a member a vote or takes it away.
func (p *proxy) vote(ctx context.Context, id string, add bool) error {
	if p.stage.Load() == starting || p.election == nil {
		return errors.New("this proxy is alone: it has no cluster section")
	}
	change := p.election.RemoveVoter
	if add {
		change = p.election.AddVoter
	}
	err := change(ctx, id)
	if errors.Is(err, election.ErrNotCoordinator) {
		return p.elsewhere()
	}
	return err
}

// elsewhere says who coordinates, for commands that only that proxy can do.
func (p *proxy) elsewhere() error {
	s := p.election.State()
	e := &admin.Elsewhere{Coordinator: s.Coordinator}
	for _, m := range s.Members {
		if m.ID == s.Coordinator && m.ID != s.Self.ID {
			e.HTTP = m.HTTP
		}
	}
	return e
}
