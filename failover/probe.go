package failover

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// probe looks at one node, again and again, over a connection of its own.
type probe struct {
	r       *Runner
	address string
	hurry   atomic.Bool
	kick    chan struct{} // one slot: look now

	// Of the goroutine that looks: what deep was told, and where the node was then.
	askedAt lsn.LSN
	replays uint32

	mu struct {
		sync.Mutex
		Node
		answered topology.Instant // when the last answer came; 0: none did
		began    topology.Instant // when it was first looked at
		history  uint32           // the timeline whose history Switched is from
		sync     Sync             // when it last led
		refused  map[Do]refusal
		denial   string           // how the agent beside it denies that it leads; "" if it does not
		denied   topology.Instant // since when it has
	}
}

// refusal is why a node would not let something be done to it. It is tried again
// after a while: rights may have been granted.
type refusal struct {
	why string
	at  topology.Instant
}

// believed is how long a refusal is.
const believed = 10 * time.Second

func newProbe(r *Runner, address string) *probe {
	p := &probe{r: r, address: address, kick: make(chan struct{}, 1)}
	p.mu.Address = address
	p.mu.refused = make(map[Do]refusal)
	return p
}

// node is what the looks have shown so far.
func (p *probe) node() Node {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.mu.Node
	n.Denial, n.Denied = p.mu.denial, p.mu.denied
	n.Refused = make(map[Do]string, len(p.mu.refused))
	now := topology.Now()
	maps.DeleteFunc(p.mu.refused, func(_ Do, why refusal) bool { return now.Since(why.at) > believed })
	for do, why := range p.mu.refused {
		n.Refused[do] = why.why
	}
	return n
}

// refuse notes that something cannot be done to the node.
func (p *probe) refuse(do Do, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.refused[do] = refusal{why, topology.Now()}
}

// forgive forgets what was refused: under another decree something else is asked for. A
// follower may not have been pointed to a leader just because that one was gone.
func (p *probe) forgive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.mu.refused)
}

// sight tells how the node, as the leader, looks from here. Silence before awake does
// not count.
func (p *probe) sight(timeline uint32, now, awake topology.Instant, interval time.Duration) Sight {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Sight{Leader: p.address, Timeline: timeline, Sync: p.mu.sync}
	if p.mu.Timeline == timeline && !p.mu.Follower {
		s.End = p.mu.Received
	}
	since := max(p.mu.answered, p.mu.began, awake)
	if silent := now.Since(since); p.mu.began != 0 && silent > 2*interval {
		s.Silent = silent
	}
	return s
}

// look asks for a look as soon as possible.
func (p *probe) look() {
	select {
	case p.kick <- struct{}{}:
	default: // it has been told already
	}
}

// run looks over one connection after another until ctx ends.
func (p *probe) run(ctx context.Context) {
	p.mu.Lock()
	p.mu.began = topology.Now()
	p.mu.Unlock()
	for ctx.Err() == nil {
		looks, err := p.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		if looks > 1 && !isTimeout(err) {
			continue // it may have been ended by an administrator; try again at once
		}
		p.failed(err)
		p.rest(ctx)
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &e) && e.Timeout()
}

func (p *probe) failed(err error) {
	p.mu.Lock()
	p.mu.Failed = firstLine(err)
	if spoke(err) {
		p.mu.answered = topology.Now()
	}
	p.mu.Streaming, p.mu.Receiving = false, false
	p.mu.Unlock()
	p.tell()
}

// spoke reports whether it was a server at work that refused: one with too many
// connections, for one, is not lost. One that starts or stops (57P01 to 57P03) does not
// take part.
func spoke(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && !strings.HasPrefix(refused.Code, "57P")
}

func firstLine(err error) string {
	var wrapper *pgconn.ConnectError
	if errors.As(err, &wrapper) {
		err = wrapper.Unwrap()
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// tell wakes the runner.
func (p *probe) tell() {
	select {
	case p.r.kick <- struct{}{}:
	default:
	}
}

// watch looks over one connection until it fails, and tells how often.
func (p *probe) watch(ctx context.Context) (looks int, err error) {
	dialing, cancel := context.WithTimeout(ctx, p.r.o.Timeout)
	defer cancel()
	conn, err := p.r.connect(dialing, p.address, "")
	if err != nil {
		return 0, err
	}
	defer closeConn(conn)
	p.askedAt, p.replays = 0, 0 // another server may be there now
	for ; ; looks++ {
		if err := p.once(ctx, conn); err != nil {
			return looks, err
		}
		p.branch(ctx)
		p.tell()
		if !p.rest(ctx) {
			return looks, ctx.Err()
		}
	}
}

// rest pauses until the next look; false when ctx has ended.
func (p *probe) rest(ctx context.Context) bool {
	pause := p.r.interval()
	if p.hurry.Load() {
		pause = min(pause, urgent)
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-p.kick:
	}
	return true
}

// deep is the timeline that a follower without a receiver replays, which may be a newer
// one than any look has shown: its leader may have been lost right after it led it there.
// It is asked for again when the follower has replayed more.
func (p *probe) deep(ctx context.Context, n *Node) uint32 {
	if !n.Receiving && p.askedAt != n.Replayed {
		p.askedAt, p.replays = n.Replayed, p.replayed(ctx)
	}
	return p.replays
}

// replayed asks a follower for the timeline it replays, which only IDENTIFY_SYSTEM
// tells when there is no receiver ("Streaming Replication Protocol" in the manual). 0
// if the login may not replicate.
func (p *probe) replayed(ctx context.Context) uint32 {
	conn, err := p.r.connect(ctx, p.address, "true")
	if err != nil {
		return 0
	}
	defer closeConn(conn)
	results, err := conn.PgConn().Exec(ctx, "IDENTIFY_SYSTEM").ReadAll()
	if err != nil || len(results) == 0 || len(results[0].Rows) == 0 {
		return 0
	}
	timeline, _ := strconv.ParseUint(string(results[0].Rows[0][1]), 10, 32)
	return uint32(timeline)
}

// branch finds out where a leader's timeline began, once.
func (p *probe) branch(ctx context.Context) {
	n := p.node()
	p.mu.Lock()
	known := p.mu.history == n.Timeline
	p.mu.Unlock()
	if n.Follower || n.Timeline < 2 || known {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, p.r.o.Timeout)
	defer cancel()
	end, err := p.r.branched(ctx, p.address, n.Timeline)
	if err != nil {
		p.r.o.Log.Warn("the timeline history cannot be read", "node", p.address, "error", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.history, p.mu.Switched = n.Timeline, end
}

func (r *Runner) branched(ctx context.Context, address string, timeline uint32) (lsn.LSN, error) {
	conn, err := r.connect(ctx, address, "true")
	if err != nil {
		return 0, err
	}
	defer closeConn(conn)
	results, err := conn.PgConn().Exec(ctx, fmt.Sprintf("TIMELINE_HISTORY %d", timeline)).ReadAll()
	if err != nil {
		return 0, err
	}
	if len(results) == 0 || len(results[0].Rows) == 0 {
		return 0, errors.New("no history was sent")
	}
	h, err := lsn.ParseHistory(timeline, results[0].Rows[0][1])
	if err != nil || len(h.Ancestors) == 0 {
		return 0, err
	}
	return h.Ancestors[len(h.Ancestors)-1].End, nil
}

// What follows is asked in two statements, the receiver first: a receiver that is
// gone by then writes nothing after the positions were taken.
const (
	receiverQuery = `SELECT r.pid IS NOT NULL, r.status IS NOT DISTINCT FROM 'streaming',
 COALESCE(r.sender_host, ''), COALESCE(r.sender_port, 0), COALESCE(r.received_tli, 0),
 COALESCE(EXTRACT(EPOCH FROM clock_timestamp() - r.last_msg_receipt_time), 0)::float8,
 CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE') THEN current_setting('primary_conninfo') ELSE '' END,
 current_setting('cluster_name'), current_setting('synchronous_standby_names'),
 CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() OR current_setting('recovery_min_apply_delay') <> '0' ELSE false END,
 COALESCE((SELECT setting = 'on' AND sourcefile LIKE '%/postgresql.auto.conf' FROM pg_settings WHERE name = 'default_transaction_read_only'), false),
 current_setting('primary_slot_name'),
 COALESCE((SELECT array_agg(slot_name::text) FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT active AND restart_lsn IS NOT NULL), '{}')
 FROM (SELECT 1) AS one LEFT JOIN pg_stat_wal_receiver AS r ON true`

	positionQuery = `SELECT follower, system_identifier,
 (CASE WHEN follower THEN (pg_control_checkpoint()).timeline_id
  ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END)::bigint,
 COALESCE(CASE WHEN follower THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0', 0)::bigint,
 COALESCE(CASE WHEN follower THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END - '0/0', 0)::bigint,
 COALESCE((SELECT array_agg(application_name) FILTER (WHERE sync_state IN ('sync', 'quorum')) FROM pg_stat_replication), '{}')
 FROM (SELECT pg_is_in_recovery() AS follower OFFSET 0) AS node, pg_control_system()`
)

// once looks once.
func (p *probe) once(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, p.r.o.Timeout)
	defer cancel()
	n := Node{Address: p.address, Seen: topology.Now()}
	var senderPort int
	var receiverTimeline, timeline, received, replayed, system int64
	var heard float64
	var info, cluster string
	err := conn.QueryRow(ctx, receiverQuery).Scan(&n.Receiving, &n.Streaming, &n.Sender, &senderPort, &receiverTimeline,
		&heard, &info, &cluster, &n.Names, &n.Held, &n.Fenced, &n.Slot, &n.Unused)
	if err != nil {
		return err
	}
	var synchronous []string
	err = conn.QueryRow(ctx, positionQuery).Scan(&n.Follower, &system, &timeline, &received, &replayed, &synchronous)
	if err != nil {
		return err
	}
	n.System = uint64(system) // a bigint that is printed signed
	n.Timeline = uint32(max(timeline, receiverTimeline))
	n.Received, n.Replayed = lsn.LSN(received), lsn.LSN(replayed)
	n.Heard = time.Duration(heard * float64(time.Second))
	if n.Sender != "" {
		n.Sender = net.JoinHostPort(n.Sender, strconv.Itoa(senderPort))
	}
	c, err := parseConninfo(info)
	if err != nil {
		return fmt.Errorf("%s: %w", p.address, err)
	}
	n.Upstream = c.address()
	n.QuietedIn, n.Quieted = c.quieted()
	n.Name = c.get("application_name")
	if n.Name == "" {
		n.Name = cluster
	}
	if n.Name == "" {
		n.Name = "walreceiver"
	}
	if n.Follower {
		n.Received = max(n.Received, n.Replayed)
		n.Timeline = max(n.Timeline, p.deep(ctx, &n))
	}
	p.seen(n, synchronous)
	return nil
}

// seen takes in what a look has shown.
func (p *probe) seen(n Node, synchronous []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := &p.mu.Node
	if was.Seen != 0 && was.System == n.System {
		if n.Follower {
			n.Timeline = max(n.Timeline, was.Timeline) // without a receiver it may show an older one
		}
		n.Still, n.Calm, n.Alone = was.Still, was.Calm, was.Alone
		if !n.Follower && n.Timeline == p.mu.history {
			n.Switched = was.Switched
		}
	}
	if n.Still == 0 || n.Received != was.Received {
		n.Still = n.Seen
	}
	if n.Calm == 0 || n.Replayed != was.Replayed {
		n.Calm = n.Seen
	}
	switch {
	case n.Streaming || !n.Follower:
		n.Alone = 0
	case n.Alone == 0:
		n.Alone = n.Seen
	}
	if !n.Follower {
		p.mu.sync = Sync{Seen: true, Names: n.Names, Now: synchronous}
	}
	p.mu.Node = n
	p.mu.answered = topology.Now()
}

// connect opens a connection to a node. replication is the startup parameter of that
// name.
func (r *Runner) connect(ctx context.Context, address, replication string) (*pgx.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	c, err := pgx.ParseConfig(neutral)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	c.Host, c.Port, c.Fallbacks = host, uint16(number), nil
	c.User, c.Password, c.Database = r.o.User, r.o.Password, r.o.Database
	c.RuntimeParams = map[string]string{"application_name": "lsnproxy-failover", "statement_timeout": "0"}
	if replication != "" {
		c.RuntimeParams["replication"] = replication
	}
	return pgx.ConnectConfig(ctx, c)
}

// neutral is what connect starts from, because pgx insists on a configuration it has
// parsed. It overrules what the environment holds for other clients.
const neutral = `host=/ port=5432 user=x dbname=x passfile=/dev/null sslmode=disable sslcert='' sslkey='' sslrootcert=''
 connect_timeout=0 target_session_attrs=any`

// closeConn closes within a moment, also when the node does not answer.
func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx)
}
