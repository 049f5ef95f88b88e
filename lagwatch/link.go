package lagwatch

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/topology"
)

// link is one connection of the watcher's own. pgconn opens and authenticates
// it; from then on it is taken over, because a sample is three messages out and
// one row back, several thousand times a second while somebody waits.
//
// All but close belong to one goroutine.
type link struct {
	conn    net.Conn      // TLS around socket, or socket
	socket  *socket       // what is below
	raw     *reactor.Conn // in socket, once attached
	ctx     context.Context
	front   *pgproto3.Frontend
	timeout time.Duration // for one round trip
	opened  topology.Instant
	blind   bool // the login may not see a follower's timeline

	question []byte // that is answered with a sample
}

// socket is a connection that can be moved to an event loop, with TLS on it.
type socket struct{ net.Conn }

// attach moves the link to a loop, from a goroutine: from then on its methods are
// for the tasks of that loop.
func (l *link) attach(loop *reactor.Loop) error {
	fd, err := reactor.Take(l.socket.Conn)
	if err != nil {
		return err
	}
	if l.raw, err = loop.Adopt(fd); err != nil {
		return err
	}
	l.socket.Conn = l.raw
	return nil
}

// Settings of every link. A database or a login may have others as defaults: a
// serializable transaction, for one, is refused on a follower.
var settings = map[string]string{
	"application_name":              "lsnproxy-watch",
	"default_transaction_isolation": "read committed",
	"default_transaction_read_only": "off",
	"statement_timeout":             "0",
}

// neutral is what dial starts from, because pgconn insists on a configuration it
// has parsed. It overrules what the environment holds for other clients.
const neutral = `host=/ port=5432 user=x dbname=x passfile=/dev/null sslmode=disable sslcert='' sslkey='' sslrootcert=''
 sslcertmode=allow sslnegotiation=postgres sslsni=1 connect_timeout=0 target_session_attrs=any
 min_protocol_version=3.0 max_protocol_version=3.0 channel_binding=prefer require_auth=''`

// What is taken from a server at most: in one message, till it is ready, and as
// rows of one answer. The longest of the messages is the history of timelines.
const (
	maxMessage = 1 << 20
	maxLogin   = 1 << 20
	maxRows    = 10_000
)

// dial opens a link to address (host:port; a host that begins with a slash is
// the folder of a Unix socket). more are further startup parameters. It gives up
// when o.Timeout or ctx ends.
func dial(ctx context.Context, address string, o *Options, more map[string]string) (*link, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port of %s: %w", address, err)
	}
	c, err := pgconn.ParseConfig(neutral)
	if err != nil {
		return nil, err
	}
	c.Host, c.Port, c.Fallbacks = host, uint16(port), nil
	c.User, c.Password, c.Database = o.User, o.Password, o.Database
	if o.TLS != nil && !isSocket(host) {
		c.TLSConfig = o.TLS.Clone()
		if c.TLSConfig.ServerName == "" {
			c.TLSConfig.ServerName = host
		}
	}
	c.RuntimeParams = make(map[string]string, len(settings)+len(more))
	for _, from := range []map[string]string{settings, more} {
		for k, v := range from {
			c.RuntimeParams[k] = v
		}
	}
	c.MaxProtocolMessageBodyLen = maxMessage
	var s *socket // the last, where several addresses are tried
	c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		s = &socket{conn}
		return s, nil
	}
	c.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(io.LimitReader(r, maxLogin), w)
	}
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	open, err := pgconn.ConnectConfig(ctx, c)
	if err != nil {
		// The wrapper repeats the login, the rest says what was wrong.
		if wrapper := (*pgconn.ConnectError)(nil); errors.As(err, &wrapper) {
			err = wrapper.Unwrap()
		}
		return nil, err
	}
	taken, err := open.Hijack()
	if err != nil {
		return nil, err
	}
	// A frontend of its own: the one of the login reads through what was for that.
	front := pgproto3.NewFrontend(taken.Conn, taken.Conn)
	front.SetMaxBodyLen(maxMessage)
	return &link{conn: taken.Conn, socket: s, ctx: whole, front: front, timeout: o.Timeout, opened: topology.Now()}, nil
}

func isSocket(host string) bool { return len(host) > 0 && host[0] == '/' }

// close says goodbye and closes. It may be called from any goroutine and more
// than once; a round trip under way ends with an error.
func (l *link) close() {
	l.conn.SetWriteDeadline(time.Now().Add(l.timeout))
	l.conn.Write([]byte{'X', 0, 0, 0, 4}) // Terminate
	l.conn.Close()
}

// until closes the link when ctx ends, unless release is called first. After
// release nothing of it is left running.
func (l *link) until(ctx context.Context) (release func()) {
	closed := make(chan struct{})
	// The goroutine of AfterFunc ends by itself; release waits for it.
	stop := context.AfterFunc(ctx, func() {
		l.close()
		close(closed)
	})
	return func() {
		if !stop() {
			<-closed
		}
	}
}

// begin begins a round trip, unless the watcher closes.
func (l *link) begin() error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	return l.conn.SetDeadline(time.Now().Add(l.timeout))
}

// receive reads to the end of an answer and gives each row to row. The values
// are valid only during the call. What the server said goes before what became of
// the connection.
func (l *link) receive(row func(values [][]byte) error) error {
	var failed error
	for {
		m, err := l.front.Receive()
		if err != nil {
			return cmp.Or(failed, err)
		}
		switch m := m.(type) {
		case *pgproto3.DataRow:
			if failed == nil {
				failed = row(m.Values)
			}
		case *pgproto3.ErrorResponse:
			failed = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			return failed
		}
	}
}

// query runs one statement of the simple protocol and returns the text of the
// first row's columns, or nil if there was no row.
func (l *link) query(sql string) ([]string, error) {
	rows, err := l.rows(sql)
	if len(rows) == 0 {
		return nil, err
	}
	return rows[0], err
}

// rows is query for all rows.
func (l *link) rows(sql string) ([][]string, error) {
	if err := l.begin(); err != nil {
		return nil, err
	}
	l.front.SendQuery(&pgproto3.Query{String: sql})
	if err := l.front.Flush(); err != nil {
		return nil, err
	}
	var rows [][]string
	err := l.receive(func(values [][]byte) error {
		if len(rows) == maxRows {
			return errors.New("too many rows")
		}
		row := make([]string, len(values))
		for i, v := range values {
			row[i] = string(v)
		}
		rows = append(rows, row)
		return nil
	})
	return rows, err
}

// statement is the sample: role, position, end of the log on disk, timeline, and
// which transactions are over.
//
// The role is read once, in a subquery that OFFSET keeps apart, and the rest
// follows from it, so that a promotion in between cannot mix the two: a leader
// does not become a follower without a restart, and pg_last_wal_replay_lsn() of
// a follower promoted a moment ago is what it had replayed.
//
// pg_control_checkpoint() is stale after a promotion. The file name of the
// insert position is not; on a follower the receiver knows, and while it does
// not run (or the login lacks pg_monitor) the last checkpoint is a lower bound.
const statement = `SELECT follower,
 CASE WHEN follower THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END,
 CASE WHEN follower THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_flush_lsn() END,
 CASE WHEN follower THEN COALESCE((pg_stat_get_wal_receiver()).received_tli, (pg_control_checkpoint()).timeline_id)
  ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END,
 pg_current_snapshot()
 FROM (SELECT pg_is_in_recovery() AS follower OFFSET 0) AS node`

// facts are what never changes while a link lives. The last is what
// pg_stat_get_wal_receiver() asks for.
const facts = `SELECT system_identifier, bytes_per_wal_segment, wal_block_size,
 pg_has_role('pg_read_all_stats', 'USAGE')
 FROM pg_control_system(), pg_control_init()`

// prepare makes the link ready for sample and fills in what it is told once.
func (l *link) prepare() (sample, error) {
	row, err := l.query(facts)
	if err != nil {
		return sample{}, err
	}
	if len(row) != 4 {
		return sample{}, fmt.Errorf("control file: got %d columns", len(row))
	}
	s := sample{watched: l.opened}
	system, err := strconv.ParseInt(row[0], 10, 64)
	if err != nil {
		return sample{}, fmt.Errorf("system identifier: %w", err)
	}
	s.system = uint64(system) // a bigint that is printed signed
	if s.segment, err = strconv.ParseUint(row[1], 10, 64); err != nil {
		return sample{}, fmt.Errorf("segment size: %w", err)
	}
	// What initdb allows (--wal-segsize; in src/include/access/xlog_internal.h,
	// IsValidWalSegSize): anything else is no answer to the question, to be asked again.
	if s.segment < 1<<20 || s.segment > 1<<30 || s.segment&(s.segment-1) != 0 || system == 0 {
		return sample{}, fmt.Errorf("control file: segments of %d bytes, system identifier %d", s.segment, system)
	}
	if row[2] != blockSize {
		s.unsupported = "wal_block_size is " + row[2] + ", only " + blockSize + " is supported"
	}
	l.blind = row[3] != "t"
	l.front.SendParse(&pgproto3.Parse{Name: "sample", Query: statement})
	l.front.SendSync(&pgproto3.Sync{})
	if err := l.front.Flush(); err != nil {
		return sample{}, err
	}
	if l.question, err = question(); err != nil {
		return sample{}, err
	}
	return s, l.receive(func([][]byte) error { return nil })
}

// blockSize is the one lsn.Normalize knows.
const blockSize = "8192"

// question is what asks for a sample.
func question() (b []byte, err error) {
	for _, m := range []pgproto3.FrontendMessage{
		&pgproto3.Bind{PreparedStatement: "sample", ResultFormatCodes: []int16{pgproto3.BinaryFormat}},
		&pgproto3.Execute{}, &pgproto3.Sync{},
	} {
		if b, err = m.Encode(b); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// sample asks for one sample and fills in what changes from one to the next.
func (l *link) sample(s *sample) error {
	if err := l.begin(); err != nil {
		return err
	}
	s.begun = topology.Now()
	if _, err := l.conn.Write(l.question); err != nil {
		return err
	}
	got := false
	err := l.receive(func(values [][]byte) error {
		got = true
		return s.read(values)
	})
	if err == nil && !got {
		err = errors.New("a sample without a row")
	}
	return err
}

// read decodes the row of statement. A follower of an archive has received
// nothing, so that its third column is null.
func (s *sample) read(row [][]byte) error {
	if len(row) != 5 || len(row[0]) != 1 || len(row[1]) != 8 || len(row[2])%8 != 0 || len(row[3]) != 4 {
		return fmt.Errorf("a sample of %d columns, or with values of unexpected size: %x", len(row), row)
	}
	var ok bool
	if s.snapshot, ok = topology.ParseSnapshot(row[4]); !ok {
		return fmt.Errorf("a sample with a snapshot of unexpected size: %x", row[4])
	}
	s.leader = row[0][0] == 0
	s.at.LSN = lsn.LSN(binary.BigEndian.Uint64(row[1]))
	s.received = 0
	if len(row[2]) == 8 {
		s.received = lsn.LSN(binary.BigEndian.Uint64(row[2]))
	}
	timeline := binary.BigEndian.Uint32(row[3])
	if s.leader {
		s.at.LSN = lsn.Normalize(s.at.LSN, s.segment)
		s.at.Timeline = timeline
		return nil
	}
	// Without a receiver the answer may be an older timeline than was seen before.
	s.at.Timeline = max(s.at.Timeline, timeline)
	return nil
}
