package session

import (
	"context"
	"errors"

	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/wire"
)

// Console is a database that is none: what operators ask there the proxy itself
// answers.
type Console struct {
	Database string
	Version  string                                                              // that clients are told
	Admits   func(user string) bool                                              // whether a user may connect
	Run      func(ctx context.Context, user, statements string) ([]Table, error) // may take its time; a *wire.Error says what to tell
}

// Table is the answer to one statement of the console.
type Table struct {
	Columns []string // nil: there are no rows to be
	Rows    [][]string
	Tag     string
}

// params are what drivers expect to be told of a server.
func (c *Console) params() map[string]string {
	return map[string]string{
		"server_version": c.Version, "server_encoding": "UTF8", "client_encoding": "UTF8", "DateStyle": "ISO, MDY",
		"TimeZone": "UTC", "integer_datetimes": "on", "standard_conforming_strings": "on", "is_superuser": "off",
	}
}

// console serves an operator until they leave. It returns an error always, which
// ends the session. Its task runs as long as the session does: operators are few.
func (s *session) console(startup wire.Startup) error {
	c := s.srv.options.Console
	if !c.Admits(startup.User) {
		return &wire.Error{
			Code: "28000", Message: `user "` + startup.User + `" may not use the console`,
			Hint: "The proxy's console.users lists who may.",
		}
	}
	s.relaying = true // as for closing it
	s.request.Login.Database, s.request.Login.User = startup.Database, startup.User
	if err := s.srv.register(s, Policy{}, startup.Version >= wire.Version32); err != nil {
		return err
	}
	if _, err := s.client.Write(s.hello(greetingOf(c.params()))); err != nil {
		return errEnd
	}
	for {
		typ, size, err := s.consoleMessage()
		if err != nil {
			return err
		}
		var answer []byte
		if size <= s.in.Len() {
			answer, err = s.consoleAnswer(c, typ, wire.Body(s.in.Bytes()[:size]))
			s.in.Consume(size)
		} else {
			answer, err = s.consoleRefusal(typ, errTooLong), s.consoleSkip(size)
		}
		if err != nil {
			return err
		}
		if _, err := s.client.Write(answer); err != nil {
			return errEnd
		}
	}
}

// consoleMessage awaits the next message: its type and its size with all of it in the
// buffer, or, if it does not fit there, with less.
func (s *session) consoleMessage() (typ byte, size int, err error) {
	for {
		typ, size, ok, err := wire.Header(s.in.Bytes())
		if err != nil || ok && (size > BufferSize || s.in.Len() >= size) {
			return typ, size, err
		}
		if err := s.consoleRead(); err != nil {
			return 0, 0, err
		}
	}
}

// consoleRead reads more of what the client sends.
func (s *session) consoleRead() error {
	for !s.client.Readable() {
		if s.srv.closing.Load() {
			return errClosed
		}
		s.task.Wait(noDeadline, reactor.Interest{Conn: s.client})
	}
	return s.fill()
}

// consoleSkip reads a message of that size past.
func (s *session) consoleSkip(size int) error {
	for {
		n := min(size, s.in.Len())
		s.in.Consume(n)
		if size -= n; size == 0 {
			return nil
		}
		if err := s.consoleRead(); err != nil {
			return err
		}
	}
}

// consoleAnswer answers one message. The extended protocol is refused as in PgBouncer's
// console: an error, and then nothing until Sync, where s.aborted stands for it.
func (s *session) consoleAnswer(c *Console, typ byte, body []byte) (answer []byte, err error) {
	switch typ {
	case wire.Terminate:
		return nil, errEnd
	case wire.Query:
		text, _, ok := wire.CString(body)
		if !ok {
			return nil, &wire.Error{Code: "08P01", Message: "invalid string in message"}
		}
		return s.consoleQuery(c, string(text)), nil
	case wire.Sync:
		s.aborted = false
		return wire.AppendReadyForQuery(nil, wire.Idle), nil
	case wire.Parse, wire.Bind, wire.Describe, wire.Execute, wire.Close, wire.FunctionCall:
		return s.consoleRefusal(typ, errSimpleOnly), nil
	case wire.Flush, wire.CopyData, wire.CopyDone, wire.CopyFail:
		return nil, nil
	default:
		return nil, &wire.Error{Code: "08P01", Message: "invalid frontend message type"}
	}
}

// consoleRefusal answers a message that is not taken: an error to those that are
// answered, once until Sync to those of the extended protocol.
func (s *session) consoleRefusal(typ byte, why *wire.Error) []byte {
	switch typ {
	case wire.Query, wire.FunctionCall:
		return wire.AppendReadyForQuery(why.Append(nil), wire.Idle)
	case wire.Parse, wire.Bind, wire.Describe, wire.Execute, wire.Close:
		if s.aborted {
			return nil
		}
		s.aborted = true
		return why.Append(nil)
	default:
		return nil
	}
}

var errTooLong = &wire.Error{Code: "54000", Message: "the statement is too long for the console"}

var errSimpleOnly = &wire.Error{
	Code: "0A000", Message: "the console takes simple queries only, no prepared ones",
	Hint: "Use psql, or tell the driver to use the simple query protocol.",
}

// consoleQuery answers the statements of one Query: all up to the first that fails.
func (s *session) consoleQuery(c *Console, text string) (answer []byte) {
	var tables []Table
	var err error
	user := s.request.Login.User
	s.task.Offload(func() { tables, err = c.Run(s.srv.ctx, user, text) })
	for _, t := range tables {
		if t.Columns != nil {
			answer = wire.AppendRowDescription(answer, t.Columns)
		}
		for _, row := range t.Rows {
			answer = wire.AppendDataRow(answer, row...)
		}
		answer = wire.AppendCommandComplete(answer, t.Tag)
	}
	var told *wire.Error
	switch {
	case errors.As(err, &told):
		answer = told.Append(answer)
	case err != nil:
		told = &wire.Error{Code: "XX000", Message: err.Error()}
		answer = told.Append(answer)
	case len(tables) == 0:
		answer = wire.AppendEmpty(answer, wire.EmptyQueryResponse)
	}
	return wire.AppendReadyForQuery(answer, wire.Idle)
}
