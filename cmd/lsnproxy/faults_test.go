package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lsnproxy/lsnproxy/pgcluster"
)

// event is one thing that is done to a cluster, and to whom.
type event struct {
	*chaos
	leader      *pgcluster.Node
	coordinator *member
	timeline    uint32
	apart       *member       // the proxy to which something is done; the coordinator unless do says otherwise
	later       time.Duration // at random: when the coordinator is hit after the leader
	mend        func() error
}

// deed is what can be done to a cluster.
type deed struct {
	name  string
	fault bool // or else a switchover
	loses bool // the leader
	hosts bool // only where there are hosts
	do    func(context.Context, *event) error
}

var deeds = []deed{
	{name: "switch over", do: switchOver},
	{name: "kill the leader", fault: true, loses: true, do: func(_ context.Context, e *event) error { return e.leader.Kill() }},
	{name: "freeze the leader", fault: true, loses: true, do: func(_ context.Context, e *event) error {
		e.mend = e.leader.Thaw
		return e.leader.Freeze()
	}},
	{name: "cut the leader off", fault: true, loses: true, do: func(_ context.Context, e *event) error { return e.cutOff(e.leader, nil) }},
	{name: "kill the leader and the coordinator", fault: true, loses: true, do: killBoth},
	{name: "freeze the leader and the coordinator", fault: true, loses: true, do: freezeBoth},
	{name: "cut the coordinator off", fault: true, hosts: true, do: func(_ context.Context, e *event) error { return e.cutOff(nil, e.coordinator) }},
	{name: "cut the leader off with a proxy", fault: true, loses: true, hosts: true, do: func(_ context.Context, e *event) error {
		e.apart = e.fleet.members[e.rng.IntN(len(e.fleet.members))]
		return e.cutOff(e.leader, e.apart)
	}},
}

// choose draws a deed. Where something may be lost, the first loses it.
func (c *chaos) choose() deed {
	for {
		d := deeds[c.rng.IntN(len(deeds))]
		if (c.network != nil || !d.hosts) && (!c.async || len(c.faults) > 0 || d.loses) {
			return d
		}
	}
}

func switchOver(ctx context.Context, e *event) error {
	return e.patiently(ctx, time.Minute, func(ctx context.Context) error { // there may be an election
		out, err := exec.CommandContext(ctx, e.fleet.program, "switchover", "--http", e.coordinator.http).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

func killBoth(_ context.Context, e *event) error {
	if err := e.leader.Kill(); err != nil {
		return err
	}
	time.Sleep(e.later)
	_ = e.coordinator.cmd.Process.Kill()
	e.died[reign{e.coordinator.clients, e.timeline}] = true
	<-e.coordinator.ended
	e.mend = func() error { return e.fleet.launch(e.coordinator) }
	return nil
}

func freezeBoth(_ context.Context, e *event) error {
	if err := e.leader.Freeze(); err != nil {
		return err
	}
	time.Sleep(e.later)
	_ = e.coordinator.cmd.Process.Signal(syscall.SIGSTOP)
	e.mend = func() error {
		_ = e.coordinator.cmd.Process.Signal(syscall.SIGCONT)
		return e.leader.Thaw()
	}
	return nil
}

// cutOff has nothing pass between a server and everybody else, or, on hosts, a proxy and
// perhaps a server with it and everybody else.
func (e *event) cutOff(s *pgcluster.Node, m *member) (err error) {
	if e.network == nil {
		s.Network().Blackhole()
		e.mend = s.Network().Heal
		return nil
	}
	e.mend = e.network.Heal
	var inside, outside []*pgcluster.Host
	for _, h := range e.network.Hosts {
		if s != nil && h == s.Host() || m != nil && h == m.host {
			inside = append(inside, h)
		} else {
			outside = append(outside, h)
		}
	}
	for _, h := range inside {
		err = errors.Join(err, h.Cut(outside...))
	}
	return err
}

// stall has the leader send its followers nothing for a moment, so that they lack what
// it writes meanwhile when it is lost.
func (c *chaos) stall(ctx context.Context, leader *pgcluster.Node) error {
	conn, err := pgx.Connect(ctx, leader.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, "SELECT pid FROM pg_stat_replication")
	if err != nil {
		return err
	}
	senders, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return err
	}
	for _, pid := range senders {
		_ = syscall.Kill(pid, syscall.SIGSTOP) // it may have ended
	}
	c.faults[len(c.faults)-1] += " that has sent nothing"
	time.Sleep(time.Duration(c.rng.Int64N(int64(c.timeout))))
	return nil
}
