package failover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lsnproxy/lsnproxy/election"
	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// do carries out one step. What a node refuses is noted with the node; the plan goes
// on without it where that is safe.
func (r *Runner) do(ctx context.Context, state *election.State, in *Input, s Step) error {
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	switch s.Do {
	case Decide:
		return r.decide(ctx, state, in, s)
	case Refuse:
		r.answer(errors.New(s.Why))
		return nil
	case Note:
		return r.note(ctx, in)
	}
	p := r.probe(s.Node)
	err := r.act(ctx, p, in, s)
	if err != nil && ctx.Err() == nil && r.hooks.can(s.Do) {
		err = r.hooks.instead(ctx, r.event(s, in), err)
	}
	if err != nil && !isTimeout(err) {
		p.refuse(s.Do, firstLine(err))
	}
	// The server's processes read a new setting one after the other: the one that is asked
	// may not have yet.
	for patience := topology.Now() + topology.Instant(r.o.Timeout/2); ; time.Sleep(time.Millisecond) {
		p.look()
		if late := p.await(ctx, topology.Now()); err != nil || late != nil {
			return errors.Join(err, late)
		}
		n := p.node()
		if !n.ok() || s.shows(&n) {
			return nil
		}
		if topology.Now() > patience { // a setting on the command line, or a hook that takes its time
			p.refuse(s.Do, "it was done and has no effect yet")
			return nil
		}
	}
}

// shows reports whether a node shows that a step was done to it.
func (s *Step) shows(n *Node) bool {
	switch s.Do {
	case Quiet:
		return n.Quieted
	case ReadOnly:
		return n.Fenced
	case Hasten:
		return !n.Held
	case Open:
		return !n.Follower
	case Ready:
		return !n.Fenced && n.Names == s.To
	case Point:
		return n.Upstream == s.To
	case Unslot:
		return !slices.Contains(n.Unused, s.To)
	default:
		return true
	}
}

// await waits until the node was looked at once more, so that the next decision knows
// what the last step did.
func (p *probe) await(ctx context.Context, since topology.Instant) error {
	for {
		n := p.node()
		if n.Seen >= since || n.Failed != "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func (r *Runner) probe(address string) *probe {
	for _, p := range r.probes {
		if p.address == address {
			return p
		}
	}
	return nil
}

// act does one step to one node.
func (r *Runner) act(ctx context.Context, p *probe, in *Input, s Step) error {
	return r.with(ctx, s.Node, func(conn *pgx.Conn) error {
		switch s.Do {
		case Quiet:
			return redirect(ctx, conn, func(c conninfo) (conninfo, error) { return c.at(quietedIn(in.Decree.Epoch), ""), nil })
		case Point:
			if err := r.slot(ctx, conn, s.To); err != nil {
				return err
			}
			return redirect(ctx, conn, func(c conninfo) (conninfo, error) { return c.to(s.To) })
		case ReadOnly:
			return readOnly(ctx, conn, in.Decree.Leader != "")
		case MarkEnd:
			end, err := mark(ctx, conn)
			r.mark = end
			return err
		case Unslot:
			_, err := conn.Exec(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active", s.To)
			return err
		case Hasten:
			return hasten(ctx, conn)
		case Open:
			return open(ctx, conn, in.Decree.Epoch, in.node(s.Node))
		case Ready:
			return ready(ctx, conn, s.To)
		default:
			return fmt.Errorf("nobody knows how to %v", s.Do)
		}
	})
}

// with calls f with a connection of its own.
func (r *Runner) with(ctx context.Context, address string, f func(*pgx.Conn) error) error {
	conn, err := r.connect(ctx, address, "")
	if err != nil {
		return err
	}
	defer closeConn(conn)
	return f(conn)
}

// redirect changes where a follower receives from. All else that primary_conninfo
// says is kept.
func redirect(ctx context.Context, conn *pgx.Conn, change func(conninfo) (conninfo, error)) error {
	var text string
	if err := conn.QueryRow(ctx, "SELECT current_setting('primary_conninfo')").Scan(&text); err != nil {
		return err
	}
	c, err := parseConninfo(text)
	if err != nil {
		return err
	}
	if c, err = change(c); err != nil {
		return err
	}
	if c.String() == text {
		return nil
	}
	return set(ctx, conn, "primary_conninfo", c.String())
}

// set changes a setting for good and waits until the server has read it. A nil value
// takes back what ALTER SYSTEM has set.
func set(ctx context.Context, conn *pgx.Conn, name string, value any) error {
	statement := "ALTER SYSTEM RESET " + name
	if value != nil {
		quoted, err := conn.PgConn().EscapeString(value.(string))
		if err != nil {
			return err
		}
		statement = "ALTER SYSTEM SET " + name + " = '" + quoted + "'"
	}
	if _, err := conn.Exec(ctx, statement); err != nil {
		return err
	}
	return reload(ctx, conn)
}

// reload has the server read its configuration, and waits until it has: the
// postmaster reads first, and then tells its children, of which conn's backend is one.
func reload(ctx context.Context, conn *pgx.Conn) error {
	var before time.Time
	if err := conn.QueryRow(ctx, "SELECT pg_conf_load_time()").Scan(&before); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	return until(ctx, conn, "SELECT pg_conf_load_time() > $1", before)
}

// until asks the yes-or-no question sql every few milliseconds until the answer is yes.
func until(ctx context.Context, conn *pgx.Conn, sql string, args ...any) error {
	for {
		var yes bool
		if err := conn.QueryRow(ctx, sql, args...).Scan(&yes); err != nil || yes {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(3 * time.Millisecond):
		}
	}
}

// slot makes the replication slot on the leader that the follower of conn asks for.
func (r *Runner) slot(ctx context.Context, conn *pgx.Conn, leader string) error {
	var name string
	if err := conn.QueryRow(ctx, "SELECT current_setting('primary_slot_name')").Scan(&name); err != nil || name == "" {
		return err
	}
	return r.with(ctx, leader, func(conn *pgx.Conn) error { return makeSlot(ctx, conn, name) })
}

// makeSlot makes a physical replication slot unless there is one.
func makeSlot(ctx context.Context, conn *pgx.Conn, name string) error {
	var exists bool
	err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)", name).Scan(&exists)
	if err == nil && !exists {
		_, err = conn.Exec(ctx, "SELECT pg_create_physical_replication_slot($1)", name)
	}
	return err
}

// readOnly has an old leader begin its transactions read-only. It is a hedge, no wall: a
// client may still ask for READ WRITE. Sessions are ended once another node leads: in a
// switchover they are the proxies', which have nothing to write any more.
func readOnly(ctx context.Context, conn *pgx.Conn, end bool) error {
	if err := set(ctx, conn, "default_transaction_read_only", "on"); err != nil || !end {
		return err
	}
	_, err := conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name NOT LIKE 'lsnproxy-%'`)
	return err
}

// mark has the leader write and flush one record more and tells where it ends: behind
// all that was ever acknowledged. The commit of a transaction that has written flushes
// everything before it.
func mark(ctx context.Context, conn *pgx.Conn) (end lsn.LSN, err error) {
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{AccessMode: pgx.ReadWrite}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL synchronous_commit = local"); err != nil {
			return err
		}
		var text string
		if err := tx.QueryRow(ctx, "SELECT pg_logical_emit_message(true, '', '')::text").Scan(&text); err != nil {
			return err
		}
		end, err = lsn.Parse(text)
		return err
	})
	return end, err
}

// hasten has a follower replay what it receives at once.
func hasten(ctx context.Context, conn *pgx.Conn) error {
	var paused, delayed bool
	err := conn.QueryRow(ctx, `SELECT pg_is_wal_replay_paused(), current_setting('recovery_min_apply_delay') <> '0'`).Scan(&paused, &delayed)
	if err != nil {
		return err
	}
	if paused {
		if _, err := conn.Exec(ctx, "SELECT pg_wal_replay_resume()"); err != nil {
			return err
		}
	}
	if delayed {
		return set(ctx, conn, "recovery_min_apply_delay", "0")
	}
	return nil
}

// open promotes a follower and waits until it accepts writes. PostgreSQL replays all
// that was received first.
//
// This may come late: the process was frozen, or the network slow, and another
// coordinator has gone on meanwhile. So one statement promotes, and only if nobody has
// done anything to the node since it was quieted in this epoch; or, if it cannot be
// quieted, if it has replayed nothing since it was looked at, as it would have from
// another leader. Otherwise nothing happens, and the next look shows why.
func open(ctx context.Context, conn *pgx.Conn, epoch uint64, n *Node) error {
	statement, arg := "SELECT pg_promote(false) WHERE strpos(current_setting('primary_conninfo'), $1) > 0", "host='"+quietedIn(epoch)+"'"
	if n.Refused[Quiet] != "" {
		statement, arg = "SELECT pg_promote(false) WHERE pg_last_wal_replay_lsn() = $1::text::pg_lsn", n.Replayed.String()
	}
	tag, err := conn.Exec(ctx, statement, arg)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "55000" {
		err = nil // recovery is not in progress: it was promoted already
	}
	if err != nil || refused == nil && tag.RowsAffected() == 0 {
		return err
	}
	return until(ctx, conn, "SELECT NOT pg_is_in_recovery()")
}

// ready makes a promoted node fit to lead.
func ready(ctx context.Context, conn *pgx.Conn, names string) error {
	var now string
	if err := conn.QueryRow(ctx, "SELECT current_setting('synchronous_standby_names')").Scan(&now); err != nil {
		return err
	}
	if now != names {
		if err := set(ctx, conn, "synchronous_standby_names", names); err != nil {
			return err
		}
	}
	return set(ctx, conn, "default_transaction_read_only", nil)
}

// decide has a decree recorded.
func (r *Runner) decide(ctx context.Context, state *election.State, in *Input, s Step) error {
	d := election.Decree{Epoch: s.Decree.Epoch, SystemID: s.Decree.System, Leader: s.Decree.Leader, Timeline: s.Decree.Timeline}
	if s.Decree.Change != nil {
		text, err := json.Marshal(s.Decree.Change)
		if err != nil {
			return err
		}
		d.Plan = text
	}
	if err := r.decider.Decide(ctx, state.Decree, d); err != nil {
		return err
	}
	if d.Leader != "" && d.Leader != in.Decree.Leader {
		r.outcome = s.Why
		r.counts.changes.Add(1)
		r.o.Log.Info("leader decreed", "node", d.Leader, "timeline", d.Timeline, "epoch", d.Epoch)
	}
	return nil
}
