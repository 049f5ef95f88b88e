package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// statement is SQL with parameters $1 to $4, all of them bigint.
type statement struct {
	name string // for Named
	sql  string
	args []int64
}

// request is what stands under one Query or one Sync, and so gets one
// ReadyForQuery.
type request struct {
	way        Way
	statements []statement // exactly one unless way is Query
}

// result is one statement's answer, in text.
type result struct {
	rows [][]string // a NULL is the empty string: no column here is null
	tag  string
}

// answer is what one request came to.
type answer struct {
	results []result
	parsed  bool            // a Parse succeeded, whatever came after it
	err     *pgconn.PgError // nil if every statement succeeded
}

// client is one connection on which whole flights of requests are sent and
// their answers read. It does not use pgconn's own calls because a flight may
// hold any mixture of protocols, several Syncs and several Queries.
type client struct {
	address string
	conn    net.Conn
	front   *pgproto3.Frontend
	timeout time.Duration
	status  byte              // transaction status of the last ReadyForQuery
	told    map[string]string // parameters as they were reported last
	stop    func() bool       // stops watching the context
	named   map[string]bool   // statement names the server knows
}

func connect(ctx context.Context, o Options, address string) (*client, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	config, err := pgconn.ParseConfig(fmt.Sprintf(
		"host=%s port=%s sslmode=disable connect_timeout=%d", host, port, int(o.Timeout.Seconds())+1))
	if err != nil {
		return nil, err
	}
	config.User, config.Database, config.Password = o.User, o.Database, o.Password
	config.RuntimeParams = o.Params
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	bare, err := conn.Hijack()
	if err != nil {
		return nil, err
	}
	c := &client{
		address: address, conn: bare.Conn, front: bare.Frontend, timeout: o.Timeout,
		status: bare.TxStatus, told: bare.ParameterStatuses, named: make(map[string]bool),
	}
	c.stop = context.AfterFunc(ctx, func() { bare.Conn.Close() })
	return c, nil
}

func (c *client) close() {
	c.stop()
	c.conn.SetDeadline(time.Now().Add(time.Second))
	c.front.Send(&pgproto3.Terminate{})
	c.front.Flush() // a courtesy: the server notices the end of the stream as well
	c.conn.Close()
}

// flight sends all requests at once and reads their answers. Named statements
// that the server does not know yet are prepared before, in round trips of
// their own; if it refuses one, nothing is sent and that is every answer.
//
// An error means that the connection is gone; the answers that arrived before
// are returned with it and count.
func (c *client) flight(requests ...request) ([]answer, error) {
	if err := c.conn.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return nil, err
	}
	for _, r := range requests {
		if r.way != Named {
			continue
		}
		if a, err := c.prepare(r.statements[0]); err != nil {
			return nil, err
		} else if a.err != nil {
			return slices.Repeat([]answer{a}, len(requests)), nil
		}
	}
	for _, r := range requests {
		c.send(r)
	}
	if err := c.front.Flush(); err != nil {
		return nil, err
	}
	var answers []answer
	for range requests {
		a, err := c.receive()
		if err != nil {
			return answers, err
		}
		answers = append(answers, a)
	}
	return answers, nil
}

func (c *client) send(r request) {
	if r.way == Query {
		c.front.Send(&pgproto3.Query{String: r.text()})
		return
	}
	s, name := r.statements[0], ""
	if r.way == Named {
		name = s.name
	} else {
		c.front.Send(&pgproto3.Parse{Query: s.sql})
	}
	parameters := make([][]byte, len(s.args))
	for i, v := range s.args {
		parameters[i] = strconv.AppendInt(nil, v, 10)
	}
	c.front.Send(&pgproto3.Bind{PreparedStatement: name, Parameters: parameters})
	c.front.Send(&pgproto3.Describe{ObjectType: 'P'})
	c.front.Send(&pgproto3.Execute{})
	c.front.Send(&pgproto3.Sync{})
}

// prepare makes the server know s by its name, in a round trip of its own as
// drivers do.
func (c *client) prepare(s statement) (answer, error) {
	if c.named[s.name] {
		return answer{}, nil
	}
	c.front.Send(&pgproto3.Parse{Name: s.name, Query: s.sql})
	c.front.Send(&pgproto3.Describe{ObjectType: 'S', Name: s.name})
	c.front.Send(&pgproto3.Sync{})
	if err := c.front.Flush(); err != nil {
		return answer{}, err
	}
	a, err := c.receive()
	if err == nil && a.parsed { // it stays, even if an error followed
		c.named[s.name] = true
	}
	return a, err
}

// receive reads up to ReadyForQuery. An ErrorResponse after which the
// connection ends is the error returned.
func (c *client) receive() (answer, error) {
	var a answer
	var rows [][]string
	for {
		message, err := c.front.Receive()
		if err != nil {
			if a.err != nil {
				return a, a.err
			}
			return a, err
		}
		switch m := message.(type) {
		case *pgproto3.ParseComplete:
			a.parsed = true
		case *pgproto3.DataRow:
			row := make([]string, len(m.Values))
			for i, v := range m.Values {
				row[i] = string(v)
			}
			rows = append(rows, row)
		case *pgproto3.CommandComplete:
			a.results = append(a.results, result{rows: rows, tag: string(m.CommandTag)})
			rows = nil
		case *pgproto3.ErrorResponse:
			if a.err == nil {
				a.err = pgconn.ErrorResponseToPgError(m)
			}
		case *pgproto3.ParameterStatus:
			c.told[m.Name] = m.Value
		case *pgproto3.ReadyForQuery:
			c.status = m.TxStatus
			return a, nil
		}
	}
}

// text is the request as one string with its arguments written out.
func (r request) text() string {
	texts := make([]string, len(r.statements))
	for i, s := range r.statements {
		text := s.sql
		for n, v := range s.args {
			text = strings.ReplaceAll(text, "$"+strconv.Itoa(n+1), strconv.FormatInt(v, 10))
		}
		texts[i] = text
	}
	return strings.Join(texts, "; ")
}

// lossCode names a lost connection in Result.Errors: the server's SQLSTATE if
// it told one, else what happened to the socket.
func lossCode(err error) string {
	var pgErr *pgconn.PgError
	switch {
	case errors.As(err, &pgErr):
		return pgErr.Code
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "end of stream"
	default:
		return "connection"
	}
}
