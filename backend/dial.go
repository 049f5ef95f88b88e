package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

// Login is what a server connection is opened with.
type Login struct {
	User, Password, Database string
	Params                   []wire.Param // startup parameters, as the client gave them
}

// Dial opens a connection to address, which is host:port, or folder:port for
// the Unix socket in that folder, and logs in. It blocks, so it runs off the
// loops; the caller then attaches the connection to a loop with Adopt or drops
// it with Close. An error from the server is a *pgconn.PgError.
func Dial(ctx context.Context, node int, address string, login Login) (*Conn, error) {
	h, err := logIn(ctx, address, login, maxLogin, maxLogin)
	if err != nil {
		return nil, err
	}
	peer := h.Conn.RemoteAddr()
	fd, err := reactor.Take(h.Conn)
	if err != nil {
		return nil, err
	}
	return &Conn{
		Node: node, Params: h.ParameterStatuses, Opened: topology.Now(), Born: time.Now(),
		peer: peer, pid: h.PID, key: h.SecretKey, fd: fd,
	}, nil
}

// maxLogin bounds what a server may say before it is ready, and so each message.
// An error text may be long; what speaks another protocol announces gigabytes.
const maxLogin = 1 << 20

// What a server may answer to Ask: a catalog has a row for each function,
// relation and type, and a function's source in one of them.
const (
	maxAnswerMessage = 64 << 20
	maxAnswer        = 256 << 20
)

// logIn opens a connection and leaves it idle, with nothing read ahead. More than
// most bytes are not read from it by its Frontend.
func logIn(ctx context.Context, address string, login Login, maxMessage int, most int64) (*pgconn.HijackedConn, error) {
	config, err := configFor(address, login)
	if err != nil {
		return nil, err
	}
	config.DialFunc = (&net.Dialer{KeepAlive: -1}).DialContext // a connection that is kept is the reactor's
	config.MaxProtocolMessageBodyLen = maxMessage
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(io.LimitReader(r, most), w)
	}
	pg, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	err = pg.SyncConn(ctx)
	var h *pgconn.HijackedConn
	if err == nil {
		h, err = pg.Hijack()
	}
	if err != nil {
		_ = pg.Close(ctx)
		<-pg.CleanupDone()
		return nil, err
	}
	return h, nil
}

// configFor builds the whole configuration by hand: what pgconn would take from
// PG variables and password files of the proxy's environment has no business in
// a client's login.
func configFor(address string, login Login) (*pgconn.Config, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port of %s: %w", address, err)
	}
	config := plain.Copy()
	config.Host, config.Port = host, uint16(port)
	config.User, config.Password, config.Database = login.User, login.Password, login.Database
	config.RuntimeParams = make(map[string]string, len(login.Params))
	for _, p := range login.Params {
		config.RuntimeParams[p.Name] = p.Value
	}
	return config, nil
}

// plain is the configuration that every login starts from. pgconn accepts only
// one that it has parsed itself.
var plain = parsePlain()

// parsePlain says everything that the environment could say otherwise, but for
// PGSERVICE, which nothing overrides: while the program is being initialised and
// nobody else looks, it is taken away.
func parsePlain() *pgconn.Config {
	if service, ok := os.LookupEnv("PGSERVICE"); ok {
		_ = os.Unsetenv("PGSERVICE")
		defer os.Setenv("PGSERVICE", service)
	}
	config, err := pgconn.ParseConfig("host=localhost port=5432 dbname=x user=x password=x passfile='' servicefile=''" +
		" sslmode=disable sslrootcert='' sslcert='' sslkey='' sslpassword='' sslsni=1 sslcertmode=disable sslnegotiation=''" +
		" target_session_attrs=any connect_timeout=0 channel_binding=prefer require_auth=''" +
		" min_protocol_version=3.0 max_protocol_version=3.0")
	if err != nil {
		panic(fmt.Sprintf("backend: %v", err)) // the text is constant
	}
	return config
}

// Ask opens a connection of its own to address, runs one simple query and
// returns the rows of all its results as text, NULL as empty text. It blocks, so
// it runs off the loops.
func Ask(ctx context.Context, address string, login Login, sql string) ([][]string, error) {
	h, err := logIn(ctx, address, login, maxAnswerMessage, maxAnswer)
	if err != nil {
		return nil, err
	}
	defer h.Conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = h.Conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	rows, err := query(h.Frontend, sql)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return rows, err
}

// query runs sql on a connection that is not used again.
func query(f *pgproto3.Frontend, sql string) ([][]string, error) {
	f.Send(&pgproto3.Query{String: sql})
	if err := f.Flush(); err != nil {
		return nil, err
	}
	var rows [][]string
	var refused error
	for {
		msg, err := f.Receive()
		if err != nil {
			return nil, errors.Join(refused, err)
		}
		switch msg := msg.(type) {
		case *pgproto3.DataRow:
			row := make([]string, len(msg.Values))
			for i, value := range msg.Values {
				row[i] = string(value)
			}
			rows = append(rows, row)
		case *pgproto3.ErrorResponse:
			refused = pgconn.ErrorResponseToPgError(msg)
		case *pgproto3.CopyInResponse:
			return nil, errors.New("the query wants data")
		case *pgproto3.ReadyForQuery:
			f.Send(&pgproto3.Terminate{})
			_ = f.Flush()
			if refused != nil {
				return nil, refused
			}
			return rows, nil
		}
	}
}
