package pgcluster

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// withConn calls f with a connection of its own, straight to the server, past
// any Link. what names the action in the error.
func (n *Node) withConn(ctx context.Context, what string, f func(*pgx.Conn) error) error {
	// Said explicitly what a PG variable in the environment might say otherwise.
	conn, err := pgx.Connect(ctx, url(n.ServerAddr(), superuser)+"&target_session_attrs=any")
	if err == nil {
		err = f(conn)
		_ = conn.Close(context.WithoutCancel(ctx))
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, n.name, err)
	}
	return nil
}

// until asks the yes-or-no question sql every few milliseconds until the answer is yes.
func until(ctx context.Context, conn *pgx.Conn, sql string, args ...any) error {
	for {
		var yes bool
		if err := conn.QueryRow(ctx, sql, args...).Scan(&yes); err != nil || yes {
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// pause waits a few milliseconds.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(5 * time.Millisecond):
		return nil
	}
}

// leads returns the timeline the node writes on, or 0 if it follows or does not
// answer. The name of the log file being written tells the timeline at once
// after a promotion, which pg_control_checkpoint() does not.
func (n *Node) leads(ctx context.Context) uint32 {
	var file string
	err := n.withConn(ctx, "ask", func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT CASE WHEN pg_is_in_recovery() THEN ''
			ELSE pg_walfile_name(pg_current_wal_insert_lsn()) END`).Scan(&file)
	})
	if err != nil || len(file) < 8 {
		return 0
	}
	timeline, _ := strconv.ParseUint(file[:8], 16, 32) // a server writes hexadecimal digits there
	return uint32(timeline)
}

// makeSlots makes a replication slot for every other node, so that any of them
// may follow this one. A slot keeps no log until it was used.
func (n *Node) makeSlots(ctx context.Context) error {
	return n.withConn(ctx, "make slots on", func(conn *pgx.Conn) error {
		for _, other := range n.cluster.nodes {
			if other == n {
				continue
			}
			if _, err := conn.Exec(ctx, "SELECT pg_create_physical_replication_slot($1)", other.name); err != nil {
				return err
			}
		}
		return nil
	})
}

// PauseReplay stops a follower from applying what it receives, and waits until
// it has stopped.
func (n *Node) PauseReplay(ctx context.Context) error {
	return n.withConn(ctx, "pause replay on", func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "SELECT pg_wal_replay_pause()"); err != nil {
			return err
		}
		return until(ctx, conn, "SELECT pg_get_wal_replay_pause_state() = 'paused'")
	})
}

// ResumeReplay ends PauseReplay.
func (n *Node) ResumeReplay(ctx context.Context) error {
	return n.withConn(ctx, "resume replay on", func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SELECT pg_wal_replay_resume()")
		return err
	})
}

// Hush keeps a leader from writing log by itself until goOn is called: its background
// writer logs every 15 seconds which transactions run (LogStandbySnapshot in
// PostgreSQL's bgwriter.c), and no setting has it not do so. The server does not stop
// before goOn is called, unless it is killed.
func (n *Node) Hush(ctx context.Context) (goOn func(), err error) {
	var pid int
	err = n.withConn(ctx, "hush", func(conn *pgx.Conn) error {
		const writer = "FROM pg_stat_activity WHERE backend_type = 'background writer'"
		if err := until(ctx, conn, "SELECT EXISTS (SELECT "+writer+")"); err != nil {
			return err
		}
		if err := conn.QueryRow(ctx, "SELECT pid "+writer).Scan(&pid); err != nil {
			return err
		}
		return syscall.Kill(pid, syscall.SIGSTOP)
	})
	return func() { _ = syscall.Kill(pid, syscall.SIGCONT) }, err // it may have ended
}

// SetApplyDelay makes a follower apply each commit d after the leader made it,
// in steps of a millisecond.
func (n *Node) SetApplyDelay(ctx context.Context, d time.Duration) error {
	return n.Set(ctx, "recovery_min_apply_delay", milliseconds(d))
}

// Set changes a setting for good (ALTER SYSTEM) and has the server read it.
// A setting that is fixed at server start takes effect at the next. The value is
// one string: of a list of names, such as search_path, it can be only one.
func (n *Node) Set(ctx context.Context, name, value string) error {
	return n.withConn(ctx, "set "+name+" on", func(conn *pgx.Conn) error {
		quoted := "'" + strings.ReplaceAll(value, "'", "''") + "'"
		// A custom setting's name has two parts, each an identifier.
		identifier := pgx.Identifier(strings.Split(name, ".")).Sanitize()
		if _, err := conn.Exec(ctx, "ALTER SYSTEM SET "+identifier+" = "+quoted); err != nil {
			return err
		}
		return reload(ctx, conn)
	})
}

// Reload has the server read its configuration files, and waits until it has:
// connections opened from then on know them, running processes a moment later.
func (n *Node) Reload(ctx context.Context) error {
	return n.withConn(ctx, "reload", func(conn *pgx.Conn) error { return reload(ctx, conn) })
}

func reload(ctx context.Context, conn *pgx.Conn) error {
	var before time.Time
	if err := conn.QueryRow(ctx, "SELECT pg_conf_load_time()").Scan(&before); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	// The postmaster reads first, and then tells its children, of which conn's
	// backend is one.
	return until(ctx, conn, "SELECT pg_conf_load_time() > $1", before)
}

// Promote makes a follower a leader of a new timeline, and waits until it
// accepts writes. The other followers stay with the old leader; see Follow.
func (n *Node) Promote(ctx context.Context) error {
	return n.withConn(ctx, "promote", func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "SELECT pg_promote(false)"); err != nil {
			return err
		}
		return until(ctx, conn, "SELECT NOT pg_is_in_recovery()")
	})
}

// Follow makes a follower stream from another leader from now on. It does not
// wait: a follower that was ahead of the point where the leader's timeline
// began will never stream from it.
func (n *Node) Follow(ctx context.Context, leader *Node) error {
	return n.Set(ctx, "primary_conninfo", n.conninfo(leader))
}

// WaitStreaming waits until every follower, running or not, streams from the
// leader and has replayed what the leader has written up to now. It writes an
// empty logical message on the leader.
func (c *Cluster) WaitStreaming(ctx context.Context) error {
	leader := c.Leader()
	var position string
	err := leader.withConn(ctx, "ask", func(conn *pgx.Conn) error {
		// Its commit flushes all that was written before; without it the last
		// bytes of a quiet leader would be sent many seconds later.
		return conn.QueryRow(ctx, "SELECT pg_logical_emit_message(true, '', '')::text").Scan(&position)
	})
	if err != nil {
		return err
	}
	return c.awaitStreaming(ctx, leader, position)
}

// awaitStreaming waits until every node but the leader streams from it and has
// replayed position. The leader's view is never ahead of what a follower did.
func (c *Cluster) awaitStreaming(ctx context.Context, leader *Node, position string) error {
	return leader.withConn(ctx, "wait for the followers of", func(conn *pgx.Conn) error {
		for _, n := range c.nodes {
			if n == leader {
				continue
			}
			err := until(ctx, conn, `SELECT coalesce(bool_or(state = 'streaming' AND replay_lsn >= $2::text::pg_lsn), false)
				FROM pg_stat_replication WHERE application_name = $1`, n.name, position)
			if err != nil {
				return fmt.Errorf("%s does not stream, or has not replayed %s: %w", n.name, position, err)
			}
		}
		return nil
	})
}
