package failover

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lsnproxy/lsnproxy/election"
	"github.com/lsnproxy/lsnproxy/topology"
)

// schema is the record. It is kept on the leader, and so on every follower.
var schema = []string{
	`CREATE SCHEMA IF NOT EXISTS lsnproxy`,
	`CREATE TABLE IF NOT EXISTS lsnproxy.replication_node (
 id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
 role text NOT NULL CHECK (role IN ('leader', 'follower', 'unknown')),
 address text NOT NULL UNIQUE CHECK (address <> ''),
 apply_lsn pg_lsn,
 last_heartbeat_at timestamptz)`,
	`CREATE UNIQUE INDEX IF NOT EXISTS replication_node_leader ON lsnproxy.replication_node (role) WHERE role = 'leader'`,
	`CREATE INDEX IF NOT EXISTS replication_node_heartbeat ON lsnproxy.replication_node (last_heartbeat_at)`,
	`CREATE TABLE IF NOT EXISTS lsnproxy.leader_lease (
 epoch bigint PRIMARY KEY CHECK (epoch > 0),
 leader_id integer NOT NULL REFERENCES lsnproxy.replication_node (id),
 lease_granted_at timestamptz NOT NULL,
 lease_expires_at timestamptz NOT NULL,
 CHECK (lease_expires_at > lease_granted_at))`,
	`CREATE INDEX IF NOT EXISTS leader_lease_leader ON lsnproxy.leader_lease (leader_id, lease_expires_at)`,
	`CREATE TABLE IF NOT EXISTS lsnproxy.failover_log (
 id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
 epoch bigint NOT NULL CHECK (epoch > 0),
 old_leader_id integer REFERENCES lsnproxy.replication_node (id),
 new_leader_id integer NOT NULL REFERENCES lsnproxy.replication_node (id),
 trigger text NOT NULL CHECK (trigger IN ('failover', 'switchover', 'observed', 'returned')),
 promoted_at timestamptz NOT NULL,
 lag_at_promotion bigint NOT NULL CHECK (lag_at_promotion >= 0),
 UNIQUE (new_leader_id, promoted_at))`,
	`CREATE INDEX IF NOT EXISTS failover_log_promoted ON lsnproxy.failover_log (promoted_at)`,
}

// note writes the record of the change that is over, in the replicated decrees and in
// the database. A database that will not have it does not hold anything up.
func (r *Runner) note(ctx context.Context, in *Input) error {
	c := in.Decree.Change
	f := election.Failover{
		Epoch: in.Decree.Epoch, Old: c.Old, New: in.Decree.Leader, Trigger: string(c.Trigger), Timeline: in.Decree.Timeline,
		Began: time.UnixMilli(c.Began), PromotedAt: time.UnixMilli(c.Promoted), LostAtMost: c.Lost,
		From: c.Timeline, Branch: c.Position,
	}
	if n := in.node(in.Decree.Leader); n != nil && n.Switched != 0 {
		f.Branch = n.Switched
	}
	err := r.decider.Record(ctx, f)
	if err != nil {
		return err
	}
	r.recorded = true
	if r.o.NoRecord {
		return nil
	}
	r.keeper.close()
	err = r.with(ctx, in.Decree.Leader, func(conn *pgx.Conn) error {
		return r.write(ctx, conn, in, r.decider.State().Failovers)
	})
	if err != nil {
		r.o.Log.Warn("the record cannot be written into the database", "node", in.Decree.Leader, "error", err)
	}
	return nil
}

// amend raises what was lost at most in changes that are over, when a proxy that was
// cut off meanwhile tells that it has acknowledged more.
func (r *Runner) amend(ctx context.Context, state *election.State, in *Input) {
	for _, f := range state.Failovers {
		lost := distance(in.acked(f.From), f.Branch)
		if f.Timeline == f.From || lost <= f.LostAtMost {
			continue
		}
		r.o.Log.Warn("failover: more was lost than the record says", "epoch", f.Epoch, "bytes", lost, "recorded", f.LostAtMost)
		f.LostAtMost = lost
		ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
		err := r.decider.Record(ctx, f)
		cancel()
		if err != nil {
			r.o.Log.Warn("failover: the record cannot be amended", "epoch", f.Epoch, "error", err)
			return
		}
		r.keeper.close() // which writes all of the log anew
	}
}

// write brings the record up to date in one transaction that nobody waits for.
func (r *Runner) write(ctx context.Context, conn *pgx.Conn, in *Input, log []election.Failover) error {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadWrite})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after Commit it does nothing
	if _, err := tx.Exec(ctx, "SET LOCAL synchronous_commit = off"); err != nil {
		return err
	}
	var exists bool
	if err := tx.QueryRow(ctx, "SELECT to_regclass('lsnproxy.failover_log') IS NOT NULL").Scan(&exists); err != nil {
		return err
	}
	for _, statement := range schema {
		if exists {
			break
		}
		if _, err := tx.Exec(ctx, statement); err != nil {
			return err
		}
	}
	// First nobody leads, because only one may at any moment.
	if _, err := tx.Exec(ctx, "UPDATE lsnproxy.replication_node SET role = 'unknown' WHERE role = 'leader' AND address <> $1", in.Decree.Leader); err != nil {
		return err
	}
	for _, n := range in.Nodes {
		if err := writeNode(ctx, tx, in, &n); err != nil {
			return err
		}
	}
	_, err = tx.Exec(ctx, `INSERT INTO lsnproxy.leader_lease (epoch, leader_id, lease_granted_at, lease_expires_at)
 SELECT $1, id, now(), now() + $3 * interval '1 millisecond' FROM lsnproxy.replication_node WHERE address = $2
 ON CONFLICT (epoch) DO UPDATE SET leader_id = excluded.leader_id, lease_expires_at = excluded.lease_expires_at`,
		int64(in.Decree.Epoch), in.Decree.Leader, (2 * recordEvery).Milliseconds())
	if err != nil {
		return err
	}
	for _, f := range log {
		// A node that has been taken from the configuration is not among the others.
		_, err = tx.Exec(ctx, `INSERT INTO lsnproxy.replication_node (role, address)
 SELECT 'unknown', a FROM unnest(ARRAY[$1, $2]) AS a WHERE a <> '' AND NOT EXISTS (SELECT FROM lsnproxy.replication_node WHERE address = a)`, f.Old, f.New)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO lsnproxy.failover_log (epoch, old_leader_id, new_leader_id, trigger, promoted_at, lag_at_promotion)
 SELECT $1, (SELECT id FROM lsnproxy.replication_node WHERE address = $2), id, $4, $5, $6
 FROM lsnproxy.replication_node WHERE address = $3
 ON CONFLICT (new_leader_id, promoted_at) DO UPDATE SET lag_at_promotion = excluded.lag_at_promotion
 WHERE failover_log.lag_at_promotion < excluded.lag_at_promotion`,
			int64(f.Epoch), f.Old, f.New, f.Trigger, f.PromotedAt, int64(f.LostAtMost))
		if err != nil {
			return err
		}
	}
	return tx.Commit(ctx)
}

func writeNode(ctx context.Context, tx pgx.Tx, in *Input, n *Node) error {
	role := "unknown"
	switch {
	case n.Address == in.Decree.Leader:
		role = "leader"
	case n.ok() && n.Follower:
		role = "follower"
	}
	var at, heard any
	if n.Seen != 0 {
		at = n.Replayed.String()
		heard = time.Now().Add(-topology.Now().Since(n.Seen))
	}
	_, err := tx.Exec(ctx, `INSERT INTO lsnproxy.replication_node (role, address, apply_lsn, last_heartbeat_at)
 VALUES ($1, $2, $3::text::pg_lsn, $4)
 ON CONFLICT (address) DO UPDATE SET role = excluded.role, apply_lsn = excluded.apply_lsn, last_heartbeat_at = excluded.last_heartbeat_at`,
		role, n.Address, at, heard)
	return err
}

// recordEvery is the pause between two entries of how the nodes are.
const recordEvery = 10 * time.Second

// keeper keeps the record up to date while nothing else is going on, over a connection
// of its own.
type keeper struct {
	r       *Runner
	conn    *pgx.Conn
	address string
	next    time.Time
}

// tend writes the nodes down now and then. Errors are told once for each leader.
func (k *keeper) tend(ctx context.Context, in *Input) {
	if k.r.o.NoRecord || in.Mode != Promote || time.Now().Before(k.next) {
		return
	}
	k.next = time.Now().Add(recordEvery)
	ctx, cancel := context.WithTimeout(ctx, k.r.interval())
	defer cancel()
	if err := k.try(ctx, in); err != nil {
		k.close()
		k.next = time.Now().Add(recordEvery)
		k.r.o.Log.Warn("the record cannot be written into the database", "node", in.Decree.Leader, "error", err)
	}
}

func (k *keeper) try(ctx context.Context, in *Input) error {
	var log []election.Failover // once for each connection: an entry may have failed before
	if k.conn == nil || k.address != in.Decree.Leader {
		k.close()
		conn, err := k.r.connect(ctx, in.Decree.Leader, "")
		if err != nil {
			return err
		}
		k.conn, k.address, log = conn, in.Decree.Leader, k.r.decider.State().Failovers
	}
	if k.conn.IsClosed() {
		return errors.New("the connection is gone")
	}
	return k.r.write(ctx, k.conn, in, log)
}

func (k *keeper) close() {
	if k.conn != nil {
		closeConn(k.conn)
		k.conn = nil
	}
	k.next = time.Time{}
}
