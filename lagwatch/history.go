package lagwatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// past reads the timeline history of a leader, once for each timeline.
type past struct {
	n    *node
	link *link // the one the leader is sampled over

	known lsn.History
	tried topology.Instant // when it was last tried in vain; 0: it was not
}

// retryHistory is the pause after a history could not be read.
const retryHistory = time.Second

// of returns the history of timeline. If it cannot be read, the history comes
// without ancestors (it is not Known), nothing can be said about positions on
// older timelines, and it is tried again later.
func (p *past) of(ctx context.Context, timeline uint32) lsn.History {
	if p.known.Timeline == timeline && p.known.Known() {
		return p.known
	}
	if p.known.Timeline != timeline {
		p.known, p.tried = lsn.History{Timeline: timeline}, 0
	}
	if timeline == 1 || p.tried != 0 && topology.Now().Since(p.tried) < retryHistory {
		return p.known
	}
	h, err := p.read(ctx, timeline)
	if err == nil {
		p.known = h
		return h
	}
	if p.tried == 0 {
		p.n.w.o.Log.Warn("timeline history cannot be read: positions on older timelines count as lost; "+
			"the monitoring login needs REPLICATION or EXECUTE on pg_read_file(text)",
			"node", p.n.address, "timeline", timeline, "why", err.Error())
	}
	p.tried = topology.Now()
	return p.known
}

// read asks for the history file with the replication command made for it, and
// where that is not allowed, from the file itself.
func (p *past) read(ctx context.Context, timeline uint32) (lsn.History, error) {
	var text string
	var err error
	p.n.task.Offload(func() { text, err = p.overReplication(ctx, timeline) })
	if err != nil {
		row, err2 := p.link.query(fmt.Sprintf("SELECT pg_read_file('pg_wal/%08X.history')", timeline))
		if err2 != nil {
			return lsn.History{}, errors.Join(err, err2)
		}
		if len(row) != 1 {
			return lsn.History{}, errors.Join(err, errors.New("pg_read_file: no row"))
		}
		text = row[0]
	}
	return lsn.ParseHistory(timeline, []byte(text))
}

// overReplication uses a replication connection of the kind that is bound to a
// database: the entry in pg_hba.conf that lets the watcher in lets it in too.
func (p *past) overReplication(ctx context.Context, timeline uint32) (string, error) {
	l, err := dial(ctx, p.n.address, &p.n.w.o, map[string]string{"replication": "database"})
	if err != nil {
		return "", err
	}
	defer l.close()
	defer l.until(ctx)()
	row, err := l.query(fmt.Sprintf("TIMELINE_HISTORY %d", timeline))
	if err != nil {
		return "", err
	}
	if len(row) != 2 {
		return "", fmt.Errorf("TIMELINE_HISTORY: %d columns", len(row))
	}
	return row[1], nil // the file's name and its text
}
