package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/lsnproxy/lsnproxy/admin"
	"github.com/lsnproxy/lsnproxy/failover"
	"github.com/lsnproxy/lsnproxy/pgcluster"
)

// attendant does in the demo what somebody on the servers' hosts has to do elsewhere:
// it makes a server that has been replaced as the leader, or has diverged, or was
// killed, a follower of the present leader.
type attendant struct {
	cluster *pgcluster.Cluster
	status  func(context.Context) (admin.Status, error)
	log     *slog.Logger
	led     time.Time      // when there was a leader last
	strayed map[string]int // looks in a row that have shown a node as one that has to rejoin

	cancel context.CancelFunc
	done   sync.WaitGroup
}

// start begins. The goroutine ends with stop, which waits for it.
func (a *attendant) start() {
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel, a.led, a.strayed = cancel, time.Now(), make(map[string]int)
	a.done.Go(func() {
		for ctx.Err() == nil {
			a.look(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
}

func (a *attendant) stop() {
	a.cancel()
	a.done.Wait()
}

// look finds who has to rejoin whom.
func (a *attendant) look(ctx context.Context) {
	s, err := a.status(ctx)
	if err != nil || s.Cluster == nil || len(s.Cluster.Decree.Plan) > 0 && s.Cluster.Decree.Leader != "" {
		return
	}
	nodes := a.cluster.Nodes()
	i := slices.IndexFunc(nodes, func(n *pgcluster.Node) bool { return n.Addr() == s.Cluster.Decree.Leader })
	if i < 0 || !nodes[i].Running() {
		a.revive(ctx, nodes) // a killed leader is replaced first
		return
	}
	a.led = time.Now()
	for _, n := range s.Nodes {
		j := slices.IndexFunc(nodes, func(o *pgcluster.Node) bool { return o.Addr() == n.Address })
		if j < 0 || j == i || nodes[j].Running() && !a.strays(n) {
			continue
		}
		if err := a.rejoin(ctx, nodes[j], nodes[i]); err != nil && ctx.Err() == nil {
			a.log.Warn("demo: a server cannot rejoin", "node", n.Address, "error", err)
		}
	}
}

// strays reports whether a node has to rejoin. A follower that is being repointed may
// look like that for a moment.
func (a *attendant) strays(n admin.NodeStatus) bool {
	if n.State != "superseded" && n.State != "diverged" {
		delete(a.strayed, n.Address)
		return false
	}
	a.strayed[n.Address]++
	return a.strayed[n.Address] > 5
}

// revive starts what has been killed when nobody could take over in time.
func (a *attendant) revive(ctx context.Context, nodes []*pgcluster.Node) {
	const patience = 15 * time.Second
	if time.Since(a.led) < patience {
		return
	}
	for _, n := range nodes {
		if n.Running() {
			continue
		}
		if err := n.Start(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("demo: a server cannot be started", "node", n.Addr(), "error", err)
		}
	}
}

func (a *attendant) rejoin(ctx context.Context, n, leader *pgcluster.Node) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r := failover.Rejoin{
		Data: n.DataDir(), Source: leader.URL("postgres"), Bin: filepath.Dir(a.cluster.Program("postgres")),
		Slot: n.Name(), Log: a.log, Command: n.Command,
	}
	if n.Running() {
		if err := n.Stop(pgcluster.Fast); err != nil {
			return err
		}
	}
	if err := r.Run(ctx); err != nil {
		return err
	}
	err := n.Start(ctx)
	if err != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	if err == nil {
		a.log.Info("demo: a server has rejoined", "node", n.Addr(), "leader", leader.Addr())
	}
	return err
}
