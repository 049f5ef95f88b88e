package lagwatch

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lsnproxy/lsnproxy/topology"
)

// Replica is a standby or a subscriber as the leader sees it, in its
// pg_stat_replication. It is for metrics only: nothing is decided by it.
type Replica struct {
	Application string // application_name of its connection: by default the standby's cluster_name, or walreceiver
	Address     string // it connects from; "" for a Unix socket

	// How much of what the leader has written it has not written, flushed and
	// replayed; and how long the latest that it has took to be.
	Write, Flush, Replay Distance
}

// Distance is one of a replica's lags.
type Distance struct {
	Bytes uint64
	Time  time.Duration // negative: not known; PostgreSQL forgets it when there is nothing to send
}

const survey = `SELECT application_name, COALESCE(host(client_addr), ''),
 pg_wal_lsn_diff(pg_current_wal_lsn(), write_lsn), extract(epoch FROM write_lag),
 pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn), extract(epoch FROM flush_lag),
 pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), extract(epoch FROM replay_lag)
 FROM pg_stat_replication WHERE replay_lsn IS NOT NULL ORDER BY 1, 2`

const surveyColumns = 8

// How often the leader is asked for its replicas: as often as this when nobody
// waits for a sample, and for certain after the longer time.
const (
	surveyEvery  = time.Second
	surveyAtMost = 10 * time.Second
)

// survey asks the node for its replicas, if it leads and it is time.
func (n *node) survey(l *link) error {
	now := topology.Now()
	if n.w.board.View().Leader != n.id {
		n.replicas.Store(nil)
		return nil
	}
	since := now.Since(n.surveyed)
	if n.surveyed != 0 && (since < surveyEvery || since < surveyAtMost && n.pressed()) {
		return nil
	}
	n.surveyed = now
	rows, err := l.rows(survey)
	if refused := (*pgconn.PgError)(nil); errors.As(err, &refused) {
		rows, err = nil, nil // the next sample tells whether more is wrong
	}
	replicas := make([]Replica, 0, len(rows))
	for _, row := range rows {
		if len(row) != surveyColumns {
			return fmt.Errorf("replicas: got %d columns", len(row))
		}
		r := Replica{Application: row[0], Address: row[1], Write: distance(row[2:]), Flush: distance(row[4:]), Replay: distance(row[6:])}
		if last := len(replicas) - 1; last >= 0 && replicas[last].Application == r.Application && replicas[last].Address == r.Address {
			replicas[last].worsen(&r) // nothing tells them apart for longer than a connection lives
			continue
		}
		replicas = append(replicas, r)
	}
	n.replicas.Store(&replicas)
	return err
}

// distance reads two columns.
func distance(columns []string) Distance {
	d := Distance{Time: -1}
	if bytes, err := strconv.ParseFloat(columns[0], 64); err == nil {
		d.Bytes = uint64(max(bytes, 0))
	}
	if seconds, err := strconv.ParseFloat(columns[1], 64); err == nil {
		d.Time = time.Duration(seconds * float64(time.Second))
	}
	return d
}

// worsen makes r as far behind as the further of two.
func (r *Replica) worsen(o *Replica) {
	for _, pair := range [...][2]*Distance{{&r.Write, &o.Write}, {&r.Flush, &o.Flush}, {&r.Replay, &o.Replay}} {
		pair[0].Bytes = max(pair[0].Bytes, pair[1].Bytes)
		pair[0].Time = max(pair[0].Time, pair[1].Time)
	}
}
