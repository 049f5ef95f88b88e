// Package backend is one authenticated server connection: how it is opened,
// what is known of the server's side of it, and how a query on it is cancelled.
package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

// Login is what a server connection is opened with.
type Login struct {
	User, Password, Database string
	Params                   []wire.Param // startup parameters, as the client gave them
}

// Conn is one server connection. It is on loan to at most one session, which
// runs on the loop that Net is attached to; nobody else touches it.
type Conn struct {
	Net    *reactor.Conn     // nil until Adopt
	Node   int               // the node's ID in the View
	Params map[string]string // as the server reported them when the connection was opened
	Opened topology.Instant  // not before the server accepted the login
	Floor  lsn.Position      // a position this very connection has reported

	In         wire.Buffer // what the server sent and nobody has dealt with yet
	Statements Statements  // what is prepared on the server's side
	Cancels    int         // cancel requests on their way to this connection's server process

	// For the pool:
	Fingerprint string         // of the startup parameters it was opened with
	Born        time.Time      // when it was opened
	Idle        reactor.Runner // watches it while nobody uses it

	address string
	pid     uint32
	key     []byte
	fd      int
}

// Dial opens a connection to address and logs in. It blocks, so it runs off the
// loops; the caller then attaches the connection to a loop with Adopt or drops
// it with Close. An error from the server is a *pgconn.PgError.
func Dial(ctx context.Context, node int, address string, login Login) (*Conn, error) {
	config, err := dialConfig(address, login)
	if err != nil {
		return nil, err
	}
	pg, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := pg.SyncConn(ctx); err != nil {
		_ = pg.Close(ctx)
		return nil, err
	}
	h, err := pg.Hijack()
	if err != nil {
		_ = pg.Close(ctx)
		return nil, err
	}
	fd, err := takeFD(h.Conn)
	if err != nil {
		return nil, err
	}
	return &Conn{
		Node: node, Params: h.ParameterStatuses, Opened: topology.Now(), Born: time.Now(),
		address: address, pid: h.PID, key: h.SecretKey, fd: fd,
	}, nil
}

// dialConfig builds the whole configuration by hand: what pgconn would take
// from PG* variables and password files of the proxy's environment has no
// business in a client's login.
func dialConfig(address string, login Login) (*pgconn.Config, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port of %s: %w", address, err)
	}
	config, err := pgconn.ParseConfig("host=localhost sslmode=disable")
	if err != nil {
		return nil, err
	}
	config.Host, config.Port = host, uint16(port)
	config.User, config.Password, config.Database = login.User, login.Password, login.Database
	config.TLSConfig, config.Fallbacks, config.ValidateConnect = nil, nil, nil
	config.MinProtocolVersion, config.MaxProtocolVersion = "3.0", "3.0"
	config.RuntimeParams = make(map[string]string, len(login.Params))
	for _, p := range login.Params {
		config.RuntimeParams[p.Name] = p.Value
	}
	return config, nil
}

// takeFD takes the socket away from the runtime's poller, to be handed to a loop.
func takeFD(c net.Conn) (int, error) {
	defer c.Close()
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return -1, fmt.Errorf("a server connection of type %T cannot be attached to a loop", c)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(s uintptr) {
		fd, dupErr = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return -1, err
	}
	return fd, dupErr
}

// Adopt attaches a dialed or detached connection to loop l. It runs on l.
func (c *Conn) Adopt(l *reactor.Loop) error {
	if c.Net != nil {
		return l.Attach(c.Net)
	}
	net, err := l.Adopt(c.fd)
	if err != nil {
		_ = unix.Close(c.fd)
		return err
	}
	c.fd, c.Net = -1, net
	return nil
}

// Close drops the connection, politely if the socket takes a Terminate at once.
// If it is attached to a loop, Close runs on that loop.
func (c *Conn) Close() {
	if c.Net == nil {
		_ = unix.Close(c.fd)
		return
	}
	_, _ = c.Net.TryWrite(wire.AppendTerminate(nil))
	_ = c.Net.Close()
}

// cancelTimeout bounds how long a cancel request may take to be delivered.
const cancelTimeout = 5 * time.Second

// Cancel asks the server to cancel what runs on this connection. It blocks, so
// it runs off the loops. When it returns nil the server has sent the signal: the
// postmaster's child closes the cancel connection after that
// (processCancelRequest in postmaster.c).
func (c *Conn) Cancel() error {
	n, err := net.DialTimeout("tcp", c.address, cancelTimeout)
	if err != nil {
		return err
	}
	defer n.Close()
	if err := n.SetDeadline(time.Now().Add(cancelTimeout)); err != nil {
		return err
	}
	if _, err := n.Write(wire.AppendCancelRequest(nil, c.pid, c.key)); err != nil {
		return err
	}
	var b [1]byte
	_, _ = n.Read(b[:]) // end of file, or a reset: either way it is done
	return nil
}

// Unavailable reports whether a failed Dial means that the server cannot be
// reached or does not take connections just now, as opposed to a refusal of
// this login.
func Unavailable(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return true
	}
	return pg.Code == "57P03" || pg.Code == "57P01" || pg.Code == "57P02"
}

// ErrorOf turns the error of a failed Dial into what the client is told: the
// server's own words where it had any.
func ErrorOf(err error) *wire.Error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return &wire.Error{Severity: "FATAL", Code: pg.Code, Message: pg.Message, Detail: pg.Detail, Hint: pg.Hint}
	}
	return &wire.Error{Severity: "FATAL", Code: "08001", Message: "could not connect to the server", Detail: rootCause(err).Error()}
}

// rootCause drops pgconn's summary of host, user and database, which names
// addresses a client need not see.
func rootCause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// Ask opens a connection of its own to address, runs one query and returns its
// rows as text. It blocks, so it runs off the loops.
func Ask(ctx context.Context, address string, login Login, sql string) ([][]string, error) {
	config, err := dialConfig(address, login)
	if err != nil {
		return nil, err
	}
	pg, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer pg.Close(ctx)
	results, err := pg.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, result := range results {
		for _, r := range result.Rows {
			row := make([]string, len(r))
			for i, column := range r {
				row[i] = string(column)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}
