package main

import (
	"github.com/lsnproxy/lsnproxy/admin"
	"github.com/lsnproxy/lsnproxy/session"
	"github.com/lsnproxy/lsnproxy/topology"
)

// snapshot gathers what the packages say of themselves for admin, which sees
// none of them.
func (p *proxy) snapshot() admin.Snapshot {
	watch := p.watch.Stat()
	sessions := p.server.Stat()
	s := admin.Snapshot{
		Sessions: admin.Sessions{
			Connected: sessions.Connected, Clients: sessions.Clients,
			Replicating: sessions.Replicating, Replications: sessions.Replications,
			Replays: sessions.Replays, Retries: sessions.Retries, Silent: sessions.Silent,
			Waits:      admin.Histogram{Bounds: session.WaitBounds[:], Counts: sessions.WaitTimes, Sum: sessions.Waited},
			WaitsSpent: sessions.WaitsSpent,
			Guards:     sessions.Guards, GuardsShort: sessions.GuardsShort, Probes: sessions.Probes,
			Aligned:        sessions.Aligned,
			OutcomeUnknown: sessions.OutcomeUnknown, LostWrites: sessions.LostWrites, FatesUnknown: sessions.FatesUnknown, StaleAllowed: sessions.StaleAllowed,
			TokensImported: sessions.TokensImported, TokensRefused: sessions.TokensRefused,
			Cancels: sessions.Cancels, Panics: sessions.Panics, Pins: sessions.Pins, Pinned: sessions.Pinned,
		},
		Watch: admin.Watch{
			Timeline: watch.Timeline, Waiting: watch.Waiting, Waits: watch.Waits, Wakeups: watch.Wakeups,
			Nudges: watch.Nudges, NudgeFailures: watch.NudgeFailures,
		},
	}
	if p.stage.Load() != starting && p.failover != nil {
		f := p.failover.Stat()
		s.Changes = admin.Changes{Blocked: f.Coordinates && f.Blocked, Steps: f.Steps, Failures: f.Failures, Leaders: f.Changes}
	}
	leader, now := p.board.View().Leader, topology.Now()
	for i, n := range watch.Nodes {
		s.Nodes = append(s.Nodes, node(&n.Node, leader, now))
		a := &s.Nodes[i]
		a.Writes = sessions.Writes[i]
		a.Samples, a.Failures = n.Samples, n.Failures
	}
	for _, r := range sessions.ReadsBy {
		n := &s.Nodes[r.Node]
		s.Sessions.Reads = append(s.Sessions.Reads, admin.Reads{Node: n.Address, Role: n.Role, Level: r.Level, Reason: r.Why, Count: r.Count})
	}
	for _, f := range sessions.Fallbacks {
		s.Sessions.Fallbacks = append(s.Sessions.Fallbacks, admin.Fallbacks{To: f.To, Reason: f.Why, Count: f.Count})
	}
	for _, r := range watch.Replicas {
		s.Watch.Replicas = append(s.Watch.Replicas, admin.Replica{
			Application: r.Application, Address: r.Address,
			Write: admin.Distance(r.Write), Flush: admin.Distance(r.Flush), Replay: admin.Distance(r.Replay),
		})
	}
	for _, g := range p.pool.Stat() {
		s.Pools = append(s.Pools, admin.Pool{
			Node: g.Address, Database: g.Database, User: g.User,
			Open: g.Open, Idle: g.Idle, Waiting: g.Waiting,
			Opened: g.Opened, Failed: g.Failed, Destroyed: g.Destroyed, TimedOut: g.TimedOut, Lent: g.Lent,
			Waited: g.Waited,
		})
	}
	for _, l := range p.engine.Stat().Loops {
		s.Loops = append(s.Loops, admin.Loop{
			Connections: l.Connections, Tasks: l.Tasks, Runnable: l.Runnable, Buffers: l.Buffers, Courteous: l.Courteous,
			Turns: l.Turns, Wakeups: l.Wakeups, Resumes: l.Resumes, Stalls: l.Stalls, Panics: l.Panics,
		})
	}
	return s
}

func node(n *topology.Node, leader int, now topology.Instant) admin.Node {
	return admin.Node{
		Address: n.Address, Role: n.Role.String(), State: n.State.String(), Leader: n.ID == leader,
		Timeline: n.Position.Timeline, Position: uint64(n.Position.LSN), Received: uint64(n.Received),
		Follows:  n.Role == topology.RoleFollower,
		LagBytes: n.LagBytes, Lag: n.Lag,
		// The lag of a follower is told only while its log is the leader's.
		LagKnown: (n.State == topology.Usable || n.State == topology.Lagging) && n.Lag != topology.LagUnknown,
		AgeKnown: n.Sampled != 0, Age: now.Since(n.Sampled),
	}
}
